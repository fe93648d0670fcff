"""The servers of ``bench ws``: one that spins, one on uvloop, both over plain TCP and TLS.

The same servers for all clients. They echo; and where the spinning one is asked to (through shared
memory), it sends notifications of pending transactions, noting when each left.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import mmap
import select
import socket
import ssl
import struct
import time
from pathlib import Path
from typing import Any

import uvloop
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosedError
from websockets.server import ServerProtocol

__all__ = ["LIMIT", "Control", "frame", "sleep_on_uvloop", "spin"]

LIMIT = 20_000
"""Notifications in one go."""


class Control:
    """Shared memory between a client and the spinning server.

    Attributes:
        words: ``words[0]`` pauses the server while it is not 0; ``words[1]`` asks for so many
            notifications, ``words[2]`` nanoseconds apart, ``words[3]`` is 1 when they are sent;
            from ``words[8]`` on when each left, CLOCK_MONOTONIC.
    """

    def __init__(self) -> None:
        self._map = mmap.mmap(-1, 8 * (LIMIT + 8))
        self.words = memoryview(self._map).cast("Q")


def frame(payload: bytes) -> bytes:
    """A text frame as servers send it."""
    size = len(payload)
    head = bytes([size]) if size < 126 else struct.pack("!BH", 126, size)
    return b"\x81" + head + payload


class _Peer:
    """One connection of the spinning server, of which each message comes in one piece."""

    def __init__(self, sock: Any) -> None:
        self.sock = sock
        self.open = self.ended = False

    def say(self, data: bytes) -> None:
        while data:
            try:
                data = data[self.sock.send(data) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                continue

    def hear(self) -> bytes:
        """The payload of a message, or b"" for anything else."""
        try:
            data = self.sock.recv(65536)
        except (BlockingIOError, ssl.SSLWantReadError):
            return b""
        except OSError:
            data = b""
        self.ended = not data or (self.open and data[0] == 0x88)
        if self.ended:
            return b""
        if not self.open:
            protocol = ServerProtocol()
            protocol.receive_data(data)
            protocol.send_response(protocol.accept(protocol.events_received()[0]))
            self.say(b"".join(protocol.data_to_send()))
            self.open = True
            return b""
        if data[0] not in (0x81, 0x82):  # web3.py sends JSON as binary
            return b""
        size, at = data[1] & 0x7F, 2
        if size == 126:
            size, at = int.from_bytes(data[2:4], "big"), 4
        mask = int.from_bytes(data[at : at + 4] * (size // 4 + 1), "big")
        body = data[at + 4 : at + 4 + size]
        mask >>= 8 * ((size // 4 + 1) * 4 - size)
        return (int.from_bytes(body, "big") ^ mask).to_bytes(size, "big")


def _context(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


def spin(
    address: str,
    ports: tuple[int, int],
    certificate: tuple[Path, Path],
    control: Control,
    notifications: list[bytes],
) -> None:
    """Echoes for ever, plain on the first port and over TLS on the second."""
    words = control.words
    listeners = {socket.create_server((address, port)): port == ports[1] for port in ports}
    context = _context(certificate)
    poller = select.epoll()
    by_fd: dict[int, Any] = {}
    for listener in listeners:
        poller.register(listener, select.EPOLLIN)
        by_fd[listener.fileno()] = listener
    subscriber: _Peer | None = None
    while True:
        if words[0]:
            time.sleep(0.002)
        for fd, _ in poller.poll(0):
            peer = by_fd[fd]
            if isinstance(peer, socket.socket):
                sock: Any = peer.accept()[0]
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if listeners[peer]:
                    sock = context.wrap_socket(sock, server_side=True)
                sock.setblocking(False)
                by_fd[sock.fileno()] = _Peer(sock)
                poller.register(sock, select.EPOLLIN)
                continue
            payload = peer.hear()
            if peer.ended:
                poller.unregister(fd)
                peer.sock.close()
                del by_fd[fd]
            if payload.startswith(b"{"):
                subscriber = peer
                answer = {"jsonrpc": "2.0", "id": json.loads(payload)["id"], "result": "0xabc"}
                peer.say(frame(json.dumps(answer).encode()))
            elif payload:
                peer.say(frame(payload))
        if words[1] and subscriber is not None:
            _notify(subscriber, words, notifications)


def _notify(peer: _Peer, words: Any, notifications: list[bytes]) -> None:
    count, gap = words[1], words[2]
    words[1] = 0
    due = time.monotonic_ns() + 2_000_000
    for i in range(count):
        while time.monotonic_ns() < due:
            pass
        due += gap
        words[8 + i] = time.monotonic_ns()
        peer.say(notifications[i % len(notifications)])
    words[3] = 1


def sleep_on_uvloop(address: str, ports: tuple[int, int], certificate: tuple[Path, Path]) -> None:
    """Echoes for ever by `websockets` on uvloop."""

    async def echo(connection: Any) -> None:
        with contextlib.suppress(ConnectionClosedError):  # a client that has measured just goes
            async for message in connection:
                await connection.send(message)

    async def run() -> None:
        how: dict[str, Any] = {"compression": None, "ping_interval": None}
        async with (
            serve(echo, address, ports[0], **how),
            serve(echo, address, ports[1], ssl=_context(certificate), **how),
        ):
            await asyncio.get_running_loop().create_future()

    uvloop.run(run())
