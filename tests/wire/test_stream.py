"""One suite for the backends of the stream endpoint, against kernel TCP in another namespace."""

from __future__ import annotations

import errno
import hashlib
import random
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from appliance.lab import Namespace, Pair
from dpdk_bindings import Connection, StreamEndpoint, StreamState, open_stream
from dpdk_bindings._native import ffi, lib
from dpdk_bindings.errors import BindingsError
from tests.requires import requires_lwip, requires_root
from tests.wire.relay import BadWire

Address = Callable[[Namespace], str]
FAMILIES = [
    pytest.param(lambda end: end.ip4, id="ip4"),
    pytest.param(lambda end: end.ip6, id="ip6"),
]
LLADDR = ("lladdr", "02:00:00:00:55:02", "nud", "permanent")  # as appliance.lab has it
MIB = 1 << 20
# Both ways at once; the length is prime so that a segment that is out of place never fits.
PATTERN = random.Random(5).randbytes(1_048_573)
PATTERNS = PATTERN + PATTERN[:MIB]


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    requires_root()
    with Pair(queues=2) as made:
        yield made


@pytest.fixture(params=["kernel", "afxdp:veth0"])
def via(request: pytest.FixtureRequest) -> str:
    if request.param != "kernel":
        requires_lwip()
    return request.param


@contextmanager
def opened(end: Namespace, via: str, **options: Any) -> Iterator[StreamEndpoint]:
    """The endpoint under test, made in a namespace; connections have to be made there too."""
    with end:
        endpoint = open_stream(via, **options)
    with endpoint:
        yield endpoint


@contextmanager
def listening(end: Namespace, address: str, port: int = 0) -> Iterator[socket.socket]:
    """A kernel socket that listens in a namespace."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with end:
        s = socket.socket(family, socket.SOCK_STREAM)
    with s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind((address, port))
        s.listen()
        s.settimeout(30)
        yield s


def until(endpoint: StreamEndpoint, done: Callable[[], bool], seconds: float = 30) -> None:
    """Turns until `done` says so."""
    end = time.monotonic() + seconds
    turns = 0
    while not done():
        endpoint.poll()
        turns += 1
        if turns % 64 == 0:
            endpoint.housekeeping()
            assert time.monotonic() < end, endpoint.stats()


def start(
    end: Namespace, endpoint: StreamEndpoint, address: str, port: int, **how: Any
) -> Connection:
    """Within the namespace: a connection has a socket of its own."""
    with end:
        return endpoint.connect(address, port, **how)


@contextmanager
def connected(
    pair: Any, endpoint: StreamEndpoint, listener: socket.socket, **how: Any
) -> Iterator[tuple[Connection, socket.socket]]:
    """A connection to `listener`, and the kernel's end of it."""
    address, port = listener.getsockname()[:2]
    connection = start(pair.a, endpoint, address, port, **how)
    until(endpoint, lambda: connection.state is not StreamState.CONNECTING)
    assert connection.state is StreamState.OPEN, connection.why
    other, _ = listener.accept()
    other.settimeout(30)
    with other:
        yield connection, other
    connection.close()


def read(endpoint: StreamEndpoint, connection: Connection, n: int, seconds: float = 30) -> bytes:
    """The next `n` bytes."""
    buffer = bytearray(n)
    have = 0
    end = time.monotonic() + seconds
    while have < n:
        assert time.monotonic() < end, (have, n, connection.why, endpoint.stats())
        endpoint.poll()
        got = connection.recv_into(buffer, have)
        assert got >= 0, (have, connection.state, connection.why)
        have += got
    return bytes(buffer)


def to_the_end(endpoint: StreamEndpoint, connection: Connection, seconds: float = 30) -> bytes:
    """All bytes until no more come."""
    buffer = bytearray(1 << 16)
    seen = b""
    end = time.monotonic() + seconds
    while (got := connection.recv_into(buffer)) >= 0:
        assert time.monotonic() < end, (len(seen), connection.why, endpoint.stats())
        seen += buffer[:got]
        endpoint.poll()
    return seen


def reset(s: socket.socket) -> None:
    """Closes with RST instead of FIN."""
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()


@pytest.mark.parametrize("of", FAMILIES)
def test_bytes_go_there_and_back(pair: Pair, via: str, of: Address) -> None:
    with opened(pair.a, via) as endpoint, listening(pair.b, of(pair.b)) as listener:
        with connected(pair, endpoint, listener) as (connection, other):
            assert connection.local == other.getpeername()[:2]
            assert connection.local[0] == of(pair.a)
            before = time.monotonic_ns()
            assert connection.send(b"..to the server", 2) == len(b"to the server")
            endpoint.poll()
            assert other.recv(100) == b"to the server"
            other.sendall(b"to the client")
            assert read(endpoint, connection, 13) == b"to the client"
            assert before < connection.arrival_ns < time.monotonic_ns()
            assert (connection.rx_bytes, connection.tx_bytes) == (13, 13)
            assert connection.recv_into(bytearray(1)) == 0


def test_a_link_local_address(pair: Pair, via: str) -> None:
    for end, address in ((pair.a, "fe80::a"), (pair.b, "fe80::b")):
        end.run("ip", "addr", "replace", f"{address}/64", "dev", "veth0", "nodad")
    with opened(pair.a, via) as endpoint, pair.b, socket.socket(socket.AF_INET6) as listener:
        listener.bind(("fe80::b", 0, 0, socket.if_nametoindex("veth0")))
        listener.listen()
        port = listener.getsockname()[1]
        connection = start(pair.a, endpoint, "fe80::b", port, interface="veth0")
        until(endpoint, lambda: connection.state is not StreamState.CONNECTING)
        assert connection.state is StreamState.OPEN, connection.why
        other, _ = listener.accept()
        with other:
            connection.send(b"near")
            assert other.recv(9) == b"near"
            other.sendall(b"by")
            assert read(endpoint, connection, 2) == b"by"


def test_many_connections_are_told_apart(pair: Pair, via: str) -> None:
    with opened(pair.a, via) as endpoint, listening(pair.b, pair.b.ip4) as listener:
        where = listener.getsockname()
        ours = [start(pair.a, endpoint, *where) for _ in range(40)]
        until(endpoint, lambda: all(c.state is StreamState.OPEN for c in ours))
        others = [listener.accept()[0] for _ in ours]
        by_port = {c.local[1]: c for c in ours}
        assert len(by_port) == 40
        for other in others:
            other.sendall(b"for %d" % other.getpeername()[1])
        for port, connection in by_port.items():
            assert read(endpoint, connection, len(b"for %d" % port)) == b"for %d" % port
        # Of many, those that have something say so.
        others[7].sendall(b"!")
        mine = by_port[others[7].getpeername()[1]]
        until(endpoint, lambda: bool(mine.readable))
        assert sum(bool(c.readable) for c in ours) == 1
        assert endpoint.stats()["connections"] == 40
        for other in others:
            other.close()


def test_a_server_that_ends_its_side_can_still_be_sent_to(pair: Pair, via: str) -> None:
    with opened(pair.a, via) as endpoint, listening(pair.b, pair.b.ip4) as listener:
        with connected(pair, endpoint, listener) as (connection, other):
            other.sendall(b"the last words")
            other.shutdown(socket.SHUT_WR)
            assert to_the_end(endpoint, connection) == b"the last words"
            assert connection.state is StreamState.ENDED
            assert connection.why == ""
            assert connection.recv_into(bytearray(9)) == -1
            assert connection.send(b"heard") == 5
            assert other.recv(9) == b"heard"


def test_we_can_end_our_side_and_still_receive(pair: Pair, via: str) -> None:
    with opened(pair.a, via) as endpoint, listening(pair.b, pair.b.ip4) as listener:
        with connected(pair, endpoint, listener) as (connection, other):
            connection.send(b"question")
            assert connection.shutdown()
            assert other.recv(9) == b"question"
            assert other.recv(9) == b""
            with pytest.raises(BindingsError, match="after shutdown"):
                connection.send(b"more")
            other.sendall(b"answer")
            other.close()
            assert to_the_end(endpoint, connection) == b"answer"
            assert connection.state is StreamState.ENDED


def test_a_reset_is_a_state_and_what_came_before_is_given_out(pair: Pair, via: str) -> None:
    with opened(pair.a, via) as endpoint, listening(pair.b, pair.b.ip4) as listener:
        with connected(pair, endpoint, listener) as (connection, other):
            other.sendall(b"before")
            assert read(endpoint, connection, 6) == b"before"
            reset(other)
            until(endpoint, lambda: connection.recv_into(bytearray(9)) == -1)
            assert connection.state is StreamState.FAILED
            assert connection.error == errno.ECONNRESET
            assert "reset" in connection.why
            assert connection.send(b"x") == -1


def test_refused(pair: Pair, via: str) -> None:
    with opened(pair.a, via) as endpoint:
        connection = start(pair.a, endpoint, pair.b.ip4, 9)
        until(endpoint, lambda: connection.state is StreamState.FAILED)
        assert connection.error == errno.ECONNREFUSED
        assert connection.recv_into(bytearray(9)) == -1
        assert connection.send(b"x") == -1
        connection.close()
        assert "refused" in connection.why
        with pytest.raises(BindingsError, match="closed"):
            connection.send(b"x")


def test_a_server_that_never_answers_times_out(pair: Pair, via: str) -> None:
    with opened(pair.a, via) as endpoint, listening(pair.b, pair.b.ip4) as listener:
        listener.listen(0)  # a full queue: further SYNs are dropped
        filler = []
        for _ in range(3):
            with pair.a:
                filler.append(socket.socket())
            filler[-1].setblocking(False)
            filler[-1].connect_ex(listener.getsockname())
        time.sleep(0.02)
        before = time.monotonic()
        connection = start(pair.a, endpoint, *listener.getsockname(), timeout_ms=400)
        until(endpoint, lambda: connection.state is StreamState.FAILED)
        assert connection.error == errno.ETIMEDOUT
        assert 0.4 <= time.monotonic() - before < 20  # the kernel gives up after two minutes
        for s in filler:
            s.close()


def test_a_server_that_does_not_read_makes_us_wait(pair: Pair, via: str) -> None:
    with opened(pair.a, via) as endpoint, listening(pair.b, pair.b.ip4) as listener:
        with connected(pair, endpoint, listener) as (connection, other):
            block = PATTERNS[:65536]
            sent = 0
            idle_since = time.monotonic()
            while time.monotonic() - idle_since < 0.2:
                endpoint.poll()
                took = connection.send(block, sent % 1024)
                sent += took
                if took:
                    idle_since = time.monotonic()
            assert sent == connection.tx_bytes
            assert connection.state is StreamState.OPEN
            received = 0
            while received < sent:
                endpoint.poll()
                if select.select([other], [], [], 0)[0]:
                    received += len(other.recv(1 << 20))
            until(endpoint, lambda: connection.send(b"goes on") == 7)


def test_what_is_not_read_makes_the_server_wait(pair: Pair, via: str) -> None:
    with opened(pair.a, via) as endpoint, listening(pair.b, pair.b.ip4) as listener:
        with connected(pair, endpoint, listener) as (connection, other):
            other.setblocking(False)
            sent = 0
            idle_since = time.monotonic()
            while time.monotonic() - idle_since < 0.2:
                endpoint.poll()
                try:
                    sent += other.send(PATTERNS[sent % len(PATTERN) :][:65536])
                    idle_since = time.monotonic()
                except BlockingIOError:
                    pass
            assert read(endpoint, connection, sent) == (PATTERN * (sent // len(PATTERN) + 1))[:sent]


def test_one_byte_segments(pair: Pair, via: str) -> None:
    said = bytes(range(256)) * 4
    with opened(pair.a, via) as endpoint, listening(pair.b, pair.b.ip4) as listener:
        with connected(pair, endpoint, listener) as (connection, other):
            other.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            seen = b""
            for at in range(len(said)):
                other.send(said[at : at + 1])
                seen += read(endpoint, connection, 1)
            assert seen == said
            for at in range(len(said)):
                until(endpoint, lambda at=at: connection.send(said[at : at + 1]) == 1)  # type: ignore[misc]
            got = b""
            while len(got) < len(said):
                endpoint.poll()
                got += other.recv(4096)
            assert got == said


def test_close_says_fin_and_abort_says_rst(pair: Pair, via: str) -> None:
    with opened(pair.a, via) as endpoint, listening(pair.b, pair.b.ip4) as listener:
        with connected(pair, endpoint, listener) as (connection, other):
            connection.send(b"and good bye")
            connection.close()
            connection.close()
            for _ in range(100):
                endpoint.poll()
            assert other.recv(99) == b"and good bye"
            assert other.recv(99) == b""
        with connected(pair, endpoint, listener) as (connection, other):
            connection.abort()
            endpoint.poll()
            with pytest.raises(ConnectionResetError):
                other.recv(99)


def test_closing_the_endpoint_ends_connections_cleanly(pair: Pair, via: str) -> None:
    with listening(pair.b, pair.b.ip4) as listener:
        with opened(pair.a, via) as endpoint:
            connection = start(pair.a, endpoint, *listener.getsockname())
            until(endpoint, lambda: connection.state is StreamState.OPEN)
            other, _ = listener.accept()
            other.settimeout(30)
            connection.send(b"the last")
        with other:
            assert other.recv(99) == b"the last"
            assert other.recv(99) == b""
        with pytest.raises(BindingsError, match="closed"):
            endpoint.poll()
        with pytest.raises(BindingsError, match="closed"):
            endpoint.connect(pair.b.ip4, 5)


def test_the_peer_of_a_dead_process_gets_a_reset_when_it_speaks(pair: Pair, via: str) -> None:
    with listening(pair.b, pair.b.ip4) as listener:
        child = pair.a.start(_live, via, *listener.getsockname())
        other, _ = listener.accept()
        other.settimeout(30)
        with other:
            assert other.recv(9) == b"alive"
            other.sendall(b"unread")  # a kernel socket resets at once if something is unread
            time.sleep(0.05)
            child.kill()
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                _speak(other)


def _speak(s: socket.socket) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        s.sendall(b"anybody?")
        time.sleep(0.01)


def _live(via: str, address: str, port: int) -> None:
    endpoint = open_stream(via)
    connection = endpoint.connect(address, port)
    until(endpoint, lambda: connection.state is StreamState.OPEN)
    connection.send(b"alive")
    while True:
        endpoint.poll()
        time.sleep(0.001)


def test_misuse_is_raised(pair: Pair, via: str) -> None:
    with opened(pair.a, via) as endpoint, listening(pair.b, pair.b.ip4) as listener:
        with pytest.raises(BindingsError, match="not an IPv4 or IPv6 address"):
            endpoint.connect("localhost", 5)
        with pytest.raises(BindingsError, match="port 0"):
            endpoint.connect(pair.b.ip4, 0)
        with pytest.raises(BindingsError, match=r"cannot (connect|send) to 192"):
            start(pair.a, endpoint, "192.0.2.1", 5)
        with pytest.raises(BindingsError, match=r"cannot (connect from|send to) 10\.55\.0"):
            start(pair.a, endpoint, pair.b.ip4, 5, source="10.55.0.77")
        with connected(pair, endpoint, listener) as (connection, _):
            with pytest.raises(ValueError, match="offset 5"):
                connection.send(b"1234", 5)
            with pytest.raises(ValueError, match="no room"):
                connection.recv_into(bytearray(4), 4)
            with pytest.raises(BufferError):
                connection.recv_into(b"read-only")


def both_ways(wire: BadWire, via: str, size: int, seconds: float) -> None:
    """`size` bytes in both directions at once, every one compared."""
    with opened(wire.a, via) as endpoint, listening(wire.b, wire.b.ip4) as listener:
        listener.settimeout(20)
        child = wire.b.start(_swap, listener, size)
        connection = start(wire.a, endpoint, *listener.getsockname(), timeout_ms=20000)
        until(endpoint, lambda: connection.state is not StreamState.CONNECTING, 20)
        assert connection.state is StreamState.OPEN, connection.why
        buffer = bytearray(1 << 16)
        sent = got = 0
        end = time.monotonic() + seconds
        while got < size or sent < size:
            endpoint.poll()
            n = connection.recv_into(buffer)
            assert n >= 0, (connection.why, got, sent)
            if n:
                at = got % len(PATTERN)
                assert buffer[:n] == PATTERNS[at : at + n], got
                got += n
            if sent < size:
                at = sent % len(PATTERN)
                sent += max(0, connection.send(PATTERNS[at : at + min(1 << 16, size - sent)]))
            if not n:
                assert time.monotonic() < end, (got, sent, endpoint.stats())
        connection.shutdown()
        assert to_the_end(endpoint, connection, seconds) == b""
        assert child.result(seconds) == _digest(size)


def _digest(size: int) -> str:
    return hashlib.sha256((PATTERN * (size // len(PATTERN) + 1))[:size]).hexdigest()


def _swap(listener: socket.socket, size: int) -> str:
    s, _ = listener.accept()
    s.setblocking(False)
    digest, sent, ended = hashlib.sha256(), 0, False
    while not ended or sent < size:
        writers = [s] if sent < size else []
        readable, writable, _ = select.select([] if ended else [s], writers, [], 30)
        if readable:
            got = s.recv(1 << 16)
            ended = not got
            digest.update(got)
        if writable:
            at = sent % len(PATTERN)
            sent += s.send(PATTERNS[at : at + min(1 << 16, size - sent)])
    s.close()
    return digest.hexdigest()


BAD = [
    pytest.param({"loss": 0.01}, id="loss-1%"),
    pytest.param({"reorder": 0.02, "duplicate": 0.02}, id="reordered-doubled"),
    pytest.param({"loss": 0.01, "reorder": 0.01, "duplicate": 0.01}, id="all"),
]


@pytest.mark.parametrize("faults", BAD)
def test_both_ways_over_a_bad_wire(via: str, faults: dict[str, float]) -> None:
    requires_root()
    with BadWire(**faults) as wire:
        both_ways(wire, via, 2 * MIB, 30)


@pytest.mark.parametrize("size", [10_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_ten_percent_loss(via: str, size: int) -> None:
    requires_root()
    with BadWire(loss=0.1) as wire:
        both_ways(wire, via, size, 40)


def test_a_native_loop_needs_no_python(pair: Pair, via: str) -> None:
    """The function table, called as C would call it."""
    with opened(pair.a, via) as endpoint, listening(pair.b, pair.b.ip4) as listener:
        with connected(pair, endpoint, listener) as (connection, other):
            ref, ops = endpoint.ref, endpoint.ref.ops
            face = ffi.cast("struct dpb_stream *", connection.address)
            room = ffi.new("uint8_t[]", 100)
            assert (ops.abi, ops.size) == (lib.DPB_STREAM_ABI, ffi.sizeof(ops[0]))
            assert ops.send(face, b"question", 8) == 8
            assert other.recv(99) == b"question"
            assert ops.recv(face, room, 100) == -errno.EAGAIN
            other.sendall(b"answer")
            while not (ops.poll(ref.endpoint) and (got := ops.recv(face, room, 100)) > 0):
                pass
            assert bytes(ffi.buffer(room, got)) == b"answer"
            assert ops.shutdown(face) == 0
            assert ops.send(face, b"more", 4) == -errno.EPIPE
            other.close()
            while face.state == lib.DPB_STREAM_OPEN:
                ops.poll(ref.endpoint)
                assert ops.recv(face, room, 100) in (0, -errno.EAGAIN)
            assert face.state == lib.DPB_STREAM_ENDED


@pytest.mark.slow
def test_time_in_which_we_did_not_look_is_not_held_against_the_peer(pair: Pair, via: str) -> None:
    with opened(pair.a, via) as endpoint, listening(pair.b, pair.b.ip4) as listener:
        with connected(pair, endpoint, listener) as (connection, other):
            until(endpoint, lambda: endpoint.poll() >= 0)
            time.sleep(31)
            pair.b.run("ip", "link", "set", "veth0", "address", "02:00:00:00:55:78")
            connection.send(b"lost at first")
            for _ in range(1000):
                endpoint.poll()
            pair.b.run("ip", "link", "set", "veth0", "address", pair.b.mac)
            assert connection.state is StreamState.OPEN, connection.why
            until(endpoint, lambda: bool(select.select([other], [], [], 0)[0]))
            assert other.recv(99) == b"lost at first"
            other.sendall(b"answer")
            assert read(endpoint, connection, 6) == b"answer"


@pytest.mark.slow
def test_a_peer_that_vanishes_is_given_up_after_30_s(via: str) -> None:
    requires_root()
    with Pair() as pair, opened(pair.a, via) as endpoint, listening(pair.b, pair.b.ip4) as listener:
        with connected(pair, endpoint, listener) as (idle, _):
            with connected(pair, endpoint, listener) as (busy, _):
                # Not by its link, which we would see: it has another address now.
                pair.b.run("ip", "link", "set", "veth0", "address", "02:00:00:00:55:99")
                pair.a.run("ip", "neigh", "replace", "10.55.0.2", *LLADDR, "dev", "veth0")
                since = time.monotonic()
                assert busy.send(b"anybody?") == 8
                took = {}
                while len(took) < 2 and time.monotonic() - since < 60:
                    endpoint.poll()
                    endpoint.housekeeping()
                    for name, connection in ("idle", idle), ("busy", busy):
                        if connection.recv_into(bytearray(9)) < 0:
                            took.setdefault(name, time.monotonic() - since)
                    time.sleep(0.002)
                assert (idle.error, busy.error) == (errno.ETIMEDOUT, errno.ETIMEDOUT)
                assert 28 < took["busy"] < 40
                assert 28 < took["idle"] < 40


@pytest.mark.slow
@pytest.mark.parametrize("faults", [pytest.param({}, id="clean"), *BAD])
def test_64_mb_both_ways(via: str, faults: dict[str, float]) -> None:
    requires_root()
    with BadWire(**faults) as wire:
        both_ways(wire, via, 64 * MIB, 90)
