"""The MoldUDP64 receiver: each number once or accounted for, whatever the lines do to it."""

from __future__ import annotations

import struct
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barewire import BarewireError
from barewire.feeds.mold_publisher import MoldPublisher
from barewire.feeds.moldudp64 import RETRANSMISSION, MoldConfig, MoldReceiver

SESSION = b"SESSION001"
MS = 1_000_000


def datagram(sequence: int, *messages: bytes, session: bytes = SESSION, count: int = -1) -> bytes:
    """Written from the specification's table, apart from the code under test."""
    n = len(messages) if count < 0 else count
    blocks = b"".join(len(m).to_bytes(2, "big") + m for m in messages)
    return session + sequence.to_bytes(8, "big") + n.to_bytes(2, "big") + blocks


def heartbeat(sequence: int, session: bytes = SESSION) -> bytes:
    return datagram(sequence, session=session)


def end(sequence: int, session: bytes = SESSION) -> bytes:
    return datagram(sequence, count=0xFFFF, session=session)


def body(sequence: int) -> bytes:
    return b"message %d" % sequence


def numbers(messages):
    return [m.sequence for m in messages]


def check_sums(receiver: MoldReceiver, first: int | None = 1) -> None:
    s = receiver.stats()
    if first is not None:
        assert s["delivered"] + s["lost"] + s["missing"] == s["next_sequence"] - first
    lines = s["lines"].values()
    assert sum(line["first"] for line in lines) == s["delivered"]
    assert s["gaps_open"] == len(receiver.open_gaps())
    open_missing = sum(
        g.missing - g.reordered - g.other_line - g.retransmitted - g.lost
        for g in receiver.open_gaps()
    )
    assert open_missing == s["missing"]
    assert (s["missing"] == 0) == (s["watermark"] == s["next_sequence"])


def test_first_copy_wins_and_the_second_is_a_duplicate():
    r = MoldReceiver()
    (m,) = r.receive(0, datagram(1, b"one"), 10)
    assert m == (1, 0, b"one")
    assert r.receive(1, datagram(1, b"one"), 11) == []
    assert numbers(r.receive(1, datagram(2, b"two", b"three"), 12)) == [2, 3]
    assert r.receive(0, datagram(2, b"two"), 13) == []
    assert r.receive(0, datagram(3, b"three"), 14) == []
    s = r.stats()
    assert (s["state"], s["session"], s["watermark"]) == ("active", "SESSION001", 4)
    assert s["lines"]["A"] | {"last_mono_ns": 0} == {
        "datagrams": 3,
        "heartbeats": 0,
        "messages": 3,
        "first": 1,
        "duplicate": 2,
        "next_sequence": 4,
        "last_mono_ns": 0,
        "refused": 0,
    }
    assert s["lines"]["B"]["first"] == 2
    assert s["gaps"] == 0


def test_nothing_waits_behind_a_gap():
    r = MoldReceiver()
    assert numbers(r.receive(0, datagram(1, b"1"), 0)) == [1]
    assert numbers(r.receive(0, datagram(3, b"3"), 5)) == [3]
    assert r.stats()["watermark"] == 2
    (gap,) = r.open_gaps()
    assert (gap.first, gap.end, gap.missing, gap.opened_mono_ns) == (2, 3, 1, 5)
    assert numbers(r.receive(1, datagram(2, b"2"), 9)) == [2]
    (gap,) = r.closed_gaps()
    assert (gap.first, gap.end, gap.other_line, gap.closed_mono_ns) == (2, 3, 1, 9)
    assert r.closed_gaps() == []
    assert r.stats()["watermark"] == 4
    assert r.stats()["gap_age_max_ns"] == 4


def test_a_gap_says_how_each_of_its_numbers_came():
    r = MoldReceiver(MoldConfig(grace_ns=100, give_up_ns=10_000))
    r.receive(0, datagram(1, b"1"), 0)
    r.receive(0, datagram(6, b"6"), 1)
    r.receive(0, datagram(2, b"2"), 2)  # late on the same line
    r.receive(1, datagram(3, b"3"), 3)
    r.receive(RETRANSMISSION, datagram(4, b"4"), 4)
    assert r.requests(10_100) == []
    (gap,) = r.closed_gaps()
    assert (gap.missing, gap.reordered, gap.other_line, gap.retransmitted, gap.lost) == (
        4,
        1,
        1,
        1,
        1,
    )
    check_sums(r)
    assert r.receive(1, datagram(5, b"5"), 10_200) == []  # was counted as lost: not again


def test_heartbeat_shows_the_loss_of_the_last_message():
    r = MoldReceiver()
    r.receive(0, datagram(1, b"1"), 0)
    assert r.receive(0, heartbeat(2), 1) == []
    assert r.stats()["gaps"] == 0
    r.receive(0, heartbeat(4), 2)
    (gap,) = r.open_gaps()
    assert (gap.first, gap.end) == (2, 4)
    assert r.stats()["lines"]["A"]["heartbeats"] == 2


def test_requests_start_after_the_grace_and_back_off():
    r = MoldReceiver(MoldConfig(grace_ns=200, retry_ns=1000, give_up_ns=100_000))
    assert r.due_mono_ns is None
    r.receive(0, datagram(1, b"1"), 0)
    r.receive(0, datagram(5, b"5"), 100)
    r.receive(0, datagram(3, b"3"), 100)
    assert r.due_mono_ns == 300
    assert r.requests(299) == []
    first, second = r.requests(300)
    assert first == (2, 1, 1, SESSION + struct.pack("!QH", 2, 1))
    assert second == (4, 1, 1, SESSION + struct.pack("!QH", 4, 1))
    assert r.due_mono_ns == 1300
    at, pauses = 300, []
    while due := r.due_mono_ns:
        if not r.requests(due):
            break
        pauses.append(due - at)
        at = due
    assert pauses == [1000, 2000, 4000, 8000, 16000, 32000, 32000]
    s = r.stats()
    assert (s["lost"], s["missing"], s["watermark"]) == (2, 0, 6)
    assert r.due_mono_ns is None


def test_progress_of_the_server_defers_the_next_request():
    r = MoldReceiver(MoldConfig(grace_ns=0, retry_ns=1000, give_up_ns=5000))
    r.receive(0, datagram(1, b"1"), 0)
    r.receive(0, heartbeat(100), 0)
    assert [(q.sequence, q.wanted) for q in r.requests(0)] == [(2, 98)]
    for n in range(2, 90):
        r.receive(RETRANSMISSION, datagram(n, b"x"), n * 500)
        assert r.requests(n * 500) == []
    (again,) = r.requests(89 * 500 + 1000)
    assert (again.sequence, again.wanted) == (90, 10)
    assert r.stats()["lost"] == 0


def test_a_long_gap_is_asked_for_in_several_requests():
    r = MoldReceiver(MoldConfig(grace_ns=0))
    r.receive(0, datagram(1, b"1"), 0)
    r.receive(0, heartbeat(200_000), 0)
    asked = [(q.sequence, q.wanted) for q in r.requests(0)]
    assert asked == [(2, 65534), (65536, 65534), (131070, 65534), (196604, 3396)]


def test_more_requests_than_fit_one_call():
    r = MoldReceiver(MoldConfig(grace_ns=0))
    for n in range(1, 2001, 2):
        r.receive(0, datagram(n, b"x"), 0)
    asked: list[int] = []
    while batch := r.requests(0):
        asked += [q.sequence for q in batch]
    assert asked == list(range(2, 2000, 2))
    assert r.stats()["gaps_open"] == 256  # the youngest entry stands for many
    check_sums(r)
    for n in range(2, 2000, 2):
        assert numbers(r.receive(1, datagram(n, b"x"), 0)) == [n]
    check_sums(r)
    assert r.stats()["missing"] == 0


def test_without_a_server_nothing_is_asked_and_gaps_are_given_up():
    r = MoldReceiver(MoldConfig(ask=False, give_up_ns=1000))
    r.receive(0, datagram(1, b"1"), 0)
    r.receive(0, datagram(3, b"3"), 0)
    assert r.due_mono_ns == 1000
    assert r.requests(999) == []
    assert r.stats()["missing"] == 1
    assert r.requests(1000) == []
    assert r.stats()["lost"] == 1


def test_late_joiner():
    r = MoldReceiver()
    assert numbers(r.receive(0, datagram(1000, b"x"), 0)) == [1000]
    assert r.stats()["gaps"] == 0
    r = MoldReceiver(MoldConfig(start=1, grace_ns=0))
    assert numbers(r.receive(0, datagram(1000, b"x"), 0)) == [1000]
    (request,) = r.requests(0)
    assert (request.sequence, request.wanted) == (1, 999)
    r = MoldReceiver(MoldConfig(start=1, window=128))
    assert numbers(r.receive(0, datagram(10**15, b"x"), 0)) == [10**15]
    s = r.stats()
    assert (s["lost"], s["missing"]) == (10**15 - 64, 63)


def test_sessions():
    r = MoldReceiver(MoldConfig(silence_ns=1000))
    other = b"SESSION002"
    r.receive(0, datagram(7, b"x"), 0)
    assert r.receive(0, datagram(1, b"y", session=other), 1) == []
    assert r.stats()["refused"]["session"] == 1
    assert r.samples()["session"] == datagram(1, b"y", session=other)
    r.receive(0, end(9), 2)
    assert r.stats()["state"] == "ended"
    assert r.stats()["missing"] == 1
    # The successor is taken at once, and from its beginning: we were there.
    assert numbers(r.receive(1, datagram(3, b"y", session=other), 3)) == [3]
    s = r.stats()
    assert (s["session"], s["sessions"], s["lost"]) == ("SESSION002", 2, 1)
    assert [(g.first, g.end) for g in r.open_gaps()] == [(1, 3)]
    # The other line is still saying that the old one has ended; it does not come back.
    r.receive(0, end(9), 4)
    r.receive(1, end(4, other), 5)
    r.receive(0, end(9), 6)
    assert r.stats()["session"] == "SESSION002"
    assert r.stats()["refused"]["session"] == 3


def test_a_publisher_that_died_without_ending_is_replaced_after_a_silence():
    r = MoldReceiver(MoldConfig(silence_ns=1000))
    r.receive(0, datagram(7, b"x"), 0)
    assert r.receive(0, datagram(1, b"y", session=b"SESSION002"), 999) == []
    assert numbers(r.receive(0, datagram(2, b"y", session=b"SESSION002"), 1000)) == [2]


def test_a_configured_session_is_the_only_one():
    r = MoldReceiver(MoldConfig(session="MINE", silence_ns=1))
    assert r.receive(0, datagram(1, b"x"), 0) == []
    mine = b"MINE      "
    assert numbers(r.receive(0, datagram(1, b"x", session=mine), 0)) == [1]
    r.receive(0, end(2, mine), 1)
    assert r.receive(0, datagram(1, b"x"), 1000) == []
    assert r.stats()["refused"]["session"] == 2
    # It ended too early, and goes on.
    assert numbers(r.receive(0, datagram(2, b"x", session=mine), 2000)) == [2]
    assert r.stats()["state"] == "active"


def test_a_publisher_that_began_anew_under_its_old_name_is_followed_after_a_silence():
    r = MoldReceiver(MoldConfig(silence_ns=1000))
    r.receive(0, datagram(500, b"x"), 0)
    assert r.receive(0, datagram(1, b"a"), 10) == []  # a late line, as far as anyone knows
    assert r.receive(0, datagram(1, b"a"), 1500) == []
    assert r.stats()["refused"]["jump"] == 1
    assert numbers(r.receive(1, datagram(1, b"a"), 1501)) == [1]
    assert numbers(r.receive(1, datagram(2, b"b"), 1502)) == [2]
    assert r.stats()["resyncs"] == 1


def test_a_jump_needs_a_second_opinion():
    r = MoldReceiver(MoldConfig(window=1024))
    r.receive(0, datagram(1, b"1"), 0)
    assert r.receive(0, datagram(2**60, b"?"), 1) == []
    assert numbers(r.receive(0, datagram(2, b"2"), 2)) == [2]
    assert r.receive(0, datagram(2**61, b"?"), 3) == []
    assert r.receive(0, datagram(5 * 10**9, b"x"), 4) == []
    assert numbers(r.receive(0, datagram(5 * 10**9 + 1, b"y"), 5)) == [5 * 10**9 + 1]
    s = r.stats()
    assert (s["refused"]["jump"], s["resyncs"]) == (3, 1)
    assert s["next_sequence"] - s["watermark"] <= 1024 - 64 + 1
    assert s["delivered"] + s["lost"] + s["missing"] == 5 * 10**9 + 1
    # The one that was not believed is in the window, so it can be recovered.
    assert numbers(r.receive(RETRANSMISSION, datagram(5 * 10**9, b"x"), 6)) == [5 * 10**9]


def test_the_end_of_numbers():
    last = 2**64 - 1
    r = MoldReceiver()
    assert numbers(r.receive(0, datagram(last - 2, b"x"), 0)) == [last - 2]
    assert numbers(r.receive(0, datagram(last - 1, b"x"), 0)) == [last - 1]
    assert r.receive(0, datagram(last, b"x", b"y"), 0) == []
    assert r.receive(0, datagram(0, b"x"), 0) == []
    assert r.stats()["refused"]["sequence"] == 2
    r.receive(0, heartbeat(last), 0)
    assert r.stats()["next_sequence"] == last
    r = MoldReceiver(MoldConfig(window=128, grace_ns=0))
    r.receive(0, datagram(last - 50, b"x"), 0)
    r.receive(0, heartbeat(last), 0)
    assert r.stats()["missing"] == 49
    assert [(q.sequence, q.wanted) for q in r.requests(0)] == [(last - 49, 49)]
    for n in range(last - 49, last):
        assert numbers(r.receive(1, datagram(n, b"x"), 0)) == [n]
    assert r.stats()["watermark"] == last


@pytest.mark.parametrize(
    ("raw", "cause"),
    [
        (b"", "short"),
        (SESSION + bytes(9), "short"),
        (datagram(0, b"x"), "sequence"),
        (datagram(1, b"x")[:-1], "truncated"),
        (datagram(1, count=3), "truncated"),
        (datagram(1, b"x", count=2), "truncated"),
        (datagram(1, b"x", count=2) + b"\0", "truncated"),
    ],
)
def test_bad_datagrams_are_refused_and_kept(raw, cause):
    r = MoldReceiver()
    assert r.receive(0, raw, 5) == []
    assert r.stats()["refused"][cause] == 1
    assert sum(r.stats()["refused"].values()) == 1
    assert r.samples() == {cause: raw}
    assert r.stats()["state"] == "waiting"
    assert r.stats()["lines"]["A"]["refused"] == 1


def test_trailing_bytes_are_odd_but_the_messages_count():
    r = MoldReceiver()
    assert numbers(r.receive(0, datagram(1, b"x") + b"pad", 0)) == [1]
    assert r.stats()["refused"]["trailing"] == 1


def test_a_line_that_is_not_configured():
    r = MoldReceiver(MoldConfig(lines=1))
    for line in (1, 7, 9, 2**32 - 1):
        assert r.receive(line, datagram(1, b"x"), 0) == []
    assert r.stats()["refused"]["line"] == 4


def test_a_full_datagram_takes_several_calls():
    r = MoldReceiver()
    many = [b"%d" % i for i in range(1000)]
    assert [m.data for m in r.receive(0, datagram(1, *many), 0)] == many
    assert r.stats()["watermark"] == 1001


def test_values_out_of_range_name_themselves():
    with pytest.raises(BarewireError, match="9 lines"):
        MoldReceiver(MoldConfig(lines=9))
    with pytest.raises(BarewireError, match="window of 1000"):
        MoldReceiver(MoldConfig(window=1000))
    with pytest.raises(BarewireError, match="'ELEVENCHARS'"):
        MoldReceiver(MoldConfig(session="ELEVENCHARS"))


LINE = st.sampled_from(["pass", "pass", "pass", "lose", "twice", "late"])


class Line:
    """What a network does to one line."""

    def __init__(self):
        self.held: list[tuple[int, bytes]] = []

    def carry(self, raw: bytes, fate: str, delay: int, at: int) -> list[bytes]:
        out = []
        if fate == "late":
            self.held.append((at + delay, raw))
        elif fate != "lose":
            out = [raw] * (2 if fate == "twice" else 1)
        out += [r for when, r in self.held if when <= at]
        self.held = [(when, r) for when, r in self.held if when > at]
        return out


@settings(max_examples=100, deadline=None)
@given(
    groups=st.lists(
        st.tuples(st.integers(1, 9), st.tuples(LINE, LINE), st.integers(1, 40)), max_size=60
    ),
    window=st.sampled_from([128, 256, 4096]),
    server=st.sampled_from(["none", "good", "lossy"]),
    dead=st.sampled_from([None, 0, 1]),
    seed=st.randoms(use_true_random=False),
)
def test_every_number_is_delivered_once_or_accounted_for(groups, window, server, dead, seed):
    """Against a model: a set of what was delivered."""
    publisher = MoldPublisher("MODEL")
    r = MoldReceiver(MoldConfig(start=1, window=window, ask=server != "none", give_up_ns=50 * MS))
    lines = [Line(), Line()]
    got: Counter[int] = Counter()
    at = 0

    def take(line, raw):
        for m in r.receive(line, raw, at * MS):
            got[m.sequence] += 1
            assert m.data == body(m.sequence)
            assert m.line == line
        check_sums(r)

    def serve():
        for request in r.requests(at * MS):
            if server == "lossy" and seed.random() < 0.5:
                continue
            for raw in publisher.answer(request.packet, "me", at * MS):
                if server == "good" or seed.random() < 0.7:
                    take(RETRANSMISSION, raw)

    for size, fates, delay in groups:
        at += 1
        first = publisher.next_sequence
        (raw,) = publisher.pack(body(n) for n in range(first, first + size))
        for line in (0, 1):
            if line != dead:
                for carried in lines[line].carry(raw, fates[line], delay, at):
                    take(line, carried)
        serve()
    for _ in range(100):
        at += 1
        for line in (0, 1):
            for carried in lines[line].carry(publisher.heartbeat(), "pass", 0, at):
                take(line, carried)
        serve()
    s = r.stats()
    sent = publisher.next_sequence - 1
    assert max(got.values(), default=1) == 1
    assert s["missing"] == 0
    assert s["delivered"] == len(got)
    assert s["delivered"] + s["lost"] == sent
    assert s["watermark"] == sent + 1
    assert s["reordered"] + s["other_line"] + s["retransmitted"] <= s["delivered"]
    if server == "good":
        assert s["lost"] == s["overflowed"]
        if window == 4096:
            assert s["lost"] == 0


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=80),
            st.builds(
                lambda s, n, c, b: s + n.to_bytes(8, "big") + c.to_bytes(2, "big") + b,
                st.sampled_from([SESSION, b"SESSION002", bytes(10)]),
                st.one_of(
                    st.integers(0, 400),
                    st.integers(0, 2**64 - 1),
                    st.integers(2**64 - 300, 2**64 - 1),
                ),
                st.sampled_from([0, 1, 2, 3, 50, 0xFFFE, 0xFFFF]),
                st.one_of(st.just(b"\0\1x" * 50), st.just(b"\0\0" * 2), st.binary(max_size=20)),
            ),
        ),
        max_size=60,
    ),
    st.lists(st.integers(0, 5000), min_size=60, max_size=60),
    st.lists(st.sampled_from([0, 1, 2, RETRANSMISSION]), min_size=60, max_size=60),
)
def test_anything_may_come(raws, steps, lines):
    r = MoldReceiver(MoldConfig(window=128, silence_ns=9000, grace_ns=100, give_up_ns=20_000))
    at = 0
    for raw, step, line in zip(raws, steps, lines, strict=False):
        at += step
        before = r.stats()
        messages = r.receive(line, raw, at)
        after = r.stats()
        assert after["delivered"] - before["delivered"] == len(messages)
        if after["sessions"] == before["sessions"] and after["resyncs"] == before["resyncs"]:
            assert len(set(numbers(messages))) == len(messages)
        r.requests(at)
        check_sums(r, first=None)
        assert r.stats()["next_sequence"] - r.stats()["watermark"] <= 64
