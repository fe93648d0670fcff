"""Transactions out of a packet capture: MoldUDP64 feeds, or one raw transaction a datagram."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from appliance.output import complain
from barewire.feeds.envelope import Reassembler
from barewire.feeds.moldudp64 import MoldConfig, MoldReceiver
from barewire.mempool.record import Origin
from dpdk_bindings.port import open_port
from dpdk_bindings.udp import parse_udp

__all__ = ["Arrived", "is_capture", "read_capture", "read_timed"]

_MAGICS = (
    b"\xa1\xb2\xc3\xd4",
    b"\xd4\xc3\xb2\xa1",
    b"\xa1\xb2\x3c\x4d",
    b"\x4d\x3c\xb2\xa1",
    b"\x0a\x0d\x0d\x0a",
)
_TYPED = range(1, 5)  # EIP-2718 types 1 to 4
_LIST = 0xC0  # a legacy transaction is an RLP list


def is_capture(content: bytes) -> bool:
    """Whether `content` begins like a pcap or pcapng file."""
    return content.startswith(_MAGICS)


def read_capture(path: Path) -> list[bytes]:
    """The envelopes in the capture at `path`, as :func:`read_timed`, without their times."""
    return [arrived.envelope for arrived in read_timed(path)]


class Arrived(NamedTuple):
    """An envelope: when it came, in nanoseconds of the capture's clock, itself, and how it came."""

    at_ns: int
    envelope: bytes
    origin: Origin = "announced"


def read_timed(path: Path) -> list[Arrived]:
    """The envelopes in the UDP payloads of the capture at `path`, each once, as they arrived.

    Only what was received: of a pcapng not what it marks as outbound. A payload is a MoldUDP64
    datagram when it adds up as one (feeds are told apart by session, and several lines of one are
    merged), and otherwise a transaction when it begins like one. Others are passed over.
    """
    feeds: dict[bytes, tuple[MoldReceiver, Reassembler]] = {}
    envelopes: list[Arrived] = []
    for number, (at_ns, payload) in enumerate(_payloads(path)):
        if _adds_up(payload):
            session = payload[:10]
            if session not in feeds:
                feeds[session] = (MoldReceiver(MoldConfig(lines=1, ask=False)), Reassembler())
            receiver, reassembler = feeds[session]
            for message in receiver.receive(0, payload, number):
                envelope = reassembler.push(message.data, number)
                if envelope is not None:
                    envelopes.append(Arrived(at_ns, envelope, reassembler.origin))
        elif payload and (payload[0] in _TYPED or payload[0] >= _LIST):
            envelopes.append(Arrived(at_ns, payload))
    return envelopes


def _payloads(path: Path) -> Iterator[tuple[int, bytes]]:
    with open_port(f"pcap:{path}") as port:
        while True:
            with port.poll() as burst:
                if not len(burst):
                    _complain_of(path, port.stats())
                    return
                for i in range(len(burst)):
                    datagram = parse_udp(burst[i], verify=False)
                    if datagram:
                        yield burst.arrival_ns(i), datagram.payload


def _complain_of(path: Path, stats: dict[str, int]) -> None:
    if stats["rx_bad_record"]:
        complain(
            f"{path}: a record is broken or the file ends inside it: what follows was not read",
            f"{stats['rx_frames']:,} frames were",
        )
    if stats["rx_other_link"]:
        complain(
            f"{path}: {stats['rx_other_link']:,} frames are not Ethernet and were passed over",
            'capture on an interface, not on "any"',
        )
    if stats["rx_cut_short"]:
        complain(
            f"{path}: {stats['rx_cut_short']:,} frames were cut short when they were captured",
            "what is in them is passed over; capture with `-s 0`",
        )


def _adds_up(payload: bytes) -> bool:
    """Whether `payload` is a MoldUDP64 datagram whose blocks end where it ends."""
    if len(payload) < 20 or not payload[:10].isascii():
        return False
    count, at = int.from_bytes(payload[18:20]), 20
    for _ in range(count if count != 0xFFFF else 0):
        at += 2 + int.from_bytes(payload[at : at + 2])
        if at > len(payload):
            return False
    return at == len(payload)
