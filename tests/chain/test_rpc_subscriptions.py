"""Subscriptions across forced deaths of providers: nothing missing, nothing twice."""

from __future__ import annotations

import asyncio
import contextlib
import random
from contextlib import AsyncExitStack

import pytest

from barewire.rpc.client import RpcClient
from tests.chain.anvil import Anvil
from tests.chain.fault_proxy import FaultProxy

# Emits LOG1 with the caller's first word as topic: PUSH0 CALLDATALOAD PUSH0 PUSH0 LOG1.
EMITTER = "0x" + "5f355f5fa1"


async def lab(stack: AsyncExitStack, node: Anvil, n: int, **config) -> tuple[RpcClient, list]:
    proxies = [await stack.enter_async_context(FaultProxy(node.port)) for _ in range(n)]
    client = RpcClient.from_urls(
        [p.ws for p in proxies], check_ms=500, block_time_ms=1_000, **config
    )
    await stack.enter_async_context(client)
    return client, proxies


async def deaths(n: int) -> None:
    rng = random.Random(7)
    with Anvil("--no-mining") as node:
        node.rpc("anvil_setCode", "0x" + "e1" * 20, EMITTER)
        sender = node.rpc("eth_accounts")[0]
        async with AsyncExitStack() as stack:
            client, proxies = await lab(stack, node, 4)
            heads = await client.subscribe("newHeads")
            logs = await client.subscribe("logs", {"address": "0x" + "e1" * 20})
            first = int(node.rpc("eth_blockNumber"), 16) + 1
            got_heads: list[dict] = []
            got_logs: list[dict] = []

            async def read(stream, into) -> None:
                async for item in stream:
                    into.append(item)

            readers = [
                asyncio.create_task(read(heads, got_heads)),
                asyncio.create_task(read(logs, got_logs)),
            ]
            mined = emitted = 0

            async def mine() -> None:
                nonlocal mined, emitted
                for _ in range(rng.randint(0, 2)):
                    data = "0x" + f"{emitted:064x}"
                    call = {"from": sender, "to": "0x" + "e1" * 20, "data": data, "gas": "0x186a0"}
                    await asyncio.to_thread(node.rpc, "eth_sendTransaction", call)
                    emitted += 1
                await asyncio.to_thread(node.rpc, "evm_mine")
                mined += 1

            by_name = dict(zip((p.name for p in client.pool.providers), proxies, strict=True))
            for round_ in range(n):
                await mine()
                victims = {s.provider for s in (heads, logs) if s.provider}
                mode = "hang" if round_ % 25 == 24 else "reset"
                for name in victims:
                    await by_name[name].set(mode)
                await mine()
                if mode == "hang":
                    await asyncio.sleep(1.5)
                await mine()
                for name in victims:
                    await by_name[name].set("ok")
                    if mode == "hang":
                        by_name[name].cut()
                await asyncio.sleep(rng.uniform(0.0, 0.08))
            await mine()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(20):
                    while len(got_heads) < mined or len(got_logs) < emitted:
                        await asyncio.sleep(0.05)
            for stream in (heads, logs):
                await stream.close()
            await asyncio.gather(*readers)
            numbers = [int(h["number"], 16) for h in got_heads]
            assert numbers == list(range(first, first + mined))
            assert len({h["hash"] for h in got_heads}) == mined
            assert [int(one["topics"][0], 16) for one in got_logs] == list(range(emitted))
            assert not heads.losses
            assert not logs.losses
            assert heads.moves + logs.moves >= n


@pytest.mark.asyncio
async def test_ten_deaths():
    await deaths(10)


@pytest.mark.slow
@pytest.mark.asyncio
@pytest.mark.timeout(600)
async def test_a_hundred_deaths():
    await deaths(100)


@pytest.mark.asyncio
async def test_a_reorganisation_behind_an_outage_is_told():
    with Anvil("--no-mining") as node:
        async with AsyncExitStack() as stack:
            client, proxies = await lab(stack, node, 2)
            heads = await client.subscribe("newHeads")
            for _ in range(3):
                node.rpc("evm_mine")
            before = [await anext(heads) for _ in range(3)]
            for proxy in proxies:
                await proxy.set("reset")
            await asyncio.sleep(0.1)
            node.rpc("anvil_reorg", 2, [])
            node.rpc("evm_mine")
            for proxy in proxies:
                await proxy.set("ok")
            async with asyncio.timeout(60):
                after = [await anext(heads) for _ in range(3)]
            assert [int(h["number"], 16) for h in before] == [1, 2, 3]
            assert [int(h["number"], 16) for h in after] == [2, 3, 4]
            assert not {h["hash"] for h in before} & {h["hash"] for h in after}
            assert after[0]["parentHash"] == before[0]["hash"]
            await heads.close()


@pytest.mark.asyncio
async def test_pending_transactions_lost_in_an_outage_are_reported():
    with Anvil("--no-mining") as node:
        sender = node.rpc("eth_accounts")[0]
        async with AsyncExitStack() as stack:
            client, proxies = await lab(stack, node, 2)
            pending = await client.subscribe("newPendingTransactions")
            call = {"from": sender, "to": sender, "gas": "0x5208"}
            sent = node.rpc("eth_sendTransaction", call)
            async with asyncio.timeout(5):
                assert await anext(pending) == sent
            by_name = dict(zip((p.name for p in client.pool.providers), proxies, strict=True))
            await by_name[pending.provider].set("reset")
            async with asyncio.timeout(5):
                while not pending.losses:
                    await asyncio.sleep(0.01)
            assert pending.losses[0].what == "pending"
            assert 0 < pending.losses[0].last - pending.losses[0].first < 2_000_000_000
            sent = node.rpc("eth_sendTransaction", call | {"value": "0x1"})
            async with asyncio.timeout(5):
                assert await anext(pending) == sent
            await pending.close()


@pytest.mark.asyncio
async def test_without_pushing_providers_blocks_are_polled():
    with Anvil("--no-mining") as node:
        async with RpcClient.from_urls([node.http], block_time_ms=200) as client:
            heads = await client.subscribe("newHeads")
            for _ in range(3):
                node.rpc("evm_mine")
            async with asyncio.timeout(5):
                numbers = [int((await anext(heads))["number"], 16) for _ in range(3)]
            assert numbers == [1, 2, 3]
            await heads.close()
