"""Counters, histograms, duty and errors of a hot loop, in shared memory.

The loop writes (:class:`MetricsWriter`; natively by ``include/dpdk_bindings/metrics.h`` on its
:attr:`~MetricsWriter.handle`), anyone reads (:class:`MetricsReader`), nobody waits for anybody.
What the places mean is the caller's: a schema known by its 64-bit hash.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpdk_bindings._native import ffi, lib

__all__ = [
    "DUTY_KINDS",
    "STALL_CAUSES",
    "Duty",
    "Link",
    "MetricsError",
    "MetricsReader",
    "MetricsWriter",
    "NotedError",
    "Values",
    "histogram_values",
]

DUTY_KINDS = ("idle", "busy", "housekeeping", "callback")
_PAGE = os.sysconf("SC_PAGESIZE")
STALL_CAUSES = (*DUTY_KINDS, "descheduled")


class MetricsError(Exception):
    """A metrics file that cannot be created, or is none, or is of another version."""


@dataclass(frozen=True)
class Duty:
    """What a loop's time went into; the dictionaries by kind of turn and by cause of stall.

    Attributes:
        spent_ns: time by kind.
        turns: turns by kind.
        stalls: turns longer than `stall_ns`, by cause.
        longest_ns: the longest of them, by cause.
        stall_ns: the threshold.
    """

    spent_ns: dict[str, int]
    turns: dict[str, int]
    stalls: dict[str, int]
    longest_ns: dict[str, int]
    stall_ns: int


@dataclass(frozen=True)
class Link:
    """What came over one link."""

    name: str
    received: int
    bytes: int
    dropped: int
    overruns: int
    refused: int


@dataclass(frozen=True)
class NotedError:
    """One error, however often it came. Times are CLOCK_REALTIME."""

    text: str
    count: int
    first_real_ns: int
    last_real_ns: int


@dataclass(frozen=True)
class Values:
    """A histogram's values in nanoseconds, each quantile known to better than 1 %."""

    count: int
    sum_ns: int
    max_ns: int
    quantiles_ns: tuple[int, ...]


class MetricsWriter:
    """The loop's own side. One thread. Once it is closed its methods raise TypeError.

    Args:
        path: the file, on a tmpfs; created anew with mode 0600, in one step.
        name: the loop's, at most 31 bytes.
        schema: hash of what gives the places their meaning.
        counters: how many counters.
        histograms: how many histograms.
        stall_ms: a longer turn of the loop counts as a stall.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        *,
        schema: int,
        counters: int,
        histograms: int,
        stall_ms: float = 1.0,
    ) -> None:
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(unfinished, flags, 0o600)
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, fd)
            undo.callback(unfinished.unlink, missing_ok=True)
            # Held until the process is no more, and seen from every process namespace (flock(2)).
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            why = ffi.new("char[]", lib.DPB_METRICS_WHY)
            out = ffi.new("struct dpb_metrics **")
            if lib.dpb_metrics_create(fd, name.encode(), schema, counters, histograms, out, why):
                raise MetricsError(f"{path}: {_text(why)}")
            unfinished.rename(path)
            undo.pop_all()
        self.path = path
        self._fd = fd
        #: ``struct dpb_metrics *``, for a loop in C; valid until :meth:`close`.
        self.handle: Any = out[0]
        self.handle.duty.stall_ns = int(stall_ms * 1e6)
        self._statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)

    def link(self, name: str) -> Any:
        """``struct dpb_link *`` of the link called `name` (at most 87 bytes): count in it."""
        place = lib.dpb_metrics_link(self.handle, name.encode())
        if place < 0:
            raise MetricsError(f"{self.path}: no place for link {name}; there are {lib.DPB_LINKS}")
        return self.handle.links + place

    def count(self, counter: int, by: int = 1) -> None:
        """Adds to a counter.

        Raises:
            ValueError: there is no such counter.
        """
        if not lib.dpb_metrics_count(self.handle, counter, by):
            raise ValueError(f"no counter {counter}; there are {self.handle.header.counters}")

    def observe(self, histogram: int, ns: int) -> None:
        """Records a duration.

        Raises:
            ValueError: there is no such histogram.
        """
        if not lib.dpb_metrics_observe(self.handle, histogram, ns):
            raise ValueError(f"no histogram {histogram}; there are {self.handle.header.histograms}")

    def note(self, error: str) -> None:
        """Counts an error under its text, which must not hold what varies each time."""
        lib.dpb_metrics_error(self.handle, error.encode(errors="replace"))

    def turn(self, kind: int, now_mono_ns: int) -> None:
        """Ends a turn of the loop: the time since the last one was of `kind` (DUTY_KINDS).

        Raises:
            ValueError: there is no such kind.
        """
        if not lib.dpb_metrics_turn(self.handle, kind, now_mono_ns):
            raise ValueError(f"no kind {kind} of a turn; they are {', '.join(DUTY_KINDS)}")

    def housekeep(self) -> None:
        """Shows that the loop lives, and notes how much it has run; in the loop's thread."""
        lib.dpb_metrics_beat(self.handle)
        lib.dpb_metrics_mark(self.handle, time.monotonic_ns())

    def look_at_memory(self) -> int:
        """Notes how much memory is resident; returns by how many bytes it grew since the first."""
        pages = int(os.pread(self._statm, 128, 0).split()[1])
        header = self.handle.header
        header.memory_bytes = pages * _PAGE
        if not header.memory_begin_bytes:
            header.memory_begin_bytes = header.memory_bytes
        return int(header.memory_bytes) - int(header.memory_begin_bytes)

    def close(self) -> None:
        """Removes the file; readers who have it open keep the last numbers."""
        if self.handle:
            lib.dpb_metrics_close(self.handle)
            self.handle = None  # not NULL, which native code would write to
            os.close(self._statm)
            self.path.unlink(missing_ok=True)
            os.close(self._fd)


class MetricsReader:
    """Anyone's side: maps the file read-only.

    Raises:
        MetricsError: no metrics file, or one of another schema.
    """

    def __init__(self, path: Path, *, schema: int, counters: int, histograms: int) -> None:
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # it may be a FIFO
            fd = os.open(path, flags)
        except OSError as error:
            raise MetricsError(f"{path}: {error.strerror}") from error
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, fd)
            why = ffi.new("char[]", lib.DPB_METRICS_WHY)
            out = ffi.new("struct dpb_metrics **")
            if lib.dpb_metrics_open(fd, schema, counters, histograms, out, why):
                raise MetricsError(f"{path}: {_text(why)}")
            undo.pop_all()
        self._fd = fd
        self._raw: Any = out[0]
        self._counters = counters

    @property
    def name(self) -> str:
        """The loop's."""
        return _text(self._raw.header.name)

    @property
    def pid(self) -> int:
        """Of the process that writes, in its own process namespace."""
        return int(self._raw.header.pid)

    @property
    def opened_real_ns(self) -> int:
        """CLOCK_REALTIME when the file was created."""
        return int(self._raw.header.opened_real_ns)

    @property
    def heartbeat_age_ns(self) -> int:
        """CLOCK_MONOTONIC since the loop last showed that it lives."""
        return time.monotonic_ns() - int(self._raw.header.heartbeat_mono_ns)

    @property
    def alive(self) -> bool:
        """Whether who writes it is there, in whatever process namespace: it holds the file's lock.

        A process id would not tell: another process has it after a restart in a container, or it
        is one of another namespace.
        """
        try:
            fcntl.flock(self._fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        return False

    @property
    def memory_bytes(self) -> int:
        """Resident memory of its process, as it last looked; 0: it never did."""
        return int(self._raw.header.memory_bytes)

    @property
    def memory_growth_bytes(self) -> int:
        """By how much that is more than when the loop began."""
        header = self._raw.header
        return int(header.memory_bytes) - int(header.memory_begin_bytes)

    @property
    def errors_lost(self) -> int:
        """Times an error came that found no place in the log."""
        return int(self._raw.header.errors_lost)

    def counters(self) -> list[int]:
        """All counters, by place."""
        return list(self._raw.counters[0 : self._counters])

    def duty(self) -> Duty:
        """What the loop's time went into."""
        raw = self._raw.duty
        return Duty(
            spent_ns=dict(zip(DUTY_KINDS, raw.spent_ns, strict=True)),
            turns=dict(zip(DUTY_KINDS, raw.turns, strict=True)),
            stalls=dict(zip(STALL_CAUSES, raw.stalls, strict=True)),
            longest_ns=dict(zip(STALL_CAUSES, raw.longest_ns, strict=True)),
            stall_ns=raw.stall_ns,
        )

    def links(self) -> list[Link]:
        """The links that have a name."""
        found = []
        for i in range(lib.DPB_LINKS):
            raw = self._raw.links[i]
            if name := _text(raw.name):
                found.append(
                    Link(name, raw.received, raw.bytes, raw.dropped, raw.overruns, raw.refused)
                )
        return found

    def errors(self) -> list[NotedError]:
        """The distinct errors, in the order in which they first came."""
        found = []
        for i in range(lib.DPB_NOTED):
            raw = self._raw.errors[i]
            if raw.hash:
                found.append(
                    NotedError(_text(raw.text), raw.count, raw.first_real_ns, raw.last_real_ns)
                )
        return found

    def values(self, histogram: int, quantiles: tuple[float, ...]) -> Values:
        """A histogram's values at `quantiles` (0 to 1, nearest rank)."""
        return histogram_values(self._histogram(histogram), quantiles)

    def cumulative(self, histogram: int, bounds_ns: list[int]) -> tuple[list[int], int, int]:
        """How many values are at most each of `bounds_ns` (ascending), how many there are, sum."""
        raw = self._histogram(histogram)
        counts: Any = ffi.new("uint64_t[]", len(bounds_ns))
        total = lib.dpb_histogram_cumulative(raw, bounds_ns, counts, len(bounds_ns))
        return list(counts), total, raw.sum_ns

    def _histogram(self, place: int) -> Any:
        if not 0 <= place < self._raw.header.histograms:
            raise ValueError(f"no histogram {place}; there are {self._raw.header.histograms}")
        return self._raw.histograms + place

    def close(self) -> None:
        """Unmaps the file."""
        if self._raw:
            lib.dpb_metrics_close(self._raw)
            self._raw = ffi.NULL
            os.close(self._fd)


def _text(chars: Any) -> str:
    raw = ffi.string(chars)
    return raw.decode(errors="replace") if isinstance(raw, bytes) else raw


def histogram_values(histogram: Any, quantiles: tuple[float, ...]) -> Values:
    """The values of a ``struct dpb_histogram *`` (of any native module) at `quantiles`.

    Raises:
        TypeError: `histogram` is no pointer.
    """
    if not isinstance(histogram, ffi.CData):
        raise TypeError(f"a histogram is a pointer to one, not {type(histogram).__name__}")
    raw: Any = ffi.cast("struct dpb_histogram *", int(ffi.cast("uintptr_t", histogram)))
    values: Any = ffi.new("uint64_t[]", len(quantiles))
    count = lib.dpb_histogram_quantiles(raw, quantiles, values, len(quantiles))
    return Values(count, raw.sum_ns, raw.max_ns, tuple(values))
