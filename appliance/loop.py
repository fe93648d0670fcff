"""The hot loop: turn, hand over, and now and then look up.

One thread, spinning in native code until something was found or it is time to look up: every
10 ms it shows that it lives, ten times a second it does what has to happen beside the packets,
and reports are made and a strategy's timer is called as often as was asked for. What that takes
from the packets is measured like everything else (docs/metrics.md).
"""

from __future__ import annotations

import time
from collections.abc import Callable

from appliance.assembly import Appliance
from appliance.metrics.places import Histogram
from appliance.signals import Signals
from dpdk_bindings.metrics import DUTY_KINDS

__all__ = ["Loop"]

_LOOK_EVERY_NS = 10_000_000
_LOOKS_BETWEEN_HOUSEKEEPING = 10
_HOUSEKEEPING = DUTY_KINDS.index("housekeeping")


class Loop:
    """Runs one appliance until told to stop.

    Args:
        appliance: opened and ready.
        signals: what is asked of this process.
        every_s: seconds between two calls of `report`.
        report: called in the hot thread, so it should be quick.

    Attributes:
        longest_pause_ns: the longest time spent beside the packets.
    """

    def __init__(
        self,
        appliance: Appliance,
        signals: Signals,
        *,
        every_s: float,
        report: Callable[[], None],
    ) -> None:
        self._appliance = appliance
        self._signals = signals
        self._every_ns = int(every_s * 1e9)
        self._report = report
        self._stop = False
        self._looks = 0
        self._next_report = 0
        self.longest_pause_ns = 0

    def run(self) -> None:
        """Turns until a signal asks for a stop (within 10 ms), or nothing can come in any more.

        Call it in the main thread.
        """
        with self._appliance.conducting():
            self._spin()

    def _spin(self) -> None:
        appliance, clock = self._appliance, time.monotonic_ns
        run, hand_over = appliance.run, appliance.hand_over
        now = clock()
        self._next_report = now + self._every_ns
        appliance.start_timer(now)
        next_look = now + _LOOK_EVERY_NS
        while not self._stop and not self._signals.stop:
            until = min(next_look, appliance.timer_due_mono_ns)
            while now < until:
                if found := run(until):
                    hand_over(found)
                now = clock()
            if now >= appliance.timer_due_mono_ns:
                appliance.tick(now)
            if now >= next_look:
                self._look_up(now)
                next_look = now + _LOOK_EVERY_NS

    def _look_up(self, now: int) -> None:
        metrics = self._appliance.metrics
        metrics.housekeep()
        self._looks += 1
        if self._looks >= _LOOKS_BETWEEN_HOUSEKEEPING:
            self._looks = 0
            if self._signals.reload:
                self._signals.reload = False
                self._appliance.reload()
            self._signals.keep(metrics.note)
            self._appliance.housekeeping()
            if self._appliance.cut_off:
                self._stop = True  # whoever supervises us has a reason to start us anew
            if now >= self._next_report:
                self._next_report += self._every_ns
                self._appliance.measure()
                self._report()
        ended = time.monotonic_ns()
        self.longest_pause_ns = max(self.longest_pause_ns, ended - now)
        metrics.observe(Histogram.HOUSEKEEPING_SECONDS, ended - now)
        metrics.turn(_HOUSEKEEPING, ended)
