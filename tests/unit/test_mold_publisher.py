"""The MoldUDP64 publisher and retransmission server, read by an independent parser."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barewire import BarewireError
from barewire.feeds.mold_publisher import MoldPublisher, ServerLimits


def parse(raw: bytes) -> tuple[bytes, int, int, list[bytes]]:
    """Session, sequence, count and messages, by the table of the specification."""
    session, sequence = raw[:10], int.from_bytes(raw[10:18], "big")
    count = int.from_bytes(raw[18:20], "big")
    at, messages = 20, []
    while at < len(raw):
        length = int.from_bytes(raw[at : at + 2], "big")
        messages.append(raw[at + 2 : at + 2 + length])
        assert len(messages[-1]) == length
        at += 2 + length
    return session, sequence, count, messages


def request(sequence: int, count: int, session: bytes = b"S         ") -> bytes:
    return session + sequence.to_bytes(8, "big") + count.to_bytes(2, "big")


@given(st.lists(st.lists(st.binary(max_size=42), max_size=20), max_size=10))
def test_messages_are_packed_in_order_and_within_the_limit(batches):
    p = MoldPublisher("S", max_datagram=64)
    expected, seen, sequence = [], [], 1
    for batch in batches:
        expected += batch
        for raw in p.pack(batch):
            assert len(raw) <= 64
            session, first, count, messages = parse(raw)
            assert (session, first, count) == (b"S         ", sequence, len(messages))
            assert count > 0
            sequence += count
            seen += messages
    assert seen == expected
    assert p.next_sequence == sequence
    assert p.stats.messages == len(expected)


def test_heartbeat_and_end():
    p = MoldPublisher("S")
    p.pack([b"x"])
    assert p.heartbeat() == request(2, 0)
    assert p.end_of_session() == request(2, 0xFFFF)


@given(st.integers(0, 30), st.integers(0, 40))
def test_answers_are_what_was_asked_for(first, count):
    p = MoldPublisher("S", max_datagram=64, store_messages=16)
    sent = [b"message %2d" % n for n in range(1, 21)]
    for message in sent:
        p.pack([message])
    answer = list(p.answer(request(first, count), "me", 0))
    numbers, messages = [], []
    for raw in answer:
        assert len(raw) <= 64
        _, sequence, n, part = parse(raw)
        assert n == len(part)
        numbers += range(sequence, sequence + n)
        messages += part
    wanted = [n for n in range(first, first + count) if 5 <= n <= 20] if first else []
    assert numbers == wanted
    assert messages == [sent[n - 1] for n in wanted]
    assert p.stats.retransmitted == len(wanted)


@pytest.mark.parametrize(
    ("raw", "cause"),
    [
        (b"", "malformed"),
        (request(1, 1) + b"x", "malformed"),
        (request(0, 1), "malformed"),
        (request(1, 0), "malformed"),
        (request(1, 1, b"OTHER     "), "session"),
        (request(100, 1), "future"),
        (request(2**64 - 1, 0xFFFF), "future"),
        (request(1, 3), "forgotten"),
    ],
)
def test_refusals(raw, cause):
    p = MoldPublisher("S", store_messages=4)
    for i in range(10):
        p.pack([b"%d" % i])
    assert list(p.answer(raw, "me", 0)) == []
    assert p.stats.refused == dict.fromkeys(p.stats.refused, 0) | {cause: 1}
    assert (p.stats.requests, p.stats.answered) == (1, 0)


def test_the_store_is_bounded_in_bytes():
    p = MoldPublisher("S", store_bytes=1000)
    for _ in range(100):
        p.pack([bytes(100)])
    (raw,) = p.answer(request(1, 100), "me", 0)
    assert parse(raw)[1:3] == (91, 10)


def test_a_source_cannot_have_more_than_its_credit():
    p = MoldPublisher(
        "S", max_datagram=64, limits=ServerLimits(datagrams_per_second=10, burst=4, sources=2)
    )
    p.pack([bytes(42)] * 100)
    assert len(list(p.answer(request(1, 3), "me", 0))) == 3
    assert len(list(p.answer(request(1, 3), "me", 0))) == 1
    assert not list(p.answer(request(1, 3), "me", 0))
    assert p.stats.refused["rate"] == 2
    assert len(list(p.answer(request(1, 3), "you", 0))) == 3
    assert len(list(p.answer(request(1, 3), "me", 200_000_000))) == 2
    assert len(list(p.answer(request(1, 9), "me", 10**12))) == 4


def test_an_answer_is_made_as_it_is_taken():
    """However much was asked for: nothing is kept, and what is forgotten meanwhile is left out."""
    p = MoldPublisher("S", max_datagram=64, store_messages=10)
    for number in range(10):
        p.pack([b"message %2d" % number * 4])
    answer = p.answer(request(1, 10), "me", 0)
    assert (p.stats.answered, p.stats.retransmitted) == (0, 0)
    assert parse(next(answer))[1:3] == (1, 1)
    p.pack([bytes(42)] * 5)
    assert p.stats.retransmitted == 1
    assert parse(next(answer))[1] == 6
    p.pack([bytes(42)] * 3)
    assert [parse(raw)[1] for raw in answer] == [9, 10]
    assert p.stats.refused["forgotten"] == 1
    assert p.stats.answered == 1


def test_what_cannot_be():
    with pytest.raises(BarewireError, match="1451 bytes"):
        MoldPublisher("S").pack([bytes(1450), bytes(1451)])
    with pytest.raises(BarewireError, match="63 bytes"):
        MoldPublisher("S", max_datagram=63)
    with pytest.raises(BarewireError, match="store of 0"):
        MoldPublisher("S", store_messages=0)
