"""WebSocket (RFC 6455), the client's side, without I/O.

    connection = WebSocket("wss://node.example/ws")
    transport.send(connection.data_to_send())              # the opening handshake
    for event in connection.receive(transport.recv()):     # Opened, Message, Pong, Closed
        ...
    transport.send(connection.data_to_send())              # pongs, and what was asked to be sent

The opening handshake is barewire.feeds.upgrade's; frames are read by native/wsframe.h, which
native loops use directly (:attr:`WebSocket.native`). Who calls this owns the transport: connecting,
TLS and timeouts are not here.
"""

from __future__ import annotations

import enum
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from barewire._native import ffi, lib
from barewire.errors import BarewireError
from barewire.feeds.upgrade import Deflate, Refused, Upgrade
from barewire.rpc.addresses import redact
from barewire.rpc.faults import rest_ms
from barewire.untrusted import printable

__all__ = ["Closed", "Message", "Opened", "Pong", "State", "WebSocket", "write_frame"]

_DEFLATE_TAIL = b"\x00\x00\xff\xff"  # RFC 7692, 7.2.1: cut off by the sender

_MOST_STREAMS = 8
"""DEFLATE streams that one message may end (7.2.3.4 allows any number; senders end one or none)."""

_PIECE_BYTES = 1 << 16
_INFLATED_BYTES = 1 << 18
"""What is inflated in one step: from so many bytes at most, to so many at most."""

_BYTES = ffi.typeof("uint8_t[]")
_TEXT: int = lib.BW_WS_TEXT
_BINARY: int = lib.BW_WS_BINARY
_first: Any = lib.bw_ws_first
_next: Any = lib.bw_ws_next
_write: Any = lib.bw_ws_write
_buffer: Any = ffi.buffer
_event_of = struct.Struct("=8xI2xBBII").unpack_from
"""Of a ``struct bw_ws_event``: len, kind, compressed, at, rest."""
_ELSEWHERE: int = lib.BW_WS_ELSEWHERE
_MASK_BYTES = 4096
_SHORT = 4096
"""Payloads of up to so many bytes are written in memory that a connection has ready."""


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
        headers: of its answer, names in lower case, each a harmless line; of a name that came
            twice, the last.
        deflate: permessage-deflate was agreed on.
    """

    headers: dict[str, str]
    deflate: bool


_CONNECTING, _OPEN, _CLOSED = State.CONNECTING, State.OPEN, State.CLOSED


class Message(msgspec.Struct, frozen=True, gc=False):
    """One whole message; a text is not checked to be UTF-8. What was inflated is a bytearray."""

    data: bytes | bytearray
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
        reason: what the server gave, or what was wrong: a harmless line.
        by_peer: the server sent it; False where the connection was failed here.
        rest_ms: for how long it asked to be left alone (Retry-After of a refused handshake); 0.
    """

    code: int
    reason: str
    by_peer: bool
    rest_ms: int = 0


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
        self.url = url
        self._headers = dict(headers or {})
        self._max_message = max_message
        self._dictionary = dictionary
        self._deflate_name = deflate_name if deflate else None
        self.native: Any = ffi.gc(lib.bw_ws_new(max_message, deflate), lib.bw_ws_free)
        if not self.native:
            raise BarewireError(f"max_message = {max_message}", hint="1 to 2^30 bytes, and memory")
        self._event: Any = ffi.new("struct bw_ws_event *")
        self._said = ffi.buffer(self._event)
        self._room: Any = ffi.new(_BYTES, lib.BW_WS_HEAD_BYTES + _SHORT)
        self._written = ffi.buffer(self._room)
        self._masks, self._masks_used = b"", _MASK_BYTES
        self._begin()

    def _begin(self) -> None:
        self.state = State.CONNECTING
        self._inflater: Any = None
        self._deflate: Deflate | None = None
        upgrade = Upgrade(self.url, headers=self._headers, deflate=self._deflate_name)
        self._upgrade: Upgrade | None = upgrade
        self._out: list[bytes] = [upgrade.request]
        self._pong: bytes | None = None

    def restart(self) -> None:
        """Begins anew, for a new connection to the same server; the counters go on.

        The memory for messages is kept: taking it anew would stall a hot loop.
        """
        lib.bw_ws_restart(self.native)
        self._begin()

    # Out.

    def data_to_send(self) -> bytes:
        """What has to be sent now; asked for once."""
        if self._pong is not None:
            self._answer_ping()
        out = self._out
        if not out:
            return b""
        self._out = []
        return out[0] if len(out) == 1 else b"".join(out)

    @property
    def unsent_bytes(self) -> int:
        """What :meth:`data_to_send` would give: it grows where nobody asks."""
        return sum(map(len, self._out))

    def _answer_ping(self) -> None:
        """Answers the last ping of those that nobody was answered on (RFC 6455, 5.5.3).

        However many a server sends that does not read, one is owed.
        """
        if self._pong is not None:
            self._out.append(write_frame(lib.BW_WS_PONG, self._pong))
            self._pong = None

    def send(self, payload: bytes, *, text: bool = True) -> None:
        """Queues a message.

        Raises:
            BarewireError: the connection is not open.
        """
        if self.state is not _OPEN:
            self._insist_open()
        if self._pong is not None:
            self._answer_ping()
        opcode, size = _TEXT if text else _BINARY, len(payload)
        if size > _SHORT:
            self._out.append(write_frame(opcode, payload))
            return
        used = self._masks_used
        if used == _MASK_BYTES:  # asking the kernel four bytes at a time costs more than the frame
            self._masks, used = os.urandom(_MASK_BYTES), 0
        self._masks_used = used + 4
        mask = self._masks[used : used + 4]
        self._out.append(self._written[: _write(opcode, 0, payload, size, mask, self._room)])

    def ping(self, payload: bytes = b"") -> None:
        """Queues a ping of at most 125 bytes; a `Pong` of the same payload will answer it."""
        self._insist_open()
        if len(payload) > lib.BW_WS_CONTROL_BYTES:
            raise BarewireError(f"a ping of {len(payload)} bytes", hint="at most 125")
        self._out.append(write_frame(lib.BW_WS_PING, payload))

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Begins to close; the server's own close frame, or the end of the stream, follows."""
        if self.state is State.OPEN:
            self._answer_ping()
            payload = code.to_bytes(2, "big") + reason.encode()[:123]
            self._out.append(write_frame(lib.BW_WS_CLOSE, payload))
        self.state = State.CLOSING if self.state is State.OPEN else State.CLOSED

    # In.

    def receive(self, data: bytes) -> list[Opened | Message | Pong | Closed]:
        """Takes bytes from the transport and gives what they complete.

        Nothing that the bytes hold raises.
        """
        events: list[Opened | Message | Pong | Closed] = []
        if self.state is _CONNECTING:
            rest = self.shake(data)
            if rest is None:
                return events
            if isinstance(rest, Closed):
                return [rest]
            opened, data = rest
            events.append(opened)
        held = ffi.from_buffer(_BYTES, data)
        native, event = self.native, self._event
        more = _first(native, held, len(data), event)
        while more and self.state is not _CLOSED:
            size, kind, compressed, at, rest = _event_of(self._said)
            if kind <= _BINARY and not compressed:
                elsewhere = at == _ELSEWHERE
                payload = _buffer(event.data, size)[:] if elsewhere else data[at : at + size]
                events.append(Message(bytes(payload), kind == _TEXT))
            else:
                events += filter(None, self.take(event))
            more = rest and _next(native, event)
        return events

    def shake(self, data: bytes) -> tuple[Opened, bytes] | Closed | None:
        """Takes bytes of the server's answer to the handshake; :meth:`receive` does it too.

        Returns:
            None while it is not whole; then what was agreed, and the bytes behind it, which are
            frames; or how the handshake failed.
        """
        assert self._upgrade is not None
        answer = self._upgrade.receive(data)
        if answer is None:
            return None
        self._upgrade = None
        if isinstance(answer, Refused):
            rest = rest_ms(answer.retry_after)
            return self._fail(1006, f"handshake: {answer.why}", rest)
        self.state = State.OPEN
        self._deflate = answer.deflate
        return Opened(answer.headers, answer.deflate is not None), answer.rest

    def take(self, event: Any) -> Iterator[Message | Pong | Closed | None]:
        """Acts on a ``struct bw_ws_event`` that the native reader gave: answers pings and closes.

        Yields what the caller has to know of it, and None wherever it has done as much as is good
        for one turn of a loop. The event's bytes have to stay until there is no more.
        """
        kind = event.kind
        if kind <= _BINARY and event.compressed:
            yield from self._inflate(ffi.buffer(event.data, event.len), text=kind == _TEXT)
            return
        data = bytes(ffi.buffer(event.data, event.len)) if event.len else b""
        if kind <= _BINARY:
            yield Message(data, kind == _TEXT)
        elif kind == lib.BW_WS_PING:
            if self.state is State.OPEN:
                self._pong = data
        elif kind == lib.BW_WS_PONG:
            yield Pong(data)
        elif kind == lib.BW_WS_CLOSE:
            if self.state is State.OPEN:
                self._answer_ping()
                self._out.append(write_frame(lib.BW_WS_CLOSE, data))
            self.state = State.CLOSED
            yield Closed(int(event.code), printable(data[2:]), by_peer=True)
        else:
            why = ffi.string(lib.bw_ws_why(self.native))
            assert isinstance(why, bytes)
            yield self._fail(int(event.code), why.decode())

    def _inflate(self, payload: Any, *, text: bool) -> Iterator[Message | Closed | None]:
        """The message that a compressed payload holds (RFC 7692); fails the connection if none."""
        deflate = self._deflate
        if deflate is None:  # offered, so that the bit was let through, but not agreed on
            yield self._fail(1002, "reserved bits must be 0")
            return
        if self._inflater is None or deflate.forgetful:
            self._inflater = self._fresh()
        whole, left, more, at, ended = bytearray(), b"", False, 0, 0
        try:
            while True:
                # In pieces: zlib copies whatever it is given and does not use up.
                if not (left or more) and (at < len(payload) or at == 0):
                    left = payload[at : at + _PIECE_BYTES]
                    at += _PIECE_BYTES
                    if at >= len(payload):
                        left += _DEFLATE_TAIL
                room = min(_INFLATED_BYTES, self._max_message + 1 - len(whole))
                inflated = self._inflater.decompress(left, room)
                left, more = self._inflater.unconsumed_tail, len(inflated) == room
                whole += inflated
                if len(whole) > self._max_message:
                    yield self._fail(1009, "message too big")
                    return
                if self._inflater.eof:
                    # The sender ended its DEFLATE stream (7.2.3.4); what follows begins another.
                    left, more, ended = self._inflater.unused_data, False, ended + 1
                    self._inflater = self._fresh()
                    if ended == _MOST_STREAMS:
                        break
                elif not (left or more) and at >= len(payload):
                    yield Message(whole, text)
                    return
                yield None
        except zlib.error:
            yield self._fail(1002, "decompression failed")
            return
        yield self._fail(1002, f"a message of more than {_MOST_STREAMS} DEFLATE streams")

    def _fresh(self) -> Any:
        return zlib.decompressobj(-zlib.MAX_WBITS, zdict=self._dictionary)

    def receive_eof(self) -> list[Closed]:
        """The transport ended. Gives how, unless that was told before."""
        if self.state is State.CLOSED:
            return []
        self.state = State.CLOSED
        return [Closed(1006, "the stream ended without a close frame", by_peer=False)]

    @property
    def payload_bytes(self) -> int:
        """Of messages, so far, not of control frames, which a proxy may send for a dead node."""
        return int(lib.bw_ws_stats(self.native).payload)

    def stats(self) -> dict[str, int]:
        """Counters of the frame reader (``struct bw_ws_stats``)."""
        stats = lib.bw_ws_stats(self.native)
        names = ("bytes", "messages", "fragmented", "copied", "controls", "payload")
        return {name: int(getattr(stats, name)) for name in names}

    def _fail(self, code: int, reason: str, rest: int = 0) -> Closed:
        if self.state is State.OPEN:
            self._answer_ping()
            self._out.append(write_frame(lib.BW_WS_CLOSE, code.to_bytes(2, "big")))
        self.state = State.CLOSED
        return Closed(code, reason, by_peer=False, rest_ms=rest)

    def _insist_open(self) -> None:
        if self.state is not State.OPEN:
            raise BarewireError(f"{redact(self.url)} is {self.state.value}", hint="wait for Opened")
