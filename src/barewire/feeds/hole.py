"""What was missed while a connection was down, as far as the node can still tell.

After a reconnect the node's pool is read: what was announced in between and is still pending is
there. What was announced and mined in between is not: the blocks of that time say how much it can
have been at most. Not all of it need have been announced; some transactions never are.
"""

from __future__ import annotations

from typing import Any

import msgspec

from barewire.mempool.record import Origin
from barewire.untrusted import bytes_of, decode_json

__all__ = ["MAX_BLOCKS", "Hole"]

MAX_BLOCKS = 64
"""Blocks that are looked through after one reconnect; more are only counted."""

Question = tuple[str, list[Any], str]
"""Method, parameters, and what it is about."""


_Part = dict[str, dict[str, msgspec.Raw]]  # by sender, by nonce


class _Pool(msgspec.Struct):
    """geth's `txpool_content`; what is `queued` lies behind a gap in its sender's nonces."""

    pending: _Part = {}
    queued: _Part = {}


class _Block(msgspec.Struct):
    transactions: list[msgspec.Raw] = []


_pool = msgspec.json.Decoder(_Pool)
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

    def answered(self, about: str, result: bytes) -> list[tuple[Origin, list[bytes]]]:
        """Takes an answer; gives the transaction objects in it, as JSON, by how they came."""
        try:
            if about == "pool":
                pool = decode_json(_pool.decode, result)
                self.waiting = False
                parts: dict[Origin, _Part] = {"pool": pool.pending, "queued": pool.queued}
                return [
                    (origin, [bytes(body) for of in part.values() for body in of.values()])
                    for origin, part in parts.items()
                ]
            block = decode_json(_block.decode, result)
            if about == "pending":
                self.waiting = False
                return [("block", [bytes(body) for body in block.transactions])]
            self.mined += [
                bytes_of(msgspec.json.decode(text, type=str), 32) for text in block.transactions
            ]
        except (msgspec.MsgspecError, ValueError):
            self.refused("pending" if about == "pool" else about)
        return []

    def take_mined(self) -> list[bytes]:
        """Hashes mined in holes that were not taken yet."""
        mined, self.mined = self.mined, []
        return mined

    def stats(self) -> dict[str, int]:
        """Counters."""
        names = ("holes", "filled", "pool_refused", "unfillable", "blocks_unseen")
        return {name: getattr(self, name) for name in names}
