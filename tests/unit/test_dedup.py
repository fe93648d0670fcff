"""De-duplication against a plain dictionary, and at its bounds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barewire import BarewireError
from barewire.mempool.dedup import Dedup

hashes = st.integers(0, 40).map(lambda n: n.to_bytes(32, "little"))


@given(st.lists(st.tuples(hashes, st.integers(0, 3), st.integers(0, 50)), max_size=300))
def test_equals_a_dictionary_while_nothing_has_to_be_forgotten(asked):
    dedup = Dedup(entries=4096, max_age_ns=100)
    last: dict[bytes, int] = {}
    brought: dict[bytes, set[int]] = {}
    now = 1
    for tx_hash, source, later in asked:
        now += later
        expected = tx_hash in last and now - last[tx_hash] < 100
        assert dedup.seen(tx_hash, source=source, now_mono_ns=now) is expected
        last[tx_hash] = now
        if not expected:
            brought[tx_hash] = set()
        brought[tx_hash].add(source)
        assert dedup.sources(tx_hash) == sorted(brought[tx_hash])
    assert dedup.stats()["evicted"] == 0


def test_a_full_table_forgets_the_oldest_and_never_says_seen_wrongly():
    dedup = Dedup(entries=8, max_age_ns=10**9)
    for number in range(100):
        assert not dedup.seen(number.to_bytes(32, "big"), now_mono_ns=number + 1)
    for number in range(92, 100):
        assert dedup.seen(number.to_bytes(32, "big"), now_mono_ns=200)
    assert not dedup.seen((0).to_bytes(32, "big"), now_mono_ns=200)
    assert dedup.stats()["evicted"] == 93


def test_hashes_that_share_a_prefix_are_told_apart():
    dedup = Dedup()
    assert not dedup.seen(bytes(31) + b"\x01", now_mono_ns=1)
    assert not dedup.seen(bytes(31) + b"\x02", now_mono_ns=1)
    assert dedup.seen(bytes(31) + b"\x01", now_mono_ns=1)


def test_the_bucket_depends_on_a_secret():
    """The same eight hashes overflow one bucket under one key and not under another."""

    def evicted() -> int:
        dedup = Dedup(entries=64)
        for number in range(32):
            dedup.seen(number.to_bytes(32, "big"), now_mono_ns=1 + number)
        return dedup.stats()["evicted"]

    # 32 hashes that differ in their last bytes only fall into the bucket of their first 16 bytes.
    assert evicted() == 24
    spread = {
        tuple(index for index in range(64) if fill(Dedup(entries=64), index)) for _ in range(8)
    }
    assert len(spread) > 1


def fill(dedup: Dedup, wanted: int) -> bool:
    """Whether hash `wanted` survives 64 others."""
    for number in range(64):
        dedup.seen(number.to_bytes(16, "big") + bytes(16), now_mono_ns=1 + number)
    return dedup.seen(wanted.to_bytes(16, "big") + bytes(16), now_mono_ns=100)


@pytest.mark.parametrize("entries", [0, 7, 12, 2**29, -8])
def test_sizes_out_of_range(entries):
    with pytest.raises(BarewireError, match="entries"):
        Dedup(entries=entries)


def test_a_hash_of_the_wrong_length():
    with pytest.raises(BarewireError, match="31 bytes"):
        Dedup().seen(bytes(31), now_mono_ns=1)
    with pytest.raises(BarewireError, match="33 bytes"):
        Dedup().sources(bytes(33))


@pytest.mark.parametrize("times", [(0, 0), (0, 1), (10, 9), (10**18, 0)])
def test_a_clock_that_was_read_earlier_makes_nothing_new(times):
    dedup = Dedup(entries=8, max_age_ns=10)
    assert not dedup.seen(bytes(32), now_mono_ns=times[0])
    assert dedup.seen(bytearray(32), now_mono_ns=times[1])
    assert dedup.stats()["expired"] == 0
