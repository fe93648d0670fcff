"""One seed of every envelope type and form, under every fork, whole and as a list's payload."""

from __future__ import annotations

import random
from collections.abc import Iterator

from tests.transactions import envelope, make, wrapped


def seeds() -> Iterator[bytes]:
    rng = random.Random(7)
    for fork in range(5):
        for kind in range(5):
            for _ in range(2):
                raw = envelope(kind, make(rng, kind))
                yield bytes([fork]) + raw
                yield bytes([0x80 + fork]) + _unlisted(raw)
    for version in (0, 1):
        fields = make(rng, 3)
        del fields["blobs"][1:]
        yield bytes([4 if version else 2]) + wrapped(rng, fields, version)


def _unlisted(raw: bytes) -> bytes:
    typed = int(raw[0] < 0x80)
    prefix = raw[typed]
    header = 1 if prefix < 0xF8 else prefix - 0xF7 + 1
    return raw[:typed] + raw[typed + header :]
