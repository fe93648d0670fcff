"""Byte streams into the pump, one native call until there is something for Python.

    inlet = Inlet([endpoint.ref for endpoint in endpoints], [bytearray(1 << 18)], pump)
    inlet.connect(0, endpoint=0, stream=connection.address)
    inlet.lend_to(0, session.feed.native)        # a live subscription: its bytes need no Python
    what = inlet.run(until_mono_ns)

native/inlet.h says what is done without Python and what is told. Connections are handed in; what
their bytes mean is the sessions' affair.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any

from barewire._native import ffi, lib
from barewire.errors import BarewireError
from barewire.feeds.txfeed import BURST
from barewire.pump import Pump

__all__ = ["Inlet", "What"]


class What(IntEnum):
    """What :meth:`Inlet.run` came back with; ``enum bw_inlet_what``."""

    TIME = lib.BW_INLET_TIME
    RECORDS = lib.BW_INLET_RECORDS
    FOUND = lib.BW_INLET_FOUND
    EVENT = lib.BW_INLET_EVENT
    READABLE = lib.BW_INLET_READABLE


class Inlet:
    """The lines of one loop.

    Args:
        endpoints: ``struct dpb_stream_ref *`` of each; they must outlive this.
        buffers: of each line, what it receives into; 1 to 16.
        pump: takes the records; None: they are the caller's.

    Attributes:
        native: ``struct bw_inlet *``; `at`, `count` and `event` are what :meth:`run` is about.
        messages: ``struct bw_message[]`` where records without a pump are,
        records: ``struct bw_tx[]``. Both are valid until the next :meth:`run`.
    """

    def __init__(
        self, endpoints: Sequence[Any], buffers: Sequence[bytearray], pump: Pump | None = None
    ) -> None:
        lines = len(buffers)
        if not 1 <= lines <= lib.BW_INLET_LINES or len(endpoints) > lib.BW_INLET_LINES:
            raise BarewireError(
                f"{lines} lines over {len(endpoints)} endpoints",
                hint=f"1 to {lib.BW_INLET_LINES} of each",
            )
        self.messages: Any = ffi.new("struct bw_message[]", BURST)
        self.records: Any = ffi.new("struct bw_tx[]", BURST)
        self._parts = (pump, [ffi.from_buffer("uint8_t[]", buffer) for buffer in buffers])
        native: Any = ffi.new("struct bw_inlet *")
        self.native = native
        for number, ref in enumerate(endpoints):
            pointer = ffi.cast("struct dpb_stream_ref *", int(ffi.cast("uintptr_t", ref)))
            native.endpoint[number] = pointer[0]
        for number, room in enumerate(self._parts[1]):
            native.line[number].buffer, native.line[number].room = room, len(room)
        native.endpoints, native.lines = len(endpoints), lines
        native.pump = pump.native if pump is not None else ffi.NULL
        native.messages, native.txs = self.messages, self.records
        self._run: Any = lib.bw_inlet_run

    def connect(self, line: int, *, endpoint: int, stream: int) -> None:
        """Line `line` is the connection at address `stream`, of the endpoint of that number."""
        place = self.native.line[line]
        place.stream = ffi.cast("struct dpb_stream *", stream)
        place.feed, place.endpoint = ffi.NULL, endpoint

    def lend_to(self, line: int, feed: Any) -> None:
        """Line `line`'s bytes go to ``struct bw_txfeed *feed``; NULL: to the caller.

        With NULL, what that feed was lent and has not read is forgotten.
        """
        native = self.native
        place = native.line[line]
        place.feed = feed
        if not feed:
            place.reading = 0
            if native.at == line:
                native.told = 0

    def pause(self, line: int, paused: bool) -> None:
        """While `paused`, line `line` is left alone: the caller reads what it was lent."""
        self.native.line[line].paused = paused

    def disconnect(self, line: int) -> None:
        """Line `line` is not read any more. Call it before its connection is closed."""
        self.native.line[line].stream = ffi.NULL
        self.lend_to(line, ffi.NULL)

    def run(self, until_mono_ns: int) -> int:
        """Turns at least once, until there is something or it is time: a `What`."""
        what: int = self._run(self.native, until_mono_ns)
        return what
