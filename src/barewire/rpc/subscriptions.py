"""Subscriptions that outlive their provider.

    async for header in await client.subscribe("newHeads"):
        ...

One provider pushes. When it dies, goes mute while others go on, or is put out, the next one is
subscribed to, and what happened in between is fetched: every block once, every log once, what a
reorganisation took away taken back. What no provider can give back (pending transactions) is
reported in `Subscription.losses`, never passed over. Where no provider pushes, or all that do have
gone mute, blocks and logs are polled; the log says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Self

from barewire.errors import BarewireError
from barewire.rpc.faults import AllProvidersFailed, Fault, RpcAnswerError, Trouble
from barewire.rpc.followers import follower
from barewire.rpc.jsonrpc import is_handle
from barewire.rpc.link import Link
from barewire.rpc.methods import Kind, lookup
from barewire.rpc.provider import Provider
from barewire.rpc.stitch import Loss
from barewire.untrusted import printable

if TYPE_CHECKING:
    from barewire.rpc.client import RpcClient

__all__ = ["Subscription", "subscribe"]

log = logging.getLogger("barewire.rpc")

_QUEUE = 10_000
_WATCH_S = 1.0
"""How often it is looked whether others have gone on, at least."""
_SOON_S = 0.02
_GRACE_MS = 500, 2_000
"""How long after the others a provider may push: four block times, within these."""
_RETRIES_S = (0.05, 0.2, 0.5, 1.0, 2.0, None)
_PATIENT = 2
"""So many times who pushes is asked again, where what he says ends before what he pushes."""
_GAP_S = 15.0
"""No sweep over a gap is begun later than this: what is pushed waits for it."""

_ids = itertools.count(1)


async def subscribe(client: RpcClient, kind: str, *args: Any) -> Subscription:
    """Subscribes to `kind` (``newHeads``, ``logs``, ``newPendingTransactions``, or any other).

    Raises:
        RpcAnswerError: the provider refuses the subscription itself.
        AllProvidersFailed: the newest block, from which on to tell, cannot be had.
        BarewireError: no provider pushes, and it is nothing that can be polled.
    """
    subscription = Subscription(client, kind, args)
    try:
        await subscription.begin()
    except BaseException:
        await subscription.close()
        raise
    return subscription


class Subscription(AsyncIterator[Any]):
    """One stream of items.

    Attributes:
        id: its own id; the ids that providers give change with them.
        kind: what is subscribed to.
        losses: what could not be recovered, in order.
        moves: how often the provider changed.
        provider: name of the one that pushes now, or "" while polling or between two.
        on_loss: called with each loss.
    """

    def __init__(self, client: RpcClient, kind: str, args: tuple[Any, ...]) -> None:
        self.id = f"0xb0{next(_ids):030x}"
        self.kind = kind
        self.losses: list[Loss] = []
        self.moves = 0
        self.provider = ""
        self.on_loss: Callable[[Loss], None] | None = None
        self._client = client
        self._args = args
        self._follower = follower(kind, client, args, self._emit, self._lose)
        self._link: Link | None = None
        self._their_id: str | None = None
        self._early: list[tuple[str, Any]] = []
        self._live: deque[tuple[Provider, Any]] = deque()
        self._pushed_from = -1  # what is pushed is complete after this block, as far as is known
        self._overflowed = False  # what was pushed while a gap was filled was too much to keep
        self._wake = asyncio.Event()
        self._polled: Provider | None = None
        self._said_so = False  # that it polls
        self._vain = 0  # how often in a row all refused the subscription
        self._mute = ""  # why the provider that should push counts as mute
        self._heard_ns = 0  # when something was last pushed, or the provider changed
        self._out: deque[Any] = deque()
        self._drained = False  # the reader has kept up since the last overrun
        self._ready = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._stop_listening = client.listen(self._notified, self._outage)
        self._refused: Exception | None = None

    # The reader's side

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        while not self._out:
            ended = [task for task in self._tasks if task.done()]
            if ended or not self._tasks:
                for task in ended:
                    if not task.cancelled():
                        task.result()
                raise StopAsyncIteration
            self._ready.clear()
            await self._ready.wait()
        if len(self._out) == 1:
            self._drained = True
        return self._out.popleft()

    def _emit(self, item: Any) -> None:
        if len(self._out) >= _QUEUE:
            self._out.popleft()
            self._overrun()
        self._out.append(item)
        self._ready.set()

    def _overrun(self) -> None:
        """One item more that the reader was too slow for; those in a row are one loss."""
        why = "the reader is slower than the stream"
        if self.losses and self.losses[-1].what == "overrun" and not self._drained:
            self.losses[-1] = Loss("overrun", 1, self.losses[-1].last + 1, why)
        else:
            self._drained = False
            self._lose(Loss("overrun", 1, 1, why))

    def _lose(self, loss: Loss) -> None:
        self.losses.append(loss)
        log.warning("%s: lost %s %d-%d: %s", self.kind, loss.what, loss.first, loss.last, loss.why)
        if self.on_loss is not None:
            self.on_loss(loss)

    async def close(self) -> None:
        """Unsubscribes and ends the stream."""
        self._stop_listening()
        self._client.unsubscribed(self)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._ready.set()
        await self._leave()

    # The providers' side

    def _notified(self, link: Link, params: Any) -> None:
        if link is not self._link or not isinstance(params, dict):
            return
        if self._their_id is None:  # pushed before the answer to eth_subscribe was taken
            if len(self._early) < _QUEUE:
                self._early.append((params.get("subscription", ""), params.get("result")))
            else:
                self._flooded(link)
        elif params.get("subscription") == self._their_id:
            self._heard_ns = time.monotonic_ns()
            self._live.append((link.provider, params.get("result")))
            self._wake.set()
            if len(self._live) > _QUEUE:
                self._too_much(link)

    def _too_much(self, link: Link) -> None:
        """More was pushed than is kept: what fills the gap brings that too, or it is lost."""
        if self._follower.polls:
            self._live.clear()
            self._overflowed, self._pushed_from = True, link.provider.head
        else:
            self._live.popleft()
            self._overrun()

    def _flooded(self, link: Link) -> None:
        """`link` pushes without end and never says what it is: it is cut, and not asked soon."""
        why = f"pushed {_QUEUE:,} items before it agreed to the subscription"
        link.provider.went_mute(self.kind, why, time.monotonic_ns())
        self._early = []
        if link.stream is not None:
            link.stream.drop(why)

    def _outage(self, link: Link) -> None:
        if link is self._link:
            self._link = None
            self._heard_ns = time.monotonic_ns()
            self._wake.set()

    def _candidates(self) -> list[Link]:
        """Those that push, the best first. Who is mute is asked again only for want of others."""
        pool, now_ns = self._client.pool, time.monotonic_ns()
        links = [
            link
            for link in self._client.links
            if link.stream is not None
            and link.stream.is_up
            and link.provider.connected
            and not link.provider.terms.private
            and not (self._follower.polls and link.provider.is_mute(self.kind, now_ns))
        ]
        return sorted(
            links,
            key=lambda link: (
                link.provider.is_mute(self.kind, now_ns),
                pool.ejection.is_out(link.provider, now_ns) or bool(link.provider.doubtful),
                pool.heads.behind(link.provider),
                pool.ranking.unloaded(link.provider, Kind.LIGHT),
            ),
        )

    def _answering(self) -> list[Provider]:
        """Those that can be asked what happened, the best first; who is polled stays so."""
        asked = lookup("eth_getLogs" if self.kind == "logs" else "eth_getBlockByNumber")
        pool, now_ns = self._client.pool, time.monotonic_ns()
        answering = pool.order(asked, "", now_ns)
        polled = self._polled
        fine = (
            polled in answering
            and not pool.ejection.is_out(polled, now_ns)
            and not pool.heads.behind(polled)
        )
        return sorted(answering, key=lambda p: p is not polled) if fine else answering

    async def begin(self) -> None:
        """Subscribes for the first time."""
        if self._follower.polls:
            await self._follower.begin()
        if await self._join():
            await self._catch_up()
        elif self._refused is not None:
            raise self._refused
        elif not self._follower.polls and not any(k.stream for k in self._client.links):
            raise BarewireError(
                f"{self.kind} cannot be polled, and no provider pushes",
                hint="give a provider a ws or ipc address",
            )
        self._heard_ns = time.monotonic_ns()
        work = self._run(), self._audit()
        self._tasks = [asyncio.create_task(self._while_open(one)) for one in work]
        for task in self._tasks:
            task.add_done_callback(lambda _: self._ready.set())  # who reads learns of its end

    async def _while_open(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except BarewireError:
            if self._client.is_open:
                raise  # else the client was closed, and the stream ends with it

    async def _join(self) -> bool:
        """Subscribes at the best provider that will have us."""
        self._refused = None
        for link in self._candidates():
            self._link, self._their_id, self._early = link, None, []
            try:
                their_id = await self._client.ask(
                    link.provider, "eth_subscribe", [self.kind, *self._args], timeout_ms=1_000
                )
            except (RpcAnswerError, AllProvidersFailed) as error:
                self._link = None
                if isinstance(error, RpcAnswerError):
                    # It answers, and pushes nothing of this kind: blocks and logs are polled then.
                    unserved = self._follower.polls and error.code in (-32601, -32004)
                    self._refused = None if unserved else error
                    if unserved or self._tasks:
                        link.provider.went_mute(self.kind, error.message, time.monotonic_ns())
                continue
            if self._link is not link:
                continue  # it died while it answered
            if not is_handle(their_id):
                self._link = None
                why = f"called a subscription {printable(their_id, 40)}"
                link.provider.went_mute(self.kind, why, time.monotonic_ns())
                trouble = Trouble(Fault.PROVIDER, why)
                nobody = AllProvidersFailed("eth_subscribe", [(link.provider.name, trouble)])
                self._refused = None if self._follower.polls else nobody
                continue
            self._vain = 0
            self._their_id, self._pushed_from = their_id, link.provider.head
            self._live.extend(
                (link.provider, item) for early_id, item in self._early if early_id == their_id
            )
            self.provider, self._polled, self._said_so = link.provider.name, None, False
            return True
        self._link, self.provider = None, ""
        return False

    async def _leave(self) -> None:
        link, self._link = self._link, None
        if link is not None and self._their_id is not None and link.is_up:
            with contextlib.suppress(BarewireError):
                await self._client.ask(
                    link.provider, "eth_unsubscribe", [self._their_id], timeout_ms=500
                )

    @property
    def _poll_s(self) -> float:
        return min(self._client.pool.policy.block_time_ms / 4_000, 1.0)

    @property
    def _grace_s(self) -> float:
        least, most = _GRACE_MS
        return min(max(4 * self._client.pool.policy.block_time_ms, least), most) / 1_000

    async def _run(self) -> None:
        while True:
            await self._drain()
            if self._link is None:
                await self._move()
                continue
            self._wake.clear()
            if not self._live:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_WATCH_S):
                        await self._wake.wait()
            if self._put_out():
                self._mute = self._mute or "was put out"
            if self._mute and self._link is not None:
                log.info("%s: %s %s", self.kind, self.provider, self._mute)
                await self._leave()

    def _put_out(self) -> bool:
        link, now_ns = self._link, time.monotonic_ns()
        ejection = self._client.pool.ejection
        return (
            link is not None
            and ejection.is_out(link.provider, now_ns)
            and any(not ejection.is_out(k.provider, now_ns) for k in self._candidates())
        )

    async def _audit(self) -> None:
        """Looks, for as long as it runs, whether what was pushed is all there is."""
        heads = self._client.pool.heads
        while True:
            link, number = self._link, heads.newest
            source = link.provider if link is not None else self._polled
            told = source.head if source is not None else -1
            await asyncio.sleep(self._grace_s)
            if source is None or self._mute or not 0 <= number <= heads.newest:
                continue
            witnesses = [p for p in self._answering() if p.head >= number]
            witnesses.sort(key=lambda p: p is source)
            why = await self._follower.audit(source, number, told, witnesses)
            if not why and link is not None and self._client.stopped_pushing(link):
                why = "pushes no new heads"
            if not why or link is not self._link:
                continue
            source.went_mute(self.kind, why, time.monotonic_ns())
            if link is None:
                self._polled = None
            else:
                self._mute = why
                self._wake.set()

    async def _move(self) -> None:
        """From a provider that is gone to the next one, and over the gap."""
        self._mute = ""
        if await self._join():
            self.moves += 1
            await self._catch_up()
            self._follower.moved(self._heard_ns)
            self._heard_ns = time.monotonic_ns()
        elif not self._candidates():
            await (self._poll() if self._follower.polls else asyncio.sleep(_SOON_S))
        else:
            await asyncio.sleep(min(_SOON_S * 2**self._vain, _WATCH_S))
            self._vain = min(self._vain + 1, 16)

    async def _poll(self) -> None:
        answering = self._answering()
        if not answering:
            await asyncio.sleep(_SOON_S)
            return
        if not self._said_so:
            self._said_so = True
            why = "no provider pushes; polling every"
            log.warning("%s: %s %g s", self.kind, why, self._poll_s)
        polled = self._polled = answering[0]  # the audit may leave him while he is asked
        try:
            await self._follower.catch_up(polled)
        except (RpcAnswerError, AllProvidersFailed) as error:
            log.info("%s: polling %s: %s", self.kind, polled.name, error)
            # The next time another is asked, where there is one.
            self._polled = next((p for p in answering if p is not polled), polled)
        await asyncio.sleep(self._poll_s)

    # Over the gap

    async def _catch_up(self) -> None:
        """Tells what happened since, before what is pushed now.

        What is pushed waits for that. When who pushes is gone before it was told, what he pushed is
        left to who fills the gap next: told now, it would come before what happened earlier.
        """
        until_ns = time.monotonic_ns() + int(_GAP_S * 1e9)
        for tries, wait_s in enumerate(_RETRIES_S):
            failed = await self._over_the_gap(until_ns, patient=tries < _PATIENT)
            if self._link is None:
                self._live.clear()
                return
            if not failed:
                return
            if wait_s is None or time.monotonic_ns() > until_ns:
                break
            await asyncio.sleep(wait_s)
        self._follower.give_up(failed)

    async def _over_the_gap(self, until_ns: int, *, patient: bool) -> str:
        """Tells what happened up to where pushing began; why that cannot be had now, or "".

        A view that ends before that leaves a hole, but for a chain that was reset meanwhile: so who
        pushes is believed in the end, if not while we are `patient`.
        """
        link = self._link
        if link is None:
            return ""
        failed = ""
        others = [p for p in self._answering() if p is not link.provider]
        for source in (link.provider, *others):
            if failed and time.monotonic_ns() > until_ns:
                break
            self._overflowed = False
            believed = source is link.provider and not patient
            upto = -1 if believed or link.provider.doubtful else self._pushed_from
            try:
                await self._follower.catch_up(source, upto)
            except (RpcAnswerError, AllProvidersFailed) as error:
                failed = str(error)
                continue
            if not self._overflowed:
                return ""
            failed = f"more than {_QUEUE:,} items were pushed meanwhile"
        return failed

    async def _drain(self) -> None:
        while self._live:
            source, item = self._live.popleft()
            if self._follower.makes_sense(item, source):
                await self._follower.live(item, source)
                continue
            trouble = Trouble(Fault.PROVIDER, f"pushed {printable(item, 60)} as one of {self.kind}")
            source.erred(trouble.fault, trouble.message)
            source.blame(trouble)
            self._live.clear()
            await self._leave()
