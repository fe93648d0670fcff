"""TLS against Python's own server side of OpenSSL, byte by byte in memory."""

from __future__ import annotations

import errno
import ssl
from pathlib import Path
from typing import Any

import pytest

from barewire.errors import ConfigError
from barewire.feeds.tls import TlsStream, client_context
from dpdk_bindings import StreamState
from tests.unit.certificates import Authority

HOST = "node.example"


class Pipe:
    """A byte stream in memory; the test is its other end."""

    def __init__(self) -> None:
        self.state = StreamState.OPEN
        self.why, self.error = "", 0
        self.to_us, self.from_us = bytearray(), bytearray()
        self.room = 1 << 20
        self.step = 1 << 16
        self.ended = False
        self.closed = ""
        self.arrival_ns, self.clock = 5, 1

    @property
    def readable(self) -> int:
        return len(self.to_us)

    def recv_into(self, buffer: Any, offset: int = 0, /) -> int:
        take = min(len(self.to_us), len(buffer) - offset, self.step)
        if not take:
            return -1 if self.ended or self.state is StreamState.FAILED else 0
        buffer[offset : offset + take] = self.to_us[:take]
        del self.to_us[:take]
        return take

    def send(self, data: Any, offset: int = 0, /) -> int:
        if self.state is StreamState.FAILED:
            return -1
        take = min(len(data) - offset, self.room - len(self.from_us), self.step)
        self.from_us += memoryview(data)[offset : offset + take]
        return take

    def shutdown(self) -> bool:
        self.closed = "shut"
        return True

    def close(self) -> None:
        self.closed = "closed"

    def abort(self) -> None:
        self.closed = "aborted"


class Server:
    """The server side of a TLS connection over a pipe."""

    def __init__(self, context: ssl.SSLContext, pipe: Pipe) -> None:
        self.pipe = pipe
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._in, self._out, server_side=True)
        self.shaken = False
        self.got = b""
        self.refused: ssl.SSLError | None = None

    def turn(self) -> None:
        if self.pipe.from_us:
            self._in.write(bytes(self.pipe.from_us))
            self.pipe.from_us.clear()
        try:
            if not self.shaken:
                self.tls.do_handshake()
                self.shaken = True
            while data := self.tls.read(1 << 16):
                self.got += data
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self.refused = error
        self.flush()

    def flush(self) -> None:
        self.pipe.to_us += self._out.read()

    def say(self, data: bytes) -> None:
        self.tls.write(data)
        self.flush()

    def close(self) -> None:
        with pytest.raises(ssl.SSLWantReadError):
            self.tls.unwrap()
        self.flush()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def server_context(authority: Authority) -> ssl.SSLContext:
    return serving(*authority.issue(HOST, "10.0.0.9"))


def serving(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def stream_over(pipe: Pipe, context: ssl.SSLContext, host: str = HOST, **how: Any) -> TlsStream:
    how.setdefault("now_mono_ns", lambda: 0)
    return TlsStream(pipe, context, host, **how)


def shake(stream: TlsStream, server: Server) -> None:
    for _ in range(2000):
        if stream.state is not StreamState.CONNECTING:
            break
        assert stream.recv_into(bytearray(10)) <= 0
        server.turn()
    server.turn()


def read(stream: TlsStream, n: int) -> bytes:
    buffer = bytearray(n)
    have = 0
    for _ in range(100_000):
        got = stream.recv_into(buffer, have)
        assert got >= 0, stream.why
        have += got
        if have == n:
            return bytes(buffer)
    raise AssertionError(have)


def pairs(
    authority: Authority, server: ssl.SSLContext, **how: Any
) -> tuple[TlsStream, Server, Pipe]:
    pipe = Pipe()
    stream = stream_over(pipe, client_context(ca_file=authority.ca), **how)
    other = Server(server, pipe)
    shake(stream, other)
    assert stream.state is StreamState.OPEN, stream.why
    return stream, other, pipe


@pytest.mark.parametrize("step", [1, 7, 1 << 16])
def test_bytes_go_both_ways_however_they_are_cut(
    authority: Authority, server_context: ssl.SSLContext, step: int
) -> None:
    pipe = Pipe()
    pipe.step = step
    stream = stream_over(pipe, client_context(ca_file=authority.ca))
    server = Server(server_context, pipe)
    assert stream.send(b"too early") == 0
    shake(stream, server)
    assert stream.state is StreamState.OPEN, stream.why
    said = bytes(range(256)) * (4 if step == 1 else 400)
    assert stream.send(b"__" + said[:10000], 2) == len(said[:10000])
    server.turn()
    assert server.got == said[:10000]
    server.say(said)
    assert read(stream, len(said)) == said
    assert stream.recv_into(bytearray(4)) == 0
    assert not stream.readable
    assert (stream.rx_bytes, stream.tx_bytes) == (len(said), min(len(said), 10000))
    assert (stream.arrival_ns, stream.clock) == (5, 1)


def test_the_peers_goodbye_and_ours(authority: Authority, server_context: ssl.SSLContext) -> None:
    stream, server, pipe = pairs(authority, server_context)
    server.say(b"last")
    server.close()
    assert read(stream, 4) == b"last"
    assert stream.recv_into(bytearray(4)) == -1
    assert (stream.state, stream.why) == (StreamState.ENDED, "")
    stream.close()
    assert pipe.closed == "closed"
    assert pipe.from_us  # close_notify
    server.turn()
    assert isinstance(server.refused, ssl.SSLZeroReturnError)


def test_an_end_without_goodbye_may_have_been_cut_off(
    authority: Authority, server_context: ssl.SSLContext
) -> None:
    stream, server, pipe = pairs(authority, server_context)
    server.say(b"half of a mess")
    pipe.ended = True
    assert read(stream, 14) == b"half of a mess"
    assert stream.recv_into(bytearray(4)) == -1
    assert stream.state is StreamState.FAILED
    assert "close_notify" in stream.why


def test_a_failure_below_is_passed_on(authority: Authority, server_context: ssl.SSLContext) -> None:
    stream, _, pipe = pairs(authority, server_context)
    pipe.state, pipe.why, pipe.error = StreamState.FAILED, "Connection reset", errno.ECONNRESET
    assert stream.send(b"x") == -1
    while stream.recv_into(bytearray(4)) != -1:
        pass  # what came before: session tickets
    assert (stream.state, stream.error) == (StreamState.FAILED, errno.ECONNRESET)
    assert stream.why == "Connection reset"


def test_a_refused_connection(authority: Authority) -> None:
    pipe = Pipe()
    pipe.state, pipe.why, pipe.error = StreamState.FAILED, "refused", errno.ECONNREFUSED
    stream = stream_over(pipe, client_context(ca_file=authority.ca))
    assert stream.recv_into(bytearray(4)) == -1
    assert (stream.state, stream.error, stream.why) == (
        StreamState.FAILED,
        errno.ECONNREFUSED,
        "refused",
    )


def refused(stream: TlsStream, server: Server) -> str:
    shake(stream, server)
    assert stream.state is StreamState.FAILED
    assert stream.error == errno.EPROTO
    assert stream.send(b"x") == -1
    return stream.why


def test_certificates_that_are_refused(authority: Authority, tmp_path: Path) -> None:
    good = serving(*authority.issue(HOST, "10.0.0.9"))
    expired = serving(*authority.issue(HOST, expired=True))
    context = client_context(ca_file=authority.ca)

    def why(host: str, server: ssl.SSLContext, using: ssl.SSLContext) -> str:
        pipe = Pipe()
        other = Server(server, pipe)
        said = refused(stream_over(pipe, using, host), other)
        assert pipe.closed == "closed"
        assert other.refused is not None  # it got the alert
        return said

    assert "expired" in why(HOST, expired, context)
    assert "Hostname mismatch" in why("other.example", good, context)
    assert "IP address mismatch" in why("10.0.0.8", good, context)
    stranger = client_context(ca_file=Authority(tmp_path, "another").ca)
    assert "unable to get local issuer" in why(HOST, good, stranger)
    assert "unable to get local issuer" in why(HOST, good, client_context())  # the system's


def test_by_address_and_unverified(authority: Authority, server_context: ssl.SSLContext) -> None:
    for context, host in (
        (client_context(ca_file=authority.ca), "10.0.0.9"),
        (client_context(verify=False), "whoever.example"),
    ):
        pipe = Pipe()
        stream = stream_over(pipe, context, host)
        shake(stream, Server(server_context, pipe))
        assert stream.state is StreamState.OPEN, stream.why


def test_a_client_certificate(authority: Authority) -> None:
    server = serving(*authority.issue(HOST))
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(authority.ca)
    public, private = authority.issue("client.example")
    pipe = Pipe()
    context = client_context(ca_file=authority.ca, certificate=public, key=private)
    stream = stream_over(pipe, context)
    other = Server(server, pipe)
    shake(stream, other)
    assert other.tls.getpeercert()["subjectAltName"] == (("DNS", "client.example"),)
    # Without one, TLS 1.3 refuses after the client has finished: with the first bytes it reads.
    pipe = Pipe()
    stream = stream_over(pipe, client_context(ca_file=authority.ca))
    shake(stream, Server(server, pipe))
    assert stream.recv_into(bytearray(4)) == -1
    assert "certificate required" in stream.why


def test_alpn(authority: Authority, server_context: ssl.SSLContext) -> None:
    server = serving(*authority.issue(HOST))
    server.set_alpn_protocols(["http/1.1"])
    pipe = Pipe()
    stream = stream_over(pipe, client_context(ca_file=authority.ca, alpn=["h2", "http/1.1"]))
    shake(stream, Server(server, pipe))
    assert stream.protocol == "http/1.1"
    assert stream.describe()["version"] == "TLSv1.3"
    assert pairs(authority, server_context)[0].protocol is None


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_is_resumed(authority: Authority, version: ssl.TLSVersion) -> None:
    server = serving(*authority.issue(HOST))
    server.maximum_version = version
    context = client_context(ca_file=authority.ca)
    session = None
    for resumed in (False, True):
        pipe = Pipe()
        stream = stream_over(pipe, context, session=session)
        other = Server(server, pipe)
        shake(stream, other)
        other.say(b"hello")
        assert read(stream, 5) == b"hello"
        assert stream.describe()["resumed"] is resumed
        session = stream.session
        stream.close()


def test_old_versions_are_refused(authority: Authority) -> None:
    server = serving(*authority.issue(HOST))
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        server.minimum_version = ssl.TLSVersion.TLSv1_1
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        server.maximum_version = ssl.TLSVersion.TLSv1_1
    pipe = Pipe()
    assert "TLS" in refused(
        stream_over(pipe, client_context(ca_file=authority.ca)), Server(server, pipe)
    )


def test_a_handshake_that_stalls_times_out(authority: Authority) -> None:
    now = [0]
    pipe = Pipe()
    context = client_context(ca_file=authority.ca)
    stream = stream_over(pipe, context, now_mono_ns=lambda: now[0], timeout_ms=3)
    assert stream.recv_into(bytearray(4)) == 0
    assert pipe.from_us[:1] == b"\x16"
    now[0] = 2_999_999
    assert stream.recv_into(bytearray(4)) == 0
    now[0] = 3_000_000
    assert stream.recv_into(bytearray(4)) == -1
    assert stream.error == errno.ETIMEDOUT
    assert HOST in stream.why
    assert pipe.closed


@pytest.mark.parametrize("when", ["before", "after"])
def test_garbage(authority: Authority, server_context: ssl.SSLContext, when: str) -> None:
    if when == "before":
        pipe = Pipe()
        stream = stream_over(pipe, client_context(ca_file=authority.ca))
    else:
        stream, _, pipe = pairs(authority, server_context)
    pipe.to_us += b"HTTP/1.1 400 Bad Request\r\n\r\n" * 3
    for _ in range(3):
        stream.recv_into(bytearray(100))
    assert stream.state is StreamState.FAILED
    assert stream.error == errno.EPROTO
    assert "TLS" in stream.why


def test_a_server_that_does_not_read(authority: Authority, server_context: ssl.SSLContext) -> None:
    stream, server, pipe = pairs(authority, server_context)
    pipe.room = 0
    said = b""
    block = bytes(range(256)) * 64
    while stream.send(block):
        said += block
    assert 0 < len(said) < 1 << 20
    assert stream.send(block) == 0
    pipe.room = 1000
    while len(server.got) < len(said):
        stream.recv_into(bytearray(4))
        server.turn()
    assert server.got == said


def test_keys_are_logged_on_request_only(
    authority: Authority,
    server_context: ssl.SSLContext,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "unasked"))
    log = tmp_path / "asked"
    for context in (
        client_context(ca_file=authority.ca),
        client_context(ca_file=authority.ca, key_log=log),
    ):
        pipe = Pipe()
        stream = stream_over(pipe, context)
        shake(stream, Server(server_context, pipe))
        assert stream.state is StreamState.OPEN
    assert not (tmp_path / "unasked").exists()
    assert "CLIENT_TRAFFIC_SECRET_0" in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600


def test_files_that_cannot_be_used(authority: Authority, tmp_path: Path) -> None:
    public, private = authority.issue("someone.example")
    other, _ = authority.issue("another.example")
    with pytest.raises(ConfigError, match=r"missing\.pem.*No such file"):
        client_context(ca_file=tmp_path / "missing.pem")
    empty = tmp_path / "empty.pem"
    empty.touch(mode=0o600)
    with pytest.raises(ConfigError, match="empty"):
        client_context(ca_file=empty)
    with pytest.raises(ConfigError, match="key values mismatch"):
        client_context(certificate=other, key=private)
    private.chmod(0o640)
    with pytest.raises(ConfigError, match=r"others \(mode 0640\)"):
        client_context(certificate=public, key=private)


def test_what_is_not_read_stays_below(authority: Authority, server_context: ssl.SSLContext) -> None:
    """However much there is: what waits in memory would be copied again and again."""
    stream, server, pipe = pairs(authority, server_context)
    for _ in range(256):
        server.say(bytes(16384))
    left, got, buffer = pipe.readable, 0, bytearray(1 << 18)
    while got < 4 << 20:
        got += stream.recv_into(buffer)
        assert stream._incoming.pending <= 2 << 16
    assert left > 4 << 20


def test_a_peer_that_asks_and_does_not_read_is_let_go(
    authority: Authority, server_context: ssl.SSLContext
) -> None:
    """Key updates are answered by OpenSSL of its own accord (RFC 8446, 4.6.3)."""
    stream, _, pipe = pairs(authority, server_context)
    pipe.room = len(pipe.from_us)
    left = stream.left_bytes
    assert stream.send(b"waits") == 5
    assert (stream.left_bytes, stream.unsent_bytes) == (left, 5 + 22)  # a record of TLS 1.3
    for _ in range(3_000):
        stream._outgoing.write(bytes(27))  # as OpenSSL does
        if stream.recv_into(bytearray(64)) < 0:
            break
    assert stream.state is StreamState.FAILED
    assert "does not read" in stream.why


def test_a_session_that_cannot_be_written_down_is_none(
    authority: Authority, server_context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Python says of one that a server of TLS 1.2 left off to renegotiate."""
    stream, _, _ = pairs(authority, server_context)

    class Torn:
        @property
        def session(self) -> ssl.SSLSession:
            raise ValueError("i2d() failed")

    monkeypatch.setattr(stream, "_tls", Torn())
    assert stream.session is None
