"""MoldUDP64 (NASDAQ, version 1.00), the receiving side: lines A and B made into one sequence.

    receiver = MoldReceiver(MoldConfig(lines=2))
    for message in receiver.receive(line, datagram, now_mono_ns):
        ...                                            # each sequence number once, at once
    for request in receiver.requests(now_mono_ns):
        ...                                            # to the retransmission server

The work is done by native/mold.h, whose header tells the whole story; native loops use it directly
(:attr:`MoldReceiver.native`). This is the same for tools and tests, with copies instead of views.
Nothing here reads a clock or a socket.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from barewire._native import ffi, lib
from barewire.errors import BarewireError
from barewire.untrusted import printable

__all__ = ["CAUSES", "RETRANSMISSION", "Gap", "Message", "MoldConfig", "MoldReceiver", "Request"]

RETRANSMISSION: int = lib.BW_MOLD_RETRANSMISSION
"""The number of the "line" on which answers of the retransmission server come in."""

CAUSES = {
    lib.BW_MOLD_SHORT: "short",
    lib.BW_MOLD_SESSION: "session",
    lib.BW_MOLD_SEQUENCE: "sequence",
    lib.BW_MOLD_TRUNCATED: "truncated",
    lib.BW_MOLD_TRAILING: "trailing",
    lib.BW_MOLD_JUMP: "jump",
    lib.BW_MOLD_LINE: "line",
}
"""Why a datagram was refused or odd (``enum bw_mold_cause``)."""

_STATES = {
    lib.BW_MOLD_WAITING: "waiting",
    lib.BW_MOLD_ACTIVE: "active",
    lib.BW_MOLD_ENDED: "ended",
}
_BATCH = 256


class Message(NamedTuple):
    """One message, delivered once: its sequence number, the line that was first, its bytes."""

    sequence: int
    line: int
    data: bytes


class Request(NamedTuple):
    """A request for `wanted` messages from `sequence` on; `packet` is what to send."""

    sequence: int
    wanted: int
    attempt: int
    packet: bytes


class Gap(NamedTuple):
    """A hole in the sequence: numbers `first` to `end` (exclusive), and how it was filled.

    `missing` numbers had not come when it opened; of these, `reordered` came late on the line that
    showed the gap, `other_line` by another, `retransmitted` by retransmission, `lost` never.
    """

    first: int
    end: int
    opened_mono_ns: int
    closed_mono_ns: int
    missing: int
    reordered: int
    other_line: int
    retransmitted: int
    lost: int
    attempts: int
    line: int


@dataclass(frozen=True, slots=True)
class MoldConfig:
    """How a feed is received.

    Attributes:
        session: take only this session (up to 10 ASCII characters); empty: the first heard, then
            the next: at once after an end or `silence_ns` without it, else when eight datagrams
            of the new one came without a sign of life of the old.
        lines: how many lines carry the same sequence (1 to 8).
        start: first sequence number wanted; 0 for whatever is heard first. A session that follows
            a confirmed one is wanted from 1 on, where the window holds that.
        window: most numbers between the oldest that is missing and the newest; a power of two
            from 128 on. What falls out of it is lost.
        ask: whether there is a retransmission server.
        grace_ns: from the opening of a gap to the first request. Lines of one site differ by tens
            of microseconds; before the other line had its chance, asking only doubles traffic.
        retry_ns: to the second request; doubled for each further one, 32-fold at most.
        give_up_ns: a gap is lost when nothing of it came for so long. Nothing waits for a gap.
        silence_ns: how long a session must be silent before another takes its place at once, and
            before a publisher that began anew under its old name is followed.
    """

    session: str = ""
    lines: int = 2
    start: int = 0
    window: int = 1 << 18
    ask: bool = True
    grace_ns: int = 200_000
    retry_ns: int = 2_000_000
    give_up_ns: int = 3_000_000_000
    silence_ns: int = 3_000_000_000

    def native(self) -> Any:
        """``struct bw_mold_config *`` of these values.

        Raises:
            BarewireError: a value is out of range.
        """
        if not 1 <= self.lines <= lib.BW_MOLD_LINES:
            raise BarewireError(f"a feed of {self.lines} lines", hint="1 to 8 lines are possible")
        if self.window & (self.window - 1) or not 128 <= self.window <= 1 << 26:
            raise BarewireError(
                f"a window of {self.window} messages", hint="a power of two from 128 to 67108864"
            )
        config: Any = ffi.new("struct bw_mold_config *")
        config.session = session_bytes(self.session) if self.session else bytes(10)
        for name in ("lines", "start", "window", "ask"):
            setattr(config, name, int(getattr(self, name)))
        for name in ("grace_ns", "retry_ns", "give_up_ns", "silence_ns"):
            setattr(config, name, getattr(self, name))
        return config


def session_bytes(name: str) -> bytes:
    """A session's name as it stands on the wire: ASCII, padded with spaces on the right.

    Raises:
        BarewireError: it is longer than 10 characters, or not printable ASCII.
    """
    if not name.isascii() or not name.isprintable() or not 0 < len(name) <= 10:
        raise BarewireError(
            f"session {name!r} cannot be sent", hint="1 to 10 printable ASCII characters"
        )
    return name.encode().ljust(10)


class MoldReceiver:
    """Arbitrates the lines of one feed.

    Attributes:
        native: ``struct bw_mold *``, for native loops; valid as long as this object.
    """

    def __init__(self, config: MoldConfig | None = None) -> None:
        self.native: Any = ffi.gc(
            lib.bw_mold_new((config or MoldConfig()).native()), lib.bw_mold_free
        )
        if not self.native:
            raise MemoryError("window of a MoldUDP64 receiver")
        self._messages = ffi.new("struct bw_mold_message[]", _BATCH)
        self._requests = ffi.new("struct bw_mold_request[]", _BATCH)
        self._gaps = ffi.new("struct bw_mold_gap[]", _BATCH)
        self._stats = lib.bw_mold_stats(self.native)

    def receive(
        self, line: int, datagram: bytes | bytearray | memoryview, now_mono_ns: int
    ) -> list[Message]:
        """Takes a datagram that came on `line` and gives the messages in it that are new.

        Whatever is wrong with it is counted (:meth:`stats`), never raised.
        """
        held = ffi.from_buffer("uint8_t[]", datagram)
        n = lib.bw_mold_receive(
            self.native, line, held, len(held), now_mono_ns, self._messages, _BATCH
        )
        out: list[Message] = []
        while n > 0:
            for i in range(n):
                m = self._messages[i]
                out.append(Message(m.sequence, m.line, bytes(ffi.buffer(m.data, m.len))))
            n = lib.bw_mold_more(self.native, self._messages, _BATCH) if n == _BATCH else 0
        return out

    def requests(self, now_mono_ns: int) -> list[Request]:
        """The requests that are due, to be sent to the retransmission server.

        At most 256; more are due at once. Gaps that are too old are given up here.
        """
        n = lib.bw_mold_requests(self.native, now_mono_ns, self._requests, _BATCH)
        return [
            Request(r.sequence, r.count, r.attempt, bytes(r.packet))
            for r in (self._requests[i] for i in range(n))
        ]

    @property
    def due_mono_ns(self) -> int | None:
        """When :meth:`requests` next has something to do; None: not before another datagram."""
        due = lib.bw_mold_due_mono_ns(self.native)
        return None if due == 2**64 - 1 else due

    def closed_gaps(self) -> list[Gap]:
        """Gaps closed since the last call, oldest first; of more than 256, the last 256."""
        return self._read_gaps(lib.bw_mold_closed_gaps(self.native, self._gaps, _BATCH))

    def open_gaps(self) -> list[Gap]:
        """Gaps that are open, lowest numbers first."""
        return self._read_gaps(lib.bw_mold_open_gaps(self.native, self._gaps, _BATCH))

    def _read_gaps(self, n: int) -> list[Gap]:
        return [Gap(*(getattr(self._gaps[i], name) for name in Gap._fields)) for i in range(n)]

    def stats(self) -> dict[str, Any]:
        """Every counter (``struct bw_mold_stats``), causes and lines by name."""
        s = self._stats
        scalars = {
            name: getattr(s, name)
            for name, field in ffi.typeof("struct bw_mold_stats").fields
            if field.type.kind == "primitive"
        }
        lines = [*range(lib.BW_MOLD_LINES), RETRANSMISSION]
        return scalars | {
            "state": _STATES[s.state],
            "session": printable(bytes(s.session).rstrip(b"\0 ")),
            "refused": {name: s.refused[cause] for cause, name in CAUSES.items()},
            "lines": {
                "retransmission" if i == RETRANSMISSION else "ABCDEFGH"[i]: {
                    name: getattr(s.line[i], name)
                    for name, _ in ffi.typeof("struct bw_mold_line_stats").fields
                }
                for i in lines
                if s.line[i].datagrams or s.line[i].refused
            },
        }

    def samples(self) -> dict[str, bytes]:
        """The last datagram of each cause seen, its first 128 bytes."""
        kept = {}
        for cause, name in CAUSES.items():
            if self._stats.refused[cause]:
                sample = self._stats.sample[cause]
                kept[name] = bytes(ffi.buffer(sample.bytes, min(sample.len, len(sample.bytes))))
        return kept
