"""A link that goes down, loses its carrier or is deleted under who sends: nothing leaves late.

The oracle is the other end: what it hears after the link is back.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from appliance.lab import Namespace, Pair
from dpdk_bindings import Channel, DatagramEndpoint, Port, SharedPort, open_datagram, open_port
from tests.requires import requires_root
from tests.wire.frames import raw_socket

PROTOCOL = 0x88B5  # IEEE 802: for experiments
MODES = ("skb", "drv")
CAUSES = ("tx_link_down", "tx_unresolved", "tx_failed")


@pytest.fixture
def pair() -> Iterator[Pair]:
    requires_root()
    with Pair(mtu=9000) as made:
        yield made


def frame(pair: Pair, payload: bytes) -> bytes:
    return bytes.fromhex(f"{pair.a.mac}{pair.b.mac}88b5".replace(":", "")) + payload


def opened(end: Namespace, mode: str) -> Port:
    with end:
        return open_port(f"afxdp:veth0?mode={mode}&ring=64")


def link(end: Namespace, state: str) -> None:
    end.run("ip", "link", "set", "veth0", state)


def heard_until(ear: socket.socket, last: bytes) -> list[bytes]:
    """Payloads up to and with `last`."""
    heard = []
    while not heard or heard[-1] != last:
        heard.append(ear.recv(10000)[14 : 14 + len(last)])
    return heard


def send_when_up(port: Port, marker: bytes) -> None:
    end = time.monotonic() + 30
    while not port.send(marker) or not port.flush():
        port.poll()
        assert time.monotonic() < end, port.stats()


def test_each_member_of_a_shared_port_is_told_of_its_own_losses(pair: Pair) -> None:
    """Whoever flushes sends for all, and is told of all that was thrown away."""
    with pair.b:
        shared = SharedPort(open_port("afxdp:veth0?mode=skb&ring=64"))
        one, other = shared.member(), shared.member()
    with one, other:
        link(pair.a, "down")
        deadline = time.monotonic() + 10
        while one.flush():  # the carrier goes a moment later
            one.send(frame(pair, b"x"))
            assert time.monotonic() < deadline
        assert other.flush()
        for _ in range(3):
            assert one.send(frame(pair, b"of one"))
        assert other.send(frame(pair, b"of the other"))
        assert [other.flush(), other.flush()] == [False, True]
        assert [one.flush(), one.flush()] == [False, True]
        assert one.send(frame(pair, b"of one"))
        assert other.flush()
        assert not one.flush()


@pytest.mark.parametrize("mode", MODES)
def test_what_a_link_that_is_down_refused_never_leaves(pair: Pair, mode: str) -> None:
    marker = b"now it is up, and before that was nothing".ljust(60)
    with opened(pair.b, mode) as port, raw_socket(pair.a, PROTOCOL) as ear:
        sizes = (60, 60, 5000, 60)  # of one and of two buffers
        for rounds in range(1, 4):
            link(pair.b, "down")
            for size in sizes:
                assert port.send(frame(pair, b"late".ljust(size)))
            assert not port.flush()
            assert not port.send(frame(pair, b"later".ljust(60)))  # known by now
            assert port.flush()  # nothing is queued
            stats = port.stats()
            assert stats["tx_withdrawn"] == rounds * len(sizes)
            assert (stats["tx_pending"], stats["tx_link_down"] >= rounds) == (0, True)
            link(pair.b, "up")
            send_when_up(port, frame(pair, marker))
            assert heard_until(ear, marker) == [marker]


@pytest.mark.parametrize("mode", MODES)
def test_a_whole_ring_is_withdrawn_and_used_again(pair: Pair, mode: str) -> None:
    marker = b"the ring is clear".ljust(60)
    with opened(pair.b, mode) as port, raw_socket(pair.a, PROTOCOL) as ear:
        link(pair.b, "down")
        queued = 0
        while port.send(frame(pair, b"late".ljust(60))):
            queued += 1
        assert queued >= 16
        assert not port.flush()
        assert port.stats()["tx_withdrawn"] == queued
        link(pair.b, "up")
        for _ in range(3 * queued):  # the ring goes round
            send_when_up(port, frame(pair, marker))
            assert heard_until(ear, marker) == [marker]


def test_what_was_queued_and_not_flushed_is_taken_back(pair: Pair) -> None:
    with pair.b:
        endpoint = open_datagram("afxdp:veth0", channels=[Channel(pair.b.ip4, 5000)])
    with endpoint, udp_socket(pair.a) as ear:
        peer = endpoint.add_peer(pair.a.ip4, ear.getsockname()[1])
        send(endpoint, peer, b"first")
        assert endpoint.send(peer, b"second thoughts")
        assert endpoint.withdraw() == 1
        assert endpoint.flush()
        send(endpoint, peer, b"third")
        assert [ear.recv(100), ear.recv(100)] == [b"first", b"third"]
        stats = endpoint.stats()
        assert (stats["tx_datagrams"], stats["tx_withdrawn"]) == (2, 1)


@pytest.mark.parametrize("mode", MODES)
def test_frames_without_a_carrier_are_dropped_now_not_sent_later(pair: Pair, mode: str) -> None:
    marker = b"the carrier is back".ljust(60)
    with opened(pair.b, mode) as port:
        link(pair.a, "down")
        refused = 0
        while refused < 20:
            assert port.send(frame(pair, b"late".ljust(60)))
            refused += not port.flush()
        stats = port.stats()
        assert stats["tx_dropped"] + stats["tx_withdrawn"] == stats["tx_frames"] == refused > 0
        link(pair.a, "up")
        with raw_socket(pair.a, PROTOCOL) as ear:
            send_when_up(port, frame(pair, marker))
            assert heard_until(ear, marker) == [marker]


def test_a_deleted_interface_refuses_and_raises_nothing(pair: Pair) -> None:
    with opened(pair.b, "skb") as port:
        assert port.send(frame(pair, bytes(60)))
        pair.b.run("ip", "link", "del", "veth0")
        assert not port.flush()
        for _ in range(3):
            assert not port.send(frame(pair, bytes(60)))
            assert port.flush()
            assert not port.poll()


def udp_socket(end: Namespace) -> socket.socket:
    with end:
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.bind((end.ip4, 0))
    s.settimeout(30)
    return s


def send(endpoint: DatagramEndpoint, peer: int, payload: bytes) -> None:
    end = time.monotonic() + 30
    while not endpoint.send(peer, payload) or not endpoint.flush():
        endpoint.housekeeping()
        assert time.monotonic() < end, (endpoint.stats(), endpoint.peer_trouble(peer))
        time.sleep(0.001)


@pytest.mark.parametrize("via", ["kernel", "afxdp:veth0"])
@pytest.mark.parametrize("kept", [False, True], ids=["blind", "housekeeping"])
def test_an_endpoint_says_false_counts_and_goes_on(pair: Pair, via: str, kept: bool) -> None:
    """With a housekeeping that has seen the link go, and before it has."""
    with pair.b:
        endpoint = open_datagram(via, channels=[Channel(pair.b.ip4, 5000)])
    with endpoint, udp_socket(pair.a) as ear:
        with pair.b:
            peer = endpoint.add_peer(pair.a.ip4, ear.getsockname()[1])
        send(endpoint, peer, b"before")
        assert ear.recv(100) == b"before"
        link(pair.b, "down")
        if kept and via != "kernel":
            until(endpoint, "interface veth0 is down")
            assert endpoint.peer_trouble(peer) == "interface veth0 is down"
        before = endpoint.stats()
        for _ in range(10):
            assert not (endpoint.send(peer, b"late") and endpoint.flush())
        after = endpoint.stats()
        grown = {name: after[name] - before[name] for name in after if name.startswith("tx_")}
        assert sum(grown[cause] for cause in CAUSES) == 10, grown
        assert (grown["tx_datagrams"], grown["tx_bytes"]) == (0, 0)
        link(pair.b, "up")
        if via != "kernel":
            until(endpoint, "")
        send(endpoint, peer, b"after")
        assert ear.recv(100) == b"after"


def until(endpoint: DatagramEndpoint, trouble: str) -> None:
    end = time.monotonic() + 30
    while endpoint.trouble != trouble:
        endpoint.housekeeping()
        assert time.monotonic() < end, endpoint.trouble


def test_one_of_two_joined_interfaces_refuses_for_itself(pair: Pair) -> None:
    pair.b.run("ip", "link", "add", "other", "type", "veth", "peer", "name", "beyond")
    pair.b.run("ip", "addr", "add", "10.56.0.1/24", "dev", "other")
    pair.b.run("ip", "neigh", "add", "10.56.0.2", "lladdr", "02:0:0:0:56:2", "dev", "other")
    for name in ("other", "beyond"):
        pair.b.run("ip", "link", "set", name, "up")
    channels = [Channel(pair.b.ip4, 5000), Channel("10.56.0.1", 5000)]
    with pair.b:
        endpoint = open_datagram(["afxdp:veth0", "afxdp:other"], channels=channels)
    with endpoint, udp_socket(pair.a) as ear:
        near = endpoint.add_peer(pair.a.ip4, ear.getsockname()[1])
        lost = endpoint.add_peer("10.56.0.2", 5000)
        send(endpoint, near, b"one")
        send(endpoint, lost, b"two")
        pair.b.run("ip", "link", "set", "other", "down")
        assert endpoint.send(lost, b"late")
        assert endpoint.send(near, b"three")
        assert not endpoint.flush()
        until(endpoint, "interface other is down")
        assert endpoint.peer_trouble(lost) == "interface other is down"
        assert endpoint.peer_trouble(near) == ""
        send(endpoint, near, b"four")
        assert [ear.recv(9) for _ in range(3)] == [b"one", b"three", b"four"]
        stats = endpoint.stats()
        assert (stats["tx_datagrams"], stats["tx_failed"]) == (4, 1)
