"""A wire with faults: frames carried between two veth ends by a process of ours.

    with BadWire(loss=0.01) as wire:
        wire.a, wire.b      # namespaces on the same subnet, with the relay between them

Two pairs are made, their inner ends lose their addresses, and every frame that arrives on one is
sent out of the other, or lost, doubled, or held back behind later ones. This stands in for netem,
which not every kernel has.
"""

from __future__ import annotations

import contextlib
import random
import select
import socket
from types import TracebackType

from appliance.lab import Child, Namespace, Pair

__all__ = ["BadWire"]

_SO_RCVBUFFORCE = 33
_PACKET_OUTGOING = 4
_BATCH = 64


class BadWire:
    """Namespaces `a` (10.55.0.1, fd55::1) and `b` (10.55.0.2, fd55::2) with a relay between them.

    Args:
        loss: share of frames that are lost, in both directions.
        towards_a: share of frames lost on the way to `a`; by default `loss`.
        duplicate: share of frames that arrive twice.
        reorder: share of frames that are overtaken by the next four.
        seed: of all of that.
    """

    def __init__(
        self,
        *,
        loss: float = 0.0,
        towards_a: float | None = None,
        duplicate: float = 0.0,
        reorder: float = 0.0,
        seed: int = 1,
    ) -> None:
        self._faults = (loss, loss if towards_a is None else towards_a, duplicate, reorder, seed)
        self._left, self._right = Pair(), Pair()
        self._relay: Child | None = None

    @property
    def a(self) -> Namespace:
        return self._left.a

    @property
    def b(self) -> Namespace:
        return self._right.b

    def __enter__(self) -> BadWire:
        self._left.__enter__()
        self._right.__enter__()
        inner = self._left.b, self._right.a
        for end in inner:
            end.run("ip", "addr", "flush", "dev", end.interface)
            end.run("ip", "link", "set", end.interface, "promisc", "on")
        sockets = [_tap(end) for end in inner]
        self._relay = self._left.b.start(_carry, *sockets, *self._faults)
        for s in sockets:
            s.close()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._relay is not None:
            self._relay.kill()
        self._right.close()
        self._left.close()


def _tap(end: Namespace) -> socket.socket:
    with end:
        s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))  # ETH_P_ALL
    s.bind((end.interface, 3))
    s.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 32 << 20)
    s.setblocking(False)
    return s


def _carry(
    left: socket.socket,
    right: socket.socket,
    loss: float,
    towards_a: float,
    duplicate: float,
    reorder: float,
    seed: int,
) -> None:
    rng = random.Random(seed)
    ways = {left.fileno(): (left, right, loss), right.fileno(): (right, left, towards_a)}
    held: dict[int, list[tuple[int, bytes]]] = {fd: [] for fd in ways}
    poller = select.poll()
    for fd in ways:
        poller.register(fd, select.POLLIN)
    while True:
        for fd, _ in poller.poll():
            source, to, lost = ways[fd]
            waiting = held[fd]
            for _ in range(_BATCH):
                try:
                    frame, name = source.recvfrom(1 << 16)
                except OSError:  # no more, or an end is down
                    break
                if name[2] == _PACKET_OUTGOING or rng.random() < lost:
                    continue
                if rng.random() < reorder:
                    waiting.append((4, frame))
                    continue
                _send(to, frame)
                if rng.random() < duplicate:
                    _send(to, frame)
                waiting[:] = [(left_of - 1, late) for left_of, late in waiting]
                while waiting and waiting[0][0] <= 0:
                    _send(to, waiting.pop(0)[1])


def _send(to: socket.socket, frame: bytes) -> None:
    with contextlib.suppress(OSError):  # full, or its end is down: then it is lost
        to.send(frame)
