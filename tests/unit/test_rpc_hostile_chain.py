"""Subscriptions over providers that do all that providers do, on a chain that is known.

Nodes lag, fork there and back, go mute by kind, deaf and away, leave pushes out, give few blocks at
once. What the readers were told is checked against the chain, which shares nothing with the code.
"""

from __future__ import annotations

import asyncio
import os
import random
import time

import pytest

from barewire.rpc import subscriptions
from tests.unit.chain_sim import Block, Chain, SimNode, believed_heads, believed_logs
from tests.unit.test_rpc_subscriptions import Reader, heads_of, logs_of, streams, until

pytestmark = pytest.mark.asyncio

SECONDS = float(os.environ.get("BAREWIRE_HOSTILE_S", 1_800))


class Weather:
    """What happens to the chain and to its nodes, drawn by chance; the first node stays well."""

    def __init__(self, chain: Chain, nodes: list[SimNode], seed: int) -> None:
        self.chain, self.nodes, self.rng = chain, nodes, random.Random(seed)
        self.lag = {id(node): 0 for node in nodes}
        self.happened: dict[str, int] = {}

    def count(self, what: str) -> None:
        self.happened[what] = self.happened.get(what, 0) + 1

    def turn_chain(self) -> Block:
        chance = self.rng.random()
        if chance < 0.08 and self.chain.tip.number > 110:
            self.count("reorganisation")
            start = self.chain.back(self.rng.randint(1, 4))
            old = self.chain.tip
            tip = start
            for _ in range(old.number - start.number + self.rng.randint(0, 1)):
                tip = self.chain.mine(self.rng.randint(0, 2), on=tip)
            if self.rng.random() < 0.3:
                self.count("there and back")
                return self.chain.mine(self.rng.randint(0, 2), on=old)
            return tip
        return self.chain.mine(self.rng.randint(0, 2))

    async def turn_node(self, node: SimNode) -> None:
        chance = self.rng.random()
        if chance < 0.05:
            self.count("mute")
            kinds = ["newHeads", "logs", "newPendingTransactions"]
            node.mute = set(self.rng.sample(kinds, self.rng.randint(1, 3)))
        elif chance < 0.08:
            self.count("deaf")
            node.deaf = True
        elif chance < 0.12:
            self.count("cut")
            node.cut()
        elif chance < 0.16:
            self.count("lag")
            self.lag[id(node)] = self.rng.randint(1, 3)
        elif chance < 0.19:
            self.count("narrow")
            node.widest = self.rng.choice([0, 1, 5, 10])
        elif chance < 0.45:
            node.mute, node.deaf, self.lag[id(node)] = set(), False, 0

    async def blow(self, seconds: float, pause_s: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            block = self.turn_chain()
            for node in self.nodes[1:]:
                await self.turn_node(node)
            for node in self.nodes:
                await node.announce(*block.transactions)
                await node.see(self.chain.back(self.lag[id(node)]))
            await asyncio.sleep(pause_s)
        for node in self.nodes:
            node.mute, node.deaf, node.widest = set(), False, 0
            await node.see()


def settled(chain: Chain, heads: Reader, logs: Reader) -> bool:
    right = believed_logs(logs.told), believed_heads(heads.told)
    return sorted(right[0]) == logs_of(chain) and right[1] == heads_of(chain)


async def storm(seconds: float, seed: int, pause_s: float = 0.05) -> Weather:
    chain = Chain()
    nodes = [SimNode(chain) for _ in range(3)]
    kinds = ("newHeads", "logs", "newPendingTransactions")
    async with streams(nodes, *kinds, patience_s=seconds + 60) as (_, (heads, logs, pending)):
        weather = Weather(chain, nodes, seed)
        await weather.blow(seconds, pause_s)
        # The weather is over. A few more blocks, and who was told all believes in the chain.
        for _ in range(3):
            chain.mine(1)
            for node in nodes:
                await node.see()
            await asyncio.sleep(0.2)
        await until(lambda: settled(chain, heads, logs))
        lost = [loss for reader in (heads, logs) for loss in reader.stream.losses]
        assert not lost, lost
        # Of pending ones a short silence cannot be told from transactions that went privately.
        announced = {t for b in chain.blocks.values() for t in b.transactions}
        assert len(pending.told) == len(set(pending.told))
        assert announced.issuperset(pending.told)
        assert bool(pending.stream.losses) == bool(pending.stream.moves)
        return weather


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_short_storm(seed):
    await storm(2.0, seed)


@pytest.mark.slow
@pytest.mark.timeout(0)
async def test_a_long_storm(monkeypatch):
    """Half an hour, in storms of a minute; BAREWIRE_HOSTILE_S says otherwise."""
    monkeypatch.setattr(subscriptions, "_GRACE_MS", (300, 300))
    end, seed, happened = time.monotonic() + SECONDS, random.randrange(1 << 32), set()
    while time.monotonic() < end:
        print(f"seed {seed}")
        weather = await storm(min(60.0, SECONDS), seed)
        happened |= set(weather.happened)
        seed += 1
    assert {"reorganisation", "there and back", "mute", "deaf", "cut", "lag", "narrow"} <= happened
