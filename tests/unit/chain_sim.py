"""A chain that forks on command, and nodes on loopback that each see it in their own way.

The chain is the truth that a test checks against; it shares nothing with the code under test. A
node has a tip of its own (it may lag), pushes as geth does over WebSocket (on a reorganisation the
removed logs first), answers over WebSocket and HTTP alike, and goes mute, deaf or away on command.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tests.stream_server import StreamServer, stop_accepting
from tests.unit.rpc_node import http

__all__ = ["Block", "Chain", "SimNode", "believed_heads", "believed_logs"]


@dataclass
class Block:
    number: int
    hash: str
    parent: str
    logs: list[dict[str, Any]] = field(default_factory=list)
    transactions: list[str] = field(default_factory=list)

    def header(self) -> dict[str, Any]:
        return {
            "number": hex(self.number),
            "hash": self.hash,
            "parentHash": self.parent,
            "transactions": self.transactions,
        }


class Chain:
    """All blocks that ever were, and which of them is the newest now."""

    def __init__(self, first: int = 100) -> None:
        self._count = itertools.count(1)
        genesis = Block(first, self._word("b"), "0x" + "00" * 32)
        self.blocks = {genesis.hash: genesis}
        self.tip = genesis

    def _word(self, kind: str) -> str:
        return f"0x{kind}{next(self._count):063x}"

    def mine(self, logs: int = 1, transactions: int = 1, on: Block | None = None) -> Block:
        """One more block, on the tip or on another; it becomes the tip."""
        parent = on or self.tip
        block = Block(parent.number + 1, self._word("b"), parent.hash)
        block.transactions = [self._word("7") for _ in range(transactions)]
        block.logs = [
            {
                "blockNumber": hex(block.number),
                "blockHash": block.hash,
                "logIndex": hex(index),
                "transactionHash": self._word("7"),
                "removed": False,
            }
            for index in range(logs)
        ]
        self.blocks[block.hash] = block
        self.tip = block
        return block

    def back(self, depth: int, of: Block | None = None) -> Block:
        """The block `depth` before the tip."""
        block = of or self.tip
        for _ in range(depth):
            block = self.blocks.get(block.parent, block)
        return block

    def branch(self, tip: Block | None = None) -> dict[int, Block]:
        """The blocks up to `tip`, by number, ascending."""
        found = []
        block: Block | None = tip or self.tip
        while block is not None:
            found.append(block)
            block = self.blocks.get(block.parent)
        return {b.number: b for b in reversed(found)}


class SimNode:
    """A node's view of a chain.

    Attributes:
        tip: the newest block it has.
        mute: kinds of subscriptions that push nothing any more.
        deaf: it takes requests and answers none.
        silent: methods that it takes over WebSocket and does not answer.
        widest: the most blocks of one getLogs, and how it refuses more.
        refuses: methods to the error that it answers them with.
        asked: method and parameters of all requests, in order.
    """

    def __init__(self, chain: Chain, *, chain_id: int = 1) -> None:
        self.chain = chain
        self.tip = chain.tip
        self.chain_id = chain_id
        self.mute: set[str] = set()
        self.deaf = False
        self.silent: set[str] = set()
        self.widest = 0
        self.refusal: Callable[[int, int], str] = lambda first, last: "block range too large"
        self.refuses: dict[str, dict[str, Any]] = {}
        self.answers: dict[str, Callable[[list[Any]], Any]] = {}
        self.asked: list[tuple[str, list[Any]]] = []
        self.port = self._http_port = 0
        self._subs: dict[ServerConnection, dict[str, str]] = {}
        self._http = StreamServer(self._serve)
        self._numbers = itertools.count(1)

    @property
    def ws(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http_port}"

    def is_(self, name: str) -> bool:
        """Whether a provider of this name is this node."""
        return name.endswith((f":{self.port}", f":{self._http_port}"))

    def count(self, method: str) -> int:
        return sum(one == method for one, _ in self.asked)

    async def __aenter__(self) -> Self:
        """Listens; after it was left it can be entered again, on the same ports."""
        self._server = await serve(self._talk, "127.0.0.1", self.port, compression=None)
        self.port = self._server.sockets[0].getsockname()[1]
        self._http_port = await self._http.listen(self._http_port)
        return self

    async def __aexit__(self, *_: object) -> None:
        await stop_accepting(self._server)
        self._server.close()
        self.cut()
        await self._http.close()
        await self._server.wait_closed()

    def cut(self) -> None:
        """Cuts all connections."""
        for connection in list(self._subs):
            connection.transport.abort()
        self._http.cut()

    # What it knows

    async def see(self, tip: Block | None = None) -> None:
        """Its tip moves, to the chain's or to another block, and it pushes what it then pushes."""
        before, after = self.chain.branch(self.tip), self.chain.branch(tip)
        self.tip = tip or self.chain.tip
        gone = [b for n, b in before.items() if after.get(n) is not b]
        new = [b for n, b in after.items() if before.get(n) is not b]
        for block in reversed(gone):
            for log in reversed(block.logs):
                await self.push("logs", log | {"removed": True})
        for block in new:
            await self.push("newHeads", block.header())
            for log in block.logs:
                await self.push("logs", log)

    async def announce(self, *hashes: str) -> None:
        """Transactions are pending."""
        for one in hashes:
            await self.push("newPendingTransactions", one)

    async def push(self, kind: str, item: Any) -> None:
        for connection, subs in list(self._subs.items()):
            for number, what in list(subs.items()):
                if what != kind or kind in self.mute or self.deaf:
                    continue
                params = {"subscription": number, "result": item}
                note = {"jsonrpc": "2.0", "method": "eth_subscription", "params": params}
                try:
                    await connection.send(json.dumps(note))
                except ConnectionClosed:
                    break

    def _at(self, block: Any) -> Block | None:
        branch = self.chain.branch(self.tip)
        if block in ("latest", "pending"):
            return self.tip
        if block in ("finalized", "safe"):
            return self.chain.back(64, self.tip)
        return branch.get(int(block, 16))

    def answer(self, method: str, params: list[Any]) -> Any:
        """Its answer; an exception is its error."""
        self.asked.append((method, params))
        if method in self.refuses:
            return Refused(self.refuses[method])
        if method in self.answers:
            return self.answers[method](params)
        match method:
            case "eth_chainId":
                return hex(self.chain_id)
            case "eth_blockNumber":
                return hex(self.tip.number)
            case "eth_getBlockByNumber":
                block = self._at(params[0])
                return block.header() if block else None
            case "eth_getBlockByHash":
                block = self.chain.blocks.get(params[0])
                return block.header() if block else None
            case "eth_getLogs":
                return self._logs(params[0])
            case "eth_unsubscribe":
                return True
        return Refused({"code": -32601, "message": f"the method {method} does not exist"})

    def _logs(self, where: dict[str, Any]) -> Any:
        first, last = (
            self.tip.number if where.get(key, "latest") == "latest" else int(where[key], 16)
            for key in ("fromBlock", "toBlock")
        )
        if self.widest and last - first + 1 > self.widest:
            return Refused({"code": -32600, "message": self.refusal(first, last)})
        blocks = self.chain.branch(self.tip).items()
        return [log for number, block in blocks if first <= number <= last for log in block.logs]

    # Talking

    def _said(self, asked: Any, connection: ServerConnection | None) -> Any:
        if isinstance(asked, list):
            return [self._said(one, connection) for one in asked]
        said: dict[str, Any] = {"jsonrpc": "2.0", "id": asked["id"]}
        method, params = asked["method"], asked.get("params", [])
        if connection and method in self.silent:
            return self.asked.append((method, params))
        if method == "eth_subscribe" and connection and method not in self.refuses | self.answers:
            self.asked.append((method, params))
            number = hex(next(self._numbers))
            self._subs[connection][number] = params[0]
            return said | {"result": number}
        result = self.answer(method, params)
        if isinstance(result, Refused):
            return said | {"error": result.error}
        return said | {"result": result}

    async def _talk(self, connection: ServerConnection) -> None:
        self._subs[connection] = {}
        try:
            async for message in connection:
                said = self._said(json.loads(message), connection)
                if not self.deaf and said is not None:
                    await connection.send(json.dumps(said))
        except ConnectionClosed:
            pass
        finally:
            del self._subs[connection]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split()[0])
            asked = json.loads(await reader.readexactly(length))
            if not self.deaf:
                writer.write(http(json.dumps(self._said(asked, None))))


@dataclass
class Refused:
    error: dict[str, Any]


# What a reader who believes all he was told believes in


def believed_heads(told: list[dict[str, Any]]) -> dict[int, str]:
    """The chain after `told`: a block replaces what stood at its number and above.

    Raises:
        AssertionError: a block was told twice in a row of being there.
    """
    chain: dict[int, str] = {}
    for header in told:
        number = int(header["number"], 16)
        assert chain.get(number) != header["hash"], f"block {number} was told twice"
        for gone in [n for n in chain if n >= number]:
            del chain[gone]
        chain[number] = header["hash"]
    return chain


def believed_logs(told: list[dict[str, Any]]) -> list[tuple[int, str, int]]:
    """The logs after `told`, as (block number, block hash, index).

    Raises:
        AssertionError: one was told while it was there, or taken back while it was not.
    """
    there: dict[tuple[int, str, int], None] = {}
    for log in told:
        key = int(log["blockNumber"], 16), log["blockHash"], int(log["logIndex"], 16)
        if log["removed"]:
            assert key in there, f"{key} was taken back and was not there"
            del there[key]
        else:
            assert key not in there, f"{key} was told twice"
            there[key] = None
    return list(there)
