"""The sources that are byte streams: connected, read, watched, and connected again.

One native receive a turn and source that has something; what is read is offered to the pump, which
matches and fires. TCP over a port and over kernel sockets is one interface (dpdk_bindings.stream),
TLS goes in between, a node's IPC socket is a Unix socket of our own. Names are looked up when the
appliance starts: looking one up may take seconds, and a hot loop has none.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import socket
import stat
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from appliance.config import Source
from barewire._native import ffi, lib
from barewire.errors import BarewireError, ConfigError
from barewire.feeds.arbitration import Arbiter
from barewire.feeds.jsonrpc import PendingTransactions
from barewire.feeds.reconnect import Reconnect
from barewire.feeds.session import Phase
from barewire.feeds.tls import TlsStream, client_context
from barewire.feeds.txfeed import BURST
from barewire.mempool.decoder import Decoder
from barewire.pump import Pump
from dpdk_bindings import StreamState
from dpdk_bindings.errors import BindingsError
from dpdk_bindings.stream import StreamEndpoint, open_stream

__all__ = ["Streams"]

_BUFFER_BYTES = 256 << 10
_CLOCK_MONO = 1
_REASONS = 16
"""Ways to end that one source is remembered for; further ones are counted together."""


class _Pipe(Protocol):
    """What is used of a connection, of whatever kind."""

    def recv_into(self, buffer: Any, offset: int = 0, /) -> int: ...
    def send(self, data: Any, offset: int = 0, /) -> int: ...
    def abort(self) -> None: ...
    @property
    def state(self) -> StreamState: ...
    @property
    def why(self) -> str: ...
    @property
    def arrival_ns(self) -> int: ...
    @property
    def clock(self) -> int: ...


class _UnixPipe:
    """A node's IPC socket with the methods of a connection."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self.state = StreamState.OPEN
        self.why = ""
        self.arrival_ns = 0
        self.clock = _CLOCK_MONO
        try:
            self._socket.connect(path)
        except OSError as error:
            self._fail(error)

    def recv_into(self, buffer: Any, offset: int = 0, /) -> int:
        """Bytes received, 0: none now, -1: no more."""
        if self.state is not StreamState.OPEN:
            return -1
        try:
            got = self._socket.recv_into(memoryview(buffer)[offset:])
        except BlockingIOError:
            return 0
        except OSError as error:
            self._fail(error)
            return -1
        self.arrival_ns = time.monotonic_ns()
        if not got:
            self.state = StreamState.ENDED
            return -1
        return got

    def send(self, data: Any, offset: int = 0, /) -> int:
        """Bytes taken, 0: no room now, -1: failed."""
        try:
            return self._socket.send(memoryview(data)[offset:])
        except BlockingIOError:
            return 0
        except OSError as error:
            self._fail(error)
            return -1

    def abort(self) -> None:
        """Closes it."""
        self._socket.close()

    def _fail(self, error: OSError) -> None:
        self.state = StreamState.FAILED
        self.why = os.strerror(error.errno or errno.EIO)


class _Line:
    """One source: its session, its connection, and when to connect again."""

    def __init__(
        self,
        source: Source,
        number: int,
        *,
        endpoint: StreamEndpoint | None,
        where: Path,
        decoder: Decoder,
        arbiter: Arbiter,
    ) -> None:
        assert source.url is not None
        self.name = source.name
        self.number = number
        self.again = Reconnect(random.Random())  # noqa: S311 - pauses are no secret
        self.pipe: _Pipe | None = None
        self.troubles = 0
        self.last_why = ""
        self.ended: dict[str, int] = {}
        self.buffer = bytearray(_BUFFER_BYTES)
        self._view = memoryview(self.buffer)
        self._endpoint = endpoint
        self._url = source.url
        self._began = False
        self._unsent, self._sent = b"", 0
        url = source.url.text
        if source.url.scheme == "ipc":
            self._place = (source.url.rest, 0)
        else:
            parts = urlsplit(url)
            self._host = parts.hostname or ""
            port = parts.port or (443 if parts.scheme == "wss" else 80)
            self._place = (_address_of(source.name, self._host, port), port)
        self._context = None
        if source.url.scheme == "wss":
            ca_file = where.parent / source.ca_file if source.ca_file else None
            self._context = client_context(ca_file=ca_file, alpn=["http/1.1"], verify=source.verify)
        headers = _headers(where.parent / source.headers_file) if source.headers_file else None
        self.session = PendingTransactions(
            f"ipc:{source.url.rest}" if source.url.scheme == "ipc" else url,
            decoder,
            style=source.subscribe,
            headers=headers,
            source=number,
            trusted=source.trusted,
            known=arbiter.known,
            deflate=source.deflate,
        )

    def receive(self) -> bool:
        """Takes what came, if anything, and lends it to the session."""
        pipe = self.pipe
        assert pipe is not None
        got = pipe.recv_into(self.buffer)
        if got == 0:
            return False
        if got < 0:
            self.session.end(pipe.why or "the other side ended the connection")
            return False
        self.session.lend(self._view[:got], pipe.arrival_ns, pipe.clock)
        return True

    def send(self) -> None:
        """Sends what the session has to say, as far as there is room."""
        pipe = self.pipe
        if pipe is None or pipe.state is not StreamState.OPEN:
            return
        if self._sent == len(self._unsent):
            self._unsent, self._sent = self.session.data_to_send(), 0
        while self._sent < len(self._unsent):
            took = pipe.send(self._unsent, self._sent)
            if took <= 0:
                return
            self._sent += took

    def housekeeping(self, now_mono_ns: int) -> None:
        """Connects when it is time to; asks for signs of life; lets go of what failed."""
        if self.pipe is None:
            if self.again.due(now_mono_ns):
                self._connect(now_mono_ns)
            return
        if self.pipe.state is StreamState.FAILED:
            self.session.end(self.pipe.why)
        self.session.tick(now_mono_ns)
        if self.session.phase is Phase.LIVE:
            self.again.live(now_mono_ns)
        elif self.session.phase is Phase.FAILED:
            self.drop(now_mono_ns)
            return
        self.send()

    @property
    def trouble(self) -> str:
        """What a person on call has to know; other words each time that something happened."""
        times = sum(self.ended.values())
        return f"connection {times} ended: {self.last_why}" if times else ""

    def drop(self, now_mono_ns: int) -> None:
        """Lets the connection go; another follows."""
        self.last_why = why = self.session.why
        if why not in self.ended and len(self.ended) >= _REASONS:
            why = "other reasons"
        self.ended[why] = self.ended.get(why, 0) + 1
        if self.pipe is not None:
            self.pipe.abort()
            self.pipe = None
        self.again.failed(now_mono_ns)

    def _connect(self, now_mono_ns: int) -> None:
        self.again.began(now_mono_ns)
        if self._began:
            self.session.connect(now_mono_ns)
        self._began = True
        self._unsent, self._sent = b"", 0
        address, port = self._place
        if self._endpoint is None:
            self.pipe = _UnixPipe(address)
            return
        try:
            connection = self._endpoint.connect(address, port, tls=self._context is not None)
        except BindingsError as error:
            self.session.end(str(error))
            self.drop(now_mono_ns)
            return
        self.pipe = connection
        if self._context is not None:
            self.pipe = TlsStream(
                connection, self._context, self._host, now_mono_ns=time.monotonic_ns
            )


class Streams:
    """All of them.

    Args:
        sources: their configuration.
        first: number of the first; the others follow.
        where: the configuration's file, which paths in it are relative to.
        decoder: judges the envelopes.
        arbiter: has their numbers too.
        pump: takes their transactions.

    Attributes:
        chosen: what was chosen at start, by source.
        warnings: what was not to be had, and what is used instead.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        first: int,
        where: Path,
        decoder: Decoder,
        arbiter: Arbiter,
        pump: Pump,
    ) -> None:
        self.chosen: dict[str, dict[str, Any]] = {}
        self.warnings: list[str] = []
        self._arbiter = arbiter
        self._pump = pump
        self._exit = contextlib.ExitStack()
        self._endpoints: dict[str, StreamEndpoint] = {}
        self._lines: list[_Line] = []
        try:
            for number, source in enumerate(sources, start=first):
                endpoint = None
                assert source.url is not None
                if source.url.scheme != "ipc":
                    endpoint = self._endpoint(source)
                else:
                    self.chosen[source.name] = {"via": "unix socket"}
                self._lines.append(
                    _Line(
                        source,
                        number,
                        endpoint=endpoint,
                        where=where,
                        decoder=decoder,
                        arbiter=arbiter,
                    )
                )
                self.chosen[source.name] |= {
                    "url": str(source.url),
                    "subscribe": source.subscribe,
                    "trusted": source.trusted,
                }
        except BaseException:
            self._exit.close()
            raise
        self._polled = list(self._endpoints.values())
        self._messages: Any = ffi.new("struct bw_message[]", BURST)
        self._records: Any = ffi.new("struct bw_tx[]", BURST)
        self._reading: _Line | None = None
        self._next = 0

    def _endpoint(self, source: Source) -> StreamEndpoint:
        """The endpoint that `source` wants, shared with others that want the same."""
        wanted = [source.via.text] + ([source.fallback.text] if source.fallback else [])
        for number, via in enumerate(wanted):
            if via not in self._endpoints:
                try:
                    self._endpoints[via] = self._exit.enter_context(open_stream(via))
                except (BindingsError, OSError) as error:
                    if number + 1 == len(wanted):
                        raise
                    self.warnings.append(
                        f"source {source.name}: {via} cannot be had ({error}): its fallback "
                        f"{wanted[1]} is used"
                    )
                    continue
            self.chosen[source.name] = self._endpoints[via].describe()
            return self._endpoints[via]
        raise AssertionError("the last one raised")

    def run(self, until_mono_ns: int) -> int:
        """Turns the pump, and reads the streams in between, until there are matches."""
        turn, clock = self._pump.turn, time.monotonic_ns
        lines = self._lines
        while True:
            if self._reading is None:
                for endpoint in self._polled:
                    endpoint.poll()
                for _ in lines:
                    line = lines[self._next]
                    self._next = (self._next + 1) % len(lines)
                    if line.pipe is not None and line.receive():
                        self._reading = line
                        break
            if self._reading is not None:
                self._offer(self._reading)
            if (found := turn()) or clock() >= until_mono_ns:
                return found

    def _offer(self, line: _Line) -> None:
        session = line.session
        count = session.read_into(self._messages, self._records, BURST)
        if count:
            if session.filling:
                for i in range(count):
                    self._messages[i].flags |= lib.BW_MESSAGE_FILLED
            self._pump.offer(self._messages, self._records, count)
        if not session.more:
            self._reading = None
            line.send()

    def housekeeping(self, now_mono_ns: int) -> None:
        """What depends on time; a few times a second."""
        for endpoint in self._polled:
            endpoint.housekeeping()
        for line in self._lines:
            if line is self._reading:
                continue
            line.housekeeping(now_mono_ns)
            if mined := line.session.hole.take_mined():
                self._arbiter.mined(mined)
        for trouble in self._arbiter.watch(now_mono_ns):
            for line in self._lines:
                if line.number == trouble.source and line.pipe is not None:
                    line.troubles += 1
                    line.session.end(f"{trouble.kind}: {trouble.detail}")

    def stats(self) -> dict[str, Any]:
        """By source: its state and everything that was counted."""
        return {
            line.name: {
                "state": line.session.phase.value if line.pipe is not None else "waiting",
                "why": line.last_why,
                "ended": line.ended,
                "trouble": line.trouble,
                "attempts": line.again.attempts,
                "troubles": line.troubles,
            }
            | line.session.stats()
            for line in self._lines
        }

    def close(self) -> None:
        """Ends every connection."""
        for line in self._lines:
            if line.pipe is not None:
                line.pipe.abort()
        self._exit.close()


def _address_of(name: str, host: str, port: int) -> str:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ConfigError(
            f"source {name!r}: {host!r} has no address: {error.strerror}",
            hint="name an address, or see `getent hosts`",
        ) from error
    return str(found[0][4][0])


def _headers(path: Path) -> dict[str, str]:
    """``Name: value`` lines of a file that only its owner may read."""
    try:
        text, mode = path.read_text(encoding="utf-8"), path.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"headers_file {path}: {error}") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(
            f"headers_file {path} can be read by others (mode {stat.S_IMODE(mode):04o})",
            hint=f"chmod 0600 {path}",
        )
    headers = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        name, found, value = line.partition(":")
        if not found or not name.strip():
            raise BarewireError(
                f"headers_file {path}: line {number} is no header", hint="write NAME: VALUE"
            )
        headers[name.strip()] = value.strip()
    return headers
