"""Where datagrams to a destination go: next hop, addresses, MTU, as the kernel has them.

A frame that bypasses the kernel still has to go where the kernel would have sent it. The kernel is
asked when a destination is added; what changes later is read from a notification socket of our
own. A neighbour's new MAC address costs a few microseconds; anything larger (a route, an address,
a link) has destinations looked up anew, one a call, about a millisecond each.

The kernel resolves next hops, not we: an entry that is missing, stale or failed is marked as used
and the kernel sends the ARP request or neighbour solicitation that a packet of its own would.
"""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address

from dpdk_bindings.errors import BindingsError
from dpdk_bindings.sockets import interface_index
from dpdk_bindings.tables import IP, NO_VLAN, Link, Tables, usable

__all__ = ["Destination", "Router", "Unrouted", "multicast_mac"]

# linux/rtnetlink.h, linux/neighbour.h
_GROUPS = 0x1 | 0x4 | 0x10 | 0x40 | 0x100 | 0x400  # links, neighbours, addresses and routes
_RTM_NEWLINK, _RTM_DELLINK = 16, 17
_RTM_NEWNEIGH, _RTM_DELNEIGH = 28, 29
_IFF_UP, _IFF_LOWER_UP = 0x1, 0x10000  # linux/if.h
_NDA_DST, _NDA_LLADDR = 1, 2
_NUD_STALE, _NUD_FAILED = 0x04, 0x20
_MESSAGES_A_CALL = 16
_RETRY_NS = 1_000_000_000
_ANY_MTU = 65535


@dataclass(frozen=True, slots=True)
class Destination:
    """An address that is sent to, and what is known of the way there.

    Attributes:
        address: unicast address or group.
        source: address to send from: the one wanted, or else the kernel's choice.
        link: number of the interface it leaves by, 0 when there is no usable route.
        next_hop: the address that `dest_mac` belongs to.
        dest_mac: None while the next hop is not resolved.
        vlan: tag to put in front, or NO_VLAN.
        mtu: bytes of the largest IP datagram.
        trouble: why nothing can be sent now, or an empty string.
    """

    address: IP
    wanted_source: IP | None = None
    source: IP | None = None
    link: int = 0
    next_hop: IP | None = None
    source_mac: bytes = bytes(6)
    dest_mac: bytes | None = None
    vlan: int = NO_VLAN
    mtu: int = 0
    trouble: str = ""

    @property
    def ready(self) -> bool:
        """Whether frames can be sent there now."""
        return not self.trouble

    def describe(self) -> str:
        """The way in one line, or why there is none."""
        return self.trouble or (
            f"{self.address} from {self.source} by {self.next_hop} "
            f"({self.dest_mac.hex(':') if self.dest_mac else '?'}), mtu {self.mtu}"
        )


class Router:
    """Follows the kernel for the frames that leave by `interface`.

    Attributes:
        gone: the interface was deleted; it does not come back, not even under its name.
        trouble: what is wrong with the interface now, or an empty string.
    """

    def __init__(self, interface: str) -> None:
        self.interface = interface
        self._index = interface_index(interface)
        self._tables = Tables()
        self._events = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
        )
        self._events.bind((0, _GROUPS))
        self._destinations: list[Destination] = []
        self._to_look_up: set[int] = set()
        self._retry_at_ns = 0
        self.gone = False
        self.trouble = self._trouble(self.link.flags)

    @property
    def link(self) -> Link:
        """The interface itself."""
        return self._tables.link(self._index)

    def __getitem__(self, number: int) -> Destination:
        return self._destinations[number]

    def add(self, address: IP, source: IP | None) -> int:
        """Adds a destination and returns its number; its next hop may not be resolved yet.

        Raises:
            BindingsError: no route, or one that does not leave by this interface.
        """
        destination = self._look_up(Destination(address, source))
        if not destination.link:
            raise BindingsError(
                f"cannot send to {address} by {self.interface}: {destination.trouble}",
                hint=f"`ip route get {address}` shows the kernel's way",
            )
        self._destinations.append(destination)
        return len(self._destinations) - 1

    def poll(self) -> set[int]:
        """Reads what the kernel announced; numbers of the destinations that changed.

        Never waits. Also asks again, once a second, for next hops that did not answer.
        """
        changed: set[int] = set()
        for kind, body in self._announced():
            if kind in (_RTM_NEWNEIGH, _RTM_DELNEIGH):
                changed |= self._neighbour_changed(kind, body)
            else:
                self._to_look_up |= set(range(len(self._destinations)))
            if kind in (_RTM_NEWLINK, _RTM_DELLINK):
                self._link_changed(kind, body)
        self._retry()
        if self._to_look_up:
            number = self._to_look_up.pop()
            changed |= self._set(number, self._look_up(self._destinations[number]))
        return changed

    def close(self) -> None:
        """Closes the netlink sockets."""
        self._events.close()
        self._tables.close()

    def _set(self, number: int, destination: Destination) -> set[int]:
        if destination == self._destinations[number]:
            return set()
        self._destinations[number] = destination
        return {number}

    def _retry(self) -> None:
        now = time.monotonic_ns()
        if now < self._retry_at_ns:
            return
        self._retry_at_ns = now + _RETRY_NS
        self._to_look_up |= {i for i, d in enumerate(self._destinations) if not d.ready}

    def _announced(self) -> Iterator[tuple[int, bytes]]:
        for _ in range(_MESSAGES_A_CALL):
            try:
                data = self._events.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                yield 0, b""  # some were lost: look everything up
                continue
            yield from _blocks(data, "=IH", 16)

    def _link_changed(self, kind: int, body: bytes) -> None:
        family, index, flags = struct.unpack_from("=BxxxiI", body)  # struct ifinfomsg
        if index != self._index or family != socket.AF_UNSPEC:
            return
        if kind == _RTM_DELLINK:
            self.gone = True
            self.trouble = f"interface {self.interface} is gone"
        else:
            self.trouble = self._trouble(flags)

    def _trouble(self, flags: int) -> str:
        if not flags & _IFF_UP:
            return f"interface {self.interface} is down"
        if not flags & _IFF_LOWER_UP:
            return f"interface {self.interface} has no carrier"
        return ""

    def _neighbour_changed(self, kind: int, body: bytes) -> set[int]:
        link, state = struct.unpack_from("=4xiH", body)  # struct ndmsg
        attributes = dict(_blocks(body[12:], "=HH", 4))
        if _NDA_DST not in attributes:
            return set()
        next_hop = ip_address(attributes[_NDA_DST])
        concerned = [
            (i, d)
            for i, d in enumerate(self._destinations)
            if d.link == link and d.next_hop == next_hop and not d.address.is_multicast
        ]
        if not concerned:
            return set()
        mac = attributes.get(_NDA_LLADDR)
        if kind == _RTM_DELNEIGH or not usable(state) or mac is None or len(mac) != 6:
            mac = None
        changed: set[int] = set()
        for number, destination in concerned:
            changed |= self._set(number, _reach(destination, mac))
        # Frames past the kernel do not keep its entry fresh: it has to be told of its use.
        if state & _NUD_STALE:
            self._tables.use(next_hop, link)
        return changed

    def _look_up(self, destination: Destination) -> Destination:
        group = destination.address.is_multicast
        nothing = Destination(destination.address, destination.wanted_source)
        by = self._index if group or destination.address.is_link_local else 0
        route = self._tables.route(destination.address, source=destination.wanted_source, link=by)
        if isinstance(route, str):
            return replace(nothing, trouble=f"no route ({route})")
        if route.kind not in ("unicast", "multicast"):
            return replace(nothing, trouble=f"the kernel calls the address {route.kind}")
        link = self._tables.link(route.link)
        if route.link != self._index and (link.kind, link.parent) != ("vlan", self._index):
            return replace(nothing, trouble=f"the route leaves by {link.name}")
        if route.source is None:
            return replace(nothing, trouble=f"{link.name} has no address of this family")
        found = replace(
            nothing,
            source=route.source,
            link=route.link,
            next_hop=route.gateway or destination.address,
            source_mac=link.mac,
            vlan=link.vlan,
            mtu=min(link.mtu, route.mtu or link.mtu),
        )
        if group:
            return _reach(found, multicast_mac(destination.address))
        assert found.next_hop is not None
        mac = self._tables.neighbour(found.next_hop, found.link)
        if mac is None:
            self._tables.use(found.next_hop, found.link)
        return _reach(found, mac)


class Unrouted:
    """In place of a Router where there is no interface: frames go into a capture, to nobody."""

    gone = False
    trouble = ""

    def __init__(self) -> None:
        self._destinations: list[Destination] = []

    def __getitem__(self, number: int) -> Destination:
        return self._destinations[number]

    def add(self, address: IP, source: IP | None) -> int:
        """Adds a destination that is always reached, at a MAC address of zeros."""
        nobody = IPv4Address(0) if address.version == 4 else IPv6Address(0)
        mac = multicast_mac(address) if address.is_multicast else bytes(6)
        self._destinations.append(
            Destination(address, source, source or nobody, 0, address, dest_mac=mac, mtu=_ANY_MTU)
        )
        return len(self._destinations) - 1

    def poll(self) -> set[int]:
        """Nothing ever changes."""
        return set()

    def close(self) -> None:
        """Nothing was opened."""


def _reach(destination: Destination, mac: bytes | None) -> Destination:
    trouble = "" if mac else f"{destination.next_hop} has not told its MAC address"
    return replace(destination, dest_mac=mac, trouble=trouble)


def multicast_mac(group: IP) -> bytes:
    """The Ethernet address of a group (RFC 1112, 6.4; RFC 2464, 7)."""
    if isinstance(group, IPv4Address):
        low = int(group) & 0x7FFFFF
        return b"\x01\x00\x5e" + low.to_bytes(3, "big")
    return b"\x33\x33" + group.packed[12:]


def _blocks(data: bytes, header: str, size: int) -> Iterator[tuple[int, bytes]]:
    """Netlink messages or attributes: a length that counts itself, a type, a body, padding."""
    while len(data) >= size:
        length, kind = struct.unpack_from(header, data)
        if not size <= length <= len(data):
            return
        yield kind, data[size:length]
        data = data[(length + 3) & ~3 :]
