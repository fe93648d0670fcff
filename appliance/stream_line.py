"""One source that is a byte stream: its session, its connection, and when to connect again."""

from __future__ import annotations

import random
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from appliance.config import Source
from appliance.names import Names
from appliance.stream_files import headers_of, tls_of
from appliance.unix_pipe import UnixPipe
from barewire.feeds.jsonrpc import PendingTransactions
from barewire.feeds.reconnect import Reconnect
from barewire.feeds.session import Phase
from barewire.feeds.tls import TlsStream
from barewire.mempool.decoder import Decoder
from dpdk_bindings import StreamState
from dpdk_bindings.errors import BindingsError
from dpdk_bindings.stream import Connection, StreamEndpoint

__all__ = ["Line"]

_BUFFER_BYTES = 256 << 10
_HEAD_START_NS = 250_000_000
_MOST_UNSENT = 4 << 20
"""Bytes that wait for the other side to read, beside those that the connection has taken."""
_LONGEST_UNSENT_NS = 10_000_000_000
"""For which none of the bytes that wait has left."""
_REASONS = 16
"""Ways to end that one source is remembered for; further ones are counted together."""


class _Pipe(Protocol):
    """What is used of a connection, of whatever kind."""

    def recv_into(self, buffer: Any, offset: int = 0, /) -> int: ...
    def send(self, data: Any, offset: int = 0, /) -> int: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...
    @property
    def state(self) -> StreamState: ...
    @property
    def why(self) -> str: ...
    @property
    def arrival_ns(self) -> int: ...
    @property
    def clock(self) -> int: ...


class Line:
    """A source, over one connection after the other.

    A host's name is looked up for every connection. Of several addresses the next is tried while
    the one before has not connected for `_HEAD_START_NS`, and the first that connects is taken
    (RFC 8305, section 5); each attempt begins with another address.

    Args:
        source: its configuration.
        number: of the source, in its records.
        endpoint: makes the connections; None for a Unix socket. It is an attribute too.
        names: looks names up; None where the source names none (:attr:`host`).
        where: the file that the source's own files lie beside.
        decoder: judges the envelopes.
        heard: told of a hash that was announced alone, when it arrived and by which clock; whether
            it was delivered before, by whomever.

    Attributes:
        pipe: the connection, or None between two.
        stream: the same where it is in plain text, so that a native loop may read it; or None.
        is_asked: the connection has to be asked for what came: nobody tells.
        troubles: how often a live connection was ended for being of no use.
        last_why: what ended the last one.
        ended: connections that ended, by why.
        missed: hashes mined while it was down that nobody brought.
    """

    def __init__(
        self,
        source: Source,
        number: int,
        *,
        endpoint: StreamEndpoint | None,
        names: Names | None,
        where: Path,
        decoder: Decoder,
        heard: Callable[[bytes, int, int], bool],
    ) -> None:
        assert source.url is not None
        self.name = source.name
        self.number = number
        self.again = Reconnect(random.Random())  # noqa: S311 - pauses are no secret
        self.pipe: _Pipe | None = None
        self.stream: Connection | None = None
        self.troubles = 0
        self.missed = 0
        self.last_why = ""
        self.ended: dict[str, int] = {}
        self.buffer = bytearray(_BUFFER_BYTES)
        self._view = memoryview(self.buffer)
        self.endpoint = endpoint
        self._names = names
        self._question: int | None = None
        self._tries = 0
        self._addresses: list[str] = []  # still to be tried, of this attempt
        self._racing: list[Connection] = []  # not connected yet, any of them may be
        self._next_start_ns = 0
        self._began = False
        self._unsent, self._sent = b"", 0
        self._left = self._left_before = 0  # bytes that the connection took, now and when looked at
        self._left_ns: int | None = None  # when that was other than before, or nothing waited
        self._path = source.url.rest
        self._host, self._port = source.url.host, source.url.port
        self._zone = source.url.zone
        self._named = source.url.is_named
        self._context = tls_of(source, where)
        self.is_asked = endpoint is None or self._context is not None
        self._tls_session: ssl.SSLSession | None = None
        self.session = PendingTransactions(
            f"ipc:{self._path}" if endpoint is None else source.url.text,
            decoder,
            style=source.subscribe,
            headers=headers_of(source, where),
            source=number,
            trusted=source.trusted,
            heard=heard,
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
            self._left += took

    def descriptors(self) -> list[int]:
        """What becomes readable when :meth:`receive` has something; none between connections."""
        if isinstance(self.pipe, UnixPipe):
            return [self.pipe.fileno()]
        return self.endpoint.descriptors() if self.endpoint is not None else []

    def housekeeping(self, now_mono_ns: int) -> None:
        """Connects when it is time to; asks for signs of life; lets go of what failed."""
        if self._question is not None:
            self._take_found(self._question, now_mono_ns)
        elif self._addresses or self._racing:
            self._race(now_mono_ns)
        elif self.pipe is None and self.again.due(now_mono_ns):
            self._begin(now_mono_ns)
        if self.pipe is None:
            return
        if self.pipe.state is StreamState.FAILED:
            self.session.end(self.pipe.why)
        if self.session.unsent_bytes > _MOST_UNSENT:
            self.session.end("the other side does not read what it is sent")
        self._watch_writing(self.pipe, now_mono_ns)
        self.session.tick(now_mono_ns)
        if self.session.phase is Phase.LIVE:
            self.again.live(now_mono_ns)
        elif self.session.phase is Phase.FAILED:
            self._drop(now_mono_ns)
            return
        self.send()

    def _watch_writing(self, pipe: _Pipe, now_mono_ns: int) -> None:
        """Ends a connection that takes nothing for long, however much its other side says."""
        waits, left = len(self._unsent) - self._sent + self.session.unsent_bytes, self._left
        if isinstance(pipe, TlsStream):
            waits, left = waits + pipe.unsent_bytes, left + pipe.left_bytes
        may = waits and pipe.state is StreamState.OPEN
        if not may or left != self._left_before or self._left_ns is None:
            self._left_before, self._left_ns = left, now_mono_ns
        elif now_mono_ns - self._left_ns > _LONGEST_UNSENT_NS:
            self.session.end("the other side reads nothing of what it is sent")

    @property
    def trouble(self) -> str:
        """What a person on call has to know; other words each time that something happened."""
        times = sum(self.ended.values())
        return f"connection {times} ended: {self.last_why}" if times else ""

    def stats(self) -> dict[str, Any]:
        """Its state and everything that was counted."""
        state = self.session.phase.value
        if self.pipe is None:
            state = "waiting" if self._question is None else "looking up"
            if self._racing:
                state = Phase.CONNECTING.value
        tls = self.pipe.describe() if isinstance(self.pipe, TlsStream) else {}
        return {
            "state": state,
            "why": self.last_why,
            "ended": self.ended,
            "trouble": self.trouble,
            "attempts": self.again.attempts,
            "troubles": self.troubles,
            "missed": self.missed,
            "tls": tls,
        } | self.session.stats()

    def close(self) -> None:
        """Ends the connection, with a goodbye where the other side still listens."""
        if self.pipe is not None:
            self.session.leave()
            self.send()
            self.pipe.close()
        self._give_up_racing()

    def _begin(self, now_mono_ns: int) -> None:
        self.again.began(now_mono_ns)
        if self._began:
            self.session.connect(now_mono_ns)
        self._began = True
        self._unsent, self._sent = b"", 0
        self._left_ns = None
        if self.endpoint is None:
            self.pipe = UnixPipe(self._path)
        elif not self._named:
            self._connect(f"{self._host}%{self._zone}", now_mono_ns)
        else:
            assert self._names is not None
            self._question = self._names.ask(self._host)

    def _take_found(self, question: int, now_mono_ns: int) -> None:
        assert self._names is not None
        found = self._names.answer(question)
        if found is None:
            return
        self._question = None
        if not found.addresses:
            self.session.end(found.trouble)
            self._drop(now_mono_ns)
            return
        first = self._tries % len(found.addresses)
        self._tries += 1
        if len(found.addresses) == 1:
            self._connect(found.addresses[0], now_mono_ns)
            return
        self._addresses = found.addresses[first:] + found.addresses[:first]
        self._race(now_mono_ns)

    def _race(self, now_mono_ns: int) -> None:
        """Takes the first address that connects, or begins with the next."""
        why = ""
        for connection in list(self._racing):
            if connection.state is StreamState.OPEN:
                self._racing.remove(connection)
                self._give_up_racing()
                self._take(connection, now_mono_ns)
                return
            if connection.state is StreamState.FAILED:
                why = connection.why
                self._racing.remove(connection)
                connection.abort()
        while self._addresses and (not self._racing or now_mono_ns >= self._next_start_ns):
            self._next_start_ns = now_mono_ns + _HEAD_START_NS
            try:
                self._racing.append(self._begin_to(self._addresses.pop(0)))
            except BindingsError as error:
                why = str(error)
        self.session.tick(now_mono_ns)
        if not self._racing:
            self.session.end(why)
        if self.session.phase is Phase.FAILED:
            self._give_up_racing()
            self._drop(now_mono_ns)

    def _give_up_racing(self) -> None:
        for connection in self._racing:
            connection.abort()
        self._racing, self._addresses = [], []

    def _begin_to(self, address: str) -> Connection:
        assert self.endpoint is not None
        address, _, zone = address.partition("%")
        return self.endpoint.connect(
            address, self._port, interface=zone or None, tls=self._context is not None
        )

    def _connect(self, address: str, now_mono_ns: int) -> None:
        try:
            connection = self._begin_to(address)
        except BindingsError as error:
            self.session.end(str(error))
            self._drop(now_mono_ns)
        else:
            self._take(connection, now_mono_ns)

    def _take(self, connection: Connection, now_mono_ns: int) -> None:
        self.pipe = connection
        if self._context is None:
            self.stream = connection
        else:
            self.pipe = TlsStream(
                connection,
                self._context,
                self._host.rstrip("."),  # of a name that is not relative; certificates have none
                now_mono_ns=time.monotonic_ns,
                session=self._tls_session,
            )

    def _drop(self, now_mono_ns: int) -> None:
        """Lets the connection go; another follows."""
        self.last_why = why = self.session.why
        if why not in self.ended and len(self.ended) >= _REASONS:
            why = "other reasons"
        self.ended[why] = self.ended.get(why, 0) + 1
        if self.pipe is not None:
            if isinstance(self.pipe, TlsStream) and self.pipe.rx_bytes:
                self._tls_session = self.pipe.session
            if self.session.parted:
                self.send()
                self.pipe.close()
            else:
                self.pipe.abort()
            self.pipe = self.stream = None
        self.again.failed(now_mono_ns, self.session.rest_ns)
