"""Random transactions of all types, valid and mutated, against two other readers of the bytes.

Verdicts against the written table (tests/validity.py), fields against the ``ethereum`` package,
hashes against pysha3. The package is an oracle for fields and not for verdicts: it accepts more.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
import sha3

from barewire.mempool.decoder import FORKS, Decoder, Refusal, Rules
from barewire.mempool.record import Transaction
from tests.oracle import specification
from tests.transactions import FIELDS, envelope, make
from tests.validity import broken

BATCH = 2000


def mutate_bytes(rng: random.Random, raw: bytes) -> bytes:
    """One to three bytes changed, removed or put in; or an end cut off or added."""
    data = bytearray(raw)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        # headers are where it matters, and most of them stand near the start or the end
        at = min(int(rng.expovariate(1 / 12)), len(data) - 1)
        at = rng.choice([at, len(data) - 1 - at, rng.randrange(len(data))])
        how = rng.random()
        if how < 0.5:
            data[at] = rng.choice([0, 1, 0x7F, 0x80, 0x81, 0xB8, 0xC0, 0xF8, rng.randrange(256)])
        elif how < 0.65:
            data[at] = (data[at] + rng.choice([-1, 1])) % 256
        elif how < 0.8:
            del data[at]
        else:
            data.insert(at, rng.randrange(256))
        if not data:
            break
    return bytes(data[: rng.randrange(len(data))] if data and rng.random() < 0.05 else data)


def mutate_fields(rng: random.Random, kind: int, fields: dict[str, Any]) -> bytes:
    """One field replaced by something odd, left out, or one too many; lengths all consistent."""
    names = list(FIELDS[kind])
    name = rng.choice(names)
    odd = [0, 1, b"", b"\0", b"\0\1", 2**64 - 1, 2**64, 2**256 - 1, 2**256, [], [b""], [[]]]
    odd += [rng.randbytes(n) for n in (1, 19, 20, 21, 31, 32, 33, 60)]
    how = rng.random()
    if how < 0.1:
        names.remove(name)
    elif how < 0.2:
        names.insert(rng.randrange(len(names)), name)
    elif how < 0.4 and isinstance(fields[name], int):
        fields[name] = max(0, fields[name] + rng.choice([-1, 1, 2]))
    elif how < 0.6 and isinstance(fields[name], list) and fields[name]:
        mutate_list(rng, fields[name], odd)
    else:
        fields[name] = rng.choice(odd)
    from barewire.rlp import encode

    return bytes([kind] if kind else []) + encode([fields[n] for n in names])


def mutate_list(rng: random.Random, where: list[Any], odd: list[Any]) -> None:
    at = rng.randrange(len(where))
    if isinstance(where[at], list) and where[at] and rng.random() < 0.7:
        mutate_list(rng, where[at], odd)
    elif rng.random() < 0.3:
        del where[at]
    elif rng.random() < 0.3:
        where.insert(at, where[at])
    else:
        where[at] = rng.choice(odd)


def draw(rng: random.Random, chain_id: int) -> bytes:
    kind = rng.randrange(5)
    fields = make(rng, kind, chain_id)
    how = rng.random()
    if how < 0.5:
        return envelope(kind, fields)
    if how < 0.75:
        return mutate_fields(rng, kind, fields)
    return mutate_bytes(rng, envelope(kind, fields))


def plain(tx: Transaction) -> dict[str, Any]:
    """The record in the words of tests/oracle/spec.py."""
    kind = tx.type
    v = tx.y_parity
    if kind == 0:
        v += 27 if tx.chain_id is None else 35 + 2 * tx.chain_id
    every = {
        "chain_id": tx.chain_id,
        "nonce": tx.nonce,
        "tip": tx.tip_wei,
        "cap": tx.fee_cap_wei,
        "gas": tx.gas,
        "to": (tx.to or b"").hex(),
        "value": tx.value_wei,
        "data": tx.data.hex(),
        "access": [[a.hex(), [k.hex() for k in keys]] for a, keys in tx.access_list],
        "blob_cap": tx.blob_fee_cap_wei,
        "blobs": [h.hex() for h in tx.blob_hashes],
        "auths": [[a[0], a[1].hex(), *a[2:]] for a in tx.authorizations],
        "v": v,
        "r": tx.r,
        "s": tx.s,
    }
    return {name: every[name] for name in FIELDS[kind]}


def differ(seed: int, count: int) -> dict[str, int]:
    """Compares `count` transactions; returns how many of each verdict there were."""
    rng = random.Random(seed)
    seen: dict[str, int] = {}
    for _ in range(count // BATCH):
        fork = rng.choice(FORKS)
        theirs = rng.choice([1, 1, 10, 2**32 + 1, 2**63 - 1, 2**64 - 1])
        chain_id = rng.choice([0, theirs, theirs])
        raws = [draw(rng, theirs) for _ in range(BATCH)]
        burst = Decoder(Rules.preset(fork, chain_id)).decode_burst(raws)
        accepted = []
        for raw, tx in zip(raws, burst, strict=True):
            rules = broken(raw, fork, chain_id)
            name = tx.verdict if isinstance(tx, Refusal) else "ok"
            seen[name] = seen.get(name, 0) + 1
            assert name in (rules or {"ok"}), f"{fork} {chain_id} {raw.hex()}: {name}, not {rules}"
            if isinstance(tx, Transaction):
                accepted.append(tx)
        for tx, told in zip(accepted, specification([tx.raw for tx in accepted]), strict=True):
            assert tx.hash == sha3.keccak_256(tx.raw).digest(), tx.raw.hex()
            told_hash = told.pop("hash", None)
            assert plain(tx) == told, tx.raw.hex()
            assert tx.hash.hex() == told_hash
    return seen


def test_differential():
    seen = differ(1, 10_000)
    assert seen["ok"] > 2000
    assert len(seen) > 25, seen


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(2, 12))  # 200,000 in all
def test_differential_at_length(seed):
    seen = differ(seed, 20_000)
    assert seen["ok"] > 4000
