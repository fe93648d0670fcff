"""IPC: JSON texts on a Unix socket, as geth, reth and anvil serve them."""

from __future__ import annotations

import asyncio

from barewire.rpc.faults import Fault, Trouble
from barewire.rpc.jsonrpc import Splitter, decode
from barewire.rpc.transports.base import Sink, StreamChannel

__all__ = ["IpcChannel"]


class IpcChannel(StreamChannel):
    """One Unix socket.

    Attributes:
        path: where the socket is.
    """

    def __init__(self, path: str, sink: Sink) -> None:
        super().__init__(sink)
        self.path = path
        self._splitter = Splitter()

    async def open(self) -> None:
        """See `Channel.open`."""
        self._splitter = Splitter()
        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.create_unix_connection(lambda: self, self.path)
        except OSError as error:
            raise Trouble(
                Fault.TRANSPORT, f"cannot connect to {self.path}: {error.strerror}"
            ) from error
        self._transport = transport
        self._became_up()

    def _write(self, payload: bytes) -> None:
        assert self._transport is not None
        self._transport.write(payload + b"\n")

    def data_received(self, data: bytes) -> None:
        """Bytes came (asyncio.Protocol)."""
        self.asked_ns = 0
        if self._splitter.empty:
            # Nearly always the bytes are one whole message: then looking for its end is wasted.
            try:
                reply = decode(data)
            except Trouble:
                pass  # a part, or several: the splitter tells
            else:
                self._dispatch(reply)
                return
        try:
            messages = self._splitter.feed(data)
        except Trouble as trouble:
            self.drop(trouble.message)
            return
        for message in messages:
            self._message(message)
