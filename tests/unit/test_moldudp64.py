"""The MoldUDP64 receiver: each number once or accounted for, whatever the lines do to it."""

from __future__ import annotations

import struct
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barewire import BarewireError
from barewire.feeds.mold_publisher import MoldPublisher
from barewire.feeds.moldudp64 import RETRANSMISSION, MoldConfig, MoldReceiver
from tests.examples import examples

SESSION = b"SESSION001"
OTHER = b"SESSION002"
MS = 1_000_000
CONFIRMED = 8  # signs of life of a stream that is believed (docs/decisions/0003)


def datagram(sequence: int, *messages: bytes, session: bytes = SESSION, count: int = -1) -> bytes:
    """Written from the specification's table, apart from the code under test."""
    n = len(messages) if count < 0 else count
    blocks = b"".join(len(m).to_bytes(2, "big") + m for m in messages)
    return session + sequence.to_bytes(8, "big") + n.to_bytes(2, "big") + blocks


def heartbeat(sequence: int, session: bytes = SESSION) -> bytes:
    return datagram(sequence, session=session)


def end(sequence: int, session: bytes = SESSION) -> bytes:
    return datagram(sequence, count=0xFFFF, session=session)


def live(receiver: MoldReceiver, sequence: int, now: int, session: bytes = SESSION) -> None:
    """As many signs of life as confirm a stream."""
    for _ in range(CONFIRMED):
        assert receiver.receive(0, heartbeat(sequence, session), now) == []


def body(sequence: int) -> bytes:
    return b"message %d" % sequence


def numbers(messages):
    return [m.sequence for m in messages]


def check_sums(receiver: MoldReceiver, first: int | None = 1) -> None:
    s = receiver.stats()
    if first is not None:
        lost = s["lost"] + s["unconfirmed"] + s["displaced"]
        assert s["delivered"] + lost + s["missing"] == s["next_sequence"] - first
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
    live(r, 6, at)
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
    assert (r.stats()["missing"], r.stats()["unconfirmed"], r.stats()["lost"]) == (0, 1, 0)
    live(r, 4, 1001)
    assert (r.stats()["missing"], r.stats()["unconfirmed"], r.stats()["lost"]) == (0, 0, 1)


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
    assert (s["unconfirmed"], s["lost"], s["missing"]) == (10**15 - 64, 0, 63)
    live(r, 10**15 + 1, 0)
    s = r.stats()
    assert (s["unconfirmed"], s["lost"], s["missing"]) == (0, 10**15 - 64, 63)
    assert s["overflowed"] == s["lost"]


def test_sessions():
    r = MoldReceiver(MoldConfig(silence_ns=1000))
    other = OTHER
    r.receive(0, datagram(7, b"x"), 0)
    assert r.receive(0, datagram(1, b"y", session=other), 1) == []
    assert r.stats()["refused"]["session"] == 1
    assert r.samples()["session"] == datagram(1, b"y", session=other)
    live(r, 8, 1)
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


def test_a_jump_is_believed_when_eight_agree():
    r = MoldReceiver(MoldConfig(window=1024))
    for n in range(1, 10):
        r.receive(0, datagram(n, b"x"), 0)
    far = 5 * 10**9
    for n in range(far, far + CONFIRMED - 1):
        assert r.receive(0, datagram(n, b"x"), 1) == []
    r.receive(1, heartbeat(10), 2)
    for n in range(far, far + CONFIRMED - 1):
        assert r.receive(0, datagram(n, b"x"), 3) == []
    assert r.stats()["lost"] == 0
    last = far + CONFIRMED - 1
    assert numbers(r.receive(1, datagram(last, b"x"), 4)) == [last]
    s = r.stats()
    assert (s["refused"]["jump"], s["resyncs"]) == (2 * CONFIRMED - 2, 1)
    assert s["next_sequence"] - s["watermark"] <= 1024 - 64 + 1
    assert s["lost"] == s["overflowed"] > 0
    check_sums(r)
    # Those that were not believed are in the window, so they can be recovered.
    assert numbers(r.receive(RETRANSMISSION, datagram(far, b"x"), 6)) == [far]


def test_two_that_agree_on_a_far_number_do_not_make_a_running_feed_deaf():
    r = MoldReceiver()
    got = []
    for n in range(1, 200):
        got += numbers(r.receive(0, datagram(n, b"x"), n * MS))
        if n % 40 == 39:
            assert r.receive(1, datagram(10**12 + n, b"!"), n * MS) == []
            assert r.receive(1, datagram(10**12 + n + 1, b"!"), n * MS) == []
    assert got == list(range(1, 200))
    s = r.stats()
    assert (s["lost"], s["missing"], s["gaps"], s["resyncs"]) == (0, 0, 0, 0)
    assert s["refused"]["jump"] == 10


@pytest.mark.parametrize("before", [1, 3, 12])
def test_a_feed_led_astray_comes_back_to_where_it_was(before):
    """By as many datagrams as are believed; then the publisher's own are as many."""
    r = MoldReceiver(MoldConfig(grace_ns=0))
    for n in range(1, before + 1):
        r.receive(0, datagram(n, b"x"), n)
    n = 10**12
    while not r.receive(1, datagram(n, b"!"), before):
        n += 1
    assert r.stats()["next_sequence"] == n + 1
    got = []
    for n in range(before + 1, before + 20):
        got += numbers(r.receive(0, datagram(n, b"x"), before))
    end_ = before + 20
    first = got[0]
    assert first - before == (CONFIRMED if before >= CONFIRMED else 2)
    assert got == list(range(first, end_))
    assert [(g.first, g.end) for g in r.open_gaps()] == [(before + 1, first)]
    assert r.stats()["watermark"] == before + 1
    if before < CONFIRMED:  # neither was believed, so nothing was lost
        assert r.stats()["lost"] == 0


def test_a_false_number_within_the_window_costs_no_message():
    r = MoldReceiver(MoldConfig(give_up_ns=1000))
    for n in range(1, 20):
        r.receive(0, datagram(n, b"x"), n)
    r.receive(0, heartbeat(200_000), 20)
    got, at = [], 20
    for n in range(20, 100):
        at += 500  # far longer than a gap lasts of which nothing comes
        got += numbers(r.receive(n % 2, datagram(n, b"x"), at))
        r.requests(at)
    assert got == list(range(20, 100))
    # Nor do more of them push out of the window what the publisher has yet to send.
    for n in (262_000, 300_000, 500_000):
        r.receive(0, heartbeat(n), at)
    assert numbers(r.receive(0, datagram(100, b"x"), at)) == [100]


@pytest.mark.parametrize("start", [0, 1])
@pytest.mark.parametrize(
    "garbage",
    [
        datagram(2**64 - 5, b"g", session=b"\xffgarbage\0\0"),
        datagram(1, b"g", session=b"\xffgarbage\0\0"),
        heartbeat(2**64 - 1, session=bytes(10)),
        datagram(2**63, b"g"),
        end(2**62, session=OTHER),
    ],
)
def test_garbage_heard_first_does_not_keep_the_feed(start, garbage):
    r = MoldReceiver(MoldConfig(start=start, grace_ns=0))
    r.receive(0, garbage, 0)
    got = []
    for n in range(5, 40):
        got += numbers(r.receive(0, datagram(n, b"x"), n))
        if n % 5 == 2:
            r.receive(1, garbage, n)
    first = got[0]
    assert got == list(range(first, 40))
    assert first == (5 if garbage == end(2**62, OTHER) else 6)  # after an end one is enough
    s = r.stats()
    assert (s["session"], s["lost"], s["displacements"]) == ("SESSION001", 0, 1)
    asked = [(q.sequence, q.wanted) for q in r.requests(50)]
    assert asked == ([(1, first - 1)] if start else [(5, 1)] if first == 6 else [])


def test_garbage_after_a_silence_does_not_keep_the_feed():
    r = MoldReceiver(MoldConfig(silence_ns=1000, grace_ns=0))
    for n in range(1, 20):
        r.receive(0, datagram(n, b"x"), n)
    r.receive(0, datagram(10**18, b"!", session=OTHER), 5000)
    assert r.stats()["session"] == "SESSION002"
    got = []
    for n in range(20, 30):
        got += numbers(r.receive(0, datagram(n, b"x"), 5000 + n))
    assert got == list(range(21, 30))  # not from its beginning: it had never gone
    assert [(q.sequence, q.wanted) for q in r.requests(6000)] == [(20, 1)]
    assert (r.stats()["session"], r.stats()["lost"]) == ("SESSION001", 0)


def test_what_garbage_counts_for_stays_within_64_bits():
    r = MoldReceiver(MoldConfig(start=1, window=128))
    for n in range(10):
        name = b"garbage %02d" % n
        r.receive(0, heartbeat(2**64 - 10, session=name), n)
        r.receive(0, heartbeat(2**64 - 9, session=name), n)
    s = r.stats()
    assert (s["lost"], s["displaced"], s["displacements"]) == (0, 2**64 - 1, 9)
    live(r, 2**64 - 1, 10, session=b"garbage 09")
    assert r.stats()["lost"] == 2**64 - 2 - 64
    live(r, 2**64 - 1, 10, session=b"another   ")
    live(r, 2**64 - 1, 10, session=b"another   ")
    assert r.stats()["lost"] == 2**64 - 2


def test_a_publisher_restarted_at_once_under_a_new_session():
    """Two lines, 400 messages, no silence: all are delivered, the first by retransmission."""
    r = MoldReceiver(MoldConfig())
    old, new = MoldPublisher("OLD"), MoldPublisher("NEW")
    got, at = [], 0
    for publisher in (old, new):
        for n in range(1, 401):
            at += MS
            (raw,) = publisher.pack([body(n)])
            for line in (0, 1):
                got += [(publisher, m.sequence) for m in r.receive(line, raw, at)]
            for request in r.requests(at):
                for answer in publisher.answer(request.packet, "me", at):
                    for m in r.receive(RETRANSMISSION, answer, at):
                        got.append((publisher, m.sequence))
    assert Counter(got) == Counter((p, n) for p in (old, new) for n in range(1, 401))
    s = r.stats()
    assert (s["session"], s["sessions"], s["lost"], s["missing"]) == ("NEW", 2, 0, 0)
    assert s["retransmitted"] == CONFIRMED // 2 - 1
    assert s["refused"]["session"] == CONFIRMED - 1


def test_a_restart_is_noticed_through_noise():
    r = MoldReceiver()
    for n in range(1, 20):
        r.receive(0, datagram(n, b"x"), n)
    got = []
    for n in range(1, 40):
        got += numbers(r.receive(0, datagram(n, b"x", session=OTHER), 20))
        if n % 3 == 0:
            r.receive(1, datagram(n * 10**9, b"!", session=b"noise %4d" % n), 20)
    assert got == list(range(got[0], 40))
    assert got[0] < 2 * CONFIRMED
    assert r.stats()["watermark"] == 1


def test_answers_of_the_server_make_no_candidate():
    r = MoldReceiver()
    r.receive(0, datagram(1, b"x"), 0)
    for n in range(1, 50):
        assert r.receive(RETRANSMISSION, datagram(n, b"!", session=OTHER), 0) == []
        assert r.receive(RETRANSMISSION, datagram(10**9 + n, b"!"), 10**10) == []
    s = r.stats()
    assert (s["session"], s["next_sequence"]) == ("SESSION001", 2)
    assert (s["refused"]["session"], s["refused"]["jump"]) == (49, 49)


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


def test_a_young_stream_that_jumps_hands_out_nothing_twice():
    """Its first numbers are awaited from 1 on, so it goes on and does not begin again."""
    r = MoldReceiver(MoldConfig(start=1, window=128, give_up_ns=50 * MS))
    assert numbers(r.receive(0, datagram(10, *[body(n) for n in range(10, 39)]), 0))[-1] == 38
    for _ in range(2):
        assert r.receive(0, datagram(66), MS) == []
    assert r.receive(1, datagram(12, body(12)), 2 * MS) == []
    assert numbers(r.receive(1, datagram(5, body(5)), 2 * MS)) == [5]
    check_sums(r)
    assert r.stats()["next_sequence"] == 66


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


@examples(30, 500)
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
    sent = publisher.next_sequence - 1
    end = at + 100
    last = at + 50 * (sent + 2)  # each number that comes keeps its gap for 50 ms more
    while at < end or (r.open_gaps() and at < last):
        at += 1
        for line in (0, 1):
            for carried in lines[line].carry(publisher.heartbeat(), "pass", 0, at):
                take(line, carried)
        serve()
    s = r.stats()
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


SPOOFS = st.one_of(
    st.tuples(
        st.sampled_from([b"SPOOF     ", OTHER, bytes(10)]),
        st.one_of(st.integers(1, 400), st.integers(1, 2**64 - 20)),
    ),
    st.tuples(st.just(SESSION), st.integers(10_000, 2**64 - 20)),
)


@examples(20, 300)
@given(
    steps=st.lists(
        st.tuples(
            st.integers(1, 3),
            st.tuples(LINE, LINE),
            st.integers(1, 5),
            SPOOFS,
            st.lists(st.sampled_from(["data", "data", "heartbeat", "end"]), max_size=CONFIRMED - 1),
            st.integers(0, 1),
        ),
        max_size=30,
    ),
    already=st.integers(CONFIRMED, 20),
)
def test_a_spoofer_changes_nothing_of_what_is_delivered(steps, already):
    """Fewer than eight, agreeing with each other, between two signs of life of the feed."""
    publisher = MoldPublisher(SESSION.decode())
    config = MoldConfig(window=4096, give_up_ns=10 * MS, grace_ns=MS)
    plain, spoofed = MoldReceiver(config), MoldReceiver(config)
    for n in range(1, already + 1):
        (raw,) = publisher.pack([body(n)])
        assert plain.receive(0, raw, 0) == spoofed.receive(0, raw, 0)
    lines = [Line(), Line()]
    for at, (size, fates, delay, (session, sequence), kinds, line) in enumerate(steps, 1):
        raws = [publisher.pack([body(publisher.next_sequence)])[0] for _ in range(size)]
        for i, fate in enumerate(fates):
            for raw in raws:
                for carried in lines[i].carry(raw, fate, delay, at):
                    messages = plain.receive(i, carried, at * MS)
                    assert spoofed.receive(i, carried, at * MS) == messages
        alive = publisher.heartbeat()
        assert plain.receive(0, alive, at * MS) == spoofed.receive(0, alive, at * MS)
        for n, kind in enumerate(kinds):
            count = {"data": -1, "heartbeat": 0, "end": 0xFFFF}[kind]
            said = [b"!"] if kind == "data" else []
            raw = datagram(sequence + n, *said, count=count, session=session)
            assert spoofed.receive(line, raw, at * MS) == []
        assert plain.requests(at * MS) == spoofed.requests(at * MS)
    a, b = plain.stats(), spoofed.stats()
    for name in ("state", "session", "watermark", "next_sequence", "delivered", "missing", "lost"):
        assert a[name] == b[name]
    assert plain.closed_gaps() == spoofed.closed_gaps()


@examples(20, 300)
@given(
    before=st.lists(LINE, min_size=CONFIRMED, max_size=30),
    after=st.lists(st.tuples(st.integers(1, 9), st.tuples(LINE, LINE)), min_size=1, max_size=40),
    delay=st.integers(1, 20),
    ended=st.booleans(),
    server=st.booleans(),
)
def test_every_message_of_a_restarted_publisher_is_accounted_for(
    before, after, delay, ended, server
):
    """While copies of the old session are still under way on one line."""
    old, new = MoldPublisher("OLD"), MoldPublisher("NEW")
    r = MoldReceiver(MoldConfig(ask=server, give_up_ns=50 * MS))
    lines = [Line(), Line()]
    got: Counter[bytes] = Counter()
    at = 0

    def send(raw, fates):
        for line, fate in enumerate(fates):
            for carried in lines[line].carry(raw, fate, delay, at):
                got.update(m.data for m in r.receive(line, carried, at * MS))
        for request in r.requests(at * MS):
            for publisher in (old, new):
                for raw in publisher.answer(request.packet, "me", at * MS):
                    got.update(m.data for m in r.receive(RETRANSMISSION, raw, at * MS))
        check_sums(r, first=None)

    for fate in before:
        at += 1
        (raw,) = old.pack([b"old %d" % old.next_sequence])
        send(raw, ("pass", fate))
    if ended:
        send(old.end_of_session(), ("pass", "late"))
    for size, fates in after:
        at += 1
        (raw,) = new.pack(b"new %d" % (new.next_sequence + i) for i in range(size))
        send(raw, fates)
    for _ in range(100):
        at += 1
        send(new.heartbeat(), ("pass", "pass"))
    s = r.stats()
    sent = new.next_sequence - 1
    assert max(got.values()) == 1
    assert (s["session"], s["sessions"], s["watermark"]) == ("NEW", 2, sent + 1)
    assert s["delivered"] == len(got)
    assert sum(data.startswith(b"old") for data in got) == len(before)
    assert s["missing"] == s["unconfirmed"] == s["displaced"] == 0
    assert s["delivered"] - len(before) + s["lost"] == sent
    if server:
        assert s["lost"] == 0


@examples(50, 1000)
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
        assert after["lost"] >= before["lost"]
        assert after["displaced"] >= before["displaced"]
        r.requests(at)
        check_sums(r, first=None)
        assert r.stats()["next_sequence"] - r.stats()["watermark"] <= 64


def test_a_session_that_would_speak_to_a_terminal_is_told_harmlessly() -> None:
    receiver = MoldReceiver(MoldConfig())
    live(receiver, 1, 0, session=b"\x1b[2J\x07\xff\xfe\r\n\0")
    assert receiver.stats()["session"].isprintable()
    assert receiver.stats()["session"].startswith("\\x1b[2J")
