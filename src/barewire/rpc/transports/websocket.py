"""WebSocket on an asyncio connection: the handshake by `websockets`, frames by native/wsframe.h.

The library's own asyncio shell wakes a task for every message; here a message goes straight from
the bytes to whoever waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus, InvalidURI
from websockets.uri import parse_uri

from barewire._native import ffi, lib
from barewire.feeds.websocket import write_frame
from barewire.rpc.addresses import Address
from barewire.rpc.faults import Fault, Trouble, from_status
from barewire.rpc.transports.base import LARGEST, Sink, StreamChannel
from barewire.rpc.transports.dial import Dialer

__all__ = ["WebSocketChannel"]

_LONGEST_HEAD = 64 << 10
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
        self._protocol: ClientProtocol
        self._ready: asyncio.Future[None] | None = None
        self._head = b""
        self._reader: Any = None  # struct bw_ws *, from the handshake's end
        self._event: Any = ffi.new("struct bw_ws_event *")

    async def open(self) -> None:
        """See `Channel.open`: connects and shakes hands."""
        try:
            uri = parse_uri(self.address.url)
        except InvalidURI as error:
            raise Trouble(Fault.TRANSPORT, f"not a WebSocket URL: {self.address}") from error
        self._protocol = ClientProtocol(uri, logger=_MUTE)
        self._head, self._reader = b"", None
        loop = asyncio.get_running_loop()
        self._ready = loop.create_future()
        transport, _, self.ip = await self._dialer.tcp(lambda: self, self.address)
        self._transport = transport
        request = self._protocol.connect()
        for name, value in self._headers.items():
            request.headers[name] = value
        self._protocol.send_request(request)
        transport.write(b"".join(self._protocol.data_to_send()))
        try:
            async with asyncio.timeout(self._dialer.connect_timeout_s):
                await self._ready
        except TimeoutError:
            transport.abort()
            raise Trouble(Fault.TRANSPORT, "no WebSocket handshake in time") from None
        except BaseException:
            transport.abort()
            raise
        finally:
            self._ready = None
        self._dialer.keep_session(transport, self.address.host, "http/1.1")
        self._became_up()

    def _write(self, payload: bytes) -> None:
        self._send(lib.BW_WS_TEXT, payload)

    def _send(self, opcode: int, payload: bytes) -> None:
        if self._transport is not None:
            self._transport.write(write_frame(opcode, payload))

    def data_received(self, data: bytes) -> None:
        """Bytes came (asyncio.Protocol)."""
        self.asked_ns = 0
        if self._reader is None:
            self._head += data
            head, found, data = self._head.partition(b"\r\n\r\n")
            if not found:
                if len(self._head) > _LONGEST_HEAD:
                    self.drop("WebSocket handshake: no end of the headers")
                return
            self._shaken(head + found, data)
        if self._reader is None or not data:
            return
        held = ffi.from_buffer("uint8_t[]", data)
        lib.bw_ws_lend(self._reader, held, len(data))
        while self._transport is not None and lib.bw_ws_next(self._reader, self._event):
            self._frame(self._event)

    def _shaken(self, head: bytes, rest: bytes) -> None:
        if self._ready is None or self._ready.done():
            return
        accepted = head.split(b" ", 2)[1:2] == [b"101"]
        self._protocol.receive_data(head if accepted else head + rest)
        if not accepted:
            self._protocol.receive_eof()  # a refusal may have a body without an end
        failed = self._protocol.handshake_exc
        if failed is None:
            self._reader = ffi.gc(lib.bw_ws_new(LARGEST, 0), lib.bw_ws_free)
            self._ready.set_result(None)
        elif isinstance(failed, InvalidStatus):
            self._ready.set_exception(from_status(failed.response.status_code))
        else:
            self._ready.set_exception(Trouble(Fault.TRANSPORT, f"WebSocket handshake: {failed}"))

    def _frame(self, event: Any) -> None:
        kind = event.kind
        data = bytes(ffi.buffer(event.data, event.len)) if event.len else b""
        if kind in (lib.BW_WS_TEXT, lib.BW_WS_BINARY):
            self._message(data)
        elif kind == lib.BW_WS_PING:
            self._send(lib.BW_WS_PONG, data)
        elif kind == lib.BW_WS_CLOSE:
            self._send(lib.BW_WS_CLOSE, data)
            self.drop(f"WebSocket: closed by the other side ({event.code})")
        elif kind == lib.BW_WS_FAIL:
            self._send(lib.BW_WS_CLOSE, int(event.code).to_bytes(2, "big"))
            why = ffi.string(lib.bw_ws_why(self._reader))
            assert isinstance(why, bytes)
            self.drop(f"WebSocket: {why.decode()}")

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport says the connection is gone (asyncio.Protocol)."""
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(Trouble(Fault.TRANSPORT, "closed during the handshake"))
        super().connection_lost(exc)

    async def refresh(self) -> None:
        """Reconnects when the name no longer has the address this connection goes to."""
        try:
            valid = await self._dialer.addresses(self.address)
        except OSError:
            return  # the resolver is away: what works, works
        if self.is_up and valid and self.ip not in valid:
            self.drop(f"{self.address.host} moved away from {self.ip}")
