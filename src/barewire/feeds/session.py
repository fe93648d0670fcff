"""One WebSocket connection after the other to a server that just talks: no requests, only messages.

What a relay's feeds have in common: the handshake and its headers, pings as signs of life, why it
ended. The feed says what the messages mean (:meth:`MessageSession._message`).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

import msgspec

from barewire.feeds.websocket import Closed, Message, Opened, Pong, WebSocket
from barewire.untrusted import decode_json

__all__ = ["MessageSession", "Phase", "decode_message"]

_FEW_VALUES = 4096
_BYTES_A_VALUE = 16

T = TypeVar("T")


class Phase(enum.Enum):
    """Where a connection is."""

    CONNECTING = "connecting"
    SUBSCRIBING = "subscribing"
    LIVE = "live"
    FAILED = "failed"


def decode_message(decode: Callable[..., T], text: bytes) -> T:
    """`text` by `decode`, as `decode_json` does, unless it is of more values than any message is.

    Each value costs a hundred bytes of memory, however short it is: 16 MiB can hold eight million.
    The bound is that of the native reader (docs/stream-feeds.md); commas in strings count as well.

    Raises:
        msgspec.DecodeError: it is not what the decoder expects, whatever it is instead.
    """
    if text.count(b",") > _FEW_VALUES + len(text) // _BYTES_A_VALUE:
        raise msgspec.DecodeError("more values than 4,096 and one for each 16 bytes")
    return decode_json(decode, text)


class MessageSession(Generic[T]):
    """The connections of one feed.

    Attributes:
        phase: of the current connection.
        why: what ended it.
        rest_ns: for how long the server asked to be left alone then, or 0.
        connections: begun. failures: and ended.
        unclear: messages that are not of this feed.
        last_unclear: the last of them, cut to 1,000 bytes.
    """

    def __init__(
        self,
        url: str,
        *,
        answer_ns: int = 10_000_000_000,
        ask_every_ns: int = 5_000_000_000,
        max_message: int = 16 << 20,
    ) -> None:
        self.url = url
        self.connections = 0
        self.failures = 0
        self.unclear = 0
        self.last_unclear = b""
        self._answer_ns = answer_ns
        self._ask_every_ns = ask_every_ns
        self._max_message = max_message
        self.connect()

    def _headers(self) -> Mapping[str, str]:
        """What the next handshake sends."""
        return {}

    def _socket(self) -> WebSocket:
        """A connection that has not begun."""
        return WebSocket(self.url, headers=self._headers(), max_message=self._max_message)

    def _agreed(self, opened: Opened) -> str:
        """Looks at the server's answer; a reason to hang up, or an empty string."""
        return ""

    def _message(self, data: bytes, arrival_ns: int, clock: int) -> Iterator[T]:
        """What one message says."""
        raise NotImplementedError

    def connect(self) -> None:
        """Begins anew, for a new connection of the transport."""
        self.connections += 1
        self.phase = Phase.CONNECTING
        self.why = ""
        self.rest_ns = 0
        self._since_ns: int | None = None
        self._asked = False
        self._next_question_ns = 0
        self._heard = 0
        self._websocket = self._socket()

    def data_to_send(self) -> bytes:
        """What has to be sent now; asked for once."""
        return self._websocket.data_to_send()

    def receive(self, data: bytes, arrival_ns: int = 0, clock: int = 0) -> Iterator[T]:
        """Takes bytes from the transport and gives what they say.

        Args:
            data: of any length.
            arrival_ns: when they came, by the clock `clock` (``enum dpb_clock``).
            clock: see above.
        """
        if self.phase is Phase.FAILED:
            return
        for event in self._websocket.receive(data):
            if isinstance(event, Opened):
                if why := self._agreed(event):
                    self.end(why)
                    return
                self.phase = Phase.LIVE
            elif isinstance(event, Message):
                self._asked = False
                yield from self._message(bytes(event.data), arrival_ns, clock)
            elif isinstance(event, Pong):
                self._asked = False
            elif isinstance(event, Closed):
                self.rest_ns = event.rest_ms * 1_000_000
                by = "closed by the other side" if event.by_peer else "failed"
                self.end(f"{by}: {event.code} {event.reason}".rstrip())

    def end(self, reason: str) -> None:
        """The transport ended; `reason` says how."""
        if self.phase is not Phase.FAILED:
            self.phase = Phase.FAILED
            self.why = reason
            self.failures += 1

    def tick(self, now_mono_ns: int) -> None:
        """What depends on time: pings, and gives up on who does not answer."""
        if self._since_ns is None:
            self._since_ns = now_mono_ns
        late = now_mono_ns - self._since_ns > self._answer_ns
        if self.phase is Phase.CONNECTING and late:
            self.end(f"no handshake within {self._answer_ns / 1e9:g} s")
        if self.phase is not Phase.LIVE:
            return
        # The answer may stand behind a backlog of megabytes: bytes are life enough meanwhile. Pings
        # are not: whoever sends them may be a proxy of a relay that hangs.
        heard = self._websocket.payload_bytes
        comes, self._heard = heard > self._heard, heard
        if comes:
            self._since_ns = now_mono_ns
        if self._asked:
            if late and not comes:
                self.end(f"no sign of life within {self._answer_ns / 1e9:g} s")
        elif now_mono_ns >= self._next_question_ns:
            self._since_ns = now_mono_ns
            self._next_question_ns = now_mono_ns + self._ask_every_ns
            self._asked = True
            self._websocket.ping()

    def _misunderstood(self, data: bytes) -> None:
        self.unclear += 1
        self.last_unclear = data[:1000]
