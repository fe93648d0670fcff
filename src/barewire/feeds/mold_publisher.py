"""MoldUDP64 (NASDAQ, version 1.00), the sending side, and the retransmission server.

    publisher = MoldPublisher("BW00000001")
    for datagram in publisher.pack(messages):          # send each on every line
        ...
    for datagram in publisher.answer(request, source, now_mono_ns):
        ...                                            # send to `source`

Sans-I/O: who calls it owns the sockets and the clock. What was packed is kept, within bounds, to
answer requests from.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field

from barewire.errors import BarewireError
from barewire.feeds.moldudp64 import session_bytes

__all__ = ["HEADER_BYTES", "MoldPublisher", "PublisherStats", "ServerLimits"]

HEADER_BYTES = 20
_END_OF_SESSION = 0xFFFF
_HEADER = struct.Struct("!10sQH")
_LENGTH = struct.Struct("!H")


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """How much a requester may ask for.

    UDP sources can be forged and an answer is far larger than its request: without a limit the
    server would be a weapon.

    Attributes:
        datagrams_per_second: answered to one source address, in the long run.
        burst: answered to one source address at once.
        sources: addresses remembered; the one unheard for longest is forgotten first.
    """

    datagrams_per_second: int = 20_000
    burst: int = 2_000
    sources: int = 1_024


@dataclass(slots=True)
class PublisherStats:
    """What the publisher has done.

    Attributes:
        messages: packed. datagrams: they were packed into. bytes: of those datagrams.
        requests: heard. answered: of these, with at least one datagram.
        retransmitted: messages sent again. retransmitted_datagrams: and in how many.
        refused: requests answered not at all or not in full, by cause: `malformed`, `session`
            (another one), `future` (not sent yet), `forgotten` (no longer stored), `rate` (limit),
            `busy` (too many answers are waiting already; counted by who sends them).
    """

    messages: int = 0
    datagrams: int = 0
    bytes: int = 0
    requests: int = 0
    answered: int = 0
    retransmitted: int = 0
    retransmitted_datagrams: int = 0
    refused: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(
            ("malformed", "session", "future", "forgotten", "rate", "busy"), 0
        )
    )


@dataclass(slots=True)
class _Credit:
    """How many datagrams a source may be sent, and since when that is so."""

    left: float
    since_mono_ns: int


class MoldPublisher:
    """Packs messages into datagrams, and again when asked to.

    Args:
        session: 1 to 10 ASCII characters, never used before: receivers tell a publisher that began
            anew from one that went on by it.
        max_datagram: longest UDP payload; 1472 fits a plain Ethernet frame.
        store_messages: how many of the latest messages are kept for requests,
        store_bytes: and how many bytes of them.
        limits: what a requester may ask for.

    Attributes:
        next_sequence: of the message packed next; the first is 1.
        max_message: longest message that fits a datagram.
    """

    def __init__(
        self,
        session: str,
        *,
        max_datagram: int = 1472,
        store_messages: int = 1 << 18,
        store_bytes: int = 256 << 20,
        limits: ServerLimits | None = None,
    ) -> None:
        if not 64 <= max_datagram <= 65507:
            raise BarewireError(f"datagrams of {max_datagram} bytes", hint="64 to 65507 bytes")
        if store_messages < 1:
            raise BarewireError(f"a store of {store_messages} messages", hint="1 or more")
        self._session = session_bytes(session)
        self._max_datagram = max_datagram
        self.max_message = max_datagram - HEADER_BYTES - 2
        self.next_sequence = 1
        self.stats = PublisherStats()
        self._store: list[bytes] = [b""] * store_messages  # of number n at n % len
        self._oldest = 1
        self._stored_bytes = 0
        self._store_bytes = store_bytes
        self._limits = limits or ServerLimits()
        self._credit: OrderedDict[Hashable, _Credit] = OrderedDict()

    def pack(self, messages: Iterable[bytes]) -> list[bytes]:
        """Gives `messages` their numbers and packs them into as few datagrams as hold them.

        Raises:
            BarewireError: a message is longer than :attr:`max_message`; nothing was taken.
        """
        blocks = list(messages)
        for message in blocks:
            if len(message) > self.max_message:
                raise BarewireError(
                    f"a message of {len(message)} bytes in datagrams of {self._max_datagram}",
                    hint=f"at most {self.max_message} bytes; cut envelopes by to_messages()",
                )
        first = self.next_sequence
        for message in blocks:
            self._keep(message)
        datagrams = list(self._datagrams(first, blocks))
        self.stats.messages += len(blocks)
        self.stats.datagrams += len(datagrams)
        self.stats.bytes += sum(map(len, datagrams))
        return datagrams

    def heartbeat(self) -> bytes:
        """Tells receivers the next number, so that they notice the loss of the last message."""
        return _HEADER.pack(self._session, self.next_sequence, 0)

    def end_of_session(self) -> bytes:
        """Tells receivers that no message will follow."""
        return _HEADER.pack(self._session, self.next_sequence, _END_OF_SESSION)

    def answer(self, request: bytes, source: Hashable, now_mono_ns: int) -> Iterator[bytes]:
        """The datagrams that answer a request packet.

        One request of 20 bytes may ask for thousands of them, and anybody can send it. So each is
        made when it is taken: what waits for its turn costs no memory, and no time before.

        Args:
            request: the payload as it came; anything may stand in it.
            source: who asks (its address), for the limits.
            now_mono_ns: a clock reading.

        Returns:
            The messages asked for, as far as they are stored and the source's credit goes.
        """
        self.stats.requests += 1
        if len(request) != HEADER_BYTES:
            return self._refuse("malformed")
        session, first, count = _HEADER.unpack(request)
        if session != self._session:
            return self._refuse("session")
        if not first or not count:
            return self._refuse("malformed")
        if first >= self.next_sequence:
            return self._refuse("future")
        end = min(first + count, self.next_sequence)
        return self._answer(first, end, self._credit_of(source, now_mono_ns))

    def _answer(self, first: int, end: int, credit: _Credit) -> Iterator[bytes]:
        answered = forgotten = False
        while first < end:
            if first < self._oldest:
                if not forgotten:  # more may be, while it waits for its turns
                    self._refuse("forgotten")
                forgotten = True
                first = self._oldest
                continue
            if credit.left < 1:
                self._refuse("rate")
                return
            stored = (self._store[n % len(self._store)] for n in range(first, end))
            datagram = next(self._datagrams(first, stored))
            sent = _HEADER.unpack_from(datagram)[2]
            first += sent
            credit.left -= 1
            self.stats.answered += not answered
            self.stats.retransmitted_datagrams += 1
            self.stats.retransmitted += sent
            answered = True
            yield datagram

    def _refuse(self, cause: str) -> Iterator[bytes]:
        self.stats.refused[cause] += 1
        return iter(())

    def _credit_of(self, source: Hashable, now_mono_ns: int) -> _Credit:
        limits = self._limits
        credit = self._credit.pop(source, None) or _Credit(float(limits.burst), now_mono_ns)
        while len(self._credit) >= limits.sources:
            self._credit.popitem(last=False)
        earned = (now_mono_ns - credit.since_mono_ns) * limits.datagrams_per_second / 1e9
        credit.left = min(credit.left + earned, float(limits.burst))
        credit.since_mono_ns = now_mono_ns
        self._credit[source] = credit
        return credit

    def _keep(self, message: bytes) -> None:
        n, size = self.next_sequence, len(self._store)
        if n - self._oldest == size:
            self._forget()
        self._store[n % size] = message
        self._stored_bytes += len(message)
        self.next_sequence = n + 1
        while self._stored_bytes > self._store_bytes:
            self._forget()

    def _forget(self) -> None:
        slot = self._oldest % len(self._store)
        self._stored_bytes -= len(self._store[slot])
        self._store[slot] = b""
        self._oldest += 1

    def _datagrams(self, first: int, messages: Iterable[bytes]) -> Iterator[bytes]:
        parts: list[bytes] = []
        size, room = 0, self._max_datagram - HEADER_BYTES
        for message in messages:
            if size + 2 + len(message) > room:
                yield self._join(first, parts)
                first += len(parts) // 2
                parts, size = [], 0
            parts += (_LENGTH.pack(len(message)), message)
            size += 2 + len(message)
        if parts:
            yield self._join(first, parts)

    def _join(self, first: int, parts: list[bytes]) -> bytes:
        return _HEADER.pack(self._session, first, len(parts) // 2) + b"".join(parts)
