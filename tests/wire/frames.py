"""Frames made by scapy, for tests that send raw bytes."""

from __future__ import annotations

import socket
from typing import Any

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Raw

from appliance.lab import Namespace, Pair

__all__ = ["ICMP", "IP", "TCP", "UDP", "Dot1Q", "Ether", "IPv6", "Raw", "raw_socket", "udp"]


def udp(
    pair: Pair, payload: bytes, *, port: int = 5000, six: bool = False, tags: tuple[int, ...] = ()
) -> bytes:
    """A UDP frame from `pair.a` to `pair.b`, with VLAN tags."""
    frame: Any = Ether(dst=pair.b.mac, src=pair.a.mac)
    for tag in tags:
        frame /= Dot1Q(vlan=tag)
    frame /= IPv6(src=pair.a.ip6, dst=pair.b.ip6) if six else IP(src=pair.a.ip4, dst=pair.b.ip4)
    return bytes(frame / UDP(sport=4000, dport=port) / Raw(payload))


def raw_socket(end: Namespace, protocol: int = 0) -> socket.socket:
    """A packet socket on `end`: sends whole frames; receives those of `protocol`, if given."""
    with end:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(protocol))
        sock.bind((end.interface, protocol))
    sock.settimeout(30)
    return sock
