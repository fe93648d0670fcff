"""The hot path as one object: endpoints, feeds, triggers and shots in, matches out.

`Pump` composes the native parts (native/pump.h tells the order and why) and keeps them alive;
:meth:`Pump.turn` is one native call. A pump runs a section of the path: all of it on one core, or
the stages that one of several cores has, between rings.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import msgspec

from barewire._native import ffi, lib
from barewire.errors import BarewireError
from barewire.execution.shots import OUTCOMES, ShotBook
from barewire.feeds.arbitration import Arbiter
from barewire.feeds.envelope import Reassembler
from barewire.feeds.moldudp64 import MoldReceiver
from barewire.mempool.decoder import Decoder
from barewire.mempool.dedup import Dedup
from barewire.mempool.record import Transaction
from barewire.mempool.senders import Senders
from barewire.mempool.trigger_table import TriggerTable

__all__ = ["STAGES", "Feed", "Match", "Pump", "Rings"]

NO_LINE: int = lib.BW_PUMP_NO_LINE
_FOUND = struct.Struct("=16x4xII4x4xH2xiI")
"""Of a ``struct bw_found``: trigger, tag, flags, outcome, raw_len."""
_unpack = _FOUND.unpack_from
_FOUND_BYTES: int = ffi.sizeof("struct bw_found")
assert _FOUND.size == _FOUND_BYTES
_INNER: int = lib.BW_MATCH_INNER
STAGES: tuple[str, ...] = ("receive", "feed", "decode", "trigger")
"""The stages of the path, in its order (``enum bw_stage``)."""


@dataclass(frozen=True, slots=True)
class Feed:
    """One source of the pump: an endpoint and what its channels carry.

    Attributes:
        name: for statistics.
        endpoint: ``struct dpb_datagram_ref *``, of whatever brings the datagrams; without the
            stage "receive" of whatever takes the requests for retransmission, or None.
        receiver: arbitrates the lines; None without the stage "feed".
        lines: what each channel of the endpoint is, in order: the number of a line, or
            `RETRANSMISSION`, or `NO_LINE`.
        request_peer: the endpoint's peer that retransmits, or None.
        trusted: its transactions may fire shots without their signature having been checked.
        publishers: IP addresses that are heard, at most 8; anyone where there are none.
    """

    name: str
    endpoint: Any
    receiver: MoldReceiver | None
    lines: Sequence[int]
    request_peer: int | None = None
    trusted: bool = False
    publishers: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Rings:
    """What joins a section to other cores, and what is written down: native handles, or None.

    Attributes:
        before: ``struct dpb_ring_rx *`` from the core in front, which has the stage before ours.
        after: ``struct dpb_ring_tx *`` to the core behind.
        outboxes: ``struct dpb_ring_rx *`` of cores whose datagrams we send.
        recorder: ``struct dpb_ring_tx *`` of the flight recorder (native/trace.h).
        metrics: ``struct dpb_metrics *`` where times and counters are written.
    """

    before: Any = None
    after: Any = None
    outboxes: Sequence[Any] = ()
    recorder: Any = None
    metrics: Any = None


class Match(msgspec.Struct, gc=False):
    """A transaction that met a trigger. Valid until the next turn, :attr:`tx` included.

    Attributes:
        tx: the transaction; its hash is known.
        trigger: the trigger's name.
        tag: its tag.
        inner: met by a call inside a wrapper (a multicall, say), not by the outermost.
        outcome: what became of the trigger's shot ("fired", "expired", ...), or None where it has
            none.
    """

    tx: Transaction
    trigger: str
    tag: int
    inner: bool
    outcome: str | None


class Pump:
    """Composes a section of the hot path. Borrows every part it is given and keeps it alive.

    Args:
        feeds: 1 to 16 sources; none without "receive" and "feed".
        decoder: its rules judge the transactions, and it counts what is refused; for "decode".
        triggers: the current table, which may be replaced while the pump turns; for "trigger".
        dedup: remembers the hashes that were seen; for "trigger".
        shots: what may fire, or None.
        out: ``struct dpb_datagram_ref *`` by which shots leave; needed with `shots`.
        senders: asked who signed what is new, or None. Their answers are the pump's to collect:
            what has come is in :meth:`Senders.lookup`.
        clock_mono_ns: ``uint64_t *`` read instead of CLOCK_MONOTONIC, for replay.
        stages: the first and the last of the section.
        rings: what joins it to others.
        arbiter: compares the sources by hash, over `dedup`; or None.
        offers: records will be offered (:meth:`offer`); then there may be no feeds.
    """

    def __init__(
        self,
        feeds: Sequence[Feed] = (),
        *,
        decoder: Decoder | None = None,
        triggers: TriggerTable | None = None,
        dedup: Dedup | None = None,
        shots: ShotBook | None = None,
        out: Any = None,
        senders: Senders | None = None,
        clock_mono_ns: Any = None,
        stages: tuple[str, str] = (STAGES[0], STAGES[-1]),
        rings: Rings | None = None,
        arbiter: Arbiter | None = None,
        offers: bool = False,
    ) -> None:
        if len(feeds) > lib.BW_PUMP_SOURCES:
            raise BarewireError(f"{len(feeds)} sources", hint=f"at most {lib.BW_PUMP_SOURCES}")
        self.feeds = tuple(feeds)
        self._reassemblers = {
            number: Reassembler() for number, feed in enumerate(feeds) if feed.receiver is not None
        }
        config: Any = ffi.new("struct bw_pump_config *")
        config.first, config.last = (STAGES.index(stage) for stage in stages)
        config.sources = len(feeds)
        config.offers = offers
        for number, feed in enumerate(feeds):
            self._source(config.source[number], number, feed)
        if decoder is not None:
            config.rules = decoder.native_rules[0]
            config.refusals = decoder.native_refusals
        if triggers is not None:
            config.triggers = triggers.native
        if dedup is not None:
            config.dedup = dedup.native
        if senders is not None:
            config.senders = senders.native
        if arbiter is not None:
            config.arbiter = arbiter.native
        if shots is not None:
            config.shots = shots.native
            config.out = _as("struct dpb_datagram_ref *", out)[0]
        if clock_mono_ns is not None:
            config.clock_mono_ns = clock_mono_ns
        if rings is not None:
            _join(config, rings)
        native = lib.bw_pump_new(config)
        if native == ffi.NULL:
            raise BarewireError(
                f"no pump for the stages {stages[0]} to {stages[1]}",
                hint="a part that its section needs is missing, or there is no memory",
            )
        self._native: Any = ffi.gc(native, lib.bw_pump_free)
        # Freed after the pump, because they are attributes of the object that holds it.
        self._triggers = triggers
        self._parts = (decoder, dedup, shots, out, senders, clock_mono_ns, rings, arbiter)
        self._found = lib.bw_pump_found(self._native)
        self._found_bytes = ffi.buffer(self._found, lib.BW_PUMP_FOUND * _FOUND_BYTES)
        self._stats = lib.bw_pump_stats(self._native)
        self._turn: Any = lib.bw_pump_turn
        self._run: Any = lib.bw_pump_run

    def _source(self, source: Any, number: int, feed: Feed) -> None:
        if len(feed.lines) > lib.BW_PUMP_CHANNELS:
            raise BarewireError(
                f"source {feed.name}: {len(feed.lines)} channels",
                hint=f"at most {lib.BW_PUMP_CHANNELS}",
            )
        if feed.endpoint is not None:
            setattr(source, "in", _as("struct dpb_datagram_ref *", feed.endpoint)[0])
        if feed.receiver is not None:
            source.mold = feed.receiver.native
            source.fragments = self._reassemblers[number].native
        source.request_peer = -1 if feed.request_peer is None else feed.request_peer
        source.number = number
        source.trusted = feed.trusted
        if len(feed.publishers) > lib.BW_PUMP_PUBLISHERS:
            raise BarewireError(
                f"source {feed.name}: {len(feed.publishers)} publishers",
                hint=f"at most {lib.BW_PUMP_PUBLISHERS}",
            )
        source.publishers = len(feed.publishers)
        for publisher, address in zip(source.publisher, feed.publishers, strict=False):
            ip = ip_address(address)
            publisher.family = ip.version
            ffi.memmove(publisher.address, ip.packed, len(ip.packed))
        for channel in range(lib.BW_PUMP_CHANNELS):
            source.line[channel] = feed.lines[channel] if channel < len(feed.lines) else NO_LINE

    @property
    def native(self) -> Any:
        """``struct bw_pump *``, for native loops; valid until :meth:`close`."""
        return self._native

    def offer(self, messages: Any, records: Any, count: int) -> None:
        """Hands `count` hashed records to the next :meth:`turn` (native/pump.h).

        They and what they point to must stay until the turn behind that one.
        """
        lib.bw_pump_offer(self._native, messages, records, count)

    def turn(self) -> int:
        """One turn (native/pump.h); returns how many matches :meth:`matches` has."""
        found: int = self._turn(self._native)
        return found

    def run(self, until_mono_ns: int) -> int:
        """Turns until there are matches, or until that time; one native call, as :meth:`turn`."""
        found: int = self._run(self._native, until_mono_ns)
        return found

    def note_sent(
        self, cause: Transaction | None, peer: int, payload: bytes, *, left: bool
    ) -> None:
        """Counts and records what was sent from Python, or (not `left`) could not be."""
        record = ffi.NULL if cause is None else cause.record
        lib.bw_pump_note_sent(self._native, record, peer, payload, len(payload), left)

    def matches(self, found: int) -> Iterator[Match]:
        """What the last :meth:`turn`, which returned `found`, handed over."""
        assert self._triggers is not None
        names = self._triggers.names_of(lib.bw_pump_table(self._native)) if found else ()
        for index in range(found):
            entry = self._found[index]
            # One unpacking costs half of what reading these five from the struct would.
            trigger, tag, flags, outcome, raw_len = _unpack(self._found_bytes, index * _FOUND_BYTES)
            yield Match(
                Transaction(entry.tx, ffi.buffer(entry.raw, raw_len)[:]),
                names[trigger],
                tag,
                flags & _INNER != 0,
                None if outcome < 0 else OUTCOMES[outcome],
            )

    def found_triggers(self, found: int) -> Iterator[str]:
        """The names of the triggers of what :meth:`matches` gives, without the transactions."""
        assert self._triggers is not None
        names = self._triggers.names_of(lib.bw_pump_table(self._native)) if found else ()
        for index in range(found):
            yield names[_unpack(self._found_bytes, index * _FOUND_BYTES)[0]]

    def stats(self) -> dict[str, int]:
        """The pump's own counters, by name (native/pump.h)."""
        return _fields(self._stats)

    def match_stats(self) -> dict[str, int]:
        """The trigger table's counters, by name (native/trigger.h)."""
        return _fields(lib.bw_pump_match_stats(self._native))

    @property
    def reassemblers(self) -> dict[str, Reassembler]:
        """What puts long envelopes together, by feed."""
        return {self.feeds[number].name: part for number, part in self._reassemblers.items()}

    def reassembly_stats(self) -> dict[str, dict[str, Any]]:
        """Counters of the reassembly of long envelopes, by feed."""
        return {name: part.stats() for name, part in self.reassemblers.items()}

    def close(self) -> None:
        """Gives back every datagram that is held, so that the endpoints can be closed."""
        if self._native is not None:
            ffi.release(self._native)
            self._native = None
            self._turn = self._run = _closed


def _closed(*_: Any) -> int:
    raise BarewireError("the pump is closed")


def _join(config: Any, rings: Rings) -> None:
    if len(rings.outboxes) > lib.BW_PUMP_OUTBOXES:
        raise BarewireError(
            f"{len(rings.outboxes)} outboxes", hint=f"at most {lib.BW_PUMP_OUTBOXES}"
        )
    for name, kind in (
        ("before", "struct dpb_ring_rx *"),
        ("after", "struct dpb_ring_tx *"),
        ("recorder", "struct dpb_ring_tx *"),
        ("metrics", "struct dpb_metrics *"),
    ):
        if (handle := getattr(rings, name)) is not None:
            setattr(config, name, _as(kind, handle))
    config.outboxes = len(rings.outboxes)
    for number, outbox in enumerate(rings.outboxes):
        config.outbox[number] = _as("struct dpb_ring_rx *", outbox)


def _as(kind: str, pointer: Any) -> Any:
    """A pointer of another native module as this one's type; the two share the header."""
    return ffi.cast(kind, int(ffi.cast("uintptr_t", pointer)))


def _fields(struct: Any) -> dict[str, int]:
    kind = ffi.typeof(struct).item
    return {name: int(getattr(struct, name)) for name, _ in kind.fields if name != "reserved"}
