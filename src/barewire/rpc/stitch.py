"""Making one gapless stream of several broken ones, without a socket.

A stitch is told what arrives, live or fetched, in any order and any number of times. It lets each
block and each log through once and says which blocks are missing. Reorganisations pass: a block
with a number that was seen but a hash that was not is news.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

__all__ = ["HeadStitch", "LogStitch", "Loss", "OnceStitch"]

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


class HeadStitch:
    """newHeads, every block once and none missing.

    Attributes:
        last: the highest block number let through, -1 before the first.
    """

    def __init__(self) -> None:
        self.last = -1
        self._first = -1
        self._seen = _Seen()

    def missing(self, number: int) -> range:
        """The blocks between the last one let through and `number`, both excluded."""
        if self.last < 0:
            return range(0)
        return range(self.last + 1, number)

    def has_parent(self, header: dict[str, Any]) -> bool:
        """Whether the block before `header` was let through."""
        return header.get("parentHash") in self._seen

    def knows(self, number: int) -> bool:
        """Whether a block of this number was let through, so that the stream reaches back to it."""
        return 0 <= self._first <= number <= self.last

    def take(self, header: dict[str, Any]) -> dict[str, Any] | None:
        """`header` as a node pushes it, or None when it was let through before."""
        if not self._seen.is_new(header["hash"]):
            return None
        number = int(header["number"], 16)
        self.last = max(self.last, number)
        self._first = number if self._first < 0 else min(self._first, number)
        return {k: v for k, v in header.items() if k not in _NOT_IN_HEADER}


class LogStitch:
    """logs, each once.

    Attributes:
        covered: all logs up to this block number were let through, -1 while unknown.
    """

    def __init__(self) -> None:
        self.covered = -1
        self._seen = _Seen()

    def take(self, log: dict[str, Any]) -> dict[str, Any] | None:
        """`log`, or None when it was let through before."""
        key = (log.get("blockHash"), log.get("logIndex"), bool(log.get("removed")))
        if not self._seen.is_new(key):
            return None
        if log.get("blockNumber"):
            # Its block may have more logs to come, so only the blocks before it are covered.
            self.covered = max(self.covered, int(log["blockNumber"], 16) - 1)
        return log


class OnceStitch:
    """Pending transactions and whatever else is only made unique."""

    def __init__(self) -> None:
        self._seen = _Seen()

    def take(self, item: Any) -> Any | None:
        """`item`, or None when it was let through before."""
        key = item.get("hash") if isinstance(item, dict) else item
        if not isinstance(key, str):
            return item
        return item if self._seen.is_new(key) else None
