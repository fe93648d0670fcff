"""Filters whose ids collide, whose provider dies or forgets them."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from barewire.rpc.faults import RpcAnswerError
from tests.unit.chain_sim import Chain, Refused, SimNode
from tests.unit.test_rpc_freshness import pool_of, quicker

pytestmark = pytest.mark.asyncio


class FilterNode(SimNode):
    """Numbers its filters from 0x1, as Nethermind does, and tells of each block once."""

    def __init__(self, chain: Chain) -> None:
        super().__init__(chain)
        self.filters: dict[str, list[Any]] = {}
        numbers = itertools.count(1)

        def make(kind: str, params: list[Any]) -> str:
            number = hex(next(numbers))
            self.filters[number] = [kind, params, self.tip.number]
            return number

        for kind in ("", "Block", "PendingTransaction"):
            method = f"eth_new{kind}Filter"
            self.answers[method] = lambda params, kind=kind: make(kind, params)
        self.answers["eth_getFilterChanges"] = self.changes
        self.answers["eth_getFilterLogs"] = lambda params: (
            self._logs({"fromBlock": "0x64"}) if params[0] in self.filters else NOT_FOUND
        )
        self.answers["eth_uninstallFilter"] = lambda params: bool(self.filters.pop(params[0], None))

    def changes(self, params: list[Any]) -> Any:
        if params[0] not in self.filters:
            return NOT_FOUND
        one = self.filters[params[0]]
        first, one[2] = one[2] + 1, self.tip.number
        blocks = [b for n, b in self.chain.branch(self.tip).items() if n >= first]
        if one[0] == "Block":
            return [b.hash for b in blocks]
        return [] if one[0] else [log for b in blocks for log in b.logs]


NOT_FOUND = Refused({"code": -32000, "message": "filter not found"})


def pair() -> tuple[Chain, FilterNode, FilterNode]:
    chain = Chain()
    return chain, FilterNode(chain), FilterNode(chain)


async def mine(chain: Chain, *nodes: SimNode) -> list[str]:
    """One more block; hashes of its logs' transactions."""
    block = chain.mine(2)
    for node in nodes:
        await node.see()
    return [log["transactionHash"] for log in block.logs]


def told(logs: list[dict[str, Any]]) -> list[str]:
    return [log["transactionHash"] for log in logs]


async def test_two_filters_of_one_number_at_two_providers_are_two():
    chain, a, b = pair()
    async with pool_of(a, b) as client:
        await quicker(client, 0)
        logs = await client.request("eth_newFilter", [{}])
        await quicker(client, 1)
        blocks = await client.request("eth_newBlockFilter", [])
        assert list(a.filters) == list(b.filters) == ["0x1"]
        assert logs != blocks
        mined = await mine(chain, a, b)
        assert told(await client.request("eth_getFilterChanges", [logs])) == mined
        assert await client.request("eth_getFilterChanges", [blocks]) == [chain.tip.hash]
        assert await client.request("eth_getFilterChanges", [logs]) == []
        assert told(await client.request("eth_getFilterLogs", [logs])) == mined
        assert await client.request("eth_uninstallFilter", [logs]) is True
        assert await client.request("eth_uninstallFilter", [logs]) is False
        assert not a.filters
        assert b.filters
        with pytest.raises(RpcAnswerError, match="filter not found"):
            await client.request("eth_getFilterChanges", [logs])
        with pytest.raises(RpcAnswerError, match="filter not found"):
            await client.request("eth_getFilterChanges", ["0x1"])


@pytest.mark.parametrize("how", ["dies", "forgets", "hangs"])
async def test_a_filter_outlives_its_provider_and_misses_nothing(how, monkeypatch):
    monkeypatch.setattr("barewire.rpc.filters._ASK_MS", 300)
    chain, a, b = pair()
    async with pool_of(a, b) as client:
        await quicker(client, 0)
        logs = await client.request("eth_newFilter", [{}])
        blocks = await client.request("eth_newBlockFilter", [])
        mined = [*await mine(chain, a, b)]
        seen = told(await client.request("eth_getFilterChanges", [logs]))
        hashes = await client.request("eth_getFilterChanges", [blocks])
        for _ in range(3):
            mined += await mine(chain, a, b)
        if how == "dies":
            await a.__aexit__()
        elif how == "forgets":
            a.filters.clear()
        a.deaf = how == "hangs"
        for _ in range(3):
            seen += told(await client.request("eth_getFilterChanges", [logs]))
            hashes += await client.request("eth_getFilterChanges", [blocks])
            mined += await mine(chain, a, b)
        seen += told(await client.request("eth_getFilterChanges", [logs]))
        hashes += await client.request("eth_getFilterChanges", [blocks])
        assert seen == mined
        assert hashes == [block.hash for n, block in chain.branch().items() if n > 100]


async def test_what_a_node_tells_twice_is_told_twice():
    """A block that is part of the chain again after a reorganisation there and back."""
    _, a, _ = pair()
    async with pool_of(a) as client:
        blocks = await client.request("eth_newBlockFilter", [])
        a.answers["eth_getFilterChanges"] = lambda _: ["0xaa"]
        for _ in range(3):
            assert await client.request("eth_getFilterChanges", [blocks]) == ["0xaa"]


async def test_a_filter_is_made_where_filters_are_known():
    _, a, b = pair()
    a.refuses["eth_newFilter"] = {"code": -32601, "message": "the method does not exist"}
    async with pool_of(a, b) as client:
        await quicker(client, 0)
        assert (
            await client.request(
                "eth_getFilterChanges", [await client.request("eth_newFilter", [{}])]
            )
            == []
        )
        assert b.filters
        b.refuses["eth_newFilter"] = {"code": -32602, "message": "invalid argument 0: bad topic"}
        with pytest.raises(RpcAnswerError, match="bad topic"):
            await client.request("eth_newFilter", [{"topics": 5}])


@pytest.mark.parametrize("nonsense", [None, True, {}, [], ""], ids=str)
async def test_what_can_be_no_filter_is_none(nonsense):
    _, a, b = pair()
    a.answers["eth_newBlockFilter"] = lambda _: nonsense
    async with pool_of(a, b) as client:
        await quicker(client, 0)
        assert await client.request("eth_newBlockFilter", [])
        assert b.filters


async def test_a_pending_filter_is_made_again_and_the_loss_is_said(caplog):
    _, a, b = pair()
    async with pool_of(a, b) as client:
        await quicker(client, 0)
        pending = await client.request("eth_newPendingTransactionFilter", [])
        await a.__aexit__()
        assert await client.request("eth_getFilterChanges", [pending]) == []
        assert "pending transactions of a filter were lost" in caplog.text
        b.answers["eth_getFilterChanges"] = lambda _: ["0xbb"]
        assert await client.request("eth_getFilterChanges", [pending]) == ["0xbb"]
