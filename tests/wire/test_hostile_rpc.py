"""The RPC client among providers that do everything wrong that can be done, and a good one.

    BAREWIRE_HOSTILE_S=60 ./run test --slow slow tests/wire/test_hostile_rpc.py -s

What may be asked again is answered, rightly and in time, for the good one is there. What may not is
carried out once at most, and where it was, or may have been, whoever asked is told so.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import sys
import time
from collections import Counter, deque
from contextlib import ExitStack
from typing import Any

import pytest

from barewire.rpc.client import RpcClient
from barewire.rpc.config import ProviderConfig, RpcConfig
from barewire.rpc.faults import AllProvidersFailed, Fault, RpcAnswerError
from barewire.rpc.status import snapshot
from tests.wire.hostile_rpc import Http1, Http2, Ledger, WebSocket, balance
from tests.wire.test_hostile_streams import SECONDS, Hostile, all_text, resident_kb

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(0)]

MOST_KB = 400 << 10
"""Of memory beyond the start's, the servers' own answers among it: they are in this process."""
PATIENCE_S = 20.0
"""With what may be asked again: the good one answers at once, on any machine that runs at all."""
ONCE_S = 2.0
"""With what may not: whoever has it may be silent for ever."""
LATE_S = 5.0
"""What a loaded machine may add."""
TURNS = 20
"""Of this loop, in which the client ends what is overdue, however seldom it is let run."""
CALLERS = 12


class Callers:
    """Those who ask, all the time, and judge what they are told."""

    def __init__(self, client: RpcClient, ledger: Ledger, seed: int) -> None:
        self.client = client
        self.ledger = ledger
        self.rng = random.Random(seed)
        self.numbers = itertools.count(1)
        self.questions = itertools.count(1)
        self.counts: Counter[str] = Counter()
        self.slowest_s = {"eth_getBalance": 0.0, "eth_sendTransaction": 0.0}
        self.until_ns: dict[int, int] = {}
        self.sent: dict[str, Exception | None] = {}

    async def ask(self, method: str, *params: Any, within_s: float = PATIENCE_S) -> Any:
        began, question = time.monotonic(), next(self.questions)
        self.until_ns[question] = int((began + within_s) * 1e9)
        try:
            return await self.client.request(method, params, timeout_ms=int(within_s * 1000))
        finally:
            del self.until_ns[question]
            self.slowest_s[method] = max(self.slowest_s[method], time.monotonic() - began)

    async def read(self) -> None:
        address = f"0x{next(self.numbers):040x}"
        assert await self.ask("eth_getBalance", address, "latest") == balance(address)
        self.counts["reads"] += 1

    async def many(self) -> None:
        await asyncio.gather(*(self.read() for _ in range(self.rng.randrange(2, 60))))

    async def send(self) -> None:
        name = f"0x{next(self.numbers):08x}"
        failed: Exception | None = None
        try:
            sent = {"from": "0x" + "22" * 20, "data": name}
            await self.ask("eth_sendTransaction", sent, within_s=ONCE_S)
        except (AllProvidersFailed, RpcAnswerError) as error:
            failed = error
        self.sent[name] = failed
        self.counts["sent" if failed is None else "not sent"] += 1

    async def call(self, end: float) -> None:
        while time.monotonic() < end:
            await self.rng.choice([self.read, self.read, self.read, self.many, self.send])()
            await asyncio.sleep(self.rng.random() * 0.02)

    async def listen(self) -> None:
        async for header in await self.client.subscribe("newHeads"):
            assert isinstance(header, dict)
            self.counts["heads"] += 1

    def judge(self) -> None:
        times = self.ledger.times
        assert [name for name, count in times.items() if count > 1] == []
        for name, failed in self.sent.items():
            if failed is None:
                assert times[name] == 1
            elif times[name]:
                assert isinstance(failed, AllProvidersFailed), failed
                assert "may have been carried out" in failed.hint, (name, failed)


def forgive(client: RpcClient, rng: random.Random) -> None:
    """Nobody stays out for long here: they are all to be asked."""
    for provider in client.pool.providers:
        if rng.random() < 0.05:
            provider.out_until_ns = provider.ejections = provider.strikes = 0
            provider.probation = False
            provider._mutes.clear()


async def hold_out(seconds: float, seed: int) -> None:
    loop, ledger = asyncio.get_running_loop(), Ledger()
    broken: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: broken.append(context))
    with ExitStack() as stack:
        good = Http1(seed, ledger, ill=0.0)
        hostile: dict[str, list[Hostile]] = {
            "h1": [Http1(seed + 1, ledger)],
            "h2": [Http2(seed + 2, ledger)],
            "h2 too": [Http2(seed + 6, ledger)],
            "ws": [WebSocket(seed + 3, ledger)],
            "both": [WebSocket(seed + 4, ledger), Http1(seed + 5, ledger)],
        }
        for server in (good, *itertools.chain(*hostile.values())):
            stack.callback(server.close)
        providers = [ProviderConfig(name="good", http=good.url)]
        for name, servers in hostile.items():
            ways = {("ws" if s.url.startswith("ws") else "http"): s.url for s in servers}
            providers.append(ProviderConfig(name=name, http2=name.startswith("h2"), **ways))
        config = RpcConfig(
            providers=providers, chain_id=1, check_ms=300, block_time_ms=1_000, cache="off"
        )
        before = most = resident_kb(os.getpid())
        async with RpcClient(config) as client:
            callers = Callers(client, ledger, seed)
            end = time.monotonic() + seconds
            turns_ns = deque([time.monotonic_ns()], maxlen=TURNS)
            longest_ns = 0
            reader = asyncio.create_task(callers.listen())
            work = [asyncio.create_task(callers.call(end)) for _ in range(CALLERS)]
            while not all(task.done() for task in work):
                forgive(client, callers.rng)
                most = max(most, resident_kb(os.getpid()))
                await asyncio.wait(work, timeout=0.1, return_when=asyncio.FIRST_EXCEPTION)
                for task in work:
                    if task.done():
                        task.result()
                assert not broken
                assert not reader.done() or reader.result()
                now_ns = time.monotonic_ns()
                longest_ns = max(longest_ns, now_ns - turns_ns[-1])
                turns_ns.append(now_ns)
                too_late_ns = min(turns_ns[0], now_ns - int(LATE_S * 1e9))
                open_ns = (attempt.call.deadline_ns for attempt in client.pool._open)
                assert min([*open_ns, *callers.until_ns.values()], default=now_ns) > too_late_ns
            lines = {line.name: line for line in snapshot(client)}
        await reader
        if seconds > 5:
            await command(good, hostile)
    print(f"{seconds:g} s, seed {seed}: {dict(callers.counts)}, {len(ledger.times)} carried out")
    print(f"{most - before} kB more at most; the slowest took {callers.slowest_s}")
    print(f"the longest turn of the loop took {longest_ns / 1e9:.1f} s")
    for name, servers in hostile.items():
        print(name, [s.connections for s in servers], lines[name].sent, lines[name].errors)
    assert not broken
    assert most - before < MOST_KB
    callers.judge()
    causes = {fault.value for fault in Fault} | {"mute"}
    for line in lines.values():
        assert set(line.errors) <= causes
        assert all(text.isprintable() for text in all_text([line.reason, line.last_trouble]))
    assert lines["good"].answered


async def command(good: Http1, hostile: dict[str, list[Hostile]]) -> None:
    """`barewire rpc call` among them."""
    urls = [good.url, *(s.url for servers in hostile.values() for s in servers)]
    words = [sys.executable, "-m", "appliance", "rpc", "call", "-o", "json"]
    for url in urls:
        words += ["--url", url]
    address = "0x" + "42" * 20
    process = await asyncio.create_subprocess_exec(
        *words,
        "eth_getBalance",
        address,
        "latest",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(600):  # loaded machines take a minute to start an interpreter
        out, err = await process.communicate()
    assert process.returncode == 0, err
    assert json.loads(out) == {"result": balance(address)}
    assert b"Traceback" not in err


async def test_a_second_of_everything_from_providers():
    await hold_out(1.0, seed=1)


@pytest.mark.slow
async def test_half_an_hour_of_everything_from_providers():
    """In storms of 20 s, for who is put out stays so: BAREWIRE_HOSTILE_S says how long in all."""
    end, seed = time.monotonic() + SECONDS, random.randrange(1 << 20)
    while (left := end - time.monotonic()) > 0:
        await hold_out(min(20.0, left), seed)
        seed += 10
