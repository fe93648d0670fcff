"""The hot path as one object: endpoints, feeds, triggers and shots in, matches out.

`Pump` composes the native parts (native/pump.h tells the order and why) and keeps them alive;
:meth:`Pump.turn` is one native call.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from barewire._native import ffi, lib
from barewire.errors import BarewireError
from barewire.execution.shots import OUTCOMES, ShotBook
from barewire.feeds.envelope import Reassembler
from barewire.feeds.moldudp64 import MoldReceiver
from barewire.mempool.decoder import Decoder
from barewire.mempool.dedup import Dedup
from barewire.mempool.record import Transaction
from barewire.mempool.trigger_table import TriggerTable

__all__ = ["Feed", "Match", "Pump"]

NO_LINE: int = lib.BW_PUMP_NO_LINE


@dataclass(frozen=True, slots=True)
class Feed:
    """One source of the pump: an endpoint and what its channels carry.

    Attributes:
        name: for statistics.
        endpoint: ``struct dpb_datagram_ref *``, of whatever brings the datagrams.
        receiver: arbitrates the lines.
        lines: what each channel of the endpoint is, in order: the number of a line, or
            `RETRANSMISSION`, or `NO_LINE`.
        request_peer: the endpoint's peer that retransmits, or None.
        trusted: its transactions may fire shots without their signature having been checked.
    """

    name: str
    endpoint: Any
    receiver: MoldReceiver
    lines: Sequence[int]
    request_peer: int | None = None
    trusted: bool = False


class Match:
    """A transaction that met a trigger. Valid until the next turn, :attr:`tx` included.

    Attributes:
        tx: the transaction; its hash is known.
        trigger: the trigger's name.
        tag: its tag.
        inner: met by a call inside a wrapper (a multicall, say), not by the outermost.
        outcome: what became of the trigger's shot ("fired", "expired", ...), or None where it has
            none.
    """

    __slots__ = ("inner", "outcome", "tag", "trigger", "tx")

    def __init__(
        self, tx: Transaction, trigger: str, tag: int, *, inner: bool, outcome: str | None
    ) -> None:
        self.tx = tx
        self.trigger = trigger
        self.tag = tag
        self.inner = inner
        self.outcome = outcome


class Pump:
    """Composes the hot path. Borrows every part it is given and keeps it alive.

    Args:
        feeds: 1 to 16 sources.
        decoder: its rules judge the transactions, and it counts what is refused.
        triggers: the current table, which may be replaced while the pump turns.
        dedup: remembers the hashes that were seen.
        shots: what may fire, or None.
        out: ``struct dpb_datagram_ref *`` by which shots leave; needed with `shots`.
        clock_mono_ns: ``uint64_t *`` read instead of CLOCK_MONOTONIC, for replay.
    """

    def __init__(
        self,
        feeds: Sequence[Feed],
        *,
        decoder: Decoder,
        triggers: TriggerTable,
        dedup: Dedup,
        shots: ShotBook | None = None,
        out: Any = None,
        clock_mono_ns: Any = None,
    ) -> None:
        if not 1 <= len(feeds) <= lib.BW_PUMP_SOURCES:
            raise BarewireError(f"{len(feeds)} sources", hint=f"1 to {lib.BW_PUMP_SOURCES}")
        self.feeds = tuple(feeds)
        self._reassemblers = [Reassembler() for _ in feeds]
        config: Any = ffi.new("struct bw_pump_config *")
        config.sources = len(feeds)
        for number, feed in enumerate(feeds):
            if len(feed.lines) > lib.BW_PUMP_CHANNELS:
                raise BarewireError(
                    f"source {feed.name}: {len(feed.lines)} channels",
                    hint=f"at most {lib.BW_PUMP_CHANNELS}",
                )
            source = config.source[number]
            setattr(source, "in", _as("struct dpb_datagram_ref *", feed.endpoint)[0])
            source.mold = feed.receiver.native
            source.fragments = self._reassemblers[number].native
            source.request_peer = -1 if feed.request_peer is None else feed.request_peer
            source.number = number
            source.trusted = feed.trusted
            for channel in range(lib.BW_PUMP_CHANNELS):
                source.line[channel] = feed.lines[channel] if channel < len(feed.lines) else NO_LINE
        config.rules = decoder.native_rules[0]
        config.refusals = decoder.native_refusals
        config.triggers = triggers.native
        config.dedup = dedup.native
        if shots is not None:
            config.shots = shots.native
            config.out = _as("struct dpb_datagram_ref *", out)[0]
        if clock_mono_ns is not None:
            config.clock_mono_ns = clock_mono_ns
        native = lib.bw_pump_new(config)
        if native == ffi.NULL:
            raise MemoryError("no memory for the pump")
        self._native: Any = ffi.gc(native, lib.bw_pump_free)
        # Freed after the pump, because they are attributes of the object that holds it.
        self._triggers = triggers
        self._parts = (decoder, dedup, shots, out, clock_mono_ns)
        self._found = lib.bw_pump_found(self._native)
        self._stats = lib.bw_pump_stats(self._native)
        self._turn: Any = lib.bw_pump_turn

    def turn(self) -> int:
        """One turn (native/pump.h); returns how many matches :meth:`matches` has."""
        found: int = self._turn(self._native)
        return found

    def matches(self, found: int) -> Iterator[Match]:
        """What the last :meth:`turn`, which returned `found`, handed over."""
        for index in range(found):
            entry = self._found[index]
            raw = bytes(ffi.buffer(entry.raw, entry.tx.raw_len))
            yield Match(
                Transaction(entry.tx, raw),
                self._triggers.names[entry.match.trigger],
                int(entry.match.tag),
                inner=bool(entry.match.flags & lib.BW_MATCH_INNER),
                outcome=None if entry.outcome < 0 else OUTCOMES[entry.outcome],
            )

    def stats(self) -> dict[str, int]:
        """The pump's own counters, by name (native/pump.h)."""
        return _fields(self._stats)

    def match_stats(self) -> dict[str, int]:
        """The trigger table's counters, by name (native/trigger.h)."""
        return _fields(lib.bw_pump_match_stats(self._native))

    def reassembly_stats(self) -> dict[str, dict[str, Any]]:
        """Counters of the reassembly of long envelopes, by feed."""
        return {
            feed.name: part.stats()
            for feed, part in zip(self.feeds, self._reassemblers, strict=True)
        }

    def close(self) -> None:
        """Gives back every datagram that is held, so that the endpoints can be closed."""
        if self._native is not None:
            ffi.release(self._native)
            self._native = None
            self._turn = _closed


def _closed(_native: Any) -> int:
    raise BarewireError("the pump is closed")


def _as(kind: str, pointer: Any) -> Any:
    """A pointer of another native module as this one's type; the two share the header."""
    return ffi.cast(kind, int(ffi.cast("uintptr_t", pointer)))


def _fields(struct: Any) -> dict[str, int]:
    kind = ffi.typeof(struct).item
    return {name: int(getattr(struct, name)) for name, _ in kind.fields if name != "reserved"}
