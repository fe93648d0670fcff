"""The hot loop: turn, hand over, and now and then look up.

One thread, pinned, spinning, with the garbage collector frozen and off. What has to happen beside
the packets (statistics, routes that changed, the wish to stop) happens every few thousand turns,
and its cost is bounded: the longest of these pauses is counted and shown.
"""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Callable

from appliance.assembly import Appliance

__all__ = ["Loop"]

_TURNS_BETWEEN_LOOKS = 2048
_HOUSEKEEPING_EVERY_NS = 100_000_000


class Loop:
    """Runs one appliance until told to stop.

    Args:
        appliance: opened and ready.
        cpu: the core to stay on, or None.
        every_s: seconds between two calls of `report`.
        report: called in the hot thread, so it should be quick.

    Attributes:
        longest_pause_ns: the longest time spent beside the packets.
    """

    def __init__(
        self, appliance: Appliance, *, cpu: int | None, every_s: float, report: Callable[[], None]
    ) -> None:
        self._appliance = appliance
        self._cpu = cpu
        self._every_ns = int(every_s * 1e9)
        self._report = report
        self._stop = False
        self.longest_pause_ns = 0

    def stop(self) -> None:
        """Makes :meth:`run` return after the turn it is in; safe in a signal handler."""
        self._stop = True

    def run(self) -> None:
        """Turns until :meth:`stop`, SIGTERM or SIGINT. Call it in the main thread."""
        before = {
            number: signal.signal(number, lambda *_: self.stop())
            for number in (signal.SIGTERM, signal.SIGINT)
        }
        cores = os.sched_getaffinity(0)
        try:
            if self._cpu is not None:
                os.sched_setaffinity(0, {self._cpu})
            gc.collect()
            gc.freeze()
            gc.disable()
            self._spin()
        finally:
            gc.enable()
            gc.unfreeze()
            os.sched_setaffinity(0, cores)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _spin(self) -> None:
        turn = self._appliance.pump.turn
        hand_over = self._appliance.hand_over
        next_report = time.monotonic_ns() + self._every_ns
        next_housekeeping = 0
        while not self._stop:
            for _ in range(_TURNS_BETWEEN_LOOKS):
                if found := turn():
                    hand_over(found)
            now = time.monotonic_ns()
            if now >= next_housekeeping:
                next_housekeeping = now + _HOUSEKEEPING_EVERY_NS
                self._appliance.housekeeping()
                if now >= next_report:
                    next_report += self._every_ns
                    self._report()
                self.longest_pause_ns = max(self.longest_pause_ns, time.monotonic_ns() - now)
