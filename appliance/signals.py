"""What SIGTERM, SIGINT and SIGHUP ask of a process that runs, from its start to its very end.

Whoever stops a service may signal every process of it at once (systemd does, a terminal does), and
more than once, and while it starts. So a signal only raises a flag here: what is being opened is
opened, what runs ends in good order, and once it ends a further signal finds nothing left to do.
Only who asks again ten seconds later is not heard by whatever goes on: that is broken off.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

__all__ = ["HELD", "Signals", "held"]

HELD = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
"""What a process that is about to run may hold back (pthread_sigmask) until it has a `Signals`."""

_PATIENCE_S = 10.0


@contextlib.contextmanager
def held() -> Iterator[set[int]]:
    """While a process is begun: holds back `HELD`, and gives what was held back before."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
    try:
        yield {int(number) for number in before}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Signals:
    """Use it by ``with``, in the main thread, around everything that is to end in good order.

    SIGHUP asks for a reload; to who runs it by hand in a terminal it means the terminal's end.

    Attributes:
        stop: a stop was asked for.
        reload: the triggers are to be read again; whoever does it takes the flag down.
    """

    def __init__(self) -> None:
        self.stop = False
        self.reload = False
        self._asked_s = 0.0
        wanted: dict[int, Callable[[], None]] = dict.fromkeys(HELD, self._stop)
        if not os.isatty(0):
            wanted[signal.SIGHUP] = self._reload
        # Bound now, to be known again.
        self._ours = {n: (lambda *_, do=do: do()) for n, do in wanted.items()}

    def __enter__(self) -> Self:
        self._before = {n: signal.signal(n, ours) for n, ours in self._ours.items()}
        self._mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # What was held back at the start is held back again: nothing may end the end.
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def keep(self, tell: Callable[[str], None]) -> None:
        """Puts back what was replaced: an import of a strategy may take a signal for itself."""
        for number, ours in self._ours.items():
            if signal.getsignal(number) is not ours:
                signal.signal(number, ours)
                name = signal.Signals(number).name
                tell(f"the handler of {name} was replaced, and put back")

    def _stop(self) -> None:
        now = time.monotonic()
        if not self.stop:
            self.stop, self._asked_s = True, now
        elif now > self._asked_s + _PATIENCE_S:
            raise SystemExit(1)  # out of whatever does not come to its end: an import, say

    def _reload(self) -> None:
        self.reload = True
