"""Conversations of frames, mostly in order, with the sizes of the pieces in front."""

import random
from collections.abc import Iterator

from tests.unit.test_websocket import stream


def seeds() -> Iterator[bytes]:
    """Each: options, sixteen sizes, frames."""
    rng = random.Random(6)
    for _ in range(60):
        yield rng.randbytes(17) + stream(rng)[:4000]
