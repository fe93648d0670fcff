"""WebSocket (RFC 6455), the client's side, without I/O.

    connection = WebSocket("wss://node.example/ws")
    transport.send(connection.data_to_send())              # the opening handshake
    for event in connection.receive(transport.recv()):     # Opened, Message, Pong, Closed
        ...
    transport.send(connection.data_to_send())              # pongs, and what was asked to be sent

The opening handshake is that of the `websockets` library (its sans-I/O ``ClientProtocol``); frames
are read by native/wsframe.h, which native loops use directly (:attr:`WebSocket.native`). Who calls
this owns the transport: connecting, TLS and timeouts are not here.
"""

from __future__ import annotations

import enum
import logging
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidURI
from websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    PerMessageDeflate,
)
from websockets.http11 import Response
from websockets.typing import ExtensionName
from websockets.uri import parse_uri

from barewire._native import ffi, lib
from barewire.errors import BarewireError
from barewire.rpc.addresses import redact

__all__ = ["Closed", "Message", "Opened", "Pong", "State", "WebSocket", "write_frame"]

_HEAD_END = b"\r\n\r\n"
_HEAD_BYTES = 64 << 10
_DEFLATE_TAIL = b"\x00\x00\xff\xff"  # RFC 7692, 7.2.1: cut off by the sender

# At DEBUG the library logs request lines and headers, and credentials are in them.
_MUTE = logging.getLogger("barewire.feeds.websocket")
_MUTE.disabled = True


class State(enum.Enum):
    """Where a connection is in its life (RFC 6455, section 4.1 and 7.1)."""

    CONNECTING = "connecting"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Opened:
    """The server agreed.

    Attributes:
        headers: of its answer, names in lower case; of a name that came twice, the last.
        deflate: permessage-deflate was agreed on.
    """

    headers: dict[str, str]
    deflate: bool


@dataclass(frozen=True, slots=True)
class Message:
    """One whole message; a text is not checked to be UTF-8."""

    data: bytes
    text: bool


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to a ping, or none was asked for."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Closed:
    """Nothing more will come.

    Attributes:
        code: the close code (RFC 6455, 7.4): the server's; ours where the server broke a rule;
            1006 where the stream just ended, or the handshake failed.
        reason: what the server gave, or what was wrong.
        by_peer: the server sent it; False where the connection was failed here.
    """

    code: int
    reason: str
    by_peer: bool


def write_frame(opcode: int, payload: bytes) -> bytes:
    """One masked frame of `opcode` (1 text, 2 binary, 8 close, 9 ping, 10 pong)."""
    out = ffi.new("uint8_t[]", lib.BW_WS_HEAD_BYTES + len(payload))
    held = ffi.from_buffer("uint8_t[]", payload)
    size = lib.bw_ws_write(opcode, 0, held, len(payload), os.urandom(4), out)
    return bytes(ffi.buffer(out, size))


class WebSocket:
    """One connection.

    Args:
        url: ``ws://`` or ``wss://``; user and password in it become a header.
        headers: sent with the handshake, beside those that it needs.
        max_message: bytes of one message at most, inflated where it was deflated.
        deflate: offer permessage-deflate. Off by default: inflating costs more than the wire.
        deflate_name: the name under which it is offered; some servers have one of their own.
        dictionary: a static dictionary that both sides know, for such servers.

    Attributes:
        url: as given.
        state: see `State`.
        native: ``struct bw_ws *``, for native loops; valid as long as this object.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        max_message: int = 16 << 20,
        deflate: bool = False,
        deflate_name: str = "permessage-deflate",
        dictionary: bytes = b"",
    ) -> None:
        try:
            uri = parse_uri(url)
        except (InvalidURI, ValueError) as error:
            raise BarewireError(
                f"{redact(url)!r} is no WebSocket address", hint="ws://HOST[:PORT]/PATH, or wss://"
            ) from error
        self.url = url
        self.state = State.CONNECTING
        self._max_message = max_message
        self._dictionary = dictionary
        offered = None
        if deflate:
            offered = [ClientPerMessageDeflateFactory(client_max_window_bits=True)]
            offered[0].name = ExtensionName(deflate_name)
        self._protocol = ClientProtocol(uri, extensions=offered, max_size=max_message, logger=_MUTE)
        self._head = b""
        self._out: list[bytes] = []
        self._inflater: Any = None
        self._deflate: PerMessageDeflate | None = None
        self.native: Any = ffi.gc(lib.bw_ws_new(max_message, deflate), lib.bw_ws_free)
        if not self.native:
            raise BarewireError(f"max_message = {max_message}", hint="1 to 2^30 bytes, and memory")
        self._event: Any = ffi.new("struct bw_ws_event *")
        request = self._protocol.connect()
        for name, value in (headers or {}).items():
            request.headers[name] = value
        self._protocol.send_request(request)
        self._out += self._protocol.data_to_send()

    # Out.

    def data_to_send(self) -> bytes:
        """What has to be sent now; asked for once."""
        out, self._out = b"".join(self._out), []
        return out

    def send(self, payload: bytes, *, text: bool = True) -> None:
        """Queues a message.

        Raises:
            BarewireError: the connection is not open.
        """
        self._insist_open()
        self._out.append(write_frame(lib.BW_WS_TEXT if text else lib.BW_WS_BINARY, payload))

    def ping(self, payload: bytes = b"") -> None:
        """Queues a ping of at most 125 bytes; a `Pong` of the same payload will answer it."""
        self._insist_open()
        if len(payload) > lib.BW_WS_CONTROL_BYTES:
            raise BarewireError(f"a ping of {len(payload)} bytes", hint="at most 125")
        self._out.append(write_frame(lib.BW_WS_PING, payload))

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Begins to close; the server's own close frame, or the end of the stream, follows."""
        if self.state is State.OPEN:
            payload = code.to_bytes(2, "big") + reason.encode()[:123]
            self._out.append(write_frame(lib.BW_WS_CLOSE, payload))
        self.state = State.CLOSING if self.state is State.OPEN else State.CLOSED

    # In.

    def receive(self, data: bytes) -> list[Opened | Message | Pong | Closed]:
        """Takes bytes from the transport and gives what they complete.

        Nothing that the bytes hold raises.
        """
        events: list[Opened | Message | Pong | Closed] = []
        if self.state is State.CONNECTING:
            rest = self.shake(data)
            if rest is None:
                return events
            if isinstance(rest, Closed):
                return [rest]
            opened, data = rest
            events.append(opened)
        held = ffi.from_buffer("uint8_t[]", data)
        lib.bw_ws_lend(self.native, held, len(data))
        while self.state is not State.CLOSED and lib.bw_ws_next(self.native, self._event):
            events += self.take(self._event)
        return events

    def shake(self, data: bytes) -> tuple[Opened, bytes] | Closed | None:
        """Takes bytes of the server's answer to the handshake; :meth:`receive` does it too.

        Returns:
            None while it is not whole; then what was agreed, and the bytes behind it, which are
            frames; or how the handshake failed.
        """
        self._head += data
        head, found, rest = self._head.partition(_HEAD_END)
        if not found:
            if len(self._head) <= _HEAD_BYTES:
                return None
            return self._fail(1006, f"a handshake of more than {_HEAD_BYTES} bytes")
        # A refusal has a body, which the protocol reads too; frames are not its business.
        accepted = head.split(b"\r\n", 1)[0].split(b" ")[1:2] == [b"101"]
        self._protocol.receive_data(head + found if accepted else self._head)
        self._head = b""
        if not accepted:
            self._protocol.receive_eof()
        answers = [e for e in self._protocol.events_received() if isinstance(e, Response)]
        if (failed := self._protocol.handshake_exc) is not None or not answers:
            return self._fail(1006, f"handshake: {failed or 'no answer'}")
        self.state = State.OPEN
        for extension in self._protocol.extensions:
            assert isinstance(extension, PerMessageDeflate)
            self._deflate = extension
        headers = {name.lower(): value for name, value in answers[0].headers.raw_items()}
        return Opened(headers, self._deflate is not None), rest

    def take(self, event: Any) -> Iterator[Message | Pong | Closed]:
        """Acts on a ``struct bw_ws_event`` that the native reader gave: answers pings and closes.

        Yields what the caller has to know of it.
        """
        kind = event.kind
        data = bytes(ffi.buffer(event.data, event.len)) if event.len else b""
        if kind in (lib.BW_WS_TEXT, lib.BW_WS_BINARY):
            if event.compressed:
                inflated = self.inflate(data)
                if isinstance(inflated, Closed):
                    yield inflated
                    return
                data = inflated
            yield Message(data, kind == lib.BW_WS_TEXT)
        elif kind == lib.BW_WS_PING:
            if self.state is State.OPEN:
                self._out.append(write_frame(lib.BW_WS_PONG, data))
        elif kind == lib.BW_WS_PONG:
            yield Pong(data)
        elif kind == lib.BW_WS_CLOSE:
            if self.state is State.OPEN:
                self._out.append(write_frame(lib.BW_WS_CLOSE, data))
            self.state = State.CLOSED
            yield Closed(int(event.code), data[2:].decode(), by_peer=True)
        else:
            why = ffi.string(lib.bw_ws_why(self.native))
            assert isinstance(why, bytes)
            yield self._fail(int(event.code), why.decode())

    def inflate(self, payload: bytes) -> bytes | Closed:
        """The message that a compressed payload holds (RFC 7692); fails the connection if none."""
        deflate = self._deflate
        if deflate is None:  # offered, so that the bit was let through, but not agreed on
            return self._fail(1002, "reserved bits must be 0")
        if self._inflater is None or deflate.remote_no_context_takeover:
            bits = -deflate.remote_max_window_bits
            self._inflater = zlib.decompressobj(bits, zdict=self._dictionary)
        try:
            data: bytes = self._inflater.decompress(payload + _DEFLATE_TAIL, self._max_message + 1)
        except zlib.error:
            return self._fail(1002, "decompression failed")
        if len(data) > self._max_message:
            return self._fail(1009, "message too big")
        return data

    def receive_eof(self) -> list[Closed]:
        """The transport ended. Gives how, unless that was told before."""
        if self.state is State.CLOSED:
            return []
        self.state = State.CLOSED
        return [Closed(1006, "the stream ended without a close frame", by_peer=False)]

    def stats(self) -> dict[str, int]:
        """Counters of the frame reader (``struct bw_ws_stats``)."""
        stats = lib.bw_ws_stats(self.native)
        names = ("bytes", "messages", "fragmented", "copied", "controls")
        return {name: int(getattr(stats, name)) for name in names}

    def _fail(self, code: int, reason: str) -> Closed:
        if self.state is State.OPEN:
            self._out.append(write_frame(lib.BW_WS_CLOSE, code.to_bytes(2, "big")))
        self.state = State.CLOSED
        return Closed(code, reason, by_peer=False)

    def _insist_open(self) -> None:
        if self.state is not State.OPEN:
            raise BarewireError(f"{redact(self.url)} is {self.state.value}", hint="wait for Opened")
