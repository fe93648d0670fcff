"""Subscriptions that outlive their provider.

    async for header in await client.subscribe("newHeads"):
        ...

One provider pushes. When it dies, falls silent while others go on, or is put out, the next one is
subscribed to, and what happened in between is fetched: every block once, every log once. What no
provider can give back (pending transactions) is reported in `Subscription.losses`, never passed
over. Where no provider pushes, blocks and logs are polled; the log says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, Self

from barewire.errors import BarewireError
from barewire.rpc.faults import AllProvidersFailed, Fault, RpcAnswerError, Trouble
from barewire.rpc.heads import quantity
from barewire.rpc.link import Link
from barewire.rpc.methods import Kind
from barewire.rpc.stitch import HeadStitch, LogStitch, Loss, OnceStitch
from barewire.untrusted import printable

if TYPE_CHECKING:
    from barewire.rpc.client import RpcClient

__all__ = ["Subscription", "subscribe"]

log = logging.getLogger("barewire.rpc")

_QUEUE = 10_000
_WATCH_S = 1.0
_SILENT_HEADS_S = 2.0
_MARGIN = 8
"""Blocks behind the newest head up to which a live log stream counts as complete."""
_WIDE = 500
"""Blocks asked for in one getLogs."""
_DEEPEST = 128
"""A reorganisation deeper than this is not walked back."""

_POLLABLE = ("newHeads", "logs")

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
        self._heads = HeadStitch()
        self._logs = LogStitch()
        self._once = OnceStitch()
        self._link: Link | None = None
        self._their_id: str | None = None
        self._early: list[tuple[str, Any]] = []
        self._live: deque[Any] = deque()
        self._wake = asyncio.Event()
        self._out: deque[Any] = deque()
        self._drained = False  # the reader has kept up since the last overrun
        self._ready = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stop_listening = client.listen(self._notified, self._outage)
        self._refused: Exception | None = None

    # The reader's side

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        while not self._out:
            if self._task is None or self._task.done():
                if self._task is not None and not self._task.cancelled():
                    self._task.result()
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
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._ready.set()
        await self._leave()

    # The providers' side

    def _notified(self, link: Link, params: Any) -> None:
        if link is not self._link or not isinstance(params, dict):
            return
        if self._their_id is None:  # pushed before the answer to eth_subscribe was taken
            self._early.append((params.get("subscription", ""), params.get("result")))
        elif params.get("subscription") == self._their_id:
            self._live.append(params.get("result"))
            self._wake.set()

    def _outage(self, link: Link) -> None:
        if link is self._link:
            self._link = None
            self._wake.set()

    def _candidates(self) -> list[Link]:
        pool, now_ns = self._client.pool, time.monotonic_ns()
        links = [
            link
            for link in self._client.links
            if link.stream is not None
            and link.stream.is_up
            and link.provider.connected
            and not link.provider.terms.private
        ]
        return sorted(
            links,
            key=lambda link: (
                pool.ejection.is_out(link.provider, now_ns) or bool(link.provider.doubtful),
                pool.heads.behind(link.provider),
                pool.ranking.unloaded(link.provider, Kind.LIGHT),
            ),
        )

    async def begin(self) -> None:
        """Subscribes for the first time."""
        if self.kind in _POLLABLE:
            newest = await self._newest()
            self._heads.last = self._logs.covered = newest
        if not await self._join():
            if self._refused is not None:
                raise self._refused
            if not any(link.stream is not None for link in self._client.links):
                if self.kind not in _POLLABLE:
                    raise BarewireError(
                        f"{self.kind} cannot be polled, and no provider pushes",
                        hint="give a provider a ws or ipc address",
                    )
                log.warning("%s: no provider pushes; polling every %g s", self.kind, self._poll_s)
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(lambda _: self._ready.set())  # who reads learns of its end

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
                self._refused = error if isinstance(error, RpcAnswerError) else None
                self._link = None
                continue
            if self._link is not link:
                continue  # it died while it answered
            self._their_id = their_id
            self._live.extend(item for early_id, item in self._early if early_id == their_id)
            self.provider = link.provider.name
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

    async def _run(self) -> None:
        while True:
            await self._drain()
            if self._link is None:
                await self._move()
                continue
            self._wake.clear()
            if not self._live:
                try:
                    async with asyncio.timeout(_WATCH_S):
                        await self._wake.wait()
                except TimeoutError:
                    if self._is_silent():
                        log.info("%s: %s is silent", self.kind, self.provider)
                        await self._leave()
            if self.kind == "logs" and self._link is not None:
                # By the head that this provider told: one that has fallen silent covers nothing.
                covered = self._link.provider.head - _MARGIN
                self._logs.covered = max(self._logs.covered, covered)

    def _is_silent(self) -> bool:
        """Whether the others have gone on without the one that should push."""
        link = self._link
        if link is None:
            return False
        pool, now_ns = self._client.pool, time.monotonic_ns()
        if pool.ejection.is_out(link.provider, now_ns) and len(self._candidates()) > 1:
            return True
        behind = self.kind == "newHeads" and self._heads.last < pool.heads.newest
        return behind and now_ns - pool.heads.newest_ns > _SILENT_HEADS_S * 1e9

    async def _move(self) -> None:
        """From a provider that is gone to the next one, and over the gap."""
        gone_ns = time.monotonic_ns()
        self.moves += 1
        joined = await self._join()
        if not joined:
            self.moves -= 1
            polled = not self._candidates() and any(k.is_up for k in self._client.links)
            if polled:
                await self._fill(gone_ns, polled=True)
            await asyncio.sleep(self._poll_s if polled else 0.02)
            return
        await self._fill(gone_ns, polled=False)

    # Over the gap

    async def _newest(self) -> int:
        return int(await self._client.request("eth_blockNumber", fresh=True), 16)

    async def _fill(self, gone_ns: int, *, polled: bool) -> None:
        for wait_s in (0.05, 0.2, 0.5, 1.0, 2.0, None):
            try:
                if self.kind == "newHeads":
                    await self._fill_heads(await self._newest())
                elif self.kind == "logs":
                    await self._fill_logs(await self._newest())
                elif not polled:
                    why = "the provider changed; what was pending meanwhile nobody can tell"
                    self._lose(Loss("pending", gone_ns, time.monotonic_ns(), why))
            except (RpcAnswerError, AllProvidersFailed) as error:
                if wait_s is None:
                    self._give_up(error)
                else:
                    await asyncio.sleep(wait_s)
            else:
                return

    def _give_up(self, error: Exception) -> None:
        newest = self._client.pool.heads.newest
        if self.kind == "newHeads":
            self._lose(Loss("blocks", self._heads.last + 1, newest, str(error)))
            self._heads.last = max(self._heads.last, newest)
        else:
            self._lose(Loss("logs", self._logs.covered + 1, newest, str(error)))
            self._logs.covered = max(self._logs.covered, newest)

    async def _fill_heads(self, newest: int) -> None:
        while True:
            missing = self._heads.missing(newest + 1)[:100]
            if not missing:
                return
            for block in await asyncio.gather(*(self._block(n) for n in missing)):
                await self._let_through(block)

    async def _block(self, number: int) -> dict[str, Any]:
        block: dict[str, Any] | None = await self._client.request(
            "eth_getBlockByNumber", [hex(number), False], at_least=number, fresh=True
        )
        if not _is_header(block):
            raise AllProvidersFailed("eth_getBlockByNumber", [], hint=f"block {number} is gone")
        assert block is not None
        return block

    async def _let_through(self, block: dict[str, Any]) -> None:
        """Lets `block` through, after those of its ancestors that a reorganisation replaced."""
        branch = [block]
        while not self._heads.has_parent(branch[-1]) and len(branch) < _DEEPEST:
            number = int(branch[-1]["number"], 16) - 1
            if number < 0 or not self._heads.knows(number):
                break
            branch.append(await self._block(number))
        for one in reversed(branch):
            header = self._heads.take(one)
            if header is not None:
                self._emit(header)

    async def _fill_logs(self, newest: int) -> None:
        where = dict(self._args[0]) if self._args and isinstance(self._args[0], dict) else {}
        first = self._logs.covered + 1
        while first <= newest:
            last = min(first + _WIDE - 1, newest)
            span = where | {"fromBlock": hex(first), "toBlock": hex(last)}
            found = await self._client.request("eth_getLogs", [span], at_least=last, fresh=True)
            if not isinstance(found, list) or not all(_is_log(one) for one in found):
                raise AllProvidersFailed("eth_getLogs", [], hint="what came are no logs")
            for one in found:
                self._take_log(one)
            self._logs.covered = max(self._logs.covered, last)
            first = last + 1

    def _take_log(self, one: dict[str, Any]) -> None:
        item = self._logs.take(one)
        if item is not None:
            self._emit(item)

    async def _drain(self) -> None:
        while self._live:
            item = self._live.popleft()
            if not self._makes_sense(item):
                await self._leave()
                self._live.clear()
                return
            if self.kind == "newHeads":
                missing = self._heads.missing(int(item["number"], 16))
                if missing:
                    await self._fill(time.monotonic_ns(), polled=False)
                await self._let_through_live(item)
            elif self.kind == "logs":
                self._take_log(item)
            elif (fresh := self._once.take(item)) is not None:
                self._emit(fresh)

    def _makes_sense(self, item: Any) -> bool:
        """Whether what was pushed can be true; who pushes nonsense is left and struck."""
        heads = self.kind == "newHeads"
        fine = _is_header(item) if heads else self.kind != "logs" or _is_log(item)
        link = self._link
        if fine and heads and link is not None:
            pool = self._client.pool
            pool.heads.saw(link.provider, quantity(item["number"]), time.monotonic_ns())
            fine = not link.provider.doubtful
        if not fine and link is not None:
            trouble = Trouble(Fault.PROVIDER, f"pushed {printable(item, 60)} as one of {self.kind}")
            link.provider.erred(trouble.fault, trouble.message)
            link.provider.blame(trouble)
        return fine

    async def _let_through_live(self, item: dict[str, Any]) -> None:
        try:
            await self._let_through(item)
        except (RpcAnswerError, AllProvidersFailed) as error:
            number = int(item["number"], 16)
            self._lose(Loss("blocks", number - 1, number - 1, f"a reorganised branch: {error}"))
            header = self._heads.take(item)
            if header is not None:
                self._emit(header)


def _is_header(item: Any) -> bool:
    return (
        isinstance(item, dict)
        and quantity(item.get("number")) >= 0
        and isinstance(item.get("hash"), str)
        and isinstance(item.get("parentHash", ""), str)
    )


def _is_log(item: Any) -> bool:
    return (
        isinstance(item, dict)
        and (item.get("blockNumber") is None or quantity(item["blockNumber"]) >= 0)
        and all(isinstance(item.get(key, ""), str | None) for key in ("blockHash", "logIndex"))
    )
