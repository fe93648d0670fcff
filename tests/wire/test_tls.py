"""TLS over both kinds of stream, against Python's own server over a kernel socket."""

from __future__ import annotations

import errno
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.lab import Pair
from barewire.feeds.tls import TlsStream, client_context
from dpdk_bindings import StreamEndpoint, StreamState
from tests.requires import requires_lwip, requires_root
from tests.unit.certificates import Authority
from tests.wire.test_stream import PATTERN, listening, opened, start

HOST = "node.example"


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    requires_root()
    with Pair() as made:
        yield made


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(params=["kernel", "afxdp:veth0"])
def via(request: pytest.FixtureRequest) -> str:
    if request.param != "kernel":
        requires_lwip()
    return request.param


def _echo(listener: socket.socket, certificate: Path, key: Path) -> str:
    """Serves one connection; says how it ended."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    plain, _ = listener.accept()
    try:
        with context.wrap_socket(plain, server_side=True) as s:
            while data := s.recv(1 << 16):
                s.sendall(data)
    except (ssl.SSLError, OSError) as error:
        return getattr(error, "reason", None) or type(error).__name__
    return "clean"


def shaken(endpoint: StreamEndpoint, stream: TlsStream) -> None:
    end = time.monotonic() + 30
    while stream.state is StreamState.CONNECTING:
        assert time.monotonic() < end
        endpoint.poll()
        endpoint.housekeeping()
        stream.recv_into(bytearray(1))


def over(pair: Pair, endpoint: StreamEndpoint, listener: socket.socket, ca: Path) -> TlsStream:
    connection = start(pair.a, endpoint, *listener.getsockname()[:2], tls=True)
    context = client_context(ca_file=ca)
    return TlsStream(connection, context, HOST, now_mono_ns=time.monotonic_ns, timeout_ms=2000)


def test_an_echo_and_a_clean_end(pair: Pair, via: str, authority: Authority) -> None:
    with opened(pair.a, via) as endpoint, listening(pair.b, pair.b.ip4) as listener:
        server = pair.b.start(_echo, listener, *authority.issue(HOST))
        stream = over(pair, endpoint, listener, authority.ca)
        shaken(endpoint, stream)
        assert stream.state is StreamState.OPEN, stream.why
        said, sent, got = PATTERN[:600_000], 0, bytearray()
        buffer = bytearray(1 << 16)
        end = time.monotonic() + 20
        while len(got) < len(said):
            assert time.monotonic() < end
            endpoint.poll()
            if sent < len(said):
                sent += stream.send(said[sent : sent + 10_000])
            n = stream.recv_into(buffer)
            assert n >= 0, stream.why
            got += buffer[:n]
        assert got == said
        stream.close()
        assert server.result() == "clean"


def test_an_expired_certificate_is_refused(pair: Pair, via: str, authority: Authority) -> None:
    with opened(pair.a, via) as endpoint, listening(pair.b, pair.b.ip4) as listener:
        server = pair.b.start(_echo, listener, *authority.issue(HOST, expired=True))
        stream = over(pair, endpoint, listener, authority.ca)
        shaken(endpoint, stream)
        assert stream.state is StreamState.FAILED
        assert "expired" in stream.why
        assert server.result() == "SSLV3_ALERT_CERTIFICATE_EXPIRED"  # the alert arrived


def test_a_server_that_says_nothing(pair: Pair, via: str, authority: Authority) -> None:
    with opened(pair.a, via) as endpoint, listening(pair.b, pair.b.ip4) as listener:
        connection = start(pair.a, endpoint, *listener.getsockname()[:2], tls=True)
        stream = TlsStream(
            connection,
            client_context(ca_file=authority.ca),
            HOST,
            now_mono_ns=time.monotonic_ns,
            timeout_ms=200,
        )
        shaken(endpoint, stream)
        assert (stream.state, stream.error) == (StreamState.FAILED, errno.ETIMEDOUT)
        assert "handshake" in stream.why
