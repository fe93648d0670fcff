"""Headers taken apart and put together, against scapy, which knows nothing of our code."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpdk_bindings._native import ffi, lib

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from scapy.layers.inet import ICMP, IP, TCP, UDP
    from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
    from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
    from scapy.packet import Packet, Raw
    from scapy.utils import checksum

MACS = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}
REASONS = {
    value: name.removeprefix("DPB_REJECT_").lower()
    for value, name in ffi.typeof("enum dpb_reject").elements.items()
}


def parse(frame: bytes, *, verify: bool = True) -> tuple[str, Any]:
    """The reason, and the fields when there is none to reject."""
    data = ffi.new("uint8_t[]", frame)
    out = ffi.new("struct dpb_udp *")
    reason = REASONS[lib.dpb_udp_parse(data, len(frame), verify, out)]
    if reason != "none":
        return reason, None
    width = 4 if out.family == 4 else 16
    return reason, {
        "payload": bytes(ffi.buffer(out.payload, out.payload_len)),
        "source": bytes(ffi.buffer(out.source, width)),
        "dest": bytes(ffi.buffer(out.dest, width)),
        "ports": (out.source_port, out.dest_port),
        "vlan": out.vlan,
    }


ports = st.integers(0, 65535)


@st.composite
def packets(draw: st.DrawFn) -> Packet:
    """A sound UDP frame of any make that we take, by scapy."""
    packet = Ether(**MACS)
    if draw(st.booleans()):
        packet /= Dot1Q(vlan=draw(st.integers(0, 4095)), prio=draw(st.integers(0, 7)))
    if draw(st.booleans()):
        source, dest = (str(draw(st.ip_addresses(v=4))) for _ in range(2))
        packet /= IP(src=source, dst=dest, ttl=draw(st.integers(0, 255)), flags="DF", id=0)
    else:
        source, dest = (str(draw(st.ip_addresses(v=6))) for _ in range(2))
        packet /= IPv6(src=source, dst=dest, hlim=draw(st.integers(0, 255)))
    payload = draw(st.binary(min_size=1, max_size=300))
    return packet / UDP(sport=draw(ports), dport=draw(ports)) / Raw(payload)


def fields(packet: Packet) -> dict[str, Any]:
    ip = packet[IP] if IP in packet else packet[IPv6]
    tag = bytes(packet[Dot1Q])[:2] if Dot1Q in packet else b"\xff\xff"
    raw = bytes(ip)
    source, dest = (raw[12:16], raw[16:20]) if IP in packet else (raw[8:24], raw[24:40])
    return {
        "payload": bytes(packet[UDP].payload),
        "source": source,
        "dest": dest,
        "ports": (packet[UDP].sport, packet[UDP].dport),
        "vlan": int.from_bytes(tag, "big"),
    }


@given(packets(), st.binary(max_size=20), st.booleans())
def test_a_sound_frame_is_taken_as_it_was_made(
    packet: Packet, padding: bytes, verify: bool
) -> None:
    assert parse(bytes(packet) + padding, verify=verify) == ("none", fields(packet))


@given(packets())
@settings(max_examples=30)
def test_every_truncation_is_rejected(packet: Packet) -> None:
    frame = bytes(packet)
    for length in range(len(frame)):
        assert parse(frame[:length], verify=False)[0] == "truncated"


@given(packets(), st.data())
def test_a_flipped_bit_behind_the_ip_header_is_seen(packet: Packet, data: st.DataObject) -> None:
    frame = bytearray(bytes(packet))
    first = len(frame) - len(bytes(packet[UDP]))
    bit = data.draw(st.integers(8 * first, 8 * len(frame) - 1))
    frame[bit // 8] ^= 1 << bit % 8
    reason = parse(bytes(frame))[0]
    checksum_now = bytes(frame[first + 6 : first + 8])
    if checksum_now == b"\0\0":
        assert reason == ("none" if IP in packet else "udp_checksum_missing")
    else:
        assert reason.startswith(("udp_checksum", "udp_length"))


@given(st.binary(max_size=200), st.booleans())
def test_garbage_has_a_reason(frame: bytes, verify: bool) -> None:
    parse(frame, verify=verify)


@given(packets(), st.data())
def test_garbage_behind_a_sound_start_has_a_reason(packet: Packet, data: st.DataObject) -> None:
    frame = bytes(packet)
    cut = data.draw(st.integers(0, len(frame)))
    parse(frame[:cut] + data.draw(st.binary(max_size=100)), verify=data.draw(st.booleans()))


V4 = Ether(**MACS) / IP(src="10.0.0.1", dst="10.0.0.2")
V6 = Ether(**MACS) / IPv6(src="fd00::1", dst="fd00::2")
DATAGRAM = UDP(sport=1, dport=2) / Raw(b"payload")


def changed(packet: Packet, at: int, value: bytes, *, mend: bool = True) -> bytes:
    """The frame with bytes at an offset from the IP header replaced, IPv4 checksum made right."""
    frame = bytearray(bytes(packet))
    frame[14 + at : 14 + at + len(value)] = value
    if mend and IP in packet:
        frame[24:26] = bytes(2)
        frame[24:26] = checksum(bytes(frame[14:34])).to_bytes(2, "big")
    return bytes(frame)


REJECTED = {
    "not_ip": [bytes(Ether(**MACS) / ARP()), bytes(Ether(**MACS, type=0x1234) / Raw(bytes(60)))],
    "nested_tag": [
        bytes(Ether(**MACS) / Dot1Q(vlan=1) / Dot1Q(vlan=2) / V4[IP] / DATAGRAM),
        bytes(Ether(**MACS) / Dot1AD(vlan=1) / Dot1Q(vlan=2) / V4[IP] / DATAGRAM),
    ],
    "ip_version": [
        bytes(Ether(**MACS, type=0x86DD) / V4[IP] / DATAGRAM / Raw(bytes(40))),
        bytes(Ether(**MACS, type=0x0800) / V6[IPv6] / DATAGRAM),
    ],
    "ip_options": [
        bytes(Ether(**MACS) / IP(options=[b"\x01\x01\x01\x01"]) / DATAGRAM),
        bytes(V6 / IPv6ExtHdrHopByHop() / DATAGRAM),
    ],
    "ip_length": [
        changed(V4 / DATAGRAM, 0, b"\x44"),
        changed(V4 / DATAGRAM, 2, b"\x00\x13"),
    ],
    "ip_checksum": [
        changed(V4 / DATAGRAM, 8, b"\x07", mend=False),
        changed(V4 / DATAGRAM, 10, b"\xff\xff", mend=False),
    ],
    "fragment": [
        bytes(Ether(**MACS) / IP(flags="MF") / DATAGRAM),
        bytes(Ether(**MACS) / IP(frag=5) / DATAGRAM),
        bytes(V6 / IPv6ExtHdrFragment() / DATAGRAM),
    ],
    "not_udp": [bytes(V4 / TCP()), bytes(V4 / ICMP()), bytes(V6 / TCP())],
    "udp_length": [
        changed(V4 / DATAGRAM, 24, b"\x00\x07"),
        changed(V4 / DATAGRAM, 24, b"\x00\x10"),
        changed(V4 / DATAGRAM, 2, b"\x00\x1b"),
        changed(V6 / DATAGRAM, 44, b"\x00\x10"),
        changed(V6 / DATAGRAM, 4, b"\x00\x07"),
    ],
    "udp_checksum": [
        changed(V4 / DATAGRAM, 26, b"\x12\x34"),
        changed(V6 / DATAGRAM, 46, b"\x12\x34"),
    ],
    "udp_checksum_missing": [changed(V6 / DATAGRAM, 46, b"\x00\x00")],
}


@pytest.mark.parametrize(
    ("reason", "frame"), [(reason, frame) for reason, all_ in REJECTED.items() for frame in all_]
)
def test_every_reason(reason: str, frame: bytes) -> None:
    assert parse(frame)[0] == reason


@pytest.mark.parametrize("packet", [V4 / DATAGRAM, V6 / DATAGRAM], ids=["ip4", "ip6"])
def test_a_checksum_left_to_hardware_is_told_from_a_bad_one(packet: Packet) -> None:
    ip = bytes(packet[IP] if IP in packet else packet[IPv6])
    addresses = ip[12:20] if IP in packet else ip[8:40]
    length = len(bytes(packet[UDP]))
    pseudo = addresses + (17).to_bytes(2, "big") + length.to_bytes(2, "big")
    unfinished = checksum(pseudo) ^ 0xFFFF  # what Linux writes for CHECKSUM_PARTIAL
    frame = changed(packet, 26 if IP in packet else 46, unfinished.to_bytes(2, "big"))
    assert parse(frame)[0] == "udp_checksum_unfinished"
    assert parse(frame, verify=False)[0] == "none"


def test_no_checksum_over_ip4_is_allowed() -> None:
    assert parse(changed(V4 / DATAGRAM, 26, b"\x00\x00"))[0] == "none"


def route(packet: Packet, mtu: int = 1500) -> Any:
    wanted = fields(packet)
    made = ffi.new("struct dpb_tx_route *")
    made.source_mac = bytes.fromhex(MACS["src"].replace(":", ""))
    made.dest_mac = bytes.fromhex(MACS["dst"].replace(":", ""))
    made.source = wanted["source"].ljust(16, b"\0")
    made.dest = wanted["dest"].ljust(16, b"\0")
    made.source_port, made.dest_port = wanted["ports"]
    made.vlan = wanted["vlan"]
    made.mtu = mtu
    made.family = 4 if IP in packet else 6
    made.ttl = packet[IP].ttl if IP in packet else packet[IPv6].hlim
    return made


@given(packets())
def test_headers_put_together_are_scapys(packet: Packet) -> None:
    headers = ffi.new("struct dpb_tx_headers *")
    lib.dpb_tx_prepare(route(packet), headers)
    payload = fields(packet)["payload"]
    frame = ffi.new("uint8_t[]", bytes(ffi.buffer(headers.bytes, headers.len)) + payload)
    assert lib.dpb_tx_finish(headers, frame, len(payload)) == len(bytes(packet))
    assert bytes(ffi.buffer(frame))[: -1 or None][: len(bytes(packet))] == bytes(packet)


@pytest.mark.parametrize(
    ("packet", "left"), [(V4 / DATAGRAM, 1472), (V6 / DATAGRAM, 1452)], ids=["ip4", "ip6"]
)
def test_the_mtu_limits_the_payload(packet: Packet, left: int) -> None:
    headers = ffi.new("struct dpb_tx_headers *")
    lib.dpb_tx_prepare(route(packet), headers)
    assert headers.payload_max == left
    lib.dpb_tx_prepare(route(packet, mtu=20), headers)
    assert headers.payload_max == 0


def test_a_checksum_of_zero_is_sent_as_ffff() -> None:
    """RFC 768: transmitted as all ones."""
    headers = ffi.new("struct dpb_tx_headers *")
    lib.dpb_tx_prepare(route(V4 / DATAGRAM), headers)
    seen = set()
    for payload in range(0x10000):
        frame = ffi.new("uint8_t[]", 64)
        frame[headers.len], frame[headers.len + 1] = payload >> 8, payload & 255
        lib.dpb_tx_finish(headers, frame, 2)
        seen.add((frame[40], frame[41]))
    assert (0, 0) not in seen
    assert (255, 255) in seen
    assert len(seen) == 0xFFFF
