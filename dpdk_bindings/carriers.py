"""By which interface the datagrams of a channel come in.

A port takes frames from one interface, and a channel names an address or a group of any: an
endpoint that waited for it on another interface would wait for ever without a word.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from pyroute2 import IPRoute

from dpdk_bindings.errors import BindingsError
from dpdk_bindings.sockets import Channel, interface_index

__all__ = ["Carriers", "refusal"]

_IFF_LOOPBACK = 0x8  # linux/if.h
# Interfaces whose frames are those of the interface that they were made on (IFLA_LINK).
_UPON_ANOTHER = ("vlan", "macvlan", "macvtap", "ipvlan", "ipvtap")


@dataclass(frozen=True, slots=True)
class _Interface:
    name: str
    no_wire: bool  # loopback and dummies: what is sent to their addresses comes by any other
    below: int  # the interface that it was made on, or 0
    above: int  # the bridge, bond or VRF that it is a port of, or 0


class Carriers:
    """What the kernel of this network namespace says of interfaces and addresses, asked once."""

    def __init__(self) -> None:
        with IPRoute() as route:
            self._interfaces = {link["index"]: _interface(link) for link in route.get_links()}
            self._homes: dict[Any, set[int]] = {}
            for entry in route.get_addr():
                ours = entry.get_attr("IFA_LOCAL") or entry.get_attr("IFA_ADDRESS")
                for address in filter(None, (ours, entry.get_attr("IFA_BROADCAST"))):
                    self._homes.setdefault(ip_address(address), set()).add(entry["index"])

    def carrier(self, channel: Channel, among: Sequence[str]) -> str:
        """The interface that brings the datagrams of `channel`.

        Args:
            channel: address and, where it says one, interface.
            among: interfaces there are ports of; the first brings what names no interface.

        Returns:
            one of `among`; or, where none of them does, the interface that a port is needed of.

        Raises:
            BindingsError: an address that no frame brings, or an interface that is not there.
        """
        ip = channel.ip
        ports = {name: interface_index(name) for name in among}
        if ip.is_unspecified:
            raise BindingsError(
                f"cannot receive on {ip} port {channel.port}: a port takes the frames of one "
                "address",
                hint="name the interface's own address, or a group",
            )
        if channel.interface is not None:
            homes = {interface_index(channel.interface)}
        elif ip.is_multicast or ip not in self._homes:
            return among[0]  # if it is nobody's address, binding it says so
        else:
            homes = self._homes[ip]
            if not ip.is_loopback and any(self._interfaces[home].no_wire for home in homes):
                return among[0]
        for name, index in ports.items():
            if any(self._below(home) & self._above(index) for home in homes):
                return name
        return self._interfaces[self._lowest(min(homes))].name

    def _below(self, index: int) -> set[int]:
        return set(self._chain(index, "below"))

    def _above(self, index: int) -> set[int]:
        return set(self._chain(index, "above"))

    def _lowest(self, index: int) -> int:
        return list(self._chain(index, "below"))[-1]

    def _chain(self, index: int, way: str) -> Iterator[int]:
        while index in self._interfaces:
            yield index
            index = getattr(self._interfaces[index], way)


def refusal(channel: Channel, among: Sequence[str], carrier: str) -> BindingsError:
    """That no port of `among` brings `channel`, which `carrier` does, and what to do."""
    if channel.ip.is_loopback:
        why = "what is sent to a loopback address never leaves its host"
        hint = '"kernel" receives it; or name an address of the interface'
    else:
        why = f"its datagrams come by interface {carrier}"
        hint = f"open a port of {carrier} too: one endpoint takes several"
    return BindingsError(
        f"cannot receive on {channel.address} port {channel.port} by {' or '.join(among)}: {why}",
        hint=hint,
    )


def _interface(link: Any) -> _Interface:
    kind = link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") or ""
    # One of another network namespace has a number there that means another interface here.
    is_here = link.get_attr("IFLA_LINK_NETNSID") is None
    upon = kind in _UPON_ANOTHER and is_here
    return _Interface(
        name=link.get_attr("IFLA_IFNAME"),
        no_wire=bool(link["flags"] & _IFF_LOOPBACK) or kind == "dummy",
        below=(link.get_attr("IFLA_LINK") or 0) if upon else 0,
        above=link.get_attr("IFLA_MASTER") or 0,
    )
