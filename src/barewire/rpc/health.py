"""Looking after the providers: the right chain, the newest head, a quiet probe.

Every few seconds each is asked for its newest block, which tells its head and its latency at once
and is the probe by which an ejected one comes back when there is no traffic to mirror. A provider
that pushes also tells of each new head as it comes. The 500 ms bound of fail-over does not come
from here: hedging gives it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from barewire.errors import BarewireError
from barewire.rpc.faults import AllProvidersFailed, RpcAnswerError
from barewire.rpc.heads import quantity
from barewire.rpc.link import Link
from barewire.rpc.methods import lookup
from barewire.rpc.transports.base import Channel
from barewire.untrusted import quantity_of

if TYPE_CHECKING:
    from barewire.rpc.client import RpcClient

__all__ = ["Health"]

log = logging.getLogger("barewire.rpc")

_PROBE_MS = 2_000
_GRACE_S = 0.25
"""How long connecting waits for further providers once one can be used."""


class Health:
    """The background work of one client.

    Attributes:
        chain_id: the pool's chain; 0 until it is known, where none is configured.
        on_head: called with each newest head.
    """

    def __init__(self, client: RpcClient) -> None:
        self._client = client
        self.chain_id = client.config.chain_facts().chain_id
        self._said: dict[str, int] = {}  # name of a provider to the chain it says it serves
        self._task: asyncio.Task[None] | None = None
        self._usable = asyncio.Event()
        self._vetting: dict[Link, asyncio.Task[None]] = {}
        self._head_subs: dict[Link, str] = {}
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
        try:
            said = await self._client.ask(provider, "eth_chainId", timeout_ms=_PROBE_MS)
            chain_id = quantity_of(said, 256)
        except (RpcAnswerError, AllProvidersFailed, ValueError) as error:
            log.info("%s: eth_chainId: %s", provider.name, error)
            if self._client.config.vet:
                return  # the next check asks again
        else:
            self._said[provider.name] = chain_id
            want = self.chain_id
            if want and chain_id != want:
                provider.refused = f"serves chain {chain_id}, but the pool is for chain {want}"
                provider.connected = False
                log.warning("%s: %s", provider.name, provider.refused)
                return
        provider.refused = ""
        provider.connected = link.is_up
        providers = self._client.pool.providers
        if not provider.terms.private or all(p.terms.private for p in providers):
            self._usable.set()  # calls without a route have somebody to go to
        await self._check(link)
        await self._follow(link)

    # Heads

    def _follow_soon(self, link: Link) -> None:
        self._vetting[link] = asyncio.create_task(self._follow(link))

    async def _follow(self, link: Link) -> None:
        if link.stream is None or not link.stream.is_up or not self._client.config.follow_heads:
            return
        try:
            self._head_subs[link] = await self._client.ask(
                link.provider, "eth_subscribe", ["newHeads"], timeout_ms=_PROBE_MS
            )
        except (RpcAnswerError, AllProvidersFailed) as error:
            log.info("%s: no newHeads: %s", link.provider.name, error)

    def _notified(self, link: Link, params: Any) -> None:
        if isinstance(params, dict) and params.get("subscription") == self._head_subs.get(link):
            self._saw(link, params.get("result"))

    def _outage(self, link: Link) -> None:
        self._head_subs.pop(link, None)

    def _saw(self, link: Link, block: Any) -> None:
        number = quantity(block.get("number")) if isinstance(block, dict) else -1
        if number < 0:
            return
        heads = self._client.pool.heads
        if heads.saw(link.provider, number, time.monotonic_ns()):
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

    async def stop(self) -> None:
        """Stops checking."""
        tasks = [*self._vetting.values(), *([self._task] if self._task else [])]
        self._vetting.clear()
        self._head_subs.clear()
        self._usable.clear()
        self._task = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self) -> None:
        interval_s = self._client.pool.policy.check_ms / 1000
        while True:
            await asyncio.sleep(interval_s)
            await asyncio.gather(*(self._look_after(link) for link in self._client.links))
            await self._final()

    async def _look_after(self, link: Link) -> None:
        provider, now_ns = link.provider, time.monotonic_ns()
        await link.refresh(silent_ms=_PROBE_MS)
        self._client.pool.ejection.calm(provider, now_ns)
        if not link.is_up:
            return
        if provider.connected:
            await self._check(link)
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
                self._saw(link, block)
            else:  # a paymaster or a builder: any answer tells that it is there
                await self._client.ask(provider, "eth_chainId", timeout_ms=_PROBE_MS)
        except (RpcAnswerError, AllProvidersFailed):
            return  # the pool has counted it

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
