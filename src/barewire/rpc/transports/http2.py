"""HTTP/2: one connection, many streams, by the sans-I/O protocol of `h2`.

Slower than HTTP/1.1 for one call at a time (h2 is pure Python), and one lost packet holds up every
stream; worth it where a provider limits connections. So it is taken when the configuration says so.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Mapping

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


class _Stream:
    __slots__ = ("body", "exchange", "received", "retry_after", "status", "unsent")

    def __init__(self, exchange: Exchange) -> None:
        self.exchange: Exchange | None = exchange
        self.body: list[bytes] = []
        self.received = 0
        self.status = 0
        self.retry_after = ""
        self.unsent = b""


class Http2Channel(Channel, asyncio.Protocol):
    """One HTTP/2 connection to one address (over TLS, or with prior knowledge in plain text)."""

    def __init__(
        self,
        address: Address,
        sink: Sink,
        dialer: Dialer,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.address = address
        self.ip = ""
        self._sink = sink
        self._dialer = dialer
        fixed = request_headers(address, headers or {})
        host = fixed.pop("host")
        self._head = [
            (":method", "POST"),
            (":authority", host),
            (":scheme", "https" if address.secure else "http"),
            (":path", address.target),
            *fixed.items(),
        ]
        self._h2: h2.connection.H2Connection | None = None
        self._transport: asyncio.Transport | None = None
        self._streams: dict[int, _Stream] = {}
        self._queue: deque[Exchange] = deque()
        self._opening: asyncio.Task[None] | None = None
        self._one_at_a_time = asyncio.Lock()
        self._closed = False
        self._resumable = False
        self._taking = False  # events of one receive are being told; nothing is sent meanwhile
        self.asked_ns = 0
        """When the first request was sent since bytes last came, monotonic; 0 for none."""

    async def open(self) -> None:
        """See `Channel.open`."""
        self._closed = False
        async with self._one_at_a_time:  # who keeps it up and who has something to send
            if not self.is_up:
                await self._open()

    async def _open(self) -> None:
        transport, _, self.ip = await self._dialer.tcp(lambda: self, self.address, "h2")
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() != "h2":
            transport.close()
            raise Trouble(
                Fault.TRANSPORT,
                f"{self.address.host} does not speak HTTP/2; set http2 = false",
            )
        config = h2.config.H2Configuration(client_side=True, header_encoding=None)
        self._h2 = h2.connection.H2Connection(config)
        self._h2.initiate_connection()
        self._h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW})
        self._h2.increment_flow_control_window(_WINDOW)
        self._transport = transport
        self._resumable = False
        self.asked_ns = 0
        self._flush()
        self.is_up = True
        self._sink.up(self)
        self._drain()

    def _flush(self) -> None:
        assert self._h2 is not None
        data = self._h2.data_to_send()
        if data and self._transport is not None:
            self._transport.write(data)

    def submit(self, exchange: Exchange) -> None:
        """See `Channel.submit`."""
        if self._closed:
            exchange.sink.broke(exchange, Trouble(Fault.TRANSPORT, "closed"))
            return
        exchange.channel = self
        self._queue.append(exchange)
        if self.is_up:
            if not self._taking:
                self._drain()
        elif self._opening is None:
            self._opening = asyncio.get_running_loop().create_task(self._reopen())

    async def _reopen(self) -> None:
        try:
            await self.open()
        except Trouble as trouble:
            waiting, self._queue = self._queue, deque()
            for exchange in waiting:
                exchange.sink.broke(exchange, trouble)
        finally:
            self._opening = None

    def _drain(self) -> None:
        """Starts as many queued exchanges as the other side allows at once."""
        connection = self._h2
        assert connection is not None
        while self._queue:
            most = connection.remote_settings.max_concurrent_streams
            if connection.open_outbound_streams >= most:
                break
            exchange = self._queue.popleft()
            length = ("content-length", str(len(exchange.payload)))
            try:
                number = connection.get_next_available_stream_id()
                connection.send_headers(number, [*self._head, length])
            except h2.exceptions.ProtocolError as error:  # such as no stream numbers left
                self._queue.appendleft(exchange)
                self._lost(f"HTTP/2: {error or type(error).__name__}", Fault.TRANSPORT)
                return
            stream = _Stream(exchange)
            stream.unsent = exchange.payload
            self._streams[number] = stream
            exchange.carrier = number
            self.asked_ns = self.asked_ns or time.monotonic_ns()
            self._send_body(number, stream)
        self._flush()

    def _send_body(self, number: int, stream: _Stream) -> None:
        """Sends as much of the body as the windows allow; the rest when they open."""
        connection = self._h2
        assert connection is not None
        while stream.unsent:
            room = min(
                connection.local_flow_control_window(number), connection.max_outbound_frame_size
            )
            if room <= 0:
                return
            part, stream.unsent = stream.unsent[:room], stream.unsent[room:]
            connection.send_data(number, part, end_stream=not stream.unsent)

    def data_received(self, data: bytes) -> None:
        """Bytes came (asyncio.Protocol)."""
        connection = self._h2
        assert connection is not None
        self.asked_ns = 0
        try:
            events = connection.receive_data(data)
        except h2.exceptions.ProtocolError as error:
            self._flush()
            self._lost(f"HTTP/2: {error}", Fault.PROVIDER)
            return
        self._taking = True
        for event in events:
            self._take(event)
        self._taking = False
        if self.is_up:
            if self._queue:
                self._drain()
            self._flush()

    def _take(self, event: h2.events.Event) -> None:
        connection = self._h2
        assert connection is not None
        if isinstance(event, h2.events.ResponseReceived):
            stream = self._streams.get(event.stream_id)
            if stream:
                for name, value in event.headers:
                    if name == b":status":
                        stream.status = int(value[:3]) if value.isdigit() else 0
                    elif name == b"retry-after":
                        stream.retry_after = value.decode("latin-1")
        elif isinstance(event, h2.events.DataReceived):
            connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            stream = self._streams.get(event.stream_id)
            if stream:
                stream.body.append(event.data)
                stream.received += len(event.data)
                if stream.received > LARGEST:
                    self._lost(f"an answer longer than {LARGEST:,} bytes", Fault.PROVIDER)
        elif isinstance(event, h2.events.StreamEnded):
            self._finish(event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            stream = self._streams.pop(event.stream_id, None)
            if stream and stream.exchange:
                trouble = Trouble(Fault.TRANSPORT, f"stream reset ({event.error_code})")
                stream.exchange.sink.broke(stream.exchange, trouble)
        elif isinstance(event, h2.events.WindowUpdated):
            for number, waiting in list(self._streams.items()):
                if waiting.unsent and event.stream_id in (0, number):
                    self._send_body(number, waiting)
        elif isinstance(event, h2.events.ConnectionTerminated):
            self._lost("the other side went away", Fault.TRANSPORT)

    def _finish(self, number: int) -> None:
        stream = self._streams.pop(number, None)
        if stream is None or stream.exchange is None:
            return
        if not self._resumable and self._transport is not None:
            self._resumable = True
            self._dialer.keep_session(self._transport, self.address.host, "h2")
        exchange = stream.exchange
        body = b"".join(stream.body)
        try:
            reply = understand(stream.status, body, stream.retry_after)
        except Trouble as trouble:
            exchange.sink.broke(exchange, trouble)
            return
        exchange.sink.replied(exchange, reply)

    def cancel(self, exchange: Exchange) -> None:
        """See `Channel.cancel`: the stream is reset, the connection stays."""
        number = exchange.carrier
        if number is None:
            if exchange in self._queue:
                self._queue.remove(exchange)
            return
        if self._streams.pop(number, None) and self._h2 is not None and self.is_up:
            self._h2.reset_stream(number, h2.errors.ErrorCodes.CANCEL)
            self._flush()

    def drop(self, why: str) -> None:
        """Cuts the connection, as one that has gone silent."""
        self._lost(why, Fault.TRANSPORT)

    def _lost(self, why: str, fault: Fault) -> None:
        was_up, self.is_up = self.is_up, False
        if self._transport is not None:
            self._transport.abort()
        self._transport = None
        streams, self._streams = self._streams, {}
        trouble = Trouble(fault, why)  # one for all: it happened once
        if was_up:
            self._sink.down(self, why)
        for stream in streams.values():
            if stream.exchange:
                stream.exchange.sink.broke(stream.exchange, trouble)

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport says the connection is gone (asyncio.Protocol)."""
        self._lost(f"the connection was lost: {exc}" if exc else "closed", Fault.TRANSPORT)

    async def refresh(self) -> None:
        """Reconnects when the name no longer has the address this connection goes to."""
        try:
            valid = await self._dialer.addresses(self.address)
        except OSError:
            return  # the resolver is away: what works, works
        if self.is_up and valid and self.ip not in valid and not self._streams:
            self._lost(f"{self.address.host} moved away from {self.ip}", Fault.TRANSPORT)

    async def close(self) -> None:
        """See `Channel.close`."""
        self._closed = True
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        self._one_at_a_time = asyncio.Lock()  # the next loop's
        self._lost("closed", Fault.TRANSPORT)
        waiting, self._queue = self._queue, deque()
        for exchange in waiting:
            exchange.sink.broke(exchange, Trouble(Fault.TRANSPORT, "closed"))
