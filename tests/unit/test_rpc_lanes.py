"""When calls are gathered, for how long, and into how much."""

from __future__ import annotations

import asyncio
import time

import pytest

from barewire.rpc.lanes import Lane
from barewire.rpc.methods import lookup
from barewire.rpc.pool import Attempt, Call
from barewire.rpc.provider import Provider, Terms

pytestmark = pytest.mark.asyncio


def attempt(method: str = "eth_call", long: int = 10) -> Attempt:
    call = Call(lookup(method), [])
    call.wire = b"x" * long
    return Attempt(call, Provider(Terms("a")), 0, 0)


class Sky:
    """A lane and what left it; nothing lands by itself."""

    def __init__(self, window_ms: float = 1.0, items: int = 100, size: int = 1_000_000) -> None:
        self.flown: list[list[Attempt]] = []
        self.lane = Lane(window_ms, items, size, lambda attempts, _: self.flown.append(attempts))

    @property
    def counts(self) -> list[int]:
        return [len(attempts) for attempts in self.flown]

    def busy(self) -> None:
        for _ in range(4):
            self.lane.add(attempt())


async def test_a_lone_call_does_not_wait():
    sky = Sky()
    sky.busy()
    assert sky.counts == [1, 1, 1, 1]


async def test_under_load_calls_share_a_message_that_leaves_within_the_window():
    sky = Sky(window_ms=5)
    sky.busy()
    began = time.monotonic()
    for _ in range(30):
        sky.lane.add(attempt())
    assert sky.counts == [1, 1, 1, 1]
    while len(sky.flown) < 5:
        await asyncio.sleep(0.0005)
    assert sky.counts[4:] == [30]
    assert time.monotonic() - began >= 0.004


async def test_a_full_batch_leaves_at_once():
    sky = Sky(items=10)
    sky.busy()
    for _ in range(25):
        sky.lane.add(attempt())
    assert sky.counts[4:] == [10, 10]


async def test_no_batch_is_longer_than_the_provider_takes():
    sky = Sky(size=1_000)
    sky.busy()
    for _ in range(9):
        sky.lane.add(attempt(long=200))
    await asyncio.sleep(0.01)
    assert sum(sky.counts[4:]) == 9
    assert max(sky.counts[4:]) == 3  # 3 x (200 + its envelope) fit into 1,000 bytes, 4 do not
    sky.lane.add(attempt(long=5_000))  # too long for any batch: it travels alone
    await asyncio.sleep(0.01)
    assert sky.counts[-1] == 1


async def test_what_may_not_be_repeated_travels_alone():
    sky = Sky()
    sky.busy()
    sky.lane.add(attempt())
    sky.lane.add(attempt("eth_sendTransaction"))
    assert [a.call.method.name for a in sky.flown[-1]] == ["eth_sendTransaction"]


async def test_a_landing_takes_along_who_waits():
    sky = Sky(window_ms=1_000)
    sky.busy()
    for _ in range(3):
        sky.lane.add(attempt())
    sky.lane.landed()
    assert sky.counts[4:] == [3]


async def test_who_is_withdrawn_in_time_is_never_sent():
    sky = Sky()
    sky.busy()
    gone, stays = attempt(), attempt()
    sky.lane.add(gone)
    sky.lane.add(stays)
    assert sky.lane.withdraw(gone)
    await asyncio.sleep(0.01)
    assert sky.flown[4:] == [[stays]]
    assert not sky.lane.withdraw(stays)
