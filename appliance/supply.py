"""Where a publisher's transactions come from, and when each was due."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from barewire.errors import BarewireError
from barewire.mempool.record import Origin

__all__ = ["BATCH", "Paced", "Supply"]

BATCH = 64
"""Transactions taken at once at most: what a late publisher sends in one piece."""

_SPIN_NS = 150_000  # closer to the next transaction than this, sleeping would be late


class Supply(Protocol):
    """What a publisher asks, turn by turn.

    Attributes:
        ended: there will be no more.
        due_mono_ns: of those taken last, when each was due; empty where that means nothing.
        origins: of those taken last, how each came; empty where all were announced.
        counted_from: what their lateness is counted from, in words.
    """

    ended: bool
    due_mono_ns: Sequence[int]
    origins: Sequence[Origin]
    counted_from: str

    def begin(self, now_mono_ns: int) -> None:
        """The first turn comes now."""

    def take(self, now_mono_ns: int) -> list[bytes]:
        """What is to be sent now, at most `BATCH`."""

    def rest_ns(self, now_mono_ns: int) -> int:
        """How long nothing will be due, nanoseconds; less than 1: do not sleep."""

    def descriptors(self) -> list[int]:
        """What becomes readable when something is due before that."""

    def housekeeping(self, now_mono_ns: int) -> None:
        """What depends on time; a few times a second."""

    def stats(self) -> dict[str, Any]:
        """What was counted."""


class Paced:
    """Transactions that are there already, at a rate.

    Args:
        envelopes: in the order in which they leave.
        rate: transactions a second; 0: as fast as it can.
    """

    counted_from = "intended"

    def __init__(self, envelopes: Iterable[bytes], rate: float) -> None:
        if not rate >= 0:
            raise BarewireError(f"a rate of {rate}", hint="0 or more transactions a second")
        self._envelopes = iter(envelopes)
        self._interval_ns = 1e9 / rate if rate else 0.0
        self._began_mono_ns = 0
        self._taken = 0
        self.ended = False
        self.due_mono_ns: Sequence[int] = ()
        self.origins: Sequence[Origin] = ()

    def intended_mono_ns(self, transaction: int) -> int:
        """When transaction number `transaction` (from 0) was due; at rate 0, the start."""
        return self._began_mono_ns + int(transaction * self._interval_ns)

    def begin(self, now_mono_ns: int) -> None:
        """The first transaction is due now."""
        self._began_mono_ns = now_mono_ns

    def take(self, now_mono_ns: int) -> list[bytes]:
        """What is due by now."""
        due = BATCH
        if self._interval_ns:
            due = int((now_mono_ns - self._began_mono_ns) / self._interval_ns) + 1 - self._taken
            if due <= 0:
                return []
        taken = []
        for envelope in self._envelopes:
            taken.append(envelope)
            if len(taken) in (due, BATCH):
                break
        self.ended = not taken
        first, self._taken = self._taken, self._taken + len(taken)
        if self._interval_ns:
            self.due_mono_ns = [self.intended_mono_ns(n) for n in range(first, self._taken)]
        return taken

    def rest_ns(self, now_mono_ns: int) -> int:
        """Until shortly before the next one."""
        if not self._interval_ns:
            return 0
        return self.intended_mono_ns(self._taken) - now_mono_ns - _SPIN_NS

    def descriptors(self) -> list[int]:
        """None: time alone decides."""
        return []

    def housekeeping(self, now_mono_ns: int) -> None:
        """Nothing."""

    def stats(self) -> dict[str, Any]:
        """Nothing that the publisher does not count."""
        return {}
