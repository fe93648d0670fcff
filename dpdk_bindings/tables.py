"""The kernel's routes, links and neighbours, asked by netlink. About 20 us a question.

For control, not for the hot path. Network namespace: the one in which the object was made.
"""

from __future__ import annotations

import errno
import struct
import sys
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from dpdk_bindings.netlink import Questions, attribute, attributes

__all__ = ["IP", "NO_VLAN", "Link", "Neighbour", "Route", "Tables"]

IP = IPv4Address | IPv6Address

NO_VLAN = 0xFFFF
"""No tag; DPB_NO_VLAN of native/headers.h."""

# linux/rtnetlink.h, linux/if_link.h, linux/neighbour.h
_RTM_GETLINK, _RTM_GETADDR, _RTM_GETROUTE, _RTM_NEWNEIGH, _RTM_GETNEIGH = 18, 22, 26, 28, 30
_NLM_F_ACK, _NLM_F_REPLACE, _NLM_F_CREATE = 0x04, 0x100, 0x400
_RTMSG_BYTES, _IFINFOMSG_BYTES, _IFADDRMSG_BYTES, _NDMSG_BYTES = 12, 16, 8, 12
_RTA_DST, _RTA_SRC, _RTA_OIF, _RTA_GATEWAY = 1, 2, 4, 5
_RTA_PREFSRC, _RTA_METRICS, _RTA_CACHEINFO, _RTA_VIA = 7, 8, 12, 18
_RTM_F_FIB_MATCH = 0x2000
_RTAX_MTU = 2
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_LINKINFO = 1, 3, 4, 5, 18
_IFLA_MASTER, _IFLA_LINK_NETNSID = 10, 37
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _IFLA_VLAN_ID = 1, 2, 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST = 1, 2, 4
_NDA_DST, _NDA_LLADDR = 1, 2
_TYPES = {1: "unicast", 2: "local", 3: "broadcast", 5: "multicast"}
# reachable, stale, delay, probe, noarp, permanent
_NUD_USABLE = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80
_NUD_STALE = 0x04
_NTF_USE = 0x01
_FAMILIES = {4: 2, 6: 10}  # AF_INET, AF_INET6


@dataclass(frozen=True, slots=True)
class Route:
    """The kernel's answer to `ip route get`: `kind` is a word of ip-route(8).

    `mtu` is what the route was given, or 0. What the kernel has learned by ICMP ("fragmentation
    needed", "packet too big") is not in it: the kernel checks of those no more than whether they
    cite a packet that it may have sent, so that anybody who can forge one makes it 552 bytes for
    ten minutes.
    """

    kind: str
    link: int
    gateway: IP | None
    source: IP | None
    mtu: int


@dataclass(frozen=True, slots=True)
class Link:
    """An interface.

    Attributes:
        kind: "" for hardware, else "veth", "vlan" ...
        parent: the interface that it was made on; 0 if there is none here.
        master: the bridge, bond or VRF that it is a port of, or 0.
        flags: of linux/if.h.
    """

    name: str
    kind: str
    mac: bytes
    mtu: int
    parent: int
    master: int
    vlan: int
    flags: int


@dataclass(frozen=True, slots=True)
class Neighbour:
    """The kernel's entry for a next hop.

    Attributes:
        mac: None while the kernel has none to send to.
        stale: it wants to be told that the entry is used.
    """

    mac: bytes | None
    stale: bool


class Tables:
    """Asks the kernel. Close it. Every question raises OSError where the kernel refuses it."""

    def __init__(self) -> None:
        self._questions = Questions()

    def route(self, to: IP, *, source: IP | None = None, link: int = 0) -> Route:
        """The way to `to`; OSError says why there is none."""
        bits = to.max_prefixlen
        wanted = attribute(_RTA_DST, to.packed)
        if source is not None:
            wanted += attribute(_RTA_SRC, source.packed)
        if link:
            wanted += attribute(_RTA_OIF, struct.pack("=I", link))

        def ask(flags: int) -> bytes:
            head = _FAMILIES[to.version], bits, bits if source else 0, 0, 0, 0, 0, 0, flags
            return self._questions.ask(_RTM_GETROUTE, struct.pack("=8BI", *head) + wanted)

        answer = ask(0)
        found = attributes(answer, _RTMSG_BYTES)
        chosen = found.get(_RTA_PREFSRC)
        metrics = found.get(_RTA_METRICS, b"")
        if _number(found.get(_RTA_CACHEINFO, b"")[8:12]):  # struct rta_cacheinfo: it expires
            metrics = attributes(ask(_RTM_F_FIB_MATCH), _RTMSG_BYTES).get(_RTA_METRICS, b"")
        return Route(
            kind=_TYPES.get(answer[7], "unreachable"),
            link=_number(found.get(_RTA_OIF)),
            gateway=_gateway(found),
            source=ip_address(chosen) if chosen else source,
            mtu=_number(attributes(metrics).get(_RTAX_MTU)),
        )

    def link(self, index: int) -> Link:
        """The interface of number `index`; OSError with ENODEV where there is none."""
        body = struct.pack("=BxHiII", 0, 0, index, 0, 0)
        found = _parse_link(self._questions.ask(_RTM_GETLINK, body))
        if found is None:
            raise OSError(errno.EBADMSG, "the kernel's answer lacks the MTU")
        return found

    def links(self) -> dict[int, Link]:
        """All interfaces, by number."""
        told = self._questions.dump(_RTM_GETLINK, bytes(_IFINFOMSG_BYTES))
        parsed = ((struct.unpack_from("=i", body, 4)[0], _parse_link(body)) for body in told)
        return {index: link for index, link in parsed if link is not None}

    def addresses(self) -> list[tuple[int, IP]]:
        """All addresses of interfaces, those of broadcast too, each with its interface's number."""
        found: list[tuple[int, IP]] = []
        for body in self._questions.dump(_RTM_GETADDR, bytes(_IFADDRMSG_BYTES)):
            (index,) = struct.unpack_from("=I", body, 4)
            told = attributes(body, _IFADDRMSG_BYTES)
            ours = told.get(_IFA_LOCAL) or told.get(_IFA_ADDRESS)
            both = filter(None, (ours, told.get(_IFA_BROADCAST)))
            found += [(index, ip_address(address)) for address in both]
        return found

    def neighbour(self, address: IP, link: int) -> Neighbour:
        """What the kernel has of a next hop."""
        body = _ndmsg(address, link, 0) + attribute(_NDA_DST, address.packed)
        try:
            answer = self._questions.ask(_RTM_GETNEIGH, body)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return Neighbour(None, stale=False)
            raise
        (state,) = struct.unpack_from("=H", answer, 8)
        mac = attributes(answer, _NDMSG_BYTES).get(_NDA_LLADDR)
        known = mac is not None and len(mac) == 6 and state & _NUD_USABLE
        return Neighbour(mac if known else None, stale=bool(state & _NUD_STALE))

    def use(self, address: IP, link: int) -> None:
        """Makes the kernel resolve a neighbour, or confirm a stale one.

        It does what a packet of its own to that neighbour would make it do (NTF_USE).
        """
        body = _ndmsg(address, link, _NTF_USE) + attribute(_NDA_DST, address.packed)
        flags = _NLM_F_ACK | _NLM_F_REPLACE | _NLM_F_CREATE
        self._questions.ask(_RTM_NEWNEIGH, body, flags=flags)

    def close(self) -> None:
        """Closes the netlink socket."""
        self._questions.close()


def _parse_link(body: bytes) -> Link | None:
    """A link as a message tells it (struct ifinfomsg and attributes); None where it says little."""
    found = attributes(body, _IFINFOMSG_BYTES)
    if _IFLA_MTU not in found or _IFLA_IFNAME not in found:
        return None
    info = attributes(found.get(_IFLA_LINKINFO, b""))
    kind = info.get(_IFLA_INFO_KIND, b"").rstrip(b"\0").decode("ascii", "replace")
    tag = attributes(info.get(_IFLA_INFO_DATA, b"")).get(_IFLA_VLAN_ID) if kind == "vlan" else None
    mac = found.get(_IFLA_ADDRESS, b"")
    return Link(
        name=found[_IFLA_IFNAME].rstrip(b"\0").decode(errors="replace"),
        kind=kind,
        mac=mac if len(mac) == 6 else bytes(6),
        mtu=_number(found[_IFLA_MTU]),
        # A parent in another network namespace has a number there that means another one here.
        parent=0 if _IFLA_LINK_NETNSID in found else _number(found.get(_IFLA_LINK)),
        master=_number(found.get(_IFLA_MASTER)),
        vlan=struct.unpack("=H", tag)[0] if tag else NO_VLAN,
        flags=struct.unpack_from("=I", body, 8)[0],
    )


def _number(value: bytes | None) -> int:
    return int.from_bytes(value or b"", sys.byteorder)


def _gateway(found: dict[int, bytes]) -> IP | None:
    """The next hop, of either family (RFC 8950 has IPv4 go by IPv6 ones)."""
    gateway = found.get(_RTA_GATEWAY) or found.get(_RTA_VIA, b"")[2:]  # struct rtvia: the family
    return ip_address(gateway) if gateway else None


def _ndmsg(address: IP, link: int, flags: int) -> bytes:
    return struct.pack("=BxxxiHBx", _FAMILIES[address.version], link, 0, flags)
