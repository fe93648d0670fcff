"""What only a stream endpoint over a Port has: checksums, routes, its place beside the kernel."""

from __future__ import annotations

import errno
import itertools
import select
import socket
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.lab import Pair
from dpdk_bindings import (
    BindingsError,
    Channel,
    Connection,
    SharedPort,
    StreamEndpoint,
    StreamState,
    open_datagram,
    open_port,
    open_stream,
)
from tests.requires import requires_lwip, requires_root
from tests.wire.test_stream import connected, listening, opened, read, start, to_the_end, until

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from scapy.layers.inet import IP, TCP
    from scapy.layers.l2 import Ether
    from scapy.packet import Packet, Raw

VIA = "afxdp:veth0"


@pytest.fixture(scope="module", autouse=True)
def _lwip() -> None:
    requires_root()
    requires_lwip()


@pytest.fixture(scope="module")
def pair(_lwip: None) -> Iterator[Pair]:
    with Pair(queues=2) as made:
        yield made


class Eyes:
    """Sees the TCP segments of one interface, as scapy packets."""

    def __init__(self, end: Any) -> None:
        with end:
            self._s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self._s.bind((end.interface, 3))
        self._s.setblocking(False)

    def __enter__(self) -> Eyes:
        return self

    def __exit__(self, *_: object) -> None:
        self._s.close()

    def seen(self) -> list[Packet]:
        packets = []
        while True:
            try:
                packets.append(Ether(self._s.recv(1 << 16)))
            except BlockingIOError:
                return [p for p in packets if TCP in p]


def inject(pair: Pair, *frames: Packet) -> None:
    """Puts frames on the wire from namespace b."""
    with pair.b, socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind(("veth0", 0))
        for frame in frames:
            raw.send(bytes(frame))


def turns(endpoint: StreamEndpoint, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        endpoint.poll()
        endpoint.housekeeping()


def forged(pair: Pair, connection: Connection, **tcp: Any) -> Packet:
    """A segment to our side that claims to come from the peer."""
    return (
        Ether(src=pair.b.mac, dst=pair.a.mac)
        / IP(src=pair.b.ip4, dst=pair.a.ip4)
        / TCP(sport=connection.peer[1], dport=connection.local[1], **tcp)
    )


def test_the_kernel_keeps_its_part(pair: Pair) -> None:
    with opened(pair.a, VIA) as endpoint, listening(pair.b, pair.b.ip4) as listener:
        with connected(pair, endpoint, listener) as (connection, other):
            with pair.a, socket.socket() as s, pytest.raises(OSError) as error:
                s.bind(connection.local)
            assert error.value.errno == errno.EADDRINUSE
            # Kernel connections over the same interface go on beside ours.
            with pair.a, socket.create_connection(listener.getsockname(), 5) as kernel:
                peer, _ = listener.accept()
                with peer:
                    kernel.sendall(b"by the kernel")
                    assert peer.recv(99) == b"by the kernel"
            assert connection.send(b"by us") == 5
            assert other.recv(99) == b"by us"
            about = endpoint.describe()
            assert about["stack"] == "lwIP"
            assert pair.b.mac in about["peers"][0]


def test_no_segment_of_ours_is_answered_by_the_kernel(pair: Pair) -> None:
    with Eyes(pair.b) as eyes, opened(pair.a, VIA) as endpoint:
        with listening(pair.b, pair.b.ip4) as listener:
            for _ in range(20):
                with connected(pair, endpoint, listener) as (_, other):
                    other.close()
                    turns(endpoint, 0.002)
        resets = [p for p in eyes.seen() if p[TCP].flags.R]
        assert resets == []


@pytest.mark.parametrize(
    "first",
    ["peer", pytest.param("us", marks=pytest.mark.slow)],  # TIME_WAIT is 5 s
)
def test_ports_and_flows_are_given_back(pair: Pair, first: str) -> None:
    with opened(pair.a, VIA) as endpoint, listening(pair.b, pair.b.ip4) as listener:
        for _ in range(10):
            with connected(pair, endpoint, listener) as (connection, other):
                if first == "peer":
                    other.close()
                    assert to_the_end(endpoint, connection) == b""
                else:
                    connection.close()
        assert endpoint.stats()["connections"] == 0
        until(endpoint, lambda: endpoint.stats()["leaving"] == 0, 1 if first == "peer" else 10)


def test_bad_checksums_are_counted_and_what_they_broke_is_sent_again(pair: Pair) -> None:
    with opened(pair.a, VIA) as endpoint, listening(pair.b, pair.b.ip4) as listener:
        with connected(pair, endpoint, listener) as (connection, other):
            frame = forged(pair, connection, flags="PA", seq=1, chksum=0x1234) / Raw(b"forged")
            inject(pair, frame)
            until(endpoint, lambda: endpoint.stats()["rx_tcp_checksum"] == 1)
            assert endpoint.samples()["rx_tcp_checksum"] == bytes(frame)
            inject(pair, forged(pair, connection, flags="PA", dataofs=4) / Raw(b"forged"))
            until(endpoint, lambda: endpoint.stats()["rx_tcp_length"] == 1)
            other.sendall(b"sound")
            assert read(endpoint, connection, 5) == b"sound"


def test_unfinished_checksums_are_diagnosed(pair: Pair) -> None:
    pair.b.run("ethtool", "-K", "veth0", "tx", "on")
    try:
        with listening(pair.b, pair.b.ip4) as listener:
            with opened(pair.a, VIA, rx_checksum="verify") as endpoint:
                where = listener.getsockname()
                connection = start(pair.a, endpoint, *where, timeout_ms=300)
                until(endpoint, lambda: connection.state is StreamState.FAILED)
                assert connection.error == errno.ETIMEDOUT
                assert "unfinished checksums" in connection.why
                assert "ethtool -K" in connection.why
            with opened(pair.a, VIA) as endpoint:
                assert endpoint.describe()["rx_checksum"] == "trust"
                with connected(pair, endpoint, listener) as (connection, other):
                    other.sendall(b"left to hardware")
                    assert read(endpoint, connection, 16) == b"left to hardware"
    finally:
        pair.b.run("ethtool", "-K", "veth0", "tx", "off", "tso", "off", "gso", "off")


def test_a_neighbours_new_mac_address_is_followed(pair: Pair) -> None:
    with opened(pair.a, VIA) as endpoint, listening(pair.b, pair.b.ip4) as listener:
        with connected(pair, endpoint, listener) as (connection, other):
            pair.b.run("ip", "link", "set", "veth0", "address", "02:00:00:00:55:77")
            try:
                # The kernel learns it when it sends: here, by asking again.
                pair.a.run("ip", "neigh", "flush", "dev", "veth0")
                connection.send(b"after")
                other.settimeout(0.01)
                got = b""
                end = time.monotonic() + 30
                while not got and time.monotonic() < end:
                    turns(endpoint, 0.01)
                    try:
                        got = other.recv(9)
                    except TimeoutError:
                        continue
                assert got == b"after", endpoint.stats()
                assert "02:00:00:00:55:77" in endpoint.describe()["peers"][0]
            finally:
                pair.b.run("ip", "link", "set", "veth0", "address", pair.b.mac)
                pair.a.run("ip", "neigh", "flush", "dev", "veth0")


def test_a_smaller_mtu_is_followed(pair: Pair) -> None:
    with opened(pair.a, VIA) as endpoint, listening(pair.b, pair.b.ip4) as listener:
        with connected(pair, endpoint, listener) as (connection, other), Eyes(pair.b) as eyes:
            connection.send(bytes(5000))
            turns(endpoint, 0.05)
            assert max(p[IP].len for p in eyes.seen()) == 1500
            for end in (pair.a, pair.b):
                end.run("ip", "link", "set", "veth0", "mtu", "1300")
            try:
                turns(endpoint, 0.1)
                connection.send(bytes(5000))
                turns(endpoint, 0.1)
                assert 1200 < max(p[IP].len for p in eyes.seen()) <= 1300
                got = 0
                while got < 10000:
                    got += len(other.recv(10000))
            finally:
                for end in (pair.a, pair.b):
                    end.run("ip", "link", "set", "veth0", "mtu", "1500")


def test_what_was_queued_for_a_larger_mtu_still_arrives(pair: Pair) -> None:
    with opened(pair.a, VIA) as endpoint, listening(pair.b, pair.b.ip4) as listener:
        with connected(pair, endpoint, listener) as (connection, other):
            said = bytes(range(256)) * 20
            pair.b.run("ip", "link", "set", "veth0", "address", "02:00:00:00:55:78")
            assert connection.send(said) == len(said)  # nobody takes it
            try:
                for end in (pair.a, pair.b):
                    end.run("ip", "link", "set", "veth0", "mtu", "1300")
                turns(endpoint, 0.05)
                pair.b.run("ip", "link", "set", "veth0", "address", pair.b.mac)
                until(endpoint, lambda: connection.send(b"and more") == 8)
                got = b""
                end_s = time.monotonic() + 30
                while len(got) < len(said) + 8 and time.monotonic() < end_s:
                    turns(endpoint, 0.01)
                    if select.select([other], [], [], 0)[0]:
                        got += other.recv(10000)
                assert got == said + b"and more", endpoint.stats()
            finally:
                for end in (pair.a, pair.b):
                    end.run("ip", "link", "set", "veth0", "mtu", "1500")


def test_a_flapping_interface_delays_and_does_not_break(pair: Pair) -> None:
    with opened(pair.a, VIA) as endpoint, listening(pair.b, pair.b.ip4) as listener:
        with connected(pair, endpoint, listener) as (connection, other):
            pair.a.run("ip", "link", "set", "veth0", "down")
            connection.send(b"said while it was down")
            turns(endpoint, 0.2)
            assert connection.state is StreamState.OPEN
            pair.a.run("ip", "link", "set", "veth0", "up")
            other.settimeout(0.01)
            got = b""
            end = time.monotonic() + 30
            while not got and time.monotonic() < end:
                turns(endpoint, 0.01)
                try:
                    got = other.recv(99)
                except TimeoutError:
                    continue
            assert got == b"said while it was down", endpoint.stats()
            other.sendall(b"and back")
            assert read(endpoint, connection, 8) == b"and back"
    # The rest of the module needs the address that IPv6 lost when the link went down.
    pair.a.run("ip", "addr", "replace", f"{pair.a.ip6}/64", "dev", "veth0", "nodad")


def test_initial_sequence_numbers_cannot_be_predicted(pair: Pair) -> None:
    with Eyes(pair.b) as eyes, opened(pair.a, VIA) as endpoint:
        with listening(pair.b, pair.b.ip4) as listener:
            for _ in range(32):
                with connected(pair, endpoint, listener):
                    pass
            numbers = {p[TCP].sport: p[TCP].seq for p in eyes.seen() if p[TCP].flags == "S"}
    assert len(numbers) == 32
    steps = sorted((b - a) % 2**32 for a, b in itertools.pairwise(numbers.values()))
    assert steps[0] < 2**31 < steps[-1]  # no step is likelier than another: 2^-31 to fail
    assert steps[-1] - steps[0] > 2**30


def test_a_port_can_be_used_again_while_the_server_remembers_it(pair: Pair) -> None:
    """RFC 6528: the clock in the number takes a new connection past the server's TIME_WAIT."""
    ports = Path("/proc/sys/net/ipv4/ip_local_port_range")  # of the namespace that one is in
    with pair.a:
        before = ports.read_text()
        ports.write_text("40000 40001")
    try:
        with opened(pair.a, VIA) as endpoint, listening(pair.b, pair.b.ip4) as listener:
            for _ in range(20):
                with connected(pair, endpoint, listener) as (connection, other):
                    other.close()
                    assert to_the_end(endpoint, connection) == b""
                until(endpoint, lambda: endpoint.stats()["leaving"] == 0)
            assert endpoint.stats()["retransmitted"] == 0
    finally:
        with pair.a:
            ports.write_text(before)


def test_the_hash_is_that_of_the_paper() -> None:
    from dpdk_bindings._lwip import lib

    assert lib.dpb_siphash(bytes(range(16)), bytes(range(15)), 15) == 0xA129CA6149BE45E5


def test_a_lost_segment_costs_tens_of_milliseconds(pair: Pair) -> None:
    with opened(pair.a, VIA) as endpoint, listening(pair.b, pair.b.ip4) as listener:
        with connected(pair, endpoint, listener) as (connection, other):
            connection.send(b"first")
            turns(endpoint, 0.1)
            assert other.recv(9) == b"first"
            # The peer's MAC address changes behind our back: it takes no frame of ours.
            pair.b.run("ip", "link", "set", "veth0", "address", "02:00:00:00:55:78")
            sent = time.monotonic()
            connection.send(b"lost")
            pair.b.run("ip", "link", "set", "veth0", "address", pair.b.mac)
            until(endpoint, lambda: endpoint.stats()["retransmitted"] == 1)
            assert 0.035 < time.monotonic() - sent < 0.5
            assert other.recv(9) == b"lost"


def test_plain_text_beyond_the_link_is_refused(pair: Pair) -> None:
    pair.a.run("ip", "route", "add", "10.99.0.0/24", "via", pair.b.ip4)
    pair.b.run("ip", "addr", "add", "10.99.0.1/32", "dev", "lo")
    try:
        with listening(pair.b, "10.99.0.1") as listener:
            with opened(pair.a, VIA) as endpoint:
                with pytest.raises(BindingsError, match=r"plain text to 10\.99\.0\.1") as error:
                    start(pair.a, endpoint, *listener.getsockname())
                assert "TLS" in error.value.hint
                with connected(pair, endpoint, listener, tls=True) as (_, other):
                    other.close()
            with opened(pair.a, VIA, plain_beyond_link=True) as endpoint:
                with connected(pair, endpoint, listener) as (connection, other):
                    other.sendall(b"by a router")
                    assert read(endpoint, connection, 11) == b"by a router"
    finally:
        pair.a.run("ip", "route", "del", "10.99.0.0/24")
        pair.b.run("ip", "addr", "del", "10.99.0.1/32", "dev", "lo")


@pytest.mark.parametrize("via", ["kernel", VIA])
def test_why_plain_text_is_refused(pair: Pair, via: str) -> None:
    """lwIP takes bytes whose acknowledgement number is nonsense; Linux does not (RFC 5961, 5)."""
    with opened(pair.a, via) as endpoint, listening(pair.b, pair.b.ip4) as listener:
        with connected(pair, endpoint, listener) as (connection, other), Eyes(pair.b) as eyes:
            connection.send(b"x")
            turns(endpoint, 0.05)
            ack = next(p[TCP].ack for p in eyes.seen() if p[IP].src == pair.a.ip4)
            inject(pair, forged(pair, connection, flags="PA", seq=ack, ack=ack) / Raw(b"forged"))
            turns(endpoint, 0.02)
            other.sendall(b"honest")
            assert read(endpoint, connection, 6) == (b"honest" if via == "kernel" else b"forged")


def test_one_thread(pair: Pair) -> None:
    errors: list[BindingsError] = []

    def elsewhere() -> None:
        try:
            with opened(pair.b, VIA):
                pass
        except BindingsError as error:
            errors.append(error)

    with opened(pair.a, VIA):
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert "another thread" in errors[0].message


def test_two_hundred_and_fifty_connections(pair: Pair) -> None:
    with opened(pair.a, VIA) as endpoint, listening(pair.b, pair.b.ip4) as listener:
        listener.listen(300)
        where = listener.getsockname()
        ours = [start(pair.a, endpoint, *where) for _ in range(250)]
        with pytest.raises(BindingsError, match="at most 250"):
            start(pair.a, endpoint, *where)
        until(endpoint, lambda: all(c.state is StreamState.OPEN for c in ours))
        others = [listener.accept()[0] for _ in ours]
        by_port = {c.local[1]: c for c in ours}
        for other in others:
            other.sendall(b"%06d" % other.getpeername()[1])
            other.close()
        for port, connection in by_port.items():
            assert to_the_end(endpoint, connection) == b"%06d" % port


def test_a_capture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BindingsError, match="no connection can be made over pcap"):
        open_stream(f"pcap:?out={tmp_path}/out.pcap")


def test_without_lwip_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dpdk_bindings._lwip", None)
    monkeypatch.delitem(sys.modules, "dpdk_bindings.port_stream", raising=False)
    with pytest.raises(BindingsError, match="needs lwIP") as error:
        open_stream("afxdp:whatever")
    assert "liblwip-dev" in error.value.hint


def test_datagrams_and_streams_share_an_interface(pair: Pair) -> None:
    with pair.a:
        shared = SharedPort(open_port(VIA))
        feed = open_datagram(shared.member(), channels=[Channel(pair.a.ip4, 7100)])
        one, other = (open_stream(shared.member()) for _ in range(2))
    with listening(pair.b, pair.b.ip4) as listener, pair.b, socket.socket(type=2) as sender:
        with connected(pair, one, listener) as (first, first_end):
            with connected(pair, other, listener) as (second, second_end):
                sender.sendto(b"a datagram", (pair.a.ip4, 7100))
                second_end.sendall(b"to the second")
                first_end.sendall(b"to the first")
                assert read(one, first, 12) == b"to the first"
                # What one polled for another waits for it.
                assert read(other, second, 13) == b"to the second"
                with feed.recv() as burst:
                    assert [bytes(d) for d in burst] == [b"a datagram"]
                # lwIP's clock is common, the limits are each endpoint's own.
                dead = start(pair.a, other, "10.55.0.77", 5, timeout_ms=100)
                until(one, lambda: other.poll() < 0 or dead.state is StreamState.FAILED)
                feed.close()
                second.send(b"still here")
                assert second_end.recv(99) == b"still here"
        one.close()
        assert other.stats()["port_share_unassigned"] == 0
        assert not shared.port.closed
        other.close()
        assert shared.port.closed
