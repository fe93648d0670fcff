"""Envelopes cut into messages and put together again, whatever happens to the pieces."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barewire import BarewireError
from barewire.feeds.envelope import Reassembler, ReassemblerConfig, to_messages
from barewire.mempool.record import ORIGINS

S = 1_000_000_000


def fragment(index: int, count: int, total: int, ident: int, piece: bytes) -> bytes:
    """Written from docs/feed-format.md, apart from the code under test."""
    head = b"F\0" + index.to_bytes(2, "big") + count.to_bytes(2, "big")
    return head + total.to_bytes(4, "big") + ident.to_bytes(8, "big") + piece


def test_a_short_envelope_is_one_message_and_crosses_uncopied():
    assert to_messages(b"\x02abc", 1450, 7) == [b"T\x02abc"]
    r = Reassembler()
    assert r.push(b"T\x02abc", 0) == b"\x02abc"
    assert r.stats()["whole"] == 1
    assert r.stats()["lent"] == 0


def test_the_longest_whole_one():
    assert len(to_messages(bytes(1449), 1450, 7)) == 1
    assert len(to_messages(bytes(1450), 1450, 7)) == 2


def test_the_format_of_fragments():
    envelope = bytes(range(50))
    assert to_messages(envelope, 18 + 20, 0x0102030405060708) == [
        fragment(0, 3, 50, 0x0102030405060708, envelope[:17]),
        fragment(1, 3, 50, 0x0102030405060708, envelope[17:34]),
        fragment(2, 3, 50, 0x0102030405060708, envelope[34:]),
    ]


@given(st.binary(min_size=1, max_size=3000), st.integers(20, 400), st.randoms())
def test_any_order_and_any_duplicates(envelope, room, random):
    messages = to_messages(envelope, room, 5)
    assert all(len(m) <= room for m in messages)
    again = [random.choice(messages) for _ in range(3)] if len(messages) > 1 else []
    wanted = messages + again
    random.shuffle(wanted)
    r = Reassembler()
    whole = [e for m in wanted if (e := r.push(m, 0)) is not None]
    assert whole == [envelope]
    s = r.stats()
    assert s["duplicate"] == len(wanted) - len(messages)
    assert (s["assembling"], s["lent"], sum(s["refused"].values())) == (0, 0, 0)


def test_sources_and_ids_do_not_mix():
    r = Reassembler()
    a, b = b"a" * 40, b"b" * 40
    pieces = {
        (source, ident): to_messages(e, 39, ident)
        for source, ident, e in ((0, 1, a), (0, 2, b), (1, 1, b))
    }
    for (source, _), messages in pieces.items():
        assert r.push(messages[0], 0, source) is None
    assert r.stats()["assembling"] == 3
    got = [r.push(messages[1], 0, source) for (source, _), messages in pieces.items()]
    assert got == [a, b, b]


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        (b"", "empty"),
        (b"T", "empty"),
        (b"X123", "type"),
        (b"F\0" + bytes(10), "header"),
        (b"O\0", "empty"),
        (b"O\5abc", "header"),
        (b"F\5" + fragment(0, 2, 10, 1, b"abcde")[2:], "header"),
        (fragment(2, 2, 10, 1, b"abcde"), "header"),
        (fragment(0, 0, 10, 1, b"abcde"), "header"),
        (fragment(0, 0, 0, 1, b""), "header"),
        (fragment(0, 3, 2, 1, b"a"), "header"),
        (fragment(0, 4, 9, 1, b"abc"), "header"),  # three of three, and nothing for the fourth
        (fragment(0, 2, 10, 1, b"abcdef"), "length"),
        (fragment(0, 2, 10, 1, b"abcd"), "length"),
        (fragment(0, 2, 2**32 - 1, 1, b"abcd"), "too_long"),
        (fragment(0, 65535, 65535, 1, b"a"), "too_long"),
    ],
)
def test_what_cannot_be_is_counted_and_kept(message, cause):
    r = Reassembler()
    assert r.push(message, 0) is None
    assert r.stats()["refused"][cause] == 1
    assert sum(r.stats()["refused"].values()) == 1
    assert r.samples() == {cause: message[:64]}
    assert r.stats()["assembling"] == 0


def test_contradictions_do_not_spoil_the_first():
    r = Reassembler()
    r.push(fragment(0, 2, 10, 1, b"abcde"), 0)
    assert r.push(fragment(0, 2, 10, 1, b"ABCDE"), 0) is None
    assert r.push(fragment(1, 2, 8, 1, b"wxyz"), 0) is None
    assert r.push(fragment(1, 3, 9, 1, b"wxy"), 0) is None
    assert r.stats()["refused"]["conflict"] == 3
    assert r.push(fragment(1, 2, 10, 1, b"fghij"), 0) == b"abcdefghij"


def test_old_ones_are_dropped():
    r = Reassembler(ReassemblerConfig(max_age_ns=5 * S))
    r.push(fragment(0, 2, 4, 1, b"ab"), 0)
    assert r.expire(5 * S) == 0
    assert r.expire(5 * S + 1) == 1
    r.push(fragment(0, 2, 4, 2, b"ab"), 6 * S)
    # The second half comes too late and starts anew.
    assert r.push(fragment(1, 2, 4, 2, b"cd"), 12 * S) is None
    assert r.stats()["expired"] == 2
    assert r.push(fragment(0, 2, 4, 2, b"ab"), 12 * S) == b"abcd"


def test_a_flood_of_beginnings_evicts_the_oldest():
    r = Reassembler(ReassemblerConfig(slots=4))
    for ident in range(100):
        r.push(fragment(0, 2, 4, ident, b"ab"), ident)
    s = r.stats()
    assert (s["assembling"], s["evicted"]) == (4, 96)
    assert r.push(fragment(1, 2, 4, 96, b"cd"), 100) == b"abcd"
    assert r.push(fragment(1, 2, 4, 95, b"cd"), 100) is None


def test_lent_envelopes_are_never_overwritten():
    from barewire._native import ffi, lib

    r = Reassembler(ReassemblerConfig(slots=1))
    out, other = ffi.new("struct bw_envelope *"), ffi.new("struct bw_envelope *")

    def push(message, into):
        return lib.bw_fragments_push(r.native, 0, message, len(message), 0, into)

    assert push(fragment(0, 2, 4, 1, b"ab"), out) == 0
    assert push(fragment(1, 2, 4, 1, b"cd"), out) == 1
    assert r.stats()["lent"] == 1
    assert push(fragment(0, 2, 4, 2, b"xy"), other) == -lib.BW_FRAGMENT_BUSY
    assert bytes(ffi.buffer(out.data, out.len)) == b"abcd"
    lib.bw_fragments_release(r.native, out)
    lib.bw_fragments_release(r.native, out)  # once more does no harm
    assert (r.stats()["lent"], r.stats()["assembling"]) == (0, 0)
    assert push(fragment(0, 2, 4, 2, b"xy"), other) == 0


def test_what_cannot_be_sent():
    with pytest.raises(BarewireError, match="0 bytes"):
        to_messages(b"", 1450, 1)
    with pytest.raises(BarewireError, match="messages of 19"):
        to_messages(bytes(5000), 19, 1)
    assert len(to_messages(bytes(4096), 19, 1)) == 4096


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.builds(
                fragment,
                st.integers(0, 5),
                st.integers(0, 5),
                st.integers(0, 20),
                st.integers(0, 5),
                st.binary(max_size=8),
            ),
        ),
        max_size=80,
    )
)
def test_anything_may_come(messages):
    r = Reassembler(ReassemblerConfig(slots=3, max_bytes=16))
    for i, message in enumerate(messages):
        envelope = r.push(message, i)
        assert envelope is None or 0 < len(envelope) <= max(16, len(message))
    s = r.stats()
    assert s["assembling"] <= 3
    assert s["lent"] == 0
    assert s["whole"] + s["pieces"] + s["duplicate"] + sum(s["refused"].values()) == len(messages)


@pytest.mark.parametrize(("number", "origin"), list(enumerate(ORIGINS)))
@pytest.mark.parametrize("size", [1, 1447, 1448, 1449, 5000])
def test_how_a_transaction_came_travels_with_it(number, origin, size):
    envelope = bytes(size)
    messages = to_messages(envelope, 1450, 7, origin=origin)
    assert all(len(message) <= 1450 for message in messages)
    if size < 1449:
        head = b"T" if origin == "announced" else bytes([ord("O"), number])
        assert messages == [head + envelope]
    r = Reassembler()
    assert [r.push(message, 0) for message in messages][-1] == envelope
    assert r.origin == origin


def test_pieces_that_disagree_about_how_it_came():
    one, _ = to_messages(bytes(2000), 1450, 7, origin="pool")
    _, other = to_messages(bytes(2000), 1450, 7)
    r = Reassembler()
    assert [r.push(one, 0), r.push(other, 0)] == [None, None]
    assert r.stats()["refused"]["conflict"] == 1
