"""Looking after the providers: the right chain, the newest head, a quiet probe.

Every few seconds each is asked for its newest block, which tells its head and its latency at once
and is the probe by which an ejected one comes back when there is no traffic to mirror. A provider
that pushes also tells of each new head as it comes. The 500 ms bound of fail-over does not come
from here: hedging gives it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from barewire.errors import BarewireError
from barewire.rpc.faults import AllProvidersFailed, RpcAnswerError
from barewire.rpc.heads import quantity
from barewire.rpc.jsonrpc import is_handle
from barewire.rpc.link import Link
from barewire.rpc.methods import lookup
from barewire.rpc.provider import Provider
from barewire.rpc.transports.base import Channel
from barewire.untrusted import quantity_of

if TYPE_CHECKING:
    from barewire.rpc.client import RpcClient

__all__ = ["Health"]

log = logging.getLogger("barewire.rpc")

_PROBE_MS = 2_000
_SILENT_MS = 1_000
"""How soon one that fell silent is looked after again: calls may wait for it."""
_GRACE_S = 0.25
"""How long connecting waits for further providers once one can be used."""
_LOOK_NS = 100_000_000, 2_000_000_000
_PUSH_NS = 2_000_000_000
"""How long after the others a link may push a head."""


@dataclass(slots=True)
class _Pushes:
    """newHeads as one link pushes them.

    Attributes:
        number: the provider's id of the subscription.
        head: the newest block pushed.
        behind_ns: since when others have a newer one, 0 while they have not.
    """

    number: str
    head: int
    behind_ns: int = 0


class Health:
    """The background work of one client.

    Attributes:
        chain_id: the pool's chain; 0 until it is known, where none is configured.
        on_head: called with each newest head.
    """

    def __init__(self, client: RpcClient) -> None:
        self._client = client
        self.chain_id = client.config.chain_facts().chain_id
        self._newest: dict[Provider, tuple[int, Any]] = {}  # what each last said it has
        self._said: dict[str, int] = {}  # name of a provider to the chain it says it serves
        self._task: asyncio.Task[None] | None = None
        self._looking: set[asyncio.Task[None]] = set()
        self._looked_ns = 0
        self._usable = asyncio.Event()
        self._vetting: dict[Link, asyncio.Task[None]] = {}
        self._pushes: dict[Link, _Pushes] = {}
        self.on_head: list[Callable[[int], None]] = []
        client.listen(self._notified, self._outage)

    # Chain

    def arrived(self, link: Link, channel: Channel) -> None:
        """A way to a provider came up: it is vetted before it is used."""
        running = self._vetting.get(link)
        if running is None or running.done():
            self._vetting[link] = asyncio.create_task(self._vet(link))
        elif channel.pushes:
            running.add_done_callback(lambda _: self._follow_soon(link))

    async def vetted(self, link: Link) -> None:
        """Waits until `link`, if it came up, has been asked who it is."""
        vetting = self._vetting.get(link)
        if vetting is not None:
            await asyncio.wait([vetting])

    async def first(self, opening: Sequence[asyncio.Task[None]]) -> None:
        """Waits for a provider that can be used, and a little longer for the others.

        Raises:
            BarewireError: no chain is configured, and the providers serve several.
        """
        began = time.monotonic()
        usable: asyncio.Future[Any] = asyncio.create_task(self._usable.wait())
        every: asyncio.Future[Any] = asyncio.gather(*opening, return_exceptions=True)
        try:
            await asyncio.wait([usable, every], return_when=asyncio.FIRST_COMPLETED)
            # On a slow machine the others get as much more time as the first needed.
            await asyncio.wait([every], timeout=max(_GRACE_S, 2 * (time.monotonic() - began)))
        finally:
            usable.cancel()
        if self.chain_id or not self._said:
            return
        if len(set(self._said.values())) > 1:
            said = ", ".join(f"{name}: {chain}" for name, chain in self._said.items())
            raise BarewireError(
                f"the providers serve different chains ({said})",
                hint="one pool a chain; or give chain_id, and the others are refused",
            )
        self.chain_id = next(iter(self._said.values()))

    async def _vet(self, link: Link) -> None:
        provider = link.provider
        said = await self._chain_of(provider)
        if said is None and self._client.config.vet:
            return  # the next check asks again
        if said is not None and not self._is_right(provider, said):
            return
        provider.refused = ""
        provider.connected = link.is_up
        providers = self._client.pool.providers
        if not provider.terms.private or all(p.terms.private for p in providers):
            self._usable.set()  # calls without a route have somebody to go to
        await self._check(link)
        await self._follow(link)

    async def _chain_of(self, provider: Provider) -> int | None:
        try:
            said = await self._client.ask(provider, "eth_chainId", timeout_ms=_PROBE_MS)
            return quantity_of(said, 256)
        except (RpcAnswerError, AllProvidersFailed, ValueError) as error:
            log.info("%s: eth_chainId: %s", provider.name, error)
            return None

    def _is_right(self, provider: Provider, chain_id: int) -> bool:
        """Puts out who serves another chain, as a node does that was restarted as another."""
        self._said[provider.name] = chain_id
        if not self.chain_id or chain_id == self.chain_id:
            return True
        was_in = provider.connected
        provider.refused = f"serves chain {chain_id}, but the pool is for chain {self.chain_id}"
        provider.connected = False
        log.warning("%s: %s", provider.name, provider.refused)
        self._client.pool.heads.forget(provider, time.monotonic_ns())
        if was_in and self._client.cache is not None:
            self._client.cache.clear()  # it may have answered since
        return False

    # Heads

    def _follow_soon(self, link: Link) -> None:
        self._vetting[link] = asyncio.create_task(self._vet(link))

    async def _follow(self, link: Link) -> None:
        if link.stream is None or not link.stream.is_up or not self._client.config.follow_heads:
            return
        try:
            number = await self._client.ask(
                link.provider, "eth_subscribe", ["newHeads"], timeout_ms=_PROBE_MS
            )
        except (RpcAnswerError, AllProvidersFailed) as error:
            log.info("%s: no newHeads: %s", link.provider.name, error)
            return
        if is_handle(number):
            self._pushes[link] = _Pushes(number, self._client.pool.heads.newest)

    def stopped_pushing(self, link: Link) -> bool:
        """Whether `link` was to push heads, and does not while others tell of new ones."""
        pushes, now_ns = self._pushes.get(link), time.monotonic_ns()
        if pushes is None or self._client.pool.heads.newest <= pushes.head:
            return False
        pushes.behind_ns = pushes.behind_ns or now_ns
        return now_ns - pushes.behind_ns > _PUSH_NS

    async def _follow_again(self, link: Link) -> None:
        """A subscription can be dead on a connection that is well: another one may live."""
        pushes = self._pushes[link]
        why = f"pushed no head after {pushes.head}"
        link.provider.went_mute("newHeads", why, time.monotonic_ns())
        log.warning("%s: %s, while others did", link.provider.name, why)
        with contextlib.suppress(RpcAnswerError, AllProvidersFailed):
            await self._client.ask(
                link.provider, "eth_unsubscribe", [pushes.number], timeout_ms=_PROBE_MS
            )
        await self._follow(link)
        if self._pushes.get(link) is not pushes:  # until it does push, it counts as mute
            self._pushes[link].head, self._pushes[link].behind_ns = pushes.head, pushes.behind_ns

    def _notified(self, link: Link, params: Any) -> None:
        pushes = self._pushes.get(link)
        if pushes is None or not isinstance(params, dict):
            return
        if params.get("subscription") == pushes.number:
            block = params.get("result")
            number = quantity(block.get("number")) if isinstance(block, dict) else -1
            if number >= 0:
                pushes.head, pushes.behind_ns = number, 0
            self._saw(link, block)

    def _outage(self, link: Link) -> None:
        self._pushes.pop(link, None)

    def _saw(self, link: Link, block: Any) -> None:
        number = quantity(block.get("number")) if isinstance(block, dict) else -1
        if number < 0:
            return
        heads = self._client.pool.heads
        moved = heads.saw(link.provider, number, time.monotonic_ns())
        self._client.heads_moved()
        if moved:
            for callback in self.on_head:
                callback(heads.newest)
        elif heads.newest < heads.final:  # another chain than the one that was final: a reset node
            heads.final = -1
            if self._client.cache is not None:
                self._client.cache.clear()

    # Checks

    def start(self) -> None:
        """Checks all providers at the policy's interval until stopped."""
        self._task = asyncio.create_task(self._run())

    def look_now(self) -> None:
        """Asks those that do not push for their newest block, not more than twice a block."""
        block_ns = self._client.pool.policy.block_time_ms * 1_000_000
        pause_ns = min(max(block_ns // 2, _LOOK_NS[0]), _LOOK_NS[1])
        now_ns = time.monotonic_ns()
        if now_ns - self._looked_ns < pause_ns or self._client.pool.heads.newest < 0:
            return
        self._looked_ns = now_ns
        for link in self._client.links:
            if link.provider.connected and link not in self._pushes:
                task = asyncio.create_task(self._look_at(link))
                self._looking.add(task)
                task.add_done_callback(self._looking.discard)

    async def _look_at(self, link: Link) -> None:
        try:
            await self._check(link)
        except BarewireError:
            if self._client.is_open:
                raise  # else the client was closed meanwhile, and nobody wants to know

    async def stop(self) -> None:
        """Stops checking."""
        tasks = [*self._vetting.values(), *self._looking, *([self._task] if self._task else [])]
        self._vetting.clear()
        self._usable.clear()
        self._pushes.clear()
        self._task = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self) -> None:
        check_ms = self._client.pool.policy.check_ms
        while True:
            silent = any(p.silent and p.connected for p in self._client.pool.providers)
            await asyncio.sleep((min(check_ms, _SILENT_MS) if silent else check_ms) / 1000)
            await asyncio.gather(*(self._look_after(link) for link in self._client.links))
            await self._final()

    async def _look_after(self, link: Link) -> None:
        provider, now_ns = link.provider, time.monotonic_ns()
        await link.refresh(silent_ms=_PROBE_MS)
        self._client.pool.ejection.calm(provider, now_ns)
        if not link.is_up or now_ns < provider.parked_until_ns:
            return  # who asked to be left alone is
        if provider.connected:
            await self._check(link)
            if self.stopped_pushing(link) and not provider.is_mute("newHeads", now_ns):
                await self._follow_again(link)
        else:
            await self._vet(link)

    async def _check(self, link: Link) -> None:
        provider = link.provider
        serves_blocks = provider.may_serve(lookup("eth_getBlockByNumber"))
        try:
            if serves_blocks:
                block = await self._client.ask(
                    provider, "eth_getBlockByNumber", ["latest", False], timeout_ms=_PROBE_MS
                )
                if await self._still_right(link, block):
                    self._saw(link, block)
            else:  # a paymaster or a builder: any answer tells that it is there
                await self._client.ask(provider, "eth_chainId", timeout_ms=_PROBE_MS)
        except (RpcAnswerError, AllProvidersFailed):
            return  # the pool has counted it

    async def _still_right(self, link: Link, block: Any) -> bool:
        """Whether `block` is of the right chain, as far as can be told cheaply.

        A node that is restarted as another chain cuts its connections. A stream is vetted when it
        comes up again. Of HTTP nobody can tell, so it is asked; and whoever's newest block does not
        follow from what it said before (a reorganisation, mostly).
        """
        provider = link.provider
        if not self.chain_id or not isinstance(block, dict):
            return True
        number, before = quantity(block.get("number")), self._newest.get(provider)
        self._newest[provider] = number, block.get("hash")
        follows = before is not None and (
            (number, block.get("hash")) == before
            or (number == before[0] + 1 and block.get("parentHash") == before[1])
            or number > before[0] + 1
        )
        if follows and link.stream is not None and link.stream.is_up:
            return True
        said = await self._chain_of(provider) if self._client.config.vet else None
        return said is None or self._is_right(provider, said)

    async def _final(self) -> None:
        try:
            block = await self._client.request(
                "eth_getBlockByNumber", ["finalized", False], timeout_ms=_PROBE_MS
            )
        except (RpcAnswerError, AllProvidersFailed):
            return  # a chain without the tag: nothing counts as final
        heads = self._client.pool.heads
        number = quantity(block.get("number")) if isinstance(block, dict) else -1
        if number <= heads.newest:
            heads.final = number
