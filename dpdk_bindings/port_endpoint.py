"""The datagram endpoint's backend over a Port; native/endpoint_port.h moves the bytes.

The kernel keeps its part: a bound socket a channel holds the port and the membership, its tables
say where peers are. Only the flows of the channels leave the kernel's path, and what reaches it
all the same (fragments, IP options, frames of the time before the filter stood) is counted as
``rx_left_to_kernel``.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dpdk_bindings._native import ffi, lib
from dpdk_bindings.carriers import Carriers, refusal
from dpdk_bindings.errors import BindingsError
from dpdk_bindings.memberships import Memberships
from dpdk_bindings.port import Port
from dpdk_bindings.routing import Destination, Router, Unrouted
from dpdk_bindings.sockets import Channel, bind_channel, discard, dropped, parse_address
from dpdk_bindings.tables import IP

__all__ = ["PortBackend", "choose_checksum"]

_REASONS = {
    value: "rx_" + name.removeprefix("DPB_REJECT_").lower()
    for value, name in ffi.typeof("enum dpb_reject").elements.items()
    if value not in (lib.DPB_REJECT_NONE, lib.DPB_REJECTS) and "TCP" not in name
}
_DEFAULT_TTL = 64
_IP4_UDP, _IP6_UDP = 20 + 8, 40 + 8  # bytes of headers
_MULTICAST_TTL = 1
_CAPTURED_SOURCE_PORT = 9  # discard: nobody answers a capture


class PortBackend:
    """UDP over frames: parsing, headers, routes, and the kernel's part of it."""

    def __init__(self, port: Port, channels: Sequence[Channel], *, rx_checksum: str) -> None:
        self._port = port
        self._router: Router | Unrouted = Unrouted()
        self.channels: list[Channel] = []
        self._reserved: list[socket.socket] = []
        self._left_to_kernel = 0
        self._memberships = Memberships()
        self._flows: list[int] = []
        self._peers: list[_Peer] = []
        self._down = False
        try:
            about = port.info()
            self._interface: str | None = about.get("interface")
            if self._interface:
                self._router = Router(self._interface, about["longest_tx"])
            self._rx_checksum = choose_checksum(rx_checksum, about.get("driver", ""))
            self._open_native()
            if self._interface and channels:
                self._refuse_others(self._interface, channels)
            for channel in channels:
                self._open_channel(channel)
        except BaseException:
            self.close()
            raise

    def _refuse_others(self, interface: str, channels: Sequence[Channel]) -> None:
        """Refuses channels that another interface brings: they would be silent for ever."""
        carriers = Carriers()
        for channel in channels:
            if (carrier := carriers.carrier(channel, [interface])) != interface:
                raise refusal(channel, [interface], carrier)

    def _open_native(self) -> None:
        ops, port = self._port.ref()
        below: Any = ffi.new("struct dpb_port_ref *")
        below.ops, below.port = ffi.cast("void *", ops), ffi.cast("void *", port)
        self._native: Any = ffi.gc(
            lib.dpb_over_port_open(below, self._rx_checksum == "verify"), lib.dpb_over_port_close
        )
        if not self._native:
            raise MemoryError("datagram endpoint")
        self.ref: Any = ffi.new("struct dpb_datagram_ref *")
        lib.dpb_over_port_ref(self._native, self.ref)
        self.counters = lib.dpb_over_port_counters(self._native)
        self._rejects = lib.dpb_over_port_rejects(self._native)

    def _open_channel(self, channel: Channel) -> None:
        if self._interface:
            if channel.ip.is_multicast and channel.interface is None:
                channel = replace(channel, interface=self._interface)
            s = bind_channel(channel)
            self._reserved.append(s)
            discard(s)
            if channel.ip.is_multicast:
                self._memberships.add(s, channel)
            channel = replace(channel, port=s.getsockname()[1])
        flow = self._port.add_flow(str(channel.ip), channel.port)
        if flow != lib.DPB_FLOW_NONE:
            self._flows.append(flow)
        number = lib.dpb_over_port_add_channel(
            self._native, channel.ip.version, channel.ip.packed, channel.port, flow
        )
        if number < 0:
            raise BindingsError(f"{len(self.channels)} channels are the most an endpoint takes")
        self.channels.append(channel)

    def add_peer(self, address: str, port: int, interface: str | None, ttl: int | None) -> int:
        """Prepares the headers to a destination.

        An address is sent to from the first channel of its family, so that the answer comes to
        that channel; a group, or an address without such a channel, from a port of its own.
        """
        ip = parse_address(address)
        if interface not in (None, self._interface):
            raise BindingsError(
                f"peer {address} names interface {interface!r}, but this endpoint sends by "
                f"{self._port.address}"
            )
        source, source_port = self._source(ip)
        destination = self._router.add(ip, source)
        number: int = lib.dpb_over_port_add_peer(self._native)
        if number < 0:
            raise BindingsError("an endpoint takes no more peers")
        hops = ttl if ttl is not None else _MULTICAST_TTL if ip.is_multicast else _DEFAULT_TTL
        self._peers.append(_Peer(destination, source_port, port, hops))
        self._apply(number)
        return number

    def _source(self, to: IP) -> tuple[IP | None, int]:
        if not to.is_multicast:
            for channel in self.channels:
                if channel.ip.version == to.version:
                    return None if channel.ip.is_multicast else channel.ip, channel.port
        if not self._interface:
            return None, _CAPTURED_SOURCE_PORT
        family = socket.AF_INET if to.version == 4 else socket.AF_INET6
        s = socket.socket(family, socket.SOCK_DGRAM)
        self._reserved.append(s)
        s.bind(("", 0))
        discard(s)
        return None, s.getsockname()[1]

    def _apply(self, number: int) -> None:
        """Hands what the router knows of a peer to the native side."""
        peer = self._peers[number]
        route = peer.route(self._router[peer.destination])
        lib.dpb_over_port_set_peer(self._native, number, route or ffi.NULL)

    def housekeeping(self) -> None:
        """Follows the link, routes and neighbours: peers whose way changed get new headers."""
        if not self._router.gone:
            self._port.housekeeping()
            self._memberships.follow()
        changed = self._router.poll()
        for number, peer in enumerate(self._peers) if changed else ():
            if peer.destination in changed:
                self._apply(number)
        if (down := bool(self._router.trouble)) != self._down:
            self._down = down
            lib.dpb_over_port_set_link(self._native, not down)

    def max_payload(self, peer: int) -> int:
        """What the way to that peer, and a slot of the port, take in one datagram."""
        way = self._router[self._peers[peer].destination]
        return max(0, way.mtu - (_IP4_UDP if way.address.version == 4 else _IP6_UDP))

    def peer_trouble(self, peer: int) -> str:
        """Why nothing can be sent to that peer now, or an empty string."""
        return self._router.trouble or self._router[self._peers[peer].destination].trouble

    @property
    def gone(self) -> bool:
        """Whether the interface was deleted."""
        return self._router.gone

    @property
    def trouble(self) -> str:
        """What is wrong with the interface or its port, or an empty string."""
        return self._router.trouble or self._port.trouble or self._memberships.trouble

    def losses(self) -> dict[str, int]:
        """Frames not shown, by cause; datagrams that went the kernel's way; the port's counters."""
        if self._reserved:
            self._left_to_kernel = sum(dropped(s) for s in self._reserved)
        counts = {name: self._rejects.count[value] for value, name in _REASONS.items()}
        asked = {f"netlink_refused_{what}": n for what, n in self._router.refused.items()}
        asked["netlink_overruns"] = self._router.overruns
        below = {f"port_{name}": value for name, value in self._port.stats().items()}
        own = {
            "rx_left_to_kernel": self._left_to_kernel,
            "memberships_renewed": self._memberships.renewed,
        }
        return counts | own | asked | below

    def samples(self) -> dict[str, bytes]:
        """The first bytes of the last frame rejected for each cause."""
        return {
            name: bytes(ffi.buffer(self._rejects.last[value].bytes, self._rejects.last[value].kept))
            for value, name in _REASONS.items()
            if self._rejects.count[value]
        }

    def describe(self) -> dict[str, Any]:
        """Checksum policy, channels, and where each peer is."""
        about: dict[str, Any] = {
            "backend": str(self._port.address),
            "rx_checksum": self._rx_checksum,
            "memberships": self._memberships.described,
            "channels": [f"{c.address} {c.port}" for c in self.channels],
            "peers": [self._router[peer.destination].describe() for peer in self._peers],
        }
        about.update(self._port.info())
        return about

    def close(self) -> None:
        """Gives flows and sockets back; closes the port if it came with this endpoint."""
        for flow in self._flows:
            self._port.remove_flow(flow)
        if self._reserved:
            self.losses()
        for s in self._reserved:
            s.close()
        self._flows, self._reserved = [], []
        self._memberships.close()
        self._router.close()
        self._port.close()


def choose_checksum(policy: str, driver: str) -> str:
    """``"verify"`` or ``"trust"``, from what was asked for and the interface's driver."""
    if policy not in ("auto", "verify", "trust"):
        raise BindingsError(
            f"rx_checksum {policy!r} is not known", hint='there are "auto", "verify", "trust"'
        )
    if policy != "auto":
        return policy
    # Both ends of a veth pair are memory of one host: nothing is damaged on the way, and local
    # senders leave their checksums to hardware that is not there.
    return "trust" if driver == "veth" else "verify"


class _Peer:
    """What of a peer's headers is not the router's: ports and TTL."""

    def __init__(self, destination: int, source_port: int, port: int, ttl: int) -> None:
        self.destination = destination
        self._ports = source_port, port
        self._ttl = ttl

    def route(self, way: Destination) -> Any | None:
        """``struct dpb_tx_route *``, or None while there is no way."""
        if not way.ready or way.dest_mac is None or way.source is None:
            return None
        route: Any = ffi.new("struct dpb_tx_route *")
        route.family = way.address.version
        ffi.memmove(route.source_mac, way.source_mac, 6)
        ffi.memmove(route.dest_mac, way.dest_mac, 6)
        ffi.memmove(route.source, way.source.packed, len(way.source.packed))
        ffi.memmove(route.dest, way.address.packed, len(way.address.packed))
        route.source_port, route.dest_port = self._ports
        route.vlan, route.mtu, route.ttl = way.vlan, way.mtu, self._ttl
        return route
