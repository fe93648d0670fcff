"""What a bad network does to one line, on purpose and the same every time: for rehearsals."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

from barewire.errors import BarewireError

__all__ = ["Faults", "FaultyLine"]


@dataclass(frozen=True, slots=True)
class Faults:
    """How likely a datagram meets each fate, as a fraction of 1, on each line by itself.

    Attributes:
        loss: it is not sent.
        duplication: it is sent twice.
        reordering: it is sent after one to four of its successors.
        seed: the same seed gives the same fates.
    """

    loss: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses what is not a probability."""
        for name in ("loss", "duplication", "reordering"):
            if not 0 <= getattr(self, name) <= 1:
                raise BarewireError(
                    f"{name} of {getattr(self, name):g}", hint="a fraction from 0 to 1"
                )


class FaultyLine:
    """One line; datagrams in, those that go onto the wire out.

    Attributes:
        lost, duplicated, reordered: datagrams that met this fate.
    """

    def __init__(self, faults: Faults, number: int) -> None:
        self._faults = faults
        self._random = random.Random(f"{faults.seed}/{number}")  # noqa: S311 - to be repeated
        self._none = not (faults.loss or faults.duplication or faults.reordering)
        self._held: list[tuple[int, bytes]] = []
        self.lost = self.duplicated = self.reordered = 0

    def carry(self, datagrams: Iterable[bytes]) -> Iterable[bytes]:
        """What is sent when `datagrams` are to be sent, in this order."""
        if self._none:
            return datagrams
        out: list[bytes] = []
        for datagram in datagrams:
            self._carry_one(datagram, out)
        return out

    def flush(self) -> list[bytes]:
        """What was held back, because nothing follows that it could come after."""
        held, self._held = self._held, []
        return [datagram for _, datagram in held]

    def _carry_one(self, datagram: bytes, out: list[bytes]) -> None:
        faults, chance = self._faults, self._random.random
        copies = 1
        if chance() < faults.loss:
            self.lost += 1
            copies = 0
        elif chance() < faults.duplication:
            self.duplicated += 1
            copies = 2
        if copies and chance() < faults.reordering:
            self.reordered += 1
            self._held.append((self._random.randint(1, 4), datagram))
            copies -= 1
        out += [datagram] * copies
        if self._held:
            self._held = [(left - 1, late) for left, late in self._held]
            out += [late for left, late in self._held if left < 0]
            self._held = [(left, late) for left, late in self._held if left >= 0]
