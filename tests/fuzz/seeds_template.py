"""Both kinds of template, with much of everything and with little of it."""

from __future__ import annotations

import random
from collections.abc import Iterator


def seeds() -> Iterator[bytes]:
    rng = random.Random(1559)
    for kind in (0, 1):
        for length in (0, 60, 140, 200, 300, 1500):
            for _ in range(20):
                yield bytes([kind]) + rng.randbytes(length)
                yield bytes([kind]) + bytes(rng.choice((0, 1, 31, 255)) for _ in range(length))
