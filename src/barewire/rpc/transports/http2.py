"""HTTP/2: one connection, many streams, by the sans-I/O protocol of `h2`.

A server that goes away names the last request that it will answer (GOAWAY, RFC 9113 section 6.8):
up to that one the old connection goes on, what came later goes out again on a new one.

Slower than HTTP/1.1 for one call at a time (h2 is pure Python), and one lost packet holds up every
stream; worth it where a provider limits connections. So it is taken when the configuration says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from barewire.rpc.addresses import Address
from barewire.rpc.faults import Fault, Trouble
from barewire.rpc.transports.base import LARGEST, Channel, Exchange, Sink, understand
from barewire.rpc.transports.dial import Dialer
from barewire.rpc.transports.http1 import request_headers

__all__ = ["Http2Channel"]

# At DEBUG the library logs every header, and providers' keys are in paths and headers.
logging.getLogger("hpack").setLevel(logging.INFO)

_WINDOW = 16 << 20  # a large getLogs must not wait for window updates
_UNSAID = 100  # streams at once until the other side has said how many it takes
_TRIES = 3  # how often a request that was refused unprocessed goes out
_GOAWAY = 7
_LONGEST_FRAME = 1 << 14  # RFC 9113, 4.2; we ask for no more
_MOST_UNREAD = 1 << 16  # bytes of answers to pings and settings that may wait to be read


class _Frames:
    """Takes the GOAWAYs out of what the other side sends.

    `h2` closes a connection at the first and reads nothing more, of no stream; the RFC lets those
    that it names come to their end.

    Attributes:
        last: the last stream that the other side will answer, once it has said so.
    """

    def __init__(self) -> None:
        self._held = bytearray()
        self.last: int | None = None

    def feed(self, data: bytes) -> bytes:
        """The whole frames that are there now, without GOAWAYs."""
        self._held += data
        held, at, keep = self._held, 0, bytearray()
        while len(held) - at >= 9:
            length = int.from_bytes(held[at : at + 3])
            end = len(held) if length > _LONGEST_FRAME else at + 9 + length  # h2 refuses the first
            if end > len(held):
                break
            of_stream = int.from_bytes(held[at + 5 : at + 9]) & 0x7FFFFFFF  # h2 refuses any but 0
            if held[at + 3] == _GOAWAY and not of_stream and 8 <= length <= _LONGEST_FRAME:
                last = int.from_bytes(held[at + 9 : at + 13]) & 0x7FFFFFFF
                self.last = last if self.last is None else min(last, self.last)
            else:
                keep += held[at:end]
            at = end
        del held[:at]
        return bytes(keep)


class _Stream:
    __slots__ = ("body", "exchange", "received", "retry_after", "status", "unsent")

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.body: list[bytes] = []
        self.received = 0
        self.status = 0
        self.retry_after = ""
        self.unsent = exchange.payload


class _Connection(asyncio.Protocol):
    """One connection and the exchanges that are on it.

    Attributes:
        leaving: the other side takes nothing new on it.
        asked_ns: when the first request was sent since bytes last came, monotonic; 0 for none.
    """

    def __init__(self, channel: Http2Channel) -> None:
        self.channel = channel
        self.ip = ""
        self.leaving = False
        self.asked_ns = 0
        self.streams: dict[int, _Stream] = {}
        self.transport: asyncio.Transport | None = None
        self._frames = _Frames()
        self._most = _UNSAID
        self._owed = 0  # bytes of answers to pings and settings since all was last read
        self._resumable = False
        config = h2.config.H2Configuration(client_side=True, header_encoding=None)
        self._h2 = h2.connection.H2Connection(config)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def begin(self) -> None:
        """Says the preface; what comes before it is not taken."""
        self._h2.initiate_connection()
        self._h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW})
        self._h2.increment_flow_control_window(_WINDOW)
        self.flush()

    def flush(self) -> None:
        data = self._h2.data_to_send()
        if data and self.transport is not None:
            self.transport.write(data)

    # Out

    @property
    def has_room(self) -> bool:
        """Whether another stream may be begun."""
        return not self.leaving and self._h2.open_outbound_streams < self._most

    def carry(self, exchange: Exchange) -> bool:
        """Begins a stream; False when the connection takes no more."""
        length = ("content-length", str(len(exchange.payload)))
        try:
            number = self._h2.get_next_available_stream_id()
            self._h2.send_headers(number, [*self.channel.head, length])
        except h2.exceptions.ProtocolError:  # such as no stream numbers left
            return False
        stream = self.streams[number] = _Stream(exchange)
        exchange.carrier = (self, number)
        self.asked_ns = self.asked_ns or time.monotonic_ns()
        self._send_body(number, stream)
        return True

    def _send_body(self, number: int, stream: _Stream) -> None:
        """Sends as much of the body as the windows allow; the rest when they open."""
        connection = self._h2
        while stream.unsent:
            room = min(
                connection.local_flow_control_window(number), connection.max_outbound_frame_size
            )
            if room <= 0:
                return
            part, stream.unsent = stream.unsent[:room], stream.unsent[room:]
            connection.send_data(number, part, end_stream=not stream.unsent)

    def reset(self, number: int) -> None:
        """Nobody waits for stream `number` any more."""
        if self.streams.pop(number, None) and self.transport is not None:
            if not self._is_over(number):
                self._h2.reset_stream(number, h2.errors.ErrorCodes.CANCEL)
            self.flush()
            self._done()

    def _is_over(self, number: int) -> bool:
        """Whether a stream has ended on both sides, as may be told only later among the events."""
        stream = self._h2.streams.get(number)
        return stream is None or stream.closed

    # In

    def data_received(self, data: bytes) -> None:
        self.asked_ns = 0
        try:
            events = self._h2.receive_data(self._frames.feed(data))
        except h2.exceptions.ProtocolError as error:
            self.flush()
            self.lost(Trouble(Fault.PROVIDER, f"HTTP/2: {error}"))
            return
        if not self._acknowledge():
            return
        with self.channel.taking():
            for event in events:
                self._take(event)
            if self._frames.last is not None:
                self._goodbye(self._frames.last)
        if self.transport is not None:
            self.flush()
            self._done()

    def _acknowledge(self) -> bool:
        """Answers pings and settings; False where the other side asks on and reads nothing.

        It would fill the memory with what it is owed (RFC 9113, section 10.5).
        """
        transport, data = self.transport, self._h2.data_to_send()
        if not data or transport is None:
            return True
        self._owed = len(data) + (self._owed if transport.get_write_buffer_size() else 0)
        if self._owed > _MOST_UNREAD:
            why = "HTTP/2: asks on and on, and reads no answers"
            self.lost(Trouble(Fault.PROVIDER, why))
            return False
        transport.write(data)
        return True

    def _goodbye(self, last: int) -> None:
        later = [number for number in sorted(self.streams) if number > last]
        unheard = [self.streams.pop(number).exchange for number in later]
        if not self.leaving:
            self.leaving = True
            self.channel.left(self)
        self.channel.again(unheard, "the other side went away")

    def _done(self) -> None:
        if self.leaving and not self.streams and self.transport is not None:
            self.transport.close()

    def _take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ResponseReceived):
            stream = self.streams.get(event.stream_id)
            if stream:
                for name, value in event.headers:
                    if name == b":status":
                        stream.status = int(value[:3]) if value.isdigit() else 0
                    elif name == b"retry-after":
                        stream.retry_after = value.decode("latin-1")
        elif isinstance(event, h2.events.DataReceived):
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            stream = self.streams.get(event.stream_id)
            if stream:
                stream.body.append(event.data)
                stream.received += len(event.data)
                if stream.received > LARGEST:
                    self.lost(Trouble(Fault.PROVIDER, f"an answer longer than {LARGEST:,} bytes"))
        elif isinstance(event, h2.events.StreamEnded):
            self._finish(event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            self._was_reset(event.stream_id, int(event.error_code))
        elif isinstance(event, h2.events.RemoteSettingsChanged):
            self._most = self._h2.remote_settings.max_concurrent_streams
        elif isinstance(event, h2.events.WindowUpdated):
            for number, waiting in list(self.streams.items()):
                concerned = event.stream_id in (0, number)
                if waiting.unsent and concerned and not self._is_over(number):
                    self._send_body(number, waiting)

    def _was_reset(self, number: int, code: int) -> None:
        stream = self.streams.pop(number, None)
        if stream is None:
            return
        if code == h2.errors.ErrorCodes.REFUSED_STREAM:  # nothing was done with it (RFC 9113, 8.7)
            self.channel.again([stream.exchange], "the stream was refused")
            return
        untouched = bool(stream.unsent)
        trouble = Trouble(Fault.TRANSPORT, f"stream reset ({code})", untouched=untouched)
        stream.exchange.sink.broke(stream.exchange, trouble)

    def _finish(self, number: int) -> None:
        stream = self.streams.pop(number, None)
        if stream is None:
            return
        if stream.unsent and not self._is_over(number):  # answered early, as with 413
            self._h2.reset_stream(number, h2.errors.ErrorCodes.NO_ERROR)
        if not self._resumable and self.transport is not None:
            self._resumable = True
            self.channel.remember(self.transport)
        exchange = stream.exchange
        try:
            reply = understand(stream.status, b"".join(stream.body), stream.retry_after)
        except Trouble as trouble:
            exchange.sink.broke(exchange, trouble)
            return
        exchange.sink.replied(exchange, reply)

    # Gone

    def lost(self, trouble: Trouble) -> None:
        """It is gone, or has to go; what was on it is in `trouble`."""
        if self.transport is not None:
            self.transport.abort()
            self.transport = None
        streams, self.streams = self.streams, {}
        unheard = Trouble(trouble.fault, trouble.message, untouched=True)
        self.channel.gone(self, trouble.message)
        for stream in streams.values():
            stream.exchange.sink.broke(stream.exchange, unheard if stream.unsent else trouble)

    def connection_lost(self, exc: Exception | None) -> None:
        why = f"the connection was lost: {exc}" if exc else "closed"
        self.lost(Trouble(Fault.TRANSPORT, why))


class Http2Channel(Channel):
    """HTTP/2 to one address (over TLS, or with prior knowledge in plain text).

    One connection takes what is asked; those that the other side leaves finish what they carry.

    Attributes:
        head: the headers that every request has.
    """

    def __init__(
        self,
        address: Address,
        sink: Sink,
        dialer: Dialer,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.address = address
        self._sink = sink
        self._dialer = dialer
        fixed = request_headers(address, headers or {})
        host = fixed.pop("host")
        self.head = [
            (":method", "POST"),
            (":authority", host),
            (":scheme", "https" if address.secure else "http"),
            (":path", address.target),
            *fixed.items(),
        ]
        self._current: _Connection | None = None
        self._leaving: set[_Connection] = set()
        self._queue: deque[Exchange] = deque()
        self._opening: asyncio.Task[None] | None = None
        self._one_at_a_time = asyncio.Lock()
        self._closed = False
        self._taking = False  # events of one receive are being told; nothing is sent meanwhile

    @property
    def asked_ns(self) -> int:
        """When the first request was sent since bytes last came, monotonic; 0 for none."""
        return self._current.asked_ns if self._current is not None else 0

    async def open(self) -> None:
        """See `Channel.open`."""
        self._closed = False
        async with self._one_at_a_time:  # who keeps it up and who has something to send
            if self._current is None:
                await self._open()

    async def _open(self) -> None:
        transport, connection, ip = await self._dialer.tcp(
            lambda: _Connection(self), self.address, "h2"
        )
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() != "h2":
            transport.close()
            raise Trouble(
                Fault.TRANSPORT,
                f"{self.address.host} does not speak HTTP/2; set http2 = false",
                untouched=True,
            )
        connection.ip = ip
        self._current = connection
        connection.begin()
        if not self.is_up:
            self.is_up = True
            self._sink.up(self)
        self._drain()

    def submit(self, exchange: Exchange) -> None:
        """See `Channel.submit`."""
        if self._closed:
            exchange.sink.broke(exchange, Trouble(Fault.TRANSPORT, "closed", untouched=True))
            return
        exchange.channel = self
        self._queue.append(exchange)
        self._go_on()

    def _go_on(self) -> None:
        """Sends what waits, on a new connection where there is none."""
        if self._current is not None:
            if not self._taking:
                self._drain()
        elif self._opening is None and self._queue and not self._closed:
            self._opening = asyncio.get_running_loop().create_task(self._reopen())

    async def _reopen(self) -> None:
        try:
            await self.open()
        except Trouble as trouble:
            self._down(trouble.message)
            waiting, self._queue = self._queue, deque()
            for exchange in waiting:
                exchange.sink.broke(exchange, trouble)
        finally:
            self._opening = None
        self._go_on()  # it may have gone while it came

    def _drain(self) -> None:
        """Starts as many queued exchanges as the other side allows at once."""
        connection = self._current
        while connection is not None and self._queue and connection.has_room:
            exchange = self._queue.popleft()
            if not connection.carry(exchange):
                self._queue.appendleft(exchange)
                connection.leaving = True
                self.left(connection)
                break
        if connection is not None:
            connection.flush()

    @contextlib.contextmanager
    def taking(self) -> Iterator[None]:
        """While the events of one receive are told: what is asked meanwhile goes out after."""
        self._taking = True
        try:
            yield
        finally:
            self._taking = False
            self._go_on()

    # What connections report

    def left(self, connection: _Connection) -> None:
        """`connection` finishes what it carries and takes nothing new."""
        if connection is self._current:
            self._current = None
        self._leaving.add(connection)
        if not self._taking:
            self._go_on()

    def again(self, exchanges: Sequence[Exchange], why: str) -> None:
        """The other side has not touched `exchanges`: they go out again, a few times."""
        for exchange in reversed(exchanges):
            exchange.carrier = None
            exchange.tries += 1
            if exchange.tries < _TRIES:
                self._queue.appendleft(exchange)
            else:
                exchange.sink.broke(exchange, Trouble(Fault.TRANSPORT, why, untouched=True))

    def gone(self, connection: _Connection, why: str) -> None:
        """`connection` was lost."""
        self._leaving.discard(connection)
        if connection is self._current:
            self._current = None
            self._down(why)
            if not self._taking:
                self._go_on()

    def _down(self, why: str) -> None:
        was_up, self.is_up = self.is_up, False
        if was_up:
            self._sink.down(self, why)

    def remember(self, transport: asyncio.Transport) -> None:
        """A connection was answered on: its TLS session can be resumed by the next."""
        self._dialer.keep_session(transport, self.address.host, "h2")

    def cancel(self, exchange: Exchange) -> None:
        """See `Channel.cancel`: the stream is reset, the connection stays."""
        if exchange.carrier is None:
            if exchange in self._queue:
                self._queue.remove(exchange)
            return
        connection, number = exchange.carrier
        connection.reset(number)

    def drop(self, why: str) -> None:
        """Cuts the connection, as one that has gone silent."""
        if self._current is not None:
            self._current.lost(Trouble(Fault.TRANSPORT, why))

    async def refresh(self) -> None:
        """Reconnects when the name no longer has the address this connection goes to."""
        try:
            valid = await self._dialer.addresses(self.address)
        except OSError:
            return  # the resolver is away: what works, works
        current = self._current
        if current is not None and valid and current.ip not in valid and not current.streams:
            self.drop(f"{self.address.host} moved away from {current.ip}")

    async def close(self) -> None:
        """See `Channel.close`."""
        self._closed = True
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        self._one_at_a_time = asyncio.Lock()  # the next loop's
        for connection in [*self._leaving, *([self._current] if self._current else [])]:
            connection.lost(Trouble(Fault.TRANSPORT, "closed"))
        waiting, self._queue = self._queue, deque()
        for exchange in waiting:
            exchange.sink.broke(exchange, Trouble(Fault.TRANSPORT, "closed", untouched=True))
