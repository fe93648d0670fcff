"""The socket of the retransmission server.

A kernel socket, whatever the lines go by: answers are not on the fast path, and anyone may ask, so
that there is no list of peers whose headers could be prepared.
"""

from __future__ import annotations

import socket
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from appliance.places import Place
from barewire.errors import BarewireError
from barewire.feeds.mold_publisher import MoldPublisher

__all__ = ["RetransmissionServer"]

_REQUEST_BYTES = 64  # one is 20; longer ones are cut, and refused for their length
_REQUESTS_A_TURN = 16
_DATAGRAMS_A_TURN = 32
_SHORT = 8  # datagrams
_WAITING = 4096  # answers, of which each address has its share; and how many addresses may wait
_OF_ONE = 256  # of these to one address: the gaps that a receiver of ours asks for at once


@dataclass(slots=True)
class _Answer:
    datagrams: Iterator[bytes]
    to: Any
    sent: int = 0
    unsent: bytes = b""  # one that there was no room for


class _Turns:
    """Answers that wait. Whoever asked has one turn after the other's, however much was asked."""

    def __init__(self) -> None:
        self.of: OrderedDict[str, deque[_Answer]] = OrderedDict()

    def push(self, answer: _Answer) -> None:
        self.of.setdefault(answer.to[0], deque()).append(answer)

    def pop(self) -> _Answer:
        address, answers = self.of.popitem(last=False)
        answer = answers.popleft()
        if answers:
            self.of[address] = answers
        return answer


class RetransmissionServer:
    """Hears requests, and sends the answers bit by bit so that pacing does not suffer.

    Anybody can ask, for everything, under a thousand addresses. So those who ask take turns, a
    datagram each, and places to wait in are shared among them; and what is wanted of a gap, a few
    datagrams, goes before the rest of longer answers, which have a quarter of the way for sure.

    Attributes:
        place: where it listens, with the port that 0 became.
        unsent: datagrams of answers that the kernel refused.
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
        self._short = _Turns()
        self._long = _Turns()

    @property
    def busy(self) -> bool:
        """Whether answers are waiting to be sent."""
        return bool(self._short.of or self._long.of)

    def poll(self, now_mono_ns: int) -> int:
        """Hears a few requests, sends a few datagrams; returns how many it dealt with."""
        heard = 0
        while heard < _REQUESTS_A_TURN:
            try:
                request, source = self._socket.recvfrom(_REQUEST_BYTES)
            except BlockingIOError:
                break
            except OSError:  # an ICMP answer to something sent earlier
                heard += 1
                continue
            heard += 1
            if self._has_room(source[0]):
                answer = self._publisher.answer(request, source[0], now_mono_ns)
                self._short.push(_Answer(answer, source))
            else:
                self._publisher.stats.requests += 1
                self._publisher.stats.refused["busy"] += 1
        return heard + self._send()

    def _has_room(self, address: str) -> bool:
        kinds = (self._short.of, self._long.of)
        waiting = sum(len(kind.get(address, ())) for kind in kinds)
        addresses = sum(map(len, kinds))  # who waits for both counts twice
        return waiting < min(_WAITING // (addresses + 1), _OF_ONE)

    def fileno(self) -> int:
        """What becomes readable when there is a request."""
        return self._socket.fileno()

    def _send(self) -> int:
        sent = 0
        while self.busy and sent < _DATAGRAMS_A_TURN:
            first, second = self._short, self._long
            if sent % 4 == 3:
                first, second = second, first
            answer = (first if first.of else second).pop()
            datagram = answer.unsent or next(answer.datagrams, b"")
            if not datagram:
                continue
            try:
                self._socket.sendto(datagram, answer.to)
            except BlockingIOError:
                answer.unsent = datagram
                self._short.push(answer)
                break
            except OSError:
                self.unsent += 1
            sent += 1
            answer.sent += 1
            answer.unsent = b""
            (self._short if answer.sent < _SHORT else self._long).push(answer)
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
        self._socket.close()
