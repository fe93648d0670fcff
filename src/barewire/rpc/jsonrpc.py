"""JSON-RPC 2.0 as bytes: requests out, replies in, and where one message ends on a stream."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from barewire.errors import BarewireError
from barewire.rpc.faults import Fault, Trouble
from barewire.untrusted import decode_json

__all__ = [
    "Reply",
    "Splitter",
    "decode",
    "encode_batch",
    "encode_params",
    "encode_single",
    "is_handle",
]


class Reply(msgspec.Struct, gc=False):
    """A response, or a notification where `method` is set.

    Attributes:
        id: the number the request bore; None for notifications and for refusals.
        result: the result, `msgspec.UNSET` where there was none.
        error: the error object, or None.
        method: ``eth_subscription`` in a notification.
        params: the notification's parameters.
    """

    id: int | str | None = None
    result: Any = msgspec.UNSET
    error: Any = None
    method: str = ""
    params: Any = None


_decoder: msgspec.json.Decoder[Reply | list[Reply]] = msgspec.json.Decoder(Reply | list[Reply])
_encoder = msgspec.json.Encoder()


def encode_params(params: Any) -> bytes:
    """`params` as JSON; what is not JSON-ready is refused.

    Raises:
        BarewireError: it is the caller's mistake, wherever it would be sent.
    """
    try:
        return _encoder.encode(params)
    except (TypeError, ValueError, RecursionError) as error:
        raise BarewireError(f"the parameters are not JSON: {error}") from error


def encode_single(number: int, method: str, params: bytes) -> bytes:
    """One request; `method` is a plain name, `params` is JSON."""
    return b'{"jsonrpc":"2.0","id":%d,"method":"%b","params":%b}' % (
        number,
        method.encode(),
        params,
    )


def encode_batch(number: int, calls: Sequence[tuple[str, bytes]]) -> bytes:
    """A batch whose items are numbered upwards from `number`."""
    items = [encode_single(number + i, name, params) for i, (name, params) in enumerate(calls)]
    return b"[" + b",".join(items) + b"]"


def decode(message: bytes | bytearray | memoryview) -> Reply | list[Reply]:
    """What the other side said.

    Raises:
        Trouble: with `Fault.PROVIDER`, when it is not JSON-RPC.
    """
    try:
        return decode_json(_decoder.decode, message)
    except msgspec.DecodeError as error:
        start = bytes(message[:60])
        raise Trouble(Fault.PROVIDER, f"not JSON-RPC ({error}): {start!r}") from None


def is_handle(result: Any) -> bool:
    """Whether `result` can be what a node calls a subscription or a filter: text, or a number."""
    return bool(result) if isinstance(result, str) else type(result) is int


_MARKS = re.compile(rb'["\\{}\[\]]')


class Splitter:
    """Finds the ends of JSON texts that follow each other on a byte stream (geth's IPC)."""

    __slots__ = ("_at", "_buffer", "_depth", "_escaped_at", "_in_string", "limit")

    def __init__(self, limit: int = 256 << 20) -> None:
        self._buffer = bytearray()
        self._at = 0  # scanned so far
        self._depth = 0
        self._in_string = False
        self._escaped_at = -1
        self.limit = limit

    @property
    def empty(self) -> bool:
        """Whether no part of a message is held."""
        return not self._buffer

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that `data` completes.

        Raises:
            Trouble: a message is longer than `limit`.
        """
        self._buffer += data
        found: list[bytes] = []
        start = 0
        for match in _MARKS.finditer(self._buffer, self._at):
            at = match.start()
            mark = self._buffer[at]
            if self._in_string:
                if at == self._escaped_at:
                    continue
                if mark == 0x5C:  # a backslash escapes the next byte
                    self._escaped_at = at + 1
                elif mark == 0x22:
                    self._in_string = False
            elif mark == 0x22:
                self._in_string = True
            elif mark in (0x7B, 0x5B):
                self._depth += 1
            elif mark in (0x7D, 0x5D):
                self._depth -= 1
                if self._depth <= 0:
                    self._depth = 0
                    found.append(bytes(self._buffer[start : at + 1]))
                    start = at + 1
        del self._buffer[:start]
        self._at = len(self._buffer)
        self._escaped_at -= start
        if len(self._buffer) < 64 and not self._buffer.strip():
            self._buffer.clear()
            self._at = 0
        if len(self._buffer) > self.limit:
            raise Trouble(Fault.PROVIDER, f"a message longer than {self.limit:,} bytes")
        return found
