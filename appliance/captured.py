"""What the flight recorders hold as a capture: pcapng with nanoseconds, Ethernet, and direction.

An interface of the capture is a source of a loop. What came by AF_XDP is written as the frame that
it was. Kernel sockets hand out payloads, and what is sent is recorded before its headers are
written: both get headers made from the addresses that are known, with zeros for MAC addresses.

What a stream brought is not written as the TCP segments that it came in, but as the transactions
that were made of them, in the feed's own format (docs/feed-format.md): MoldUDP64 over UDP, each
stream a session, from and to addresses of zeros. So whoever reads a feed reads these too, and an
envelope may be longer than a datagram.

Sources: draft-ietf-opsawg-pcapng; epb_flags say whether a frame came or was sent.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from appliance.flight_reader import Datagram, Trace, real_ns
from barewire.feeds.envelope import to_messages
from barewire.feeds.mold_publisher import MoldPublisher
from barewire.mempool.record import ORIGINS

__all__ = ["Written", "frame_of", "of_a_stream", "write_capture"]

_UDP = 17
_UNKNOWN = ("0.0.0.0", 0)  # noqa: S104 - where an address is not known, not one to listen on
_ETHERNET = 1
_SECTION, _INTERFACE, _PACKET = 0x0A0D0D0A, 1, 6
_COMMENT, _APPLICATION, _NAME, _DESCRIPTION, _RESOLUTION, _FLAGS = 1, 4, 2, 3, 9, 2
_INBOUND, _OUTBOUND = 1, 2
_STREAM = (
    "transactions that the stream brought, as MoldUDP64 (docs/feed-format.md of Barewire); the "
    "headers are made up"
)
_LONGEST_DATAGRAM = 60_000


@dataclass(slots=True)
class Written:
    """What a capture holds.

    Attributes:
        frames: all of them.
        sent: of these, outbound.
        streamed: transactions of streams, in as many frames or more.
        cut_short: frames of which the recorder kept a part, and transactions of streams that were
            left out because it did.
        first_ns: since 1970; 0 where there is none. last_ns: likewise.
    """

    frames: int = 0
    sent: int = 0
    streamed: int = 0
    cut_short: int = 0
    first_ns: int = 0
    last_ns: int = 0


def of_a_stream(record: Datagram | Trace) -> bool:
    """Whether it is a transaction that a stream brought."""
    if not isinstance(record, Trace) or record.hash is None:
        return False
    sources = record.about.sources
    return record.source < len(sources) and sources[record.source].stream


def write_capture(path: Path, records: Iterable[Datagram | Trace]) -> Written:
    """Writes datagrams, and what streams brought, to `path` in the order of their times."""
    done = Written()
    timed = sorted(
        ((real_ns(one), one) for one in records if isinstance(one, Datagram) or of_a_stream(one)),
        key=lambda pair: pair[0],
    )
    interfaces: dict[tuple[str, int], int] = {}
    streams: dict[int, MoldPublisher] = {}
    with path.open("wb") as file:
        file.write(_section())
        for at_ns, one in timed:
            place = (one.about.loop, one.source)
            if place not in interfaces:
                interfaces[place] = len(interfaces)
                about = _STREAM if isinstance(one, Trace) else ""
                file.write(_interface(f"{one.about.loop}/{one.source_name}", about))
            number = interfaces[place]
            if isinstance(one, Datagram):
                frame, full = frame_of(one)
                done.cut_short += len(frame) < full
                done.sent += one.out
                flags = _OUTBOUND if one.out else _INBOUND
                file.write(_packet(number, at_ns, frame, full, flags))
                done.frames += 1
            elif len(one.raw) < one.full_bytes:
                done.cut_short += 1
                continue
            else:
                if number not in streams:
                    streams[number] = MoldPublisher(
                        f"STREAM{number:04d}", max_datagram=_LONGEST_DATAGRAM, store_messages=1
                    )
                for frame in _streamed(one, streams[number]):
                    file.write(_packet(number, at_ns, frame, len(frame), _INBOUND, one.origin))
                    done.frames += 1
                done.streamed += 1
            done.first_ns = done.first_ns or at_ns
            done.last_ns = at_ns
    return done


def _streamed(trace: Trace, publisher: MoldPublisher) -> Iterator[bytes]:
    origin = next((one for one in ORIGINS if one == trace.origin), ORIGINS[0])
    messages = to_messages(trace.raw, publisher.max_message, publisher.next_sequence, origin=origin)
    for datagram in publisher.pack(messages):
        yield _headers(_UNKNOWN, _UNKNOWN, datagram, len(datagram)) + datagram


def _section() -> bytes:
    """The Section Header Block: byte order, version 1.0, of a length that is not told."""
    body = struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1) + _options({_APPLICATION: b"barewire record"})
    return _block(_SECTION, body)


def _interface(name: str, description: str) -> bytes:
    """An Interface Description Block: Ethernet, no limit, nanoseconds."""
    options = {_NAME: name.encode(), _DESCRIPTION: description.encode(), _RESOLUTION: b"\x09"}
    body = struct.pack("<HHI", _ETHERNET, 0, 0)
    return _block(_INTERFACE, body + _options({k: v for k, v in options.items() if v}))


def _packet(
    interface: int, at_ns: int, frame: bytes, full: int, flags: int, origin: str = ""
) -> bytes:
    """An Enhanced Packet Block."""
    head = struct.pack("<IIIII", interface, at_ns >> 32, at_ns & 0xFFFFFFFF, len(frame), full)
    options = {_COMMENT: f"origin: {origin}".encode() if origin else b""}
    options = {k: v for k, v in options.items() if v} | {_FLAGS: struct.pack("<I", flags)}
    return _block(_PACKET, head + _padded(frame) + _options(options))


def _options(options: dict[int, bytes]) -> bytes:
    written = (struct.pack("<HH", code, len(v)) + _padded(v) for code, v in options.items())
    return b"".join(written) + bytes(4)


def _block(kind: int, body: bytes) -> bytes:
    length = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + length + body + length


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


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
    content, full = datagram.content, datagram.full_bytes
    headers = _headers(sender or _UNKNOWN, receiver or _UNKNOWN, content, full)
    return headers + content, len(headers) + full


def _headers(
    sender: tuple[str, int], receiver: tuple[str, int], content: bytes, full: int
) -> bytes:
    source, dest = ip_address(sender[0]), ip_address(receiver[0])
    if isinstance(source, IPv6Address) != isinstance(dest, IPv6Address):
        # Of a pair of which one is not known; the family is that of the other.
        known = source if sender != _UNKNOWN else dest
        zero = IPv6Address(0) if isinstance(known, IPv6Address) else IPv4Address(0)
        source, dest = (source, zero) if known is source else (zero, dest)
    length = min(8 + full, 0xFFFF - 20)  # more is none that was ever sent
    udp = struct.pack(">HHHH", sender[1], receiver[1], length, 0)
    pseudo = source.packed + dest.packed + struct.pack(">IHBB", length, 0, 0, _UDP)
    if len(content) == full:
        checksum = _checksum(pseudo + udp + content) or 0xFFFF
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
