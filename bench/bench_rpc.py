"""One call through many providers, beside web3.py, aiohttp and a bare asyncio protocol.

Anvil is the server. ``/http /ws /ipc`` are eth_call one by one; ``/rate`` is many distinct calls at
once (Barewire, batching, cache and sharing off) against web3.py one by one; ``/FAULT`` is 200 calls
a second for a while with the best of five providers at fault, counted from when a call should have
begun. ``--fault NAME`` runs only that fault, ``--fault none`` only the rest; the whole takes a
quarter of an hour, for each of eight faults lasts half a minute for each of three clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import msgspec
import uvloop
from web3 import AsyncWeb3
from web3.providers import AsyncHTTPProvider
from web3.providers.persistent import AsyncIPCProvider, WebSocketProvider

from barewire.rpc.client import RpcClient
from barewire.rpc.web3_provider import BarewireProvider
from bench.harness import Row, arguments, finish, summarise
from tests.chain.anvil import Anvil

FAULTS = ("hang", "reset", "500", "429", "garbage", "stale", "slow", "three-of-five")
THREE = ("hang", "reset", "garbage")
CALL = {"to": "0x0000000000000000000000000000000000000004", "data": "0x1234"}
PARAMS = [CALL, "latest"]
BODY = msgspec.json.encode({"jsonrpc": "2.0", "id": 1, "method": "eth_call", "params": PARAMS})
NUMBER = msgspec.json.encode({"jsonrpc": "2.0", "id": 1, "method": "eth_blockNumber", "params": []})
Op = Callable[[], Awaitable[Any]]


class BareHttp(asyncio.Protocol):
    """The least that an asyncio program can do: one connection, one prepared request."""

    def __init__(self, request: bytes) -> None:
        self.request = request
        self._buffer = b""
        self._done: asyncio.Future[bytes] | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if found and len(body) >= int(head.lower().split(b"content-length:")[1].split(b"\r")[0]):
            self._buffer = b""
            assert self._done is not None
            self._done.set_result(body)

    def call(self) -> Awaitable[bytes]:
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(self.request)
        return self._done


class BareStream(BareHttp):
    """The same on a Unix socket or an open WebSocket, an answer a read."""

    def data_received(self, data: bytes) -> None:
        assert self._done is not None
        self._done.set_result(data)


async def bare_ws(port: int) -> BareStream:
    """An open WebSocket that sends one prepared frame and takes a read for an answer."""
    loop = asyncio.get_running_loop()
    mask = b"\x11\x22\x33\x44"
    masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(BODY))
    frame = b"\x81\xfe" + len(BODY).to_bytes(2, "big") + mask + masked
    assert 126 <= len(BODY) < 65_536
    _, bare = await loop.create_connection(lambda: BareStream(b""), "127.0.0.1", port)
    bare.request = (
        b"GET / HTTP/1.1\r\nhost: node\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
        b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    said = await bare.call()
    assert said.startswith(b"HTTP/1.1 101"), said
    bare.request = frame
    return bare


async def sequential(op: Op, n: int) -> list[float]:
    """Microseconds of `n` calls, one by one."""
    taken = []
    for _ in range(n):
        start = time.perf_counter_ns()
        await op()
        taken.append((time.perf_counter_ns() - start) / 1000)
    return taken


async def latency(node: Anvil, rounds: int, n: int, stack: contextlib.AsyncExitStack) -> list[Row]:
    """All sequential rows, taking turns."""
    loop = asyncio.get_running_loop()
    ops: dict[str, Op] = {}
    head = b"POST / HTTP/1.1\r\nhost: node\r\ncontent-type: application/json\r\ncontent-length: "
    request = head + b"%d\r\n\r\n" % len(BODY) + BODY
    _, bare_http = await loop.create_connection(lambda: BareHttp(request), "127.0.0.1", node.port)
    ops["bare/http"] = bare_http.call
    _, bare_ipc = await loop.create_unix_connection(lambda: BareStream(BODY + b"\n"), node.ipc)
    ops["bare/ipc"] = bare_ipc.call
    ops["bare/ws"] = (await bare_ws(node.port)).call
    request = head + b"%d\r\n\r\n" % len(NUMBER) + NUMBER
    _, bare_number = await loop.create_connection(lambda: BareHttp(request), "127.0.0.1", node.port)
    ops["bare/http/block-number"] = bare_number.call
    session = await stack.enter_async_context(aiohttp.ClientSession())

    ops["aiohttp/http"] = lambda: post(session, node.http, BODY)
    ops["aiohttp/http/block-number"] = lambda: post(session, node.http, NUMBER)
    socket = await stack.enter_async_context(session.ws_connect(node.ws))

    async def by_aiohttp_ws() -> Any:
        await socket.send_bytes(BODY)
        return msgspec.json.decode((await socket.receive()).data)["result"]

    ops["aiohttp/ws"] = by_aiohttp_ws
    for way, url, provider in (
        ("http", node.http, AsyncHTTPProvider(node.http)),
        ("ws", node.ws, WebSocketProvider(node.ws)),
        ("ipc", node.ipc, AsyncIPCProvider(node.ipc)),
    ):
        w3: Any = AsyncWeb3(provider)
        if way == "http":
            stack.push_async_callback(provider.disconnect)
        else:
            w3 = await stack.enter_async_context(AsyncWeb3(provider))
        ops[f"web3py/{way}"] = lambda w3=w3: w3.eth.call(CALL)  # type: ignore[misc]
        ops[f"web3py-provider/{way}"] = lambda p=provider: p.make_request("eth_call", PARAMS)  # type: ignore[misc]
        for many in (1, 5):
            client = RpcClient.from_urls([url] * many, cache="off", sharing=False)
            await stack.enter_async_context(client)
            ops[f"barewire-{many}/{way}"] = lambda c=client: c.request("eth_call", PARAMS)  # type: ignore[misc]
            if way == "http":
                ops[f"barewire-{many}/{way}/block-number"] = lambda c=client: c.request(  # type: ignore[misc]
                    "eth_blockNumber"
                )
        if way == "http":
            ops["web3py/http/block-number"] = lambda w3=w3: w3.eth.get_block_number()  # type: ignore[misc]
            over: Any = await stack.enter_async_context(AsyncWeb3(BarewireProvider([url])))
            ops["web3py-over-barewire/http"] = lambda w3=over: w3.eth.call(CALL)  # type: ignore[misc]
    samples: dict[str, list[float]] = {who: [] for who in ops}
    for turn in range(rounds + 1):
        for who, op in ops.items():
            sys.stderr.write(f"\r\033[Kround {turn}/{rounds}  {who}")
            taken = await sequential(op, n)
            if turn:
                samples[who] += taken
    sys.stderr.write("\r\033[K")
    return [summarise(who, taken) for who, taken in samples.items()]


async def rate(node: Anvil, rounds: int) -> list[Row]:
    """Calls a second: many at once through Barewire, one by one through web3.py."""
    calls, at_once = 20_000, 1_000
    per_s: dict[str, list[float]] = {"web3py/rate": [], "barewire/rate": []}
    taken: dict[str, list[float]] = {"web3py/rate": [], "barewire/rate": []}
    number = itertools.count(1)
    client = RpcClient.from_urls([node.http], cache="off", sharing=False)
    provider = AsyncHTTPProvider(node.http)
    w3 = AsyncWeb3(provider)
    async with client:

        async def worker(left: Any) -> None:
            for _ in left:
                start = time.perf_counter_ns()
                await client.request("eth_getBalance", [f"0x{next(number):040x}", "latest"])
                taken["barewire/rate"].append((time.perf_counter_ns() - start) / 1000)

        for _ in range(rounds):
            left = iter(range(calls))
            start = time.perf_counter()
            await asyncio.gather(*(worker(left) for _ in range(at_once)))
            per_s["barewire/rate"].append(calls / (time.perf_counter() - start))
            start = time.perf_counter()
            for _ in range(500):
                began = time.perf_counter_ns()
                address = AsyncWeb3.to_checksum_address(f"0x{next(number):040x}")
                await w3.eth.get_balance(address)
                taken["web3py/rate"].append((time.perf_counter_ns() - began) / 1000)
            per_s["web3py/rate"].append(500 / (time.perf_counter() - start))
    await provider.disconnect()
    rows = []
    for who, values in per_s.items():
        middle = sorted(values)[len(values) // 2]
        load = "1,000 at once" if who.startswith("barewire") else "closed"
        rows.append(summarise(who, taken[who], load=load, rate=round(middle)))
    return rows


class Proxies:
    """Five fault proxies, each a process of its own, so that they cost the client no time."""

    def __init__(self, port: int) -> None:
        command = [sys.executable, "-m", "tests.chain.fault_proxy", str(port)]
        self._all = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(5)
        ]
        self.urls = [f"http://127.0.0.1:{self._line(p)}" for p in self._all]

    @staticmethod
    def _line(process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        return process.stdout.readline().strip()

    def set(self, index: int, mode: str) -> None:
        stdin = self._all[index].stdin
        assert stdin is not None
        stdin.write(mode + "\n")
        stdin.flush()
        self._line(self._all[index])

    def close(self) -> None:
        for process in self._all:
            process.kill()
            process.communicate()


class Stall400:
    """A fallback client after ethers v6: the next provider after 400 ms of silence, or an error."""

    def __init__(self, session: aiohttp.ClientSession, urls: list[str]) -> None:
        self._session, self._urls = session, urls

    async def request(self, body: bytes) -> Any:
        running: set[asyncio.Task[Any]] = set()
        error: Exception | None = None
        for url in self._urls:
            running.add(asyncio.create_task(post(self._session, url, body)))
            done, running = await asyncio.wait(running, timeout=0.4, return_when="FIRST_COMPLETED")
            for task in done:
                if task.exception() is None:
                    for loser in running:
                        loser.cancel()
                    return task.result()
                error = task.exception()  # type: ignore[assignment]
        while running:
            done, running = await asyncio.wait(running, return_when="FIRST_COMPLETED")
            for task in done:
                if task.exception() is None:
                    return task.result()
        raise error or TimeoutError


class Retry:
    """A retrying client: 5 s a try, then the next provider, as most scripts do it."""

    def __init__(self, session: aiohttp.ClientSession, urls: list[str]) -> None:
        self._session, self._urls = session, urls

    async def request(self, body: bytes) -> Any:
        error: Exception | None = None
        for url in self._urls:
            try:
                async with asyncio.timeout(5):
                    return await post(self._session, url, body)
            except (TimeoutError, aiohttp.ClientError, ValueError) as failed:
                error = failed
        raise error or TimeoutError


async def post(session: aiohttp.ClientSession, url: str, body: bytes) -> Any:
    headers = {"content-type": "application/json"}
    async with session.post(url, data=body, headers=headers) as response:
        response.raise_for_status()
        try:
            return msgspec.json.decode(await response.read())["result"]
        except (msgspec.DecodeError, KeyError) as error:
            raise ValueError(str(error)) from error


async def paced(ask: Callable[[int], Awaitable[Any]], seconds: float) -> tuple[list[float], int]:
    """200 calls a second; milliseconds-free: microseconds from when each should have begun."""
    taken: list[float] = []
    failures = 0

    async def one(number: int, begin: float) -> None:
        nonlocal failures
        try:
            good = await ask(number)
        except Exception:  # noqa: BLE001  (whatever it is, the caller has no answer)
            good = False
        if not good:
            failures += 1
        taken.append((time.perf_counter() - begin) * 1e6)

    start = time.perf_counter() + 0.01
    tasks = []
    for number in range(int(seconds * 200)):
        begin = start + number / 200
        await asyncio.sleep(max(begin - time.perf_counter(), 0))
        tasks.append(asyncio.create_task(one(number, begin)))
    await asyncio.gather(*tasks)
    return taken, failures


async def fault(name: str, node: Anvil, seconds: float, who: str) -> list[Row]:
    """One fault: the healthy time before it, then the time with it."""
    proxies = Proxies(node.port)
    session = aiohttp.ClientSession()
    client: RpcClient | None = None
    try:
        if who == "barewire-5":
            client = RpcClient.from_urls(
                proxies.urls, cache="off", sharing=False, block_time_ms=1_000, max_lag=1
            )
            await client.connect()
            barewire = client

            async def ask(number: int) -> bool:
                if number % 10 == 0:
                    said = await barewire.request("eth_blockNumber")
                    return int(said, 16) >= 0
                call = CALL | {"data": f"0x{number:064x}"}
                return int(await barewire.request("eth_call", [call, "latest"]), 16) == number

        else:
            peer = (Stall400 if who == "stall400" else Retry)(session, proxies.urls)

            async def ask(number: int) -> bool:
                call = CALL | {"data": f"0x{number:064x}"}
                body = {"jsonrpc": "2.0", "id": 1, "method": "eth_call", "params": [call, "latest"]}
                return int(await peer.request(msgspec.json.encode(body)), 16) == number

        healthy, failed_before = await paced(ask, min(seconds, 5))
        loop = asyncio.get_running_loop()
        modes = THREE if name == "three-of-five" else (name,)

        def sent() -> list[int]:
            return [p.tally.sent for p in client.pool.providers] if client else [0] * 5

        async def breaks() -> None:
            before = sent()
            await asyncio.sleep(0.5)
            now = sent()  # the best is who has just now been asked most; for a peer, the first
            order = sorted(range(5), key=lambda i: before[i] - now[i])
            for index, mode in zip(order, modes, strict=False):
                await loop.run_in_executor(None, proxies.set, index, mode)

        breaking = asyncio.create_task(breaks())
        broken, failures = await paced(ask, seconds)
        await breaking
        rows = []
        if who == "barewire-5":
            rows.append(
                summarise(f"{who}/{name}/healthy", healthy, load="paced", failures=failed_before)
            )
        rows.append(summarise(f"{who}/{name}", broken, load="paced", failures=failures))
        return rows
    finally:
        if client is not None:
            await client.close()
        await session.close()
        proxies.close()


def judged(rows: list[Row]) -> list[str]:
    """What is promised, and whether this run kept it."""
    by = {row.who: row for row in rows}
    notes = []
    for way in ("http", "ws", "ipc"):
        if f"web3py/{way}" not in by:
            continue
        one, five = by[f"barewire-1/{way}"].p50, by[f"barewire-5/{way}"].p50
        for peer in ("web3py", "web3py-provider"):
            ratio = by[f"{peer}/{way}"].p50 / one
            notes.append(f"/{way}: {peer} / barewire-1 = {ratio:.2f} (goal >= 2)")
        notes.append(f"/{way}: barewire-5 - barewire-1 = {five - one:+.1f} us (goal <= 15)")
    if "barewire/rate" in by:
        mine, theirs = by["barewire/rate"].extra["rate"], by["web3py/rate"].extra["rate"]
        notes.append(f"/rate: {mine:,}/s (goal >= 10,000), {mine / theirs:.1f} x web3py (goal 5)")
    for name in FAULTS:
        row = by.get(f"barewire-5/{name}")
        if row is None:
            continue
        limit_ms = 1_000 if name == "three-of-five" else 500
        calm = by[f"barewire-5/{name}/healthy"].p99
        good = row.extra["failures"] == 0 and row.max < limit_ms * 1000
        steady = row.p99 <= 2 * calm + 25_000
        notes.append(
            f"/{name}: failures {row.extra['failures']}, max {row.max / 1000:.0f} ms "
            f"(< {limit_ms}: {good}), p99 {row.p99 / 1000:.1f} ms "
            f"(<= 2 x {calm / 1000:.1f} + 25: {steady})"
        )
    return notes


async def run(options: Any) -> list[Row]:
    rows: list[Row] = []
    if options.fault in ("all", "none"):
        with Anvil() as node:
            async with contextlib.AsyncExitStack() as stack:
                rows += await latency(node, options.rounds, options.calls, stack)
            rows += await rate(node, min(options.rounds, 5))
    names = {"all": FAULTS, "none": ()}.get(options.fault, (options.fault,))
    peers = ["barewire-5"] if options.alone else ["barewire-5", "stall400", "retry"]
    for name in names:
        with Anvil("--block-time", "1") as node:
            for who in peers:
                sys.stderr.write(f"\r\033[K{who}/{name}")
                rows += await fault(name, node, options.seconds, who)
    sys.stderr.write("\r\033[K")
    return rows


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument(
        "--fault", choices=(*FAULTS, "all", "none"), default="all", help="run only this fault"
    )
    parser.add_argument("--seconds", type=float, default=30, help="how long a fault lasts")
    parser.add_argument("--calls", type=int, default=50, help="calls of a row in a round")
    parser.add_argument("--alone", action="store_true", help="faults without the peers")
    options = parser.parse_args()
    gc.freeze()
    rows = uvloop.run(run(options))
    about = (
        "all on uvloop; web3py is w3.eth.call as people write it, web3py-provider its provider's "
        "make_request alone, web3py-over-barewire is web3.py with BarewireProvider underneath; "
        "bare has no JSON to make or read; there is no aiohttp/ipc, for aiohttp speaks HTTP only; "
        "a fault's /healthy row is the five seconds before it"
    )
    notes = [about, *judged(rows)]
    finish("rpc", rows, notes, to=options.json)


if __name__ == "__main__":
    main()
