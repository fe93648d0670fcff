"""The datagram endpoint's backend over kernel sockets; native/endpoint_kernel.h moves the bytes."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from dpdk_bindings._native import ffi, lib
from dpdk_bindings.errors import BindingsError
from dpdk_bindings.memberships import Memberships
from dpdk_bindings.sockets import Channel, bind_channel, dropped, interface_index, parse_address

__all__ = ["KernelBackend"]

_CLOCKS = {"mono": lib.DPB_CLOCK_MONO, "real": lib.DPB_CLOCK_REAL}
_MIN_PAYLOAD_BYTES = 512
_MAX_PAYLOAD_BYTES = 65507  # of UDP over IPv4: 65535 less 20 and 8


class KernelBackend:
    """Spinning kernel sockets: recvmmsg, sendmmsg, no privileges."""

    def __init__(
        self,
        channels: Sequence[Channel],
        *,
        buffers: int,
        payload_bytes: int,
        receive_buffer_bytes: int,
        clock: str,
    ) -> None:
        if clock not in _CLOCKS:
            raise BindingsError(f"clock {clock!r} is not known", hint='there are "mono" and "real"')
        if not _MIN_PAYLOAD_BYTES <= payload_bytes <= _MAX_PAYLOAD_BYTES:
            raise BindingsError(
                f"payload_bytes {payload_bytes} is not within "
                f"{_MIN_PAYLOAD_BYTES} and {_MAX_PAYLOAD_BYTES}"
            )
        self._clock = clock
        self._payload_bytes = payload_bytes
        self._native: Any = ffi.gc(
            lib.dpb_kernel_open(buffers, buffers, payload_bytes, _CLOCKS[clock]),
            lib.dpb_kernel_close,
        )
        if not self._native:
            raise MemoryError(f"{buffers} buffers of {payload_bytes} bytes")
        self.channels: list[Channel] = []
        self._memberships = Memberships()
        self._receivers: list[socket.socket] = []
        self._senders: list[socket.socket] = []
        self._by_interface: list[tuple[socket.socket, str, IPv4Address | IPv6Address, int]] = []
        self._index_of: dict[str, int] = {}
        self._dropped = 0
        try:
            for channel in channels:
                self._open_channel(channel, receive_buffer_bytes)
        except BaseException:
            self.close()
            raise
        self.ref: Any = ffi.new("struct dpb_datagram_ref *")
        lib.dpb_kernel_ref(self._native, self.ref)
        self.counters = lib.dpb_kernel_counters(self._native)

    def _open_channel(self, channel: Channel, receive_buffer_bytes: int) -> None:
        s = bind_channel(
            channel,
            receive_buffer_bytes=receive_buffer_bytes,
            kernel_timestamps=self._clock == "real",
        )
        self._receivers.append(s)
        if channel.ip.is_multicast:
            self._memberships.add(s, channel)
        if lib.dpb_kernel_add_channel(self._native, s.fileno(), s.family) < 0:
            raise BindingsError(f"{len(self.channels)} channels are the most an endpoint takes")
        self.channels.append(replace(channel, port=s.getsockname()[1]))

    def add_peer(self, address: str, port: int, interface: str | None, ttl: int | None) -> int:
        """Prepares a destination.

        An address is sent to from the first channel of its family, so that the answer comes to
        that channel; a group, or an address without such a channel, from a socket of its own.
        """
        ip = parse_address(address)
        family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
        scope = interface_index(interface)
        name = (str(ip), port) if ip.version == 4 else (str(ip), port, 0, scope)
        s = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            _set_route(s, ip.is_multicast, scope, ttl)
            s.connect(name)  # also asks whether there is a route
        except OSError as error:
            s.close()
            raise BindingsError(
                f"cannot send to {address} port {port}: {error.strerror}",
                hint="`ip route get` shows what the kernel would do; a group may need its "
                "interface named",
            ) from error
        shared = next((r for r in self._receivers if r.family == family), None)
        raw = b""
        if ip.is_multicast or ttl is not None or shared is None:
            self._senders.append(s)
            if interface is not None:
                self._by_interface.append((s, interface, ip, port))
                self._index_of[interface] = scope
        else:
            s.close()
            s, raw = shared, _sockaddr(ip.packed, port, scope)
        number: int = lib.dpb_kernel_add_peer(
            self._native, s.fileno(), raw, len(raw), self._payload_bytes
        )
        if number < 0:
            raise BindingsError("an endpoint takes no more peers")
        return number

    def max_payload(self, peer: int) -> int:
        """What the buffers hold; the kernel fragments what is longer than the MTU."""
        return self._payload_bytes

    def peer_trouble(self, peer: int) -> str:
        """None that a socket would tell before it is sent by."""
        return ""

    @property
    def gone(self) -> bool:
        """Never: sockets stay open, whatever becomes of the interfaces."""
        return False

    @property
    def trouble(self) -> str:
        """What keeps groups from being received, or an empty string."""
        return self._memberships.trouble

    def housekeeping(self) -> None:
        """Joins groups again that were lost, and follows interfaces that were made anew.

        Routes the kernel follows itself.
        """
        self._memberships.follow()
        for interface, before in self._index_of.items():
            try:
                index = socket.if_nametoindex(interface)
            except OSError:  # there is none now
                continue
            if index != before:
                self._index_of[interface] = index if self._follow(interface, index) else 0

    def _follow(self, interface: str, index: int) -> bool:
        """Whether all sockets of `interface` could be given its new number."""
        try:
            for s, by, ip, port in self._by_interface:
                if by == interface:
                    _set_route(s, ip.is_multicast, index, None)
                    s.connect((str(ip), port) if ip.version == 4 else (str(ip), port, 0, index))
        except OSError:  # it is not ready to be sent by yet
            return False
        return True

    def losses(self) -> dict[str, int]:
        """What the kernel dropped because a channel's queue was full or a checksum was bad.

        The kernel looks at the checksums of short datagrams before it knows whose they are: the
        bad ones are in the host's UdpInCsumErrors only.
        """
        if self._receivers:
            self._dropped = sum(dropped(s) for s in self._receivers)
        return {
            "rx_kernel_dropped": self._dropped,
            "memberships_renewed": self._memberships.renewed,
        }

    def samples(self) -> dict[str, bytes]:
        """The last datagram that was too long for the buffers."""
        sample = lib.dpb_kernel_truncated_sample(self._native)
        return {"rx_truncated": bytes(ffi.buffer(sample.bytes, sample.kept))} if sample.len else {}

    def describe(self) -> dict[str, Any]:
        """Clock, buffers, and the receive buffer that the kernel granted each channel."""
        return {
            "backend": "kernel",
            "clock": self._clock,
            "payload_bytes": self._payload_bytes,
            "memberships": self._memberships.described,
            "channels": [f"{c.address} {c.port}" for c in self.channels],
            "receive_buffer_bytes": [
                s.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) for s in self._receivers
            ],
        }

    def close(self) -> None:
        """Closes the sockets, after a last look at what they dropped."""
        if self._receivers:
            self.losses()
        lib.dpb_kernel_detach(self._native)
        self._memberships.close()
        for s in self._receivers + self._senders:
            s.close()
        self._receivers = []
        self._senders = []
        self._by_interface = []
        self._index_of = {}


def _set_route(s: socket.socket, multicast: bool, scope: int, ttl: int | None) -> None:
    v4 = s.family == socket.AF_INET
    level = socket.IPPROTO_IP if v4 else socket.IPPROTO_IPV6
    if multicast and scope:
        if v4:
            request = bytes(8) + scope.to_bytes(4, "little")  # struct ip_mreqn
            s.setsockopt(level, socket.IP_MULTICAST_IF, request)
        else:
            s.setsockopt(level, socket.IPV6_MULTICAST_IF, scope)
    if ttl is not None:
        if multicast:
            option = socket.IP_MULTICAST_TTL if v4 else socket.IPV6_MULTICAST_HOPS
        else:
            option = socket.IP_TTL if v4 else socket.IPV6_UNICAST_HOPS
        s.setsockopt(level, option, ttl)


def _sockaddr(packed: bytes, port: int, scope: int) -> bytes:
    """``struct sockaddr_in`` or ``sockaddr_in6``."""
    if len(packed) == 4:
        return socket.AF_INET.to_bytes(2, "little") + port.to_bytes(2, "big") + packed + bytes(8)
    return (
        socket.AF_INET6.to_bytes(2, "little")
        + port.to_bytes(2, "big")
        + bytes(4)
        + packed
        + scope.to_bytes(4, "little")
    )
