"""A node for tests that announces transactions by WebSocket, and behaves as badly as it is told.

    with Node(end, [reset]) as node:            # the first connection is reset; later ones are good
        node.announce(transactions)

The frames are those of `websockets`. A *conduct* is a function that plays one connection.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import struct
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from websockets.http11 import Request
from websockets.server import ServerProtocol

from tests.unit.txjson_texts import notification

__all__ = ["Conduct", "Node", "Peer", "follow", "framed", "head", "honest", "said"]

_POOL = 2000


def framed(payload: bytes, opcode: int = 1, *, last: bool = True) -> bytes:
    """One frame as servers send it."""
    return head(len(payload), opcode, last=last) + payload


def head(size: int, opcode: int = 1, *, last: bool = True) -> bytes:
    """The header of a frame of `size` bytes."""
    first = opcode | (0x80 if last else 0)
    if size < 126:
        return bytes([first, size])
    if size < 65536:
        return struct.pack("!BBH", first, 126, size)
    return struct.pack("!BBQ", first, 127, size)


def said(result: Any) -> bytes:
    """The frame that announces a transaction."""
    return framed(json.dumps(notification(result), separators=(",", ":")).encode())


class Peer:
    """One connection, from the server's side."""

    def __init__(self, node: Node, sock: socket.socket) -> None:
        self.node = node
        self.sock = sock
        self._protocol = ServerProtocol(max_size=None)

    def secure(self) -> None:
        """TLS, where the node has it."""
        if self.node.context is not None:
            self.sock = self.node.context.wrap_socket(self.sock, server_side=True)

    def take(self) -> bool:
        """Reads what there is, and answers it; whether a subscription was among it."""
        data = self.sock.recv(65536)
        if not data:
            raise EOFError
        self._protocol.receive_data(data)
        subscribed = False
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                self._protocol.send_response(self._protocol.accept(event))
                continue
            if event.data.startswith((b"{", b"[")):
                request = json.loads(event.data)
                subscribed |= request["method"] == "eth_subscribe"
                answer = {"jsonrpc": "2.0", "id": request["id"], **self.node.result(request)}
                self._protocol.send_text(json.dumps(answer).encode())
        self.say(b"".join(self._protocol.data_to_send()))
        return subscribed

    def say(self, data: bytes) -> None:
        """Sends all of it, however long the other side takes."""
        before = self.sock.gettimeout()
        self.sock.settimeout(20)
        self.sock.sendall(data)
        self.sock.settimeout(before)

    def subscribed(self) -> None:
        """Plays a good node up to the subscription."""
        self.secure()
        while not self.take():
            pass

    def hold(self) -> None:
        """Reads until the other side is gone, and says nothing."""
        while self.sock.recv(65536):
            pass

    def reset(self) -> None:
        """Ends it by RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.end()

    def end(self) -> None:
        """Ends it without a word, and wakes up whoever waits for it."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.sock, socket.SHUT_RD)
        self.sock.close()


Conduct = Callable[[Peer], None]


def honest(peer: Peer) -> None:
    """Announces what the node announces from the subscription on, and answers questions."""
    peer.subscribed()
    follow(peer)


def follow(peer: Peer) -> None:
    """What `honest` does from the subscription on."""
    node = peer.node
    with node.following() as news:
        peer.sock.settimeout(0.005)
        while not node.over:
            with contextlib.suppress(TimeoutError):
                peer.take()
            while news:
                peer.say(news.popleft())


class Node:
    """Listens on a port of its own in `end`.

    Args:
        end: a namespace, or anything with `ip4` that is entered by ``with``.
        conducts: of the first connections, in order; those after them are honest.
        context: for TLS.
        address: by default the namespace's.

    Attributes:
        announced: how many so far.
        connections: taken so far.
        refusing: subscriptions that are still to be refused.
    """

    def __init__(
        self,
        end: Any,
        conducts: Sequence[Conduct] = (),
        *,
        context: ssl.SSLContext | None = None,
        address: str | None = None,
    ) -> None:
        self.context = context
        self.over = False
        self.announced = 0
        self.connections = 0
        self.refusing = 0
        self.head = 1
        self._conducts = list(conducts)
        self._pool: deque[dict[str, Any]] = deque(maxlen=_POOL)
        self._followers: list[deque[bytes]] = []
        self._lock = threading.Lock()
        with end:
            self._listener = socket.create_server((address or end.ip4, 0), backlog=16)
        scheme = "wss" if context else "ws"
        where = self._listener.getsockname()
        self.url = f"{scheme}://{where[0]}:{where[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._peers: list[Peer] = []

    def announce(self, transactions: Sequence[dict[str, Any]]) -> None:
        """Tells whoever is subscribed, and has them in its pool from now on."""
        for tx in transactions:
            frame = said(tx)
            with self._lock:
                self._pool.append(tx)
                self.announced += 1
                for follower in self._followers:
                    follower.append(frame)

    @contextlib.contextmanager
    def following(self) -> Any:
        """What is announced meanwhile."""
        news: deque[bytes] = deque()
        with self._lock:
            self._followers.append(news)
        try:
            yield news
        finally:
            with self._lock:
                self._followers = [other for other in self._followers if other is not news]

    @property
    def followers(self) -> int:
        """Honest connections that are subscribed now."""
        return len(self._followers)

    def result(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to a question."""
        match request["method"]:
            case "eth_subscribe" if self.refusing:
                self.refusing -= 1
                return {"error": {"code": -32000, "message": "not today"}}
            case "eth_subscribe":
                return {"result": "0x9ce59a13059e417087c02d3236a0b1cc"}
            case "eth_blockNumber":
                return {"result": hex(self.head)}
            case "txpool_content":
                with self._lock:
                    pending = {str(n): tx for n, tx in enumerate(self._pool)}
                return {"result": {"pending": {"0x" + "11" * 20: pending}, "queued": {}}}
        return {"error": {"code": -32601, "message": "not here"}}

    def interrupt(self, how: Callable[[Peer], None] = Peer.reset) -> None:
        """Does something to every connection there is."""
        for peer in list(self._peers):
            how(peer)

    def _accept(self) -> None:
        self._listener.settimeout(0.02)
        while not self.over:
            with contextlib.suppress(TimeoutError):
                sock, _ = self._listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.settimeout(20)
                conduct = self._conducts.pop(0) if self._conducts else honest
                self.connections += 1
                peer = Peer(self, sock)
                self._peers.append(peer)
                thread = threading.Thread(target=self._play, args=(conduct, peer))
                self._threads = [t for t in self._threads if t.is_alive()] + [thread]
                thread.start()

    def _play(self, conduct: Conduct, peer: Peer) -> None:
        try:
            with contextlib.suppress(OSError, EOFError):
                conduct(peer)
        finally:
            self._peers.remove(peer)
            peer.sock.close()

    def __enter__(self) -> Node:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over = True
        self._threads[0].join()
        self.interrupt(Peer.end)
        for thread in self._threads:
            thread.join(10)
        self._listener.close()
