"""WebSocket on asyncio: the handshake by feeds/upgrade.py, frames by native/wsframe.h.

The asyncio shell of the `websockets` library wakes a task for every message; here a message goes
straight from the bytes to whoever waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from barewire._native import ffi, lib
from barewire.errors import BarewireError
from barewire.feeds.upgrade import Agreed, Upgrade
from barewire.feeds.websocket import write_frame
from barewire.rpc.addresses import Address
from barewire.rpc.faults import Fault, Trouble, from_status
from barewire.rpc.transports.base import LARGEST, Sink, StreamChannel
from barewire.rpc.transports.dial import Dialer

__all__ = ["WebSocketChannel"]

_MOST_UNREAD = 1 << 16


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
        self._upgrade: Upgrade
        self._ready: asyncio.Future[None] | None = None
        self._reader: Any = None  # struct bw_ws *, from the handshake's end
        self._event: Any = ffi.new("struct bw_ws_event *")

    async def open(self) -> None:
        """See `Channel.open`: connects and shakes hands."""
        try:
            self._upgrade = Upgrade(self.address.url, headers=self._headers)
        except BarewireError as error:
            raise Trouble(Fault.TRANSPORT, str(error)) from error
        self._reader = None
        loop = asyncio.get_running_loop()
        ready = self._ready = loop.create_future()
        try:
            transport, _, self.ip = await self._dialer.tcp(lambda: self, self.address)
            self._transport = transport
            await self._agree(transport, ready)
        finally:
            self._ready = None
            if ready.done() and not ready.cancelled():
                ready.exception()  # lost while it was dialled: the dialling has said so
        self._dialer.keep_session(transport, self.address.host, "http/1.1")
        self._became_up()

    async def _agree(self, transport: asyncio.Transport, ready: asyncio.Future[None]) -> None:
        transport.write(self._upgrade.request)
        try:
            async with asyncio.timeout(self._dialer.connect_timeout_s):
                await ready
        except TimeoutError:
            transport.abort()
            raise Trouble(Fault.TRANSPORT, "no WebSocket handshake in time") from None
        except BaseException:
            transport.abort()
            raise

    def _write(self, payload: bytes) -> None:
        self._send(lib.BW_WS_TEXT, payload)

    def _send(self, opcode: int, payload: bytes) -> None:
        if self._transport is not None:
            self._transport.write(write_frame(opcode, payload))

    def data_received(self, data: bytes) -> None:
        """Bytes came (asyncio.Protocol)."""
        self.asked_ns = 0
        if self._reader is None:
            data = self._shake(data)
        if self._reader is None or not data:
            return
        held = ffi.from_buffer("uint8_t[]", data)
        lib.bw_ws_lend(self._reader, held, len(data))
        while self._transport is not None and lib.bw_ws_next(self._reader, self._event):
            self._frame(self._event)

    def _shake(self, data: bytes) -> bytes:
        """Takes bytes of the handshake's answer; gives those behind it."""
        if self._ready is None or self._ready.done():
            return b""
        answer = self._upgrade.receive(data)
        if answer is None:
            return b""
        if isinstance(answer, Agreed):
            self._reader = ffi.gc(lib.bw_ws_new(LARGEST, 0), lib.bw_ws_free)
            self._ready.set_result(None)
            return answer.rest
        if answer.status and answer.status != 101:
            self._ready.set_exception(from_status(answer.status, answer.retry_after))
        else:
            why = f"WebSocket handshake: {answer.why}"
            self._ready.set_exception(Trouble(Fault.TRANSPORT, why))
        return b""

    def _frame(self, event: Any) -> None:
        kind = event.kind
        data = bytes(ffi.buffer(event.data, event.len)) if event.len else b""
        if kind in (lib.BW_WS_TEXT, lib.BW_WS_BINARY):
            self._message(data)
        elif kind == lib.BW_WS_PING:
            # Who asks and does not read is owed no more than is on its way (RFC 6455, 5.5.3).
            transport = self._transport
            if transport is not None and transport.get_write_buffer_size() < _MOST_UNREAD:
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
