"""TCP over both families, tagged and padded; each also with a wrong and an unfinished checksum."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from scapy.layers.inet import IP, TCP
    from scapy.layers.inet6 import IPv6
    from scapy.layers.l2 import Dot1Q, Ether
    from scapy.packet import Packet, Raw

_ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")  # or scapy asks the network
_BELOW = (
    IP(src="10.0.0.1", dst="10.0.0.2"),
    IPv6(src="fd00::1", dst="fd00::2"),
    IP(src="10.0.0.1", dst="10.0.0.2", options=b"\x01\x01\x01\x01"),
    IP(src="10.0.0.1", dst="10.0.0.2", flags="MF"),
)
_SEGMENTS = (
    TCP(sport=1, dport=2, flags="S", options=[("MSS", 1460), ("WScale", 7), ("SAckOK", b"")]),
    TCP(sport=1, dport=2, flags="A") / Raw(b""),
    TCP(sport=1, dport=2, flags="PA") / Raw(b"some bytes"),
    TCP(sport=1, dport=2, flags="R", dataofs=15),
)


def seeds() -> Iterator[bytes]:
    for below in _BELOW:
        for segment in _SEGMENTS:
            for ether in (_ETHER, _ETHER / Dot1Q(vlan=7)):
                sound = bytes(_made(ether, below, segment))
                yield sound
                yield sound + bytes(6)
                yield sound[:-1]
                for checksum in (0, 0xFFFF, 0x1234):
                    segment_with = segment.copy()
                    segment_with.chksum = checksum
                    yield bytes(_made(ether, below, segment_with))


def _made(ether: Packet, below: Packet, segment: Packet) -> Packet:
    return ether / below / segment
