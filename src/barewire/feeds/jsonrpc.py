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
from barewire.errors import BarewireError
from barewire.feeds.blocks import Block, block_of
from barewire.feeds.bodies import Bodies
from barewire.feeds.hole import Hole
from barewire.feeds.session import Phase
from barewire.feeds.txfeed import (
    BURST,
    WORK_BYTES,
    Announced,
    ControlFrame,
    Form,
    Other,
    TxFeed,
)
from barewire.feeds.websocket import Closed, Message, Opened, Pong, State, WebSocket
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
        batch: hashes fetched in one request, at most; less is learnt.
        mute_ns: a subscription that told nothing for so long, while the chain grew, is not believed
            to live: the connection is ended. Twice as long after each time that this brought
            nothing either, as there are chains that announce nothing; an hour at most.
    """

    answer_ns: int = 10_000_000_000
    ask_every_ns: int = 5_000_000_000
    fetch_ns: int = 2_000_000_000
    batch: int = 100
    mute_ns: int = 30_000_000_000


@dataclass(slots=True)
class Counts:
    """What came about, over all connections of one source.

    Attributes:
        connections: begun. failures: and ended.
        errors: error answers to anything.
        unclear: JSON that was neither expected nor a transaction.
        blocks: new blocks that the node told of.
    """

    connections: int = 0
    failures: int = 0
    errors: int = 0
    unclear: int = 0
    blocks: int = 0


_NULL = msgspec.Raw(b"null")
_Text = bytes | bytearray | msgspec.Raw


class _Answer(msgspec.Struct):
    """What all answers have; `result` is read by whoever asked."""

    id: int | str | None = None
    result: msgspec.Raw = msgspec.Raw(b"")
    error: msgspec.Raw = _NULL
    method: str | None = None
    params: msgspec.Raw = msgspec.Raw(b"")


class _Several(msgspec.Struct):
    """The parameters of a notification that tells of several at once."""

    result: list[msgspec.Raw]


_STEPS = 64
"""Things that are no transactions that one call sees to: the loop has other sources."""
_LONGEST_MUTE_NS = 3_600_000_000_000
_MUTE_BLOCKS = 2
_TOO_BIG = 1009  # RFC 6455, 7.4.1
_FILLING: tuple[Form, ...] = ("pool", "block")
_EMPTY_BYTES = 256
"""The longest text of a pool with nothing in it."""
_NOTIFICATION = b'{"method":"eth_subscription","params":{"result":%b}}'
_BODY = b'{"jsonrpc":"2.0","id":%d,"method":"eth_getTransactionByHash","params":["0x%b"]}'
_LONGEST_NUMBER = 16  # digits

_Said = Iterator[Message | Pong | Closed | None]
"""What a frame or a long answer comes to; None wherever that is enough for one turn."""

_answer = msgspec.json.Decoder(_Answer)
_several = msgspec.json.Decoder(_Several)


class PendingTransactions:
    """One source of pending transactions, over one connection after the other.

    Args:
        url: ``ws://``, ``wss://``, or ``ipc://PATH`` for JSON without frames.
        decoder: judges the envelopes.
        style: see `Style`.
        headers: of the WebSocket handshake; credentials go here.
        source: number of the source, in the records.
        trusted: marks the records as from a trusted source.
        heard: told of a hash that was announced without its transaction, and when it arrived, by
            which clock; whether it is known, so that its body is not fetched.
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
        bodies: what became of hashes that were announced alone.
        last_error: the last error answer.
        on_block: called with each new block that the node tells of. Set before the connection, it
            has heads subscribed to as well, but of bloXroute's gateway, which tells of none.

    Raises:
        BarewireError: bloXroute's subscription is not to be had over a Unix socket.
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
        heard: Callable[[bytes, int, int], bool] | None = None,
        timing: Timing | None = None,
        max_message: int = 16 << 20,
        deflate: bool = False,
    ) -> None:
        if style == "bloxroute" and url.startswith("ipc:"):
            raise BarewireError(f"{url} with newTxs", hint="bloXroute's gateway speaks WebSocket")
        self.url = url
        self.style: Style = style
        self._timing = timing or Timing()
        self.counts = Counts()
        self.bodies = Bodies(batch=self._timing.batch, answer_ns=self._timing.fetch_ns, heard=heard)
        self.hole = Hole(supported=style != "bloxroute", max_message=max_message)
        self._chain_id = decoder.rules.chain_id
        self._patience_ns = self._timing.mute_ns
        self._texts: list[tuple[_Text, Form]] = []  # to be read when the stream is
        self._text: tuple[_Text, Form] | None = None  # the one that is being read
        self.last_error = ""
        self.on_block: Callable[[Block], None] | None = None
        self._number = 0
        self._heard = self._heard_texts = self._too_long = 0
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
        if self._text is not None:  # the break came in the middle of it
            self._texts.insert(0, self._text)
            self._text = None
        self._before = (0, 0, 0)  # entries of pools, those filled, and the chain's own
        self._hole_since_ns: int | None = None
        self._told = -1
        self._mute_since_ns = 0
        self._unfinished: _Said | None = None  # seen to in part
        self._mute_head = self._head = 0
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
        begun = self.feed.walked_bytes
        for _ in range(_STEPS):
            if self.phase is Phase.FAILED:
                break
            if self._unfinished is not None:
                self._go_on(self._unfinished)
                if self._unfinished is not None:
                    self.more = True
                    break
            self.filling = self._text is not None and self._text[1] in _FILLING
            count = self.feed.read_into(messages, records, room)
            if self.feed.event is not None:
                self._see_to(self.feed.event)
            if count and (self.bodies.expected or self.filling):
                self._note_bodies(records, count)
            if self._text is not None and not self.feed.more:
                self._text_ends()
            self.more = self.feed.more or bool(self._texts) or self.bodies.due
            self.more = self.more or self._unfinished is not None
            if count:
                return count
            if self.feed.walked_bytes - begun >= WORK_BYTES:
                break
            if self.feed.more:
                continue
            self._fetch()
            if not self._texts:
                break
            # From the pool: lent when the stream is read to its end, so that they do not mix.
            self._text = text, form = self._texts.pop(0)
            self._before = self._filled_so_far()
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
            and self._text is None
            and not (self.bodies.expected or self.bodies.due or self._texts)
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
        # An answer may stand behind a pool of megabytes: bytes are life enough meanwhile. Pings are
        # not: whoever sends them may be a proxy of a node that hangs.
        websocket = self._websocket
        heard = self.feed.lent_bytes if websocket is None else websocket.payload_bytes
        texts = self.feed.texts
        comes, ends = heard > self._heard, texts > self._heard_texts
        self._heard, self._heard_texts = heard, texts
        self._watch_hole(now_mono_ns, under_way=comes and not ends)
        if "head" in self._asked.values():
            if comes or ends:
                self._since_ns = now_mono_ns
            elif late:
                self._fail(f"no sign of life within {timing.answer_ns / 1e9:g} s")
        elif now_mono_ns >= self._next_question_ns:
            self._since_ns = now_mono_ns
            self._next_question_ns = now_mono_ns + timing.ask_every_ns
            if self.style == "bloxroute":
                self._asked[0] = "head"
                assert websocket is not None
                websocket.ping()
            else:
                self._ask("eth_blockNumber", [], "head")
        self.bodies.tick(now_mono_ns)
        self._fetch()
        self._watch_for_silence(now_mono_ns)

    def _watch_hole(self, now_mono_ns: int, *, under_way: bool) -> None:
        """Gives up on questions about a hole that nobody answers.

        Args:
            now_mono_ns: a clock reading.
            under_way: a long message is coming in, which may be the answer.
        """
        open_ = [number for number, about in self._asked.items() if about.startswith("hole:")]
        if not open_:
            self._hole_since_ns = None
        elif self._hole_since_ns is None or under_way:
            self._hole_since_ns = now_mono_ns
        elif now_mono_ns - self._hole_since_ns > self._timing.answer_ns:
            self._hole_since_ns = None
            for number in open_:
                self._ask_hole(self.hole.refused(self._asked.pop(number)[5:]))
        if self._websocket is None and self.feed.too_long != self._too_long:  # it is passed over
            self._too_long = self.feed.too_long
            for number in open_:
                if (about := self._asked.pop(number, "")) != "":
                    self._ask_hole(self.hole.refused(about[5:], too_big=True))

    def _watch_for_silence(self, now_mono_ns: int) -> None:
        """Ends the connection where the chain grows and the subscription tells nothing."""
        told = self.feed.told - self.hole.filled
        if told != self._told:
            if self._told >= 0:
                self._patience_ns = self._timing.mute_ns
            self._told, self._mute_since_ns, self._mute_head = told, now_mono_ns, self._head
            return
        self._mute_head = self._mute_head or self._head
        grown = self._head - self._mute_head
        silent_ns = now_mono_ns - self._mute_since_ns
        if grown >= _MUTE_BLOCKS and silent_ns > self._patience_ns:
            self._patience_ns = min(2 * self._patience_ns, _LONGEST_MUTE_NS)
            self._fail(
                f"mute: nothing announced for {silent_ns / 1e9:.0f} s, in which the chain grew by "
                f"{grown:,} blocks"
            )

    # What is not a transaction.

    def _see_to(self, event: Announced | Other | ControlFrame) -> None:
        if isinstance(event, Announced):
            self.bodies.announced(event.hash, *self._arrival)
        elif isinstance(event, Other):
            self._answered(event)
        else:
            assert self._websocket is not None
            self._go_on(self._websocket.take(event.event))

    def _go_on(self, what: _Said) -> None:
        """Goes on with a frame or an answer, of which a later turn may have to see to the rest."""
        self._unfinished = None
        for said in what:
            if isinstance(said, Closed):
                by = "closed by the other side" if said.by_peer else "failed"
                self._fail(
                    f"{by}: {said.code} {said.reason}".rstrip(),
                    too_big=said.code == _TOO_BIG and not said.by_peer,
                )
            elif isinstance(said, Message):
                self.feed.lend_text(said.data, *self._arrival)
            elif said is None:
                self._unfinished = what
                return
            else:
                self._asked.pop(0, None)  # the answer to our ping

    def _answered(self, told: Other) -> None:
        text = told.text
        try:
            # Its depth and its UTF-8 the native reader has checked; what is too long is empty.
            answer = _answer.decode(text)
        except (msgspec.MsgspecError, ValueError):
            self.counts.unclear += 1
            return
        if answer.method is not None:
            self._notified(text, answer.params)
            return
        number = _number(answer.id)
        about = self._asked.pop(number, "")
        if bytes(answer.error) != b"null" or not memoryview(answer.result).nbytes:
            self.counts.errors += 1
            self.last_error = printable(text)
            if about == "subscribe":
                self._fail(f"the subscription was refused: {self.last_error}")
            elif about.startswith("hole:"):
                self._ask_hole(self.hole.refused(about[5:]))
            elif about == "" and not self.bodies.not_told(number, "denied") and answer.id is None:
                self.bodies.batch_refused()
            return
        if told.result is not None:
            self._long_answer(number, about, told.result)
        elif about == "subscribe":
            if not _is_subscription(answer.result):
                self._fail(f"the subscription was refused: {printable(text)}")
                return
            self.phase = Phase.LIVE
            if self.style != "bloxroute":
                self._ask("eth_chainId", [], "chain")
                if self.on_block is not None:
                    self._ask("eth_subscribe", ["newHeads"], "blocks")
        elif about == "blocks":
            self._follows_blocks = _is_subscription(answer.result)
            self.counts.errors += not self._follows_blocks
        elif about == "chain":
            self._is_of_chain(_quantity(answer.result))
        elif about == "head":
            if head := _quantity(answer.result):
                self._head = max(self._head, head)
                self._ask_hole(self.hole.head(head))
                self._miss_blocks(head)
        elif about.startswith("hole:"):
            self._hole_answered(about, answer.result)
        elif not self.bodies.not_told(number, "vanished"):
            self.counts.unclear += 1

    def _long_answer(self, number: int, about: str, result: memoryview) -> None:
        """An answer of more than is decoded at once: the native reader takes a pool in steps."""
        if about in ("hole:pool", "hole:pending"):
            self._go_on(self._keep(about, result))
        elif about.startswith("hole:"):
            self._ask_hole(self.hole.refused(about[5:]))
        elif not self.bodies.not_told(number, "vanished"):
            self.counts.unclear += 1

    def _keep(self, about: str, result: memoryview) -> Iterator[None]:
        """Copies an answer in steps: it lies in memory of the stream, and has to outlast it."""
        kept = bytearray()
        while len(kept) < len(result):
            kept += result[len(kept) : len(kept) + WORK_BYTES]
            yield None
        self._hole_answered(about, kept)

    def _hole_answered(self, about: str, result: _Text) -> None:
        form, questions = self.hole.answered(about[5:], result)
        if form is not None:
            self._texts.append((result, form))
        self._ask_hole(questions)

    def _notified(self, text: Any, params: msgspec.Raw) -> None:
        """A notification that is no transaction: a block, several in one, or none that we know."""
        block = block_of(text) if self.on_block is not None else None
        if block is not None:
            self.counts.blocks += 1
            self._blocks_told = True
            assert self.on_block is not None
            self.on_block(block)
            return
        try:
            several = _several.decode(params).result
        except (msgspec.MsgspecError, ValueError):
            self.counts.unclear += 1
            return
        for at in range(0, len(several), BURST):
            told = b",".join(_NOTIFICATION % one for one in several[at : at + BURST])
            self._texts.append((b"[" + told + b"]", "stream"))

    def _is_of_chain(self, chain_id: int) -> None:
        """The node says of which chain it is; another than before, or than configured, is none."""
        if chain_id and self._chain_id and chain_id != self._chain_id:
            self._fail(f"the node is of chain {chain_id}, not {self._chain_id}")
        self._chain_id = self._chain_id or chain_id

    def _text_ends(self) -> None:
        """What was read beside the stream is read to its end."""
        assert self._text is not None
        (text, form), self._text = self._text, None
        if form not in _FILLING:
            return
        before = zip(self._filled_so_far(), self._before, strict=True)
        entries, filled, own = (now - then for now, then in before)
        self.hole.pool_refused += entries - filled - own
        if form == "pool" and not entries and len(memoryview(text)) > _EMPTY_BYTES:
            self._ask_hole(self.hole.refused("pool"))  # whatever it is, it is none

    def _filled_so_far(self) -> tuple[int, int, int]:
        return self.feed.entries, self.hole.filled, self.feed.own_types

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
        for batch in self.bodies.take_due(self._number):
            self._number = batch[-1][0]
            requests = [_BODY % (number, wanted.hex().encode()) for number, wanted in batch]
            # Alone where that is the limit: there are servers that take no batch at all.
            self._send(requests[0] if len(requests) == 1 else b"[%b]" % b",".join(requests))

    def _note_bodies(self, records: Any, count: int) -> None:
        if self.filling:
            self.hole.filled += count
        for i in range(count):
            record = records[i]
            if (announced := self.bodies.came(bytes(record.hash))) is not None:
                record.known_ns, record.known_clock = announced

    def _fail(self, why: str, *, too_big: bool = False) -> None:
        if self.phase is Phase.FAILED:
            return
        self.phase = Phase.FAILED
        self.why = why
        self.more = False
        self.counts.failures += 1
        self.bodies.broken()
        self.hole.broken(too_big=too_big)

    # What was seen.

    def stats(self) -> dict[str, Any]:
        """Counters over all connections; refused texts by cause."""
        counted = asdict(self.counts) | asdict(self.bodies.counts)
        return self.feed.stats() | counted | {"hole": self.hole.stats()}


def _request(number: int, method: str, params: list[Any]) -> bytes:
    call = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
    return json.dumps(call, separators=(",", ":")).encode()


def _number(answered: object) -> int:
    """The number of a question, also where a gateway made a string of it; -1 of none of ours."""
    if isinstance(answered, str) and answered.isdecimal() and len(answered) < _LONGEST_NUMBER:
        return int(answered)
    return answered if isinstance(answered, int) else -1


def _is_subscription(result: msgspec.Raw) -> bool:
    """Whether it names a subscription: a string, a number with some; not null, not false."""
    return bytes(memoryview(result)[:1]) in b'"-0123456789' and bytes(result) != b'""'


def _quantity(text: msgspec.Raw) -> int:
    try:
        return quantity_of(msgspec.json.decode(text, type=str))
    except (msgspec.MsgspecError, ValueError):
        return 0
