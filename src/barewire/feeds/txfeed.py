"""JSON that announces transactions in, checked transaction records out.

    feed = TxFeed(decoder)
    feed.lend_text(b'{"jsonrpc":"2.0","method":"eth_subscription","params":{...}}')
    for item in feed.read():
        ...                                  # Transaction, Announced, Other, or a frame

The work is done by native/txfeed.h, whose header says what is accepted; native loops use it
directly (:attr:`TxFeed.native`). Nothing that the bytes hold raises: what is wrong is counted by
cause.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from barewire._native import ffi, lib
from barewire.errors import BarewireError
from barewire.feeds.websocket import WebSocket
from barewire.mempool.decoder import Decoder
from barewire.mempool.record import ORIGINS, Origin, Transaction

__all__ = [
    "BURST",
    "CAUSES",
    "LONG_BYTES",
    "WORK_BYTES",
    "Announced",
    "ControlFrame",
    "Form",
    "Other",
    "TxFeed",
]

BURST: int = lib.BW_TXFEED_BURST
"""Transactions that one native call hands out at most."""

WORK_BYTES: int = lib.BW_TXFEED_WORK
"""Bytes of text that one native call walks through at most, and a dozen."""

LONG_BYTES = 1 << 21
"""A message that is longer is not decoded in Python in one go: the loop has other sources."""


def _name(cause: int) -> str:
    name = ffi.string(lib.bw_json_cause_name(cause))
    assert isinstance(name, bytes)
    return name.decode()


CAUSES: tuple[str, ...] = tuple(_name(cause) for cause in range(lib.BW_JSON_CAUSES))
"""Names of the causes of refusal, by number (``enum bw_json_cause``); 0 is "ok"."""

Form = Literal["stream", "bare", "pool", "block"]

_FORMS: dict[Form, int] = {
    "stream": lib.BW_JSON_STREAM,
    "bare": lib.BW_JSON_BARE,
    "pool": lib.BW_JSON_POOL,
    "block": lib.BW_JSON_BLOCK,
}


@dataclass(frozen=True, slots=True)
class Announced:
    """A hash without its transaction."""

    hash: bytes


@dataclass(frozen=True, slots=True)
class Other:
    """One JSON object that is no transaction: an answer, an error, another subscription.

    Attributes:
        text: the object; b"" of one longer than `LONG_BYTES`, but of an answer that its "result"
            makes so long: that is null here, and
        result: is what it is, valid until the next item is asked for.
    """

    text: bytes
    result: memoryview | None = None


@dataclass(frozen=True, slots=True)
class ControlFrame:
    """A ``struct bw_ws_event`` for :meth:`WebSocket.take`; valid until the next item is asked for.

    It is a control frame, a failure, or a message that is still deflated.
    """

    event: Any


Item = Transaction | Announced | Other | ControlFrame


class TxFeed:
    """Reads one stream.

    Args:
        decoder: judges the envelopes, and counts those it refuses.
        websocket: whose frames the bytes are; None: they are JSON values, one behind the other, as
            on a node's IPC socket.
        source: number of the source, in the records.
        trusted: marks the records as from a trusted source.
        max_text: bytes of one message at most.
        work: bytes of text that one call walks through, about; a test may want few.

    Attributes:
        native: ``struct bw_txfeed *``, for native loops; valid as long as this object.
        event: what the last :meth:`read_into` found that is no transaction.
        more: that call left something to be read.
    """

    def __init__(
        self,
        decoder: Decoder,
        *,
        websocket: WebSocket | None = None,
        source: int = 0,
        trusted: bool = False,
        max_text: int = 16 << 20,
        work: int = WORK_BYTES,
    ) -> None:
        config: Any = ffi.new("struct bw_txfeed_config *")
        config.ws = websocket.native if websocket else ffi.NULL
        config.rules = decoder.native_rules[0]
        config.refusals = decoder.native_refusals
        config.max_text = max_text
        config.work = work
        config.source = source
        config.trusted = trusted
        native = lib.bw_txfeed_new(config)
        if native == ffi.NULL:
            raise BarewireError(f"max_text = {max_text}", hint="1 to 2^30 bytes, and memory")
        self.native: Any = ffi.gc(native, lib.bw_txfeed_free)
        self._parts = (decoder, websocket)
        self._lent: Any = None
        self._lent_text: Any = None
        self._messages: Any = ffi.new("struct bw_message[]", BURST)
        self._event: Any = ffi.new("struct bw_txfeed_event *")
        self.event: Announced | Other | ControlFrame | None = None
        self.more = False
        self._stats = lib.bw_txfeed_stats(self.native)

    def restart(self) -> None:
        """Forgets what was lent, for a new connection of the same kind; the counters go on."""
        self._lent = self._lent_text = self.event = None
        self.more = False
        lib.bw_txfeed_restart(self.native)

    def lend(self, data: bytes | memoryview, arrival_ns: int = 0, clock: int = 0) -> None:
        """Lends bytes of the stream; read them all (:meth:`read`) before lending more.

        Args:
            data: must not change until then.
            arrival_ns: when they came, by the clock `clock` (``enum dpb_clock``).
            clock: see above.
        """
        self._lent = ffi.from_buffer("uint8_t[]", data)
        lib.bw_txfeed_lend(self.native, self._lent, len(data), arrival_ns, clock)

    def lend_text(
        self,
        text: bytes | bytearray | msgspec.Raw,
        arrival_ns: int = 0,
        clock: int = 0,
        *,
        form: Form = "stream",
        origin: Origin = "announced",
    ) -> None:
        """Lends one whole text that came another way; it is read before the stream goes on.

        Args:
            text: see `form`.
            arrival_ns: when it came, by the clock `clock` (``enum dpb_clock``).
            clock: see above.
            form: a message; one transaction object alone ("bare"); the result of `txpool_content`
                ("pool") or of `eth_getBlockByNumber` ("block"), of which every entry that is no
                transaction is refused by cause.
            origin: how the transactions of the first two came. A pool's came as such or as
                "queued", a block's as such.
        """
        self._lent_text = ffi.from_buffer("uint8_t[]", text)
        size = len(self._lent_text)
        number = ORIGINS.index(form if form == "pool" or form == "block" else origin)
        lib.bw_txfeed_lend_text(
            self.native, self._lent_text, size, _FORMS[form], number, arrival_ns, clock
        )

    def read_into(self, messages: Any, records: Any, room: int) -> int:
        """One native call: writes at most `room` transactions; returns how many.

        Afterwards :attr:`event` is what came behind them, if it is no transaction, and :attr:`more`
        tells whether to call again.

        Args:
            messages: ``struct bw_message[]``, which will point to the envelopes. They are valid
                until the next call.
            records: ``struct bw_tx[]``.
            room: of both, 1 to `BURST`.
        """
        count: int = lib.bw_txfeed_read(self.native, messages, records, room, self._event)
        kind = self._event.kind
        self.more = kind != lib.BW_TXFEED_NONE
        self.event = self.tell(self._event) if self.more else None
        return count

    def read(self) -> Iterator[Item]:
        """What the lent bytes complete, in order."""
        self.more = True
        while self.more:
            records = ffi.new("struct bw_tx[]", BURST)
            count = self.read_into(self._messages, records, BURST)
            event = self.event
            for i in range(count):
                message = self._messages[i]
                yield Transaction(
                    records + i, bytes(ffi.buffer(message.data, message.len)), records
                )
            if event is not None:
                yield event

    def tell(self, event: Any) -> Announced | Other | ControlFrame | None:
        """What a ``struct bw_txfeed_event`` says, which this or a native loop has read."""
        kind = event.kind
        if kind == lib.BW_TXFEED_OTHER:
            text, size = ffi.buffer(event.text, event.text_len), event.result_len
            if event.text_len <= LONG_BYTES:
                return Other(bytes(text))
            if event.text_len - size > LONG_BYTES:
                return Other(b"")
            at = event.result - event.text
            result = memoryview(ffi.buffer(event.result, size))
            return Other(text[:at] + b"null" + text[at + size :], result)
        if kind == lib.BW_TXFEED_ANNOUNCED:
            return Announced(bytes(event.hash))
        if kind == lib.BW_TXFEED_FRAME:
            return ControlFrame(event.frame)
        return None

    @property
    def lent_bytes(self) -> int:
        """Of the stream, lent so far."""
        return int(self._stats.bytes)

    @property
    def walked_bytes(self) -> int:
        """Of texts, so far: what calls cost."""
        return int(self._stats.walked)

    @property
    def texts(self) -> int:
        """Messages of JSON, whole ones, so far."""
        return int(self._stats.texts)

    @property
    def told(self) -> int:
        """Transactions and hashes so far."""
        return int(self._stats.transactions + self._stats.announced)

    @property
    def own_types(self) -> int:
        """Transactions so far of a type that Ethereum does not have, a chain's own."""
        return int(self._stats.refused[lib.BW_JSON_TYPE].count)

    @property
    def too_long(self) -> int:
        """Values so far, without frames around them, that were longer than is taken."""
        return int(self._stats.refused[lib.BW_JSON_ROOM].count)

    @property
    def entries(self) -> int:
        """Of pools and blocks, read so far, whatever they were."""
        return int(self._stats.entries)

    def stats(self) -> dict[str, int | dict[str, int]]:
        """Counters, and refusals by cause; causes that never occurred are left out."""
        names = ("texts", "transactions", "announced", "others")
        counts: dict[str, int | dict[str, int]] = {n: int(getattr(self._stats, n)) for n in names}
        refused = {name: int(self._stats.refused[i].count) for i, name in enumerate(CAUSES)}
        return counts | {"refused": {name: count for name, count in refused.items() if count}}

    def samples(self) -> dict[str, bytes]:
        """The last bad text of each cause seen, cut to what is kept."""
        return {
            name: bytes(ffi.buffer(sample.text, sample.kept))
            for name, sample in zip(CAUSES, self._stats.refused, strict=False)
            if sample.count
        }
