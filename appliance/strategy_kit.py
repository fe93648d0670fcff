"""Tests of a strategy without a network: a capture goes in, what it would have sent comes out.

    from appliance.strategy_kit import replay

    def test_it_answers_large_swaps():
        seen = replay(Backrun, "swaps.pcap", triggers=TRIGGERS, options={"depth": 3})
        assert [sent.payload for sent in seen.sent] == [...]

The native decoder, triggers and shots are those of the appliance, joined to the replay by the same
ring that joins cores; only the clock is the capture's. Each envelope is a turn of its own: what the
strategy arms because of one transaction is there for the next. Nothing leaves the process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appliance.captures import Arrived, read_timed
from appliance.conductor import Conductor
from appliance.desk import Desk
from appliance.strategy import Actions, Strategy
from barewire._native import ffi, lib
from barewire.errors import BarewireError
from barewire.execution.shots import Caps, ShotBook
from barewire.feeds.blocks import Block
from barewire.mempool.decoder import Decoder, Rules
from barewire.mempool.dedup import Dedup
from barewire.mempool.record import ORIGINS, Origin, Transaction
from barewire.mempool.trigger_table import TriggerTable
from barewire.mempool.triggers import Trigger, parse_triggers
from barewire.pump import Pump, Rings
from dpdk_bindings._native import ffi as rings_ffi
from dpdk_bindings._native import lib as rings_lib
from dpdk_bindings.ring import Outbox, RingConsumer, RingKind, RingProducer

__all__ = ["Replayed", "Sent", "replay"]

_MTU = (1 << 20) + 4096
_UNCAPPED = Caps(per_second=65536, total=2**63, total_value_wei=2**255, max_fee_wei=2**255)


@dataclass(frozen=True, slots=True)
class Sent:
    """What would have been sent.

    Attributes:
        at_ns: when, by the capture's clock.
        destination: the destination's name.
        payload: the bytes.
        cause: hash of the transaction that it answers, or None.
        shot: the shot that native code fired; None: the strategy sent it itself.
    """

    at_ns: int
    destination: str
    payload: bytes
    cause: bytes | None
    shot: str | None


@dataclass(slots=True)
class Replayed:
    """What came of a replay.

    Attributes:
        sent: in the order of sending.
        transactions: envelopes that the decoder accepted.
        refused: how many it did not, by cause.
        matched: matches handed to the strategy.
        outcomes: what asking for shots gave, by outcome.
        not_sent: what the strategy's own sends were refused for, by cause.
        errors: exceptions that the strategy raised; after the first nothing is sent.
        stalled: a call took longer than `limit_ms` of real time; nothing is sent after it.
        last_error: the last of either, with its place.
        strategy: the strategy itself, to look at.
    """

    strategy: Any
    sent: list[Sent] = field(default_factory=list)
    transactions: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    matched: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    not_sent: dict[str, int] = field(default_factory=dict)
    errors: int = 0
    stalled: bool = False
    last_error: str = ""


def replay(
    strategy: Callable[[Actions, dict[str, Any]], Strategy],
    capture: str | Path | Iterable[tuple[int, bytes] | Arrived],
    *,
    triggers: Sequence[Trigger] | list[dict[str, Any]],
    options: dict[str, Any] | None = None,
    destinations: Sequence[str] = ("gateway",),
    fork: str = "osaka",
    chain_id: int = 1,
    trusted: bool = True,
    caps: Caps = _UNCAPPED,
    limit_ms: float = 1000,
    timer_ms: float = 1000,
    blocks: Iterable[tuple[int, Block]] = (),
) -> Replayed:
    """Replays a capture into a strategy on the capture's clock.

    Args:
        strategy: its class.
        capture: a pcap or pcapng file (MoldUDP64 feeds, or a raw transaction a datagram; what
            ``barewire record`` wrote, say), of which what was sent is passed over; or envelopes
            with their times in nanoseconds, ascending.
        triggers: as in the configuration, made or as tables.
        options: what the configuration would hand to it.
        destinations: the names that it may send to.
        fork: whose rules judge the transactions.
        chain_id: of the chain they are for.
        trusted: whether their source is.
        caps: what may leave, shots and sends together; by default as good as everything.
        limit_ms: of real time, for one call.
        timer_ms: of the capture's time, between two calls of ``on_timer``.
        blocks: new blocks for ``on_block``, with their times by the same clock, ascending.

    Raises:
        BarewireError: the capture or the triggers cannot be used.
    """
    envelopes = read_timed(Path(capture)) if isinstance(capture, str | Path) else capture
    table = [t if isinstance(t, Trigger) else parse_triggers([t])[0] for t in triggers]
    told = deque(blocks)
    limits = limit_ms, timer_ms
    with _Stage(strategy, table, options or {}, destinations, caps, limits) as stage:
        for number, (at_ns, envelope, origin) in enumerate(Arrived(*one) for one in envelopes):
            if number == 0:
                began_ns = min([at_ns, *(at for at, _ in list(told)[:1])])
                stage.open(Rules.preset(fork, chain_id), began_ns)
            while told and told[0][0] <= at_ns:
                stage.take_block(*told.popleft())
            stage.take(at_ns, envelope, origin, trusted=trusted)
        for block in told:
            stage.take_block(*block)
        return stage.finish()


class _Stage:
    """The stages "decode" and "trigger" between two rings in this process."""

    def __init__(
        self,
        strategy: Callable[[Actions, dict[str, Any]], Strategy],
        triggers: Sequence[Trigger],
        options: dict[str, Any],
        destinations: Sequence[str],
        caps: Caps,
        limits: tuple[float, float],
    ) -> None:
        self._clock: Any = ffi.new("uint64_t *")
        self._record: Any = rings_ffi.new("struct dpb_record[]", 1)
        self._into = RingProducer.create(
            "memfd:replay", kind=RingKind.LOSSY, depth=64, mtu=_MTU, payload_bytes=4 << 20
        )
        self._from = RingConsumer.open(self._into.fd)
        self._left = RingProducer.create(
            "memfd:replayed", kind=RingKind.LOSSLESS, depth=4096, mtu=65507
        )
        self._taken = RingConsumer.open(self._left.fd, seat="replay")
        self._outbox = Outbox(self._left, 0)
        self._names = list(destinations)
        self._shots = ShotBook(caps, unjournalled=True)
        for trigger in triggers:
            if trigger.shot is not None:
                self._shots.declare(trigger.shot)
        self._triggers = TriggerTable(triggers, shots=self._shots.numbers)
        peers = {name: number for number, name in enumerate(destinations)}
        self._desk = Desk(
            self._outbox, peers, self._shots, clock_mono_ns=lambda: int(self._clock[0])
        )
        self._desk.note_sent = self._note_sent
        self._made = (strategy, options, limits)
        self._events = 0
        self._pump: Pump | None = None

    def open(self, rules: Rules, at_ns: int) -> None:
        """Makes the strategy and the pump, at the time of the first envelope."""
        self._clock[0] = at_ns
        made, options, (limit_ms, timer_ms) = self._made
        self._decoder = Decoder(rules)
        self.replayed = Replayed(None)  # there before the strategy, which may send at once
        self.replayed.strategy = made(self._desk, options)
        self._drop()
        self._conductor = Conductor(
            self.replayed.strategy, halt=self._shots.halt, limit_ms=limit_ms, timer_ms=timer_ms
        )
        self._conductor.start_timer(at_ns)
        self._desk.cause = lambda: self._conductor.cause
        self._pump = Pump(
            decoder=self._decoder,
            triggers=self._triggers,
            dedup=Dedup(),
            shots=self._shots,
            out=self._outbox.ref,
            clock_mono_ns=self._clock,
            stages=("decode", "trigger"),
            rings=Rings(before=self._from.handle),
        )

    def take(self, at_ns: int, envelope: bytes, origin: Origin, *, trusted: bool) -> None:
        """One envelope, and all that comes of it."""
        assert self._pump is not None
        self._pass(at_ns)
        steps = bytes(ffi.sizeof("struct bw_steps"))
        if len(envelope) > _MTU - len(steps):
            raise BarewireError(f"an envelope of {len(envelope):,} bytes: no feed carries that")
        held = rings_ffi.from_buffer(payload := steps + envelope)
        record = self._record[0]
        record.data, record.len = held, len(payload)
        record.origin_ns, record.clock = at_ns, rings_lib.DPB_CLOCK_MONO
        record.kind = ORIGINS.index(origin) << lib.BW_MESSAGE_ORIGIN
        record.kind |= lib.BW_MESSAGE_TRUSTED if trusted else 0
        self._into.publish_burst(self._record, 1)
        found = self._pump.turn()
        self._note_fired()
        self._conductor.hand_over(self._pump.matches(found))
        self._drop()

    def take_block(self, at_ns: int, block: Block) -> None:
        """One new block, and all that comes of it."""
        if self._pump is None:
            return  # of a capture without a transaction, as finish() says
        self._pass(at_ns)
        self._conductor.hand_block(block)
        self._drop()

    def _pass(self, until_ns: int) -> None:
        """Time passes, and the strategy's timer is called when it is due."""
        while (due_ns := self._conductor.timer_due_mono_ns) <= until_ns:
            self._clock[0] = due_ns
            self._conductor.tick(due_ns)
            self._drop()
        self._clock[0] = until_ns

    def finish(self) -> Replayed:
        """Lets the strategy finish, and counts."""
        if self._pump is None:
            raise BarewireError("nothing to replay: no transaction in the capture")
        self._conductor.stop()
        done, stats = self.replayed, self._pump.stats()
        done.transactions, done.matched = stats["transactions"], stats["matched"]
        done.refused = {name: one.count for name, one in self._decoder.refusals().items()}
        done.outcomes = {name: count for name, count in self._shots.counts().items() if count}
        done.not_sent = dict(self._desk.refused)
        done.errors, done.stalled = self._conductor.errors, self._conductor.stalled
        done.last_error = self._conductor.last_error
        return done

    def _note_fired(self) -> None:
        """What the last turn sent: its records in the order of the shots that fired."""
        fired = []
        while events := self._shots.events(self._events, limit=64):
            self._events = events[-1].seq + 1
            fired += [event for event in events if event.outcome == "fired"]
        while count := self._taken.poll():
            for index in range(count):
                event = fired.pop(0)
                self.replayed.sent.append(
                    Sent(
                        event.at_mono_ns,
                        self._names[self._taken.records[index].user],
                        self._taken.records.copy(index),
                        event.cause_hash,
                        str(event.shot),
                    )
                )
            self._taken.acknowledge()

    def _drop(self) -> None:
        """Makes room; what the strategy sent itself was noted when it did."""
        while self._taken.poll():
            self._taken.acknowledge()

    def _note_sent(self, cause: Transaction | None, peer: int, payload: bytes, left: bool) -> None:
        if left:
            at_ns, hash_ = int(self._clock[0]), cause.hash if cause else None
            self.replayed.sent.append(Sent(at_ns, self._names[peer], payload, hash_, None))

    def __enter__(self) -> _Stage:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pump is not None:
            self._pump.close()
        self._triggers.close()
        self._shots.close()
        for ring in (self._from, self._taken, self._into, self._left):
            ring.close()
