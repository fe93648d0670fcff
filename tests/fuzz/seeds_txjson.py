"""Announcements in every form and spelling, behind the two bytes that choose the way in."""

import json
import random
from collections.abc import Iterator

from tests.transactions import envelope, make
from tests.unit.test_websocket import raw
from tests.unit.txjson_texts import clutter, notification, oddly, spelled


def seeds() -> Iterator[bytes]:
    """Each: way, burst and budget; size of the pieces; text."""
    rng = random.Random(7)
    for number in range(80):
        kind = number % 5
        fields = make(rng, kind)
        tx = spelled(kind, fields)
        results = [tx, tx["hash"], {"txHash": tx["hash"], "txContents": tx}]
        results.append({"txHash": tx["hash"], "rawTx": "0x" + envelope(kind, fields).hex()})
        message = notification(rng.choice(results)) | {"clutter": clutter(rng)}
        text = (oddly(rng, message) if number % 2 else json.dumps(message)).encode()
        batch = json.dumps([{"id": 1, "result": tx}, {"id": 2, "result": None}]).encode()
        budget = number % 8 << 5
        yield bytes([0x08 | budget, 0x40]) + rng.choice([text, batch])
        yield bytes([0x01 | budget, 0x40]) + json.dumps(tx).encode()
        yield bytes([0x0A | budget, 0x30]) + text + batch
        yield (
            bytes([0x0B | budget, 0x30])
            + raw(1, text[:300], fin=False)
            + raw(9)
            + raw(0, text[300:])
        )
        pool = json.dumps({"pending": {"0xa": {"0": tx}, "0xb": 1}, "queued": {"0xc": {"1": tx}}})
        yield bytes([0x10 | budget, 0x40]) + pool.encode()
        yield bytes([0x11 | budget, 0x40]) + json.dumps({"transactions": [tx, tx["hash"]]}).encode()
