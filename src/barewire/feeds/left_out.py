"""Numbers of a sequence that were left out, as ranges: a gap of thousands takes no more than one.

missing = LeftOut()
missing.add(5, 9)                  # 5 to 8
missing.remove(6)                  # True: it was among them
missing.drop_below(8)              # 2: so many are given up
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

__all__ = ["LeftOut"]


class LeftOut:
    """Ranges in ascending order, which do not touch."""

    def __init__(self) -> None:
        self._first: list[int] = []
        self._past: list[int] = []

    def __bool__(self) -> bool:
        """Whether any number is among them."""
        return bool(self._first)

    @property
    def least(self) -> int:
        """The lowest; there has to be one."""
        return self._first[0]

    def add(self, first: int, past: int) -> None:
        """`first` to `past` - 1, all above those that are known."""
        if first < past:
            self._first.append(first)
            self._past.append(past)

    def remove(self, number: int) -> bool:
        """Takes `number` out; whether it was among them."""
        at = bisect_right(self._first, number) - 1
        if at < 0 or number >= self._past[at]:
            return False
        first, past = self._first[at], self._past[at]
        kept = [(a, b) for a, b in ((first, number), (number + 1, past)) if a < b]
        self._first[at : at + 1] = [a for a, _ in kept]
        self._past[at : at + 1] = [b for _, b in kept]
        return True

    def drop_below(self, number: int) -> int:
        """Gives up those below `number`; how many they were."""
        at = bisect_right(self._past, number)
        dropped = sum(self._past[:at]) - sum(self._first[:at])
        del self._first[:at], self._past[:at]
        if self._first and self._first[0] < number:
            dropped += number - self._first[0]
            self._first[0] = number
        return dropped

    def drop_from(self, number: int) -> None:
        """Forgets `number` and those above."""
        at = bisect_left(self._first, number)
        del self._first[at:], self._past[at:]
        if self._past and self._past[-1] > number:
            self._past[-1] = number
