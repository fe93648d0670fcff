"""TLS over any byte stream, without I/O of its own: OpenSSL between two buffers in memory.

    context = client_context(ca_file="/etc/site/ca.pem", alpn=["http/1.1"])
    stream = TlsStream(connection, context, "node.example", now_mono_ns=time.monotonic_ns)
    while stream.state is StreamState.CONNECTING:
        endpoint.poll()
        stream.recv_into(buffer)              # the handshake moves with it
    stream.send(b"hello")

A :class:`TlsStream` has the methods of the stream under it (dpdk_bindings.stream.Connection) and is
used in its place: what the network does, a certificate that is not accepted included, is a state,
with its reason in words. Sockets and clocks are handed in.
"""

from __future__ import annotations

import errno
import os
import ssl
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from barewire.errors import BarewireError, ConfigError
from dpdk_bindings import StreamState

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["ByteStream", "TlsStream", "client_context", "refuse_open_to_others"]

_CONNECTING, _OPEN = StreamState.CONNECTING, StreamState.OPEN
_CUT_OFF = "UNEXPECTED_EOF_WHILE_READING"
_SCRATCH_BYTES = 1 << 16
_MOST_PENDING = 1 << 18
"""Encrypted bytes that wait for the stream below; beyond it no more are taken."""

_MOST_ANSWERS = 1 << 16
"""Bytes of TLS's own answers (key updates, renegotiations) that may wait for a peer to read."""


class ByteStream(Protocol):
    """What TLS needs of the stream under it; see :class:`dpdk_bindings.stream.Connection`."""

    def recv_into(self, buffer: Buffer, offset: int = 0, /) -> int:
        """Bytes received, 0: none now, -1: no more."""

    def send(self, data: Buffer, offset: int = 0, /) -> int:
        """Bytes taken, 0: no room now, -1: failed."""

    def shutdown(self) -> bool:
        """Ends this side."""

    def close(self) -> None:
        """Ends both."""

    def abort(self) -> None:
        """Ends both with a reset."""

    @property
    def state(self) -> StreamState:
        """Where the connection is in its life."""

    @property
    def why(self) -> str:
        """Why it failed."""

    @property
    def error(self) -> int:
        """The errno of its failure."""

    @property
    def readable(self) -> int:
        """Whether there may be something."""

    @property
    def arrival_ns(self) -> int:
        """When the last byte came."""

    @property
    def clock(self) -> int:
        """Which clock that is."""


def client_context(
    *,
    ca_file: Path | str | None = None,
    certificate: Path | str | None = None,
    key: Path | str | None = None,
    alpn: Sequence[str] = (),
    verify: bool = True,
    key_log: Path | str | None = None,
) -> ssl.SSLContext:
    """Settings for connections of a client: TLS 1.2 or 1.3, the server verified.

    Args:
        ca_file: certificates (PEM) that may vouch for the server, *instead of* the system's.
        certificate: chain (PEM) to show to a server that asks for one.
        key: its private key (PEM), of mode 0600 or in $CREDENTIALS_DIRECTORY; None if it is in
            the same file.
        alpn: protocols to offer (RFC 7301), the preferred one first.
        verify: whether the server must prove who it is. Without it anybody on the way can be it.
        key_log: a file to append session secrets to, for Wireshark: whoever reads it reads the
            traffic. Only this asks for it; SSLKEYLOGFILE is not heeded.

    Raises:
        ConfigError: a file that cannot be used, and why.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Python sets it with OpenSSL 3, and a stream that was cut would look like one that ended.
    context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    if ca_file is None:
        context.load_default_certs()
    else:
        try:
            context.load_verify_locations(ca_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"certificates {str(ca_file)!r}: {_reason(error)}") from error
    if certificate is not None:
        refuse_open_to_others(Path(key or certificate))
        try:
            context.load_cert_chain(certificate, key)
        except (OSError, ssl.SSLError) as error:
            files = f"{str(certificate)!r}" + (f" with key {str(key)!r}" if key else "")
            raise ConfigError(f"client certificate {files}: {_reason(error)}") from error
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if key_log is not None:
        try:
            os.close(os.open(key_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise ConfigError(f"key log {str(key_log)!r}: {error.strerror}") from error
        refuse_open_to_others(Path(key_log))
        context.keylog_filename = str(key_log)
    return context


class TlsStream:
    """A client's TLS connection over a byte stream.

    ``recv_into`` moves everything: call it every turn, also while ``state`` is CONNECTING.

    Args:
        below: the stream; from here on it is used by nobody else.
        context: from :func:`client_context`.
        host: the server's name or address, which its certificate has to carry.
        now_mono_ns: CLOCK_MONOTONIC, in nanoseconds.
        timeout_ms: how long the stream below and the handshake may take together; then the
            connection has failed with ETIMEDOUT.
        session: of an earlier connection to the same server (``TlsStream.session``), to resume.

    Attributes:
        rx_bytes: decrypted so far. tx_bytes: encrypted so far.
        left_bytes: encrypted bytes that the stream below has taken so far.
    """

    def __init__(
        self,
        below: ByteStream,
        context: ssl.SSLContext,
        host: str,
        *,
        now_mono_ns: Callable[[], int],
        timeout_ms: int = 5000,
        session: ssl.SSLSession | None = None,
    ) -> None:
        self._below = below
        self._host = host
        self._now_mono_ns = now_mono_ns
        self._deadline_mono_ns = now_mono_ns() + timeout_ms * 1_000_000
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        try:
            self._tls = context.wrap_bio(
                self._incoming, self._outgoing, server_hostname=host, session=session
            )
        except ValueError as error:
            raise BarewireError(f"TLS to {host!r}: {error}") from error
        # Into a buffer it gives a number.
        self._read_into = cast("Callable[[int, Buffer], int]", self._tls.read)
        self._receive_below = below.recv_into
        self._send_below = below.send
        self._scratch = bytearray(_SCRATCH_BYTES)
        self._view = memoryview(self._scratch)
        self._pending = b""
        self._sent = 0  # of what is pending
        self._answers = 0  # bytes that OpenSSL added of its own accord to what is pending
        self._unread = False  # OpenSSL may have bytes, or news
        self._below_ended = False
        self._state = StreamState.CONNECTING
        self._why = ""
        self._error = 0
        self.rx_bytes = 0
        self.tx_bytes = 0
        self.left_bytes = 0

    # ---- what it is ----

    @property
    def state(self) -> StreamState:
        """CONNECTING until the handshake is done; ENDED after the peer's close_notify."""
        return self._state

    @property
    def why(self) -> str:
        """Why a failed connection failed, in words; an empty string for any other."""
        return self._why

    @property
    def error(self) -> int:
        """The errno of a failed connection: EPROTO for what TLS did not accept; else 0."""
        return self._error

    @property
    def readable(self) -> int:
        """0: recv_into() has nothing to do; else it may have."""
        return 1 if self._unread or self._pending else self._below.readable

    @property
    def unsent_bytes(self) -> int:
        """Encrypted, and waiting for room below."""
        return len(self._pending) - self._sent

    @property
    def arrival_ns(self) -> int:
        """When the last byte that was decrypted came, in nanoseconds of `clock`."""
        return self._below.arrival_ns

    @property
    def clock(self) -> int:
        """Which clock that is: a value of ``enum dpb_clock``."""
        return self._below.clock

    @property
    def protocol(self) -> str | None:
        """The protocol that the server chose of those offered by ALPN."""
        try:
            return self._tls.selected_alpn_protocol()
        except UnicodeDecodeError:
            return None

    @property
    def session(self) -> ssl.SSLSession | None:
        """What a later connection can resume; with TLS 1.3 there once something was received."""
        try:
            return self._tls.session
        except ValueError:  # OpenSSL cannot write one down: such as amidst a renegotiation
            return None

    def describe(self) -> dict[str, object]:
        """Version, cipher, protocol chosen, whether an earlier session was resumed."""
        cipher = self._tls.cipher()
        return {
            "version": self._tls.version(),
            "cipher": cipher[0] if cipher else None,
            "protocol": self.protocol,
            "resumed": self._tls.session_reused,
        }

    # ---- bytes ----

    def recv_into(self, buffer: Buffer, offset: int = 0, /) -> int:
        """Puts decrypted bytes into `buffer`, from `offset` on. Never blocks.

        Returns:
            how many; 0: none now; -1: no more will come, and `state` says why.
        """
        if self._state is not _OPEN and self._state is not _CONNECTING:
            return -1
        if self._pending and not self._collect():
            return -1
        # What OpenSSL holds is read first: what is not taken from below makes the peer wait.
        if self._unread and self._state is _OPEN and (got := self._read(buffer, offset)):
            return got
        if not self._below_ended:
            got = self._receive_below(self._scratch)
            if got > 0:
                self._incoming.write(self._view[:got])
                self._unread = True
            elif got < 0:
                self._below_ended = self._unread = True
                self._incoming.write_eof()
        if self._state is _CONNECTING and not self._shake():
            return -1 if self._error else 0
        return self._read(buffer, offset) if self._unread else 0

    def send(self, data: Buffer, offset: int = 0, /) -> int:
        """Encrypts bytes of `data`, from `offset` on, and sends them now.

        Returns:
            how many it took: all or, where the stream below has no room, or the handshake is not
            done, 0; -1: the connection has failed.
        """
        if self._state is _CONNECTING:
            return 0
        if self._state is StreamState.FAILED:
            return -1
        if len(self._pending) - self._sent > _MOST_PENDING:
            self._push()
            return 0
        plain = memoryview(data)[offset:] if offset else data
        try:
            took = self._tls.write(plain)
        except ssl.SSLWantReadError:  # the server renegotiates
            self._collect()
            return 0
        except ssl.SSLError as error:
            self._fail(errno.EPROTO, _reason(error))
            return -1
        self.tx_bytes += took
        if not self._pending:
            fresh = self._outgoing.read()
            if (sent := self._send_below(fresh)) < 0:
                return -1
            self.left_bytes += sent
            if sent == len(fresh):
                return took
            self._pending, self._sent = fresh, sent
        return took if self._push() else -1

    def shutdown(self) -> bool:
        """Ends this side behind what was sent: close_notify, then FIN. False: not connected."""
        if self._state not in (StreamState.OPEN, StreamState.ENDED):
            return False
        self._say_close()
        return self._push() and not self._pending and self._below.shutdown()

    def close(self) -> None:
        """Ends the connection: close_notify, then FIN. Safe twice."""
        if self._state in (StreamState.OPEN, StreamState.ENDED):
            self._say_close()
            self._push()
        self._below.close()

    def abort(self) -> None:
        """Ends the connection with a reset. Safe twice."""
        self._below.abort()

    # ---- steps ----

    def _shake(self) -> bool:
        if self._below.state is StreamState.FAILED:
            self._fail(self._below.error, self._below.why)
        elif self._below.state is StreamState.CONNECTING:
            if self._now_mono_ns() >= self._deadline_mono_ns:
                self._fail(errno.ETIMEDOUT, "no connection in time")
        else:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._unread = False
                self._push()
                if self._now_mono_ns() >= self._deadline_mono_ns:
                    self._fail(errno.ETIMEDOUT, f"{self._host} did not finish the TLS handshake")
            except ssl.SSLCertVerificationError as error:
                said = error.verify_message.rstrip(".")
                self._fail(errno.EPROTO, f"the certificate of {self._host} is refused: {said}")
            except ssl.SSLEOFError:
                why = self._below.why or "the peer ended the connection"
                self._fail(self._below.error or errno.EPROTO, f"in the TLS handshake: {why}")
            except (ssl.SSLError, ValueError) as error:
                self._fail(errno.EPROTO, f"TLS handshake with {self._host}: {_reason(error)}")
            else:
                self._state = StreamState.OPEN
                self._unread = True
                return self._push()
        return False

    def _read(self, buffer: Buffer, offset: int) -> int:
        room: Buffer = buffer
        if offset or not isinstance(buffer, bytearray):
            room = memoryview(buffer)[offset:]
            size = room.nbytes
        else:
            size = len(buffer)
        if not size:
            raise ValueError("no room in the buffer behind the offset")
        try:
            got: int = self._read_into(size, room)
        except ssl.SSLWantReadError:
            self._unread = False
            self._collect()
            return 0
        except ssl.SSLZeroReturnError:
            got = 0
        except ssl.SSLError as error:
            # Python up to 3.11.2 has no SSLEOFError for what OpenSSL 3 says.
            if isinstance(error, ssl.SSLEOFError) or error.reason == _CUT_OFF:
                why = "the peer ended it without TLS's close_notify: perhaps cut off"
                self._fail(self._below.error or errno.EPROTO, self._below.why or why)
            else:
                self._fail(errno.EPROTO, f"TLS: {_reason(error)}")
            return -1
        if not got:
            self._state = StreamState.ENDED
            return -1
        self.rx_bytes += got
        # Cheaper than being told by an exception. OpenSSL takes one record after the other from
        # the buffer, and of one it keeps only what there was no room for.
        self._unread = bool(self._incoming.pending or got == size or self._below_ended)
        return got

    def _collect(self) -> bool:
        """Sends what waits, and what OpenSSL has to say of its own accord: key updates, alerts.

        A peer that asks for it and does not read it is not served for ever: then, False.
        """
        if self._pending:
            self._answers += self._outgoing.pending
            if self._answers > _MOST_ANSWERS:
                self._fail(errno.ENOBUFS, "TLS: the peer asks, and does not read what it is told")
                return False
        if self._pending or self._outgoing.pending:
            self._push()
        return True

    def _push(self) -> bool:
        """Sends encrypted bytes as far as there is room below; False: that has failed."""
        if self._outgoing.pending:
            fresh = self._outgoing.read()
            self._pending = self._pending[self._sent :] + fresh if self._pending else fresh
            self._sent = 0
        while self._sent < len(self._pending):
            took = self._below.send(self._pending, self._sent)
            if took < 0:
                # What came before the failure is still to be read.
                self._pending, self._sent = b"", 0
                return False
            if not took:
                return True
            self._sent += took
            self.left_bytes += took
        self._pending, self._sent, self._answers = b"", 0, 0
        return True

    def _say_close(self) -> None:
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            return  # the peer's own close_notify is not waited for, nor is it needed

    def _fail(self, code: int, why: str) -> None:
        self._push()  # the alert, if there is one
        self._state = StreamState.FAILED
        self._error, self._why = code, why
        self._unread = False
        self._below.close()


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    return getattr(error, "strerror", None) or str(error)


def refuse_open_to_others(path: Path) -> None:
    """Refuses a file with secrets that others can read; systemd sees to its credentials itself.

    Raises:
        ConfigError: it is such a file, or there is none.
    """
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    within = credentials is not None and path.is_relative_to(credentials)
    if mode & (stat.S_IRWXG | stat.S_IRWXO) and not within:
        raise ConfigError(
            f"{path} can be read by others (mode {stat.S_IMODE(mode):04o})",
            hint=f"chmod 0600 {path}",
        )
