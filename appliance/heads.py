"""New blocks as several sources tell of them: each once, and not more than there can be.

A chain can be reorganised and come back: then a source tells of a block once more, behind others,
and it is given on once more.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from barewire.feeds.blocks import Block

__all__ = ["Heads"]

_REMEMBERED = 1024
_A_SECOND = 64  # fast chains have ten blocks a second; a node that makes some up has no end
_SECOND_NS = 1_000_000_000


class _Told:
    """How often a block was given on, and told of by each source."""

    __slots__ = ("by", "given")

    def __init__(self) -> None:
        self.given = 0
        self.by: dict[int, int] = {}


class Heads:
    """Gives on what it is called with.

    Args:
        give: takes each block.
        clock_mono_ns: the clock of the limit.

    Attributes:
        given: blocks given on.
        repeated: and not, as another source had told of them.
        refused: and not, as they were more than 64 in one second.
    """

    def __init__(
        self, give: Callable[[Block], None], clock_mono_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._give = give
        self._clock = clock_mono_ns
        self._known: OrderedDict[bytes, _Told] = OrderedDict()
        self._last: dict[int, bytes] = {}
        self._second_ns = self._in_second = 0
        self.given = self.repeated = self.refused = 0

    def __call__(self, source: int, block: Block) -> None:
        """Source number `source` has told of `block`."""
        told = self._known.get(block.hash) or _Told()
        if self._last.get(source) != block.hash:
            told.by[source] = told.by.get(source, 0) + 1
            self._last[source] = block.hash
        if told.by.get(source, 0) <= told.given:
            self.repeated += 1
            return
        now = self._clock()
        if now - self._second_ns >= _SECOND_NS:
            self._second_ns, self._in_second = now, 0
        if self._in_second == _A_SECOND:
            self.refused += 1
            told.by[source] -= 1  # it is news still, should the source tell of it once more
            del self._last[source]
            return
        self._in_second += 1
        told.given += 1
        self._known[block.hash] = told
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        self.given += 1
        self._give(block)

    def stats(self) -> dict[str, int]:
        """What was counted."""
        return {"given": self.given, "repeated": self.repeated, "refused": self.refused}
