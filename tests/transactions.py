"""Random valid transactions of every type, as fields and as bytes.

`make` draws the fields of one transaction that breaks no rule of docs/transaction-validity.md, by
name; `envelope` encodes fields, valid or not. The signatures are well formed and sign nothing.
"""

from __future__ import annotations

import hashlib
import random
from typing import Any

from barewire.rlp import encode

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
BLOB = 131072

_CALL = ("gas", "to", "value", "data")
_SIGNATURE = ("v", "r", "s")
FIELDS: dict[int, tuple[str, ...]] = {
    0: ("nonce", "cap", *_CALL, *_SIGNATURE),
    1: ("chain_id", "nonce", "cap", *_CALL, "access", *_SIGNATURE),
    2: ("chain_id", "nonce", "tip", "cap", *_CALL, "access", *_SIGNATURE),
    3: ("chain_id", "nonce", "tip", "cap", *_CALL, "access", "blob_cap", "blobs", *_SIGNATURE),
    4: ("chain_id", "nonce", "tip", "cap", *_CALL, "access", "auths", *_SIGNATURE),
}
"""The fields of each type, in their order."""


def required_gas(kind: int, fields: dict[str, Any], *, floor: bool = True) -> int:
    """Intrinsic gas from Shanghai on, and the floor of its calldata where `floor`."""
    data = fields["data"]
    zeros = data.count(0)
    create = fields["to"] == b""
    gas = 21000 + 4 * zeros + 16 * (len(data) - zeros)
    if create:
        gas += 32000 + 2 * ((len(data) + 31) // 32)
    gas += sum(2400 + 1900 * len(keys) for _, keys in fields.get("access", ()))
    gas += 25000 * len(fields.get("auths", ()))
    return max(gas, 21000 + 10 * (zeros + 4 * (len(data) - zeros)) if floor else 0)


def make(rng: random.Random, kind: int, chain_id: int = 1) -> dict[str, Any]:
    """Fields of a random valid transaction of type `kind` on `chain_id`, by name."""
    fields: dict[str, Any] = {
        "gas": 0,
        "chain_id": chain_id,
        "nonce": rng.choice([0, 1, 127, 128, rng.getrandbits(16), rng.getrandbits(63), 2**64 - 2]),
        "to": rng.randbytes(20) if kind > 2 or rng.random() < 0.9 else b"",
        "value": rng.getrandbits(rng.choice([0, 1, 8, 60, 64, 65, 90, 128, 256])),
        "data": _data(rng),
        "r": rng.randrange(1, ORDER) >> rng.choice([0, 0, 0, 0, 8, 200]) or 1,
        "s": rng.randrange(1, ORDER // 2 + 1) >> rng.choice([0, 0, 0, 0, 8, 200]) or 1,
    }
    tip, cap = sorted(rng.getrandbits(rng.choice([0, 1, 30, 40, 64, 65, 256])) for _ in range(2))
    fields |= {"tip": tip, "cap": cap}
    parity = rng.getrandbits(1)
    fields["v"] = parity if kind else rng.choice([27, 35 + 2 * chain_id]) + parity
    if kind:
        fields["access"] = [
            [rng.randbytes(20), [rng.randbytes(32) for _ in range(rng.choice([0, 1, 2, 5]))]]
            for _ in range(rng.choice([0, 0, 1, 2, 9]))
        ]
    if kind == 3:
        fields["blob_cap"] = rng.choice([1, 127, 128, rng.getrandbits(64) | 1, 2**256 - 1])
        fields["blobs"] = [b"\x01" + rng.randbytes(31) for _ in range(rng.randrange(1, 7))]
    if kind == 4:
        fields["auths"] = [_authorization(rng) for _ in range(rng.choice([1, 1, 2, 5]))]
    fields = {name: fields[name] for name in FIELDS[kind]}
    slack = rng.choice([0, 0, 1, 100, 10**4, 10**6])
    fields["gas"] = required_gas(kind, fields) + slack
    return fields


def _data(rng: random.Random) -> bytes:
    shape = rng.random()
    if shape < 0.3:
        return b""
    if shape < 0.4:
        return rng.randbytes(rng.choice([1, 3, 4, 5]))
    if shape < 0.9:  # as an ABI encodes: a selector, then words that are mostly zero
        words = (
            rng.randbytes(32 - n).rjust(32, b"\0")
            for n in rng.choices(range(33), k=rng.randrange(12))
        )
        return rng.randbytes(4) + b"".join(words)
    return rng.randbytes(rng.choice([30, 54, 55, 56, 57, 255, 256, 1500]))


def _authorization(rng: random.Random) -> list[Any]:
    return [
        rng.choice([0, 1, rng.getrandbits(256)]),
        rng.randbytes(20),
        rng.getrandbits(rng.choice([0, 8, 64])),
        rng.choice([0, 1, 255]),
        rng.getrandbits(256),
        rng.getrandbits(256),
    ]


def envelope(kind: int, fields: dict[str, Any]) -> bytes:
    """The bytes of a transaction with these fields."""
    return bytes([kind] if kind else []) + encode([fields[name] for name in FIELDS[kind]])


def wrapped(rng: random.Random, fields: dict[str, Any], version: int) -> bytes:
    """A type 3 transaction in the network wrapper of `version`, its blobs of arbitrary bytes.

    The blob hashes in `fields` are replaced by those of the commitments.
    """
    count = len(fields["blobs"])
    commitments = [rng.randbytes(48) for _ in range(count)]
    fields["blobs"] = [b"\x01" + hashlib.sha256(c).digest()[1:] for c in commitments]
    proofs = [rng.randbytes(48) for _ in range(count * (128 if version else 1))]
    blobs = [rng.randbytes(1024) * (BLOB // 1024) for _ in range(count)]
    inner = [fields[name] for name in FIELDS[3]]
    return b"\x03" + encode([inner, *([1] if version else []), blobs, commitments, proofs])
