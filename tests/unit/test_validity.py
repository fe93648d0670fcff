"""Every rule of docs/transaction-validity.md: a message that breaks it, and it alone."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest

from barewire.mempool.decoder import FORKS, VERDICTS, Decoder, Refusal, Rules
from barewire.mempool.record import Transaction
from barewire.rlp import encode
from tests.transactions import BLOB, FIELDS, ORDER, envelope, make, required_gas, wrapped
from tests.validity import broken

TABLE = Path(__file__).resolve().parents[2] / "docs" / "transaction-validity.md"
ROWS = re.findall(
    r"^\| `(\w+)` \| (.+?) \| (bytes|pool) \| ?(\w*) \| .+ \|$", TABLE.read_text(), re.MULTILINE
)


def fields(kind: int, **changes: Any) -> dict[str, Any]:
    """A plain valid transaction of type `kind`, with some of its fields changed."""
    plain = make(random.Random(kind), kind) | {"nonce": 7, "to": b"\x11" * 20, "data": b""}
    plain |= {"v": plain["v"] & 1} if kind else {"v": 37}
    plain |= {"cap": 9, "r": 5, "s": 5} | ({"tip": 3} if "tip" in plain else {})
    plain |= changes
    if "gas" not in changes:
        shaped = {"access": [], "auths": []} | plain
        shaped |= {name: [] for name in ("access", "auths") if name in changes}
        plain["gas"] = required_gas(kind, shaped) + 10**6
    return plain


def tx(kind: int, **changes: Any) -> bytes:
    return envelope(kind, fields(kind, **changes))


def raw(kind: int, how: Any) -> bytes:
    """The fields of a transaction as a list, put through `how`."""
    plain = fields(kind)
    return bytes([kind] if kind else []) + encode(how([plain[name] for name in FIELDS[kind]]))


def blobs(wrapper: int, /, **parts: Any) -> bytes:
    """A transaction with one blob in a wrapper of that version; `parts` replaces parts of it."""
    rng = random.Random(1)
    inner = fields(3, blobs=[bytes(32)])
    whole = wrapped(rng, inner, wrapper)
    if not parts:
        return whole
    commitment = random.Random(1).randbytes(48)
    given = {
        "version": [1] if wrapper else [],
        "blobs": [bytes(BLOB)],
        "commitments": [commitment],
        "proofs": [bytes(48)] * (128 if wrapper else 1),
        "more": [],
    } | parts
    return b"\x03" + encode(
        [
            [inner[name] for name in FIELDS[3]],
            *given["version"],
            given["blobs"],
            given["commitments"],
            given["proofs"],
            *given["more"],
        ]
    )


AUTH = [1, b"\x22" * 20, 0, 0, 1, 1]
KEY = b"\x33" * 32
HASH = b"\x01" + bytes(31)
OSAKA = "osaka"
# rule: what breaks it. Of a rule that has a pool's part and a bytes' part, the bytes' come first.
BREAKS: dict[str, list[tuple[str, bytes]]] = {
    "empty": [(OSAKA, b""), (OSAKA, b"\x02")],
    "oversized": [
        (OSAKA, tx(2, data=bytes(2**17), gas=2**23)),
        (OSAKA, tx(0, data=bytes(2**17), gas=2**23)),
        (OSAKA, tx(3, data=bytes(2**20), gas=2**24)),
    ],
    "type_unknown": [(OSAKA, b"\x05\xc0"), (OSAKA, b"\x00\xc0"), (OSAKA, b"\x7f" + tx(2)[1:])],
    "type_early": [("shanghai", tx(3)), ("cancun", tx(4)), ("london", tx(3))],
    "rlp_truncated": [
        (OSAKA, tx(2)[:-1]),
        (OSAKA, tx(0)[:1]),
        (OSAKA, b"\x02\xc3\x01\x82\x01"),
        (OSAKA, b"\x02\xc2\x01\xb8"),
        (OSAKA, b"\x02\xff" + b"\xff" * 8),
    ],
    "rlp_trailing": [(OSAKA, tx(2) + b"\x80"), (OSAKA, tx(0) + b"\0"), (OSAKA, blobs(1) + b"\0")],
    "rlp_length": [
        (OSAKA, b"\x02\xf8\x01\x80"),
        (OSAKA, b"\x02\xf9\x00\x40" + bytes(64)),
        (OSAKA, b"\x02\xc3\x01\xb8\x01"),
    ],
    "rlp_byte": [(OSAKA, b"\x02\xc3\x01\x81\x7f"), (OSAKA, b"\x02\xc2\x81\x01")],
    "rlp_kind": [
        (OSAKA, b"\x02\x80"),
        (OSAKA, tx(2, access=b"")),
        (OSAKA, tx(2, data=[])),
        (OSAKA, tx(1, nonce=[])),
        (OSAKA, tx(4, auths=b"\x01\x02")),
        (OSAKA, tx(2, access=[b"\x11" * 20])),
    ],
    "fields_few": [
        (OSAKA, b"\x02\xc0"),
        (OSAKA, b"\xc0"),
        *((OSAKA, raw(kind, lambda items: items[:-1])) for kind in range(5)),
    ],
    "fields_many": [
        *((OSAKA, raw(kind, lambda items: [*items, b""])) for kind in range(5)),
        (OSAKA, blobs(1, more=[[]])),
    ],
    "int_zeros": [
        (OSAKA, tx(2, nonce=b"\0")),
        (OSAKA, tx(2, value=b"\0\1")),
        (OSAKA, tx(2, v=b"\0")),
        (OSAKA, tx(0, r=b"\0" * 2)),
        (OSAKA, tx(4, auths=[[b"\0", *AUTH[1:]]])),
    ],
    "int_width": [
        (OSAKA, tx(2, nonce=2**64)),
        (OSAKA, tx(2, gas=2**64)),
        (OSAKA, tx(2, value=2**256)),
        (OSAKA, tx(2, cap=2**256)),
        (OSAKA, tx(2, s=2**256)),
        (OSAKA, tx(3, blob_cap=2**256)),
        (OSAKA, tx(4, auths=[[*AUTH[:2], 2**64, *AUTH[3:]]])),
        (OSAKA, tx(4, auths=[[*AUTH[:3], 256, *AUTH[4:]]])),
        (OSAKA, tx(4, auths=[[2**256, *AUTH[1:]]])),
    ],
    "chain_id": [
        (OSAKA, tx(0, v=39)),
        (OSAKA, tx(2, chain_id=5)),
        (OSAKA, tx(4, chain_id=0)),
        (OSAKA, tx(1, chain_id=2**64)),
        (OSAKA, tx(0, v=2**66)),
    ],
    "nonce_max": [(OSAKA, tx(kind, nonce=2**64 - 1)) for kind in range(5)],
    "gas_max": [(OSAKA, tx(2, gas=2**24 + 1)), (OSAKA, tx(0, gas=2**64 - 1))],
    "gas_intrinsic": [
        (OSAKA, tx(2, gas=20_999, access=[])),
        (OSAKA, tx(0, gas=52_999, to=b"")),
        (OSAKA, tx(2, gas=23_399, access=[[KEY[:20], []]])),
        (OSAKA, tx(1, gas=25_299, access=[[KEY[:20], [KEY]]])),
        (OSAKA, tx(4, gas=45_999, access=[], auths=[AUTH])),
        ("london", tx(0, gas=21_019, data=b"\0\1")),
        ("shanghai", tx(0, gas=53_005, to=b"", data=b"\0")),
    ],
    "gas_floor": [
        (OSAKA, tx(0, gas=21_049, data=b"\0\1")),
        ("prague", tx(2, gas=21_039, data=b"\1", access=[])),
    ],
    "tip_above_cap": [(OSAKA, tx(kind, tip=10, cap=9)) for kind in (2, 3, 4)],
    "to_width": [(OSAKA, tx(0, to=bytes(19))), (OSAKA, tx(4, to=bytes(21)))],
    "to_missing": [(OSAKA, tx(3, to=b"")), (OSAKA, tx(4, to=b""))],
    "initcode_size": [
        ("shanghai", tx(0, to=b"", data=bytes(49_153), gas=10**6)),
        (OSAKA, tx(2, to=b"", data=bytes(49_153), gas=2**23)),
    ],
    "access_shape": [
        (OSAKA, tx(1, access=[[]])),
        (OSAKA, tx(1, access=[[KEY[:20]]])),
        (OSAKA, tx(2, access=[[KEY[:19], []]])),
        (OSAKA, tx(2, access=[[KEY[:20], [KEY[:31]]]])),
        (OSAKA, tx(2, access=[[KEY[:20], [], b""]])),
    ],
    "auth_empty": [(OSAKA, tx(4, auths=[])), ("prague", tx(4, auths=[]))],
    "auth_shape": [
        (OSAKA, tx(4, auths=[[]])),
        (OSAKA, tx(4, auths=[AUTH[:5]])),
        (OSAKA, tx(4, auths=[[*AUTH, 1]])),
        (OSAKA, tx(4, auths=[AUTH, [1, b"", *AUTH[2:]]])),
    ],
    "blob_none": [(OSAKA, tx(3, blobs=[])), ("cancun", tx(3, blobs=[]))],
    "blob_count": [
        (OSAKA, tx(3, blobs=[HASH] * 7)),
        ("cancun", tx(3, blobs=[HASH] * 7)),
        ("prague", tx(3, blobs=[HASH] * 10)),
    ],
    "blob_hash": [
        (OSAKA, tx(3, blobs=[HASH[:31]])),
        (OSAKA, tx(3, blobs=[HASH, HASH + b"\0"])),
        (OSAKA, tx(3, blobs=[HASH, bytes(32)])),
    ],
    "blob_fee": [(OSAKA, tx(3, blob_cap=0))],
    "wrapper_version": [
        (OSAKA, blobs(1, version=[2])),
        (OSAKA, blobs(1, version=[b""])),
        (OSAKA, blobs(0)),
        ("prague", blobs(1)),
    ],
    "wrapper_shape": [
        (OSAKA, blobs(1, blobs=[bytes(BLOB - 1)])),
        (OSAKA, blobs(1, commitments=[bytes(47)])),
        ("cancun", blobs(0, proofs=[bytes(49)])),
    ],
    "wrapper_count": [
        (OSAKA, blobs(1, proofs=[bytes(48)] * 127)),
        (OSAKA, blobs(1, blobs=[bytes(BLOB)] * 2)),
        ("prague", blobs(0, commitments=[])),
    ],
    "wrapper_commitment": [
        (OSAKA, blobs(1, commitments=[bytes(48)])),
        ("cancun", blobs(0, commitments=[bytes(48)])),
    ],
    "sig_v": [
        (OSAKA, tx(2, v=256)),
        (OSAKA, tx(0, v=26)),
        (OSAKA, tx(0, v=0)),
        (OSAKA, tx(0, v=34)),
        (OSAKA, tx(2, v=2)),
        (OSAKA, tx(4, v=27)),
    ],
    "sig_r": [(OSAKA, tx(kind, r=r)) for kind in range(5) for r in (0, ORDER, 2**256 - 1)],
    "sig_s": [(OSAKA, tx(kind, s=s)) for kind in range(5) for s in (0, ORDER, 2**256 - 1)],
    "sig_high_s": [
        (OSAKA, tx(kind, s=s)) for kind in range(5) for s in (ORDER // 2 + 1, ORDER - 1)
    ],
}
# Of a rule of the bytes, what only the pool refuses; and the other way round.
POOL_OF_BYTES = {
    "blob_hash": BREAKS["blob_hash"][2:],
    "wrapper_version": BREAKS["wrapper_version"][2:],
}
BYTES_OF_POOL = {"sig_v": BREAKS["sig_v"][:1]}
CASES = [
    pytest.param(name, who, *case, id=f"{name}-{number}")
    for name, _, who, _ in ROWS
    for number, case in enumerate(BREAKS.get(name, ()))
]


def test_the_table_the_counters_and_the_tests_are_of_the_same_rules():
    assert [name for name, *_ in ROWS] == list(VERDICTS[1:]) == list(BREAKS)


@pytest.mark.parametrize(("name", "who", "fork", "message"), CASES)
def test_rule(name, who, fork, message):
    decoder = Decoder(Rules.preset(fork, 1))
    assert decoder.decode(message) == Refusal(name)
    refusals = decoder.refusals()
    assert {cause: count.count for cause, count in refusals.items()} == {name: 1}
    assert refusals[name].sample == message[:496]
    assert refusals[name].sample_bytes == len(message)
    assert name in broken(message, fork, 1)

    if (fork, message) in POOL_OF_BYTES.get(name, ()):
        who = "pool"
    elif (fork, message) in BYTES_OF_POOL.get(name, ()):
        who = "bytes"
    without = Decoder(Rules.preset(fork, 1, pool=False)).decode(message)
    assert isinstance(without, Transaction) if who == "pool" else without == Refusal(name)


@pytest.mark.parametrize("name", [name for name, _, _, since in ROWS if since])
def test_before_its_fork_a_rule_does_not_hold(name):
    (since,) = (since.lower() for row, _, _, since in ROWS if row == name)
    for fork in FORKS[: FORKS.index(since)]:
        for _, message in BREAKS[name]:
            verdict = Decoder(Rules.preset(fork, 1)).decode(message)
            assert verdict != Refusal(name)


EDGES = [
    *((fork, tx(kind, nonce=2**64 - 2)) for fork in FORKS for kind in (0, 1, 2)),
    (OSAKA, tx(2, gas=2**24)),
    ("prague", tx(2, gas=2**64 - 1)),
    (OSAKA, tx(2, gas=21_000, access=[])),
    (OSAKA, tx(0, gas=53_000, to=b"")),
    (OSAKA, tx(2, gas=23_400, access=[[KEY[:20], []]])),
    (OSAKA, tx(1, gas=25_300, access=[[KEY[:20], [KEY]]])),
    (OSAKA, tx(4, gas=46_000, access=[], auths=[AUTH])),
    ("london", tx(0, gas=21_020, data=b"\0\1")),
    ("london", tx(0, gas=53_004, to=b"", data=b"\0")),
    ("shanghai", tx(0, gas=53_006, to=b"", data=b"\0")),
    (OSAKA, tx(0, gas=21_050, data=b"\0\1")),
    ("cancun", tx(0, gas=21_049, data=b"\0\1")),
    (OSAKA, tx(2, tip=9, cap=9)),
    ("london", tx(0, to=b"", data=bytes(49_153), gas=10**6)),
    ("shanghai", tx(0, to=b"", data=bytes(49_152), gas=10**6)),
    (OSAKA, tx(3, blobs=[HASH] * 6)),
    ("prague", tx(3, blobs=[HASH] * 9)),
    (OSAKA, tx(3, blob_cap=1)),
    (OSAKA, blobs(1)),
    ("cancun", blobs(0)),
    (OSAKA, tx(0, v=28)),
    (OSAKA, tx(0, v=38)),
    *((OSAKA, tx(kind, r=ORDER - 1, s=ORDER // 2)) for kind in range(5)),
    (OSAKA, tx(4, auths=[[0, bytes(20), 2**64 - 1, 255, 2**256 - 1, 2**256 - 1]])),
]


@pytest.mark.parametrize(("fork", "message"), EDGES)
def test_just_within(fork, message):
    assert isinstance(Decoder(Rules.preset(fork, 1)).decode(message), Transaction)
    assert broken(message, fork, 1) == set()


def test_the_largest_that_are_accepted():
    for kind, limit in ((2, 2**17), (0, 2**17), (3, 2**20)):
        decoder = Decoder(Rules.preset("prague", 1))
        head = len(tx(kind, data=bytes(2**16), gas=2**30)) - 2**16
        largest = tx(kind, data=bytes(limit - head), gas=2**30)
        assert len(largest) == limit
        assert isinstance(decoder.decode(largest), Transaction)
        assert decoder.decode(tx(kind, data=bytes(limit - head + 1), gas=2**30)) == Refusal(
            "oversized"
        )


def test_the_widest_chains():
    wide = Decoder(Rules.preset(OSAKA, 2**64 - 1))
    assert wide.decode(tx(2, chain_id=2**64 - 1)).chain_id == 2**64 - 1
    assert wide.decode(tx(0, v=35 + 2 * (2**64 - 1))).chain_id == 2**64 - 1
    assert wide.decode(tx(0, v=36 + 2 * (2**64 - 1))).y_parity == 1
    assert wide.decode(tx(0, v=37 + 2 * (2**64 - 1))) == Refusal("chain_id")
    assert Decoder(Rules.preset(OSAKA)).decode(tx(0, v=27)).chain_id is None
