"""A proxy that stands before a real node and breaks, on command, in every way providers break.

It understands HTTP and WebSocket enough to rewrite JSON-RPC in both. In a test it runs in the
test's loop; the benchmark runs it as a process of its own (``python -m tests.chain.fault_proxy
PORT``), which reads modes from stdin and prints its port.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import ssl
import struct
import sys
from collections.abc import Coroutine
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol

from tests.stream_server import stop_accepting

__all__ = ["MODES", "FaultProxy"]

_MUTE = logging.getLogger("fault-proxy")  # tests look at what the client logs
_MUTE.disabled = True

MODES = (
    "ok",
    "hang",  # takes requests, never answers
    "reset",  # cuts every connection with RST
    "500",
    "429",
    "garbage",  # answers what is not JSON
    "stale",  # its head stands still from now on
    "slow",  # every answer 300 ms late
    "drip",  # answers come a byte at a time
    "lying",  # claims a head 1,000 blocks ahead
    "other-chain",
    "swallow",  # accepts transactions and never passes them on
    "refuse-batch",
)


class FaultProxy:
    """One provider, as far as a client can tell.

    Args:
        port: the node's HTTP and WebSocket port on loopback.
        tls: serve https and wss with this context.
        host: address to listen on.

    Attributes:
        mode: one of `MODES`; may be changed at any time.
        seen: methods of all requests, in order.
    """

    def __init__(
        self,
        port: int,
        *,
        tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
        listen: int = 0,
    ) -> None:
        self.node_port = port
        self.host = host
        self.seen: list[str] = []
        self.port = listen
        self._tls = tls
        self._mode = "ok"
        self._frozen = ""
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._gate = asyncio.Event()
        self._gate.set()
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    @property
    def http(self) -> str:
        return f"http{'s' if self._tls else ''}://{self.host}:{self.port}"

    @property
    def ws(self) -> str:
        return f"ws{'s' if self._tls else ''}://{self.host}:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._serve, self.host, self.port, ssl=self._tls, backlog=1024
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await stop_accepting(self._server)
        self._server.close()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for _, writer in self._idle:
            writer.transport.abort()
        await asyncio.sleep(0)

    @property
    def mode(self) -> str:
        return self._mode

    async def set(self, mode: str) -> None:
        """Breaks (or mends) from now on."""
        assert mode in MODES, mode
        if mode == "stale" and self._mode != "stale":
            said = await self._ask_node(_request("eth_blockNumber"))
            self._frozen = json.loads(said)["result"]
        self._mode = mode
        if mode in ("hang", "reset"):
            self._gate.clear()
        else:
            self._gate.set()
        if mode == "reset":
            self.cut()

    def cut(self) -> None:
        """Cuts every open connection with RST."""
        for writer in list(self._writers):
            sock = writer.get_extra_info("socket")
            if sock is not None and sock.fileno() >= 0:
                linger = struct.pack("ii", 1, 0)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        self._writers.clear()

    # Serving

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._writers.add(writer)
        if self._mode == "reset":
            self.cut()
            return
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if b"upgrade: websocket" in head.lower():
                    await self._pipe(head, reader, writer)
                    return
                body = await reader.readexactly(_length(head))
                await self._answer(body, writer)
        except (asyncio.IncompleteReadError, OSError, asyncio.CancelledError):
            pass  # asyncio's streams would log a cancelled handler as an error
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _answer(self, body: bytes, writer: asyncio.StreamWriter) -> None:
        mode = self._mode
        if mode == "hang":
            await self._gate.wait()
        asked = json.loads(body)
        items = self._note(asked)
        if mode == "500":
            _write(writer, b"upstream broke", "500 Internal Server Error")
        elif mode == "429":
            _write(writer, b"slow down", "429 Too Many Requests", "retry-after: 1\r\n")
        elif mode == "garbage":
            _write(writer, b"<html>It works!</html>")
        elif invented := self._invented(mode, asked, items):
            _write(writer, invented)
        else:
            said_bytes = self._bend(mode, asked, await self._ask_node(self._aged(mode, body)))
            if mode == "slow":
                await asyncio.sleep(0.3)
            if mode == "drip":
                for at in range(len(said_bytes)):
                    _write_part(writer, said_bytes, at)
                    await asyncio.sleep(0.05)
            else:
                _write(writer, said_bytes)

    def _note(self, asked: Any) -> list[Any]:
        items = asked if isinstance(asked, list) else [asked]
        self.seen += [item["method"] for item in items]
        return items

    def _invented(self, mode: str, asked: Any, items: list[Any]) -> bytes:
        """What is said without asking the node, or nothing."""
        said: dict[str, Any] = {"jsonrpc": "2.0", "id": None}
        if mode == "refuse-batch" and isinstance(asked, list):
            said["error"] = {"code": -32600, "message": "batch requests are not allowed"}
        elif mode == "swallow" and items[0]["method"] == "eth_sendRawTransaction":
            said |= {"id": items[0]["id"], "result": "0x" + "11" * 32}
        else:
            return b""
        return json.dumps(said).encode()

    def _aged(self, mode: str, body: bytes) -> bytes:
        if mode == "stale":
            return body.replace(b'"latest"', b'"%b"' % self._frozen.encode())
        return body

    def _bend(self, mode: str, asked: Any, said: bytes) -> bytes:
        if isinstance(asked, list) or mode not in ("stale", "lying", "other-chain"):
            return said
        answer = json.loads(said)
        method, result = asked["method"], answer.get("result")
        if method == "eth_chainId" and mode == "other-chain":
            answer["result"] = "0x2a"
        elif method == "eth_blockNumber" and mode == "stale":
            answer["result"] = self._frozen
        elif method == "eth_blockNumber" and mode == "lying":
            answer["result"] = hex(int(result, 16) + 1000)
        elif method == "eth_getBlockByNumber" and mode == "lying" and result:
            result["number"] = hex(int(result["number"], 16) + 1000)
        return json.dumps(answer).encode()

    async def _ask_node(self, body: bytes) -> bytes:
        reader, writer = await self._node()
        try:
            _write_request(writer, body)
            head = await reader.readuntil(b"\r\n\r\n")
            said = await reader.readexactly(_length(head))
        except BaseException:
            writer.transport.abort()
            raise
        else:
            self._idle.append((reader, writer))
            return said

    async def _node(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._idle:
            reader, writer = self._idle.pop()
            if not writer.is_closing() and not reader.at_eof():
                return reader, writer
            writer.transport.abort()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.node_port, limit=64 << 20)
        return reader, writer

    # WebSocket

    async def _pipe(
        self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        protocol = ServerProtocol(logger=_MUTE)
        protocol.receive_data(head)
        (request,) = protocol.events_received()
        protocol.send_response(protocol.accept(request))  # type: ignore[arg-type]
        writer.write(b"".join(protocol.data_to_send()))

        async def up(node: ClientConnection) -> None:
            while data := await reader.read(1 << 16):
                protocol.receive_data(data)
                for frame in protocol.events_received():
                    if isinstance(frame, Frame) and frame.opcode is Opcode.TEXT:
                        await self._asked(bytes(frame.data), node, protocol, writer)

        async def down(node: ClientConnection) -> None:
            async for said in node:
                assert isinstance(said, str)
                await self._gate.wait()
                self._say(said.encode(), protocol, writer)

        async with connect(
            f"ws://127.0.0.1:{self.node_port}", ping_interval=None, max_size=None, logger=_MUTE
        ) as node:
            both = [asyncio.create_task(up(node)), asyncio.create_task(down(node))]
            try:
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in both:
                    task.cancel()
                await asyncio.gather(*both, return_exceptions=True)

    async def _asked(
        self,
        body: bytes,
        node: ClientConnection,
        protocol: ServerProtocol,
        writer: asyncio.StreamWriter,
    ) -> None:
        mode = self._mode
        if mode == "hang":
            await self._gate.wait()
        asked = json.loads(body)
        items = self._note(asked)
        errors = {
            "500": {"code": -32603, "message": "internal error"},
            "429": {"code": -32005, "message": "rate limit exceeded"},
        }
        if mode in errors:
            refused = [{"jsonrpc": "2.0", "id": i["id"], "error": errors[mode]} for i in items]
            said = refused if isinstance(asked, list) else refused[0]
            self._say(json.dumps(said).encode(), protocol, writer)
        elif mode == "garbage":
            self._say(b"<html>It works!</html>", protocol, writer)
        elif invented := self._invented(mode, asked, items):
            self._say(invented, protocol, writer)
        elif mode in ("ok", "reset"):
            await node.send(body, text=True)
        else:
            self._later(self._bent(mode, asked, body, protocol, writer))

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _bent(
        self,
        mode: str,
        asked: Any,
        body: bytes,
        protocol: ServerProtocol,
        writer: asyncio.StreamWriter,
    ) -> None:
        """An answer by way of the node's HTTP, bent."""
        said = self._bend(mode, asked, await self._ask_node(self._aged(mode, body)))
        if mode == "slow":
            await asyncio.sleep(0.3)
        if mode == "drip":
            for at in range(len(said)):
                part, last = said[at : at + 1], at + 1 == len(said)
                if at == 0:
                    protocol.send_text(part, fin=last)
                else:
                    protocol.send_continuation(part, fin=last)
                writer.write(b"".join(protocol.data_to_send()))
                await asyncio.sleep(0.05)
        else:
            self._say(said, protocol, writer)

    @staticmethod
    def _say(said: bytes, protocol: ServerProtocol, writer: asyncio.StreamWriter) -> None:
        protocol.send_text(said)
        writer.write(b"".join(protocol.data_to_send()))


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


def _request(method: str) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": []}).encode()


def _write_request(writer: asyncio.StreamWriter, body: bytes) -> None:
    head = "POST / HTTP/1.1\r\nhost: node\r\ncontent-type: application/json\r\ncontent-length: "
    writer.write(f"{head}{len(body)}\r\n\r\n".encode() + body)


def _write(
    writer: asyncio.StreamWriter, body: bytes, status: str = "200 OK", more: str = ""
) -> None:
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{more}content-length: "
    writer.write(f"{head}{len(body)}\r\n\r\n".encode() + body)


def _write_part(writer: asyncio.StreamWriter, body: bytes, at: int) -> None:
    if at == 0:
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n\r\n".encode())
    writer.write(body[at : at + 1])


async def _main(port: int) -> None:
    loop = asyncio.get_running_loop()
    async with FaultProxy(port) as proxy:
        print(proxy.port, flush=True)
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            await proxy.set(line.strip())
            print("set", flush=True)


if __name__ == "__main__":
    try:
        import uvloop

        uvloop.run(_main(int(sys.argv[1])))
    except KeyboardInterrupt:
        pass
