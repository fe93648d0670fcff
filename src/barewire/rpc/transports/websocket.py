"""WebSocket: the sans-I/O protocol of `websockets` on an asyncio connection.

Its own asyncio shell wakes a task for every message; here a message goes straight from the bytes to
whoever waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake, InvalidStatus, InvalidURI
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.uri import parse_uri

from barewire.rpc.addresses import Address
from barewire.rpc.faults import Fault, Trouble, from_status
from barewire.rpc.transports.base import Sink, StreamChannel
from barewire.rpc.transports.dial import Dialer

__all__ = ["WebSocketChannel"]

_LARGEST = 256 << 20
# At DEBUG the library logs request lines and headers, and providers' keys are in them.
_MUTE = logging.getLogger("barewire.rpc.websocket")
_MUTE.disabled = True


class WebSocketChannel(StreamChannel):
    """One WebSocket connection.

    Attributes:
        address: where.
        ip: the address its name had when it connected.
    """

    def __init__(
        self,
        address: Address,
        sink: Sink,
        dialer: Dialer,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(sink)
        self.address = address
        self.ip = ""
        self._dialer = dialer
        self._headers = dict(headers or {})
        self._protocol: ClientProtocol | None = None
        self._ready: asyncio.Future[None] | None = None
        self._parts: list[bytes] = []

    async def open(self) -> None:
        """See `Channel.open`: connects and shakes hands."""
        try:
            uri = parse_uri(self.address.url)
        except InvalidURI as error:
            raise Trouble(Fault.TRANSPORT, f"not a WebSocket URL: {self.address}") from error
        self._protocol = ClientProtocol(uri, max_size=_LARGEST, logger=_MUTE)
        self._parts = []
        loop = asyncio.get_running_loop()
        self._ready = loop.create_future()
        transport, _, self.ip = await self._dialer.tcp(lambda: self, self.address)
        self._transport = transport
        request = self._protocol.connect()
        for name, value in self._headers.items():
            request.headers[name] = value
        self._protocol.send_request(request)
        self._flush()
        try:
            async with asyncio.timeout(self._dialer.connect_timeout_s):
                await self._ready
        except TimeoutError:
            transport.abort()
            raise Trouble(Fault.TRANSPORT, "no WebSocket handshake in time") from None
        finally:
            self._ready = None
        self._dialer.keep_session(transport, self.address.host, "http/1.1")
        self._became_up()

    def _flush(self) -> None:
        assert self._protocol is not None
        if self._transport is None:
            return
        for data in self._protocol.data_to_send():
            if data:
                self._transport.write(data)
            else:  # the protocol asks for the end of the stream
                self._transport.close()

    def _write(self, payload: bytes) -> None:
        assert self._protocol is not None
        self._protocol.send_text(payload)
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Bytes came (asyncio.Protocol)."""
        self.heard_ns = time.monotonic_ns()
        protocol = self._protocol
        assert protocol is not None
        protocol.receive_data(data)
        for event in protocol.events_received():
            if isinstance(event, Frame):
                self._frame(event)
            elif isinstance(event, Response):
                self._shaken(protocol)
        if protocol.writes:  # a pong, or the answer to a close
            self._flush()
        if protocol.state is State.CLOSING or protocol.parser_exc is not None:
            self.drop(f"WebSocket: {protocol.close_exc}")

    def _shaken(self, protocol: ClientProtocol) -> None:
        if self._ready is None or self._ready.done():
            return
        failed = protocol.handshake_exc
        if failed is None:
            self._ready.set_result(None)
            return
        if isinstance(failed, InvalidStatus):
            self._ready.set_exception(from_status(failed.response.status_code))
        else:
            assert isinstance(failed, InvalidHandshake | Exception)
            self._ready.set_exception(Trouble(Fault.TRANSPORT, f"WebSocket handshake: {failed}"))

    def _frame(self, frame: Frame) -> None:
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            if frame.fin:
                self._message(bytes(frame.data))
            else:
                self._parts = [bytes(frame.data)]
        elif frame.opcode is Opcode.CONT:
            self._parts.append(bytes(frame.data))
            if frame.fin:
                parts, self._parts = self._parts, []
                self._message(b"".join(parts))

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport says the connection is gone (asyncio.Protocol)."""
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(Trouble(Fault.TRANSPORT, "closed during the handshake"))
        super().connection_lost(exc)

    async def refresh(self) -> None:
        """Reconnects when the name no longer has the address this connection goes to."""
        try:
            valid = await self._dialer.resolver(self.address.host, self.address.port)
        except OSError:
            return  # the resolver is away: what works, works
        if self.is_up and valid and self.ip not in valid:
            self.drop(f"{self.address.host} moved away from {self.ip}")
