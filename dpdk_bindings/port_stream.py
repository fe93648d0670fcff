"""The stream endpoint's backend over a Port; lwip/stream_lwip.h moves the bytes.

The kernel keeps its part: a bound socket holds each connection's local port, its tables say where
peers are. Only the flows of the connections leave the kernel's path.
"""

from __future__ import annotations

import socket
import time
from typing import Any

from dpdk_bindings._c import address_of, fields
from dpdk_bindings.errors import BindingsError
from dpdk_bindings.port import FLOW_NONE, Port
from dpdk_bindings.port_endpoint import choose_checksum
from dpdk_bindings.routing import Destination, Router
from dpdk_bindings.sockets import parse_address

try:
    from dpdk_bindings._lwip import ffi, lib
except ImportError as missing:
    raise BindingsError(
        f"TCP over a port needs lwIP, and it is not there: {missing}",
        hint="install liblwip-dev and build anew (BAREWIRE_LWIP=require insists); "
        "via kernel sockets works without",
    ) from missing

__all__ = ["PortStreams"]

_REASONS = {
    value: "rx_" + name.removeprefix("DPB_REJECT_").lower()
    for value, name in ffi.typeof("enum dpb_reject").elements.items()
    if value not in (lib.DPB_REJECT_NONE, lib.DPB_REJECTS) and "UDP" not in name
}
_TROUBLE = {
    lib.DPB_STREAM_LWIP_MEMORY: "out of memory",
    lib.DPB_STREAM_LWIP_THREAD: "another thread of this process has one: lwIP is one stack, "
    "of one thread",
    lib.DPB_STREAM_LWIP_FORKED: "this process was forked from one that has one",
}
_TTL = 64
_GOOD_BYE_S = 0.2


class PortStreams:
    """TCP over frames: lwIP, routes, and the kernel's part of it."""

    def __init__(self, port: Port, *, rx_checksum: str, plain_beyond_link: bool) -> None:
        self._port = port
        self._connections: dict[int, _Connection] = {}
        self._leaving: dict[int, _Connection] = {}
        self._plain_beyond_link = plain_beyond_link
        self._opened = 0
        self._last_stats: dict[str, int] = {}
        self._native: Any = None
        about = port.info()
        interface = about.get("interface")
        if not interface:
            port.close()
            raise BindingsError(
                f"no connection can be made over {port.address}", hint="a capture does not answer"
            )
        self._router = Router(interface, about["longest_tx"])
        self._rx_checksum = rx_checksum
        try:
            self._rx_checksum = choose_checksum(rx_checksum, about.get("driver", ""))
            self._native = _open(port, self._rx_checksum)
        except BaseException:
            self.close()
            raise
        self.ref: Any = ffi.new("struct dpb_stream_ref *")
        lib.dpb_stream_lwip_ref(self._native, self.ref)
        self._counters = lib.dpb_stream_lwip_counters(self._native)

    def connect(
        self,
        address: str,
        port: int,
        source: str | None,
        interface: str | None,
        timeout_ms: int,
        tls: bool,
    ) -> int:
        """See :class:`~dpdk_bindings.stream.Backend`."""
        deadline_mono_ns = time.monotonic_ns() + timeout_ms * 1_000_000
        ip = parse_address(address)
        if interface not in (None, self._router.interface):
            raise BindingsError(
                f"peer {address} names interface {interface!r}, but this endpoint sends by "
                f"{self._port.address}"
            )
        number = self._router.add(ip, parse_address(source) if source else None)
        way = self._router[number]
        if not (tls or self._plain_beyond_link or way.next_hop == ip):
            raise BindingsError(
                f"plain text to {address} by {way.next_hop} is refused: this TCP stack takes "
                "bytes from whoever guesses a sequence number, without Linux's further checks",
                hint="use TLS, or kernel sockets, or insist (plain_beyond_link)",
            )
        connection = _Connection(number, way, port)
        try:
            # Before the SYN leaves, or the kernel would answer its answer.
            connection.flow = self._port.add_flow(
                str(connection.source), connection.port, protocol="tcp", remote=(address, port)
            )
            stream = self._start(connection, way, deadline_mono_ns)
        except BaseException:
            self._give_back(connection)
            raise
        self._opened += 1
        self._connections[stream] = connection
        self._apply(stream, connection)
        return stream

    def _start(self, connection: _Connection, way: Destination, deadline_mono_ns: int) -> int:
        stream = lib.dpb_stream_lwip_connect(
            self._native, connection.route(way), connection.flow, deadline_mono_ns
        )
        if not stream:
            raise BindingsError(
                f"cannot connect to {way.address}: a process has at most 250 connections over "
                "ports, those not yet quite closed included"
            )
        return address_of(stream)

    def _apply(self, stream: int, connection: _Connection) -> None:
        """Hands what the router knows of a connection's way to the native side."""
        way = self._router[connection.destination]
        lib.dpb_stream_lwip_route(_face(stream), connection.route(way) if way.ready else ffi.NULL)

    def close_stream(self, stream: int, abort: bool) -> None:
        """See :class:`~dpdk_bindings.stream.Backend`."""
        self._leaving[stream] = self._connections.pop(stream)
        lib.dpb_stream_lwip_end(_face(stream), abort)
        self._forget_gone()

    def _forget_gone(self) -> bool:
        """Gives back what ended connections held; whether any still has something to say."""
        talking = False
        for stream in list(self._leaving):
            match lib.dpb_stream_lwip_leaving(_face(stream)):
                case lib.DPB_STREAM_LWIP_GONE:
                    self._give_back(self._leaving.pop(stream))
                case lib.DPB_STREAM_LWIP_TALKING:
                    talking = True
        return talking

    def _give_back(self, connection: _Connection) -> None:
        if connection.flow != FLOW_NONE:
            self._port.remove_flow(connection.flow)
        connection.reserved.close()

    def local(self, stream: int) -> tuple[str, int]:
        """See :class:`~dpdk_bindings.stream.Backend`."""
        connection = self._connections[stream]
        return str(connection.source), connection.port

    def explain(self, stream: int) -> str:
        """What stood in the way: an unresolved next hop, unfinished checksums, frames too long."""
        way = self._router[self._connections[stream].destination]
        if not way.ready:
            return way.trouble
        if self._port.trouble:
            return self._port.trouble
        stats = self.stats()
        unfinished = stats["rx_tcp_checksum_unfinished"]
        if unfinished:
            return (
                f"{unfinished} segments came with unfinished checksums, as virtual interfaces "
                "leave them: `ethtool -K IFACE tx off` at the sender, or rx_checksum=trust"
            )
        dropped = stats.get("port_kernel_rx_dropped", 0) + stats.get("port_rx_too_long", 0)
        if dropped:
            return (
                f"{dropped} frames were too long to be taken: `ethtool -K IFACE tso off gso off` "
                "at a virtual sender, `ethtool -K IFACE gro off lro off` here"
            )
        return ""

    def housekeeping(self) -> None:
        """Follows routes and neighbours; gives back what connections that have ended held."""
        if not self._router.gone:
            self._port.housekeeping()
        changed = self._router.poll()
        for known in (self._connections, self._leaving) if changed else ():
            for stream, connection in known.items():
                if connection.destination in changed:
                    self._apply(stream, connection)
        self._forget_gone()

    def descriptors(self) -> list[int]:
        """None: a port is polled."""
        return []

    def stats(self) -> dict[str, int]:
        """Connections, segments, frames not shown by cause, and the port's own counters."""
        if self._native is None:
            return self._last_stats
        counts = {
            "opened": self._opened,
            "connections": len(self._connections),
            "leaving": len(self._leaving),
        }
        rejected = {
            name: lib.dpb_stream_lwip_rejected(self._native, value)
            for value, name in _REASONS.items()
        }
        below = {f"port_{name}": value for name, value in self._port.stats().items()}
        return counts | fields(self._counters) | rejected | below

    def samples(self) -> dict[str, bytes]:
        """The first bytes of the last frame rejected for each cause."""
        samples = {}
        for value, name in _REASONS.items() if self._native is not None else ():
            sample = lib.dpb_stream_lwip_sample(self._native, value)
            if sample.len:
                samples[name] = bytes(ffi.buffer(sample.bytes, sample.kept))
        return samples

    def describe(self) -> dict[str, Any]:
        """Checksum policy, the way of each connection, and the port."""
        about: dict[str, Any] = {
            "backend": str(self._port.address),
            "stack": "lwIP",
            "rx_checksum": self._rx_checksum,
            "plain_beyond_link": self._plain_beyond_link,
            "peers": [self._router[c.destination].describe() for c in self._connections.values()],
        }
        return about | self._port.info()

    def close(self) -> None:
        """Says good-bye, for a moment at most, and resets what is left; closes the port."""
        if self._native is not None:
            for stream in list(self._connections):
                self.close_stream(stream, abort=False)
            end = time.monotonic() + _GOOD_BYE_S
            while self._forget_gone() and time.monotonic() < end:
                self.ref.ops.poll(self.ref.endpoint)
            self._last_stats = self.stats()
            lib.dpb_stream_lwip_close(self._native)
            self._native = None
        for connection in self._leaving.values():
            self._give_back(connection)
        self._leaving = {}
        self._router.close()
        self._port.close()


class _Connection:
    """What the kernel holds for a connection, and what of its headers is not the router's."""

    def __init__(self, destination: int, way: Destination, port: int) -> None:
        assert way.source is not None
        self.destination = destination
        self.source = way.source
        self.flow = FLOW_NONE
        self.reserved = _reserve(way)
        self.port: int = self.reserved.getsockname()[1]
        self._remote_port = port

    def route(self, way: Destination) -> Any:
        """``struct dpb_tx_route *``; without the next hop's address where that is not known."""
        route: Any = ffi.new("struct dpb_tx_route *")
        route.family = way.address.version
        ffi.memmove(route.source_mac, way.source_mac, 6)
        ffi.memmove(route.dest_mac, way.dest_mac or bytes(6), 6)
        ffi.memmove(route.source, self.source.packed, len(self.source.packed))
        ffi.memmove(route.dest, way.address.packed, len(way.address.packed))
        route.source_port, route.dest_port = self.port, self._remote_port
        route.vlan, route.mtu, route.ttl = way.vlan, way.mtu, _TTL
        return route


def _open(port: Port, rx_checksum: str) -> Any:
    trouble: Any = ffi.new("int *")
    native = lib.dpb_stream_lwip_open(*port.ref(), rx_checksum == "trust", trouble)
    if not native:
        raise BindingsError(f"cannot open a stream endpoint: {_TROUBLE[trouble[0]]}")
    return native


def _face(stream: int) -> Any:
    return ffi.cast("struct dpb_stream *", stream)


def _reserve(way: Destination) -> socket.socket:
    """A socket that is bound and does not listen: the kernel gives its port to nobody else."""
    assert way.source is not None
    family = socket.AF_INET if way.source.version == 4 else socket.AF_INET6
    scope = way.link if way.source.is_link_local else 0
    s = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        s.bind((str(way.source), 0) if family == socket.AF_INET else (str(way.source), 0, 0, scope))
    except OSError as error:
        s.close()
        raise BindingsError(
            f"cannot connect from {way.source}: {error.strerror}",
            hint="`ip address` shows the addresses there are",
        ) from error
    return s
