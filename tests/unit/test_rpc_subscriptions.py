"""Subscriptions over nodes that go mute, lag, fork and fail, on a chain that is known."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from barewire.rpc import followers, health, subscriptions
from barewire.rpc.client import RpcClient
from barewire.rpc.config import ProviderConfig, RpcConfig
from barewire.rpc.faults import AllProvidersFailed
from barewire.rpc.log_range import narrower
from barewire.rpc.subscriptions import Subscription
from tests.unit.chain_sim import Chain, SimNode, believed_heads, believed_logs

pytestmark = pytest.mark.asyncio

BLOCK_MS = 100


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Muteness is found in tenths of a second, not in seconds."""
    monkeypatch.setattr(subscriptions, "_GRACE_MS", (300, 300))


@dataclass
class Reader:
    """Reads a stream to its end, and keeps what it was told."""

    stream: Subscription
    told: list[Any] = field(default_factory=list)

    async def read(self) -> None:
        async for item in self.stream:
            self.told.append(item)


@asynccontextmanager
async def streams(
    nodes: list[SimNode], *kinds: str, way: str = "ws", patience_s: float = 30, **config: Any
) -> AsyncIterator[tuple[RpcClient, list[Reader]]]:
    async with AsyncExitStack() as stack:
        for node in nodes:
            await stack.enter_async_context(node)
        urls = [node.ws if way == "ws" else node.url for node in nodes]
        providers = [ProviderConfig.from_url(url, i) for i, url in enumerate(urls)]
        settings = {"check_ms": 300, "block_time_ms": BLOCK_MS, "chain_id": 1} | config
        await stack.enter_async_context(asyncio.timeout(patience_s))
        client = await stack.enter_async_context(
            RpcClient(RpcConfig(providers=providers, **settings))
        )
        readers = [Reader(await client.subscribe(k, *([{}] * (k == "logs")))) for k in kinds]
        tasks = [asyncio.create_task(r.read()) for r in readers]
        yield client, readers
        for reader in readers:
            await reader.stream.close()
        await asyncio.gather(*tasks)


async def until(true: Callable[[], Any]) -> None:
    while not true():
        await asyncio.sleep(0.01)


async def all_see(nodes: list[SimNode]) -> None:
    for node in nodes:
        await node.see()


def logs_of(chain: Chain, after: int = 100) -> list[tuple[int, str, int]]:
    return [
        (n, b.hash, i) for n, b in chain.branch().items() if n > after for i in range(len(b.logs))
    ]


def heads_of(chain: Chain, after: int = 100) -> dict[int, str]:
    return {n: b.hash for n, b in chain.branch().items() if n > after}


# A subscription that is dead on a connection that is well


@pytest.mark.parametrize("mute", [{"newHeads"}, {"newHeads", "logs"}])
async def test_heads_move_away_from_who_went_mute_and_miss_none(mute):
    chain = Chain()
    nodes = [SimNode(chain), SimNode(chain)]
    async with streams(nodes, "newHeads") as (client, (heads,)):
        chain.mine()
        await all_see(nodes)
        await until(lambda: heads.told)
        first = heads.stream.provider
        sick = next(n for n in nodes if n.is_(first))
        sick.mute = mute
        while heads.stream.provider == first:
            chain.mine()
            await all_see(nodes)
            await asyncio.sleep(BLOCK_MS / 1000)
        await until(lambda: believed_heads(heads.told) == heads_of(chain))
        assert [int(h["number"], 16) for h in heads.told] == list(heads_of(chain))
        assert not heads.stream.losses
        # The next one dies; who went mute is not chosen again, he is polled.
        well = next(n for n in nodes if n is not sick)
        provider = next(p for p in client.pool.providers if sick.is_(p.name))
        assert provider.tally.faults["mute"]
        subscribed = [p for m, p in sick.asked if m == "eth_subscribe"]
        well.mute = {"newHeads", "logs"}
        well.cut()
        chain.mine()
        await all_see(nodes)
        await until(lambda: believed_heads(heads.told) == heads_of(chain))
        assert [p for m, p in sick.asked if m == "eth_subscribe"] == subscribed


@pytest.mark.parametrize("mute", [{"logs"}, {"newHeads", "logs"}])
async def test_logs_that_were_not_pushed_are_found_and_their_provider_is_left(mute):
    chain = Chain()
    nodes = [SimNode(chain), SimNode(chain)]
    async with streams(nodes, "logs") as (_, (logs,)):
        chain.mine(2)
        await all_see(nodes)
        await until(lambda: len(logs.told) == 2)
        first = logs.stream.provider
        next(n for n in nodes if n.is_(first)).mute = mute
        while logs.stream.provider == first:
            chain.mine(2)
            await all_see(nodes)
            await asyncio.sleep(BLOCK_MS / 1000)
        chain.mine(2)
        await all_see(nodes)
        await until(lambda: believed_logs(logs.told) == logs_of(chain))
        assert not logs.stream.losses


async def test_one_provider_that_is_mute_is_polled():
    chain = Chain()
    node = SimNode(chain)
    async with streams([node], "newHeads", "logs") as (_, (heads, logs)):
        chain.mine()
        await node.see()
        await until(lambda: heads.told and logs.told)
        node.mute = {"newHeads", "logs"}
        chain.mine()
        await node.see()
        await until(lambda: believed_heads(heads.told) == heads_of(chain))
        await until(lambda: believed_logs(logs.told) == logs_of(chain))
        await until(lambda: not heads.stream.provider)  # nobody pushes
        chain.mine()
        await node.see()
        await until(lambda: believed_heads(heads.told) == heads_of(chain))


async def test_pending_transactions_that_nobody_announced_give_their_provider_away():
    chain = Chain()
    nodes = [SimNode(chain), SimNode(chain)]
    async with streams(nodes, "newPendingTransactions") as (_, (pending,)):
        await nodes[0].announce("0x1")
        await nodes[1].announce("0x1")
        await until(lambda: pending.told)
        first = pending.stream.provider
        next(n for n in nodes if n.is_(first)).mute = {"newPendingTransactions"}
        while pending.stream.provider == first:
            block = chain.mine()
            for node in nodes:
                await node.announce(*block.transactions)
            await all_see(nodes)
            await asyncio.sleep(BLOCK_MS / 1000)
        await until(lambda: pending.stream.losses)
        assert [loss.what for loss in pending.stream.losses] == ["pending"]
        await until(lambda: pending.stream.provider)
        for node in nodes:
            await node.announce("0x2")
        await until(lambda: "0x2" in pending.told)


async def test_a_quiet_stream_is_no_mute_one():
    """Blocks without logs that match, without transactions: nobody has left anything out."""
    chain = Chain()
    nodes = [SimNode(chain), SimNode(chain)]
    async with streams(nodes, "logs", "newPendingTransactions") as (_, readers):
        for _ in range(14):
            chain.mine(logs=0, transactions=0)
            await all_see(nodes)
            await asyncio.sleep(BLOCK_MS / 1000)
        assert [r.stream.moves for r in readers] == [0, 0]


async def test_other_kinds_are_judged_by_the_heads_of_their_link(monkeypatch):
    monkeypatch.setattr(health, "_PUSH_NS", 300_000_000)
    chain = Chain()
    nodes = [SimNode(chain), SimNode(chain)]
    async with streams(nodes, "somethingElse") as (_, (other,)):
        first = other.stream.provider
        next(n for n in nodes if n.is_(first)).mute = {"newHeads", "somethingElse"}
        while other.stream.provider == first:
            chain.mine()
            await all_see(nodes)
            await asyncio.sleep(BLOCK_MS / 1000)
        assert other.stream.losses


@pytest.mark.parametrize("way", ["ws", "http"])
async def test_a_node_that_was_restarted_as_another_chain_is_put_out_until_it_is_back(way):
    chain = Chain()
    nodes = [SimNode(chain), SimNode(chain)]
    for node in nodes:
        node.answers["eth_getCode"] = lambda _, node=node: hex(node.chain_id)
    async with streams(nodes, "newHeads", way=way) as (client, _):
        turned = nodes[1]
        provider = next(p for p in client.pool.providers if turned.is_(p.name))
        await turned.__aexit__()
        turned.chain_id = 10
        await turned.__aenter__()
        await until(lambda: provider.refused)
        assert "serves chain 10, but the pool is for chain 1" in provider.refused
        assert provider.head == -1
        for _ in range(5):
            asked = ["0x" + "11" * 20, "latest"]
            assert await client.request("eth_getCode", asked, fresh=True) == "0x1"
        await turned.__aexit__()
        turned.chain_id = 1
        await turned.__aenter__()
        await until(lambda: provider.connected and not provider.refused)


async def test_a_stream_is_asked_for_its_chain_where_blocks_do_not_follow():
    """A balancer that turns to another chain behind one connection."""
    chain = Chain()
    node = SimNode(chain)
    async with streams([node], "newHeads") as (client, _):
        chain.mine()
        await node.see()
        checks = node.count("eth_getBlockByNumber")
        await until(lambda: node.count("eth_getBlockByNumber") >= checks + 2)
        asked = node.count("eth_chainId")
        node.chain_id = 10
        chain.mine(on=chain.back(1))
        node.tip = chain.tip  # of the other chain: of the same height
        await until(lambda: client.pool.providers[0].refused)
        assert node.count("eth_chainId") > asked


async def test_who_does_not_know_subscriptions_is_polled():
    chain = Chain()
    node = SimNode(chain)
    node.refuses["eth_subscribe"] = {"code": -32601, "message": "notifications not supported"}
    async with streams([node], "newHeads") as (_, (heads,)):
        chain.mine()
        await node.see()
        await until(lambda: believed_heads(heads.told) == heads_of(chain))


async def test_who_is_judged_mute_while_he_is_asked_and_fails_is_polled_no_more():
    chain = Chain()
    nodes = [SimNode(chain), SimNode(chain)]
    async with streams(nodes, "newHeads", way="http") as (_, (heads,)):
        stream, well, fell = heads.stream, heads.stream._follower.catch_up, []

        async def falls_mute(source, upto=-1):
            if fell:
                return await well(source, upto)
            fell.append(source)
            stream._polled = None  # what the audit does
            raise AllProvidersFailed("eth_getBlockByNumber", [])

        stream._follower.catch_up = falls_mute
        await until(lambda: fell)
        chain.mine()
        await all_see(nodes)
        await until(lambda: believed_heads(heads.told) == heads_of(chain))
        assert stream._polled not in fell


@pytest.mark.parametrize("nonsense", [None, True, {}, [], "", 1.5], ids=str)
async def test_what_can_be_no_subscription_is_none(nonsense):
    chain = Chain()
    nodes = [SimNode(chain)]
    nodes[0].answers["eth_subscribe"] = lambda _: nonsense
    async with streams(nodes, "newHeads", "logs") as (client, (heads, logs)):
        chain.mine(2)
        await all_see(nodes)
        await until(lambda: believed_heads(heads.told) == heads_of(chain))  # polled
        await until(lambda: believed_logs(logs.told) == logs_of(chain))
        with pytest.raises(AllProvidersFailed, match="called a subscription"):
            await client.subscribe("newPendingTransactions")


async def test_who_refuses_a_stream_is_not_asked_without_pause():
    chain = Chain()
    nodes = [SimNode(chain)]
    async with streams(nodes, "newPendingTransactions") as (_, (pending,)):
        asked = nodes[0].count("eth_subscribe")
        nodes[0].refuses["eth_subscribe"] = {"code": -32000, "message": "too many subscriptions"}
        nodes[0].cut()
        await asyncio.sleep(0.5)  # 25 times, at 20 ms
        assert nodes[0].count("eth_subscribe") < asked + 12
        del nodes[0].refuses["eth_subscribe"]
        await until(lambda: pending.stream.provider)


# Reorganisations


@pytest.mark.parametrize("way", ["ws", "http"])
@pytest.mark.parametrize("depth", [1, 3])
async def test_a_reorganisation_takes_back_and_tells_anew(way, depth):
    chain = Chain()
    node = SimNode(chain)
    async with streams([node], "newHeads", "logs", way=way) as (_, (heads, logs)):
        for _ in range(4):
            chain.mine(2)
        await node.see()
        await until(lambda: believed_logs(logs.told) == logs_of(chain))
        before = len(logs.told)
        chain.mine(0, on=chain.back(depth))  # a branch whose first block has none
        for _ in range(depth):
            chain.mine(1)
        await node.see()
        await until(lambda: believed_logs(logs.told) == logs_of(chain))
        await until(lambda: believed_heads(heads.told) == heads_of(chain))
        after = [log["removed"] for log in logs.told[before:]]
        assert after == [True] * 2 * depth + [False] * depth
        gone = [int(log["blockNumber"], 16) for log in logs.told[before:] if log["removed"]]
        assert gone == sorted(gone, reverse=True)
        assert not logs.stream.losses


@pytest.mark.parametrize("way", ["ws", "http"])
async def test_there_and_back(way):
    chain = Chain()
    node = SimNode(chain)
    async with streams([node], "newHeads", "logs", way=way) as (_, (heads, logs)):
        one = chain.mine()
        other = chain.mine(on=chain.back(1))
        for block in (one, other, one):
            chain.tip = block
            await node.see()
            await until(lambda: believed_logs(logs.told) == logs_of(chain))
            await until(lambda: believed_heads(heads.told) == heads_of(chain))
        assert [log["removed"] for log in logs.told] == [False, True, False, True, False]
        assert len(heads.told) == 3


async def test_a_reorganisation_during_an_outage_is_told_by_the_next_provider():
    chain = Chain()
    nodes = [SimNode(chain), SimNode(chain)]
    async with streams(nodes, "newHeads", "logs") as (_, (heads, logs)):
        for _ in range(3):
            chain.mine(1)
        await all_see(nodes)
        await until(lambda: len(logs.told) == len(heads.told) == 3)
        # While nobody can be reached, the old branch's blocks are replaced, and more than those.
        for node in nodes:
            await node.__aexit__()
        chain.mine(0, on=chain.back(2))
        for _ in range(5):
            chain.mine(1)
        for node in nodes:
            await node.see()
        for node in nodes:
            await node.__aenter__()
        await until(lambda: believed_logs(logs.told) == logs_of(chain))
        await until(lambda: believed_heads(heads.told) == heads_of(chain))
        assert not logs.stream.losses + heads.stream.losses


async def test_a_branch_without_logs_hides_no_logs_of_the_next():
    """Where the old branch had none that match, the new one's are as new."""
    chain = Chain()
    node = SimNode(chain)
    async with streams([node], "logs", way="http") as (_, (logs,)):
        chain.mine(0)
        chain.mine(0)
        await node.see()
        await until(lambda: logs.stream._follower._stitch.covered == 102)
        chain.mine(3, on=chain.back(2))
        chain.mine(0)
        chain.mine(0)
        await node.see()
        await until(lambda: believed_logs(logs.told) == logs_of(chain))


async def test_a_chain_that_fell_back_is_followed_from_there():
    """evm_revert, or a development node that was restarted."""
    chain = Chain()
    node = SimNode(chain)
    async with streams([node], "newHeads", "logs", way="http") as (_, (heads, logs)):
        for _ in range(6):
            chain.mine(1)
        await node.see()
        await until(lambda: believed_logs(logs.told) == logs_of(chain))
        chain.mine(1, on=chain.back(5))
        await node.see()
        await until(lambda: believed_heads(heads.told) == heads_of(chain))
        for _ in range(6):
            chain.mine(1)
        await node.see()
        await until(lambda: believed_logs(logs.told) == logs_of(chain))
        await until(lambda: believed_heads(heads.told) == heads_of(chain))


# Gaps wider than a provider gives

SAID = [
    (
        10,
        lambda a, b: (
            "Under the Free tier plan, you can make eth_getLogs requests with up to a 10 block "
            f"range. Based on your parameters, this block range should work: [{a:#x}, {a + 9:#x}]"
        ),
    ),
    (7, lambda a, b: "block range is too wide"),
    (20, lambda a, b: f"exceed maximum block range: {20}"),
    (25, lambda a, b: f"query returned more than 10000 results. Try [{a:#x}, {a + 24:#x}]"),
    (3, lambda a, b: "Response is too big"),
    (1, lambda a, b: "query timeout exceeded. Consider reducing your block range."),
]


@pytest.mark.parametrize(("widest", "said"), SAID, ids=lambda x: str(x)[:6])
async def test_a_gap_is_filled_in_parts_that_the_provider_gives(widest, said):
    chain = Chain()
    node = SimNode(chain)
    node.widest, node.refusal = widest, said
    async with streams([node], "logs") as (client, (logs,)):
        await node.__aexit__()
        for _ in range(30):
            chain.mine(1)
        await node.see()
        await node.__aenter__()
        await until(lambda: believed_logs(logs.told) == logs_of(chain))
        assert not logs.stream.losses
        if widest in (10, 20):  # it said that this is its limit, so it is not asked for more again
            assert client.pool.providers[0].log_blocks == widest


@pytest.mark.parametrize(
    ("message", "asked", "blocks", "lasting"),
    [
        ("eth_getLogs is limited to a 10,000 range", 50_000, 10_000, True),
        ("eth_getLogs block range too large, range: 500, max: 100", 500, 100, True),
        ("ranges over 10000 blocks are not supported on freetier", 20_000, 10_000, True),
        ("requested too many blocks from 1 to 20001, maximum is set to 2048", 20_001, 2_048, True),
        ("You can make eth_getLogs requests with up to a 2K block range", 5_000, 2_000, True),
        ("limited to 0 - 1000 blocks range", 4_000, 1_000, True),
        ("query exceeds max results 20000, retry with the range 101-110", 500, 10, False),
        ("query returned more than 10000 results. Try with [0x65, 0x6e].", 500, 10, False),
        ("Log response size exceeded.", 500, 250, False),
        ("too wide", 2, 1, False),
        ("", 500, 250, False),
        ("\u0661" * 300 + " block range [0x" + "f" * 900, 500, 250, False),
    ],
)
async def test_limits_are_understood_in_the_words_of_vendors(message, asked, blocks, lasting):
    assert narrower(message, asked) == (blocks, lasting)


async def test_a_node_that_contradicts_itself_is_asked_again(monkeypatch):
    """Headers and logs of two backends, on two branches: not told until they agree."""
    chain = Chain()
    node = SimNode(chain)
    async with streams([node], "logs", way="http") as (_, (logs,)):
        chain.mine(1)
        stale = chain.tip
        chain.mine(1, on=chain.back(1))
        node.answers["eth_getLogs"] = lambda _: list(stale.logs)
        await node.see()
        await until(lambda: node.count("eth_getLogs") >= 2)
        assert not logs.told
        del node.answers["eth_getLogs"]
        await until(lambda: believed_logs(logs.told) == logs_of(chain))


async def test_logs_of_a_provider_whose_index_is_behind_take_nothing_back(monkeypatch):
    monkeypatch.setattr(followers, "_CONTRADICTIONS", 1_000)
    chain = Chain()
    nodes = [SimNode(chain), SimNode(chain)]
    async with streams(nodes, "logs") as (_, (logs,)):
        for node in nodes:
            node.answers["eth_getLogs"] = lambda _: []
        for _ in range(8):
            chain.mine(1)
            await all_see(nodes)
            await asyncio.sleep(BLOCK_MS / 1000)
        assert believed_logs(logs.told) == logs_of(chain)
        assert logs.stream.moves == 0


# In the order of the chain


def in_order(told: list[dict[str, Any]]) -> bool:
    places = [(int(log["blockNumber"], 16), int(log["logIndex"], 16)) for log in told]
    return places == sorted(places)


async def test_what_was_pushed_before_a_gap_was_filled_waits_for_the_next_provider():
    """The second provider pushes and dies before it said what happened before."""
    chain = Chain()
    nodes = [SimNode(chain), SimNode(chain)]
    async with streams(nodes, "logs") as (_, (logs,)):
        first = next(n for n in nodes if n.is_(logs.stream.provider))
        second = next(n for n in nodes if n is not first)
        second.silent = {"eth_getLogs"}
        await first.__aexit__()
        chain.mine(2)  # while nobody pushes
        first.tip = second.tip = chain.tip
        await until(lambda: second.count("eth_getLogs"))
        chain.mine(1)
        await second.see()
        await until(lambda: logs.stream._live)
        await second.__aexit__()
        await until(lambda: not logs.stream._live)
        chain.mine(1)
        await first.see()
        await first.__aenter__()
        await until(lambda: believed_logs(logs.told) == logs_of(chain))
        assert in_order(logs.told)
        assert not logs.stream.losses


async def test_a_gap_is_filled_up_to_where_pushing_began():
    """Who can say what happened is behind who pushes: what is pushed waits for the rest."""
    chain = Chain()
    nodes = [SimNode(chain), SimNode(chain)]
    async with streams(nodes, "logs", max_lag=3) as (client, (logs,)):
        first = next(n for n in nodes if n.is_(logs.stream.provider))
        second = next(n for n in nodes if n is not first)
        refusal = {"code": -32603, "message": "the index is being built"}
        first.refuses["eth_getLogs"] = second.refuses["eth_getLogs"] = refusal
        first.mute = {"logs"}
        chain.mine(1)
        await all_see(nodes)
        pushing = next(p for p in client.pool.providers if second.is_(p.name))
        chain.mine(1)
        await second.see()
        await until(lambda: pushing.head == 102)
        del first.refuses["eth_getLogs"]
        first.refuses["eth_subscribe"] = {"code": -32000, "message": "too many subscriptions"}
        first.cut()
        await until(lambda: second.is_(logs.stream.provider))
        chain.mine(1)
        await second.see()
        await asyncio.sleep(0.3)
        first.tip = chain.tip
        await until(lambda: believed_logs(logs.told) == logs_of(chain))
        assert in_order(logs.told)
        assert not logs.stream.losses


@pytest.mark.parametrize("bound", [("_RETRIES_S", (0.01, 0.01, None)), ("_GAP_S", 0.0)])
async def test_what_is_pushed_does_not_wait_for_ever(monkeypatch, bound):
    monkeypatch.setattr(subscriptions, *bound)
    chain = Chain()
    nodes = [SimNode(chain), SimNode(chain)]
    async with streams(nodes, "logs") as (_, (logs,)):
        refusal = {"code": -32603, "message": "the index is being built"}
        for node in nodes:
            node.refuses["eth_getLogs"] = refusal
        next(n for n in nodes if n.is_(logs.stream.provider)).cut()
        chain.mine(1)
        for node in nodes:
            node.tip = chain.tip
        await until(lambda: logs.stream.losses)
        lost = logs.stream.losses[0]
        assert (lost.what, lost.first) == ("logs", 101)
        chain.mine(1)
        await all_see(nodes)
        await until(lambda: logs.told)
        assert in_order(logs.told)


async def test_what_is_pushed_in_excess_while_a_gap_is_filled_is_swept_as_well(monkeypatch):
    monkeypatch.setattr(subscriptions, "_QUEUE", 10)
    chain = Chain()
    node = SimNode(chain)
    async with streams([node], "logs") as (_, (logs,)):
        stream = logs.stream

        def meanwhile(where: list[Any]) -> Any:
            """Of the blocks so far, while more of another one is pushed than is kept."""
            del node.answers["eth_getLogs"]
            said = node._logs(where[0])
            for log in chain.mine(6).logs * 2:
                stream._notified(stream._link, {"subscription": stream._their_id, "result": log})
            node.tip = chain.tip
            return said

        node.answers["eth_getLogs"] = meanwhile
        chain.mine(1)
        node.tip = chain.tip
        node.cut()
        await until(lambda: believed_logs(logs.told) == logs_of(chain))
        assert not stream.losses
