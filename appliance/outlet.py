"""Standard output as a hot loop may use it: it never waits, and it survives its reader.

A log pipe whose reader is stuck, or gone, must not stop what trades. What finds no room is left
out, whole lines at a time, and counted.
"""

from __future__ import annotations

import os
import select
import time

__all__ = ["Outlet"]

_AT_ONCE = select.PIPE_BUF  # what a pipe that is writable takes without waiting: pipe(7)
_HELD_BYTES = 1 << 20


class Outlet:
    """Writes lines to the file descriptor `fd`, which it borrows.

    Attributes:
        lost: lines that found no room.
        broken: why nothing can be written any more, or empty.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._held = bytearray()
        self._ready = select.poll()
        self._ready.register(fd, select.POLLOUT)
        self.lost = 0
        self.broken = ""

    def write(self, line: str) -> None:
        """Writes `line` and a line feed, or holds it back, or leaves it out; never waits."""
        raw = line.encode(errors="replace") + b"\n"
        if self.broken or len(self._held) + len(raw) > _HELD_BYTES:
            self.lost += 1
        else:
            self._held += raw
        self.pump()

    def pump(self) -> None:
        """Writes what was held back, as far as there is room."""
        while self._held and not self.broken and self._ready.poll(0):
            try:
                written = os.write(self._fd, self._held[:_AT_ONCE])
            except BlockingIOError:
                return
            except OSError as error:
                self.broken = error.strerror or str(error)
                self.lost += self._held.count(b"\n")
                self._held.clear()
                return
            del self._held[:written]

    def finish(self, patience_s: float) -> None:
        """Writes what was held back, waiting for its reader that long at most."""
        deadline = time.monotonic() + patience_s
        while self._held and not self.broken:
            left = deadline - time.monotonic()
            if left <= 0:
                self.lost += self._held.count(b"\n")
                self._held.clear()
            elif self._ready.poll(left * 1000):
                self.pump()
