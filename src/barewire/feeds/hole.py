"""What was missed while a connection was down, as far as the node can still tell.

After a reconnect the node's pool is read: what was announced in between and is still pending is
there. What was announced and mined in between is not: the blocks of that time say how much it can
have been at most. Not all of it need have been announced; some transactions never are.

A question stays open over further breaks until it is answered, refused, or not answered in time:
then it is counted.
"""

from __future__ import annotations

from typing import Any

import msgspec

from barewire.feeds.txfeed import Form
from barewire.untrusted import bytes_of, decode_json, quantity_of

__all__ = ["MAX_BLOCKS", "Hole"]

MAX_BLOCKS = 64
"""Blocks that are to be looked through at most; more are only counted."""

TRIES = 3
"""How often a block is asked for that a node does not know, though it told of it."""

BROKEN_READINGS = 2
"""Connections in a row that may break while the pool is on its way; then it is left alone once."""

_ENTRY_BYTES = 1024
"""Of JSON for a transaction in a pool, as an estimate: a transfer takes 700, a swap 1,500."""

_SIGNED_TYPES = 5
"""EIP-2718 types below this are signed transactions; a chain's own (deposits) are above."""

_FARTHEST = 1 << 32
"""Blocks that a chain can have grown by since it was last asked; a century of ten a second."""

_MOST_HASHES = 1 << 14  # of one block; 2^14 transfers take 344 million gas

Question = tuple[str, list[Any], str]
"""Method, parameters, and what it is about."""


class _PoolStatus(msgspec.Struct):
    """geth's `txpool_status`."""

    pending: str | int = 0
    queued: str | int = 0


class _Mined(msgspec.Struct):
    """A transaction in a block, as far as it is looked at."""

    hash: str
    type: str = "0x0"


class _Block(msgspec.Struct):
    transactions: list[_Mined | str] = []
    number: str | None = None


_status = msgspec.json.Decoder(_PoolStatus)
_block = msgspec.json.Decoder(_Block | None)


class Hole:
    """The holes of one source.

    Args:
        supported: the other side has a pool that can be asked.
        max_message: bytes of one answer at most; a pool that takes more cannot be read.

    Attributes:
        waiting: a connection broke, and its hole has not been looked into.
        asked: the pool has been asked, on this connection.
        filled: transactions read from the pool.
        pool_refused: things in the pool that are no transactions, or not those they say they are.
        pools_unread: breaks of which the pending block alone could be read, not the pool.
        unfillable: breaks whose hole could not be looked into: nothing there to ask.
        blocks_unseen: blocks mined in a hole that were not looked through.
        mined: hashes mined in holes; whoever knows what was seen takes them from here
            (:meth:`take_mined`).
    """

    def __init__(self, *, supported: bool, max_message: int = 16 << 20) -> None:
        self._supported = supported
        self._max_message = max_message
        self.waiting = False
        self.asked = False
        self.holes = 0
        self.filled = 0
        self.pool_refused = 0
        self.pools_unread = 0
        self.unfillable = 0
        self.blocks_unseen = 0
        self.mined: list[bytes] = []
        self._head = 0  # the highest block that was told of; 0: none
        self._broken = False  # since then, so that what follows it is a hole
        self._blocks: dict[int, int] = {}  # still to be looked through, and how often asked for
        self._block_asked: int | None = None
        self._own_types: bool | None = None  # the chain has them; None: not known yet
        self._reading = ""  # what of the pool is on its way: "pool", "pending", or nothing
        self._too_big: set[str] = set()  # of these
        self._broken_readings = 0

    def begin(self) -> None:
        """A connection begins."""
        self.asked = False

    def broken(self, *, too_big: bool = False) -> None:
        """A connection broke; what it had told of the head is where the hole begins.

        Args:
            too_big: because a message was longer than is taken.
        """
        if self._reading == "pool":
            self._broken_readings += 1
        if too_big and self._reading:
            self._too_big.add(self._reading)
        elif too_big and self._blocks.pop(self._block_asked or 0, None) is not None:
            self.blocks_unseen += 1
        self._reading = ""
        self._block_asked = None
        self.waiting = self._broken = True

    def ask(self) -> list[Question]:
        """What to ask, now that a connection is there again."""
        self.asked = True
        self.holes += 1
        if not self._supported:
            self.waiting = False
            self.unfillable += 1
            return []
        if "pool" in self._too_big:  # it may have become smaller
            return [("txpool_status", [], "status")]
        if self._broken_readings >= BROKEN_READINGS:
            self._broken_readings = 0
            return self._ask_pending()
        return self._ask_content()

    def _ask_content(self) -> list[Question]:
        self._reading = "pool"
        return [("txpool_content", [], "pool")]

    def _ask_pending(self) -> list[Question]:
        """Better than nothing, where the pool is closed, too big, or does not come."""
        if "pending" in self._too_big:
            return self._give_up()
        self._reading = "pending"
        return [("eth_getBlockByNumber", ["pending", True], "pending")]

    def _give_up(self) -> list[Question]:
        self._reading = ""
        self.waiting = False
        self.unfillable += 1
        return []

    def refused(self, about: str, *, too_big: bool = False) -> list[Question]:
        """The node does not answer such questions, or not in time, or at too great a length."""
        if about in ("pool", "pending") and too_big:
            self._too_big.add(about)
        if about == "pool":
            self._broken_readings = 0
        if about in ("pool", "status"):
            return self._ask_pending()
        if about == "pending":
            return self._give_up()
        return self._block_is_told(None)

    def head(self, number: int) -> list[Question]:
        """The node's head is block `number`; gives the first question about the blocks missed.

        One further ahead than any chain grows is not believed. One further back than a
        reorganisation or a node behind the others takes it is of a chain begun anew.
        """
        if self._head and number - self._head > _FARTHEST:
            return self._ask_block()
        begun_anew = number < self._head - MAX_BLOCKS
        if begun_anew:
            self._head, self._blocks = max(0, number - MAX_BLOCKS), {}
        if self._broken and (self._head or begun_anew):
            first = max(self._head + 1, number - MAX_BLOCKS + 1)
            self._blocks |= dict.fromkeys(range(first, number + 1), 0)
            self.blocks_unseen += max(0, first - self._head - 1)
            while len(self._blocks) > MAX_BLOCKS:
                del self._blocks[min(self._blocks)]
                self.blocks_unseen += 1
        self._broken = False
        self._head = max(self._head, number)
        return self._ask_block()

    def _ask_block(self) -> list[Question]:
        """One after the other, and in full only where a chain has transactions of its own."""
        if self._block_asked is not None or not self._blocks:
            return []
        self._block_asked = number = min(self._blocks)
        return [("eth_getBlockByNumber", [hex(number), self._own_types is not False], "block")]

    def _block_is_told(self, hashes: list[bytes] | None) -> list[Question]:
        """The block that was asked for is looked through, or (None) cannot be."""
        if self._block_asked is not None and self._blocks.pop(self._block_asked, None) is not None:
            if hashes is None:
                self.blocks_unseen += 1
            else:
                self.mined += hashes
        self._block_asked = None
        return self._ask_block()

    def answered(
        self, about: str, result: bytes | bytearray | msgspec.Raw
    ) -> tuple[Form | None, list[Question]]:
        """Takes an answer.

        Returns:
            As what it is to be read for its transactions (`TxFeed.lend_text`), and what to ask
            next.
        """
        if about in ("pool", "pending") and bytes(memoryview(result)[:1]) != b"{":
            return None, self.refused(about)
        if about == "pool":
            self.waiting, self._reading = False, ""
            self._too_big.clear()
            self._broken_readings = 0
            return "pool", []
        if about == "pending":
            self.waiting, self._reading = False, ""
            self.pools_unread += 1
            return "block", []
        try:
            if about == "status":
                status = decode_json(_status.decode, memoryview(result))
                entries = sum(
                    count if isinstance(count, int) else quantity_of(count)
                    for count in (status.pending, status.queued)
                )
                fits = entries * _ENTRY_BYTES <= self._max_message
                return None, self._ask_content() if fits else self._ask_pending()
            block = decode_json(_block.decode, memoryview(result))
            if block is None or not self._is_asked_for(block):
                return None, self._unknown_block()
            return None, self._block_is_told(self._signed(block))
        except (msgspec.MsgspecError, ValueError):
            return None, self.refused(about)

    def _is_asked_for(self, block: _Block) -> bool:
        """Behind one address there may be a node that answers with the newest it has."""
        return block.number is None or quantity_of(block.number) == self._block_asked

    def _signed(self, block: _Block) -> list[bytes]:
        """Hashes of what somebody signed, each once, not the chain's own transactions.

        Raises:
            ValueError: it is no block.
        """
        if len(block.transactions) > _MOST_HASHES:
            raise ValueError(f"{len(block.transactions)} transactions in a block")
        hashes, own = [], 0
        for one in block.transactions:
            if isinstance(one, str):
                hashes.append(bytes_of(one, 32))
            elif quantity_of(one.type) < _SIGNED_TYPES:
                hashes.append(bytes_of(one.hash, 32))
            else:
                own += 1
        if own or hashes:
            self._own_types = own > 0
        return list(dict.fromkeys(hashes))

    def _unknown_block(self) -> list[Question]:
        """Behind one address there may be several nodes, and one that is not there yet."""
        number = self._block_asked
        if number is None or number not in self._blocks:
            return self._block_is_told(None)
        self._blocks[number] += 1
        if self._blocks[number] >= TRIES:
            return self._block_is_told(None)
        self._block_asked = None  # with the next head
        return []

    def take_mined(self) -> list[bytes]:
        """Hashes mined in holes that were not taken yet."""
        mined, self.mined = self.mined, []
        return mined

    def stats(self) -> dict[str, int]:
        """Counters."""
        names = (
            "holes",
            "filled",
            "pool_refused",
            "pools_unread",
            "unfillable",
            "blocks_unseen",
        )
        return {name: getattr(self, name) for name in names}
