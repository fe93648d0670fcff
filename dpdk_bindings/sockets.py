"""The kernel's side of a channel: a bound UDP socket that holds the port and the membership.

An endpoint over kernel sockets also receives by it. One over a Port only keeps it open: so that
nobody else takes the port, the kernel holds the IGMP or MLD membership, and no ICMP
port-unreachable answers for a port that is served.
"""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from dpdk_bindings._native import ffi
from dpdk_bindings.errors import BindingsError

__all__ = [
    "Channel",
    "bind_channel",
    "discard",
    "dropped",
    "interface_index",
    "join",
    "leave",
    "parse_address",
]

# Not in the socket module: linux/in.h, linux/in6.h, asm-generic/socket.h.
_IP_MULTICAST_ALL = 49
_IPV6_MULTICAST_ALL = 29
_SO_RCVBUFFORCE = 33
_SO_TIMESTAMPNS = 35
_SO_ATTACH_FILTER = 26
_SO_MEMINFO = 55
_SK_MEMINFO_DROPS = 8  # linux/sock_diag.h


@dataclass(frozen=True, slots=True)
class Channel:
    """Where datagrams are received: a local address or a multicast group, and a UDP port.

    Attributes:
        address: unicast address of this host, or the group; IPv4 or IPv6, as text.
        port: UDP port; 0 takes one that is free (not for a group).
        interface: where a group is joined or a link-local address lives; by default the one
            that the kernel's routes choose.
    """

    address: str
    port: int
    interface: str | None = None

    @property
    def ip(self) -> IPv4Address | IPv6Address:
        """The address, parsed."""
        return parse_address(self.address)


def parse_address(text: str) -> IPv4Address | IPv6Address:
    """Parses an IP address, which must not be a host name, and has its interface beside it."""
    try:
        ip = ip_address(text)
    except ValueError:
        raise BindingsError(
            f"address {text!r} is not an IPv4 or IPv6 address",
            hint="write it in numbers: names are not looked up here",
        ) from None
    if isinstance(ip, IPv6Address) and ip.scope_id is not None:
        raise BindingsError(f"address {text!r} has a zone", hint="name the interface apart")
    return ip


def interface_index(name: str | None) -> int:
    """The kernel's number of interface `name`; 0 for None."""
    if name is None:
        return 0
    try:
        return socket.if_nametoindex(name)
    except OSError:
        known = ", ".join(n for _, n in socket.if_nameindex())
        raise BindingsError(
            f"interface {name!r} does not exist here", hint=f"there are: {known}"
        ) from None


def bind_channel(
    channel: Channel, *, receive_buffer_bytes: int = 0, kernel_timestamps: bool = False
) -> socket.socket:
    """Opens, binds and (for a group) joins the non-blocking socket of `channel`.

    Only the group asked for, on the interface asked for, reaches the socket: it is bound to the
    group, and the memberships of other sockets of this host are kept out (IP_MULTICAST_ALL off).
    """
    ip = channel.ip
    if ip.is_multicast and not channel.port:
        raise BindingsError(f"group {ip} needs a port: 0 means any only for an address")
    index = interface_index(channel.interface)
    family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
    s = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if family == socket.AF_INET6:
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if ip.is_multicast:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if receive_buffer_bytes:
            _receive_buffer(s, receive_buffer_bytes)
        if kernel_timestamps:
            s.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        s.bind((str(ip), channel.port) if ip.version == 4 else (str(ip), channel.port, 0, index))
        if ip.is_multicast:
            join(s, ip, index)
    except OSError as error:
        s.close()
        raise _explain(channel, error) from error
    except BaseException:
        s.close()
        raise
    return s


def dropped(s: socket.socket) -> int:
    """Datagrams that the kernel dropped on `s`: queue full, checksum bad, or discarded."""
    words = s.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 64)
    return int(struct.unpack_from("=I", words, 4 * _SK_MEMINFO_DROPS)[0])


def discard(s: socket.socket) -> None:
    """Makes the kernel discard what reaches `s`; :func:`dropped` counts it.

    The port stays taken and no ICMP port-unreachable is sent, but nothing piles up.
    """
    drop_all = ffi.new("uint8_t[]", struct.pack("=HBBI", 6, 0, 0, 0))  # BPF_RET | BPF_K, 0
    program = struct.pack("@HP", 1, int(ffi.cast("uintptr_t", drop_all)))  # struct sock_fprog
    s.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def join(s: socket.socket, group: IPv4Address | IPv6Address, index: int) -> None:
    """Joins `group` on interface number `index` (0: the kernel's choice), and hears no others."""
    if group.version == 4:
        s.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
        s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, _request(group, index))
    else:
        s.setsockopt(socket.IPPROTO_IPV6, _IPV6_MULTICAST_ALL, 0)
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, _request(group, index))


def leave(s: socket.socket, group: IPv4Address | IPv6Address, index: int) -> None:
    """Leaves what :func:`join` joined."""
    if group.version == 4:
        s.setsockopt(socket.IPPROTO_IP, socket.IP_DROP_MEMBERSHIP, _request(group, index))
    else:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_LEAVE_GROUP, _request(group, index))


def _request(group: IPv4Address | IPv6Address, index: int) -> bytes:
    """``struct ip_mreqn`` or ``ipv6_mreq``."""
    if group.version == 4:
        return struct.pack("=4s4si", group.packed, bytes(4), index)
    return struct.pack("=16si", group.packed, index)


def _receive_buffer(s: socket.socket, size: int) -> None:
    try:
        s.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size)
    except PermissionError:  # net.core.rmem_max is the limit of the unprivileged
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)


def _explain(channel: Channel, error: OSError) -> BindingsError:
    where = f"{channel.address} port {channel.port}"
    match error.errno:
        case errno.EADDRINUSE:
            hint = f"`ss -ulnp sport = :{channel.port}` shows who has it"
        case errno.EADDRNOTAVAIL:
            hint = "no interface here has this address: `ip address` shows those there are"
        case errno.ENODEV:
            hint = "no route says where this group is: name the interface"
        case errno.EACCES:
            hint = "ports below net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE"
        case _:
            hint = ""
    return BindingsError(f"cannot receive on {where}: {error.strerror}", hint=hint)
