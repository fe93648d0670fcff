"""Batches that providers refuse, in every form: the calls are answered all the same."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from barewire.rpc import link
from barewire.rpc.batch_limit import BatchLimit
from barewire.rpc.client import RpcClient
from barewire.rpc.faults import AllProvidersFailed
from tests.stream_server import stop_accepting
from tests.unit.rpc_node import ScriptedNode, http, result

MINUTE = 60 * 1_000_000_000
Batch = list[dict[str, Any]]


def error(number: Any, code: int, message: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "error": {"code": code, "message": message}}


def good(asked: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": asked["id"], "result": asked["params"][0]}


def too_large(asked: Batch, most: int) -> Batch:
    """As geth: the answers become too long after some items."""
    late = [error(one["id"], -32003, "response too large") for one in asked[most:]]
    return [good(one) for one in asked[:most]] + late


BLOCK = {"number": "0x64", "hash": "0x" + "00" * 32}
WELL: dict[str, Any] = {
    "eth_chainId": {"result": "0x1"},
    "eth_subscribe": {"result": "0x1"},
    "eth_getBlockByNumber": {"result": BLOCK},
}
# What a provider that takes `most` items says to more of them.
FORMS: dict[str, Callable[[Batch, int], Any]] = {
    "geth": lambda asked, _: [error(asked[0]["id"], -32600, "batch too large")],
    "geth-answers": too_large,
    "proxyd": lambda *_: error(None, -32014, "too many RPC calls in batch request"),
    "one-object": lambda *_: error(None, -32600, "Invalid Request"),
    "one-object-numbered": lambda asked, _: error(asked[0]["id"], -32005, "limit exceeded"),
    "unknown": lambda *_: error(None, -32000, "wibble"),
    "empty": lambda *_: [],
    "no-ids": lambda asked, _: [error(None, -32600, "Invalid Request") for _ in asked],
    "shorter": lambda asked, most: [good(one) for one in asked[:most]],
    "shorter-front": lambda asked, most: [good(one) for one in asked[-most:]],
    "longer": lambda asked, _: [good(one) for one in asked] + [good({**asked[0], "id": 10**6})],
    "each": lambda asked, _: [error(one["id"], -32600, "batch size exceeded") for one in asked],
    "strings": lambda asked, _: [{**good(one), "id": str(one["id"])} for one in asked],
    "one-of-many": lambda asked, _: [error(asked[0]["id"], -32600, "Invalid Request")],
    "each-unknown": lambda asked, _: [error(one["id"], -32099, "wibble") for one in asked],
    "each-internal": lambda asked, _: [error(one["id"], -32603, "Internal error") for one in asked],
}
STATUSES = ["400 Bad Request", "413 Content Too Large", "429 Too Many Requests", "403 Forbidden"]
STATUSES += ["422 Unprocessable", "500 Internal Server Error", "503 Service Unavailable"]


CUT = "the end of the connection"


class Narrow(ScriptedNode):
    """Takes `most` items at once, and says to more what `form` says."""

    def __init__(self, form: Callable[[Batch, int], bytes], most: int) -> None:
        super().__init__(lambda asked: result(asked, asked["params"][0]))
        self.form = form
        self.most = most
        self.batches: list[int] = []

    def _batch(self, asked: Batch) -> bytes | None:
        self.batches.append(len(asked))
        if len(asked) > self.most:
            return self.form(asked, self.most)
        return http(json.dumps([good(one) for one in asked]))


async def ask_many(client: RpcClient, many: int = 150) -> None:
    wanted = [f"0x{i:040x}" for i in range(many)]
    asked = [client.request("eth_getCode", [one, "latest"], fresh=True) for one in wanted]
    assert await asyncio.gather(*asked) == wanted


def served(form: str) -> Callable[[Batch, int], bytes]:
    if form == CUT:
        return lambda *_: None
    if form in FORMS:
        return lambda asked, most: http(json.dumps(FORMS[form](asked, most)))
    return lambda *_: http("<html>no</html>", form)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("form", "most"),
    [
        *((form, 10) for form in [*FORMS, *STATUSES, CUT]),
        *((form, 1) for form in ["geth", "empty", "each-unknown", STATUSES[1], CUT]),
    ],
)
async def test_a_refused_batch_fails_nobody_and_is_a_lesson(form, most):
    async with Narrow(served(form), most) as node, asyncio.timeout(30):
        async with RpcClient.from_urls([node.url], mirror_share=0.0) as client:
            await ask_many(client)
            learnt = client.links[0].priority.items
            if form not in ("longer", "shorter", "shorter-front"):
                assert learnt < 100
            node.batches.clear()
            await ask_many(client)
            assert max(node.batches, default=1) <= learnt


@pytest.mark.asyncio
@pytest.mark.parametrize("form", [f for f in FORMS if f != "strings"])
async def test_refused_over_a_websocket(form):
    async def node(socket: ServerConnection) -> None:
        async for message in socket:
            asked = json.loads(message)
            if isinstance(asked, list):
                said = [good(one) for one in asked]
                said = FORMS[form](asked, 10) if len(asked) > 10 else said
            elif asked["method"] in ("eth_chainId", "eth_subscribe"):
                said = {"jsonrpc": "2.0", "id": asked["id"], "result": "0x1"}
            elif asked["method"] == "eth_getBlockByNumber":
                block = {"number": "0x64", "hash": "0x" + "00" * 32}
                said = {"jsonrpc": "2.0", "id": asked["id"], "result": block}
            else:
                said = good(asked)
            await socket.send(json.dumps(said))

    async with serve(node, "127.0.0.1", 0) as server, asyncio.timeout(30):
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with RpcClient.from_urls([url], mirror_share=0.0, check_ms=60_000) as client:
            await ask_many(client)


@pytest.mark.asyncio
async def test_a_stream_that_is_cut_by_batches_is_spared_them():
    cut = 0

    async def node(socket: ServerConnection) -> None:
        nonlocal cut
        async for message in socket:
            asked = json.loads(message)
            if isinstance(asked, list):
                cut += 1
                socket.transport.abort()
                return
            said = good(asked) if asked["method"] == "eth_getCode" else WELL[asked["method"]]
            await socket.send(json.dumps(said | {"id": asked["id"]}))

    async with serve(node, "127.0.0.1", 0) as server, asyncio.timeout(30):
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with RpcClient.from_urls([url], mirror_share=0.0, check_ms=60_000) as client:
            while client.links[0].priority.items > 1:
                # Those of the first burst may fail: nobody else is there while it reconnects.
                many = (client.request("eth_getCode", [hex(i)], fresh=True) for i in range(50))
                await asyncio.gather(*many, return_exceptions=True)
            while not client.pool.providers[0].connected:
                await asyncio.sleep(0.01)
            cut = 0
            await ask_many(client)
            assert cut == 0
        await stop_accepting(server)


@pytest.mark.asyncio
async def test_batches_that_are_never_answered_become_smaller(monkeypatch):
    monkeypatch.setattr(link, "_STALLED_NS", 50_000_000)
    async with Narrow(lambda *_: b"", 20) as node, asyncio.timeout(30):
        async with RpcClient.from_urls([node.url], mirror_share=0.0, timeout_ms=300) as client:
            while client.links[0].priority.items > 20:
                many = (client.request("eth_getCode", [hex(i)], fresh=True) for i in range(50))
                asked = asyncio.gather(*many, return_exceptions=True)
                while not asked.done():
                    await client.request("eth_chainId", fresh=True)  # it is there, and answers
                    await asyncio.sleep(0.02)
            await ask_many(client)


@pytest.mark.asyncio
async def test_a_provider_in_trouble_is_asked_once_more_and_then_left():
    broken = Narrow(lambda *_: http("no", "500 Internal Server Error"), 0)
    async with broken, Narrow(served("geth"), 100) as other, asyncio.timeout(30):
        async with RpcClient.from_urls([broken.url, other.url], mirror_share=0.0) as client:
            broken.say = lambda _: http("no", "500 Internal Server Error")
            await ask_many(client)
            assert len(broken.batches) <= 6  # each with one item that was asked alone


@pytest.mark.asyncio
async def test_a_rate_that_is_told_is_no_size():
    def limit(*_: Any) -> bytes:
        return http("", "429 Too Many Requests", "retry-after: 30\r\n")

    async with Narrow(limit, 0) as node, asyncio.timeout(30):
        async with RpcClient.from_urls([node.url], mirror_share=0.0, timeout_ms=500) as client:
            node.say = limit
            wanted = [client.request("eth_getCode", [hex(i)], fresh=True) for i in range(50)]
            errors = await asyncio.gather(*wanted, return_exceptions=True)
            assert all(isinstance(error, AllProvidersFailed) for error in errors)
            assert client.links[0].priority.items == 100


def test_the_limit_grows_back_carefully():
    limit = BatchLimit(100, 1_000_000)
    assert not limit.grow(0)
    limit.refused(100, 20_000, 0)
    assert (limit.items, limit.size) == (50, 10_000)
    limit.refused(100, 20_000, 0)  # it was on its way
    assert limit.items == 50
    assert not limit.grow(MINUTE - 1)
    assert limit.grow(MINUTE)
    assert limit.items == 100
    limit.refused(100, 20_000, MINUTE)
    assert not limit.grow(2 * MINUTE)
    assert limit.grow(3 * MINUTE)  # twice as far away
    limit.refused(100, 20_000, 3 * MINUTE)
    assert not limit.grow(6 * MINUTE)
    assert limit.grow(7 * MINUTE)
    assert not limit.grow(7 * MINUTE + 1)
    limit.refused(3, 900, 8 * MINUTE, taken=2)
    assert limit.items == 2
    limit.refused(2, 900, 8 * MINUTE)
    limit.refused(1, 900, 8 * MINUTE)
    assert (limit.items, limit.size) == (1, 1_000)
    for minute in range(8, 3_000):
        limit.grow(minute * MINUTE)
    assert (limit.items, limit.size) == (100, 1_000_000)
