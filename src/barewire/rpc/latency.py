"""How long a provider takes: a peak-sensitive average for choosing, quantiles for hedging.

The average (peak-EWMA, after Finagle) jumps to a new peak at once and forgets it with a time
constant, so that trouble is believed immediately and recovery slowly. The quantiles come from
log-spaced buckets (relative error 2 %, after DDSketch) kept in slices of time; the oldest slice
fades out linearly while the newest fills, so nothing jumps when a window ends.
"""

from __future__ import annotations

import math

__all__ = ["PeakEwma", "RollingSketch"]

_GAMMA = 1.04
_PER_LOG = 1.0 / math.log(_GAMMA)
_BUCKETS = 460  # 1 us to 67 s in steps of 4 %


class PeakEwma:
    """Average latency that believes bad news at once.

    Attributes:
        us: the average in microseconds, 0.0 before the first sample.
    """

    __slots__ = ("_stamp_ns", "_tau_ns", "us")

    def __init__(self, tau_ms: float = 5_000.0) -> None:
        self.us = 0.0
        self._tau_ns = tau_ms * 1e6
        self._stamp_ns = 0

    def observe(self, us: float, now_ns: int) -> None:
        """Takes a sample of `us` microseconds at the monotonic time `now_ns`."""
        if us >= self.us or not self.us:
            self.us = us
        else:
            # A sample weighs by the time it stands for, and by at least a fiftieth: otherwise one
            # asked ten thousand times a second would need as long to forget as an idle one.
            keep = min(math.exp((self._stamp_ns - now_ns) / self._tau_ns), 0.98)
            self.us = self.us * keep + us * (1.0 - keep)
        self._stamp_ns = now_ns

    def forget(self) -> None:
        """Starts anew, as for a provider that was away."""
        self.us = 0.0


class RollingSketch:
    """Quantiles of the last `slices` x `slice_ms`, in microseconds, within 2 %."""

    __slots__ = ("_cached", "_cached_until_ns", "_count", "_slice_ns", "_slices", "_start_ns")

    def __init__(self, slices: int = 4, slice_ms: float = 10_000.0) -> None:
        self._slices: list[dict[int, int]] = [{} for _ in range(slices)]  # newest first
        self._slice_ns = int(slice_ms * 1e6)
        self._start_ns = 0
        self._count = 0
        self._cached: dict[float, float] = {}
        self._cached_until_ns = 0

    def observe(self, us: float, now_ns: int) -> None:
        """Counts a sample."""
        self._turn(now_ns)
        bucket = min(int(math.log(us) * _PER_LOG), _BUCKETS) if us > 1.0 else 0
        newest = self._slices[0]
        newest[bucket] = newest.get(bucket, 0) + 1
        self._count += 1

    def _turn(self, now_ns: int) -> None:
        passed = (now_ns - self._start_ns) // self._slice_ns
        if passed <= 0:
            return
        for _ in range(min(passed, len(self._slices))):
            self._count -= sum(self._slices.pop().values())
            self._slices.insert(0, {})
        self._start_ns += passed * self._slice_ns

    def quantile(self, q: float, now_ns: int) -> float:
        """The `q` quantile in microseconds, or 0.0 with no samples; worked out at most 20x/s."""
        if now_ns >= self._cached_until_ns:
            self._cached.clear()
            self._cached_until_ns = now_ns + 50_000_000
        known = self._cached.get(q)
        if known is None:
            known = self._cached[q] = self._work_out(q, now_ns)
        return known

    def _work_out(self, q: float, now_ns: int) -> float:
        self._turn(now_ns)
        fade = 1.0 - (now_ns - self._start_ns) / self._slice_ns
        merged: dict[int, float] = {}
        for age, counts in enumerate(self._slices):
            weight = fade if age == len(self._slices) - 1 else 1.0
            for bucket, count in counts.items():
                merged[bucket] = merged.get(bucket, 0.0) + count * weight
        total = sum(merged.values())
        if total <= 0.0:
            return 0.0
        rank = q * total
        seen = 0.0
        bucket = 0
        for bucket in sorted(merged):
            seen += merged[bucket]
            if seen >= rank:
                break
        return float(_GAMMA ** (bucket + 0.5))

    def count(self, now_ns: int) -> int:
        """Samples held, the fading slice counted whole."""
        self._turn(now_ns)
        return self._count
