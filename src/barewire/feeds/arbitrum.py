"""Arbitrum's sequencer feed: ordered messages with the signed transactions in them.

    relay = ArbitrumRelay("ws://10.0.0.3:9642/feed", decoder, chain_id=42161)
    transport.send(relay.data_to_send())
    for message in relay.receive(data, arrival_ns, clock):
        ...                            # Sequenced: number, kind, transactions

The format is that of Nitro (its documentation "How to read the sequencer feed", and
``broadcaster/message``, ``arbos/arbostypes/incomingmessage.go`` and ``arbos/parse_l2.go`` in the
repository OffchainLabs/nitro): JSON over WebSocket, each message numbered, its `l2Msg` in base64.
An L2 message is a byte that says what it is and then a signed transaction, or a batch of L2
messages, each behind eight bytes of length, nested 16 deep at most.

Numbers have no gaps. What was missed is asked for when the connection begins anew: the relay keeps
a while of the past and starts from the number in a header. A gap within a connection is reported at
once (:attr:`ArbitrumRelay.behind`), so that its owner may reconnect. What a relay sends of the past
is marked (`Transaction.origin` "resent"): the first broadcast of a connection, those behind it as
long as they hold more than one message, and every number that had been missing.

The sequencer can take back what it has told (a reorganisation): then a number comes again with
other contents, and all that was told from it on is void (:attr:`Sequenced.reorganised`).

What is not done: the sequencer's signature over each message is not checked (connect to a relay of
your own, or over TLS); messages that begin on the parent chain (deposits, retryable tickets,
reports) are handed on without a transaction, as nobody signed one.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

from barewire._native import lib
from barewire.feeds.left_out import LeftOut
from barewire.feeds.session import MessageSession, decode_message
from barewire.feeds.websocket import Opened, WebSocket
from barewire.mempool.decoder import DecodedBurst, Decoder
from barewire.mempool.record import Transaction
from barewire.untrusted import bytes_of, decode_json

__all__ = ["KINDS", "ArbitrumRelay", "L2Error", "Sequenced", "signed_transactions"]

KINDS = {
    3: "l2-message",
    6: "end-of-block",
    7: "l2-funded-by-l1",
    8: "rollup-event",
    9: "submit-retryable",
    10: "batch-for-gas-estimation",
    11: "initialize",
    12: "eth-deposit",
    13: "batch-posting-report",
    0xFF: "invalid",
}
"""What an L1IncomingMessage is, by `header.kind`."""

_BATCH, _SIGNED, _HEARTBEAT = 3, 4, 6
_UNSIGNED = (0, 1)  # by whoever sent them through the parent chain
_MAX_MESSAGE = 256 * 1024
_MAX_DEPTH = 16
_CLIENT_VERSION = "2"


class L2Error(Exception):
    """An L2 message that Nitro would not execute; ``args[0]`` says why."""


def signed_transactions(l2_message: bytes, depth: int = 0) -> list[bytes]:
    """The signed envelopes in an L2 message, in their order.

    Raises:
        L2Error: it is none. As in Nitro the whole message is void then, not a part of it.
    """
    if len(l2_message) > _MAX_MESSAGE:
        raise L2Error("longer than 256 KiB")
    if not l2_message:
        raise L2Error("empty")
    kind, body = l2_message[0], l2_message[1:]
    if kind == _SIGNED:
        return [body]
    if kind == _BATCH:
        if depth >= _MAX_DEPTH:
            raise L2Error("batches nested deeper than 16")
        envelopes: list[bytes] = []
        at = 0
        # A length that does not fit ends the batch, it does not spoil it.
        while at + 8 <= len(body):
            size = int.from_bytes(body[at : at + 8], "big")
            at += 8
            if size > _MAX_MESSAGE or size > len(body) - at:
                break
            envelopes += signed_transactions(body[at : at + size], depth + 1)
            at += size
        return envelopes
    if kind in _UNSIGNED:
        return []
    if kind == _HEARTBEAT:
        raise L2Error("a heartbeat, which there are no more")
    raise L2Error(f"of unknown kind {kind}")


class _Header(msgspec.Struct):
    kind: int
    block_number: int = msgspec.field(name="blockNumber", default=0)
    timestamp: int = 0


class _Incoming(msgspec.Struct):
    header: _Header
    l2_message: bytes | None = msgspec.field(name="l2Msg", default=None)  # base64 is undone


class _Metadata(msgspec.Struct):
    message: _Incoming
    delayed_read: int = msgspec.field(name="delayedMessagesRead", default=0)


_Number = Annotated[int, msgspec.Meta(ge=0)]  # of 64 bits, which msgspec cannot say


class _Numbered(msgspec.Struct):
    """What is left of a message whose contents are none."""

    sequence: _Number = msgspec.field(name="sequenceNumber")


class _FeedMessage(msgspec.Struct):
    sequence: _Number = msgspec.field(name="sequenceNumber")
    message: _Metadata
    block_hash: str | None = msgspec.field(name="blockHash", default=None)


class _Confirmed(msgspec.Struct):
    sequence: _Number = msgspec.field(name="sequenceNumber")


class _Broadcast(msgspec.Struct):
    version: int
    messages: list[msgspec.Raw] | None = None
    confirmed: _Confirmed | None = msgspec.field(
        name="confirmedSequenceNumberMessage", default=None
    )


_decode = msgspec.json.Decoder(_Broadcast).decode
_decode_message = msgspec.json.Decoder(_FeedMessage).decode
_decode_number = msgspec.json.Decoder(_Numbered).decode

_REMEMBERED = 1 << 16  # numbers, at least, to tell a copy from a reorganisation
_KEPT = 100_000  # numbers that a relay may still have of the past
_MOST_MALFORMED = 64  # of one broadcast; what is behind them is not read
_LATEST_S = 1 << 33  # of a clock that nanoseconds in 64 bits can tell
_FARTHEST = 1_000_000  # ahead of what comes next: more than a relay keeps, within a connection


_Place = Literal["next", "recovered", "earlier", "reorganised", "duplicate", "unbelievable"]


@dataclass(frozen=True, slots=True)
class Sequenced:
    """One message of the sequence.

    Attributes:
        sequence: its number; also that of the L2 block, less the chain's first.
        kind: see `KINDS`; a number that is none as "kind-N".
        l1_block: block of the parent chain that the sequencer saw. timestamp_s: its clock.
        block_hash: of the L2 block that it makes, where the sequencer says so.
        transactions: in their order; those that the decoder refused are left out, and counted.
        reorganised: this number had been told with other contents: what was handed on from it on is
            void.
    """

    sequence: int
    kind: str
    l1_block: int
    timestamp_s: int
    block_hash: bytes | None
    transactions: tuple[Transaction, ...]
    reorganised: bool


@dataclass(slots=True)
class RelayCounts:
    """What came.

    Attributes:
        messages: of the sequence, each number once, or again after a reorganisation.
        duplicates: heard before. earlier: below the first number that was heard.
        reorganisations: numbers that came again with other contents.
        malformed: messages that are none; a number of which only that can be read is not missing.
        transactions: in them. refused: not accepted by the decoder (its counters say why).
        void: L2 messages that are none. last_void: why the last of them is.
        gaps: numbers that were left out. recovered: of these, came after a reconnect.
        lost: of these, no longer kept by the relay.
    """

    messages: int = 0
    duplicates: int = 0
    earlier: int = 0
    reorganisations: int = 0
    malformed: int = 0
    transactions: int = 0
    refused: int = 0
    void: int = 0
    last_void: str = ""
    gaps: int = 0
    recovered: int = 0
    lost: int = 0


class ArbitrumRelay(MessageSession[Sequenced]):
    """One relay's feed.

    Args:
        url: of the relay.
        decoder: judges the transactions; rules without `pool`, as they have been sequenced.
        chain_id: of the chain; a relay that says it is another is not listened to. 0: any.
        start: first number wanted; None: whatever the relay begins with.
        source: number of the source, in the records.
        trusted: marks the records as from a trusted source.
        dictionary: with it compression is offered under Nitro's name for it
            (``Arbitrum-permessage-deflate``), with this static dictionary. Nitro's is in its
            repository (wsbroadcastserver/dictionary.go); it is not part of this package.

    Attributes:
        next_sequence: the number that comes next; None before the first.
        confirmed: the highest number known to be confirmed on the parent chain, or None.
        counts: see `RelayCounts`.
    """

    def __init__(
        self,
        url: str,
        decoder: Decoder,
        *,
        chain_id: int = 0,
        start: int | None = None,
        source: int = 0,
        trusted: bool = False,
        dictionary: bytes = b"",
        max_message: int = 16 << 20,
    ) -> None:
        self._decoder = decoder
        self._chain_id = chain_id
        self._source = source
        self._trusted = trusted
        self._dictionary = dictionary
        self._missing = LeftOut()
        self._contents: dict[int, int] = {}  # of numbers heard
        self._known: list[int] = []  # these numbers, in ascending order
        self._first: int | None = None  # heard
        self._least = start or 0  # wanted
        self._resumed = False
        self._catching_up = True
        self.next_sequence = start
        self.confirmed: int | None = None
        self.counts = RelayCounts()
        super().__init__(url, max_message=max_message)

    @property
    def behind(self) -> bool:
        """Numbers are missing that a reconnect may bring."""
        return bool(self._missing) and not self._resumed

    @property
    def wanted(self) -> int | None:
        """The number from which the next connection asks for the past."""
        return self._missing.least if self._missing else self.next_sequence

    def connect(self) -> None:
        """Begins anew, from the first number that is missing."""
        super().connect()
        self._resumed = self._catching_up = True

    def _headers(self) -> dict[str, str]:
        headers = {"Arbitrum-Feed-Client-Version": _CLIENT_VERSION}
        if self.wanted is not None:
            headers["Arbitrum-Requested-Sequence-Number"] = str(self.wanted)
        return headers

    def _socket(self) -> WebSocket:
        return WebSocket(
            self.url,
            headers=self._headers(),
            max_message=self._max_message,
            deflate=bool(self._dictionary),
            deflate_name="Arbitrum-permessage-deflate",
            dictionary=self._dictionary,
        )

    def _agreed(self, opened: Opened) -> str:
        said = opened.headers.get("arbitrum-chain-id", "")
        if self._chain_id and said and said != str(self._chain_id):
            return f"the relay is of chain {said}, not {self._chain_id}"
        return ""

    def _message(self, data: bytes, arrival_ns: int, clock: int) -> Iterator[Sequenced]:
        try:
            broadcast = decode_message(_decode, data)
        except msgspec.MsgspecError:
            self._misunderstood(data)
            return
        if broadcast.version != 1:
            self._misunderstood(data)
            return
        if broadcast.confirmed is not None and not broadcast.confirmed.sequence >> 64:
            self.confirmed = max(self.confirmed or 0, broadcast.confirmed.sequence)
        entries = broadcast.messages or ()
        if entries:
            self._catching_up = self._resumed or (self._catching_up and len(entries) > 1)
        malformed = 0
        for at, raw in enumerate(entries):
            try:
                entry = decode_json(_decode_message, bytes(raw))
                _check_widths(entry.message.message.header)
            except msgspec.MsgspecError:
                self._malformed(bytes(raw))
                malformed += 1
                if malformed < _MOST_MALFORMED:
                    continue
                self.counts.malformed += len(entries) - at - 1
                return
            was = self._place(entry.sequence, _contents(entry))
            if was in ("next", "recovered", "earlier", "reorganised"):
                late = was in ("recovered", "earlier") or self._catching_up
                yield self._sequenced(
                    entry, arrival_ns, clock, late=late, reorganised=was == "reorganised"
                )

    def _malformed(self, raw: bytes) -> None:
        """A message that is none: its number, where it has one, is not asked for again for ever."""
        self.counts.malformed += 1
        self.last_unclear = raw[:1000]
        with contextlib.suppress(msgspec.MsgspecError):
            self._place(decode_json(_decode_number, raw).sequence, None)

    def _place(self, sequence: int, contents: int | None) -> _Place:
        """Keeps the books on numbers: missing, late, heard before, told anew.

        Args:
            sequence: the number.
            contents: what tells them from others; None: there are none.
        """
        expected = self.next_sequence
        far = not self._resumed and expected is not None and sequence - expected > _FARTHEST
        if far or sequence >> 64:
            self.counts.malformed += 1
            return "unbelievable"
        if self._resumed:
            # What the relay would have sent first, had it been kept, is lost.
            self._resumed = False
            self.counts.lost += self._missing.drop_below(sequence)
        place: _Place = "next"
        if expected is None or sequence >= expected:
            self._note_gap(sequence if expected is None else expected, sequence)
            self.next_sequence = sequence + 1
        elif self._missing.remove(sequence):
            self.counts.recovered += 1
            place = "recovered"
        elif sequence in self._contents:
            if contents is None or self._contents[sequence] == contents:
                self.counts.duplicates += 1
                return "duplicate"
            self._take_back(sequence)
            place = "reorganised"
        elif self._least <= sequence < (self._first or 0):
            self.counts.earlier += 1
            place = "earlier"
        else:  # too long ago to tell
            self.counts.duplicates += 1
            return "duplicate"
        self._first = sequence if self._first is None else self._first
        self._remember(sequence, contents)
        self.counts.messages += 1
        return place

    def _remember(self, sequence: int, contents: int | None) -> None:
        if contents is None:
            return
        self._contents[sequence] = contents
        insort(self._known, sequence)
        if len(self._known) == 2 * _REMEMBERED:
            self._forget(0, _REMEMBERED)

    def _forget(self, start: int, stop: int) -> None:
        for number in self._known[start:stop]:
            del self._contents[number]
        del self._known[start:stop]

    def _take_back(self, sequence: int) -> None:
        """All that was told from this number on is void; what follows it is told anew."""
        self.counts.reorganisations += 1
        self._forget(bisect_left(self._known, sequence), len(self._known))
        self._missing.drop_from(sequence)
        self.next_sequence = sequence + 1

    def _note_gap(self, expected: int, sequence: int) -> None:
        self.counts.gaps += sequence - expected
        self._missing.add(expected, sequence)
        self.counts.lost += self._missing.drop_below(sequence - _KEPT)

    def _sequenced(
        self, entry: _FeedMessage, arrival_ns: int, clock: int, *, late: bool, reorganised: bool
    ) -> Sequenced:
        header = entry.message.message.header
        envelopes: list[bytes] = []
        if header.kind == 3:
            try:
                envelopes = signed_transactions(entry.message.message.l2_message or b"")
            except L2Error as error:
                self.counts.void += 1
                self.counts.last_void = f"{entry.sequence}: {error}"
        burst: DecodedBurst = self._decoder.decode_burst(
            envelopes,
            source=self._source,
            arrival_ns=arrival_ns,
            arrival_clock=clock,
            trusted=self._trusted,
            origin="resent" if late else "announced",
        )
        if late and 0 < header.timestamp < _LATEST_S:
            for i in range(len(envelopes)):
                burst.records[i].known_ns = header.timestamp * 1_000_000_000
                burst.records[i].known_clock = lib.DPB_CLOCK_REAL
        # Types that Nitro refuses wherever it meets them (parse_l2.go) make no transaction.
        accepted = tuple(tx for tx in burst if isinstance(tx, Transaction) and tx.type != 3)
        self.counts.transactions += len(accepted)
        self.counts.refused += len(envelopes) - len(accepted)
        block_hash = entry.block_hash
        return Sequenced(
            entry.sequence,
            KINDS.get(header.kind, f"kind-{header.kind}"),
            header.block_number,
            header.timestamp,
            _hash(block_hash) if block_hash else None,
            accepted,
            reorganised,
        )


def _check_widths(header: _Header) -> None:
    """Numbers are as long as in Nitro, which msgspec cannot say.

    Raises:
        msgspec.ValidationError: one is not.
    """
    if header.kind >> 8 or header.block_number >> 64 or header.timestamp >> 64:
        raise msgspec.ValidationError("a number out of range")


def _contents(entry: _FeedMessage) -> int:
    """What tells a message from another of the same number."""
    message = entry.message.message
    return hash(
        (
            message.header.kind,
            message.header.block_number,
            message.header.timestamp,
            message.l2_message,
            entry.message.delayed_read,
        )
    )


def _hash(text: str) -> bytes | None:
    try:
        return bytes_of(text, 32)
    except ValueError:
        return None
