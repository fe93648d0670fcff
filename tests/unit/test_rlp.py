"""RLP, against the rlp package."""

from __future__ import annotations

import random
import tracemalloc

import pytest
import rlp as oracle
from hypothesis import given
from hypothesis import strategies as st

from barewire.execution import rlp
from tests.examples import examples

ITEMS = st.recursive(
    st.binary(max_size=80), lambda inner: st.lists(inner, max_size=8), max_leaves=30
)


@given(ITEMS)
@examples(60, 2000)
def test_equal_to_the_rlp_package(item):
    raw = rlp.encode(item)
    assert raw == oracle.encode(item)
    assert rlp.decode(raw) == item


def test_long_items_and_numbers():
    for length in (55, 56, 255, 256, 65535, 65536):
        assert rlp.decode(rlp.encode(b"x" * length)) == b"x" * length
        assert rlp.encode([b"x" * length]) == oracle.encode([b"x" * length])
    for number in (0, 1, 127, 128, 2**64, 2**256 - 1):
        assert rlp.encode(number) == oracle.encode(number)


@given(st.binary(max_size=60))
@examples(200, 5000)
def test_what_the_strict_oracle_refuses_is_refused(raw):
    try:
        theirs = oracle.decode(raw, strict=True)
    except oracle.exceptions.DecodingError:
        with pytest.raises(ValueError, match=r".+"):
            rlp.decode(raw)
    else:
        assert rlp.decode(raw) == theirs


def test_one_bit_is_enough_to_be_another():
    rng = random.Random(4)
    good = bytearray(rlp.encode([b"a" * 60, [1, 2**64], b"", b"\x80"]))
    for _ in range(400):
        bad = bytearray(good)
        bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
        try:
            theirs = oracle.decode(bytes(bad), strict=True)
        except oracle.exceptions.DecodingError:
            with pytest.raises(ValueError, match=r".+"):
                rlp.decode(bytes(bad))
        else:
            assert rlp.decode(bytes(bad)) == theirs


def test_lists_are_nested_as_deep_as_is_said_and_cost_no_copies():
    def nested(levels: int, filling: int) -> bytes:
        item: rlp.Item = [b"x" * filling]
        for _ in range(levels - 1):
            item = [item]
        return oracle.encode(item)  # which goes deeper

    assert rlp.decode(nested(rlp.DEPTH, 3))
    deep, deeper = nested(rlp.DEPTH, 130000), nested(900, 130000)
    tracemalloc.start()
    try:
        assert rlp.decode(deep)
        with pytest.raises(ValueError, match=f"nested more than {rlp.DEPTH} deep"):
            rlp.decode(deeper)
        assert tracemalloc.get_traced_memory()[1] < 300_000
    finally:
        tracemalloc.stop()
