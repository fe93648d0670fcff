"""A node's IPC socket with the methods of a connection (dpdk_bindings.stream.Connection)."""

from __future__ import annotations

import socket
import time
from typing import Any

from dpdk_bindings import StreamState

__all__ = ["UnixPipe"]

_CLOCK_MONO = 1


class UnixPipe:
    """Connects at once, or has failed.

    Attributes:
        state: where the connection is in its life. why: why it failed, in words.
        arrival_ns: when the last bytes were received, by `clock`.
    """

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self.state = StreamState.OPEN
        self.why = ""
        self.arrival_ns = 0
        self.clock = _CLOCK_MONO
        try:
            self._socket.connect(path)
        except OSError as error:
            self._fail(error)

    def recv_into(self, buffer: Any, offset: int = 0, /) -> int:
        """Bytes received, 0: none now, -1: no more."""
        if self.state is not StreamState.OPEN:
            return -1
        try:
            got = self._socket.recv_into(memoryview(buffer)[offset:])
        except BlockingIOError:
            return 0
        except OSError as error:
            self._fail(error)
            return -1
        self.arrival_ns = time.monotonic_ns()
        if not got:
            self.state = StreamState.ENDED
            return -1
        return got

    def send(self, data: Any, offset: int = 0, /) -> int:
        """Bytes taken, 0: no room now, -1: failed."""
        try:
            return self._socket.send(memoryview(data)[offset:])
        except BlockingIOError:
            return 0
        except OSError as error:
            self._fail(error)
            return -1

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    def close(self) -> None:
        """Closes it."""
        self._socket.close()

    def abort(self) -> None:
        """Closes it: there is no other way."""
        self._socket.close()

    def _fail(self, error: OSError) -> None:
        self.state = StreamState.FAILED
        self.why = error.strerror or str(error)  # of a path that is too long there is no errno
