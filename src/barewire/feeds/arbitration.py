"""Any number of sources made into one sequence of new transactions: the first arrival wins.

    arbiter = Arbiter(["site", "node", "gateway"], dedup)
    if arbiter.take(1, tx_hash, arrival_ns, clock, now_mono_ns=now):
        ...                                    # new: hand it on
    for trouble in arbiter.watch(now):         # now and then
        ...                                    # a source fell silent, or behind: connect anew

The work is done by native/arbiter.h; native loops use it directly (:attr:`Arbiter.native`). Nothing
here reads a clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from barewire._native import ffi, lib
from barewire.errors import BarewireError
from barewire.mempool.dedup import Dedup
from dpdk_bindings.metrics import Values, histogram_values

__all__ = ["Arbiter", "SourceReport", "Trouble", "Watch"]

_MOST_SPARED = 7  # 128 windows, an hour or so
QUANTILES = (0.5, 0.99, 0.999)


@dataclass(frozen=True, slots=True)
class Watch:
    """When a source is in trouble.

    Attributes:
        silent_ns: it brought nothing for so long,
        silent_after: and the others brought at least so many new transactions meanwhile.
        window_ns: over windows of this length,
        window_least: if the others brought at least so many new transactions in one,
        coverage: it brought less than this share of all that were new,
        lag_ns: or was later than this on the average with what others brought first.
    """

    silent_ns: int = 10_000_000_000
    silent_after: int = 50
    window_ns: int = 30_000_000_000
    window_least: int = 200
    coverage: float = 0.5
    lag_ns: int = 2_000_000_000


@dataclass(frozen=True, slots=True)
class Trouble:
    """A source that is alive, perhaps, but of no use.

    Attributes:
        source: its number. kind: what it is. detail: in words, with the numbers.
    """

    source: int
    kind: Literal["silent", "behind"]
    detail: str


@dataclass(frozen=True, slots=True)
class SourceReport:
    """One source, over its whole life.

    Attributes:
        name: as given.
        first: handed on, as nobody had brought it before. earliest: its copy arrived before all
            others, in whatever order they were read; where clocks differ, as `first`. behind:
            another had brought it. repeated: it had itself. filled: new, from its pool after a
            reconnect. overtaken: its copy was the earliest until one was read that had arrived
            before. unlike_clocks: of `behind`, not compared, because the clocks differ.
        last_mono_ns: when it last brought anything; 0: never.
        lead: how much earlier than the second it brought what it was first with; at `QUANTILES`.
        lag: how much later than the first it brought what another had brought.
    """

    name: str
    first: int
    earliest: int
    behind: int
    repeated: int
    filled: int
    overtaken: int
    unlike_clocks: int
    last_mono_ns: int
    lead: Values
    lag: Values


@dataclass(slots=True)
class _Mark:
    """A source's counters when its window began, and what of it was told."""

    brought: int = 0
    lags: int = 0
    lag_ns: int = 0
    total_at_last: int = 0
    last_mono_ns: int = 0
    silent: bool = False
    behind: int = 0  # how often in a row that was told
    spared: int = 0  # windows for which it is not told again


class Arbiter:
    """Merges sources by hash.

    Args:
        names: of the sources 0, 1, ...; at most 64.
        dedup: remembers the hashes; may be used by others too.
        watch: when a source is in trouble.

    Attributes:
        native: ``struct bw_arbiter *``, for native loops; valid as long as this object.
        missed: hashes that were mined while some source was down and that no source brought.
    """

    def __init__(self, names: Sequence[str], dedup: Dedup, *, watch: Watch | None = None) -> None:
        native = lib.bw_arbiter_new(dedup.native, len(names))
        if native == ffi.NULL:
            raise BarewireError(f"{len(names)} sources", hint="1 to 64")
        self.native: Any = ffi.gc(native, lib.bw_arbiter_free)
        self.missed = 0
        self._names = list(names)
        self._dedup = dedup
        self._watch = watch or Watch()
        self._counts = [lib.bw_arbiter_source(native, i) for i in range(len(names))]
        self._marks = [_Mark() for _ in names]
        self._window_ns: int | None = None
        self._window_total = 0

    def take(
        self,
        source: int,
        tx_hash: bytes,
        arrival_ns: int,
        clock: int,
        *,
        now_mono_ns: int,
        filled: bool = False,
        queued: bool = False,
    ) -> bool:
        """Whether this transaction is new; if it is, it has been seen from now on.

        Args:
            source: who brought it.
            tx_hash: 32 bytes.
            arrival_ns: when it arrived, by the clock `clock` (``enum dpb_clock``).
            clock: see above.
            now_mono_ns: a clock reading.
            filled: it was read from a pool or a block and has no arrival of its own: it is new only
                where nothing is remembered of it, however old.
            queued: the same, from a pool's queue: where nobody brings it but from there, it is new
                once more when it is announced.
        """
        origin = lib.BW_ORIGIN_ANNOUNCED
        if filled or queued:
            origin = lib.BW_ORIGIN_QUEUED if queued else lib.BW_ORIGIN_POOL
        return bool(
            lib.bw_arbiter_take(
                self.native, source, tx_hash, arrival_ns, clock, origin, now_mono_ns
            )
        )

    def heard(
        self, source: int, tx_hash: bytes, arrival_ns: int, clock: int, *, now_mono_ns: int
    ) -> bool:
        """Whether a hash that `source` announced is known, so that it need not be fetched.

        Then it counts as brought. One that is not known counts when its transaction is taken.

        Args:
            source: who announced it.
            tx_hash: 32 bytes.
            arrival_ns: when the announcement arrived, by the clock `clock` (``enum dpb_clock``).
            clock: see above.
            now_mono_ns: a clock reading.
        """
        return bool(
            lib.bw_arbiter_heard(self.native, source, tx_hash, arrival_ns, clock, now_mono_ns)
        )

    def known(self, tx_hash: bytes) -> bool:
        """Whether some source has brought it, of late."""
        return bool(self._dedup.sources(tx_hash))

    def mined(self, hashes: Sequence[bytes]) -> int:
        """Counts those of `hashes`, mined while a source was down, that nobody brought.

        They could not be filled. Some were never announced to anyone, so this is the most that was
        missed.
        """
        missed = sum(not self.known(tx_hash) for tx_hash in hashes)
        self.missed += missed
        return missed

    def watch(self, now_mono_ns: int) -> list[Trouble]:
        """Sources that have come into trouble since the last call. Call it about once a second."""
        watch = self._watch
        total = sum(counts.first for counts in self._counts)
        troubles = []
        for source, (counts, mark) in enumerate(zip(self._counts, self._marks, strict=True)):
            if mark.last_mono_ns != counts.last_mono_ns or self._window_ns is None:
                mark.last_mono_ns = counts.last_mono_ns
                mark.total_at_last = total
                mark.silent = False
            since = mark.last_mono_ns or self._window_ns or now_mono_ns
            others = total - mark.total_at_last
            quiet = now_mono_ns - since > watch.silent_ns and others >= watch.silent_after
            if quiet and not mark.silent:
                mark.silent = True
                seconds = (now_mono_ns - since) / 1e9
                troubles.append(
                    Trouble(
                        source,
                        "silent",
                        f"nothing for {seconds:.1f} s, in which others brought {others}",
                    )
                )
        if self._window_ns is None or now_mono_ns - self._window_ns >= watch.window_ns:
            if self._window_ns is not None:
                troubles += self._judge(total - self._window_total)
            self._window_ns = now_mono_ns
            self._window_total = total
            for source, mark in enumerate(self._marks):
                mark.brought, mark.lags, mark.lag_ns = self._brought(source)
        return troubles

    def report(self) -> list[SourceReport]:
        """Every source."""
        reports = []
        for source, name in enumerate(self._names):
            counts = self._counts[source]
            reports.append(
                SourceReport(
                    name=name,
                    first=int(counts.first),
                    earliest=int(counts.earliest),
                    behind=int(counts.behind),
                    repeated=int(counts.repeated),
                    filled=int(counts.filled),
                    overtaken=int(counts.overtaken),
                    unlike_clocks=int(counts.unlike_clocks),
                    last_mono_ns=int(counts.last_mono_ns),
                    lead=histogram_values(lib.bw_arbiter_lead(self.native, source), QUANTILES),
                    lag=histogram_values(lib.bw_arbiter_lag(self.native, source), QUANTILES),
                )
            )
        return reports

    def _brought(self, source: int) -> tuple[int, int, int]:
        """Distinct transactions it brought, and how many lags of which sum, so far."""
        counts = self._counts[source]
        lag = histogram_values(lib.bw_arbiter_lag(self.native, source), ())
        return counts.first + counts.behind, lag.count, lag.sum_ns

    def _judge(self, new: int) -> list[Trouble]:
        """Who was behind in the window that ends, in which `new` transactions were new."""
        if new < self._watch.window_least or len(self._marks) < 2:
            return []
        troubles: list[Trouble] = []
        for source, mark in enumerate(self._marks):
            brought, lags, lag_ns = self._brought(source)
            share = (brought - mark.brought) / new
            mean_ns = (lag_ns - mark.lag_ns) / (lags - mark.lags) if lags > mark.lags else 0.0
            if mark.silent or brought == mark.brought:
                continue  # told already, or never begun
            if mark.spared:
                mark.spared -= 1
                continue
            told = len(troubles)
            if share < self._watch.coverage:
                troubles.append(
                    Trouble(source, "behind", f"brought {share:.0%} of {new} new transactions")
                )
            elif mean_ns > self._watch.lag_ns:
                troubles.append(
                    Trouble(source, "behind", f"{mean_ns / 1e6:.0f} ms later than the first")
                )
            # A new connection mended nothing: the next may wait, twice as long each time.
            mark.spared = (1 << min(mark.behind, _MOST_SPARED)) - 1 if len(troubles) > told else 0
            mark.behind = mark.behind + 1 if len(troubles) > told else 0
        return troubles
