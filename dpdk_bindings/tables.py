"""The kernel's routes, links and neighbours, asked by netlink (pyroute2). About 0.3 ms a question.

For control, not for the hot path. Network namespace: the one in which the object was made.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

__all__ = ["IP", "NO_VLAN", "Link", "Route", "Tables", "usable"]

IP = IPv4Address | IPv6Address

NO_VLAN = 0xFFFF
"""No tag; DPB_NO_VLAN of native/headers.h."""

_RTAX_MTU = "RTAX_MTU"
_TYPES = {1: "unicast", 2: "local", 3: "broadcast", 5: "multicast"}  # linux/rtnetlink.h
# linux/neighbour.h: reachable, stale, delay, probe, noarp, permanent
_NUD_USABLE = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80
_NTF_USE = 0x01


def usable(state: int) -> bool:
    """Whether a neighbour in this NUD state has a MAC address to send to."""
    return bool(state & _NUD_USABLE)


@dataclass(frozen=True, slots=True)
class Route:
    """The kernel's answer to `ip route get`: `kind` is a word of ip-route(8), `mtu` may be 0."""

    kind: str
    link: int
    gateway: IP | None
    source: IP | None
    mtu: int


@dataclass(frozen=True, slots=True)
class Link:
    """An interface: `kind` is "" for hardware, else "veth", "vlan" ..."""

    name: str
    kind: str
    mac: bytes
    mtu: int
    parent: int
    vlan: int
    flags: int  # linux/if.h


class Tables:
    """Asks the kernel. Close it."""

    def __init__(self) -> None:
        self._netlink = IPRoute()

    def route(self, to: IP, *, source: IP | None = None, link: int = 0) -> Route | str:
        """The way to `to`, or why there is none."""
        question: dict[str, Any] = {"dst": str(to)}
        if source is not None:
            question["src"] = str(source)
        if link:
            question["oif"] = link
        try:
            answer = self._netlink.route("get", **question)[0]
        except NetlinkError as error:
            return str(error.args[1])
        gateway = answer.get("gateway") or (answer.get("via") or {}).get("addr")
        chosen = answer.get("prefsrc")
        return Route(
            kind=_TYPES.get(answer["type"], "unreachable"),
            link=answer.get("oif") or 0,
            gateway=ip_address(gateway) if gateway else None,
            source=ip_address(chosen) if chosen else source,
            mtu=answer.get_nested("RTA_METRICS", _RTAX_MTU) or 0,
        )

    def link(self, index: int) -> Link:
        """The interface of number `index`."""
        answer = self._netlink.link("get", index=index)[0]
        return Link(
            name=answer.get("ifname"),
            kind=answer.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") or "",
            mac=bytes.fromhex((answer.get("address") or "00:00:00:00:00:00").replace(":", "")),
            mtu=answer.get("mtu"),
            parent=answer.get("link") or 0,
            vlan=answer.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA", "IFLA_VLAN_ID") or NO_VLAN,
            flags=answer.get("flags") or 0,
        )

    def neighbour(self, address: IP, link: int) -> bytes | None:
        """The MAC address of a neighbour, if the kernel has a usable one."""
        try:
            answer = self._netlink.neigh("get", dst=str(address), ifindex=link)[0]
        except NetlinkError as error:
            if error.code == errno.ENOENT:
                return None
            raise
        mac = answer.get("lladdr")
        if not mac or not usable(answer["state"]):
            return None
        return bytes.fromhex(mac.replace(":", ""))

    def use(self, address: IP, link: int) -> None:
        """Makes the kernel resolve a neighbour, or confirm a stale one.

        It does what a packet of its own to that neighbour would make it do (NTF_USE).
        """
        self._netlink.neigh("replace", dst=str(address), ifindex=link, state=0, flags=_NTF_USE)

    def close(self) -> None:
        """Closes the netlink socket."""
        self._netlink.close()
