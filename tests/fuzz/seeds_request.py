"""Requests with much in them and with little."""

from __future__ import annotations

import random
from collections.abc import Iterator


def seeds() -> Iterator[bytes]:
    rng = random.Random(191)
    for length in (0, 20, 40, 60, 140, 200, 300, 1500):
        for _ in range(20):
            yield rng.randbytes(length)
            yield bytes(rng.choice((0, 1, 31, 255)) for _ in range(length))
