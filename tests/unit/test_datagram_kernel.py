"""The datagram endpoint over kernel sockets, on loopback: no privileges needed."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from dpdk_bindings._native import ffi, lib
from dpdk_bindings.datagram import Channel, DatagramEndpoint, Datagrams, open_datagram
from dpdk_bindings.errors import BindingsError, Released


@pytest.fixture
def endpoint() -> Iterator[DatagramEndpoint]:
    with open_datagram("kernel", channels=[Channel("127.0.0.1", 0)], buffers=8) as opened:
        yield opened


@pytest.fixture
def other() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        s.settimeout(30)
        yield s


def wait(endpoint: DatagramEndpoint) -> Datagrams:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        burst = endpoint.recv()
        if burst:
            return burst
    raise AssertionError("nothing came")


def to(endpoint: DatagramEndpoint, i: int = 0) -> tuple[str, int]:
    return endpoint.channels[i].address, endpoint.channels[i].port


def test_a_datagram_goes_there_and_back(endpoint: DatagramEndpoint, other: socket.socket) -> None:
    before = time.monotonic_ns()
    other.sendto(b"ping", to(endpoint))
    with wait(endpoint) as burst:
        assert list(burst) == [b"ping"]
        assert burst.source(0) == (bytes([127, 0, 0, 1]), other.getsockname()[1])
        assert burst.channel(0) == 0
        assert burst.clock(0) == lib.DPB_CLOCK_MONO
        assert before < burst.arrival_ns(0) < time.monotonic_ns()
        peer = endpoint.add_peer(*other.getsockname())
        assert endpoint.send(peer, burst[0])
    assert endpoint.flush()
    assert other.recvfrom(100) == (b"ping", to(endpoint))


def test_the_kernels_own_stamp_names_its_clock(other: socket.socket) -> None:
    with open_datagram("kernel", channels=[Channel("127.0.0.1", 0)], clock="real") as endpoint:
        before = time.time_ns()
        other.sendto(b"x", to(endpoint))
        with wait(endpoint) as burst:
            assert burst.clock(0) == lib.DPB_CLOCK_REAL
            assert before <= burst.arrival_ns(0) <= time.time_ns()


def test_channels_are_numbered_and_take_turns(other: socket.socket) -> None:
    channels = [Channel("127.0.0.1", 0), Channel("127.0.0.1", 0)]
    with open_datagram("kernel", channels=channels, burst=4) as endpoint:
        for _ in range(6):
            other.sendto(b"b", to(endpoint, 1))
            other.sendto(b"a", to(endpoint, 0))
        seen = []
        for _ in range(3):
            with wait(endpoint) as burst:
                seen.append([burst.channel(i) for i in range(len(burst))])
        assert seen == [[0] * 4, [1] * 4, [0, 0, 1, 1]]


def test_a_group_is_joined_and_sent_to() -> None:
    group = "239.7.7.7"
    with open_datagram("kernel", channels=[Channel(group, 17777, "lo")]) as endpoint:
        peer = endpoint.add_peer(group, 17777, interface="lo")
        endpoint.send(peer, b"to all")
        endpoint.flush()
        with wait(endpoint) as burst:
            assert list(burst) == [b"to all"]


def test_ipv6() -> None:
    with open_datagram("kernel", channels=[Channel("::1", 0)]) as endpoint:
        endpoint.send(endpoint.add_peer(*to(endpoint)), b"six")
        endpoint.flush()
        with wait(endpoint) as burst:
            assert list(burst) == [b"six"]
            assert burst.source(0) == (bytes(15) + b"\1", endpoint.channels[0].port)


def test_a_released_burst_raises(endpoint: DatagramEndpoint, other: socket.socket) -> None:
    other.sendto(b"one", to(endpoint))
    burst = wait(endpoint)
    kept = bytes(burst[0])
    burst.release()
    assert burst.released
    assert kept == b"one"
    for touch in (
        lambda: burst[0],
        lambda: len(burst),
        lambda: list(burst),
        lambda: burst.source(0),
        lambda: burst.arrival_ns(0),
        lambda: burst.address,
        lambda: memoryview(burst),
        burst.release,
    ):
        with pytest.raises(Released):
            touch()
    assert endpoint.stats()["borrowed"] == 0


def test_a_burst_is_not_released_under_a_view(
    endpoint: DatagramEndpoint, other: socket.socket
) -> None:
    other.sendto(b"one", to(endpoint))
    burst = wait(endpoint)
    part = burst[0][1:]
    assert part.readonly
    with pytest.raises(BufferError, match="1 views"):
        burst.release()
    assert part == b"ne"
    del part
    burst.release()
    with pytest.raises(IndexError):
        endpoint.recv()[0]


def test_the_descriptors_are_packed(endpoint: DatagramEndpoint, other: socket.socket) -> None:
    other.sendto(b"one", to(endpoint))
    other.sendto(b"three", to(endpoint))
    with wait(endpoint) as burst:
        native = ffi.cast("struct dpb_datagram *", burst.address)
        assert [native[i].len for i in range(len(burst))] == [3, 5]
        with memoryview(burst) as packed:
            assert packed.nbytes == 2 * ffi.sizeof("struct dpb_datagram")


def test_a_burst_dropped_unreleased_is_counted_and_returned(
    endpoint: DatagramEndpoint, other: socket.socket
) -> None:
    other.sendto(b"one", to(endpoint))
    burst = wait(endpoint)
    assert endpoint.stats()["borrowed"] == 1
    del burst
    assert endpoint.stats()["leaked"] == 1
    assert not endpoint.recv()  # takes back what was dropped
    stats = endpoint.stats()
    assert (stats["leaked"], stats["borrowed"]) == (1, 0)


def test_held_datagrams_exhaust_the_buffers_and_nothing_else(
    endpoint: DatagramEndpoint, other: socket.socket
) -> None:
    for i in range(12):
        other.sendto(bytes([i]), to(endpoint))
    first = wait(endpoint)
    assert list(first) == [bytes([i]) for i in range(8)]
    assert not endpoint.recv()
    assert endpoint.stats()["rx_starved"] == 1
    first.release()
    with wait(endpoint) as second:
        assert list(second) == [bytes([i]) for i in range(8, 12)]


def test_too_long_is_counted_and_sampled(other: socket.socket) -> None:
    channels = [Channel("127.0.0.1", 0)]
    with open_datagram("kernel", channels=channels, payload_bytes=512) as endpoint:
        other.sendto(bytes(range(256)) * 3, to(endpoint))
        other.sendto(b"short", to(endpoint))
        with wait(endpoint) as burst:
            assert list(burst) == [b"short"]
        assert endpoint.stats()["rx_truncated"] == 1
        assert endpoint.samples() == {"rx_truncated": bytes(range(256))}
        peer = endpoint.add_peer(*other.getsockname())
        assert not endpoint.send(peer, bytes(513))
        assert endpoint.stats()["tx_too_long"] == 1


def test_what_the_kernel_dropped_is_counted(other: socket.socket) -> None:
    channels = [Channel("127.0.0.1", 0)]
    with open_datagram("kernel", channels=channels, receive_buffer_bytes=4096) as endpoint:
        for _ in range(100):
            other.sendto(bytes(1000), to(endpoint))
        with wait(endpoint) as burst:
            got = len(burst)
        assert got < 100
        assert endpoint.stats()["rx_kernel_dropped"] == 100 - got
        endpoint.close()
        assert endpoint.stats()["rx_kernel_dropped"] == 100 - got


def test_a_full_transmit_queue_refuses_and_keeps(
    endpoint: DatagramEndpoint, other: socket.socket
) -> None:
    peer = endpoint.add_peer(*other.getsockname())
    taken = [endpoint.send(peer, bytes([i])) for i in range(9)]
    assert taken == [True] * 8 + [False]
    assert endpoint.stats()["tx_ring_full"] == 1
    assert endpoint.flush()
    assert [other.recv(9) for _ in range(8)] == [bytes([i]) for i in range(8)]


def test_a_refused_datagram_does_not_stop_the_next(endpoint: DatagramEndpoint) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        nobody = endpoint.add_peer(*s.getsockname(), ttl=5)  # a connected socket: sees refusals
    for _ in range(3):
        assert endpoint.send(nobody, b"x")
        assert endpoint.flush()
    stats = endpoint.stats()
    assert (stats["tx_datagrams"], stats["tx_failed"]) == (3, 0)


def test_what_the_kernel_refuses_is_said_and_counted_by_cause(other: socket.socket) -> None:
    with open_datagram("kernel", channels=(), payload_bytes=65507) as endpoint:
        loopback = endpoint.add_peer(*other.getsockname(), ttl=5)
        assert endpoint.send(loopback, bytes(65507))
        assert endpoint.flush()
        assert other.recv(65507) == bytes(65507)
        native = endpoint._backend._native
        closed = lib.dpb_kernel_add_peer(native, -1, b"", 0, 512)  # EBADF: any other cause
        endpoint._peers = closed + 1
        assert endpoint.send(closed, b"x")
        assert endpoint.send(loopback, b"the next")
        assert not endpoint.flush()
        assert other.recv(9) == b"the next"
        assert endpoint.flush()  # told once
        stats = endpoint.stats()
        assert (stats["tx_datagrams"], stats["tx_failed"]) == (2, 1)


def test_what_a_full_queue_keeps_can_be_taken_back(endpoint: DatagramEndpoint) -> None:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)  # its queue does fill
    near.setblocking(False)
    with near, far:
        peer = lib.dpb_kernel_add_peer(endpoint._backend._native, near.fileno(), b"", 0, 512)
        endpoint._peers = peer + 1
        sent = 0
        while endpoint.send(peer, sent.to_bytes(4, "big")) and endpoint.flush():
            sent += 1
        assert endpoint.stats()["tx_blocked"] == 1
        assert endpoint.withdraw() == 1
        assert endpoint.withdraw() == 0
        assert endpoint.flush()
        assert far.recv(9) == bytes(4)
        assert endpoint.send(peer, b"last")
        assert endpoint.flush()
        heard = [far.recv(9) for _ in range(sent)]
        assert heard == [i.to_bytes(4, "big") for i in range(1, sent)] + [b"last"]
        stats = endpoint.stats()
        assert (stats["tx_datagrams"], stats["tx_withdrawn"]) == (sent + 1, 1)


def test_misuse_is_explained(endpoint: DatagramEndpoint) -> None:
    with pytest.raises(ValueError, match="no peer 0: 0 were added"):
        endpoint.send(0, b"x")
    peer = endpoint.add_peer("127.0.0.1", 9)
    with pytest.raises(ValueError, match="0 bytes"):
        endpoint.send(peer, b"")
    with pytest.raises(BindingsError, match="not an IPv4 or IPv6 address"):
        endpoint.add_peer("localhost", 9)
    with pytest.raises(BindingsError, match=r"127\.0\.0\.1 port .*in use") as caught:
        open_datagram("kernel", channels=[Channel(*to(endpoint))])
    assert "ss -ulnp" in caught.value.hint
    with pytest.raises(BindingsError, match="'nope' does not exist"):
        open_datagram("kernel", channels=[Channel("239.1.1.1", 5, "nope")])
    with pytest.raises(BindingsError, match="backend 'kernal' is not known"):
        open_datagram("kernal", channels=[])
    endpoint.close()
    endpoint.close()
    for touch in (endpoint.recv, endpoint.flush, lambda: endpoint.ref):
        with pytest.raises(BindingsError):
            touch()


def test_a_burst_outlives_its_endpoint(other: socket.socket) -> None:
    endpoint = open_datagram("kernel", channels=[Channel("127.0.0.1", 0)])
    other.sendto(b"still here", to(endpoint))
    burst = wait(endpoint)
    endpoint.close()
    del endpoint
    assert burst[0] == b"still here"
    burst.release()
