"""The datagram endpoint over captures: no privileges, no interface, scapy at both ends."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from dpdk_bindings import BindingsError, Channel, open_datagram
from dpdk_bindings._native import lib

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from scapy.layers.inet import IP, TCP, UDP
    from scapy.layers.inet6 import IPv6
    from scapy.layers.l2 import ARP, Dot1Q, Ether
    from scapy.packet import Packet, Raw
    from scapy.utils import rdpcap, wrpcap

ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
CHANNELS = [Channel("10.0.0.2", 5000), Channel("239.1.1.1", 5001), Channel("fd00::2", 5000)]


def to(address: str, port: int, payload: bytes) -> Packet:
    ip = IPv6(src="fd00::1", dst=address) if ":" in address else IP(src="10.0.0.1", dst=address)
    return ip / UDP(sport=9, dport=port) / Raw(payload)


@pytest.fixture
def captured(tmp_path: Path) -> Path:
    broken = bytearray(bytes(ETHER / to("10.0.0.2", 5000, b"damaged")))
    broken[-1] ^= 1
    frames = [
        ETHER / to("10.0.0.2", 5000, b"first"),
        ETHER / ARP(),
        ETHER / to("239.1.1.1", 5001, b"second"),
        Ether(bytes(broken)),
        ETHER / to("10.0.0.2", 5001, b"another port"),
        ETHER / IP(dst="10.0.0.2") / TCP(dport=5000),
        ETHER / Dot1Q(vlan=3) / to("fd00::2", 5000, b"third"),
    ]
    for number, frame in enumerate(frames):
        frame.time = 1000 + number
    path = tmp_path / "in.pcap"
    wrpcap(str(path), frames)
    return path


def test_a_capture_is_received_from(captured: Path) -> None:
    with open_datagram(f"pcap:{captured}", channels=CHANNELS) as endpoint:
        assert endpoint.describe()["rx_checksum"] == "verify"
        with endpoint.recv() as burst:
            assert [bytes(payload) for payload in burst] == [b"first", b"second", b"third"]
            assert [burst.channel(i) for i in range(3)] == [0, 1, 2]
            assert burst.clock(0) == lib.DPB_CLOCK_CAPTURE
            assert [burst.arrival_ns(i) for i in range(3)] == [
                seconds * 10**9 for seconds in (1000, 1002, 1006)
            ]
            assert burst.source(0) == (bytes([10, 0, 0, 1]), 9)
        stats = endpoint.stats()
        causes = ("not_ip", "udp_checksum", "not_ours", "not_udp")
        assert {stats[f"rx_{cause}"] for cause in causes} == {1}
        assert set(endpoint.samples()) == {f"rx_{cause}" for cause in causes}
        assert stats["port_leaked"] == 0


def test_what_is_sent_is_captured(captured: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.pcap"
    with open_datagram(f"pcap:{captured}?out={out}", channels=CHANNELS) as endpoint:
        for number, address in enumerate(("10.0.0.1", "239.2.2.2", "fd00::1")):
            assert endpoint.add_peer(address, 7000) == number
            assert endpoint.send(number, b"to %d" % number)
        assert endpoint.flush()
    frames = rdpcap(str(out))
    assert [bytes(frame[UDP].payload) for frame in frames] == [b"to 0", b"to 1", b"to 2"]
    assert [frame[UDP].sport for frame in frames] == [5000, 9, 5000]
    assert frames[1].dst == "01:00:5e:02:02:02"
    assert frames[0][IP].src == "10.0.0.2"


def test_a_peer_by_an_interface_is_refused(captured: Path) -> None:
    with (
        open_datagram(f"pcap:{captured}", channels=CHANNELS) as endpoint,
        pytest.raises(BindingsError, match="'eth7', but this endpoint sends by pcap:"),
    ):
        endpoint.add_peer("10.0.0.1", 7000, interface="eth7")
