"""When to connect again: back-off as a state machine on a given clock.

    again = Reconnect(random.Random())
    if again.due(now_mono_ns):
        again.began(now_mono_ns)           # and connect
    ...
    again.live(now_mono_ns)                # it works
    again.failed(now_mono_ns)              # it does not, or no longer
    again.failed(now_mono_ns, rest_ns)     # and the server asked to be left alone so long

The first attempt after a connection that worked for a while follows at once. After that the pauses
double, each drawn at random between half and all of its length, so that many clients of one server
do not come back in step. What a server asks for (Retry-After) comes before that.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

__all__ = ["BackOff", "Reconnect"]


@dataclass(frozen=True, slots=True)
class BackOff:
    """How long to wait.

    Attributes:
        first_ns: the first pause.
        longest_ns: pauses double up to this.
        stable_ns: a connection that worked for so long ends the series of failures; one that works
            for a moment and breaks again does not.
    """

    first_ns: int = 100_000_000
    longest_ns: int = 30_000_000_000
    stable_ns: int = 10_000_000_000


class Reconnect:
    """The attempts of one source.

    Args:
        rng: draws the pauses.
        back_off: see `BackOff`.

    Attributes:
        attempts: made so far.
        failures: in a row.
        due_mono_ns: when the next attempt is due; None while connecting or connected.
    """

    def __init__(self, rng: random.Random, back_off: BackOff | None = None) -> None:
        self._rng = rng
        self._back_off = back_off or BackOff()
        self._live_ns: int | None = None
        self.attempts = 0
        self.failures = 0
        self.due_mono_ns: int | None = 0

    def due(self, now_mono_ns: int) -> bool:
        """Whether to connect now."""
        return self.due_mono_ns is not None and now_mono_ns >= self.due_mono_ns

    def began(self, now_mono_ns: int) -> None:
        """An attempt begins."""
        self.attempts += 1
        self.due_mono_ns = None
        self._live_ns = None

    def live(self, now_mono_ns: int) -> None:
        """The connection works; saying so again changes nothing."""
        if self._live_ns is None:
            self._live_ns = now_mono_ns

    def failed(self, now_mono_ns: int, rest_ns: int = 0) -> None:
        """The attempt failed, or the connection broke.

        Args:
            now_mono_ns: a clock reading.
            rest_ns: the next attempt is made no sooner than that from now.
        """
        back_off = self._back_off
        if self._live_ns is not None and now_mono_ns - self._live_ns >= back_off.stable_ns:
            self.failures = 0
            self.due_mono_ns = now_mono_ns
        else:
            pause = min(back_off.first_ns << min(self.failures, 40), back_off.longest_ns)
            pause = pause // 2 + self._rng.randrange(pause // 2 + 1)
            self.due_mono_ns = now_mono_ns + max(pause, rest_ns)
        self.failures += 1
        self._live_ns = None
