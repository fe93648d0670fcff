"""Two queues to one provider: calls that may wait a millisecond, and calls that may wait ten.

A call goes out at once while few messages are on the way; only under load are calls gathered, up to
the lane's window or a full batch, whichever comes first. So batching costs a lone caller nothing,
and a thousand callers share messages.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from barewire.rpc.pool import Attempt

__all__ = ["Lane"]

_AT_ONCE = 4
"""Messages that may be on the way before calls are gathered."""
_ENVELOPE = 100
"""Bytes of a call beside its parameters, rounded up."""


class Lane:
    """Gathers attempts for one provider.

    Attributes:
        window_s: the longest an attempt waits here.
        items: the most of one batch; halved when the provider refuses one.
        size: the most bytes of one batch.
    """

    __slots__ = ("_bytes", "_fly", "_flying", "_timer", "_waiting", "items", "size", "window_s")

    def __init__(
        self,
        window_ms: float,
        items: int,
        size: int,
        fly: Callable[[list[Attempt], Lane], None],
    ) -> None:
        self.window_s = window_ms / 1000
        self.items = items
        self.size = size
        self._bytes = 0  # of what waits
        self._fly = fly
        self._flying = 0
        self._waiting: list[Attempt] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, attempt: Attempt) -> None:
        """Sends `attempt`, now or within the window."""
        if self.items <= 1 or not attempt.call.method.repeat:
            # What may not be repeated travels alone: a batch that is refused is sent again.
            self._flying += 1
            self._fly([attempt], self)
            return
        waiting = self._waiting
        if not waiting and self._flying < _AT_ONCE:
            self._flying += 1
            self._fly([attempt], self)
            return
        long = len(attempt.call.wire) + _ENVELOPE
        if waiting and self._bytes + long > self.size:
            self.flush()
            waiting = self._waiting
        waiting.append(attempt)
        self._bytes += long
        if len(waiting) >= self.items:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self.window_s, self.flush)

    def flush(self) -> None:
        """Sends what waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, []
        self._bytes = 0
        if waiting:
            self._flying += 1
            self._fly(waiting, self)

    def took_off(self) -> None:
        """Half of a refused batch was sent beside the queue."""
        self._flying += 1

    def landed(self) -> None:
        """A message of this lane was answered or lost."""
        self._flying -= 1
        if self._waiting and self._flying < _AT_ONCE:
            self.flush()

    def withdraw(self, attempt: Attempt) -> bool:
        """Takes back an attempt that has not been sent; False when it has."""
        if attempt not in self._waiting:
            return False
        self._waiting.remove(attempt)
        self._bytes -= len(attempt.call.wire) + _ENVELOPE
        return True
