"""What flight recorders hold, as Python objects; see native/trace.h for the records.

Reading disturbs nobody: a lossy ring is mapped read-only. What is overwritten while it is read is
left out.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from appliance.flight import About, read_about
from barewire._native import ffi, lib
from barewire.execution.shots import OUTCOMES
from barewire.mempool.decoder import VERDICTS
from barewire.mempool.record import ORIGINS
from dpdk_bindings.ring import RingConsumer

__all__ = ["STEPS", "Datagram", "Met", "Trace", "read_records", "real_ns"]

STEPS = ("received", "fed", "decoded", "matched", "fired", "settled")
_DATAGRAM_BYTES = ffi.sizeof("struct bw_recorded")
_TRACE_BYTES = ffi.sizeof("struct bw_trace")
_CLOCKS = ("none", "mono", "phc", "capture", "real")


@dataclass(frozen=True, slots=True)
class _Record:
    """What every record has.

    Attributes:
        about: what the numbers stand for.
        source: number of the source.
        arrival_ns: when it came (or left), by `clock`.
        clock: "mono", "phc", "capture", "real" or "none".
        recorded_mono_ns: when the record was written.
        real_minus_mono_ns: between this machine's clocks when the recorders were read; one reading
            for all, or their order and distances would not be those of their arrival.
    """

    about: About
    source: int
    arrival_ns: int
    clock: str
    recorded_mono_ns: int
    real_minus_mono_ns: int

    @property
    def source_name(self) -> str:
        """The source's name."""
        sources = self.about.sources
        return sources[self.source].name if self.source < len(sources) else f"#{self.source}"


@dataclass(frozen=True, slots=True)
class Datagram(_Record):
    """A datagram that came or was sent.

    Attributes:
        out: it was sent.
        place: the channel that it came to, or the peer that it went to.
        sender: in: address and port it came from.
        cause: out: hash of the transaction that it answers.
        headers: bytes of frame headers in `content`.
        content: headers and payload.
        full_bytes: how long that was before it was cut.
    """

    out: bool
    place: int
    sender: tuple[str, int] | None
    cause: bytes | None
    headers: int
    content: bytes
    full_bytes: int


@dataclass(frozen=True, slots=True)
class Met:
    """A trigger that was met, and what became of its shot (None: it has none)."""

    trigger: str
    outcome: str | None


@dataclass(frozen=True, slots=True)
class Trace(_Record):
    """One transaction's way.

    Attributes:
        hash: None where it was refused.
        refused: the rule that it broke, or None.
        duplicate: its hash had been seen before.
        trusted: its source is trusted.
        origin: how it came; see `barewire.mempool.record.Origin`.
        sender: where it was recovered.
        matches: the triggers that it met.
        steps_mono_ns: when it passed each of `STEPS`; those that it did not pass are left out.
        raw: the envelope, as far as it was kept.
        full_bytes: how long it was.
    """

    hash: bytes | None
    refused: str | None
    duplicate: bool
    trusted: bool
    origin: str
    sender: bytes | None
    raw: bytes
    full_bytes: int
    matches: list[Met] = field(default_factory=list)
    steps_mono_ns: dict[str, int] = field(default_factory=dict)


def real_ns(record: Datagram | Trace) -> int:
    """The record's time of arrival since 1970, by this machine's clocks now.

    Arrivals by the clock of a card are given the time of their recording: two clocks are never
    subtracted.
    """
    if record.clock in ("real", "capture"):
        return record.arrival_ns
    mono_ns = record.arrival_ns if record.clock == "mono" else record.recorded_mono_ns
    return mono_ns + record.real_minus_mono_ns


def real_minus_mono_ns() -> int:
    """Between CLOCK_REALTIME and CLOCK_MONOTONIC, now; to within the quickest of several tries."""
    tries = []
    for _ in range(10):
        before = time.monotonic_ns()
        real = time.time_ns()
        after = time.monotonic_ns()
        tries.append((after - before, real - (before + after) // 2))
    return min(tries)[1]


def read_records(folder: Path) -> Iterator[Datagram | Trace]:
    """Everything that the loops in `folder` hold, loop by loop, each from its oldest record on."""
    offset_ns = real_minus_mono_ns()
    for name, abouts in read_about(folder).items():
        begins = [since for since, _ in abouts]
        with RingConsumer.open(str(folder / f"{name}.flight"), start="oldest") as ring:
            until = ring.producer_status().head
            while ring.next <= until and (count := ring.poll()):
                for index in range(count):
                    record = ring.records[index]
                    epoch = bisect_right(begins, record.seq)
                    payload = ring.records.copy(index)
                    if epoch and (read := _read(record, payload, abouts[epoch - 1][1], offset_ns)):
                        yield read


def _read(record: Any, payload: bytes, about: About, offset_ns: int) -> Datagram | Trace | None:
    """None for what no recorder writes."""
    common = {
        "real_minus_mono_ns": offset_ns,
        "about": about,
        "source": record.source,
        "arrival_ns": record.origin_ns,
        "clock": _name(_CLOCKS, record.clock),
        "recorded_mono_ns": record.publish_mono_ns,
    }
    if record.kind == lib.BW_RECORD_DATAGRAM and len(payload) >= _DATAGRAM_BYTES:
        return _datagram(payload, common)
    if record.kind in (lib.BW_RECORD_TRACE, lib.BW_RECORD_REFUSED) and len(payload) >= _TRACE_BYTES:
        return _trace(payload, common, refused=record.kind == lib.BW_RECORD_REFUSED)
    return None


def _name(names: Sequence[str], number: int) -> str:
    """Also of a number that only another version, or nobody, writes."""
    return names[number] if number < len(names) else f"#{number}"


def _datagram(payload: bytes, common: dict[str, Any]) -> Datagram:
    held = ffi.from_buffer(payload)
    head: Any = ffi.cast("struct bw_recorded *", held)
    cause = bytes(head.cause)
    width = 4 if head.family == 4 else 16
    return Datagram(
        **common,
        out=bool(head.out),
        place=head.place,
        sender=None
        if head.out
        else (str(ip_address(bytes(head.address[0:width]))), int(head.port)),
        cause=cause if any(cause) else None,
        headers=head.headers,
        content=payload[_DATAGRAM_BYTES:],
        full_bytes=head.len,
    )


def _trace(payload: bytes, common: dict[str, Any], *, refused: bool) -> Trace:
    held = ffi.from_buffer(payload)
    trace: Any = ffi.cast("struct bw_trace *", held)
    triggers = common["about"].triggers
    matches = []
    for met in trace.match[0 : min(trace.matches, lib.BW_TRACE_MATCHES)]:
        name = triggers[met.trigger].name if met.trigger < len(triggers) else f"#{met.trigger}"
        matches.append(Met(name, _name(OUTCOMES, met.outcome) if met.outcome >= 0 else None))
    steps = {step: int(getattr(trace.steps, f"{step}_mono_ns")) for step in STEPS}
    return Trace(
        **common,
        hash=None if refused else bytes(trace.hash),
        refused=_name(VERDICTS, trace.verdict) if refused else None,
        duplicate=bool(trace.duplicate),
        trusted=bool(trace.trusted),
        origin=_name(ORIGINS, trace.origin),
        sender=bytes(trace.sender) if trace.sender_known else None,
        raw=payload[_TRACE_BYTES:],
        full_bytes=trace.raw_len,
        matches=matches,
        steps_mono_ns={step: at for step, at in steps.items() if at},
    )
