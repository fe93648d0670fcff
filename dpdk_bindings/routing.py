"""Where datagrams to a destination go: next hop, addresses, MTU, as the kernel has them.

A frame that bypasses the kernel still has to go where the kernel would have sent it. The kernel is
asked when a destination is added; what changes later is announced on a socket of our own, and has
the destinations that it can concern looked up anew, about 50 us each, all in one call as far as
its time goes. Nothing that the kernel refuses is an error of the caller: it is the destination's
`trouble`, is counted, and is asked again.

The kernel resolves next hops, not we: an entry that is missing, stale or failed is marked as used
and the kernel sends the ARP request or neighbour solicitation that a packet of its own would.
"""

from __future__ import annotations

import errno
import socket
import sys
import time
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from typing import Any, TypeVar

from dpdk_bindings.errors import BindingsError
from dpdk_bindings.netlink import Announcements, attributes
from dpdk_bindings.sockets import interface_index
from dpdk_bindings.tables import IP, NO_VLAN, Link, Tables

__all__ = ["Destination", "Router", "Unrouted", "multicast_mac"]

# linux/rtnetlink.h, linux/neighbour.h: links, neighbours, addresses, routes and rules of both
# families, next-hop objects
_GROUPS = 0x1 | 0x4 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 0x40000 | 0x80000000
_RTM_NEWLINK, _RTM_DELLINK = 16, 17
_RTM_NEWROUTE, _RTM_DELROUTE = 24, 25
_RTM_NEWNEIGH, _RTM_DELNEIGH = 28, 29
_IFF_UP, _IFF_LOWER_UP = 0x1, 0x10000  # linux/if.h
_NDA_DST = _RTA_DST = 1
_VERSIONS: dict[int, int] = {socket.AF_INET: 4, socket.AF_INET6: 6}
_ANNOUNCEMENTS_A_CALL = 64
# In one call, the more of the two: the loop that follows the kernel has packets to take.
_LOOK_UPS, _LOOK_UP_NS = 32, 2_000_000
_RETRY_FIRST_NS, _RETRY_MOST_NS = 125_000_000, 1_000_000_000
_ANY_MTU = 65535
T = TypeVar("T")
_ETHERNET, _ETHERNET_VLAN = 14, 18  # bytes of header


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
        mtu: bytes of the largest IP datagram that can be sent there in one piece.
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

    Args:
        interface: its name.
        longest_frame: bytes of the longest that whoever sends has room for, whatever the MTU
            becomes.

    Attributes:
        gone: the interface was deleted; it does not come back, not even under its name.
        trouble: what is wrong with the interface now, or an empty string.
        refused: questions that the kernel refused, by what was asked for.
    """

    def __init__(self, interface: str, longest_frame: int = _ANY_MTU) -> None:
        self.interface = interface
        self._longest_frame = longest_frame
        self._index = interface_index(interface)
        self._announcements = Announcements(_GROUPS)
        self._tables = Tables()
        self._destinations: list[Destination] = []
        self._numbers: dict[tuple[IP, IP | None], int] = {}
        self._by_address: dict[int, list[tuple[int, int]]] = {4: [], 6: []}  # address, number
        self._by_next_hop: defaultdict[tuple[int, bytes], set[int]] = defaultdict(set)
        self._links: dict[int, Link] = {}
        self._next_hops: dict[tuple[IP, int], tuple[bytes | None, str]] = {}  # of this call
        self._to_look_up: dict[int, None] = {}  # in the order in which it is their turn
        self._changed: set[int] = set()
        self._retry_ns = _RETRY_FIRST_NS
        self._retry_at_ns = 0
        self.refused = dict.fromkeys(("route", "link", "neighbour"), 0)
        self.gone = False
        self.trouble = self._look_at_link()

    @property
    def overruns(self) -> int:
        """How often too much was announced to be read, and everything was looked up instead."""
        return self._announcements.lost

    def __getitem__(self, number: int) -> Destination:
        return self._destinations[number]

    def add(self, address: IP, source: IP | None) -> int:
        """Adds a destination and returns its number; its next hop may not be resolved yet.

        One that is there already keeps its number.

        Raises:
            BindingsError: no route, or one that does not leave by this interface.
        """
        self._next_hops.clear()
        destination = self._look_up(Destination(address, source))
        if not destination.link:
            raise BindingsError(
                f"cannot send to {address} by {self.interface}: {destination.trouble}",
                hint=f"`ip route get {address}` shows the kernel's way",
            )
        number = self._numbers.get((address, source))
        if number is None:
            number = self._numbers[address, source] = len(self._destinations)
            self._destinations.append(Destination(address, source))
            insort(self._by_address[address.version], (int(address), number))
        self._set(number, destination)
        return number

    def poll(self) -> set[int]:
        """Reads what the kernel announced; numbers of the destinations that changed.

        Never waits. Also asks again for what is in trouble, with pauses that double up to 1 s.
        """
        announced = self._announcements.read(_ANNOUNCEMENTS_A_CALL)
        if announced is None:
            self._links.clear()
            self.trouble = self._look_at_link()
            self._ask_for(range(len(self._destinations)))
        for kind, body in announced or ():
            self._announced(kind, body)
        now = time.monotonic_ns()
        self._retry(now)
        self._next_hops.clear()
        for done, number in enumerate(list(self._to_look_up)):
            if done >= _LOOK_UPS and time.monotonic_ns() - now > _LOOK_UP_NS:
                break
            del self._to_look_up[number]
            self._set(number, self._look_up(self._destinations[number]))
        changed, self._changed = self._changed, set()
        return changed

    def close(self) -> None:
        """Closes the netlink sockets."""
        self._announcements.close()
        self._tables.close()

    def _set(self, number: int, destination: Destination) -> None:
        before = self._destinations[number]
        if destination == before:
            return
        if before.next_hop is not None:
            self._by_next_hop[before.link, before.next_hop.packed].discard(number)
        if destination.next_hop is not None:
            self._by_next_hop[destination.link, destination.next_hop.packed].add(number)
        self._destinations[number] = destination
        self._changed.add(number)

    def _ask_for(self, numbers: Iterable[int]) -> None:
        """Has destinations looked up because something happened to their way."""
        before = len(self._to_look_up)
        self._to_look_up.update(dict.fromkeys(numbers))
        if len(self._to_look_up) > before:
            self._retry_ns = _RETRY_FIRST_NS

    def _retry(self, now: int) -> None:
        if now < self._retry_at_ns:
            return
        waiting = [number for number, d in enumerate(self._destinations) if not d.ready]
        self._to_look_up.update(dict.fromkeys(waiting))
        self._retry_ns = min(2 * self._retry_ns, _RETRY_MOST_NS) if waiting else _RETRY_FIRST_NS
        self._retry_at_ns = now + self._retry_ns

    def _announced(self, kind: int, body: bytes) -> None:
        if kind in (_RTM_NEWROUTE, _RTM_DELROUTE):
            self._route_changed(body)
        elif kind in (_RTM_NEWNEIGH, _RTM_DELNEIGH):
            self._neighbour_changed(body)
        else:  # links, addresses, rules, next hops: what of it matters is for the kernel to say
            if kind in (_RTM_NEWLINK, _RTM_DELLINK):
                self._link_changed(kind, body)
            self._ask_for(range(len(self._destinations)))

    def _route_changed(self, body: bytes) -> None:
        """Those are looked up whose address lies in the prefix: struct rtmsg, family and length."""
        known = self._by_address.get(_VERSIONS.get(body[0], 0), [])
        bits = 32 if body[0] == socket.AF_INET else 128
        first = int.from_bytes(attributes(body, 12).get(_RTA_DST, b""), "big")
        end = first + (1 << bits - body[1])
        within = slice(bisect_left(known, (first, 0)), bisect_left(known, (end, 0)))
        self._ask_for(number for _, number in known[within])

    def _neighbour_changed(self, body: bytes) -> None:
        """Looked up are those who go by it: struct ndmsg."""
        link = int.from_bytes(body[4:8], sys.byteorder)
        next_hop = attributes(body, 12).get(_NDA_DST, b"")
        self._ask_for(self._by_next_hop.get((link, next_hop), ()))

    def _link_changed(self, kind: int, body: bytes) -> None:
        index = int.from_bytes(body[4:8], sys.byteorder)  # struct ifinfomsg
        if body[0] != socket.AF_UNSPEC:
            return
        self._links.pop(index, None)
        if index == self._index:
            self.gone = self.gone or kind == _RTM_DELLINK
            self.trouble = self._look_at_link()

    def _look_at_link(self) -> str:
        """What is wrong with our interface."""
        flags = 0
        if not self.gone:
            try:
                flags = self._link(self._index).flags
            except OSError as error:
                if error.errno != errno.ENODEV:
                    return f"interface {self.interface}: {error.strerror}"
                self.gone = True
        if self.gone:
            return f"interface {self.interface} is gone"
        if not flags & _IFF_UP:
            return f"interface {self.interface} is down"
        if not flags & _IFF_LOWER_UP:
            return f"interface {self.interface} has no carrier"
        return ""

    def _link(self, index: int) -> Link:
        """What the kernel said of an interface; asked again when a change was announced."""
        link = self._links.get(index)
        if link is None:
            link = self._links[index] = self._ask("link", self._tables.link, index)
        return link

    def _ask(self, what: str, question: Callable[..., T], *args: Any, **how: Any) -> T:
        """The kernel's answer; OSError, and counted, where it refuses or cannot be understood."""
        try:
            return question(*args, **how)
        except OSError:
            self.refused[what] += 1
            raise
        except Exception as error:
            self.refused[what] += 1
            raise OSError(errno.EPROTO, f"{type(error).__name__}: {error}") from error

    def _look_up(self, destination: Destination) -> Destination:
        group = destination.address.is_multicast
        nothing = Destination(destination.address, destination.wanted_source)
        by = self._index if group or destination.address.is_link_local else 0
        try:
            route = self._ask(
                "route",
                self._tables.route,
                destination.address,
                source=destination.wanted_source,
                link=by,
            )
        except OSError as error:
            return replace(nothing, trouble=f"no route ({error.strerror})")
        if route.kind not in ("unicast", "multicast"):
            return replace(nothing, trouble=f"the kernel calls the address {route.kind}")
        try:
            link = self._link(route.link)
        except OSError as error:
            return replace(nothing, trouble=f"no interface {route.link} ({error.strerror})")
        if route.link != self._index and (link.kind, link.parent) != ("vlan", self._index):
            return replace(nothing, trouble=f"the route leaves by {link.name}")
        if route.source is None:
            return replace(nothing, trouble=f"{link.name} has no address of this family")
        room = self._longest_frame - (_ETHERNET if link.vlan == NO_VLAN else _ETHERNET_VLAN)
        found = replace(
            nothing,
            source=route.source,
            link=route.link,
            next_hop=route.gateway or destination.address,
            source_mac=link.mac,
            vlan=link.vlan,
            mtu=min(link.mtu, route.mtu or link.mtu, room),
        )
        if group:
            return replace(found, dest_mac=multicast_mac(destination.address))
        return self._resolve(found)

    def _resolve(self, found: Destination) -> Destination:
        """Adds the next hop's MAC address, or has the kernel ask for it."""
        assert found.next_hop is not None
        key = found.next_hop, found.link
        if key not in self._next_hops:
            self._next_hops[key] = self._next_hop(*key)
        mac, trouble = self._next_hops[key]
        return replace(found, dest_mac=mac, trouble=trouble)

    def _next_hop(self, address: IP, link: int) -> tuple[bytes | None, str]:
        """A next hop's MAC address, or why there is none; has the kernel look after its entry."""
        mac = None
        try:
            neighbour = self._ask("neighbour", self._tables.neighbour, address, link)
            mac = neighbour.mac
            # Frames past the kernel do not keep an entry fresh: it has to be told of its use.
            if neighbour.stale or mac is None:
                self._ask("neighbour", self._tables.use, address, link)
        except OSError as error:
            if mac is None:
                return None, f"next hop {address}: {error.strerror}"
        return mac, "" if mac else f"{address} has not told its MAC address"


class Unrouted:
    """In place of a Router where there is no interface: frames go into a capture, to nobody."""

    gone = False
    trouble = ""
    overruns = 0

    def __init__(self) -> None:
        self._destinations: list[Destination] = []
        self.refused: dict[str, int] = {}

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


def multicast_mac(group: IP) -> bytes:
    """The Ethernet address of a group (RFC 1112, 6.4; RFC 2464, 7)."""
    if isinstance(group, IPv4Address):
        low = int(group) & 0x7FFFFF
        return b"\x01\x00\x5e" + low.to_bytes(3, "big")
    return b"\x33\x33" + group.packed[12:]
