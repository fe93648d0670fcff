"""Reads of a client do not run backwards, whoever answers; nor do its own nonces."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from eth_account import Account

from barewire.rpc import pool
from barewire.rpc.client import RpcClient
from barewire.rpc.own_nonces import OwnNonces
from tests.unit.chain_sim import Chain, Refused, SimNode

pytestmark = pytest.mark.asyncio

HASH = "0x" + "22" * 32


@asynccontextmanager
async def pool_of(*nodes: SimNode, way: str = "url", **config: Any) -> AsyncIterator[RpcClient]:
    async with AsyncExitStack() as stack:
        for node in nodes:
            await stack.enter_async_context(node)
        settings = {"cache": "off", "mirror_share": 0.0, "check_ms": 200, "chain_id": 1} | config
        client = RpcClient.from_urls([getattr(n, way) for n in nodes], **settings)
        async with asyncio.timeout(20), client:
            yield client


async def quicker(client: RpcClient, index: int) -> None:
    """Makes the provider at `index` the one that is asked first."""
    for at, provider in enumerate(client.pool.providers):
        for average in provider.ewma:
            average.us = 100.0 if at == index else 5_000.0
    client.pool.ranking._incumbent = [None] * len(client.pool.ranking._incumbent)


async def known(client: RpcClient, *heads: int) -> None:
    while [p.head for p in client.pool.providers] != list(heads):
        await asyncio.sleep(0.01)


def two() -> tuple[Chain, SimNode, SimNode]:
    """A node with block 101, and one a block behind, which is well within what is allowed."""
    chain = Chain()
    behind = SimNode(chain)
    chain.mine(logs=2)
    return chain, SimNode(chain), behind


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("eth_getLogs", [{"fromBlock": "0x64", "toBlock": "0x65"}]),
        ("eth_getBlockReceipts", ["0x65"]),
        ("eth_getBlockTransactionCountByNumber", ["0x65"]),
        ("eth_call", [{}, "0x65"]),
        ("eth_call", [{}, {"blockNumber": "0x65"}]),
        ("trace_filter", [{"fromBlock": "0x65", "toBlock": "0x65"}]),
        ("eth_getTransactionReceipt", [HASH]),
        ("eth_getTransactionByHash", [HASH]),
        ("eth_getBlockByHash", [HASH]),
    ],
)
async def test_who_has_the_block_is_asked_about_it(method, params):
    _, ahead, behind = two()
    ahead.answers[method] = lambda _: {"has": "it"}
    behind.answers[method] = lambda _: None
    async with pool_of(ahead, behind) as client:
        await known(client, 101, 100)
        for _ in range(5):
            await quicker(client, 1)
            assert await client.request(method, params, fresh=True) == {"has": "it"}
        assert not client.pool.providers[1].tally.faults.get("stale")
        assert client.pool.providers[1].strikes == 0


@pytest.fixture
def patient(monkeypatch):
    """Who has the block is waited for until the test is over, however loaded the machine is."""
    monkeypatch.setattr(pool, "_FLOOR_NS", 60_000_000_000)


@pytest.mark.usefixtures("patient")
async def test_null_of_those_that_are_not_behind_is_the_answer():
    _, ahead, behind = two()
    for node in (ahead, behind):
        node.answers["eth_getTransactionReceipt"] = lambda _: None
    async with pool_of(ahead, behind) as client:
        await known(client, 101, 100)
        await quicker(client, 1)
        assert await client.request("eth_getTransactionReceipt", [HASH], timeout_ms=60_000) is None
        assert ahead.count("eth_getTransactionReceipt") == 1


@pytest.mark.usefixtures("patient")
async def test_latest_waits_for_the_others_where_who_had_it_is_gone():
    chain, ahead, behind = two()
    async with pool_of(ahead, behind) as client:
        await known(client, 101, 100)
        await quicker(client, 0)
        assert await client.request("eth_blockNumber", fresh=True) == "0x65"
        await ahead.__aexit__()

        async def arrives() -> None:
            await asyncio.sleep(0.15)
            await behind.see(chain.tip)

        arriving = asyncio.create_task(arrives())
        block = await client.request("eth_getBlockByNumber", ["latest", False], fresh=True)
        assert block["number"] == "0x65"
        await arriving


@pytest.mark.parametrize("told_by", ["block number", "block", "receipt", "subscription"])
async def test_latest_is_asked_of_who_knows_what_was_told(told_by):
    chain, ahead, behind = two()
    ahead.answers["eth_getTransactionReceipt"] = lambda _: {"blockNumber": "0x65"}
    for node in (ahead, behind):
        node.answers["eth_call"] = lambda _, node=node: hex(node.tip.number)
    async with pool_of(ahead, behind, way="ws") as client:
        await known(client, 101, 100)
        await quicker(client, 0)
        if told_by == "subscription":
            heads = await client.subscribe("newHeads")
            chain.mine()
            await ahead.see()
            assert (await anext(heads))["number"] == "0x66"
        else:
            method, params = {
                "block number": ("eth_blockNumber", []),
                "block": ("eth_getBlockByNumber", ["latest", False]),
                "receipt": ("eth_getTransactionReceipt", [HASH]),
            }[told_by]
            await client.request(method, params)
        for params in ([{}, "latest"], [{}]):
            await quicker(client, 1)
            said = await client.request("eth_call", params, fresh=True)
            assert int(said, 16) == ahead.tip.number


async def test_a_node_that_was_reverted_is_believed_after_a_moment():
    """evm_revert: nobody else has the block either, so what there is is given."""
    chain = Chain()
    for _ in range(3):
        chain.mine()
    node = SimNode(chain)
    async with pool_of(node) as client:
        assert await client.request("eth_blockNumber") == "0x67"
        await node.see(chain.back(2))
        began = time.monotonic()
        assert await client.request("eth_blockNumber", fresh=True) == "0x65"
        assert time.monotonic() - began > 0.4
        asked = node.count("eth_blockNumber")
        assert await client.request("eth_blockNumber", fresh=True) == "0x65"
        assert node.count("eth_blockNumber") == asked + 1  # and the next time at once
        assert client.pool.providers[0].strikes == 0


async def test_one_that_hangs_with_the_newest_block_holds_nobody_up_for_long():
    chain, ahead, behind = two()
    behind.answers["eth_call"] = ahead.answers["eth_call"] = lambda _: "0x1"
    async with pool_of(ahead, behind, check_ms=60_000) as client:
        await known(client, 101, 100)
        await quicker(client, 0)
        await client.request("eth_blockNumber", fresh=True)
        await behind.see(chain.tip)  # of which the client does not know
        ahead.deaf = True
        # Sooner than this call would give up, and than the test's own patience ends.
        assert await client.request("eth_call", [{}, "latest"], timeout_ms=60_000) == "0x1"


# What this client itself sent

KEY = Account.from_key("0x" + "11" * 32)


def signed(nonce: int, account: Any = KEY) -> str:
    fields = {"to": "0x" + "77" * 20, "value": 1, "gas": 21_000, "nonce": nonce, "chainId": 1}
    fees = {"maxFeePerGas": 10**9, "maxPriorityFeePerGas": 10**9, "type": 2}
    return account.sign_transaction(fields | fees).raw_transaction.to_0x_hex()


def pooling(node: SimNode, at: int = 7) -> None:
    """It counts what it took itself; nothing is gossiped."""
    taken: list[str] = []

    def take(params: list[Any]) -> str:
        taken.append(params[0])
        return HASH

    node.answers["eth_sendRawTransaction"] = take
    node.answers["eth_getTransactionCount"] = lambda params: hex(
        at + len(taken) * (params[1] == "pending")
    )


async def count(client: RpcClient, tag: str = "pending", account: Any = KEY) -> int:
    return int(await client.request("eth_getTransactionCount", [account.address, tag]), 16)


async def test_the_next_nonce_counts_what_was_just_sent():
    chain = Chain()
    takes, hears = SimNode(chain), SimNode(chain)
    pooling(takes)
    pooling(hears)
    refused = Refused({"code": -32000, "message": "txpool is full"})
    hears.answers["eth_sendRawTransaction"] = lambda _: refused
    async with pool_of(takes, hears) as client:
        for nonce in (7, 8, 9):
            await quicker(client, 1)
            assert await count(client) == nonce
            await client.send_raw(signed(nonce))
        await quicker(client, 1)
        assert await count(client) == 10
        assert await count(client, "latest") == 7
        assert await count(client, account=Account.from_key("0x" + "33" * 32)) == 7


async def test_a_nonce_after_a_gap_is_not_counted_as_no_node_counts_it():
    assert OwnNonces.after(7, {7, 8, 12}) == 9
    assert OwnNonces.after(7, set()) == 7


async def test_where_the_sender_is_not_to_be_had_who_took_it_is_asked():
    chain = Chain()
    takes, hears = SimNode(chain), SimNode(chain)
    pooling(takes)
    pooling(hears)
    refused = Refused({"code": -32000, "message": "txpool is full"})
    hears.answers["eth_sendRawTransaction"] = lambda _: refused
    takes.answers["eth_sendTransaction"] = takes.answers["eth_sendRawTransaction"]
    hears.answers["eth_sendTransaction"] = lambda _: refused
    async with pool_of(takes, hears) as client:
        await client.send_raw("0x02" + "ab" * 100)
        await quicker(client, 1)
        assert await count(client) == 8
        await quicker(client, 0)
        await client.request("eth_sendTransaction", [{"from": KEY.address.lower()}])
        await quicker(client, 1)
        assert await count(client) == 9
        await takes.__aexit__()
        assert await count(client) == 7  # nobody else knows


async def test_a_transaction_that_was_just_sent_is_there():
    chain = Chain()
    takes, hears = SimNode(chain), SimNode(chain)
    refused = Refused({"code": -32000, "message": "txpool is full"})
    takes.answers["eth_sendRawTransaction"] = lambda _: HASH
    hears.answers["eth_sendRawTransaction"] = lambda _: refused
    takes.answers["eth_getTransactionByHash"] = lambda params: {"hash": params[0]}
    hears.answers["eth_getTransactionByHash"] = lambda _: None
    async with pool_of(takes, hears) as client:
        sent = await client.send_raw(signed(0))
        for _ in range(3):
            await quicker(client, 1)
            found = await client.request("eth_getTransactionByHash", [sent.hash], fresh=True)
            assert found == {"hash": sent.hash}
        await quicker(client, 1)
        assert await client.request("eth_getTransactionByHash", [HASH]) is None
