"""One provider's ways: the stream first (IPC, else WebSocket), HTTP behind it, lanes in front.

The link knows which way is up, keeps the stream connected, splits refused batches, and tells the
client what became of each attempt. It chooses nothing between providers.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
from collections.abc import Sequence
from typing import Any, Protocol

from barewire.rpc.batch_limit import BatchLimit
from barewire.rpc.faults import Fault, Trouble, from_error, is_honest
from barewire.rpc.jsonrpc import Reply, encode_batch, encode_single
from barewire.rpc.lanes import Lane
from barewire.rpc.pool import Attempt
from barewire.rpc.provider import Provider
from barewire.rpc.transports.base import Channel, Exchange, StreamChannel
from barewire.rpc.transports.http1 import Http1Channel
from barewire.rpc.transports.http2 import Http2Channel
from barewire.rpc.transports.websocket import WebSocketChannel
from barewire.untrusted import printable

__all__ = ["Judge", "Link"]

log = logging.getLogger("barewire.rpc")

_OF_BATCHES = (Fault.BATCH, Fault.TOO_MUCH)
"""What says for certain that less at once would be taken."""
_OF_ALL_OR_EACH = (Fault.UNSURE, Fault.PROVIDER)
"""What may be meant for the batch where all its items are told the same."""
_CUT = 10
"""A stream that was cut with a batch on it has a tenth of it put on it the next time."""
_STALLED_NS = 1_000_000_000
"""A batch that waits this long, while others are answered, is too much as well."""
_TOO_LARGE = re.compile("response (?:is )?too (?:large|big)")


class Judge(Protocol):
    """The client, as the link sees it."""

    def took(self, attempt: Attempt, reply: Reply) -> None:
        """An item of an answer: a result or an error."""

    def lost(self, attempt: Attempt, trouble: Trouble) -> None:
        """An attempt came to nothing."""

    def next_number(self, many: int) -> int:
        """The first of `many` fresh request ids."""

    def notified(self, link: Link, reply: Reply) -> None:
        """A notification came from `link`."""

    def link_up(self, link: Link, channel: Channel) -> None:
        """`channel` of `link` can be used."""

    def link_down(self, link: Link, channel: Channel, why: str) -> None:
        """`channel` of `link` is gone."""


class Link:
    """The transports of one provider.

    Attributes:
        provider: whose they are.
        stream: IPC or WebSocket, or None.
        http: HTTP, or None.
        priority: the lane that gathers for a millisecond.
        bulk: the lane that gathers for ten.
    """

    def __init__(
        self, provider: Provider, judge: Judge, *, priority_ms: float = 1.0, bulk_ms: float = 10.0
    ) -> None:
        self.provider = provider
        self.stream: StreamChannel | None = None
        self.http: Http1Channel | Http2Channel | None = None
        self._limit = BatchLimit(provider.terms.batch_items, provider.terms.batch_bytes)
        items, size = self._limit.items, self._limit.size
        self.priority = Lane(priority_ms, items, size, self._fly)
        self.bulk = Lane(bulk_ms, items, size, self._fly)
        self._judge = judge
        self._keepers: list[asyncio.Task[None]] = []
        self._down: dict[bool, asyncio.Event] = {}  # by whether it is the stream

    @property
    def is_up(self) -> bool:
        """Whether any way is up."""
        return any(channel.is_up for channel in self._channels())

    def _channels(self) -> list[StreamChannel | Http1Channel | Http2Channel]:
        return [c for c in (self.stream, self.http) if c is not None]

    # Up and down

    async def open(self) -> None:
        """Tries every way once, and goes on keeping all of them up in the background."""
        self._down = {True: asyncio.Event(), False: asyncio.Event()}
        tried = [asyncio.Event() for _ in self._channels()]
        self._keepers = [
            asyncio.create_task(self._keep(channel, event))
            for channel, event in zip(self._channels(), tried, strict=True)
        ]
        await asyncio.gather(*(event.wait() for event in tried))

    async def _try(self, channel: Channel) -> float:
        """Opens `channel`; for how many seconds the other side asked not to be tried again."""
        try:
            await channel.open()
        except Trouble as trouble:
            self.provider.last_trouble = f"{trouble.fault.value}: {trouble.message}"
            if isinstance(channel, StreamChannel):
                channel.why_down = trouble.message
            log.info("%s: %s", self.provider.name, trouble.message)
            return trouble.retry_after_ms / 1000
        return 0.0

    async def _keep(self, channel: Channel, tried: asyncio.Event) -> None:
        rest_s = await self._try(channel)
        tried.set()
        wait_s = 0.05
        down = self._down[channel is self.stream]
        while True:
            if channel.is_up:
                answered = self.provider.tally.answered
                down.clear()
                await down.wait()
                if self.provider.tally.answered > answered:
                    wait_s = 0.05  # who only accepts and hangs up is called less and less often
            pause_s = wait_s * random.uniform(0.5, 1.0)  # noqa: S311  (spreads load)
            await asyncio.sleep(max(pause_s, rest_s))
            wait_s = min(wait_s * 2, 5.0)
            rest_s = await self._try(channel)

    def up(self, channel: Channel) -> None:
        """See `Sink.up`."""
        self._judge.link_up(self, channel)

    def down(self, channel: Channel, why: str) -> None:
        """See `Sink.down`."""
        if self._down:
            self._down[channel is self.stream].set()
        self._judge.link_down(self, channel, why)

    def notified(self, channel: Channel, reply: Reply) -> None:
        """See `Sink.notified`."""
        self._judge.notified(self, reply)

    async def refresh(self, silent_ms: int) -> None:
        """Health-check time: moved names are followed, a connection that has gone silent is cut.

        Args:
            silent_ms: how long one of many exchanges may say nothing after it was asked something.
        """
        stream, http = self.stream, self.http
        quiet_since_ns = time.monotonic_ns() - silent_ms * 1_000_000
        for shared in (stream, http):
            if not isinstance(shared, StreamChannel | Http2Channel) or not shared.is_up:
                continue
            if 0 < shared.asked_ns < quiet_since_ns:
                shared.drop(f"silent for {silent_ms} ms after a request")
        if isinstance(stream, WebSocketChannel):
            await stream.refresh()
        if http is not None:
            await http.refresh()

    async def close(self) -> None:
        """Closes every way."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        self._keepers = []
        for channel in self._channels():
            await channel.close()

    # Out

    def submit(self, attempt: Attempt) -> None:
        """Sends `attempt` in its lane."""
        (self.bulk if attempt.call.bulk else self.priority).add(attempt)

    def _fly(self, attempts: list[Attempt], lane: Lane) -> None:
        if self._limit.grow(time.monotonic_ns()):
            self._limited()
        exchange = self._exchange(attempts)
        exchange.lane = lane
        self._way(attempts[0]).submit(exchange)

    def _exchange(self, attempts: Sequence[Attempt]) -> Exchange:
        number = self._judge.next_number(len(attempts))
        if len(attempts) == 1:
            call = attempts[0].call
            payload = encode_single(number, call.method.name, call.wire)
        else:
            items = [(a.call.method.name, a.call.wire) for a in attempts]
            payload = encode_batch(number, items)
        repeat = all(a.call.method.repeat for a in attempts)
        exchange = Exchange(number, payload, attempts, self, repeat=repeat)
        for attempt in attempts:
            attempt.waiter = exchange
        return exchange

    def _way(self, attempt: Attempt) -> Channel:
        if self.stream is not None and (self.stream.is_up or self.http is None):
            return self.stream
        assert self.http is not None
        return self.http

    def cancel(self, attempt: Attempt) -> None:
        """Nobody waits for `attempt` any more."""
        exchange: Exchange | None = attempt.waiter
        if exchange is None:
            self.priority.withdraw(attempt)
            self.bulk.withdraw(attempt)
            return
        carried = [*exchange.attempts, *exchange.behind]
        if all(a.call.done or a.closed for a in carried) and exchange.channel:
            channel, exchange.channel = exchange.channel, None
            channel.cancel(exchange)
            exchange.lane.landed()
            many, sent_ns = len(exchange.attempts), attempt.sent_ns
            stalled = time.monotonic_ns() > sent_ns + _STALLED_NS
            if many > 1 and stalled and self.provider.heard_ns > sent_ns:
                self._lesson(exchange, max(many // 4, 1))

    # Back

    def replied(self, exchange: Exchange, reply: Reply | list[Reply]) -> None:
        """See `Sink.replied`."""
        exchange.channel = None
        exchange.lane.landed()
        attempts = exchange.attempts
        if isinstance(reply, list):
            if len(attempts) > 1:
                self._items(exchange, reply)
                return
            trouble = Trouble(Fault.PROVIDER, "a batch for a single request")
            self._judge.lost(attempts[0], trouble)
        elif len(attempts) > 1:
            self._refused(exchange, from_error(reply.error))
            return
        else:
            self._item(exchange, attempts[0], reply)
            if reply.error is None or is_honest(reply.error):
                self._proved(exchange)
        self._failed(exchange.behind, exchange.doubt)  # where it proved nothing

    def _items(self, exchange: Exchange, replies: list[Reply]) -> None:
        """What a batch was answered: items may be missing, too many, or refused with the batch."""
        alike = _alike(replies)
        if alike is not None and alike.fault in _OF_ALL_OR_EACH:
            self._refused(exchange, alike)
            return
        missing = dict(enumerate(exchange.attempts))
        left: list[Attempt] = []
        trouble: Trouble | None = None
        for reply in replies:
            index = reply.id - exchange.number if isinstance(reply.id, int) else -1
            attempt = missing.pop(index, None)
            if reply.error is not None and (attempt is None or _is_of_batch(reply.error)):
                trouble = trouble or from_error(reply.error)
                if attempt is not None:
                    left.append(attempt)
            elif attempt is not None:
                self._judge.took(attempt, reply)
        left += missing.values()
        if not left:
            return
        taken = len(exchange.attempts) - len(left)
        trouble = trouble or Trouble(Fault.PROVIDER, "missing in the answer to a batch")
        if not taken:
            self._refused(exchange, trouble)
        elif trouble.fault in _OF_BATCHES:
            self._smaller(exchange, left, trouble, taken)
        else:  # some were forgotten: they are asked alone
            for attempt in left:
                self._send([attempt], exchange.lane)

    def _item(self, exchange: Exchange, attempt: Attempt, reply: Reply) -> None:
        # Only a refusal that never learnt the number may come without it.
        if reply.id != exchange.number and (reply.id is not None or reply.error is None):
            said = printable(reply.id, 40)
            trouble = Trouble(Fault.PROVIDER, f"answered id {said}, not {exchange.number}")
            self._judge.lost(attempt, trouble)
            return
        self._judge.took(attempt, reply)

    def broke(self, exchange: Exchange, trouble: Trouble) -> None:
        """See `Sink.broke`."""
        on_stream = exchange.channel is self.stream
        exchange.channel = None
        attempts = exchange.attempts
        self._failed(exchange.behind, exchange.doubt)
        if len(attempts) > 1:
            # Some cut the connection on which a batch comes that is too much.
            cut = trouble.fault is Fault.TRANSPORT and not trouble.untouched
            if trouble.fault is not Fault.TRANSPORT or (cut and not on_stream):
                exchange.lane.landed()
                self._refused(exchange, trouble)
                return
            if cut:
                self._lesson(exchange, max(len(attempts) // _CUT, 1))
        if on_stream and self.http is not None and trouble.fault is Fault.TRANSPORT:
            # WebSocket first, HTTP behind it: what may be repeated goes to the same provider again.
            again = [a for a in attempts if a.may_repeat(trouble) and not a.closed]
            if again:
                retry = self._exchange(again)
                retry.lane = exchange.lane
                self.http.submit(retry)
            else:
                exchange.lane.landed()
            attempts = [a for a in attempts if not a.may_repeat(trouble)]
        else:
            exchange.lane.landed()
        for attempt in attempts:
            self._judge.lost(attempt, trouble)

    def _failed(self, attempts: Sequence[Attempt], trouble: Trouble | None) -> None:
        if trouble is not None:
            for attempt in attempts:
                self._judge.lost(attempt, trouble)

    # Batches that were refused

    def _refused(self, exchange: Exchange, trouble: Trouble) -> None:
        """A batch came to nothing. Where it may be the batch and not the provider, that is asked.

        Providers refuse batches by any status and code, as they refuse everything else by them. So
        one of its items is asked alone: where that is answered, it was the batch.
        """
        left = [a for a in exchange.attempts if not a.closed]
        if not left:
            return
        if trouble.fault in _OF_BATCHES:
            self._smaller(exchange, left, trouble)
        elif trouble.retry_after_ms:
            self._failed(left, trouble)  # a rate that is to be kept
        elif exchange.doubt is not None and trouble.fault is not Fault.RATE_LIMIT:
            self._smaller(exchange, left, trouble, doubt=trouble)  # it was asked before
        else:
            probe = self._send(left[:1], exchange.lane, behind=left[1:], doubt=trouble)
            probe.refused = exchange

    def _proved(self, probe: Exchange) -> None:
        """One item of a refused batch was answered alone: the batch was too much."""
        if probe.refused is None:
            return
        left = [a for a in probe.behind if not a.closed]
        doubt, probe.behind = probe.doubt, ()
        assert doubt is not None
        self._smaller(probe.refused, left, doubt, doubt=doubt)

    def _smaller(
        self,
        exchange: Exchange,
        left: list[Attempt],
        trouble: Trouble,
        taken: int = 0,
        doubt: Trouble | None = None,
    ) -> None:
        """Smaller batches from now on, and `left` of this one in such."""
        many = len(exchange.attempts)
        if doubt is not None:
            taken = max(many // 4, 1)
        self._lesson(exchange, taken)
        now = self._limit.items
        log.info("%s: batch refused (%s); now %d", self.provider.name, trouble.message, now)
        most = max(min(now, many - 1), 1)
        for start in range(0, len(left), most):
            self._send(left[start : start + most], exchange.lane, doubt=doubt)

    def _lesson(self, exchange: Exchange, taken: int) -> None:
        many, size = len(exchange.attempts), len(exchange.payload)
        self._limit.refused(many, size, time.monotonic_ns(), taken=taken)
        self._limited()

    def _limited(self) -> None:
        for lane in (self.priority, self.bulk):
            lane.items, lane.size = self._limit.items, self._limit.size

    def _send(
        self,
        attempts: Sequence[Attempt],
        lane: Lane,
        *,
        behind: Sequence[Attempt] = (),
        doubt: Trouble | None = None,
    ) -> Exchange:
        """Sends `attempts` beside the queue."""
        part = self._exchange(attempts)
        part.lane, part.behind, part.doubt = lane, behind, doubt
        for attempt in behind:
            attempt.waiter = part
        lane.took_off()
        self._way(attempts[0]).submit(part)
        return part


def _alike(replies: Sequence[Reply]) -> Trouble | None:
    """What every item is refused with, in the same words."""
    errors = [reply.error for reply in replies]
    if not errors or errors[0] is None or any(error != errors[0] for error in errors):
        return None
    return from_error(errors[0])


def _is_of_batch(error: Any) -> bool:
    """Whether an item's error is the batch's: geth answers items past its limit so."""
    trouble = from_error(error)
    return trouble.fault is Fault.BATCH or _TOO_LARGE.search(trouble.message.lower()) is not None
