"""The socket of the retransmission server.

A kernel socket, whatever the lines go by: answers are not on the fast path, and anyone may ask, so
that there is no list of peers whose headers could be prepared.
"""

from __future__ import annotations

import socket
from collections import deque
from types import TracebackType
from typing import Any

from appliance.places import Place
from barewire.errors import BarewireError
from barewire.feeds.mold_publisher import MoldPublisher

__all__ = ["RetransmissionServer"]

_REQUEST_BYTES = 64  # one is 20; longer ones are cut, and refused for their length
_REQUESTS_A_TURN = 16
_DATAGRAMS_A_TURN = 32
_QUEUE = 65536


class RetransmissionServer:
    """Hears requests, and sends the answers bit by bit so that pacing does not suffer.

    Attributes:
        place: where it listens, with the port that 0 became.
        unsent: datagrams of answers that the kernel refused, or that were waiting at the close.
    """

    def __init__(self, place: Place, publisher: MoldPublisher) -> None:
        family = socket.AF_INET6 if ":" in place.address else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self._socket.bind((place.address, place.port))
        except OSError as error:
            self._socket.close()
            raise BarewireError(
                f"the retransmission server cannot listen on {place}: {error.strerror}",
                hint=f"`ss -ulnp sport = :{place.port}` shows who has the port",
            ) from error
        self.place = Place(place.address, self._socket.getsockname()[1], place.interface)
        self.unsent = 0
        self._publisher = publisher
        self._queue: deque[tuple[bytes, Any]] = deque()

    @property
    def busy(self) -> bool:
        """Whether answers are waiting to be sent."""
        return bool(self._queue)

    def poll(self, now_mono_ns: int) -> int:
        """Hears a few requests, sends a few datagrams; returns how many it dealt with."""
        heard = 0
        while heard < _REQUESTS_A_TURN and len(self._queue) < _QUEUE:
            heard += 1
            try:
                request, source = self._socket.recvfrom(_REQUEST_BYTES)
            except BlockingIOError:
                heard -= 1
                break
            except OSError:  # an ICMP answer to something sent earlier
                continue
            for datagram in self._publisher.answer(request, source[0], now_mono_ns):
                self._queue.append((datagram, source))
        return heard + self._send()

    def fileno(self) -> int:
        """What becomes readable when there is a request."""
        return self._socket.fileno()

    def _send(self) -> int:
        sent = 0
        while self._queue and sent < _DATAGRAMS_A_TURN:
            datagram, source = self._queue.popleft()
            try:
                self._socket.sendto(datagram, source)
            except BlockingIOError:
                self._queue.appendleft((datagram, source))
                break
            except OSError:
                self.unsent += 1
            sent += 1
        return sent

    def __enter__(self) -> RetransmissionServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the socket; answers that were not sent yet are not."""
        self.unsent += len(self._queue)
        self._queue.clear()
        self._socket.close()
