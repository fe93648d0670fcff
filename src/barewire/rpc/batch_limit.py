"""How much of a batch one provider takes: learnt from what it refuses, and tried anew in a while.

A refusal halves the limit, down to one item, which is no batch. After a minute the double is tried
once; where that is refused as well, the next try is twice as far away, an hour at most.
"""

from __future__ import annotations

__all__ = ["BatchLimit"]

_FIRST_WAIT_NS = 60 * 1_000_000_000
_LONGEST_WAIT_NS = 60 * _FIRST_WAIT_NS
_LEAST_BYTES = 1_000


class BatchLimit:
    """What is known of one provider's limit.

    Attributes:
        items: the most items of a batch now.
        size: the most bytes of one now.
    """

    __slots__ = ("_grew", "_most_items", "_most_size", "_next_ns", "_wait_ns", "items", "size")

    def __init__(self, items: int, size: int) -> None:
        """The limits as they are configured, which are never exceeded."""
        self.items = self._most_items = items
        self.size = self._most_size = size
        self._wait_ns = _FIRST_WAIT_NS
        self._next_ns = 0
        self._grew = False

    def refused(self, items: int, size: int, now_ns: int, *, taken: int = 0) -> None:
        """A batch of `items` in `size` bytes was refused, but for `taken` of its items."""
        if items > self.items:
            return  # it was sent before the last lesson
        self._wait_ns = min(self._wait_ns * 2, _LONGEST_WAIT_NS) if self._grew else _FIRST_WAIT_NS
        self._grew = False
        self._next_ns = now_ns + self._wait_ns
        self.items = max(min(taken or items // 2, items - 1), 1)
        self.size = max(min(self.size, size * self.items // items), _LEAST_BYTES)

    def grow(self, now_ns: int) -> bool:
        """Doubles the limit where it is time to try; whether it did."""
        if now_ns < self._next_ns or (self.items, self.size) == (self._most_items, self._most_size):
            return False
        self.items = min(self.items * 2, self._most_items)
        self.size = min(self.size * 2, self._most_size)
        self._next_ns = now_ns + self._wait_ns
        self._grew = True
        return True
