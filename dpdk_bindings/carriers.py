"""By which interface the datagrams of a channel come in.

A port takes frames from one interface, and a channel names an address or a group of any: an
endpoint that waited for it on another interface would wait for ever without a word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

from dpdk_bindings.errors import BindingsError
from dpdk_bindings.sockets import Channel, interface_index
from dpdk_bindings.tables import IP, Link, Tables

__all__ = ["Carriers", "refusal"]

_IFF_LOOPBACK = 0x8  # linux/if.h
# Interfaces whose frames are those of the interface that they were made on (IFLA_LINK).
_UPON_ANOTHER = ("vlan", "macvlan", "macvtap", "ipvlan", "ipvtap")


class Carriers:
    """What the kernel of this network namespace says of interfaces and addresses, asked once."""

    def __init__(self) -> None:
        self._homes: dict[IP, set[int]] = {}
        with closing(Tables()) as tables:
            self._interfaces = tables.links()
            for index, address in tables.addresses():
                self._homes.setdefault(address, set()).add(index)

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
            if not ip.is_loopback and any(_no_wire(self._interfaces[home]) for home in homes):
                return among[0]
        for name, index in ports.items():
            if any(self._below(home) & self._above(index) for home in homes):
                return name
        return self._interfaces[self._lowest(min(homes))].name

    def _below(self, index: int) -> set[int]:
        return set(self._chain(index, _below))

    def _above(self, index: int) -> set[int]:
        return set(self._chain(index, lambda link: link.master))

    def _lowest(self, index: int) -> int:
        return list(self._chain(index, _below))[-1]

    def _chain(self, index: int, way: Callable[[Link], int]) -> Iterator[int]:
        while index in self._interfaces:
            yield index
            index = way(self._interfaces[index])


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


def _below(link: Link) -> int:
    """The interface that it was made on, where its frames are that interface's; or 0."""
    return link.parent if link.kind in _UPON_ANOTHER else 0


def _no_wire(link: Link) -> bool:
    """Loopback and dummies: what is sent to their addresses comes by any other."""
    return bool(link.flags & _IFF_LOOPBACK) or link.kind == "dummy"
