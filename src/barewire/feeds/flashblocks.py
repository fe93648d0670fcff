"""Flashblocks: the pre-confirmations of OP-stack chains, parts of a block every 200 ms.

    stream = Flashblocks("ws://10.0.0.4:1111/ws", decoder)
    transport.send(stream.data_to_send())
    for part in stream.receive(data, arrival_ns, clock):
        ...                            # Flashblock: block number, index, its new transactions

The format is that of rollup-boost's `FlashblocksPayloadV1` and of Base's documentation
("Flashblocks WebSocket reference"): JSON objects of which each holds what is new since the one
before: `index` counts within a block, index 0 also says which block it is (`base`),
`diff.transactions` are raw envelopes. A builder may give a block up: then another payload begins
with the same number.

Base's public endpoint compresses its messages with Brotli, which this package does not bring: hand
in a function that undoes it. Envelopes of the chain's own type (0x7e, deposits) are counted and not
handed on, since they carry no signature. What is missing: `metadata` is not read (its publishers
call it unstable), and the stream has no way to ask for what was missed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec

from barewire.feeds.session import MessageSession
from barewire.mempool.decoder import Decoder
from barewire.mempool.record import Transaction
from barewire.untrusted import bytes_of, decode_json, quantity_of

__all__ = ["Flashblock", "FlashblockCounts", "Flashblocks"]

_DEPOSIT = 0x7E


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
    payload_id: str
    index: int
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
class FlashblockCounts:
    """What came.

    Attributes:
        parts: handed on. blocks: begun. duplicates: heard before, or out of order.
        missing: indices that were left out. headless: payloads whose index 0 was not heard.
        replaced: blocks that began again under another payload.
        transactions: handed on. deposits: of the chain itself. refused: not accepted.
        deflated: messages that needed a decompressor and had none.
    """

    parts: int = 0
    blocks: int = 0
    duplicates: int = 0
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
        self._payload_id = ""
        self._next_index = 0
        self._base: _Base | None = None
        self._latest = -1
        self._replaced = False
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
            payload = decode_json(_decode, plain)
            raws = [bytes_of(text) for text in payload.diff.transactions]
            gas_used = quantity_of(payload.diff.gas_used)
            block_hash = bytes_of(payload.diff.block_hash)
            if payload.base is not None:
                quantity_of(payload.base.block_number)
                quantity_of(payload.base.base_fee_per_gas, 256)
        except (msgspec.MsgspecError, ValueError):
            self._misunderstood(plain)
            return
        if not self._in_order(payload):
            return
        base = self._base
        yield Flashblock(
            payload.payload_id,
            payload.index,
            quantity_of(base.block_number) if base else None,
            quantity_of(base.base_fee_per_gas, 256) if base else None,
            gas_used,
            block_hash,
            self._transactions(raws, arrival_ns, clock),
            self._replaced,
        )

    def _in_order(self, payload: _Payload) -> bool:
        """Keeps the books on payloads and indices; False for what was heard before."""
        if payload.payload_id != self._payload_id:
            self._payload_id = payload.payload_id
            self._next_index = 0
            self._base = None
            self._replaced = False
            self.counts.blocks += 1
            self.counts.headless += payload.base is None
        elif payload.index < self._next_index:
            self.counts.duplicates += 1
            return False
        if payload.base is not None:
            self._base = payload.base
            number = quantity_of(payload.base.block_number)
            self._replaced = number <= self._latest
            self.counts.replaced += self._replaced
            self._latest = number
        self.counts.missing += payload.index - self._next_index
        self._next_index = payload.index + 1
        self.counts.parts += 1
        return True

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
        )
        accepted = tuple(tx for tx in burst if isinstance(tx, Transaction))
        self.counts.deposits += len(raws) - len(signed)
        self.counts.refused += len(signed) - len(accepted)
        self.counts.transactions += len(accepted)
        return accepted
