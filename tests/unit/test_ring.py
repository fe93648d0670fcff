"""Rings: what is published arrives, whole, in order, or is counted as missed."""

import contextlib
import os
import random

import pytest

from dpdk_bindings.ring import (
    RingConsumer,
    RingError,
    RingFull,
    RingKind,
    RingProducer,
    RingState,
    remove_ring,
)

BOTH = pytest.mark.parametrize("kind", list(RingKind))


@pytest.fixture
def where():
    name = f"shm:test-{os.getpid()}-{random.getrandbits(32):08x}"
    yield name
    with contextlib.suppress(RingError):
        remove_ring(name)


def take(consumer):
    return [(consumer.records[i].seq, consumer.records.copy(i)) for i in range(consumer.poll())]


@BOTH
def test_records_arrive_whole_and_in_order(kind):
    rng = random.Random(7)
    with RingProducer.create("memfd:t", kind=kind, depth=16, mtu=700, payload_bytes=4096) as ring:
        with RingConsumer.open(ring.fd, seat="one") as consumer:
            number = 0
            for _ in range(400):
                sent = []
                for _ in range(rng.randrange(6)):
                    payload = rng.randbytes(rng.randrange(701))
                    number += 1
                    assert ring.publish(payload, filter_word=number << 40) == number
                    sent.append((number, payload))
                got = take(consumer)
                assert [consumer.records[i].filter >> 40 for i in range(len(got))] == [
                    seq for seq, _ in got
                ]
                assert got == sent
                if kind is RingKind.LOSSLESS:
                    consumer.acknowledge()
            assert consumer.overruns == consumer.corrupt == 0


def test_everything_about_a_record_travels():
    with RingProducer.create("memfd:t", kind=RingKind.LOSSY, depth=4, mtu=64) as ring:
        with RingConsumer.open(ring.fd) as consumer:
            ring.publish(bytearray(b"\x01\x02"), filter_word=2**64 - 1, kind=0xFFFF, user=2**63)
            ring.publish(b"")
            assert consumer.poll() == 2
            record = consumer.records[0]
            assert (record.filter, record.kind, record.user) == (2**64 - 1, 0xFFFF, 2**63)
            assert record.publish_mono_ns > 0
            assert [consumer.records.copy(i) for i in (0, 1)] == [b"\x01\x02", b""]
            assert consumer.records.checksum() == 0x0201 + 2
            with pytest.raises(IndexError, match="record 2 of 2"):
                consumer.records.payload(2)


def test_a_burst_goes_from_one_ring_into_another_as_it_is():
    options = {"depth": 64, "mtu": 64}
    with (
        RingProducer.create("memfd:a", kind=RingKind.LOSSY, **options) as first,
        RingProducer.create("memfd:b", kind=RingKind.LOSSLESS, **options) as second,
        RingConsumer.open(first.fd) as between,
        RingConsumer.open(second.fd, seat="end") as end,
    ):
        for i in range(50):
            first.publish(bytes([i]) * i, user=i)
        assert second.publish_burst(between.records.array, between.poll()) == 50
        assert end.poll() == 50
        assert all(end.records.copy(i) == bytes([i]) * i for i in range(50))
        assert [end.records[i].user for i in range(50)] == list(range(50))


def test_a_lossy_consumer_counts_exactly_what_it_missed():
    rng = random.Random(3)
    with RingProducer.create(
        "memfd:t", kind=RingKind.LOSSY, depth=8, mtu=1024, payload_bytes=4096
    ) as ring:
        consumers = [RingConsumer.open(ring.fd) for _ in range(3)]
        taken = [0, 0, 0]
        for i in range(1, 3000):
            ring.publish(i.to_bytes(8, "big") * rng.randrange(1, 128), user=i)
            for which, consumer in enumerate(consumers):
                if rng.random() < (0.9, 0.2, 0.02)[which]:
                    for seq, payload in take(consumer):
                        taken[which] += 1
                        assert {payload[j : j + 8] for j in range(0, len(payload), 8)} == {
                            seq.to_bytes(8, "big")
                        }
        for which, consumer in enumerate(consumers):
            while got := take(consumer):
                taken[which] += len(got)
            assert taken[which] + consumer.overruns == 2999
            assert consumer.corrupt == 0
            consumer.close()
        assert taken[0] > taken[1] > taken[2] > 0


def test_large_payloads_take_the_space_of_older_records_before_their_slots():
    with RingProducer.create(
        "memfd:t", kind=RingKind.LOSSY, depth=1024, mtu=2048, payload_bytes=4096
    ) as ring:
        consumer = RingConsumer.open(ring.fd, start="oldest")
        for i in range(60):
            ring.publish(bytes([i]) * 64)
        ring.publish(b"\xff" * 2048)
        status = ring.producer_status()
        assert status.head == 61
        assert status.oldest > 1
        got = take(consumer)
        assert got[-1] == (61, b"\xff" * 2048)
        assert all(payload == bytes([seq - 1]) * 64 for seq, payload in got[:-1])
        assert consumer.overruns + len(got) == 61
        consumer.close()


def test_a_lossless_ring_refuses_and_keeps():
    with RingProducer.create("memfd:t", kind=RingKind.LOSSLESS, depth=4, mtu=64) as ring:
        for i in range(4):
            ring.publish(bytes([i]))
        with pytest.raises(RingFull, match="full, and nobody reads it"):
            ring.publish(b"x")
        slow = RingConsumer.open(ring.fd, seat="slow", start="oldest")
        fast = RingConsumer.open(ring.fd, seat="fast", start="oldest")
        assert [payload for _, payload in take(fast)] == [b"\0", b"\1", b"\2", b"\3"]
        fast.acknowledge()
        with pytest.raises(
            RingFull, match=r'seat "slow" is 4 records behind, and process \d+ lives'
        ):
            ring.publish(b"x")
        assert slow.poll() == 4
        slow.acknowledge(2)
        assert ring.publish(b"4") == 5
        assert ring.publish(b"5") == 6
        with pytest.raises(RingFull):
            ring.publish(b"x")
        assert ring.producer_status().refused == 3
        assert take(slow) == [(5, b"4"), (6, b"5")]
        slow.acknowledge(10**6)  # more than was taken: all that was
        assert [seat.acked for seat in ring.seats()] == [6, 4]
        slow.acknowledge(1)  # backwards: nothing
        assert [seat.acked for seat in ring.seats()] == [6, 4]
        slow.close()
        fast.close()


def test_lossless_payload_space_is_credit_too():
    with RingProducer.create(
        "memfd:t", kind=RingKind.LOSSLESS, depth=1024, mtu=2048, payload_bytes=4096
    ) as ring:
        consumer = RingConsumer.open(ring.fd, seat="one")
        rng = random.Random(11)
        sent, got = [], []
        for _ in range(500):
            try:
                payload = rng.randbytes(rng.randrange(2049))
                ring.publish(payload)
                sent.append(payload)
            except RingFull:
                got += [payload for _, payload in take(consumer)]
                consumer.acknowledge()
        got += [payload for _, payload in take(consumer)]
        assert got == sent
        consumer.close()


def test_the_filter_word_chooses():
    with RingProducer.create("memfd:t", kind=RingKind.LOSSLESS, depth=8, mtu=8) as ring:
        consumer = RingConsumer.open(ring.fd, seat="odd")
        consumer.choose(1, 1)
        for i in range(8):
            ring.publish(bytes([i]), filter_word=i)
        assert [payload for _, payload in take(consumer)] == [b"\1", b"\3", b"\5", b"\7"]
        assert consumer.passed == 4
        consumer.acknowledge()
        for i in range(0, 16, 2):
            ring.publish(b"", filter_word=i)
        assert consumer.poll() == 0
        consumer.acknowledge()  # gives back what was passed over
        assert ring.publish(b"", filter_word=1) == 17
        consumer.close()


def test_too_long_a_payload_is_refused_and_changes_nothing():
    with RingProducer.create("memfd:t", kind=RingKind.LOSSY, depth=4, mtu=10) as ring:
        with pytest.raises(ValueError, match=r"11 bytes of payload, and the ring's mtu is 10"):
            ring.publish(b"x" * 11)
        assert ring.publish(b"x" * 10) == 1


def test_views_end_with_the_loan():
    with RingProducer.create("memfd:t", kind=RingKind.LOSSLESS, depth=4, mtu=10) as ring:
        consumer = RingConsumer.open(ring.fd, seat="one")
        ring.publish(b"abc")
        consumer.poll()
        view = consumer.records.payload(0)
        assert view == b"abc"
        assert view.readonly
        consumer.acknowledge()
        with pytest.raises(ValueError, match="released"):
            view[0]
        consumer.close()


@BOTH
def test_what_is_sliced_from_a_view_holds_the_loan(kind):
    """What it shows would be another record's bytes by then, or no memory at all."""
    with (
        RingProducer.create("memfd:t", kind=kind, depth=4, mtu=10) as ring,
        RingConsumer.open(ring.fd, seat="one") as consumer,
    ):
        ring.publish(b"abc")
        consumer.poll()
        part = consumer.records.payload(0)[1:]
        ring.publish(b"def")
        for end in (consumer.poll, consumer.close):
            with pytest.raises(BufferError, match="made of a payload is alive"):
                end()
        assert part == b"bc"
        del part
        assert take(consumer) == [(2, b"def")]


def test_a_lossless_ring_wants_a_seat():
    with RingProducer.create("memfd:t", kind=RingKind.LOSSLESS, depth=4, mtu=8) as ring:
        for seat in ("", "x" * 40):
            with pytest.raises(RingError, match="lossless, and a seat on it has a name"):
                RingConsumer.open(ring.fd, seat=seat)
        assert ring.seats() == []


def test_a_seat_goes_to_a_successor_behind_what_was_acknowledged(where):
    with RingProducer.create(where, kind=RingKind.LOSSLESS, depth=8, mtu=8) as ring:
        first = RingConsumer.open(where, seat="journal")
        assert first.predecessor_pid == 0
        for i in range(6):
            ring.publish(bytes([i]))
        first.poll()
        first.acknowledge(2)
        with pytest.raises(RingError, match=rf'"journal" is taken, by process {os.getpid()}'):
            RingConsumer.open(where, seat="journal")
        with pytest.raises(RingError, match="which lives"):
            ring.evict("journal")
        first.close()
        assert [seat.name for seat in ring.dead_seats()] == ["journal"]
        second = RingConsumer.open(where, seat="journal")
        assert second.predecessor_pid == os.getpid()
        assert [seq for seq, _ in take(second)] == [3, 4, 5, 6]
        assert ring.dead_seats() == []
        second.close()
        ring.evict("journal")
        assert ring.seats() == []
        with pytest.raises(RingError, match='no seat is called "journal"'):
            ring.evict("journal")
        with RingConsumer.open(where, seat="other", start="oldest") as third:
            assert third.next == 1
            third.close(leave=True)
        assert ring.seats() == []


def test_seats_run_out():
    with RingProducer.create("memfd:t", kind=RingKind.LOSSLESS, depth=4, mtu=8) as ring:
        seats = [RingConsumer.open(ring.fd, seat=f"seat {i}") for i in range(32)]
        with pytest.raises(RingError, match="all 32 seats are taken"):
            RingConsumer.open(ring.fd, seat="one more")
        for seat in seats:
            seat.close()


def test_one_producer_and_what_its_successor_finds(where):
    ring = RingProducer.create(where, kind=RingKind.LOSSLESS, depth=8, mtu=100)
    assert ring.predecessor is None
    consumer = RingConsumer.open(where, seat="one")
    assert consumer.producer_status().state is RingState.BOOT
    ring.say(RingState.RUN)
    for i in range(5):
        ring.publish(bytes([i]) * 70)
    with pytest.raises(RingError, match="it has a producer, which lives"):
        RingProducer.open(where)
    status = consumer.producer_status()
    assert (status.alive, status.died, status.pid, status.epoch) == (True, False, os.getpid(), 1)
    ring.close()
    status = consumer.producer_status()
    assert (status.alive, status.died, status.state) == (False, False, RingState.HALT)
    ring = RingProducer.create(where, kind=RingKind.LOSSLESS, depth=8, mtu=100)
    assert ring.predecessor is RingState.HALT
    assert consumer.producer_status().epoch == 2
    assert ring.publish(b"next") == 6
    assert take(consumer) == [(i + 1, bytes([i]) * 70) for i in range(5)] + [(6, b"next")]
    ring.close(RingState.FAIL)
    assert consumer.producer_status().state is RingState.FAIL
    consumer.close()


def test_a_closed_ring_says_so():
    ring = RingProducer.create("memfd:t", kind=RingKind.LOSSY, depth=4, mtu=8)
    ring.close()
    ring.close()
    with pytest.raises(RingError, match="closed"):
        ring.publish(b"")
    with pytest.raises(RingError, match="closed"):
        ring.producer_status()


def test_nothing_is_acknowledged_on_a_lossy_ring():
    with RingProducer.create("memfd:t", kind=RingKind.LOSSY, depth=4, mtu=8) as ring:
        with RingConsumer.open(ring.fd) as consumer, pytest.raises(RingError, match="lossy"):
            consumer.acknowledge()
