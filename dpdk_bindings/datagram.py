"""Datagram endpoints: UDP payloads in and out, the same over kernel sockets and over a Port.

    with open_datagram("kernel", channels=[Channel("10.0.0.1", 5000)]) as endpoint:
        peer = endpoint.add_peer("10.0.0.2", 6000)
        while not (burst := endpoint.recv()):
            pass
        with burst:
            endpoint.send(peer, burst[0])
        endpoint.flush()

An endpoint belongs to one thread and never blocks. Channels (where it receives) and peers (where
it sends) are numbered from 0 in the order they were given.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import TracebackType
from typing import Any, NoReturn, Protocol

from dpdk_bindings._native import ffi, lib
from dpdk_bindings.datagrams import Datagrams
from dpdk_bindings.errors import BindingsError
from dpdk_bindings.kernel_endpoint import KernelBackend
from dpdk_bindings.sockets import Channel

__all__ = ["Channel", "DatagramEndpoint", "Datagrams", "open_datagram"]


class Backend(Protocol):
    """What differs between kernel sockets and a Port, out of the way of datagrams."""

    channels: list[Channel]  # with the ports that port 0 became
    ref: Any  # struct dpb_datagram_ref *, and keeps alive what it points to
    counters: Any  # struct dpb_endpoint_counters *

    def hold(self, payload: Any) -> None:
        """Does nothing; a reference to it keeps alive the memory that payloads lie in."""

    def add_peer(self, address: str, port: int, interface: str | None, ttl: int | None) -> int:
        """Prepares a destination and returns its number."""

    def housekeeping(self) -> None:
        """Follows what the kernel has said since the last call; never blocks."""

    def losses(self) -> dict[str, int]:
        """Counters that only this backend has, by cause."""

    def samples(self) -> dict[str, bytes]:
        """The last bad bytes of each cause seen."""

    def describe(self) -> dict[str, Any]:
        """What was chosen at open."""

    def close(self) -> None:
        """Closes what the kernel holds; the memory stays until the last burst is gone."""


class DatagramEndpoint:
    """UDP payloads in, UDP payloads out. Made by :func:`open_datagram`.

    Attributes:
        leaked: datagrams whose burst was dropped without being released.
    """

    def __init__(self, backend: Backend, burst: int) -> None:
        self._backend = backend
        self._burst = burst
        self._ref = backend.ref
        self._spare: list[Any] = []
        self._array = self._descriptors()
        self._empty = Datagrams(self, self._array, 0)
        self._peers = 0
        self.leaked = 0
        # A direct call of a bound native function costs half of one through `lib.`.
        self._recv: Any = lib.dpb_datagram_recv
        self._send: Any = lib.dpb_datagram_send
        self._flush: Any = lib.dpb_datagram_flush

    @property
    def channels(self) -> Sequence[Channel]:
        """Where this endpoint receives, with the port that a port of 0 became."""
        return tuple(self._backend.channels)

    @property
    def ref(self) -> Any:
        """``struct dpb_datagram_ref *`` for native loops (dpdk_bindings/datagram.h).

        Valid until :meth:`close`; keep the endpoint alive while using it.
        """
        if self._recv is _closed:
            _closed()
        return self._ref

    def recv(self) -> Datagrams:
        """What has arrived: up to `burst` datagrams, perhaps none. Release what is not empty."""
        n = self._recv(self._ref, self._array, self._burst)
        if n < 1:
            if n:
                raise BindingsError(f"receiving failed: {os.strerror(-n)}")
            return self._empty
        burst = Datagrams(self, self._array, n)
        self._array = self._spare.pop() if self._spare else self._descriptors()
        return burst

    def send(self, peer: int, payload: bytes | bytearray | memoryview) -> bool:
        """Queues a copy of `payload` to peer number `peer`; :meth:`flush` sends it.

        Returns:
            False if there is no room or no route yet; ``stats()`` says which.

        Raises:
            BindingsError: no such peer, or an empty payload.
        """
        if self._send(self._ref, peer, ffi.from_buffer("uint8_t[]", payload), len(payload)):
            return True
        if not 0 <= peer < self._peers:
            raise BindingsError(f"there is no peer {peer}: {self._peers} were added")
        if not len(payload):
            raise BindingsError("an empty payload cannot be sent")
        return False

    def flush(self) -> bool:
        """Sends what was queued; True if all of it left.

        What finds no room below stays queued for a later flush and is counted as tx_blocked.
        """
        return self._flush(self._ref) == 0  # type: ignore[no-any-return]

    def add_peer(
        self,
        address: str,
        port: int,
        *,
        interface: str | None = None,
        ttl: int | None = None,
    ) -> int:
        """Prepares a destination; the number returned is what :meth:`send` wants.

        Args:
            address: unicast address or multicast group, IPv4 or IPv6.
            port: UDP port there.
            interface: for a group or a link-local address, where it is.
            ttl: TTL or hop limit; by default the kernel's for an address, 1 for a group.
        """
        if self._recv is _closed:
            _closed()
        number = self._backend.add_peer(address, port, interface, ttl)
        self._peers = number + 1
        return number

    def housekeeping(self) -> None:
        """Follows changed routes and neighbours. Call it a few times a second; never blocks."""
        self._backend.housekeeping()

    def stats(self) -> dict[str, int]:
        """Every counter by name; what was lost, by cause."""
        counters = self._backend.counters
        common = {name: getattr(counters, name) for name, _ in ffi.typeof(counters).item.fields}
        return common | {"leaked": self.leaked} | self._backend.losses()

    def samples(self) -> dict[str, bytes]:
        """The first bytes of the last frame or datagram rejected, for each cause seen."""
        return self._backend.samples()

    def describe(self) -> dict[str, Any]:
        """What was chosen at open: backend, clock, buffers."""
        return self._backend.describe()

    def close(self) -> None:
        """Closes the endpoint; bursts that are out stay readable until released."""
        if self._recv is not _closed:
            self._recv = self._send = self._flush = _closed
            self._backend.close()

    def __enter__(self) -> DatagramEndpoint:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def payload_view(self, datagram: Any) -> memoryview:
        """The payload of descriptor `datagram` in place, read only (for :class:`Datagrams`)."""
        held = ffi.gc(datagram.data, self._backend.hold)
        return memoryview(ffi.buffer(held, datagram.len)).toreadonly()

    def take_back(self, array: Any, n: int) -> None:
        """Gives `n` datagrams back to the native side (for :class:`Datagrams`)."""
        lib.dpb_datagram_release(self._ref, array, n)
        self._spare.append(array)

    def _descriptors(self) -> Any:
        return ffi.new("struct dpb_datagram[]", self._burst)


def _closed(*_args: object) -> NoReturn:
    raise BindingsError("this endpoint is closed")


def open_datagram(
    spec: str,
    *,
    channels: Sequence[Channel],
    burst: int = 64,
    buffers: int = 1024,
    payload_bytes: int = 9216,
    receive_buffer_bytes: int = 8 << 20,
    clock: str = "mono",
) -> DatagramEndpoint:
    """Opens a datagram endpoint.

    Args:
        spec: ``"kernel"``: kernel sockets, on whatever interfaces the channels imply.
        channels: where to receive; none for an endpoint that only sends.
        burst: most datagrams that one :meth:`DatagramEndpoint.recv` brings.
        buffers: receive buffers, so the most datagrams that can be held at once (kernel).
        payload_bytes: longest payload received or sent (kernel).
        receive_buffer_bytes: the kernel's own queue of each channel (kernel; without CAP_NET_ADMIN
            limited by net.core.rmem_max, see ``describe()``).
        clock: ``"mono"``, CLOCK_MONOTONIC read when the datagrams are taken from the kernel, or
            ``"real"``, CLOCK_REALTIME stamped by the kernel when they came (kernel).
    """
    if spec == "kernel":
        backend = KernelBackend(
            channels,
            buffers=buffers,
            payload_bytes=payload_bytes,
            receive_buffer_bytes=receive_buffer_bytes,
            clock=clock,
        )
    else:
        raise BindingsError(f"datagram backend {spec!r} is not known", hint='there is "kernel"')
    return DatagramEndpoint(backend, burst)
