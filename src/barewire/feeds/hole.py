"""What was missed while a connection was down, as far as the node can still tell.

After a reconnect the node's pool is read: what was announced in between and is still pending is
there. What was announced and mined in between is not: the blocks of that time say how much it can
have been at most. Not all of it need have been announced; some transactions never are.
"""

from __future__ import annotations

from typing import Any

import msgspec

from barewire.feeds.txfeed import Form
from barewire.untrusted import bytes_of, decode_json

__all__ = ["MAX_BLOCKS", "Hole"]

MAX_BLOCKS = 64
"""Blocks that are looked through after one reconnect; more are only counted."""
_MOST_HASHES = 1 << 14  # of one block; 2^14 transfers take 344 million gas

Question = tuple[str, list[Any], str]
"""Method, parameters, and what it is about."""


class _Block(msgspec.Struct):
    transactions: list[msgspec.Raw] = []


_block = msgspec.json.Decoder(_Block)


class Hole:
    """The holes of one source.

    Args:
        supported: the other side has a pool that can be asked.

    Attributes:
        waiting: a connection broke, and its hole has not been looked into.
        asked: the pool has been asked, on this connection.
        filled: transactions read from the pool.
        pool_refused: things in the pool that are no transactions, or not those they say they are.
        unfillable: breaks whose hole could not be looked into: nothing there to ask.
        blocks_unseen: blocks mined in a hole that were not looked through.
        mined: hashes mined in holes; whoever knows what was seen takes them from here
            (:meth:`take_mined`).
    """

    def __init__(self, *, supported: bool) -> None:
        self._supported = supported
        self.waiting = False
        self.asked = False
        self.holes = 0
        self.filled = 0
        self.pool_refused = 0
        self.unfillable = 0
        self.blocks_unseen = 0
        self.mined: list[bytes] = []
        self._head = 0
        self._head_before = 0

    def begin(self) -> None:
        """A connection begins."""
        self.asked = False

    def broken(self, unanswered: int = 0) -> None:
        """A connection broke; what it had told of the head is where the hole begins.

        Args:
            unanswered: questions about blocks that were still open.
        """
        self.blocks_unseen += unanswered
        if not self.waiting:
            self.waiting = True
            self._head_before = self._head
        self._head = 0

    def ask(self) -> list[Question]:
        """What to ask, now that a connection is there again."""
        self.asked = True
        self.holes += 1
        if not self._supported:
            self.waiting = False
            self.unfillable += 1
            return []
        return [("txpool_content", [], "pool")]

    def refused(self, about: str) -> list[Question]:
        """The node does not answer such questions."""
        if about == "pool":  # not everyone opens txpool_; the pending block is better than nothing
            return [("eth_getBlockByNumber", ["pending", True], "pending")]
        if about == "pending":
            self.waiting = False
            self.unfillable += 1
        else:
            self.blocks_unseen += 1
        return []

    def head(self, number: int) -> list[Question]:
        """The node's head is block `number`; asks for the blocks of the hole, once."""
        before, self._head = self._head_before, number
        self._head_before = 0
        if not before or number <= before:
            return []
        first = max(before + 1, number - MAX_BLOCKS + 1)
        self.blocks_unseen += first - before - 1
        return [
            ("eth_getBlockByNumber", [hex(n), False], "block") for n in range(first, number + 1)
        ]

    def answered(self, about: str, result: msgspec.Raw) -> Form | None:
        """Takes an answer; what is to be read in it for its transactions (`TxFeed.lend_text`)."""
        if about in ("pool", "pending"):
            self.waiting = False
            if bytes(memoryview(result)[:1]) == b"{":
                return "pool" if about == "pool" else "block"
            self.unfillable += 1
            return None
        try:
            block = decode_json(_block.decode, memoryview(result))
            if len(block.transactions) > _MOST_HASHES:
                self.refused(about)
                return None
            self.mined += [
                bytes_of(msgspec.json.decode(text, type=str), 32) for text in block.transactions
            ]
        except (msgspec.MsgspecError, ValueError):
            self.refused(about)
        return None

    def take_mined(self) -> list[bytes]:
        """Hashes mined in holes that were not taken yet."""
        mined, self.mined = self.mined, []
        return mined

    def stats(self) -> dict[str, int]:
        """Counters."""
        names = ("holes", "filled", "pool_refused", "unfillable", "blocks_unseen")
        return {name: getattr(self, name) for name in names}
