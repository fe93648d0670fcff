"""One suite for both backends of the datagram endpoint: kernel sockets, and AF_XDP.

The other end is a kernel socket, or a raw one where a frame has to be made by hand.
"""

from __future__ import annotations

import socket
import struct
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from appliance.lab import Namespace, Pair
from dpdk_bindings import Channel, DatagramEndpoint, Datagrams, open_datagram
from dpdk_bindings._native import lib
from dpdk_bindings.errors import BindingsError, Released
from tests.requires import requires_root

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from scapy.layers.inet import IP, UDP
    from scapy.layers.l2 import Dot1Q, Ether
    from scapy.packet import Packet, Raw

Address = Callable[[Namespace], str]
FAMILIES = [
    pytest.param(lambda end: end.ip4, id="ip4"),
    pytest.param(lambda end: end.ip6, id="ip6"),
]
IP_RECVTTL = 12  # linux/in.h
GROUPS = {"ip4": "239.55.1.1", "ip6": "ff15::55"}


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    requires_root()
    with Pair(queues=2, mtu=9000) as made:
        yield made


JOINED = ("afxdp:veth0", "afxdp:more0")


@pytest.fixture(params=["kernel", "afxdp:veth0", JOINED], ids=["kernel", "afxdp", "joined"])
def via(request: pytest.FixtureRequest, pair: Pair) -> Iterator[str | tuple[str, ...]]:
    """Joined is an endpoint over two ports, of which only one has anything to do."""
    if request.param is not JOINED:
        yield request.param
        return
    pair.a.run("ip", "link", "add", "more0", "type", "veth", "peer", "name", "more1")
    pair.a.run("ip", "link", "set", "more0", "up")
    try:
        yield request.param
    finally:
        pair.a.run("ip", "link", "del", "more0")


@contextmanager
def opened(pair: Pair, via: str, *channels: Channel, **options: Any) -> Iterator[DatagramEndpoint]:
    """The endpoint under test, in namespace a."""
    if via == "kernel":
        options.pop("rx_checksum", None)
    else:
        options.setdefault("rx_checksum", "verify")
    with pair.a:
        endpoint = open_datagram(via, channels=channels, **options)
    with endpoint:
        yield endpoint


@contextmanager
def far(pair: Pair, address: str, port: int = 0) -> Iterator[socket.socket]:
    """A kernel socket in namespace b."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with pair.b:
        s = socket.socket(family, socket.SOCK_DGRAM)
    with s:
        s.bind((address, port))
        s.settimeout(30)
        yield s


def collect(endpoint: DatagramEndpoint, n: int, seconds: float = 30) -> list[tuple[int, bytes]]:
    """(channel, payload) of the next `n` datagrams."""
    seen: list[tuple[int, bytes]] = []
    end = time.monotonic() + seconds
    while len(seen) < n and time.monotonic() < end:
        endpoint.housekeeping()
        with endpoint.recv() as burst:
            seen += [(burst.channel(i), bytes(burst[i])) for i in range(len(burst))]
    return seen


def wait(endpoint: DatagramEndpoint) -> Datagrams:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if burst := endpoint.recv():
            return burst
    raise AssertionError("nothing came")


def send(endpoint: DatagramEndpoint, peer: int, payload: bytes) -> None:
    """Sends, waiting for the kernel to resolve the peer where it has to."""
    end = time.monotonic() + 30
    while not endpoint.send(peer, payload):
        assert time.monotonic() < end, endpoint.stats()
        endpoint.housekeeping()
        time.sleep(0.001)
    assert endpoint.flush()


def add_peer(pair: Pair, endpoint: DatagramEndpoint, *where: Any, **how: Any) -> int:
    """Within the namespace: a peer may need a socket of its own."""
    with pair.a:
        return endpoint.add_peer(*where, **how)


def until(endpoint: DatagramEndpoint, counter: str, value: int) -> None:
    """Polls until a counter says so; nothing must be shown meanwhile."""
    end = time.monotonic() + 30
    while endpoint.stats()[counter] < value:
        assert not endpoint.recv()
        assert time.monotonic() < end, endpoint.stats()
    assert endpoint.stats()[counter] == value


def inject(pair: Pair, *frames: bytes) -> None:
    """Puts whole frames on the wire from namespace b."""
    with pair.b, socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind(("veth0", 0))
        for frame in frames:
            raw.send(frame)


def made(pair: Pair, port: int, payload: bytes = b"by hand", *, tag: int | None = None) -> Packet:
    """A frame from b to a, by scapy."""
    frame = Ether(src=pair.b.mac, dst=pair.a.mac)
    if tag is not None:
        frame /= Dot1Q(vlan=tag)
    frame /= IP(src=pair.b.ip4, dst=pair.a.ip4)
    return frame / UDP(sport=9, dport=port) / Raw(payload)


@pytest.mark.parametrize("of", FAMILIES)
def test_datagrams_go_there_and_back(pair: Pair, via: str, of: Address) -> None:
    with opened(pair, via, Channel(of(pair.a), 7001)) as endpoint, far(pair, of(pair.b)) as other:
        before = time.monotonic_ns()
        other.sendto(b"ping", (of(pair.a), 7001))
        with wait(endpoint) as burst:
            assert list(burst) == [b"ping"]
            packed = socket.inet_pton(other.family, of(pair.b))
            assert burst.source(0) == (packed, other.getsockname()[1])
            assert burst.clock(0) == lib.DPB_CLOCK_MONO
            assert before < burst.arrival_ns(0) < time.monotonic_ns()
        peer = add_peer(pair, endpoint, of(pair.b), other.getsockname()[1])
        for payload in (b"x", b"odd", bytes(range(256)), b"\xff" * 1400):
            send(endpoint, peer, payload)
            back, source = other.recvfrom(2000)
            assert (back, source[:2]) == (payload, (of(pair.a), 7001))
        stats = endpoint.stats()
        assert (stats["rx_datagrams"], stats["tx_datagrams"], stats["borrowed"]) == (1, 4, 0)
        assert stats["tx_bytes"] == 1 + 3 + 256 + 1400


@pytest.mark.parametrize("of", FAMILIES)
def test_a_jumbo_datagram(pair: Pair, via: str, of: Address) -> None:
    largest = 9000 - (28 if "." in of(pair.a) else 48)
    payload = bytes(i * 7 & 255 for i in range(largest))
    with opened(pair, via, Channel(of(pair.a), 7002)) as endpoint, far(pair, of(pair.b)) as other:
        other.sendto(payload, (of(pair.a), 7002))
        assert collect(endpoint, 1) == [(0, payload)]
        peer = add_peer(pair, endpoint, of(pair.b), other.getsockname()[1])
        send(endpoint, peer, payload)
        assert other.recv(10000) == payload
        assert not endpoint.send(peer, bytes(9217))
        assert endpoint.stats()["tx_too_long"] == 1


@pytest.mark.parametrize("family", ["ip4", "ip6"])
def test_a_group_is_received_and_sent_to(pair: Pair, via: str, family: str) -> None:
    group = GROUPS[family]
    own = pair.b.ip4 if family == "ip4" else pair.b.ip6
    with pair.b:
        listener = open_datagram("kernel", channels=[Channel(group, 7020, "veth0")])
    channels = [Channel(group, 7003, "veth0"), Channel(group, 7004, "veth0")]
    with listener, opened(pair, via, *channels) as endpoint, far(pair, own) as other:
        _multicast_by(other, "veth0", pair.b)
        for i in range(3):
            other.sendto(b"line %d" % (i % 2), (group, 7003 + i % 2))
        expected = [(0, b"line 0"), (0, b"line 0"), (1, b"line 1")]
        assert sorted(collect(endpoint, 3)) == expected
        peer = add_peer(pair, endpoint, group, 7020, interface="veth0")
        send(endpoint, peer, b"to all")
        assert collect(listener, 1) == [(0, b"to all")]


def _multicast_by(s: socket.socket, interface: str, end: Namespace) -> None:
    with end:
        index = socket.if_nametoindex(interface)
    if s.family == socket.AF_INET:
        request = struct.pack("=4s4si", bytes(4), bytes(4), index)
        s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, request)
    else:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)


def test_a_group_is_left_when_the_endpoint_closes(pair: Pair, via: str) -> None:
    with opened(pair, via, Channel("239.55.9.9", 7005, "veth0")):
        assert "239.55.9.9" in pair.a.run("ip", "maddr", "show", "dev", "veth0")
    assert "239.55.9.9" not in pair.a.run("ip", "maddr", "show", "dev", "veth0")


def test_the_ttl_of_a_peer(pair: Pair, via: str) -> None:
    with opened(pair, via, Channel(pair.a.ip4, 7006)) as endpoint, far(pair, pair.b.ip4) as other:
        other.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
        peer = add_peer(pair, endpoint, pair.b.ip4, other.getsockname()[1], ttl=7)
        send(endpoint, peer, b"x")
        _, control, _, _ = other.recvmsg(100, 100)
        assert [struct.unpack("=i", value)[0] for _, _, value in control] == [7]


def test_a_tagged_frame(pair: Pair) -> None:
    """Only by AF_XDP: this kernel has no VLAN device that would take the tag off."""
    with opened(pair, "afxdp:veth0", Channel(pair.a.ip4, 7007)) as endpoint:
        inject(pair, bytes(made(pair, 7007, b"tagged", tag=5)))
        assert collect(endpoint, 1) == [(0, b"tagged")]


def test_every_queue_is_served(pair: Pair, via: str) -> None:
    """Datagrams from many ports spread over the receive queues, where the driver spreads them."""
    with opened(pair, via, Channel(pair.a.ip4, 7008)) as endpoint:
        sent = {b"%d" % i for i in range(64)}
        for payload in sent:
            with far(pair, pair.b.ip4) as other:
                other.sendto(payload, (pair.a.ip4, 7008))
        assert {payload for _, payload in collect(endpoint, 64)} == sent


def test_only_its_own_flow_leaves_the_kernel(pair: Pair, via: str) -> None:
    with (
        opened(pair, via, Channel(pair.a.ip4, 7009)) as endpoint,
        far(pair, pair.b.ip4) as other,
        pair.a,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as neighbour,
    ):
        neighbour.bind((pair.a.ip4, 7010))
        neighbour.settimeout(30)
        other.sendto(b"for the kernel", (pair.a.ip4, 7010))
        other.sendto(b"for us", (pair.a.ip4, 7009))
        assert collect(endpoint, 1) == [(0, b"for us")]
        assert neighbour.recv(100) == b"for the kernel"


def test_the_port_is_taken_while_open(pair: Pair, via: str) -> None:
    with opened(pair, via, Channel(pair.a.ip4, 0)) as endpoint:
        port = endpoint.channels[0].port
        with (
            pair.a,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other,
            pytest.raises(OSError, match="in use"),
        ):
            other.bind((pair.a.ip4, port))
    with pair.a, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind((pair.a.ip4, port))


def test_nobody_is_told_that_the_port_is_unreachable(pair: Pair, via: str) -> None:
    """A fragment goes the kernel's way; its answer must not be ICMP port-unreachable."""
    with opened(pair, via, Channel(pair.a.ip4, 7011)) as endpoint, far(pair, pair.b.ip4) as other:
        other.connect((pair.a.ip4, 7011))
        other.send(bytes(20000))  # three fragments
        time.sleep(0.05)
        other.send(b"whole")  # would raise ECONNREFUSED after such an answer
        assert collect(endpoint, 1) == [(0, b"whole")]
        cause = "rx_truncated" if via == "kernel" else "rx_left_to_kernel"
        assert endpoint.stats()[cause] == 1


def test_a_bad_checksum_is_counted_and_not_shown(pair: Pair, via: str) -> None:
    frame = bytearray(bytes(made(pair, 7012, bytes(200))))
    frame[-1] ^= 1
    with opened(pair, via, Channel(pair.a.ip4, 7012)) as endpoint:
        inject(pair, bytes(frame))
        if via == "kernel":
            end = time.monotonic() + 30
            while endpoint.stats()["rx_kernel_dropped"] != 1 and time.monotonic() < end:
                assert not endpoint.recv()
            assert endpoint.stats()["rx_kernel_dropped"] == 1
        else:
            until(endpoint, "rx_udp_checksum", 1)
            assert endpoint.samples() == {"rx_udp_checksum": bytes(frame)}
        inject(pair, bytes(made(pair, 7012)))
        assert collect(endpoint, 1) == [(0, b"by hand")]


def test_a_truncated_frame_is_counted_and_not_shown(pair: Pair) -> None:
    frame = bytes(made(pair, 7013, bytes(100)))[:-20]
    with opened(pair, "afxdp:veth0", Channel(pair.a.ip4, 7013)) as endpoint:
        inject(pair, frame)
        until(endpoint, "rx_truncated", 1)
        assert endpoint.samples() == {"rx_truncated": frame}


def test_unfinished_checksums_have_a_cause_of_their_own(pair: Pair) -> None:
    channel = Channel(pair.a.ip4, 7014)
    pair.b.run("ethtool", "-K", "veth0", "tx", "on")
    try:
        with opened(pair, "afxdp:veth0", channel) as endpoint, far(pair, pair.b.ip4) as other:
            other.sendto(b"left to hardware", (pair.a.ip4, 7014))
            until(endpoint, "rx_udp_checksum_unfinished", 1)
        with (
            opened(pair, "afxdp:veth0", channel, rx_checksum="auto") as endpoint,
            far(pair, pair.b.ip4) as other,
        ):
            assert endpoint.describe()["rx_checksum"] == "trust"
            other.sendto(b"left to hardware", (pair.a.ip4, 7014))
            assert collect(endpoint, 1) == [(0, b"left to hardware")]
    finally:
        pair.b.run("ethtool", "-K", "veth0", "tx", "off")


def test_a_neighbours_new_mac_address_is_followed(pair: Pair, via: str) -> None:
    channel = Channel(pair.a.ip4, 7015)
    with opened(pair, via, channel) as endpoint, far(pair, pair.b.ip4) as other:
        peer = add_peer(pair, endpoint, pair.b.ip4, other.getsockname()[1])
        send(endpoint, peer, b"before")
        assert other.recv(100) == b"before"
        pair.b.run("ip", "link", "set", "veth0", "address", "02:00:00:00:55:77")
        try:
            other.sendto(b"", (pair.a.ip4, 9))  # the kernel announces itself
            end = time.monotonic() + 30
            other.settimeout(0.05)
            while time.monotonic() < end:
                send(endpoint, peer, b"after")
                try:
                    assert other.recv(100) == b"after"
                    break
                except TimeoutError:
                    endpoint.housekeeping()
            else:
                raise AssertionError(endpoint.describe())
        finally:
            pair.b.run("ip", "link", "set", "veth0", "address", pair.b.mac)
            other.sendto(b"", (pair.a.ip4, 9))


def test_ownership(pair: Pair, via: str) -> None:
    with opened(pair, via, Channel(pair.a.ip4, 7016)) as endpoint, far(pair, pair.b.ip4) as other:
        for i in range(300):
            other.sendto(b"%d" % i, (pair.a.ip4, 7016))
        seen: list[bytes] = []
        held: list[Datagrams] = []
        while len(seen) < 300:
            burst = wait(endpoint)
            seen += [bytes(payload) for payload in burst]
            held.append(burst)  # several bursts may be out at once
        assert seen == [b"%d" % i for i in range(300)]
        assert endpoint.stats()["borrowed"] == 300
        late = held.pop()
        view = late[0]
        with pytest.raises(BufferError):
            late.release()
        for burst in held:
            burst.release()
        del view
        late.release()
        with pytest.raises(Released):
            late.release()
        assert endpoint.stats()["borrowed"] == 0
        other.sendto(b"dropped", (pair.a.ip4, 7016))
        wait(endpoint)
        assert not endpoint.recv()
        stats = endpoint.stats()
        assert (stats["leaked"], stats["borrowed"]) == (1, 0)


def test_a_burst_outlives_its_endpoint(pair: Pair, via: str) -> None:
    with opened(pair, via, Channel(pair.a.ip4, 7017)) as endpoint, far(pair, pair.b.ip4) as other:
        other.sendto(b"still here", (pair.a.ip4, 7017))
        burst = wait(endpoint)
    with pytest.raises(BindingsError, match="closed"):
        endpoint.recv()
    assert burst[0] == b"still here"
    burst.release()


def test_a_peer_that_cannot_be_reached_is_refused(pair: Pair, via: str) -> None:
    with (
        opened(pair, via, Channel(pair.a.ip4, 7018)) as endpoint,
        pytest.raises(BindingsError, match=r"cannot send to 10\.123\.0\.1"),
    ):
        add_peer(pair, endpoint, "10.123.0.1", 5)
