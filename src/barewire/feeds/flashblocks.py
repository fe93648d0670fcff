"""Flashblocks: the pre-confirmations of OP-stack chains, parts of a block every 200 ms.

    stream = Flashblocks("ws://10.0.0.4:1111/ws", decoder)
    transport.send(stream.data_to_send())
    for part in stream.receive(data, arrival_ns, clock):
        ...                            # Flashblock: block number, index, its new transactions

The format is that of rollup-boost's `FlashblocksPayloadV1` and of Base's documentation
("Flashblocks WebSocket reference"): JSON objects of which each holds what is new since the one
before: `index` counts within a block, index 0 also says which block it is (`base`),
`diff.transactions` are raw envelopes. A builder may give a block up: then another payload begins
with the same number. Parts can come late, and again, also behind the first of the next block (a
proxy has two upstreams): each is handed on once, with the block that it is of.

Base's public endpoint compresses its messages with Brotli, which this package does not bring: hand
in a function that undoes it. Envelopes of the chain's own type (0x7e, deposits) are counted and not
handed on, since they carry no signature. What is missing: `metadata` is not read (its publishers
call it unstable), and the stream has no way to ask for what was missed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Annotated

import msgspec

from barewire.feeds.session import MessageSession, decode_message
from barewire.mempool.decoder import Decoder
from barewire.mempool.record import Transaction
from barewire.untrusted import bytes_of, quantity_of

__all__ = ["Flashblock", "FlashblockCounts", "Flashblocks"]

_DEPOSIT = 0x7E
_PAYLOADS = 16  # remembered: a block takes ten parts, and late ones are of the last blocks


class _Base(msgspec.Struct):
    block_number: str
    parent_hash: str
    timestamp: str
    base_fee_per_gas: str = "0x0"


class _Diff(msgspec.Struct):
    transactions: list[str] = []
    gas_used: str = "0x0"
    block_hash: str = "0x"


class _Payload(msgspec.Struct):
    payload_id: Annotated[str, msgspec.Meta(max_length=66)]  # of 8 bytes, as yet
    index: Annotated[int, msgspec.Meta(ge=0, lt=1 << 16)]
    diff: _Diff
    base: _Base | None = None


_decode = msgspec.json.Decoder(_Payload).decode


@dataclass(frozen=True, slots=True)
class Flashblock:
    """One part of a block that is being built.

    Attributes:
        payload_id: of the block's building. index: of this part in it.
        block_number: None where the part with index 0 was not heard.
        base_fee_wei: of the block, likewise.
        gas_used: by the block up to here.
        block_hash: it would have, were it to end here.
        transactions: new in this part, in their order; refused ones are left out, and counted.
        replaced: another payload for this block was heard before: its parts are void.
    """

    payload_id: str
    index: int
    block_number: int | None
    base_fee_wei: int | None
    gas_used: int
    block_hash: bytes
    transactions: tuple[Transaction, ...]
    replaced: bool


@dataclass(slots=True)
class _Building:
    """A payload, as far as it was heard."""

    heard: set[int] = field(default_factory=set)
    next_index: int = 0
    base: _Base | None = None
    replaced: bool = False  # another was heard for its block before
    void: bool = False  # another was heard after it


@dataclass(slots=True)
class FlashblockCounts:
    """What came.

    Attributes:
        parts: handed on. blocks: begun. duplicates: heard before. late: of the parts, behind one
            that follows them. void: of a payload that was replaced by then, and not handed on.
        missing: indices that were left out and did not come late. headless: payloads whose index 0
            was not heard, so far.
        replaced: blocks that began again under another payload.
        transactions: handed on. deposits: of the chain itself. refused: not accepted.
        deflated: messages that needed a decompressor and had none.
    """

    parts: int = 0
    blocks: int = 0
    duplicates: int = 0
    late: int = 0
    void: int = 0
    missing: int = 0
    headless: int = 0
    replaced: int = 0
    transactions: int = 0
    deposits: int = 0
    refused: int = 0
    deflated: int = 0


class Flashblocks(MessageSession[Flashblock]):
    """One stream.

    Args:
        url: of rollup-boost or of a proxy of it.
        decoder: judges the transactions; rules without `pool`, as they have been chosen.
        decompress: undoes the compression of binary messages that are not JSON, for example
            ``brotli.decompress``; may raise anything.
        source: number of the source, in the records.
        trusted: marks the records as from a trusted source.

    Attributes:
        counts: see `FlashblockCounts`.
    """

    def __init__(
        self,
        url: str,
        decoder: Decoder,
        *,
        decompress: Callable[[bytes], bytes] | None = None,
        source: int = 0,
        trusted: bool = False,
        max_message: int = 16 << 20,
    ) -> None:
        self._decoder = decoder
        self._decompress = decompress
        self._source = source
        self._trusted = trusted
        self._payloads: dict[str, _Building] = {}  # the last ones
        self.counts = FlashblockCounts()
        super().__init__(url, max_message=max_message)

    def _message(self, data: bytes, arrival_ns: int, clock: int) -> Iterator[Flashblock]:
        plain = data
        if not data.lstrip().startswith(b"{"):
            if self._decompress is None:
                self.counts.deflated += 1
                return
            try:
                plain = self._decompress(data)
            except Exception:  # noqa: BLE001 - whatever the caller's function raises
                self._misunderstood(data)
                return
        try:
            payload = decode_message(_decode, plain)
            raws = [bytes_of(text) for text in payload.diff.transactions]
            gas_used = quantity_of(payload.diff.gas_used)
            block_hash = bytes_of(payload.diff.block_hash)
            if payload.base is not None:
                quantity_of(payload.base.block_number)
                quantity_of(payload.base.base_fee_per_gas, 256)
        except (msgspec.MsgspecError, ValueError):
            self._misunderstood(plain)
            return
        building = self._book(payload)
        if building is None:
            return
        base = building.base
        yield Flashblock(
            payload.payload_id,
            payload.index,
            quantity_of(base.block_number) if base else None,
            quantity_of(base.base_fee_per_gas, 256) if base else None,
            gas_used,
            block_hash,
            self._transactions(raws, arrival_ns, clock),
            building.replaced,
        )

    def _book(self, payload: _Payload) -> _Building | None:
        """Keeps the books on payloads and indices; None for what was heard before, or is void."""
        building = self._payloads.get(payload.payload_id)
        if building is None:
            building = self._payloads[payload.payload_id] = _Building()
            self.counts.blocks += 1
            self.counts.headless += payload.index > 0
            if len(self._payloads) > _PAYLOADS:
                del self._payloads[next(iter(self._payloads))]
        if payload.index in building.heard:
            self.counts.duplicates += 1
            return None
        building.heard.add(payload.index)
        if payload.base is not None and building.base is None:
            self._begin(building, payload.base)
        if payload.index < building.next_index:
            self.counts.missing -= 1
            self.counts.headless -= payload.index == 0
            self.counts.late += 1
        else:
            self.counts.missing += payload.index - building.next_index
            self.counts.late += building is not self._latest() and not building.void
            building.next_index = payload.index + 1
        if building.void:
            self.counts.void += 1
            return None
        self.counts.parts += 1
        return building

    def _begin(self, building: _Building, base: _Base) -> None:
        """Its block is known: what was built for that or a later one before it is void."""
        building.base = base
        number = int(base.block_number, 16)
        before = True
        for other in self._payloads.values():
            if other is building:
                before = False
            elif other.base is None:
                continue
            elif before and int(other.base.block_number, 16) >= number:
                other.void = building.replaced = True
            elif not before and int(other.base.block_number, 16) <= number:
                building.void = other.replaced = True
        self.counts.replaced += building.replaced or building.void

    def _latest(self) -> _Building:
        """The payload that began last."""
        return self._payloads[next(reversed(self._payloads))]

    def _transactions(
        self, raws: list[bytes], arrival_ns: int, clock: int
    ) -> tuple[Transaction, ...]:
        signed = [raw for raw in raws if raw[:1] != bytes([_DEPOSIT])]
        burst = self._decoder.decode_burst(
            signed,
            source=self._source,
            arrival_ns=arrival_ns,
            arrival_clock=clock,
            trusted=self._trusted,
            origin="block",
        )
        accepted = tuple(tx for tx in burst if isinstance(tx, Transaction))
        self.counts.deposits += len(raws) - len(signed)
        self.counts.refused += len(signed) - len(accepted)
        self.counts.transactions += len(accepted)
        return accepted
