"""What every transport is to the rest: something that carries exchanges.

An exchange is one message to a provider (a request or a batch) and what becomes of it: exactly one
of `Sink.replied` and `Sink.broke` is called for it, unless it was cancelled first.
"""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

from barewire.rpc.faults import Fault, Trouble, from_error, from_status, is_honest, rest_ms
from barewire.rpc.jsonrpc import Reply, decode

__all__ = ["LARGEST", "Channel", "Exchange", "Sink", "StreamChannel", "understand"]

log = logging.getLogger("barewire.rpc")

LARGEST = 256 << 20
"""Bytes of the longest answer that is read; one without end must not fill the memory."""


def understand(status: int, body: bytes, retry_after: str) -> Reply | list[Reply]:
    """What an HTTP response says.

    Gateways put errors of their own into JSON-RPC objects; with a status that speaks of the
    gateway, only an error that a node alone can give is taken for the answer.

    Raises:
        Trouble: the provider's own, by status or because the body is not JSON-RPC.
    """
    fine = 200 <= status < 300
    if not fine and not body.lstrip().startswith((b"{", b"[")):
        raise from_status(status, retry_after)
    reply = decode(body)
    if not fine:
        if isinstance(reply, list) or reply.error is None or status == 429:
            raise from_status(status, retry_after)
        if (status in (401, 403) or status >= 500) and not is_honest(reply.error):
            raise from_status(status, retry_after)
    if retry_after and isinstance(reply, Reply) and reply.error is not None:
        said = from_error(reply.error)
        rest = rest_ms(retry_after) or said.retry_after_ms
        if said.fault is Fault.RATE_LIMIT:  # in whatever status it is wrapped
            raise Trouble(said.fault, said.message, retry_after_ms=rest, error=reply.error)
    return reply


class Sink(Protocol):
    """Who is told what became of exchanges, and of the connection."""

    def replied(self, exchange: Exchange, reply: Reply | list[Reply]) -> None:
        """The provider answered."""

    def broke(self, exchange: Exchange, trouble: Trouble) -> None:
        """The exchange failed."""

    def notified(self, channel: Channel, reply: Reply) -> None:
        """A notification came."""

    def up(self, channel: Channel) -> None:
        """The channel can carry exchanges."""

    def down(self, channel: Channel, why: str) -> None:
        """It no longer can; its open exchanges have been reported broken."""


class Exchange:
    """One message and its answer.

    Attributes:
        number: the id of its first item; items are numbered upwards.
        payload: the message.
        attempts: what it carries, one for each item.
        sink: who is told.
        repeat: it does no harm twice.
        tries: how often it went out in vain, nothing having been done with it.
        behind: attempts that go out, in smaller batches, once this one is answered well.
        doubt: the trouble of the refused batch that it was a part of, or None.
        refused: that batch, where this is the one item that is asked alone.
        carrier: the channel's own (a connection, a stream number).
    """

    __slots__ = (
        "attempts",
        "behind",
        "carrier",
        "channel",
        "doubt",
        "lane",
        "number",
        "payload",
        "refused",
        "repeat",
        "sink",
        "tries",
    )

    def __init__(
        self,
        number: int,
        payload: bytes,
        attempts: Sequence[Any],
        sink: Sink,
        *,
        repeat: bool = False,
    ) -> None:
        self.number = number
        self.payload = payload
        self.attempts = attempts
        self.sink = sink
        self.repeat = repeat
        self.tries = 0
        self.behind: Sequence[Any] = ()
        self.doubt: Trouble | None = None
        self.refused: Exchange | None = None
        self.carrier: Any = None
        self.channel: Channel | None = None
        self.lane: Any = None


class Channel(ABC):
    """One way to a provider."""

    is_up = False
    pushes = False
    """Whether notifications can come over it."""

    @abstractmethod
    def submit(self, exchange: Exchange) -> None:
        """Sends; may queue while connections are opened. Never raises for network trouble."""

    @abstractmethod
    def cancel(self, exchange: Exchange) -> None:
        """Nobody waits for `exchange` any more; nothing further is reported about it."""

    @abstractmethod
    async def open(self) -> None:
        """Connects.

        Raises:
            OSError, Trouble: it cannot be reached.
        """

    @abstractmethod
    async def close(self) -> None:
        """Closes everything; open exchanges are reported broken."""


class StreamChannel(Channel, asyncio.Protocol):
    """WebSocket and IPC: one connection, many exchanges, and notifications.

    Attributes:
        asked_ns: when the first message was sent since bytes last came, monotonic; 0 for none.
        why_down: what was in the way when it was last up or should have been.
    """

    pushes = True

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._pending: dict[int, Exchange] = {}
        self._transport: asyncio.Transport | None = None
        self.asked_ns = 0
        self.why_down = "not connected"

    def submit(self, exchange: Exchange) -> None:
        """See `Channel.submit`."""
        if not self.is_up:
            trouble = Trouble(Fault.TRANSPORT, self.why_down, untouched=True)
            exchange.sink.broke(exchange, trouble)
            return
        exchange.channel = self
        self._pending[exchange.number] = exchange
        self.asked_ns = self.asked_ns or time.monotonic_ns()
        self._write(exchange.payload)

    def cancel(self, exchange: Exchange) -> None:
        """See `Channel.cancel`: a late answer finds no one and is dropped."""
        self._pending.pop(exchange.number, None)

    @abstractmethod
    def _write(self, payload: bytes) -> None:
        """Frames and sends one message."""

    def _became_up(self) -> None:
        self.is_up = True
        self.asked_ns = 0
        self._sink.up(self)

    def _message(self, data: bytes | bytearray) -> None:
        try:
            reply = decode(data)
        except Trouble as trouble:
            self._garbled(trouble)
            return
        self._dispatch(reply)

    def _dispatch(self, reply: Reply | list[Reply]) -> None:
        if isinstance(reply, Reply) and reply.method:
            self._sink.notified(self, reply)
            return
        for exchange in self._whose(reply):
            del self._pending[exchange.number]
            exchange.sink.replied(exchange, reply)

    def _whose(self, reply: Reply | list[Reply]) -> list[Exchange]:
        """The exchange that `reply` answers, or those that it may refuse."""
        pending = self._pending
        if isinstance(reply, list):
            first = min((r.id for r in reply if isinstance(r.id, int)), default=None)
            if first in pending:
                return [pending[first]]
            if first is not None:  # the first items are missing, but the numbers tell whose it is
                return [e for n, e in pending.items() if n <= first < n + len(e.attempts)]
        elif isinstance(reply.id, int):
            return [pending[reply.id]] if reply.id in pending else []
        elif len(pending) == 1:
            return list(pending.values())
        elif reply.id is not None or not self._may_be_of_batch(reply.error):
            return []
        # What is refused unread bears no number. All that is in batches may be asked again.
        return [e for e in pending.values() if len(e.attempts) > 1]

    @staticmethod
    def _may_be_of_batch(error: Any) -> bool:
        fault = from_error(error).fault
        return fault in (Fault.BATCH, Fault.TOO_MUCH, Fault.UNSURE)

    def _garbled(self, trouble: Trouble) -> None:
        """Nonsense on a stream: whose answer it was is unknown, so all that wait are failed."""
        self._fail_all(trouble)

    def _fail_all(self, trouble: Trouble) -> None:
        pending, self._pending = self._pending, {}
        for exchange in pending.values():
            exchange.sink.broke(exchange, trouble)

    def drop(self, why: str) -> None:
        """Cuts the connection, as for one that has gone silent."""
        if self._transport is not None:
            self._transport.abort()
        self._lost(why)

    def _lost(self, why: str) -> None:
        was_up, self.is_up = self.is_up, False
        self._transport = None
        if was_up:
            self.why_down = why
        self._fail_all(Trouble(Fault.TRANSPORT, why))
        if was_up:
            self._sink.down(self, why)

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport says the connection is gone (asyncio.Protocol)."""
        self._lost(f"the connection was lost: {exc}" if exc else "the other side closed")

    async def close(self) -> None:
        """See `Channel.close`."""
        self.drop("closed")
