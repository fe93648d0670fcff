"""The client: many providers as one.

It joins the decisions of `pool` with the transports of `link`: starts calls, hands answers to who
waits for them, carries out hedges when their time comes. One client belongs to one event loop.

    async with RpcClient.from_urls(["wss://one.example", "https://two.example"]) as client:
        block = await client.request("eth_blockNumber")
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

import msgspec

from barewire.errors import BarewireError, OutageError
from barewire.rpc.addresses import redact
from barewire.rpc.broadcast import Broadcast, broadcast, transaction_hash
from barewire.rpc.cache import Cache, Key
from barewire.rpc.confidential import Confidential
from barewire.rpc.config import ProviderConfig, RpcConfig
from barewire.rpc.faults import AllProvidersFailed, Fault, RpcAnswerError, Trouble, from_error
from barewire.rpc.filters import Filters
from barewire.rpc.freshness import BY_HASH, Freshness
from barewire.rpc.heads import quantity
from barewire.rpc.health import Health
from barewire.rpc.jsonrpc import Reply, encode_params
from barewire.rpc.link import Link
from barewire.rpc.log_parts import in_parts
from barewire.rpc.methods import Kind, Life, lookup
from barewire.rpc.own_nonces import OwnNonces
from barewire.rpc.pool import Attempt, Call, Pool, Step
from barewire.rpc.provider import Provider
from barewire.rpc.subscriptions import Subscription, subscribe
from barewire.rpc.transports.base import Channel
from barewire.rpc.transports.dial import Resolver, resolve
from barewire.untrusted import printable

__all__ = ["RpcClient"]

log = logging.getLogger("barewire.rpc")

_RECENT = 128
"""Blocks whose states every node keeps; what is older only archives are asked for."""
_OLD_STATES = (Kind.STATE, Kind.TRACE)
_TAKERS_MS = 1_000
_STALLED_NS = 5_000_000
"""An alarm later than this says that we were held up, not the providers."""

Listener = Callable[[Link, Any], None]


class RpcClient:
    """Many providers of one chain as one.

    Attributes:
        config: what it was made from.
        pool: the decisions: providers, heads, ranking.
        links: the transports, in the order of the pool's providers.
        cache: results that are still true, or None when switched off.
        sharing: whether identical reads in flight are shared.
        freshness: which block an answer has to know of.
    """

    def __init__(
        self,
        config: RpcConfig,
        *,
        resolver: Resolver = resolve,
        rng: random.Random | None = None,
    ) -> None:
        config.check()
        self.config = config
        self._resolver = resolver
        self._rng = rng or random.Random()  # noqa: S311  (spreads load; protects nothing)
        providers = [Provider(p.terms()) for p in config.providers]
        self.pool = Pool(providers, config.policy(), self._rng)
        self.freshness = Freshness(self.pool.heads)
        self._nonces = OwnNonces()
        self.cache: Cache | None = None
        if config.cache != "off":
            self.cache = Cache(
                self.pool.heads,
                moving=config.cache == "head",
                block_time_ms=config.chain_facts().block_time_ms,
            )
        self.sharing = config.sharing
        self._shared: dict[Key, Call] = {}
        self._parts: dict[Call, tuple[asyncio.Task[list[dict[str, Any]]], list[int]]] = {}
        self._filters = Filters(self)
        self._confidential = Confidential()
        self._number = 0
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_ns = 0
        self._read_first = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: asyncio.Task[None] | None = None
        self._listeners: list[Listener] = []
        self._outages: list[Callable[[Link], None]] = []
        self._build()

    def _build(self) -> None:
        """Makes what belongs to one event loop."""
        self.links = [
            p.link(provider, self, self._resolver)
            for p, provider in zip(self.config.providers, self.pool.providers, strict=True)
        ]
        self._link_of = {link.provider: link for link in self.links}
        self._opening: list[asyncio.Task[None]] = []
        self._subscriptions: set[Subscription] = set()
        self._listeners.clear()
        self._outages.clear()
        self._health = Health(self)

    @classmethod
    def from_urls(cls, urls: Iterable[str], *, chain_id: int = 0, **config: Any) -> Self:
        """A client for `urls` (http, https, ws, wss, or the path of an IPC socket).

        Raises:
            TypeError: one text instead of a list.
        """
        if isinstance(urls, str | bytes):
            text = urls if isinstance(urls, str) else urls.decode("latin-1")
            written = redact(text)[:80]
            raise TypeError(f"urls is a list of URLs, not the {type(urls).__name__} {written!r}")
        providers = [ProviderConfig.from_url(url, i) for i, url in enumerate(urls)]
        return cls(RpcConfig(providers=providers, chain_id=chain_id, **config))

    # Up and down

    @property
    def is_open(self) -> bool:
        """Whether it is connected, or about to be, on a loop that still runs."""
        return self._loop is not None and not self._loop.is_closed()

    async def connect(self) -> None:
        """Connects, and makes sure that each provider serves the right chain.

        It returns when a provider can be used and those that answer about as fast have had their
        time; slower ones go on connecting, and are used from when they are there.

        Raises:
            BarewireError: every provider was refused (wrong chain), or none can be reached, or no
                chain is configured and they serve several; or it is connected already, or was
                closed meanwhile.
        """
        await self._closed()
        loop = asyncio.get_running_loop()
        if self._loop is not None:
            raise self._taken() or BarewireError(
                "this client is connected already", hint="close() comes first"
            )
        self._loop = loop
        self._opening = [asyncio.create_task(self._arrive(link)) for link in self.links]
        try:
            await self._health.first(self._opening)
            if self._loop is loop:
                self._need_one()
        except BaseException:
            await self.close()
            raise
        if self._loop is not loop:
            raise BarewireError("this client was closed while it connected")
        self._health.start()

    async def _arrive(self, link: Link) -> None:
        await link.open()
        await self._health.vetted(link)

    async def settle(self) -> None:
        """Waits until every provider has been tried, those too that `connect` did not wait for."""
        await asyncio.gather(*self._opening)

    def _taken(self) -> BarewireError | None:
        """What whoever is on another loop than this client's is told."""
        if self._loop is asyncio.get_running_loop():
            return None
        return BarewireError(
            "this client is not connected"
            if self._loop is None
            else "this client is connected on another event loop",
            hint="`async with RpcClient(...) as client:` on the loop that uses it",
        )

    def _bury(self) -> None:
        """The loop ended without `close`: whatever waits on it waits for ever, so it is dropped."""
        self.pool.stop()
        self._shared.clear()
        self._alarm = None
        for provider in self.pool.providers:
            provider.connected = False
        self._loop = self._closing = None
        self._build()

    def _need_one(self) -> None:
        if any(p.connected for p in self.pool.providers):
            return
        said = "; ".join(f"{p.name}: {p.refused or p.last_trouble}" for p in self.pool.providers)
        raise OutageError(
            f"no provider can be used ({said})",
            hint="check addresses, credentials and chain ids: `barewire rpc status`",
        )

    async def close(self) -> None:
        """Closes all connections: calls in flight fail, subscriptions end. It may connect again.

        Whoever closes it a second time waits for the first.

        Raises:
            BarewireError: it is connected on another event loop, which runs.
        """
        await self._closed()
        if self._loop is not None:
            taken = self._taken()
            if taken is not None:
                raise taken
            self._loop = None
            self._closing = asyncio.create_task(self._close())
            await self._closed()

    async def _closed(self) -> None:
        """Waits for a `close` that goes on, and clears up after a loop that ended without one."""
        home = self._closing.get_loop() if self._closing is not None else self._loop
        if home is not None and home.is_closed():
            self._bury()
        elif self._closing is not None:
            if home is not asyncio.get_running_loop():
                raise BarewireError("this client is being closed on another event loop")
            # Not cancelled with who waits: half closed is neither open nor closed.
            await asyncio.shield(self._closing)

    async def _close(self) -> None:
        try:
            await self._close_all()
        finally:
            self._closing = None

    async def _close_all(self) -> None:
        for call, error in self.pool.stop().failed:
            self._fail(call, error)
        for task in self._opening:
            task.cancel()
        await asyncio.gather(*self._opening, return_exceptions=True)
        await self._health.stop()
        for subscription in list(self._subscriptions):
            await subscription.close()
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self._shared.clear()
        for link in self.links:
            await link.close()
            link.provider.connected = False

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # Calls

    async def request(
        self,
        method: str,
        params: Sequence[Any] = (),
        *,
        wire: bytes | None = None,
        route: str = "",
        bulk: bool = False,
        at_least: int = -1,
        archive: bool = False,
        timeout_ms: int = 0,
        fresh: bool = False,
    ) -> Any:
        """Asks the best provider, and the next where that one is in trouble.

        Args:
            method: JSON-RPC method.
            params: JSON-ready parameters.
            wire: the same parameters as JSON, where the caller has them already.
            route: the private route it belongs to, or "" for the public providers.
            bulk: gather for up to 10 ms instead of 1, and spread over the providers.
            at_least: the answer must know this block; "latest" is pinned to it or a later one.
            archive: only providers that keep old states; by itself for a number 128 blocks back.
            timeout_ms: when to give up, 0 for the policy's.
            fresh: neither from the cache nor shared with another caller.

        Returns:
            The decoded result. Callers that asked the same may hold the same object: copy it
            before changing it.

        Raises:
            RpcAnswerError: the node's honest error (a revert, a bad parameter).
            AllProvidersFailed: nobody could answer.
            BarewireError: the method carries what must stay private, and there is no route; the
                parameters are not JSON; or the client is not connected.
            TypeError: the parameters are no list.
        """
        info = lookup(method)
        if not isinstance(params, list | tuple):
            raise TypeError(f"the parameters of {method} are a list, no {type(params).__name__}")
        if method == "eth_sendRawTransaction":
            return (await self.send_raw(params[0] if params else "", route=route)).hash
        if route and not (info.repeat and not info.private):
            self._confidential.carried(params, route)
        if self._confidential:
            route = self._confidential.route_of(params, route)
        if method in Filters.MAKERS:
            return await self._filters.make(method, params, route)
        if method in Filters.METHODS:
            return await self._filters.ask(method, params)
        if at_least >= 0 and info.block >= 0:
            params, at_least = self._pin(params, info.block, at_least)
            wire = None
        if self.pool.prunes and info.kind in _OLD_STATES and not archive:
            archive = self._is_old(params, info.block)
        if wire is None:
            wire = encode_params(params)
        if method == "eth_getTransactionCount" and self._nonces and not route:
            ours = await self._pending_count(params, timeout_ms)
            if ours is not None:
                return ours
        floor = -1 if route else self.freshness.floor(info, params)
        key: Key | None = None
        if info.repeat and not fresh and (self.sharing or self.cache):
            key = (method, wire, route, at_least)
            if self.cache and info.life is not Life.NEVER:
                hit = self.cache.get(key, time.monotonic_ns())
                if hit is not None:
                    return hit[0]
            shared = self._shared.get(key)
            if shared is not None and not shared.done and shared.floor >= floor:
                waiter = self._join(shared, timeout_ms)
                return await self._result(key, shared, waiter, timeout_ms)
        call = Call(
            info, params, route=route, bulk=bulk, at_least=at_least, floor=floor, archive=archive
        )
        call.wire = wire
        waiter = self._begin(call, timeout_ms)
        if key is not None and self.sharing:
            self._shared[key] = call
        result = await self._result(key, call, waiter, timeout_ms)
        if key is not None and self.cache:
            self.cache.put(key, info, params, result, time.monotonic_ns())
        return result

    async def _result(
        self, key: Key | None, call: Call, waiter: asyncio.Future[Any], timeout_ms: int
    ) -> Any:
        until_ns = time.monotonic_ns() + (timeout_ms or self.pool.policy.timeout_ms) * 1_000_000
        try:
            return await self._wait(call, waiter)
        except BarewireError as error:
            if call.method.name != "eth_getLogs":
                raise
            return await self._in_parts(call, error, until_ns)
        finally:
            over = call.done or not call.waiter
            if over and key is not None and self._shared.get(key) is call:
                del self._shared[key]

    async def _in_parts(self, call: Call, refused: BarewireError, until_ns: int) -> Any:
        """Asks for the parts of `call` once for all who share it, as long as one of them waits."""
        if call not in self._parts:
            self._parts[call] = asyncio.create_task(in_parts(self, call, refused)), []
        task, waiting = self._parts[call]
        waiting.append(until_ns)
        try:
            async with asyncio.timeout((until_ns - time.monotonic_ns()) / 1e9):
                return await asyncio.shield(task)
        except TimeoutError:
            raise refused from None
        finally:
            waiting.remove(until_ns)
            if not waiting:
                task.cancel()
                del self._parts[call]

    def _join(self, call: Call, timeout_ms: int) -> asyncio.Future[Any]:
        """Waits for `call`, which another began, and no longer than `timeout_ms`.

        The call goes on for the most patient of those who wait; the others give up by themselves.
        """
        until_ns = time.monotonic_ns() + (timeout_ms or self.pool.policy.timeout_ms) * 1_000_000
        if not call.joined:
            call.joined = True
            self._expire(call, call.waiter[0], call.deadline_ns)
        waiter = self._waiter(call)
        self._expire(call, waiter, until_ns)
        call.deadline_ns = max(call.deadline_ns, until_ns)
        return waiter

    def _expire(self, call: Call, waiter: asyncio.Future[Any], until_ns: int) -> None:
        def too_late() -> None:
            if not waiter.done():
                trouble = Trouble(Fault.TIMEOUT, "no answer in the time that this caller gave it")
                asked = call.tried[-1].name if call.tried else "nobody"
                error = AllProvidersFailed(call.method.name, [*call.causes, (asked, trouble)])
                self._leave(call, waiter)
                waiter.set_exception(error)

        loop = asyncio.get_running_loop()
        timer = loop.call_later((until_ns - time.monotonic_ns()) / 1e9, too_late)
        waiter.add_done_callback(lambda _: timer.cancel())

    def _leave(self, call: Call, waiter: asyncio.Future[Any]) -> None:
        """Who waits by `waiter` no longer does; a call for which nobody waits is abandoned."""
        call.waiter.remove(waiter)
        if not call.waiter and not call.done:
            for attempt in self.pool.abandon(call):
                self._link_of[attempt.provider].cancel(attempt)

    async def batch(
        self, calls: Iterable[tuple[str, Sequence[Any]]], **how: Any
    ) -> list[Any | BaseException]:
        """Many calls at once; each item is its result or its own exception."""
        asked = [self.request(method, params, **how) for method, params in calls]
        return await asyncio.gather(*asked, return_exceptions=True)

    async def ask(
        self,
        provider: Provider,
        method: str,
        params: Sequence[Any] = (),
        *,
        timeout_ms: int = 0,
    ) -> Any:
        """Asks `provider` and nobody else, once.

        Raises:
            RpcAnswerError, AllProvidersFailed: as `request`.
        """
        call = Call(lookup(method), params, route=provider.terms.private, only=provider)
        call.wire = encode_params(params)
        return await self._wait(call, self._begin(call, timeout_ms))

    async def send_raw(self, raw: str, *, route: str = "", settle: bool = False) -> Broadcast:
        """Sends a signed transaction to every provider of its route; see `broadcast`.

        Raises:
            BarewireError: the same bytes went out on another, private route before.
        """
        number = transaction_hash(raw)
        self._confidential.sending(number, route)
        sent = await broadcast(self, raw, number, route=route, settle=settle)
        if not route:
            self._nonces.sent(raw, number, sent.accepted, time.monotonic_ns())
        return sent

    async def subscribe(self, kind: str, *args: Any) -> Subscription:
        """A stream of `kind` that outlives its provider; see `subscriptions`."""
        subscription = await subscribe(self, kind, *args)
        self._subscriptions.add(subscription)
        return subscription

    def unsubscribed(self, subscription: Subscription) -> None:
        """`subscription` has ended."""
        self._subscriptions.discard(subscription)

    async def _pending_count(self, params: Sequence[Any], timeout_ms: int) -> str | None:
        """The "pending" count of an account that has sent by us of late; None for any other."""
        if len(params) < 2 or params[1] != "pending":
            return None
        used, takers = self._nonces.of(params[0], time.monotonic_ns())
        if not used and not takers:
            return None
        info = lookup("eth_getTransactionCount")
        call = Call(info, params)
        call.wire = encode_params(params)
        asked = [self._wait(call, self._begin(call, timeout_ms))]
        asked += [
            self.ask(p, info.name, params, timeout_ms=_TAKERS_MS)
            for p in self.pool.providers
            if p.name in takers and p.connected and p.terms.private == ""
        ]
        first, *others = await asyncio.gather(*asked, return_exceptions=True)
        counts = [quantity(count) for count in (first, *others)]
        if max(counts) < 0:
            if isinstance(first, BaseException):
                raise first
            return None
        return hex(self._nonces.after(max(counts), used))

    def _pin(self, params: Sequence[Any], index: int, at_least: int) -> tuple[list[Any], int]:
        pinned = list(params)
        if len(pinned) == index:
            pinned.append("latest")
        if len(pinned) > index and pinned[index] == "latest":
            at_least = max(at_least, self.pool.heads.newest)
            pinned[index] = hex(at_least)
        return pinned, at_least

    def _is_old(self, params: Sequence[Any], index: int) -> bool:
        block = params[index] if 0 <= index < len(params) else None
        if block == "earliest":
            return True
        return 0 <= quantity(block) < self.pool.heads.newest - _RECENT

    def _begin(self, call: Call, timeout_ms: int) -> asyncio.Future[Any]:
        """Sends `call`; what is returned is for `_wait`."""
        if call.method.private and not call.route:
            raise BarewireError(
                f"{call.method.name} carries what must not become public, and has no route",
                hint='give route="NAME", and a provider with private = "NAME"',
            )
        taken = self._taken()
        if taken is not None:
            raise taken
        call.waiter = []
        waiter = self._waiter(call)  # now, for sending may fail before it returns
        now_ns = time.monotonic_ns()
        attempt = self.pool.start(call, now_ns, timeout_ms)
        if attempt is not None:
            self._send(attempt)
            copy = self.pool.mirror(call, now_ns)
            if copy is not None:
                copy.call.waiter = []
                self._send(copy)
        self._set_alarm(attempt.due_ns if attempt else call.resume_ns)
        self._look_for_heads()
        return waiter

    @staticmethod
    def _waiter(call: Call) -> asyncio.Future[Any]:
        waiter: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        call.waiter.append(waiter)
        return waiter

    async def _wait(self, call: Call, waiter: asyncio.Future[Any]) -> Any:
        try:
            return await waiter
        except asyncio.CancelledError:
            self._leave(call, waiter)
            raise

    def _send(self, attempt: Attempt) -> None:
        self._link_of[attempt.provider].submit(attempt)

    # What the links report (see `link.Judge`)

    def next_number(self, many: int) -> int:
        """See `Judge.next_number`."""
        number = self._number + 1
        self._number += many
        return number

    def took(self, attempt: Attempt, reply: Reply) -> None:
        """See `Judge.took`."""
        now_ns = time.monotonic_ns()
        if reply.error is not None:
            trouble = from_error(reply.error, attempt.call.method.name)
            if trouble.fault is not Fault.ANSWER:
                self._apply(self.pool.failed(attempt, trouble, now_ns))
                return
        else:
            doubt = self._doubt(attempt, reply.result)
            if doubt is not None:
                self._apply(self.pool.failed(attempt, doubt, now_ns))
                return
        if attempt.closed:
            return
        losers = self.pool.answered(attempt, now_ns)
        if self.pool.woken:
            self.pool.woken = False
            self._set_alarm(now_ns)
        for loser in losers:
            self._link_of[loser.provider].cancel(loser)
        call = attempt.call
        if reply.error is not None:
            self._fail(call, RpcAnswerError(reply.error, attempt.provider.name))
            return
        if call.only is None:
            waited = now_ns >= call.floor_ns
            self.freshness.learn(call.method, call.params, reply.result, waited=waited)
        if call.method.name == "eth_sendTransaction" and call.params:
            sender = call.params[0].get("from") if isinstance(call.params[0], dict) else None
            self._nonces.sent_by(sender, attempt.provider.name, now_ns)
        for waiter in call.waiter:
            if not waiter.done():
                waiter.set_result(reply.result)

    def _doubt(self, attempt: Attempt, result: Any) -> Trouble | None:
        """Why an answer without an error is none after all."""
        if result is msgspec.UNSET:
            return Trouble(Fault.PROVIDER, "neither a result nor an error")
        call, provider, now_ns = attempt.call, attempt.provider, time.monotonic_ns()
        name, heads = call.method.name, self.pool.heads
        number = self.freshness.tells(call.method, call.params, result)
        if name == "eth_blockNumber" and number < 0:
            return Trouble(Fault.PROVIDER, f"eth_blockNumber said {printable(result, 40)}")
        if number >= 0:
            heads.saw(provider, number, now_ns)
            if number < call.at_least:
                return Trouble(Fault.STALE, f"is at block {number}, not {call.at_least}")
        elif result is None and name == "eth_getBlockByNumber":
            block = call.params[0] if call.params else None
            if 0 <= quantity(block) <= max(heads.newest, call.at_least):
                return Trouble(Fault.STALE, f"does not have block {quantity(block)}")
        if call.only is not None or call.route or now_ns >= call.floor_ns:
            return None
        if 0 <= number < self.freshness.floor_now:
            call.floor = self.freshness.floor_now
            return Trouble(Fault.STALE, f"is at block {number}, not {call.floor}", counts=False)
        behind = 0 <= provider.head < heads.newest
        if result is None and name in BY_HASH and behind:
            call.floor = heads.newest
            return Trouble(Fault.STALE, f"is at block {provider.head}", counts=False)
        if result is None and name == "eth_getTransactionByHash" and call.params:
            takers = self._nonces.takers(call.params[0])
            if takers and provider.name not in takers:
                return Trouble(Fault.STALE, "does not have what another took", counts=False)
        return None

    def lost(self, attempt: Attempt, trouble: Trouble) -> None:
        """See `Judge.lost`."""
        self._apply(self.pool.failed(attempt, trouble, time.monotonic_ns()))

    def notified(self, link: Link, reply: Reply) -> None:
        """See `Judge.notified`."""
        for listener in self._listeners:
            listener(link, reply.params)

    def link_up(self, link: Link, channel: Channel) -> None:
        """See `Judge.link_up`."""
        if self.is_open:  # else it came while this client closes, and is closed with the rest
            self._health.arrived(link, channel)

    def link_down(self, link: Link, channel: Channel, why: str) -> None:
        """See `Judge.link_down`."""
        if self.is_open:  # else it is our own doing
            link.provider.erred(Fault.TRANSPORT, why)
        if not link.is_up:
            link.provider.connected = False
        if channel.pushes:
            for outage in self._outages:
                outage(link)

    def listen(self, listener: Listener, outage: Callable[[Link], None]) -> Callable[[], None]:
        """Hears all notifications, and when a link that pushes goes down; returns how to stop."""
        self._listeners.append(listener)
        self._outages.append(outage)

        def stop() -> None:
            with contextlib.suppress(ValueError):
                self._listeners.remove(listener)
                self._outages.remove(outage)

        return stop

    # Time

    def _apply(self, step: Step) -> None:
        for attempt in step.cancel:
            self._link_of[attempt.provider].cancel(attempt)
        for attempt in step.send:
            self._set_alarm(attempt.due_ns)
            self._send(attempt)
        for call, error in step.failed:
            self._fail(call, self._plain(error))
        if not step.send and not step.failed:
            self._set_alarm(self.pool.next_due_ns())
        self._look_for_heads()

    def _look_for_heads(self) -> None:
        if self.pool.wants_heads:
            self.pool.wants_heads = False
            self._health.look_now()

    def heads_moved(self) -> None:
        """A provider is known to be further than it was: calls may wait for that."""
        if self.pool.heads_moved(time.monotonic_ns()):
            self._set_alarm(time.monotonic_ns())

    @staticmethod
    def _plain(error: Exception) -> Exception:
        """Where every provider said the same in JSON-RPC, that is the answer.

        So is an error that nobody knows, where no second provider could say anything better.
        """
        if isinstance(error, AllProvidersFailed) and error.causes:
            for name, trouble in error.causes:
                if trouble.fault is Fault.UNSURE:
                    return RpcAnswerError(trouble.error, name)
            name, first = error.causes[0]
            if all(t.error is not None and t.fault is first.fault for _, t in error.causes):
                return RpcAnswerError(first.error, name)
        return error

    @staticmethod
    def _fail(call: Call, error: Exception) -> None:
        for waiter in call.waiter:
            if not waiter.done():
                waiter.set_exception(error)

    def _set_alarm(self, due_ns: int) -> None:
        if self._loop is None:
            return
        if self._alarm is not None:
            if self._alarm_ns <= due_ns:
                return
            self._alarm.cancel()
        self._alarm_ns = due_ns
        delay_s = max((due_ns - time.monotonic_ns()) / 1e9, 0.0)
        self._alarm = self._loop.call_later(min(delay_s, 60.0), self._ring)

    def _ring(self) -> None:
        self._alarm = None
        now_ns = time.monotonic_ns()
        late = now_ns - self._alarm_ns > _STALLED_NS
        if late and not self._read_first and self._loop is not None:
            # This process was held up (a long computation, a paging storm): answers may lie unread.
            # Read them first, so that the providers are not blamed; but once, for where every turn
            # of the loop is late, deadlines hold all the same.
            self._read_first = True
            self._alarm_ns = now_ns
            self._alarm = self._loop.call_later(0.001, self._ring)
            return
        self._read_first = False
        step = self.pool.due(now_ns)
        due_ns = self.pool.next_due_ns()
        if due_ns < now_ns + 60_000_000_000:
            self._set_alarm(due_ns)
        self._apply(step)

    # For others

    def ranked(self, method: str) -> list[Provider]:
        """The providers that serve `method`, cheapest first."""
        info = lookup(method)
        serving = [p for p in self.pool.providers if p.may_serve(info) and not p.refused]
        return self.pool.ranking.order(serving, info.kind)

    def link_of(self, provider: Provider) -> Link:
        """The transports of `provider`."""
        return self._link_of[provider]

    def stopped_pushing(self, link: Link) -> bool:
        """See `Health.stopped_pushing`."""
        return self._health.stopped_pushing(link)

    def after_head(self, callback: Callable[[int], None]) -> None:
        """Calls `callback` with each newest head as it becomes known."""
        self._health.on_head.append(callback)
