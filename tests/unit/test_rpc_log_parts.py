"""A caller's eth_getLogs that is wider than providers give: parts, as if it had been one call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from barewire.rpc.client import RpcClient
from barewire.rpc.error_table import Fault
from barewire.rpc.faults import RpcAnswerError, from_error
from tests.unit.chain_sim import Chain, SimNode

pytestmark = pytest.mark.asyncio

ALL = {"fromBlock": hex(101), "toBlock": hex(160)}
BNB = {"code": -32005, "message": "limit exceeded"}


@asynccontextmanager
async def pool_of(*nodes: SimNode) -> AsyncIterator[RpcClient]:
    async with AsyncExitStack() as stack:
        for node in nodes:
            await stack.enter_async_context(node)
        settings: dict[str, Any] = {"cache": "off", "mirror_share": 0.0, "chain_id": 1}
        client = RpcClient.from_urls([n.url for n in nodes], check_ms=60_000, **settings)
        async with asyncio.timeout(20), client:
            yield client


def sixty(logs: int = 2) -> Chain:
    chain = Chain()
    for _ in range(60):
        chain.mine(logs)
    return chain


def asked(node: SimNode) -> list[tuple[int, int]]:
    spans = [p[0] for m, p in node.asked if m == "eth_getLogs"]
    return [(int(s["fromBlock"], 16), int(s["toBlock"], 16)) for s in spans]


def all_logs(chain: Chain) -> list[dict[str, Any]]:
    return [log for block in chain.branch().values() for log in block.logs]


async def test_the_most_generous_of_those_who_refuse_is_asked_in_parts():
    chain = sixty()
    nodes = [SimNode(chain), SimNode(chain)]
    for node, widest in zip(nodes, (5, 20), strict=True):
        node.widest = widest
        node.refusal = lambda a, b, widest=widest: f"exceed maximum block range: {widest}"
    async with pool_of(*nodes) as client:
        assert await client.request("eth_getLogs", [ALL]) == all_logs(chain)
        assert set(asked(nodes[0])) == {(101, 160)}
        assert set(asked(nodes[1])) == {(101, 160), (101, 120), (121, 140), (141, 160)}
        assert [p.log_blocks for p in client.pool.providers] == [5, 20]
        assert all(p.state(0) == "up" for p in client.pool.providers)


async def test_those_who_ask_the_same_at_once_share_the_parts():
    chain = sixty()
    node = SimNode(chain)
    node.widest = 20
    node.refusal = lambda a, b: "exceed maximum block range: 20"
    async with pool_of(node) as client:
        patient = [client.request("eth_getLogs", [ALL]) for _ in range(20)]
        leaves = asyncio.create_task(client.request("eth_getLogs", [ALL]))
        first, *others = (asyncio.create_task(one) for one in patient)
        await asyncio.sleep(0)
        leaves.cancel()
        assert [await one for one in (first, *others)] == [all_logs(chain)] * 20
        assert asked(node) == [(101, 160), (101, 120), (121, 140), (141, 160)]
        assert not client._parts


async def test_who_gives_it_in_one_piece_is_asked_instead():
    chain = sixty()
    nodes = [SimNode(chain), SimNode(chain)]
    nodes[0].refuses["eth_getLogs"] = BNB
    async with pool_of(*nodes) as client:
        for average in client.pool.providers[0].ewma:
            average.us = 1.0  # the first one asked
        for _ in range(3):
            assert await client.request("eth_getLogs", [ALL]) == all_logs(chain)
        assert set(asked(nodes[1])) == {(101, 160)}
        # It is no rate limit: the provider serves everything else.
        assert nodes[0].count("eth_getLogs")
        assert client.pool.providers[0].state(0) == "up"


async def test_a_bare_limit_on_logs_is_narrowed_too():
    chain = sixty()
    node = SimNode(chain)
    node.widest = 8

    async with pool_of(node) as client:
        real = node._logs

        def limited(params: list[Any]) -> Any:
            said = real(params[0])
            if not isinstance(said, list):
                said.error = BNB
            return said

        node.answers["eth_getLogs"] = limited
        assert await client.request("eth_getLogs", [ALL]) == all_logs(chain)


@pytest.mark.parametrize(
    "where",
    [
        {"fromBlock": "0x0", "toBlock": "0x1000"},  # hundreds of parts
        {"fromBlock": "0x65", "toBlock": "latest"},
        {"fromBlock": "0x65", "toBlock": "0xffffff"},  # blocks that are not yet
        {"fromBlock": "0xa0", "toBlock": "0x65"},
        {"fromBlock": 101, "toBlock": 160},
        {"fromBlock": "0x65", "toBlock": "0x65"},
        {"blockHash": "0x" + "00" * 32},
        "0x",
    ],
    ids=str,
)
async def test_where_parts_will_not_do_the_refusal_stands(where):
    node = SimNode(sixty())
    node.answers["eth_getLogs"] = lambda _: type(node)._logs(node, ALL)
    node.widest = 10
    node.refusal = lambda a, b: "exceed maximum block range: 10"
    async with pool_of(node) as client:
        with pytest.raises(RpcAnswerError, match="exceed maximum block range: 10"):
            await client.request("eth_getLogs", [where])
        assert node.count("eth_getLogs") == 1


@pytest.mark.parametrize("times", [1, 9])
async def test_parts_of_two_branches_are_never_one_answer(times):
    chain = sixty(1)
    node = SimNode(chain)
    node.widest = 20
    left = times

    def shifting(params: list[Any]) -> Any:
        nonlocal left
        said = node._logs(params[0])
        if left and isinstance(said, list):  # a reorganisation behind each part that is given
            left -= 1
            chain.tip = chain.back(30)
            for _ in range(30):
                node.tip = chain.mine(1)
        return said

    node.answers["eth_getLogs"] = shifting
    async with pool_of(node) as client:
        asking = client.request("eth_getLogs", [ALL])
        if times == 1:
            assert await asking == all_logs(chain)
        else:
            with pytest.raises(RpcAnswerError, match="too large"):
                await asking


async def test_the_time_that_a_caller_gave_holds_for_all_parts_together():
    node = SimNode(sixty())
    node.widest = 1
    async with pool_of(node) as client:

        def falls_silent(_: Any) -> Any:
            node.deaf = True
            return node.tip.header()

        node.answers["eth_getBlockByNumber"] = falls_silent
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(RpcAnswerError, match="too large"):
            await client.request("eth_getLogs", [ALL], timeout_ms=300)
        assert loop.time() - began >= 0.2


@pytest.mark.parametrize(
    ("message", "method", "fault"),
    [
        ("limit exceeded", "eth_getLogs", Fault.TOO_MUCH),
        ("Limit exceeded.", "eth_newFilter", Fault.TOO_MUCH),
        ("", "eth_getLogs", Fault.TOO_MUCH),
        ("query timeout exceeded", "eth_getLogs", Fault.TOO_MUCH),
        ("limit exceeded", "eth_call", Fault.RATE_LIMIT),
        ("limit exceeded", "", Fault.RATE_LIMIT),
        ("rate limit exceeded", "eth_getLogs", Fault.RATE_LIMIT),
        ("daily request count exceeded, request rate limited", "eth_getLogs", Fault.RATE_LIMIT),
        ("project ID request rate exceeded", "eth_getLogs", Fault.RATE_LIMIT),
    ],
)
async def test_one_code_has_two_meanings(message, method, fault):
    assert from_error({"code": -32005, "message": message}, method).fault is fault
