"""Stream endpoints: TCP connections, the same over kernel sockets and over a Port.

    with open_stream("kernel") as endpoint:
        node = endpoint.connect("10.0.0.2", 8546)
        buffer = bytearray(1 << 16)
        while node.state is StreamState.CONNECTING:
            endpoint.poll()
        node.send(b"hello")
        while (got := node.recv_into(buffer)) >= 0:
            use(memoryview(buffer)[:got])
            endpoint.poll()
        print(node.why)

An endpoint, with its connections, belongs to one thread and never blocks. What the network does to
a connection is a state, never an exception.
"""

from __future__ import annotations

import os
from enum import IntEnum
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from dpdk_bindings._native import ffi, lib
from dpdk_bindings._stream import NativeStream, NativeStreams
from dpdk_bindings.errors import BindingsError
from dpdk_bindings.kernel_stream import KernelStreams
from dpdk_bindings.sockets import parse_address

if TYPE_CHECKING:
    from dpdk_bindings.port import Port

__all__ = ["Connection", "StreamEndpoint", "StreamState", "open_stream"]


class StreamState(IntEnum):
    """Where a connection is in its life; ``enum dpb_stream_state``."""

    CONNECTING = lib.DPB_STREAM_CONNECTING
    OPEN = lib.DPB_STREAM_OPEN
    ENDED = lib.DPB_STREAM_ENDED
    """The peer has sent its last byte and it was given out; bytes can still be sent."""
    FAILED = lib.DPB_STREAM_FAILED


_STATES = tuple(StreamState)


class Backend(Protocol):
    """What differs between kernel sockets and a Port, out of the way of bytes."""

    ref: Any  # struct dpb_stream_ref *

    def connect(
        self,
        address: str,
        port: int,
        source: str | None,
        interface: str | None,
        timeout_ms: int,
        tls: bool,
    ) -> int:
        """Starts a connection; the address of its ``struct dpb_stream``."""

    def close_stream(self, stream: int, abort: bool) -> None:
        """Ends a connection, by FIN or by reset; the address means nothing afterwards."""

    def local(self, stream: int) -> tuple[str, int]:
        """The address and port that a connection has here."""

    def explain(self, stream: int) -> str:
        """What this backend knows about why a connection failed, or an empty string."""

    def housekeeping(self) -> None:
        """Follows what the kernel has said since the last call; never blocks."""

    def descriptors(self) -> list[int]:
        """What becomes readable when a connection has something; none where that is not known."""

    def stats(self) -> dict[str, int]:
        """Counters by name."""

    def samples(self) -> dict[str, bytes]:
        """The last bad bytes of each cause seen."""

    def describe(self) -> dict[str, Any]:
        """What was chosen at open."""

    def close(self) -> None:
        """Ends every connection, and what was opened."""


class Connection(NativeStream):
    """A TCP connection. Made by :meth:`StreamEndpoint.connect`.

    ``recv_into(buffer, offset)``, ``send(bytes, offset)`` and ``shutdown()`` are those of
    :class:`~dpdk_bindings._stream.NativeStream`, one native call each.

    Attributes:
        peer: address and port of the other side.
    """

    def __init__(self, ref: int, stream: int, backend: Backend, peer: tuple[str, int]) -> None:
        self.local = backend.local(stream)  # which knows its streams: no other is touched
        super().__init__(ref, stream, backend)
        self._backend = backend
        self._last_words = ""
        self.peer = peer

    @property
    def state(self) -> StreamState:
        """Where the connection is in its life; after :meth:`close`, where it was."""
        return _STATES[self._state]

    @property
    def why(self) -> str:
        """Why a failed connection failed, in words; an empty string for any other."""
        if self.state is not StreamState.FAILED:
            return ""
        known = self._last_words if self.closed else self._backend.explain(self.address)
        said = os.strerror(self.error)
        return f"{said} ({known})" if known else said

    def close(self) -> None:
        """Ends the connection: what was taken is still sent, then FIN. Safe twice.

        As with a kernel socket the peer gets a reset instead if bytes that it sent were not read.
        """
        self._finish(abort=False)

    def abort(self) -> None:
        """Ends the connection with a reset; what has not left is dropped. Safe twice."""
        self._finish(abort=True)

    def _finish(self, *, abort: bool) -> None:
        if self.closed:
            return
        stream = self.address
        self._last_words = self._backend.explain(stream)
        self._end()
        self._backend.close_stream(stream, abort)


class StreamEndpoint(NativeStreams):
    """TCP connections of one thread. Made by :func:`open_stream`."""

    def __init__(self, backend: Backend) -> None:
        self._ref = int(ffi.cast("uintptr_t", backend.ref))
        super().__init__(self._ref, backend)
        self._backend = backend
        self._connections: list[Connection] = []

    @property
    def ref(self) -> Any:
        """``struct dpb_stream_ref *`` for native loops (dpdk_bindings/stream.h).

        Valid until :meth:`close`; keep the endpoint alive while using it.
        """
        self._must_be_open()
        return ffi.cast("struct dpb_stream_ref *", self._ref)

    def connect(
        self,
        address: str,
        port: int,
        *,
        source: str | None = None,
        interface: str | None = None,
        timeout_ms: int = 5000,
        tls: bool = False,
    ) -> Connection:
        """Starts a connection, which :meth:`poll` then brings about.

        Args:
            address: IPv4 or IPv6, in numbers: names are not looked up here.
            port: TCP port there.
            source: local address to connect from; by default the kernel's choice.
            interface: for a link-local address, where it is.
            timeout_ms: how long to try; then the connection has failed with ETIMEDOUT.
            tls: whether the caller will encrypt what it sends and authenticate what it gets. Over
                a port plain text is refused but to peers on the same link (see README.md).

        Raises:
            BindingsError: it cannot even be tried: no route, a bad address.
        """
        self._must_be_open()
        parse_address(address)
        if not 0 < port < 65536:
            raise BindingsError(f"port {port}", hint="a port is a whole number from 1 to 65535")
        stream = self._backend.connect(address, port, source, interface, timeout_ms, tls)
        connection = Connection(self._ref, stream, self._backend, (address, port))
        self._connections = [c for c in self._connections if not c.closed]
        self._connections.append(connection)
        return connection

    def housekeeping(self) -> None:
        """Follows changed routes and neighbours. Call it a few times a second; never blocks."""
        self._must_be_open()
        self._backend.housekeeping()

    def descriptors(self) -> list[int]:
        """File descriptors to sleep on: one is readable when a connection has something.

        Over a port there are none, and whoever sleeps misses packets: poll instead.
        """
        return self._backend.descriptors()

    def stats(self) -> dict[str, int]:
        """Every counter by name; what was not shown, by cause."""
        return self._backend.stats()

    def samples(self) -> dict[str, bytes]:
        """The first bytes of the last frame rejected, for each cause seen."""
        return self._backend.samples()

    def describe(self) -> dict[str, Any]:
        """What was chosen at open."""
        return self._backend.describe()

    def close(self) -> None:
        """Closes every connection, then the endpoint. Safe twice."""
        if self.closed:
            return
        for connection in self._connections:
            connection.close()
        self._connections = []
        self._end()
        self._backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _must_be_open(self) -> None:
        if self.closed:
            raise BindingsError("this endpoint was closed")


def open_stream(
    via: str | Port, *, rx_checksum: str = "auto", plain_beyond_link: bool = False
) -> StreamEndpoint:
    """Opens a stream endpoint.

    Args:
        via: ``"kernel"`` for kernel sockets; or the address of a port
            (:func:`~dpdk_bindings.port.open_port`), which the endpoint opens, has to itself, and
            closes; or a port, like one of :class:`~dpdk_bindings.shared_port.SharedPort`, which it
            closes too. TCP is then lwIP's.
        rx_checksum: of a port: ``"verify"`` or ``"trust"`` segments whose checksum a sender on the
            same host left unfinished, or ``"auto"``, which trusts a veth interface only. Wrong
            checksums are refused always.
        plain_beyond_link: of a port: allow plain text to peers behind a router, where README.md
            says it is not safe.

    Raises:
        BindingsError: with what was wrong and what to do.
    """
    if via == "kernel":
        return StreamEndpoint(KernelStreams())
    # Kernel sockets must work where ports, netlink and lwIP do not.
    from dpdk_bindings.port import opened_port
    from dpdk_bindings.port_stream import PortStreams

    port = opened_port(via, "stream")
    return StreamEndpoint(
        PortStreams(port, rx_checksum=rx_checksum, plain_beyond_link=plain_beyond_link)
    )
