"""A provider on loopback that says, byte for byte, what a test wants: no node behind it.

The health checks' questions are answered well, so that the client connects; everything else is
answered by the test's own function, over HTTP/1.1.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from typing import Any, Self

from tests.stream_server import StreamServer

__all__ = ["ScriptedNode", "Serving", "http", "result"]

Say = Callable[[dict[str, Any]], bytes | None]
"""A request to the raw bytes of its answer; None cuts the connection, b"" says nothing."""


def http(body: bytes | str, status: str = "200 OK", more: str = "") -> bytes:
    """An HTTP/1.1 response."""
    body = body.encode() if isinstance(body, str) else body
    return f"HTTP/1.1 {status}\r\n{more}content-length: {len(body)}\r\n\r\n".encode() + body


def result(asked: dict[str, Any], value: Any) -> bytes:
    """A good answer to `asked`."""
    return http(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": value}))


class ScriptedNode:
    """One provider.

    Attributes:
        say: answers what `well` does not.
        head: its newest block.
        chain_id: its chain; 0 for one that does not say.
        tags: blocks that it answers well for.
        hangs_up: it closes the connection after each answer that is not a health check's.
        drops: so many requests from now on find the end of their connection.
        more: headers of every answer, each with its line end.
        seen: methods of all requests, in order.
        asked: all requests, in order.
    """

    def __init__(
        self,
        say: Say | None = None,
        *,
        head: int = 100,
        chain_id: int = 1,
        tags: tuple[str, ...] = ("latest", "finalized"),
        hangs_up: bool = False,
    ) -> None:
        self.say = say or (lambda asked: result(asked, "0x"))
        self.tags = tags
        self.hangs_up = hangs_up
        self.head = head
        self.chain_id = chain_id
        self.asked: list[dict[str, Any]] = []
        self._asking: dict[Any, asyncio.StreamWriter] = {}
        self.drops = 0
        self.more = ""
        self.port = 0
        self._server = StreamServer(self._serve)

    @property
    def seen(self) -> list[str]:
        return [one["method"] for one in self.asked]

    @property
    def final_asked(self) -> int:
        """How often it was asked for the newest final block."""
        return sum(one["params"][:1] == ["finalized"] for one in self.asked)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        return self._server.connections

    async def __aenter__(self) -> Self:
        self.port = await self._server.listen(self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stops; it can be entered again, on the same port."""
        await self._server.close()

    async def say_late(self, asked: dict[str, Any], value: Any) -> None:
        """A good answer to what was asked before, over whatever connection it was asked."""
        self._asking[asked["id"]].write(result(asked, value))

    def block(self, number: int) -> dict[str, str]:
        return {"number": hex(number), "hash": f"0x{number:064x}", "parentHash": "0x" + "00" * 32}

    def well(self, asked: dict[str, Any]) -> Any:
        """The result of a health check's question, or None."""
        if asked["method"] == "eth_chainId":
            return hex(self.chain_id) if self.chain_id else None
        if asked["method"] == "eth_getBlockByNumber" and asked["params"][0] in self.tags:
            return self.block(self.head)
        return None

    def _batch(self, asked: list[dict[str, Any]]) -> bytes | None:
        items = [(self.say(one) or b"").partition(b"\r\n\r\n")[2] for one in asked]
        return http(b"[" + b",".join(items) + b"]")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if self.drops:
                self.drops -= 1
                return
            length = int(head.lower().partition(b"content-length:")[2].split()[0])
            asked = json.loads(await reader.readexactly(length))
            if isinstance(asked, dict):
                self._asking[asked["id"]] = writer
            fine = self.well(asked) if isinstance(asked, dict) else None
            self.asked += asked if isinstance(asked, list) else [asked]
            if isinstance(asked, list):
                said = self._batch(asked)
            else:
                said = self.say(asked) if fine is None else result(asked, fine)
            if said is None:
                return
            writer.write(said.replace(b"\r\n", b"\r\n" + self.more.encode(), 1))
            if fine is None and self.hangs_up:
                await writer.drain()
                writer.close()
                return


class Serving:
    """A scripted node on a thread of its own, for what blocks."""

    def __init__(self, say: Say | None = None) -> None:
        self.node = ScriptedNode(say or (lambda asked: result(asked, "0x7")))

    def __enter__(self) -> ScriptedNode:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        asyncio.run_coroutine_threadsafe(self.node.__aenter__(), self.loop).result()
        return self.node

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self.node.__aexit__(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()
