"""A TCP server for tests in asyncio that leaves no connection behind.

asyncio's own server forgets what it accepted in the turn of the loop in which it is closed: making
the transport fails then (``Server._attach`` asserts that the server is open), nobody closes it, and
some later test's garbage collection finds it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from websockets.asyncio.server import Server as WebSocketServer

__all__ = ["StreamServer", "stop_accepting"]

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def stop_accepting(server: asyncio.Server | WebSocketServer) -> None:
    """Accepts nothing more, and waits until what was accepted has its handler; then close it."""
    loop = asyncio.get_running_loop()
    for sock in server.sockets:
        loop.remove_reader(sock.fileno())
    for _ in range(4):  # taken; its transport is made; it is handed over; its handler begins
        await asyncio.sleep(0)


class StreamServer:
    """Calls `serve` for each connection, in a task of its own, and aborts the connection after it.

    `serve` may end by itself, with an `OSError` or `asyncio.IncompleteReadError` (the client left).
    """

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    @property
    def connections(self) -> int:
        return len(self._open)

    async def listen(self, port: int = 0) -> int:
        """Listens on loopback; returns the port. After `close()` it may be called again."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", port)
        taken: int = self._server.sockets[0].getsockname()[1]
        return taken

    def cut(self) -> None:
        """Aborts all connections; it goes on listening."""
        for writer in self._open.values():
            writer.transport.abort()

    async def close(self) -> None:
        """Stops listening and ends all connections, those too that are being accepted."""
        await stop_accepting(self._server)
        self._server.close()
        self.cut()
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._run(reader, writer))
        self._open[task] = writer
        task.add_done_callback(self._ended)

    async def _run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._serve(reader, writer)
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.transport.abort()

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._open[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            told = {"message": "a test's server failed", "exception": error}
            task.get_loop().call_exception_handler(told)
