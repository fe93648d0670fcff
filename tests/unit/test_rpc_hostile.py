"""Providers that mean ill or are broken beyond what a proxy before a node can play, on loopback."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import socket
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, StreamEnded
from web3 import AsyncWeb3, Web3
from websockets.asyncio.server import ServerConnection, serve
from websockets.frames import Frame, Opcode

from barewire.errors import BarewireError
from barewire.rpc import health, subscriptions
from barewire.rpc.broadcast import transaction_hash
from barewire.rpc.client import RpcClient
from barewire.rpc.config import ProviderConfig, RpcConfig
from barewire.rpc.faults import AllProvidersFailed, RpcAnswerError
from barewire.rpc.methods import lookup
from barewire.rpc.pool import Call
from barewire.rpc.transports import dial, http1
from barewire.rpc.web3_provider import BarewireProvider, BarewireSyncProvider
from tests.nobody import NOBODY
from tests.stream_server import stop_accepting
from tests.unit.rpc_node import ScriptedNode, Serving, http, result

pytestmark = pytest.mark.asyncio

RAW = "0x02" + "ab" * 110


def error(code: int, message: str, status: str = "200 OK") -> Callable[[dict[str, Any]], bytes]:
    def say(asked: dict[str, Any]) -> bytes:
        said = {"jsonrpc": "2.0", "id": asked["id"], "error": {"code": code, "message": message}}
        return http(json.dumps(said), status)

    return say


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def states(client: RpcClient) -> list[str]:
    return [p.state(time.monotonic_ns()) for p in client.pool.providers]


@asynccontextmanager
async def pool_of(*nodes: ScriptedNode, **config: Any) -> AsyncIterator[RpcClient]:
    """A client over `nodes`, and no patience with what hangs."""
    async with AsyncExitStack() as stack:
        for node in nodes:
            await stack.enter_async_context(node)
        urls = [node.url for node in nodes]
        async with asyncio.timeout(20), RpcClient.from_urls(urls, **config) as client:
            yield client


# What comes back


async def test_an_error_that_nobody_knows_is_believed_once_a_second_has_said_the_like():
    unknown = error(-32000, "wibble")
    nodes = [ScriptedNode(unknown) for _ in range(3)]
    async with pool_of(*nodes, mirror_share=0.0) as client:
        for provider in client.pool.providers:  # known, so that no copy is sent to learn
            provider.took(lookup("eth_call").kind, 1_000, time.monotonic_ns())
        with pytest.raises(RpcAnswerError, match="wibble"):
            await client.request("eth_call", [{}])
        assert sum(node.seen.count("eth_call") for node in nodes) == 2
        nodes[1].say = nodes[2].say = lambda asked: result(asked, "0x5")
        for _ in range(5):
            assert await client.request("eth_call", [{}], fresh=True) == "0x5"
        assert states(client) == ["up"] * 3
        for node in nodes[1:]:
            node.say = lambda asked: None
        with pytest.raises(RpcAnswerError, match="wibble"):  # nobody else can say anything
            await client.request("eth_call", [{}], fresh=True)
    async with pool_of(ScriptedNode(unknown)) as client:
        with pytest.raises(RpcAnswerError, match="wibble"):
            await client.request("eth_call", [{}])


DEEP = b'{"jsonrpc":"2.0","id":%d,"result":' + b"[" * 100_000 + b"]" * 100_000 + b"}"

NONSENSE: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "deep": lambda asked: http(DEEP % asked["id"]),
    "no-utf8": lambda asked: http(b'{"jsonrpc":"2.0","id":%d,"result":"\xff"}' % asked["id"]),
    "upgrade": lambda _: b"HTTP/1.1 101 X\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    "chunks": lambda _: b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"f" * 20,
    "redirect": lambda _: http("", "301 Moved", "location: http://elsewhere.example/\r\n"),
    "gzip": lambda _: http(gzip.compress(b"{}" * 99), more="content-encoding: gzip\r\n"),
    "rest": lambda _: http("", "429 Too Many", "retry-after: " + "9" * 5_000 + "\r\n"),
    "locked": error(-32000, "no such key", "401 Unauthorized"),
    "gateway": error(-32000, "upstream gone", "503 Service Unavailable"),
    "not-mine": lambda asked: error(3, "execution reverted")(asked | {"id": asked["id"] + 7}),
    "bare": lambda asked: http(json.dumps([{"id": asked["id"], "result": "0x"}])),
    "empty": lambda _: http(""),
}


@pytest.mark.parametrize("nonsense", NONSENSE)
async def test_nonsense_is_reported_at_once_and_is_nobodys_answer(nonsense):
    async with pool_of(ScriptedNode(NONSENSE[nonsense])) as client:
        with pytest.raises(AllProvidersFailed) as caught:
            await client.request("eth_sendTransaction", [{}], timeout_ms=60_000)
        # Nonsense says nothing of what became of it; a limit does.
        assert ("may have been carried out" in caught.value.hint) == (nonsense != "rest")
        assert not client.pool.providers[0].in_flight
        with pytest.raises(AllProvidersFailed):
            await client.request("eth_call", [{}, "latest"], timeout_ms=60_000)
        assert not client.pool.next_due_ns() < 1 << 61  # nothing is left open


async def test_a_provider_that_asks_for_a_month_of_rest_is_asked_again_after_an_hour():
    async with pool_of(ScriptedNode(NONSENSE["rest"])) as client:
        with pytest.raises(AllProvidersFailed):
            await client.request("eth_sendTransaction", [{}])
        rest_ns = client.pool.providers[0].parked_until_ns - time.monotonic_ns()
        assert 3_000e9 < rest_ns <= 3_600e9


async def test_an_answer_that_only_the_end_of_the_stream_ends():
    def say(asked: dict[str, Any]) -> bytes:
        body = json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": "0x5"}).encode()
        return b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + body

    node = ScriptedNode(say, hangs_up=True)
    async with pool_of(node) as client:
        assert await client.request("eth_call", [{}, "latest"]) == "0x5"


async def test_an_answer_without_end_does_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr(http1, "LARGEST", 1_000)
    endless = b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n" + b" " * 5_000
    async with pool_of(ScriptedNode(lambda _: endless)) as client:
        with pytest.raises(AllProvidersFailed, match="longer than 1,000 bytes"):
            await client.request("eth_sendTransaction", [{}])


async def test_two_answers_to_one_question_do_not_mix_up_the_next():
    node = ScriptedNode(lambda asked: result(asked, asked["params"][0]) * 2)
    async with pool_of(node, mirror_share=0.0) as client:
        channel = client.links[0].http
        for n in range(20):
            one, other = await asyncio.gather(
                client.request("eth_getCode", [f"0x{n}a"]),
                client.request("eth_getCode", [f"0x{n}b"]),
            )
            assert (one, other) == (f"0x{n}a", f"0x{n}b")
            assert len(set(channel._idle)) == len(channel._idle) <= len(channel._all)


# Who is blamed


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (-32000, "header not found"),
        (-32603, "Internal error"),
        (-32000, "account limit exceeded"),
        (-32005, "query returned more than 10000 results"),
        (-32000, "transaction type not supported"),
    ],
)
async def test_a_question_at_which_all_fail_puts_nobody_out(monkeypatch, code, message):
    # Being slow does put somebody out, and a loaded machine makes them so.
    monkeypatch.setattr(health, "_PROBE_MS", 20_000)
    slow = {"hedge_floor_ms": 20_000.0, "hedge_ceiling_ms": 20_000.0}
    nodes = [ScriptedNode(error(code, message)) for _ in range(3)]
    async with pool_of(*nodes, mirror_share=0.0, **slow) as client:
        for _ in range(3):
            with pytest.raises(RpcAnswerError, match=message):
                await client.request("eth_getLogs", [{"fromBlock": "0xffffff"}])
        assert states(client) == ["up"] * 3
        assert all(p.serves(lookup("eth_getLogs")) for p in client.pool.providers)


async def test_a_chain_without_finality_puts_nobody_out():
    say = error(-39001, "finalized block not found")
    nodes = [ScriptedNode(say, tags=("latest",)) for _ in range(2)]
    async with pool_of(*nodes, check_ms=50) as client:
        while sum(node.final_asked for node in nodes) < 8:
            await asyncio.sleep(0.02)
        assert states(client) == ["up"] * 2


@pytest.mark.parametrize("block", [None, 7, {"number": None}, {"number": "0x" + "f" * 9_000}, {}])
async def test_checks_go_on_whatever_is_said_to_be_final(block):
    node = ScriptedNode(lambda asked: result(asked, block), tags=("latest",))
    async with pool_of(node, check_ms=20) as client:
        while node.final_asked < 3:
            await asyncio.sleep(0.01)
        assert client.pool.heads.final == -1


async def test_what_is_final_is_no_newer_than_the_newest():
    node = ScriptedNode(lambda asked: result(asked, {"number": "0xffffff"}), tags=("latest",))
    async with pool_of(node, check_ms=20) as client:
        while node.final_asked < 2:
            await asyncio.sleep(0.01)
        assert client.pool.heads.final == -1


async def test_a_resolver_that_hangs_holds_up_no_check(monkeypatch):
    stuck = asyncio.Event()

    async def resolver(host: str, port: int) -> list[str]:
        if host == "slow.test" and stuck.is_set():
            await asyncio.sleep(3_600)
        return ["127.0.0.1"]

    monkeypatch.setattr(dial, "_RESOLVE_S", 0.05)
    async with ScriptedNode() as a, ScriptedNode() as b, asyncio.timeout(60):
        slow = f"http://slow.test:{a.port}"
        providers = [ProviderConfig.from_url(url, i) for i, url in enumerate((slow, b.url))]
        config = RpcConfig(providers=providers, check_ms=20)
        async with RpcClient(config, resolver=resolver) as client:
            stuck.set()
            before = len(b.asked)
            while len(b.asked) < before + 10:
                await asyncio.sleep(0.01)
            assert client.pool.providers[1].connected


# Up and down


async def test_calls_end_at_once_where_nobody_can_be_reached():
    """A provider with a stream alone, down: what it is handed fails before `_send` returns."""
    async with ScriptedNode() as node, asyncio.timeout(60):
        blocks = ["eth_chainId", "eth_getBlockByNumber"]
        providers = [ProviderConfig(name="ws", ws=f"ws://{NOBODY}")]
        providers += [ProviderConfig(name="blocks", http=node.url, methods=blocks)]
        async with RpcClient(RpcConfig(providers=providers)) as client:
            with pytest.raises(AllProvidersFailed, match="cannot connect"):
                await client.request("eth_sendTransaction", [{}], timeout_ms=60_000)
            with pytest.raises(AllProvidersFailed, match="cannot connect"):
                await client.ask(client.pool.providers[0], "eth_chainId", timeout_ms=60_000)


async def test_many_that_are_refused_at_once_all_learn_of_it():
    async with ScriptedNode() as node, asyncio.timeout(60):
        client = RpcClient.from_urls([node.url])
        await client.connect()
        await node.__aexit__()
        calls = [client.request("eth_sendTransaction", [{}], timeout_ms=60_000) for _ in range(20)]
        ends = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(end, AllProvidersFailed) for end in ends)
        await client.close()


async def test_a_client_can_connect_again():
    node = ScriptedNode()
    async with node:
        pass
    client = RpcClient.from_urls([node.url])
    with pytest.raises(BarewireError, match="no provider can be used"):
        await client.connect()
    with pytest.raises(BarewireError, match="not connected"):
        await client.request("eth_gasPrice")
    async with node, asyncio.timeout(60):
        for _ in range(2):
            await client.connect()
            assert await client.request("eth_gasPrice") == "0x"
            await client.close()


async def test_closing_fails_the_calls_in_flight_and_leaves_nothing():
    hanging = [ScriptedNode(lambda _: b"") for _ in range(2)]
    before = asyncio.all_tasks()
    async with hanging[0], hanging[1], asyncio.timeout(60):
        client = RpcClient.from_urls([node.url for node in hanging])
        await client.connect()
        methods = ["eth_call", "eth_call", "eth_sendTransaction", "eth_sendRawTransaction"]
        calls = [
            asyncio.create_task(client.request(method, [RAW], timeout_ms=60_000))
            for method in methods
        ]
        while not set(methods) <= {method for node in hanging for method in node.seen}:
            await asyncio.sleep(0.01)
        await client.close()
        ends = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(end, BarewireError) for end in ends)
        await asyncio.sleep(0.3)  # longer than a round's pause
        assert not any(link.http._all for link in client.links)
        assert client._alarm is None
    await asyncio.sleep(0)
    assert {t for t in asyncio.all_tasks() - before if "_serve" not in repr(t)} == set()


async def test_connecting_can_be_cancelled_and_leaves_nothing():
    silent = ScriptedNode(lambda _: b"", tags=(), chain_id=0)
    before = asyncio.all_tasks()
    async with silent:
        client = RpcClient.from_urls([silent.url])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await client.connect()
        async with asyncio.timeout(5):
            while silent.connections:
                await asyncio.sleep(0.01)
        assert {t for t in asyncio.all_tasks() - before if "_serve" not in repr(t)} == set()


async def test_who_asks_while_the_answer_is_handed_out_is_answered():
    """The shared call is finished, but the one who began it has not run yet."""
    node = ScriptedNode()
    async with pool_of(node) as client:
        late: list[asyncio.Task[Any]] = []
        took = client.took

        def took_and_asked(attempt: Any, reply: Any) -> None:
            if attempt.call.method.name == "eth_getCode" and not late:
                late.append(asyncio.create_task(client.request("eth_getCode", ["0x1", "latest"])))
            took(attempt, reply)

        client.took = took_and_asked
        assert await client.request("eth_getCode", ["0x1", "latest"]) == "0x"
        assert await late[0] == "0x"


async def test_providers_of_different_chains_are_not_mixed():
    async with ScriptedNode(chain_id=1) as one, ScriptedNode(chain_id=137) as other:
        with pytest.raises(BarewireError, match=r"different chains \(.*: 1, .*: 137\)"):
            async with RpcClient.from_urls([one.url, other.url]):
                pass
        # Without a configured chain, the one that was there at first is the pool's.
        late = ScriptedNode(chain_id=137)
        async with late:
            pass
        async with RpcClient.from_urls([one.url, late.url]) as client, late, asyncio.timeout(60):
            while not client.pool.providers[1].refused:
                await asyncio.sleep(0.01)
            assert (
                client.pool.providers[1].refused == "serves chain 137, but the pool is for chain 1"
            )


async def test_a_client_says_when_it_is_used_on_another_loop():
    async with pool_of(ScriptedNode()) as client:

        def elsewhere() -> str:
            with pytest.raises(BarewireError, match="connected on another event loop") as caught:
                asyncio.run(client.request("eth_gasPrice"))
            return caught.value.message

        assert await asyncio.to_thread(elsewhere)


@pytest.mark.parametrize("name", ['eth_x","id":99,"y":"', "eth\n", "eth_\ud800", "eth\\"])
async def test_what_is_no_method_name_is_not_sent(name):
    async with pool_of(node := ScriptedNode()) as client:
        before = len(node.asked)
        with pytest.raises(BarewireError, match="no method name"):
            await client.request(name)
        assert len(node.asked) == before


async def test_thousands_of_calls_leave_nothing_behind():
    nodes = [ScriptedNode(), ScriptedNode(error(-32603, "Internal error"))]
    async with pool_of(*nodes) as client:
        before = descriptors()
        for _ in range(10):
            calls = [client.request("eth_getCode", [f"0x{n}", "latest"]) for n in range(400)]
            await asyncio.gather(*calls)
        assert not client.pool._open
        assert not client.pool._paused
        assert not client._shared
        assert [p.in_flight for p in client.pool.providers] == [0, 0]
        assert all(lane._flying == 0 for k in client.links for lane in (k.priority, k.bulk))
        assert descriptors() <= before + 2 * 2 * 100


# Sending


@pytest.mark.parametrize(
    ("said", "taken"),
    [
        ("already known", True),
        ("AlreadyKnown", True),
        ("known transaction: 0x12", True),
        ("transaction already imported", True),
        ("Transaction is already in the mempool", True),
        ("unknown transaction type", False),
        ("a transaction with this nonce is already in the mempool", False),
        ("replacement transaction underpriced", False),
    ],
)
async def test_only_what_means_these_bytes_is_success(said, taken):
    async with pool_of(ScriptedNode(error(-32000, said))) as client:
        if taken:
            assert await client.request("eth_sendRawTransaction", [RAW]) == transaction_hash(RAW)
        else:
            with pytest.raises(RpcAnswerError):
                await client.request("eth_sendRawTransaction", [RAW])


async def test_a_transaction_is_sent_again_where_the_connection_was_lost():
    lost: list[int] = []

    def say(asked: dict[str, Any]) -> bytes | None:
        if len(lost) < 2:
            lost.append(1)
            return None
        return error(-32000, "already known")(asked)

    async with pool_of(ScriptedNode(say)) as client:
        assert await client.request("eth_sendRawTransaction", [RAW]) == transaction_hash(RAW)
    assert len(lost) == 2


async def test_what_went_out_in_a_bundle_stays_private():
    dark, lit = ScriptedNode(), ScriptedNode()
    async with dark, lit, asyncio.timeout(60):
        providers = [ProviderConfig(name="dark", http=dark.url, private="dark")]
        providers += [ProviderConfig(name="lit", http=lit.url)]
        async with RpcClient(RpcConfig(providers=providers, mirror_share=1.0)) as client:
            other = RAW[:-2] + "cd"
            await client.request("eth_sendBundle", [{"txs": [RAW]}], route="dark")
            await client.request("mev_sendBundle", [{"body": [{"tx": other}]}], route="dark")
            for raw in (RAW, other):
                number = transaction_hash(raw)
                methods = ("eth_getTransactionReceipt", "debug_getRawTransaction", "made_up")
                for method in methods:
                    await client.request(method, [number])
                    assert dark.asked[-1]["params"] == [number]
                with pytest.raises(BarewireError, match="private route 'dark'"):
                    await client.request("eth_sendRawTransaction", [raw])
    told = json.dumps(lit.asked)
    assert all(secret[2:] not in told for secret in (RAW, other, transaction_hash(RAW)))


# Connections that carry many exchanges


@pytest.mark.parametrize("way", ["ws", "h2"])
async def test_a_connection_that_has_gone_silent_is_made_anew(way, monkeypatch):
    """Nobody waits for anything any more: what was asked timed out. It is silent all the same."""
    monkeypatch.setattr(health, "_PROBE_MS", 50)
    async with AsyncExitStack() as stack:
        server: PushingNode | H2Node
        server = await stack.enter_async_context(PushingNode() if way == "ws" else H2Node())
        provider = ProviderConfig(
            name="one",
            ws=server.url if way == "ws" else "",
            http=server.url if way == "h2" else "",
            http2=True,
        )
        await stack.enter_async_context(asyncio.timeout(60))
        async with RpcClient(RpcConfig(providers=[provider], check_ms=100)) as client:
            server.mute = True
            while server.connected < 2:
                await asyncio.sleep(0.01)
            server.mute = False
            while not client.pool.providers[0].connected:
                await asyncio.sleep(0.01)
            assert await client.request("eth_blockNumber") == "0x64"


class H2Node:
    """A provider over HTTP/2 in plain text; GOAWAY follows each answer where `leaves`."""

    def __init__(self) -> None:
        self.mute = self.leaves = False
        self.connected = 0
        self.node = ScriptedNode()

    async def __aenter__(self) -> H2Node:
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(lambda: H2Wire(self), "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await stop_accepting(self.server)
        self.server.close()


class H2Wire(asyncio.Protocol):
    def __init__(self, node: H2Node) -> None:
        self.node = node
        self.bodies: dict[int, bytes] = {}
        self.h2 = H2Connection(H2Configuration(client_side=False))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.node.connected += 1
        self.h2.initiate_connection()
        transport.write(self.h2.data_to_send())

    def data_received(self, data: bytes) -> None:
        ended = []
        for event in self.h2.receive_data(data):
            if isinstance(event, DataReceived):
                self.bodies[event.stream_id] = self.bodies.get(event.stream_id, b"") + event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, StreamEnded):
                ended.append(event.stream_id)
        if self.node.mute:
            return
        for number in ended:
            asked = json.loads(self.bodies.pop(number))
            self.node.node.asked.append(asked)
            said = {"jsonrpc": "2.0", "id": asked["id"]}
            said["result"] = self.node.node.well(asked) or hex(self.node.node.head)
            self.h2.send_headers(number, [(":status", "200")])
            self.h2.send_data(number, json.dumps(said).encode(), end_stream=True)
        if ended and self.node.leaves:
            self.h2.close_connection(last_stream_id=ended[-1])
        self.transport.write(self.h2.data_to_send())


async def test_answers_that_came_with_a_goodbye_count():
    """Two answers and a GOAWAY in one piece: what is sent next must not lose the second."""
    async with H2Node() as server, asyncio.timeout(60):
        provider = ProviderConfig(name="h2", http=server.url, http2=True)
        config = RpcConfig(providers=[provider], mirror_share=0.0)
        async with RpcClient(config) as client:
            channel = client.links[0].http

            async def two(method: str) -> list[Any]:
                calls = [client.request(method, [n]) for n in range(2)]
                return await asyncio.gather(*calls)

            assert await two("eth_sendTransaction") == ["0x64", "0x64"]
            server.leaves = True
            took = client.took

            def took_and_asked(attempt: Any, reply: Any) -> None:
                client.took = took
                later.append(asyncio.create_task(client.request("eth_call", [{}, "latest"])))
                link = client.links[0]
                link.submit(
                    client.pool.start(Call(lookup("eth_gasPrice"), []), time.monotonic_ns())
                )
                took(attempt, reply)

            later: list[asyncio.Task[Any]] = []
            client.took = took_and_asked
            assert await two("eth_sendTransaction") == ["0x64", "0x64"]
            server.leaves = False
            assert await later[0] == "0x64"
            assert channel._queue == deque()


async def test_a_connection_closed_for_resting_costs_nothing_and_is_learnt(monkeypatch):
    """The server closes in the moment in which the next request comes: it is not read."""
    monkeypatch.setattr(http1, "_LEAST_IDLE_NS", 0)
    node = ScriptedNode(lambda asked: result(asked, "0x5"))
    async with pool_of(node, mirror_share=0.0, check_ms=60_000) as client:
        channel = client.links[0].http
        assert await client.request("eth_call", [{}], fresh=True) == "0x5"
        node.drops = 1
        assert await client.request("eth_call", [{}], fresh=True) == "0x5"
        assert node.drops == 0
        assert client.pool.providers[0].tally.faults == {}
        assert channel._rest_ns < http1._IDLE_NS
        node.more = "keep-alive: timeout=4, max=7\r\n"
        channel._rest_ns = http1._IDLE_NS
        assert await client.request("eth_call", [{}], fresh=True) == "0x5"
        assert channel._rest_ns == 3_000_000_000


# Subscriptions


class PushingNode:
    """A provider over WebSocket that pushes what a test wants."""

    def __init__(self, *, head: int = 100) -> None:
        self.node = ScriptedNode(head=head)
        self.blocks: dict[int, dict[str, str]] = {}
        self.subscribers: dict[str, tuple[ServerConnection, str]] = {}
        self.seen: list[str] = []
        self.spans: list[dict[str, str]] = []
        self.mute = False
        self.connected = 0
        self.add(head)

    def add(self, number: int) -> dict[str, str]:
        self.node.head = number
        self.blocks[number] = self.node.block(number) | {"parentHash": f"0x{number - 1:064x}"}
        return self.blocks[number]

    async def __aenter__(self) -> PushingNode:
        self._server = await serve(self._talk, "127.0.0.1", 0)
        self.url = f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await stop_accepting(self._server)
        self._server.close()
        await self._server.wait_closed()

    async def _talk(self, connection: ServerConnection) -> None:
        self.connected += 1
        async for message in connection:
            if self.mute:
                continue
            asked = json.loads(message)
            for one in asked if isinstance(asked, list) else [asked]:
                said = {"jsonrpc": "2.0", "id": one["id"], "result": self._answer(one, connection)}
                await connection.send(json.dumps(said))

    def _answer(self, asked: dict[str, Any], connection: ServerConnection) -> Any:
        method = asked["method"]
        self.seen.append(method)
        if method == "eth_subscribe":
            number = f"0x{len(self.subscribers) + 1:x}"
            self.subscribers[number] = (connection, asked["params"][0])
            return number
        if method == "eth_blockNumber":
            return hex(self.node.head)
        if method == "eth_getLogs":
            self.spans.append(asked["params"][0])
            return []
        if method == "eth_getBlockByNumber" and asked["params"][0].startswith("0x"):
            return self.blocks.get(int(asked["params"][0], 16))
        return self.node.well(asked)

    async def push(self, item: Any, kind: str = "newHeads") -> None:
        for number, (connection, what) in list(self.subscribers.items()):
            if what == kind:
                params = {"subscription": number, "result": item}
                note = {"jsonrpc": "2.0", "method": "eth_subscription", "params": params}
                await connection.send(json.dumps(note))


class FloodingNode(PushingNode):
    """It pushes, and pushes, before it says that it will."""

    def _answer(self, asked: dict[str, Any], connection: ServerConnection) -> Any:
        if asked["method"] == "eth_subscribe" and asked["params"][0] != "newHeads":
            params = {"subscription": "0x77", "result": "0x" + "11" * 32}
            note = {"jsonrpc": "2.0", "method": "eth_subscription", "params": params}
            frame = Frame(Opcode.TEXT, json.dumps(note).encode()).serialize(mask=False)
            connection.transport.write(frame * 50)
        return super()._answer(asked, connection)


async def test_who_pushes_without_end_before_it_agrees_is_cut_and_another_taken(monkeypatch):
    monkeypatch.setattr(subscriptions, "_QUEUE", 20)
    kind = "newPendingTransactions"
    async with FloodingNode() as flooding, PushingNode() as good, asyncio.timeout(60):
        async with RpcClient.from_urls([flooding.url, good.url]) as client:
            bad, fine = client.pool.providers
            fine.went_mute(kind, "so that the other is taken first", time.monotonic_ns())
            pending = await client.subscribe(kind)
            assert pending.provider == fine.name
            assert not pending._early
            assert bad.is_mute(kind, time.monotonic_ns())
            assert bad.tally.faults["mute"] == 1
            assert "pushed 20 items before it agreed to the subscription" in bad.last_trouble


GARBAGE: list[Any] = [
    None,
    7,
    "0x1",
    [],
    {},
    {"number": "0x65"},
    {"number": "zz", "hash": "0x1"},
    {"number": "0x65", "hash": []},
    {"number": "0x65", "hash": "0x1", "parentHash": {}},
    {"number": "0x" + "f" * 5_000, "hash": "0x1"},
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=lambda g: json.dumps(g)[:40])
async def test_garbage_that_is_pushed_ends_no_subscription(garbage):
    async with PushingNode() as bad, PushingNode() as good, asyncio.timeout(60):
        async with RpcClient.from_urls([bad.url, good.url], block_time_ms=1_000) as client:
            heads = await client.subscribe("newHeads")
            pushing = bad if heads.provider.endswith(bad.url[5:]) else good
            await pushing.push(garbage)
            for node in (bad, good):
                await node.push(node.add(101))
            assert (await anext(heads))["number"] == hex(101)
            for node in (bad, good):
                await node.push(node.add(102))
            assert (await anext(heads))["number"] == hex(102)


@pytest.mark.parametrize("garbage", [None, 7, {"blockNumber": 5}, {"blockHash": []}])
async def test_garbage_among_logs_ends_no_subscription(garbage):
    async with PushingNode() as node, asyncio.timeout(60):
        async with RpcClient.from_urls([node.url], block_time_ms=1_000) as client:
            logs = await client.subscribe("logs", {})
            await node.push(garbage, "logs")
            good = {"blockNumber": hex(101), "blockHash": "0x1", "logIndex": "0x0"}
            while not logs._out:
                await node.push(good, "logs")
                await asyncio.sleep(0.05)
            assert await anext(logs) == good


async def test_a_liar_that_pushes_does_not_spoil_the_gap_that_follows():
    nodes = [PushingNode() for _ in range(3)]
    async with nodes[0], nodes[1], nodes[2], asyncio.timeout(60):
        urls = [node.url for node in nodes]
        async with RpcClient.from_urls(urls, block_time_ms=1_000) as client:
            heads = await client.subscribe("newHeads")
            liar = next(n for n in nodes if heads.provider.endswith(n.url[5:]))
            await liar.push({"number": hex(10**9), "hash": "0xff", "parentHash": "0xfe"})
            for number in (101, 102, 103):
                for node in nodes:
                    node.add(number)
            for node in nodes:
                await node.push(node.blocks[103])
            got = [int((await anext(heads))["number"], 16) for _ in range(3)]
            assert got == [101, 102, 103]


async def test_logs_are_fetched_from_where_their_provider_fell_silent(monkeypatch):
    """Others went on for long; what the silent one did not push is not taken for nothing."""
    monkeypatch.setattr(subscriptions, "_WATCH_S", 0.02)
    async with PushingNode() as one, PushingNode() as other, asyncio.timeout(60):
        async with RpcClient.from_urls([one.url, other.url], block_time_ms=1_000) as client:
            logs = await client.subscribe("logs", {})
            silent, going_on = (one, other) if logs.provider.endswith(one.url[5:]) else (other, one)
            for number in range(101, 150):
                await going_on.push(going_on.add(number))
            while client.pool.heads.newest < 149:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            silent._server.close()  # and its connections
            while not going_on.spans:
                await asyncio.sleep(0.01)
            assert int(going_on.spans[0]["fromBlock"], 16) <= 101


async def test_closing_the_client_ends_its_subscriptions():
    async with PushingNode() as node, asyncio.timeout(60):
        client = RpcClient.from_urls([node.url])
        await client.connect()
        heads = await client.subscribe("newHeads")
        reader = asyncio.create_task(anext(heads, "the end"))
        await asyncio.sleep(0)  # it waits now
        await client.close()
        assert await reader == "the end"
        assert not client._subscriptions


async def test_a_subscription_that_cannot_begin_leaves_no_listener():
    async with pool_of(
        ScriptedNode(lambda asked: error(-32603, "Internal error")(asked), tags=())
    ) as client:
        before = len(client._listeners)
        with pytest.raises(BarewireError):
            await client.subscribe("newHeads")
        assert len(client._listeners) == before


async def test_where_nobody_pushes_blocks_are_polled_with_measure_and_pending_is_refused(caplog):
    node = ScriptedNode(lambda asked: result(asked, hex(node.head)))
    async with pool_of(node, block_time_ms=2_000) as client:
        with pytest.raises(BarewireError, match="no provider pushes"):
            await client.subscribe("newPendingTransactions")
        before = node.seen.count("eth_getBlockByNumber")
        began = time.monotonic()
        await client.subscribe("newHeads")
        while node.seen.count("eth_getBlockByNumber") < before + 8:
            await asyncio.sleep(0.01)
        # A few to begin and to check, and a poll each half second.
        assert time.monotonic() - began > 1.0
    assert "polling every 0.5 s" in caplog.text


async def test_a_slow_reader_costs_one_line_and_is_told_how_much_he_missed(monkeypatch):
    monkeypatch.setattr(subscriptions, "_QUEUE", 10)
    async with PushingNode() as node, asyncio.timeout(60):
        async with RpcClient.from_urls([node.url]) as client:
            pending = await client.subscribe("newPendingTransactions")
            for number in range(50):
                await node.push(f"0x{number:064x}", "newPendingTransactions")
            while not pending.losses or pending.losses[0].last < 40:
                await asyncio.sleep(0.01)
            assert [(loss.what, loss.last) for loss in pending.losses] == [("overrun", 40)]
            for _ in range(10):
                await anext(pending)
            for number in range(50, 65):
                await node.push(f"0x{number:064x}", "newPendingTransactions")
            while len(pending.losses) < 2 or pending.losses[1].last < 5:
                await asyncio.sleep(0.01)
            assert [loss.last for loss in pending.losses] == [40, 5]


# web3.py


async def test_web3_connects_again_after_it_disconnected():
    async with ScriptedNode(lambda asked: result(asked, "0x7")) as node, asyncio.timeout(60):
        w3 = AsyncWeb3(BarewireProvider([node.url]))
        for _ in range(2):
            await w3.provider.connect()
            assert await w3.eth.gas_price == 7
            await w3.provider.disconnect()


async def test_the_blocking_provider_waits_for_its_node_and_leaks_nothing_meanwhile():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    provider = BarewireSyncProvider([f"http://127.0.0.1:{port}"])
    assert not provider.is_connected()
    before, threads = descriptors(), threading.active_count()
    for _ in range(20):
        assert not provider.is_connected()
    assert descriptors() == before
    assert threading.active_count() == threads
    with Serving() as node:
        provider = BarewireSyncProvider([node.url])
        assert Web3(provider).eth.gas_price == 7
        provider.close()


async def test_the_blocking_provider_refuses_to_hang_in_a_forked_child():
    with Serving() as node:
        provider = BarewireSyncProvider([node.url])
        assert Web3(provider).eth.gas_price == 7
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                provider.make_request("eth_gasPrice", [])
            except BarewireError as error:
                os.write(writer, error.message.encode())
            finally:
                os._exit(0)
        os.close(writer)
        try:
            assert b"before the process forked" in os.read(reader, 1_000)
        finally:
            os.close(reader)
            os.waitpid(child, 0)
            provider.close()


# Shared reads


async def test_who_shares_a_read_keeps_a_deadline_of_his_own():
    """The impatient gives up alone; the patient has his answer, whoever of them asked first."""
    for patient_first in (False, True):
        held: list[dict[str, Any]] = []
        node = ScriptedNode(lambda asked, held=held: held.append(asked) or b"")
        async with pool_of(node, mirror_share=0.0, check_ms=60_000, hedge_share=0.0) as client:
            order = [60_000, 50] if patient_first else [50, 60_000]
            calls = {}
            for ms in order:
                work = client.request("eth_getCode", ["0x1", "latest"], timeout_ms=ms)
                calls[ms] = asyncio.create_task(work)
                await asyncio.sleep(0)
            with pytest.raises(AllProvidersFailed, match="time that this caller gave it"):
                await calls[50]
            assert not calls[60_000].done()
            third = asyncio.create_task(client.request("eth_getCode", ["0x1", "latest"]))
            await asyncio.sleep(0)
            assert len(held) == 1
            await node.say_late(held[0], "0x60")
            assert await calls[60_000] == await third == "0x60"
            assert client._shared == {}
            assert client.pool.providers[0].tally.faults == {}


async def test_nobody_waits_for_a_read_that_all_have_given_up():
    node = ScriptedNode(lambda asked: b"")
    async with pool_of(node, mirror_share=0.0, check_ms=60_000) as client:
        calls = [
            client.request("eth_getCode", ["0x1", "latest"], timeout_ms=ms) for ms in (60, 50, 40)
        ]
        errors = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(error, AllProvidersFailed) for error in errors)
        assert client._shared == {}
        assert not client.pool._open


async def test_web3_keeps_the_types_of_as_many_calls_as_are_on_the_way():
    async with ScriptedNode(lambda asked: result(asked, hex(7))) as node, asyncio.timeout(60):
        async with AsyncWeb3(BarewireProvider([node.url])) as w3:
            account = "0x" + "00" * 20
            asked = [w3.eth.get_balance(account, number) for number in range(700)]
            assert await asyncio.gather(*asked) == [7] * 700
            node.say = lambda asked: error(-32000, "execution reverted")(asked)
            asked = [w3.eth.get_balance(account, number) for number in range(20)]
            await asyncio.gather(*asked, return_exceptions=True)
            known = w3.provider._request_processor._request_information_cache
            assert len(known) == 0


async def test_web3s_own_time_for_a_call_holds():
    async with ScriptedNode(lambda asked: b"") as node, asyncio.timeout(20):
        async with AsyncWeb3(BarewireProvider([node.url], request_timeout=0.05)) as w3:
            with pytest.raises(AllProvidersFailed):
                await w3.eth.gas_price
