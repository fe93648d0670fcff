"""Pending transactions by subscription: a node's WebSocket or IPC socket, or bloXroute's gateway.

    session = PendingTransactions("ws://10.0.0.2:8546", decoder)
    transport.send(session.data_to_send())
    session.lend(data, arrival_ns, clock)                   # what the transport received
    while count := session.read_into(messages, records, 64) or session.more:
        ...                                                 # count checked records
    session.tick(now_mono_ns)                               # a few times a second
    transport.send(session.data_to_send())

Sans-I/O: the transport (TCP, TLS or a Unix socket), its clock and the decision to reconnect are the
caller's. Transactions are read by native/txfeed.h; all that is decided here happens once a
connection, once a burst or a few times a second, but for hash-only subscriptions, where every hash
is handled here before its body is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import msgspec

from barewire._native import ffi
from barewire.feeds.blocks import Block, block_of
from barewire.feeds.hole import Hole
from barewire.feeds.session import Phase
from barewire.feeds.txfeed import BURST, Announced, ControlFrame, Form, Other, TxFeed
from barewire.feeds.websocket import Closed, Message, Opened, State, WebSocket
from barewire.mempool.decoder import Decoder
from barewire.mempool.record import Transaction
from barewire.untrusted import printable, quantity_of

__all__ = ["Counts", "PendingTransactions", "Phase", "Style", "Timing"]

Style = Literal["bodies", "hashes", "bloxroute"]
"""What is subscribed to: `eth_subscribe` to whole transactions (geth, reth, anvil and others take
`true` as its second parameter), to hashes whose bodies are then fetched, or bloXroute's `newTxs`.
"""

_SUBSCRIBE: dict[Style, tuple[str, list[Any]]] = {
    "bodies": ("eth_subscribe", ["newPendingTransactions", True]),
    "hashes": ("eth_subscribe", ["newPendingTransactions"]),
    "bloxroute": ("subscribe", ["newTxs", {"include": ["tx_hash", "raw_tx"]}]),
}


@dataclass(frozen=True, slots=True)
class Timing:
    """How long is waited for what, and how much is asked for at once.

    Attributes:
        answer_ns: for the handshake, the subscription, and a sign of life.
        ask_every_ns: between two questions for the head of the chain, which are the signs of life:
            a node that answers them is not hung, however quiet its pool.
        fetch_ns: for the body of an announced hash.
        batch: hashes fetched in one request.
    """

    answer_ns: int = 10_000_000_000
    ask_every_ns: int = 5_000_000_000
    fetch_ns: int = 2_000_000_000
    batch: int = 100


@dataclass(slots=True)
class Counts:
    """What came about, over all connections of one source.

    Attributes:
        connections: begun. failures: and ended.
        fetched: bodies asked for by hash. known: hashes not asked for, as another source had them.
        vanished: answered with null: gone from the pool. unanswered: not answered in time, or not
            before the connection broke. denied: answered with an error.
        errors: error answers to anything.
        unclear: JSON that was neither expected nor a transaction.
        blocks: new blocks that the node told of.
    """

    connections: int = 0
    failures: int = 0
    fetched: int = 0
    known: int = 0
    vanished: int = 0
    unanswered: int = 0
    denied: int = 0
    errors: int = 0
    unclear: int = 0
    blocks: int = 0


class _Answer(msgspec.Struct):
    """What all answers have; `result` is read by whoever asked."""

    id: int | str | None = None
    result: msgspec.Raw = msgspec.Raw(b"")
    error: Any = None
    method: str | None = None


_STEPS = 64
"""Things that are no transactions that one call sees to: the loop has other sources."""
_MOST_WANTED = 10_000
"""Announced hashes whose bodies are waited for at once; more are counted as unanswered."""

_answer = msgspec.json.Decoder(_Answer)


class PendingTransactions:
    """One source of pending transactions, over one connection after the other.

    Args:
        url: ``ws://``, ``wss://``, or ``ipc://PATH`` for JSON without frames.
        decoder: judges the envelopes.
        style: see `Style`.
        headers: of the WebSocket handshake; credentials go here.
        source: number of the source, in the records.
        trusted: marks the records as from a trusted source.
        known: whether a hash has been delivered already, so that its body is not fetched.
        timing: see `Timing`.
        max_message: bytes of one message at most.
        deflate: offer permessage-deflate.

    Attributes:
        phase: of the current connection.
        why: what ended it.
        rest_ns: for how long the server asked to be left alone then, or 0.
        hole: what the pool said after a reconnect.
        filling: the records of the last :meth:`read_into` are from the pool, not from the stream.
        more: that call left something to be read.
        counts: see `Counts`.
        last_error: the last error answer.
        on_block: called with each new block that the node tells of. Set before the connection, it
            has heads subscribed to as well, but of bloXroute's gateway, which tells of none.
    """

    def __init__(
        self,
        url: str,
        decoder: Decoder,
        *,
        style: Style = "bodies",
        headers: Mapping[str, str] | None = None,
        source: int = 0,
        trusted: bool = False,
        known: Callable[[bytes], bool] | None = None,
        timing: Timing | None = None,
        max_message: int = 16 << 20,
        deflate: bool = False,
    ) -> None:
        self.url = url
        self.style: Style = style
        self._known = known
        self._timing = timing or Timing()
        self.counts = Counts()
        self.hole = Hole(supported=style != "bloxroute")
        self.last_error = ""
        self.on_block: Callable[[Block], None] | None = None
        self._number = 0
        self._heard = 0
        self._websocket: WebSocket | None = None
        if not url.startswith("ipc:"):
            self._websocket = WebSocket(
                url, headers=headers, max_message=max_message, deflate=deflate
            )
        self.feed = TxFeed(
            decoder,
            websocket=self._websocket,
            source=source,
            trusted=trusted,
            max_text=max_message,
        )
        self.connect(None)

    def connect(self, now_mono_ns: int | None) -> None:
        """Begins anew, for a new connection of the transport.

        Args:
            now_mono_ns: a clock reading; None for the first connection, which fills no hole.
        """
        if self.counts.connections:
            if self._websocket is not None:
                self._websocket.restart()
            self.feed.restart()
        self.counts.connections += 1
        self.phase = Phase.CONNECTING
        self.why = ""
        self.rest_ns = 0
        self.more = self.filling = False
        self._out: list[bytes] = []
        self._asked: dict[int, str] = {}
        self._fetching: dict[bytes, tuple[int, int]] = {}  # hash -> number, and when asked
        self._fetched_hash: dict[int, bytes] = {}
        self._wanted: dict[bytes, None] = {}
        self._texts: list[tuple[msgspec.Raw, Form]] = []  # from the pool
        self._to_fill: int | None = None  # entries of all pools, before the one that is being read
        self._since_ns = now_mono_ns
        self._next_question_ns = 0
        self._arrival = (0, 0)
        self._follows_blocks = False
        self._blocks_told = False  # since the head was last asked for
        self._heads_untold = 0  # that rose since, one answer after the other
        self._head_before = 0
        self.hole.begin()
        if self._websocket is None:
            self._subscribe()

    # Out.

    def data_to_send(self) -> bytes:
        """What has to be sent now; asked for once."""
        if self._websocket is None:
            out, self._out = b"".join(self._out), []
            return out
        return self._websocket.data_to_send()

    @property
    def unsent_bytes(self) -> int:
        """What :meth:`data_to_send` would give: it grows where the other side does not read."""
        if self._websocket is None:
            return sum(map(len, self._out))
        return self._websocket.unsent_bytes

    def _send(self, text: bytes) -> None:
        if self._websocket is None:
            self._out.append(text)
        elif self._websocket.state is State.OPEN:
            self._websocket.send(text)

    def _ask(self, method: str, params: list[Any], about: str) -> int:
        self._number += 1
        self._asked[self._number] = about
        self._send(_request(self._number, method, params))
        return self._number

    def _subscribe(self) -> None:
        self.phase = Phase.SUBSCRIBING
        method, params = _SUBSCRIBE[self.style]
        self._ask(method, params, "subscribe")

    # In.

    def lend(self, data: bytes | memoryview, arrival_ns: int, clock: int) -> None:
        """Lends bytes that the transport received; read them all before lending more.

        Args:
            data: must not change until then.
            arrival_ns: when they came, by the clock `clock` (``enum dpb_clock``).
            clock: see above.
        """
        self._arrival = (arrival_ns, clock)
        if self._websocket is not None and self._websocket.state is State.CONNECTING:
            answer = self._websocket.shake(bytes(data))
            if isinstance(answer, Closed):
                self.rest_ns = answer.rest_ms * 1_000_000
                self._fail(answer.reason)
            if not isinstance(answer, tuple):
                data = b""
            else:
                data = answer[1]
                assert isinstance(answer[0], Opened)
                self._subscribe()
        self.feed.lend(data, arrival_ns, clock)

    def read_into(self, messages: Any, records: Any, room: int = BURST) -> int:
        """Writes transactions as `TxFeed.read_into` does, and sees to everything else.

        Returns:
            How many. 0 means that everything has been read, unless :attr:`more` is set.
        """
        self.more = False
        for _ in range(_STEPS):
            if self.phase is Phase.FAILED:
                break
            self.filling = self._to_fill is not None
            count = self.feed.read_into(messages, records, room)
            if self.feed.event is not None:
                self._see_to(self.feed.event)
            if count and (self._fetching or self.filling):
                self._note_bodies(records, count)
            if self._to_fill is not None and not self.feed.more:
                self.hole.pool_refused += self.feed.entries - self._to_fill
                self._to_fill = None
            self.more = self.feed.more or bool(self._texts or self._wanted)
            if count:
                return count
            if self.feed.more:
                continue
            self._fetch()
            if not self._texts:
                break
            # From the pool: lent when the stream is read to its end, so that they do not mix.
            text, form = self._texts.pop(0)
            self._to_fill = self.feed.entries
            self.feed.lend_text(text, *self._arrival, form=form)
            self.more = True
        self.more = self.more and self.phase is not Phase.FAILED
        self.filling = False
        return 0

    @property
    def direct(self) -> bool:
        """All that is expected are transactions: a native loop may read :attr:`feed` itself."""
        return (
            self.phase is Phase.LIVE
            and self.style != "hashes"
            and self._to_fill is None
            and not (self._fetching or self._wanted or self._texts)
        )

    def resume(self, event: Any, arrival_ns: int, clock: int) -> None:
        """Sees to what a native loop met in :attr:`feed`; :meth:`read_into` reads on from there.

        Args:
            event: ``struct bw_txfeed_event``.
            arrival_ns: when those bytes came, by the clock `clock`.
            clock: see above.
        """
        self._arrival = (arrival_ns, clock)
        told = self.feed.tell(event)
        if told is not None and self.phase is not Phase.FAILED:
            self._see_to(told)

    def receive(self, data: bytes, arrival_ns: int = 0, clock: int = 0) -> Iterator[Transaction]:
        """:meth:`lend` and :meth:`read_into` for tools and tests: the transactions, copied."""
        self.lend(data, arrival_ns, clock)
        messages = ffi.new("struct bw_message[]", BURST)
        while True:
            records = ffi.new("struct bw_tx[]", BURST)
            count = self.read_into(messages, records)
            for i in range(count):
                raw = bytes(ffi.buffer(messages[i].data, messages[i].len))
                yield Transaction(records + i, raw, records)
            if not count and not self.more:
                return

    def end(self, reason: str) -> None:
        """The transport ended; `reason` says how."""
        self._fail(reason)

    @property
    def parted(self) -> bool:
        """The last word is said, or to be sent: goodbye, or that a rule was broken."""
        return self._websocket is not None and self._websocket.state is State.CLOSED

    def leave(self) -> None:
        """Says goodbye (RFC 6455, 7.4.1: 1001) in what is to be sent: this side goes away."""
        if self._websocket is not None and self._websocket.state is State.OPEN:
            self._websocket.close(1001)

    def tick(self, now_mono_ns: int) -> None:
        """What depends on time: asks for signs of life, gives up on what does not come."""
        timing = self._timing
        if self.phase is Phase.FAILED:
            return
        if self._since_ns is None:
            self._since_ns = now_mono_ns
        late = now_mono_ns - self._since_ns > timing.answer_ns
        if self.phase is not Phase.LIVE:
            if late:
                self._fail(f"not subscribed within {timing.answer_ns / 1e9:g} s")
            return
        if self.hole.waiting and not self.hole.asked:
            self._ask_pool()
        if "head" in self._asked.values():
            # Its answer may stand behind a pool of megabytes: bytes are life enough meanwhile.
            if (heard := self.feed.lent_bytes) != self._heard:
                self._heard, self._since_ns = heard, now_mono_ns
            elif late:
                self._fail(f"no sign of life within {timing.answer_ns / 1e9:g} s")
        elif now_mono_ns >= self._next_question_ns:
            self._since_ns = now_mono_ns
            self._heard = self.feed.lent_bytes
            self._next_question_ns = now_mono_ns + timing.ask_every_ns
            if self.style == "bloxroute":
                self._asked[0] = "head"
                assert self._websocket is not None
                self._websocket.ping()
            else:
                self._ask("eth_blockNumber", [], "head")
        for wanted, (number, asked_ns) in list(self._fetching.items()):
            if asked_ns == 0:
                self._fetching[wanted] = (number, now_mono_ns)
            elif now_mono_ns - asked_ns > timing.fetch_ns:
                self.counts.unanswered += 1
                self._fetched_hash.pop(number, None)
                del self._fetching[wanted]

    # What is not a transaction.

    def _see_to(self, event: Announced | Other | ControlFrame) -> None:
        if isinstance(event, Announced):
            if self._known is not None and self._known(event.hash):
                self.counts.known += 1
            elif event.hash not in self._fetching:
                if len(self._fetching) + len(self._wanted) < _MOST_WANTED:
                    self._wanted[event.hash] = None
                else:
                    self.counts.unanswered += 1
        elif isinstance(event, Other):
            self._answered(event.text)
        else:
            assert self._websocket is not None
            for said in self._websocket.take(event.event):
                if isinstance(said, Closed):
                    by = "closed by the other side" if said.by_peer else "failed"
                    self._fail(f"{by}: {said.code} {said.reason}".rstrip())
                elif isinstance(said, Message):
                    self.feed.lend_text(said.data, *self._arrival)
                else:
                    self._asked.pop(0, None)  # the answer to our ping

    def _answered(self, text: bytes) -> None:
        try:
            answer = _answer.decode(text)  # its depth and its UTF-8 the native reader has checked
        except (msgspec.MsgspecError, ValueError):
            self.counts.unclear += 1
            return
        if answer.method is not None:
            self._told_of_block(text)
            return
        number = answer.id if isinstance(answer.id, int) else -1
        about = self._asked.pop(number, "")
        wanted = self._fetched_hash.pop(number, None)
        if answer.error is not None or not memoryview(answer.result).nbytes:
            self.counts.errors += 1
            self.last_error = printable(text)
            if about == "subscribe":
                self._fail(f"the subscription was refused: {self.last_error}")
            elif about.startswith("hole:"):
                self._ask_hole(self.hole.refused(about[5:]))
            elif wanted is not None:
                self.counts.denied += 1
                self._fetching.pop(wanted, None)
            return
        if about == "subscribe":
            self.phase = Phase.LIVE
            if self.on_block is not None and self.style != "bloxroute":
                self._ask("eth_subscribe", ["newHeads"], "blocks")
        elif about == "blocks":
            self._follows_blocks = True
        elif about == "head":
            number = _quantity(answer.result)
            self._ask_hole(self.hole.head(number))
            self._miss_blocks(number)
        elif about.startswith("hole:"):
            if (form := self.hole.answered(about[5:], answer.result)) is not None:
                self._texts.append((answer.result, form))
        elif wanted is not None:
            self.counts.vanished += 1
            self._fetching.pop(wanted, None)
        else:
            self.counts.unclear += 1

    def _told_of_block(self, text: bytes) -> None:
        """A notification that is no transaction: a block, or of a subscription that we know not."""
        block = block_of(text) if self.on_block is not None else None
        if block is None:
            self.counts.unclear += 1
            return
        self.counts.blocks += 1
        self._blocks_told = True
        assert self.on_block is not None
        self.on_block(block)

    def _miss_blocks(self, number: int) -> None:
        """Finds out that the subscription to blocks has gone mute, while the node goes on."""
        if self._blocks_told or not self._follows_blocks:
            self._heads_untold = 0
        elif number > self._head_before > 0:
            self._heads_untold += 1  # of one the word may still be on its way
            if self._heads_untold > 1:
                self._fail(f"told of no block up to {number:,}, though it has them")
        self._head_before, self._blocks_told = number, False

    def _ask_pool(self) -> None:
        self._ask_hole(self.hole.ask())

    def _ask_hole(self, questions: list[tuple[str, list[Any], str]]) -> None:
        for method, params, about in questions:
            self._ask(method, params, f"hole:{about}")

    def _fetch(self) -> None:
        """Asks for the bodies of what was announced, as many at once as were."""
        wanted_now, self._wanted = list(self._wanted), {}
        for at in range(0, len(wanted_now), self._timing.batch):
            batch = wanted_now[at : at + self._timing.batch]
            requests = []
            for wanted in batch:
                self._number += 1
                self._fetching[wanted] = (self._number, 0)
                self._fetched_hash[self._number] = wanted
                params = ["0x" + wanted.hex()]
                requests.append(_request(self._number, "eth_getTransactionByHash", params))
            self.counts.fetched += len(batch)
            self._send(b"[" + b",".join(requests) + b"]")

    def _note_bodies(self, records: Any, count: int) -> None:
        if self._to_fill is not None:
            self.hole.filled += count
            self._to_fill += count
        for i in range(count):
            number, _ = self._fetching.pop(bytes(records[i].hash), (-1, 0))
            self._fetched_hash.pop(number, None)

    def _fail(self, why: str) -> None:
        if self.phase is Phase.FAILED:
            return
        self.phase = Phase.FAILED
        self.why = why
        self.more = False
        self.counts.failures += 1
        self.counts.unanswered += len(self._fetching) + len(self._wanted)
        self.hole.broken(sum(about == "hole:block" for about in self._asked.values()))

    # What was seen.

    def stats(self) -> dict[str, Any]:
        """Counters over all connections; refused texts by cause."""
        return self.feed.stats() | asdict(self.counts) | {"hole": self.hole.stats()}


def _request(number: int, method: str, params: list[Any]) -> bytes:
    call = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
    return json.dumps(call, separators=(",", ":")).encode()


def _quantity(text: msgspec.Raw) -> int:
    try:
        return quantity_of(msgspec.json.decode(text, type=str))
    except (msgspec.MsgspecError, ValueError):
        return 0
