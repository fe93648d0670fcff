"""Recorded datagrams as a capture: classic pcap with nanoseconds, Ethernet.

What came by AF_XDP is written as the frame that it was. Kernel sockets hand out payloads, and what
is sent is recorded before its headers are written: both get headers made from the addresses that
are known, with zeros for MAC addresses.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from appliance.flight_reader import Datagram, real_ns

__all__ = ["frame_of", "write_capture"]

# draft-ietf-opsawg-pcap: nanoseconds, version 2.4, LINKTYPE_ETHERNET.
_FILE_HEADER = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1)
_UDP = 17
_UNKNOWN = ("0.0.0.0", 0)  # noqa: S104 - where an address is not known, not one to listen on


def write_capture(path: Path, datagrams: Iterable[Datagram]) -> int:
    """Writes `datagrams` to `path` in the order of their times; returns how many."""
    timed = sorted(((real_ns(one), one) for one in datagrams), key=lambda pair: pair[0])
    with path.open("wb") as file:
        file.write(_FILE_HEADER)
        for at_ns, datagram in timed:
            frame, full = frame_of(datagram)
            seconds, ns = divmod(at_ns, 10**9)
            file.write(struct.pack("<IIII", seconds, ns, len(frame), full) + frame)
    return len(timed)


def frame_of(datagram: Datagram) -> tuple[bytes, int]:
    """The frame, and how long it was on the wire."""
    if datagram.headers:
        return datagram.content, datagram.full_bytes
    about, source = datagram.about, datagram.source
    channels = about.sources[source].channels if source < len(about.sources) else []
    if datagram.out:
        sender = channels[0] if channels else None
        receiver = about.peers.get(f"{source}/{datagram.place}")
    else:
        sender = datagram.sender
        receiver = channels[datagram.place] if datagram.place < len(channels) else None
    headers = _headers(sender or _UNKNOWN, receiver or _UNKNOWN, datagram)
    return headers + datagram.content, len(headers) + datagram.full_bytes


def _headers(sender: tuple[str, int], receiver: tuple[str, int], datagram: Datagram) -> bytes:
    source, dest = ip_address(sender[0]), ip_address(receiver[0])
    if isinstance(source, IPv6Address) != isinstance(dest, IPv6Address):
        # Of a pair of which one is not known; the family is that of the other.
        known = source if sender != _UNKNOWN else dest
        zero = IPv6Address(0) if isinstance(known, IPv6Address) else IPv4Address(0)
        source, dest = (source, zero) if known is source else (zero, dest)
    length = min(8 + datagram.full_bytes, 0xFFFF - 20)  # more is none that was ever sent
    udp = struct.pack(">HHHH", sender[1], receiver[1], length, 0)
    pseudo = source.packed + dest.packed + struct.pack(">IHBB", length, 0, 0, _UDP)
    if len(datagram.content) == datagram.full_bytes:
        checksum = _checksum(pseudo + udp + datagram.content) or 0xFFFF
        udp = udp[:6] + checksum.to_bytes(2, "big")
    if isinstance(source, IPv6Address):
        ip = struct.pack(">IHBB", 6 << 28, length, _UDP, 64) + source.packed + dest.packed
        return bytes(12) + b"\x86\xdd" + ip + udp
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + length, 0, 0x4000, 64, _UDP, 0)
    ip += source.packed + dest.packed
    ip = ip[:10] + _checksum(ip).to_bytes(2, "big") + ip[12:]
    return bytes(12) + b"\x08\x00" + ip + udp


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
