"""Making one gapless stream of several broken ones, without a socket.

A stitch is told what arrives, live or fetched, in any order and any number of times, and says what
the reader has to be told. It keeps the chain as the reader believes it to be. So a block or a log
is told once for each time that it becomes part of the chain, however often it is heard of; and what
a reorganisation took away is taken back, whether a node says so or it was found out afterwards.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["DEEPEST", "HeadStitch", "LogStitch", "Loss", "OnceStitch"]

DEEPEST = 256
"""Blocks that are remembered: a reorganisation deeper than this is not walked back. The deepest of
a public chain in use so far had 157 (Polygon PoS, February 2023)."""
_REMEMBERED = 100_000
_NOT_IN_HEADER = ("transactions", "uncles", "size", "totalDifficulty", "withdrawals")


@dataclass(frozen=True, slots=True)
class Loss:
    """Something a subscription could not recover.

    Attributes:
        what: ``blocks``, ``logs``, ``pending`` or ``overrun``.
        first: first block number, or start of the outage in monotonic nanoseconds for pending.
        last: last block number, or its end.
        why: one line for people.
    """

    what: str
    first: int
    last: int
    why: str


def _number(item: Mapping[str, Any], key: str) -> int:
    return int(item[key], 16)


class HeadStitch:
    """newHeads: each block once for each time that it becomes part of the chain, none missing.

    Attributes:
        last: number of the newest block of the chain as told, -1 before the first.
    """

    def __init__(self) -> None:
        self.last = -1
        self._chain: dict[int, str] = {}

    def begin(self, header: Mapping[str, Any]) -> None:
        """The chain is told from the block after `header` on."""
        self.last = _number(header, "number")
        self._chain = {self.last: header["hash"]}

    def missing(self, number: int) -> range:
        """The blocks between the newest one and `number`, both excluded."""
        if self.last < 0:
            return range(0)
        return range(self.last + 1, number)

    def has_parent(self, header: Mapping[str, Any]) -> bool:
        """Whether the block before `header` is part of the chain as told."""
        before = self._chain.get(_number(header, "number") - 1)
        return before is not None and before == header.get("parentHash")

    def has(self, header: Mapping[str, Any]) -> bool:
        """Whether `header` is part of the chain as told."""
        known = self._chain.get(_number(header, "number"))
        return known is not None and known == header["hash"]

    def knows(self, number: int) -> bool:
        """Whether the chain as told reaches back to a block of this number."""
        return number in self._chain

    def take(self, header: dict[str, Any]) -> dict[str, Any] | None:
        """`header` as a node pushes it, or None when it is part of the chain already.

        What stood at its number and after it is no longer.
        """
        if self.has(header):
            return None
        number = _number(header, "number")
        for gone in range(number + 1, self.last + 1):
            self._chain.pop(gone, None)
        self._chain[number] = header["hash"]
        self._chain.pop(number - DEEPEST, None)
        self.last = number
        return {k: v for k, v in header.items() if k not in _NOT_IN_HEADER}


class LogStitch:
    """logs: each once for each time that its block becomes part of the chain.

    Two kinds of knowledge meet here. Live logs come as a node pushes them. A sweep is the whole
    truth of one node about a range of blocks; it brings what was not pushed and takes back what is
    no longer part of the chain. An anchor is the hash of a block up to which all was swept: as long
    as it is part of the chain, so is everything before it, and that is what was told. A live log of
    a block that was swept says that the chain is another one there: the anchors from there on go,
    or a chain that comes back to them would be thought told.

    Attributes:
        covered: all logs up to this block number were told, -1 while unknown.
        turns: how often something was taken back; a sweep begun before a turn is out of date.
    """

    def __init__(self) -> None:
        self.covered = -1
        self.turns = 0
        self._blocks: dict[int, tuple[Any, dict[Any, dict[str, Any]]]] = {}
        self._held = 0
        self._anchors: dict[int, str] = {}  # ascending
        self._floor = -1  # what happened up to here is no longer remembered
        self._begun = -1
        self._before: dict[int, str] = {}  # hashes of the last blocks from before the stream began
        self._strange = _Seen()

    def begin(self, header: Mapping[str, Any]) -> None:
        """Logs are told from the block after `header` on."""
        number = self.covered = self._begun = _number(header, "number")
        self._anchors = {number: header["hash"]}
        if number and isinstance(header.get("parentHash"), str):
            self._anchors = {number - 1: header["parentHash"], number: header["hash"]}
        self._before = dict(self._anchors)

    def anchor(self, number: int) -> str | None:
        """The hash of block `number`, where it is an anchor."""
        return self._anchors.get(number)

    def anchors(self, number: int) -> list[int]:
        """The numbers of the anchors up to block `number`, ascending."""
        return [n for n in self._anchors if n <= number]

    # Live

    def take(self, log: dict[str, Any]) -> list[dict[str, Any]]:
        """What to tell now that a node pushed `log`."""
        if log.get("blockNumber") is None:  # of the pending block
            return [log]
        number, index = _number(log, "blockNumber"), log.get("logIndex")
        if number <= self._floor:
            return []
        block, held = self._blocks.get(number, (None, {}))
        here = bool(held) and block == log.get("blockHash")
        if log.get("removed"):
            if here and index in held:
                self._drop(number, index)
                self.turns += 1
                self._sweep_again(number)
                return [log]
            # Of a block from before the stream began, it is news; else it was not told, or was
            # taken back already.
            key = (log.get("blockHash"), index)
            return [log] if number <= self._begun and self._strange.is_new(key) else []
        if (here and index in held) or self._before.get(number) == log.get("blockHash", ""):
            return []
        # A number has one block: who tells of another one has left the former behind.
        gone = list(self._take_back(number)) if held and not here else []
        self._sweep_again(number)
        self._keep(number, log)
        return [*gone, log]

    def _sweep_again(self, number: int) -> None:
        if self._begun < number <= self.covered:
            self.covered = number - 1
            self._anchors = {n: h for n, h in self._anchors.items() if n < number}

    def _keep(self, number: int, log: dict[str, Any]) -> None:
        _, held = self._blocks.setdefault(number, (log.get("blockHash"), {}))
        held[log.get("logIndex")] = log
        self._held += 1
        while self._held > _REMEMBERED and len(self._blocks) > 1:
            self._forget(min(self._blocks))

    def _drop(self, number: int, index: Any) -> None:
        held = self._blocks[number][1]
        del held[index]
        self._held -= 1
        if not held:
            del self._blocks[number]

    def _take_back(self, number: int) -> Iterator[dict[str, Any]]:
        _, held = self._blocks.pop(number)
        self._held -= len(held)
        self.turns += 1
        for log in reversed(list(held.values())):
            yield log | {"removed": True}

    def _forget(self, number: int) -> None:
        _, held = self._blocks.pop(number, (None, {}))
        self._held -= len(held)
        self._floor = max(self._floor, number)

    # Swept

    def unclear(self, fork: int, last: int, found: Sequence[Mapping[str, Any]]) -> list[int]:
        """Blocks in (fork, last] with told logs of which `found` has none: are they still there?"""
        there = {_number(log, "blockNumber") for log in found}
        return [n for n in self._blocks if fork < n <= last and n not in there]

    def left_out(
        self, fork: int, last: int, found: Sequence[Mapping[str, Any]], hashes: Mapping[int, str]
    ) -> list[int]:
        """Blocks in (fork, last] that are still there, with told logs that `found` leaves out."""
        told = {(log.get("blockHash"), log.get("logIndex")) for log in found}
        return [
            n
            for n, (block, held) in self._blocks.items()
            if fork < n <= last
            and (n not in hashes or hashes[n] == block)
            and any((block, index) not in told for index in held)
            and (n in hashes or any(block == of for of, _ in told))
        ]

    def swept(
        self,
        fork: int,
        head: Mapping[str, Any],
        found: Sequence[dict[str, Any]],
        hashes: Mapping[int, str],
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """What to take back and what to tell, after all logs of the blocks (fork, head] came.

        Args:
            fork: the newest block of the chain as told that is still part of it.
            head: header of the last block that was swept.
            found: its logs and those of the blocks before, back to `fork`.
            hashes: hash of each block that `unclear` named.
        """
        last = _number(head, "number")
        truth = dict(hashes) | {_number(log, "blockNumber"): log.get("blockHash") for log in found}
        gone: list[dict[str, Any]] = []
        for number in sorted((n for n in self._blocks if fork < n <= last), reverse=True):
            if truth.get(number) != self._blocks[number][0]:
                gone += self._take_back(number)
        new: list[dict[str, Any]] = []
        for log in sorted(found, key=_place):
            number = _number(log, "blockNumber")
            if (
                number <= self._floor
                or log.get("logIndex") in self._blocks.get(number, ("", {}))[1]
            ):
                continue
            self._keep(number, log)
            new.append(log)
        self._anchors = {n: h for n, h in self._anchors.items() if n <= fork}
        self._anchors[last] = head["hash"]
        self.covered = last
        self._settle()
        return gone, new

    def skip(self, number: int) -> None:
        """Nobody can tell what was logged up to block `number`."""
        self.covered = number
        self._anchors = {}
        self._settle()

    def _settle(self) -> None:
        old = self.covered - DEEPEST
        for number in [n for n in self._blocks if n <= old]:
            self._forget(number)
        self._floor = max(self._floor, min(old, self.covered))
        self._anchors = {n: h for n, h in self._anchors.items() if n > old}


def _place(log: Mapping[str, Any]) -> tuple[int, int]:
    index = log.get("logIndex")
    return _number(log, "blockNumber"), int(index, 16) if index else 0


class _Seen:
    """The keys of the last hundred thousand items."""

    def __init__(self) -> None:
        self._keys: OrderedDict[Hashable, None] = OrderedDict()

    def is_new(self, key: Hashable) -> bool:
        """True the first time."""
        if key in self._keys:
            return False
        self._keys[key] = None
        if len(self._keys) > _REMEMBERED:
            self._keys.popitem(last=False)
        return True

    def __contains__(self, key: Hashable) -> bool:
        return key in self._keys


class OnceStitch:
    """Pending transactions and whatever else is only made unique."""

    def __init__(self) -> None:
        self._seen = _Seen()

    def __contains__(self, key: str) -> bool:
        return key in self._seen

    def take(self, item: Any) -> Any | None:
        """`item`, or None when it was let through before."""
        key = item.get("hash") if isinstance(item, dict) else item
        if not isinstance(key, str):
            return item
        return item if self._seen.is_new(key) else None
