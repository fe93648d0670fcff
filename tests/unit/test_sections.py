"""Each stage between fake rings, without a NIC; the outbox; and what makes a core hot."""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path

import pytest
import sha3

from appliance.config import Core
from appliance.core import Hot
from appliance.demo.traffic import build
from barewire._native import ffi, lib
from barewire.errors import BarewireError, ConfigError
from barewire.execution.shots import Caps, ShotBook
from barewire.feeds.envelope import to_messages
from barewire.feeds.mold_publisher import MoldPublisher
from barewire.feeds.moldudp64 import MoldConfig, MoldReceiver
from barewire.mempool.decoder import Decoder, Rules
from barewire.mempool.dedup import Dedup
from barewire.mempool.record import ORIGINS
from barewire.mempool.trigger_table import TriggerTable
from barewire.mempool.triggers import Trigger
from barewire.pump import STAGES, Feed, Pump, Rings
from dpdk_bindings import Channel, open_datagram
from dpdk_bindings._native import ffi as rings_ffi
from dpdk_bindings.ring import Outbox, RingConsumer, RingKind, RingProducer

STEPS = 48  # bytes of struct bw_steps


class Wire:
    """A ring between two sections, and both its ends."""

    def __init__(self, depth=4096, payload_bytes=16 << 20):
        self.into = RingProducer.create(
            "memfd:section",
            kind=RingKind.LOSSY,
            depth=depth,
            mtu=1 << 20,
            payload_bytes=payload_bytes,
        )
        self.out = RingConsumer.open(self.into.fd)

    def close(self):
        self.into.close()
        self.out.close()


@pytest.fixture
def wires():
    made = [Wire() for _ in range(3)]
    yield made
    for wire in made:
        wire.close()


@pytest.fixture(scope="module")
def envelopes():
    return build(600, 5, lambda _: None)


@pytest.fixture
def triggers():
    with TriggerTable([Trigger("all")]) as table:
        yield table


def receiver():
    return MoldReceiver(MoldConfig(lines=1, ask=False))


def test_each_stage_alone_between_rings(wires, envelopes, triggers):
    """Datagrams in at one end, matches out at the other: three cuts, four stages."""
    feed, decode, trigger = (
        Pump(
            [Feed("fake", None, receiver(), [0])],
            stages=("feed", "feed"),
            rings=Rings(before=wires[0].out.handle, after=wires[1].into.handle),
        ),
        Pump(
            decoder=Decoder(Rules.preset("prague", 1)),
            stages=("decode", "decode"),
            rings=Rings(before=wires[1].out.handle, after=wires[2].into.handle),
        ),
        Pump(
            triggers=triggers,
            dedup=Dedup(),
            stages=("trigger", "trigger"),
            rings=Rings(before=wires[2].out.handle),
        ),
    )
    publisher = MoldPublisher("FAKE")
    seen, origins = [], []

    def flow():
        for pump in (feed, decode):
            for _ in range(40):
                pump.turn()
        for _ in range(40):
            for match in trigger.matches(trigger.turn()):
                seen.append(match.tx.hash.hex())
                origins.append(match.tx.origin)

    for number, envelope in enumerate(envelopes):
        origin = ORIGINS[number % len(ORIGINS)]
        for datagram in publisher.pack(to_messages(envelope, 1450, number, origin=origin)):
            for _copy in range(2):
                wires[0].into.publish(bytes(STEPS) + datagram)
        if number % 20 == 0:
            flow()
    wires[0].into.publish(bytes(STEPS) + publisher.pack([b"Tgarbage"])[0])
    flow()
    assert seen == [sha3.keccak_256(envelope).hexdigest() for envelope in envelopes]
    assert origins == [ORIGINS[number % len(ORIGINS)] for number in range(len(envelopes))]
    assert feed.stats()["handed_on"] == len(envelopes) + 1
    assert decode.stats()["transactions"] == decode.stats()["handed_on"] == len(envelopes)
    assert decode.stats()["refused"] == 1
    assert trigger.stats()["matched"] == len(envelopes)
    assert wires[0].out.overruns == 0
    for pump in (feed, decode, trigger):
        pump.close()


def test_what_no_core_in_front_would_publish_is_passed_over(wires, triggers):
    feed = Pump(
        [Feed("fake", None, receiver(), [0])],
        stages=("feed", "feed"),
        rings=Rings(before=wires[0].out.handle, after=wires[1].into.handle),
    )
    decode = Pump(
        decoder=Decoder(Rules.preset("prague", 1)),
        stages=("decode", "decode"),
        rings=Rings(before=wires[1].out.handle, after=wires[2].into.handle),
    )
    trigger = Pump(
        triggers=triggers,
        dedup=Dedup(),
        stages=("trigger", "trigger"),
        rings=Rings(before=wires[2].out.handle),
    )
    for length in (0, 1, STEPS - 1, STEPS, STEPS + 1, STEPS + 384, STEPS + 400):
        for wire in wires:
            wire.into.publish(bytes([0xC0]) * length)
    for _ in range(5):
        assert [pump.turn() for pump in (feed, decode, trigger)] == [0, 0, 0]
    for pump in (feed, decode, trigger):
        pump.close()


def test_a_slow_core_is_overrun_and_knows(envelopes, triggers):
    wire = Wire(depth=64)
    pump = Pump(
        decoder=Decoder(Rules.preset("prague", 1)),
        triggers=triggers,
        dedup=Dedup(),
        stages=("decode", "trigger"),
        rings=Rings(before=wire.out.handle),
    )
    for envelope in envelopes:
        wire.into.publish(bytes(STEPS) + envelope)
    while pump.turn():
        pass
    got = pump.stats()["transactions"]
    assert 0 < got <= 64
    assert wire.out.overruns == len(envelopes) - got
    pump.close()
    wire.close()


@pytest.fixture
def lossless():
    ring = RingProducer.create("memfd:out", kind=RingKind.LOSSLESS, depth=16, mtu=2048)
    consumer = RingConsumer.open(ring.fd, seat="sender")
    yield ring, consumer
    ring.close()
    consumer.close()


def test_an_outbox_is_sent_by_the_core_that_has_the_endpoint(lossless):
    ring, consumer = lossless
    with (
        open_datagram("kernel", channels=[Channel("127.0.0.1", 0)]) as far,
        open_datagram("kernel", channels=[Channel("127.0.0.1", 0)]) as near,
    ):
        peer = near.add_peer("127.0.0.1", far.channels[0].port)
        owner = Pump(
            [Feed("fake", near.ref, None, [0])],
            stages=("receive", "receive"),
            rings=Rings(after=(wire := Wire()).into.handle, outboxes=[consumer.handle]),
            clock_mono_ns=ffi.new("uint64_t *"),  # nothing grows old
        )
        outbox = Outbox(ring, 0)
        payloads = [bytes([n]) * (n + 1) for n in range(16)]
        assert all(outbox.send(peer, payload) for payload in payloads)
        assert not outbox.send(peer, b"one too many")  # money is refused, not dropped
        assert not outbox.send(peer, bytes(4096))
        got = []
        for _ in range(2000):
            owner.turn()
            with far.recv() as burst:
                got += [bytes(burst[i]) for i in range(len(burst))]
        assert got == payloads
        assert owner.stats()["sent"] == 16
        assert outbox.send(peer, b"room again")
        assert outbox.flush()
        # No such endpoint: given up, and it does not stand in the way of others.
        assert Outbox(ring, 7).send(0, b"astray")
        assert outbox.send(peer, b"behind it")
        for _ in range(100):
            owner.turn()
        assert ring.seats()[0].behind == 0
        assert owner.stats()["sent"] == 18
        assert (owner.stats()["sends_refused"], owner.stats()["given_up_no_way"]) == (1, 1)
        owner.close()
        wire.close()


def test_what_grew_old_in_an_outbox_is_given_up_and_counted(lossless):
    ring, consumer = lossless
    with (
        open_datagram("kernel", channels=[Channel("127.0.0.1", 0)]) as far,
        open_datagram("kernel", channels=[Channel("127.0.0.1", 0)]) as near,
    ):
        peer = near.add_peer("127.0.0.1", far.channels[0].port)
        clock = ffi.new("uint64_t *")
        owner = Pump(
            [Feed("fake", near.ref, None, [0])],
            stages=("receive", "receive"),
            rings=Rings(after=(wire := Wire()).into.handle, outboxes=[consumer.handle]),
            clock_mono_ns=clock,
        )
        outbox = Outbox(ring, 0)
        now = time.monotonic_ns()
        assert outbox.send(peer, b"decided for another instant")
        clock[0] = now + 3_600_000_000_000  # the owner was held up
        owner.turn()
        clock[0] = now
        book = ShotBook(Caps(10, 10, 0, 0), unjournalled=True)
        book.arm(
            "s", b"too late", peers=[peer], expires_mono_ns=now + 5, value_wei=0, max_fee_wei=0
        )
        cause = ffi.new("struct bw_tx *", {"flags": lib.BW_TX_TRUSTED})
        out = ffi.cast("struct dpb_datagram_ref *", int(rings_ffi.cast("uintptr_t", outbox.ref)))
        assert lib.bw_shots_fire(book.native, book.numbers["s"], 0, cause, 1, now + 4, out) == 0
        clock[0] = now + 5
        owner.turn()
        assert outbox.send(peer, b"fresh")
        heard = []
        while not heard:
            owner.turn()
            with far.recv() as burst:
                heard += [bytes(one) for one in burst]
        assert heard == [b"fresh"]
        assert (owner.stats()["sent"], owner.stats()["sends_refused"]) == (1, 2)
        assert owner.stats()["given_up_late"] == 2
        owner.close()
        wire.close()


def test_a_section_without_its_parts_is_refused(wires, triggers):
    before, after = wires[0].out.handle, wires[1].into.handle
    for stages, parts in [
        (("receive", "trigger"), {}),
        (("feed", "receive"), {"rings": Rings(before=before, after=after)}),
        (("decode", "decode"), {"rings": Rings(after=after)}),
        (("decode", "decode"), {"rings": Rings(before=before)}),
        (("trigger", "trigger"), {"rings": Rings(before=before), "triggers": triggers}),
        (("feed", "feed"), {"rings": Rings(before=before, after=after)}),
    ]:
        with pytest.raises(BarewireError, match="no pump for the stages"):
            Pump(stages=stages, **parts)
    assert STAGES == ("receive", "feed", "decode", "trigger")


def test_a_core_is_pinned_named_and_left_as_it_was():
    cores = os.sched_getaffinity(0)
    name = Path("/proc/self/comm").read_text()
    with Hot(Core(name="tested", cpu=min(cores), lock_memory=False)) as hot:
        hot.settle()
        assert os.sched_getaffinity(0) == {min(cores)}
        assert Path("/proc/self/comm").read_text() == "bw-tested\n"
        hot.harden()
        assert not gc.isenabled()
        assert gc.get_freeze_count() > 0
        assert hot.chosen["cpu"] == min(cores)
        assert hot.chosen["memory"] == "not locked"
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
    assert os.sched_getaffinity(0) == cores
    assert Path("/proc/self/comm").read_text() == name


def test_fifo_warns_of_the_kernels_throttling():
    with Hot(Core(name="rt", fifo=1, lock_memory=False)) as hot:
        hot.settle()
        if os.geteuid() != 0:
            with pytest.raises(ConfigError, match="fifo = 1") as caught:
                hot.harden()
            assert "CAP_SYS_NICE" in caught.value.hint
            return
        hot.harden()
        # Its children do not inherit that.
        assert os.sched_getscheduler(0) == os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
        throttled = int(Path("/proc/sys/kernel/sched_rt_runtime_us").read_text()) != -1
        assert throttled == any("sched_rt_runtime_us" in warning for warning in hot.warnings)
    assert os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_OTHER


def test_memory_is_locked_or_it_is_said_that_it_is_not():
    with Hot(Core(name="locked")) as hot:
        hot.settle()
        hot.harden()
        locked = int(Path("/proc/self/status").read_text().split("VmLck:")[1].split()[0])
        if hot.chosen["memory"] == "locked":
            assert locked > 1000
        else:
            assert any("memory is not locked" in warning for warning in hot.warnings)


def test_a_core_that_is_not_there():
    with Hot(Core(cpu=4095)) as hot, pytest.raises(ConfigError, match="cpu = 4095"):
        hot.settle()
