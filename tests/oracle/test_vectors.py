"""Published vectors: every transaction of @ethersproject/testcases, and a real block.

Types 3 and 4, which the vectors lack, are made by the ``ethereum`` package's fields and read by
foundry's ``cast`` (test_cast.py).
"""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
import sha3

from appliance.mainnet_block import encode_transaction, load_block
from barewire import secp
from barewire.mempool.decoder import Decoder, Refusal, Rules
from barewire.mempool.record import Transaction
from tests.chain.anvil import npm_packages
from tests.oracle import specification
from tests.requires import requires

# The vectors are about bytes: many have no gas at all, which a pool refuses.
BYTES = Rules.preset("osaka", pool=False)


def vectors(name: str) -> list[dict[str, Any]]:
    path = npm_packages() / "@ethersproject/testcases/testcases" / f"{name}.json.gz"
    requires(path.exists(), "npm's @ethersproject/testcases")
    return json.loads(gzip.decompress(path.read_bytes()))


def number(told: str | int | None) -> int:
    if isinstance(told, str):
        return 0 if told == "0x" else int(told, 0)
    return told or 0


def raw_bytes(told: str | None) -> bytes:
    return bytes.fromhex(told[2:]) if told else b""


def sender(tx: Transaction) -> bytes | None:
    secp.load()
    return secp.recover(
        tx.signing_hash(), tx.r.to_bytes(32, "big"), tx.s.to_bytes(32, "big"), tx.y_parity
    )


@pytest.mark.parametrize("chain_id", [None, 5])
def test_legacy_vectors(chain_id):
    suffix = "ChainId5" if chain_id else ""
    decoder = Decoder(BYTES)
    cases = vectors("transactions")
    assert len(cases) == 1067
    accepted = 0
    for case in cases:
        raw = raw_bytes(case[f"signedTransaction{suffix}"])
        tx = decoder.decode(raw)
        if max(number(case.get("nonce")), number(case.get("gasLimit"))) >= 2**64:
            assert tx == Refusal("int_width"), case["name"]  # as geth, which holds 64 bits
            continue
        assert isinstance(tx, Transaction), case["name"]
        accepted += 1
        assert tx.hash == sha3.keccak_256(raw).digest()
        assert tx.signing_hash() == (
            sha3.keccak_256(raw_bytes(case[f"unsignedTransaction{suffix}"])).digest()
        )
        assert tx.chain_id == chain_id
        assert tx.nonce == number(case.get("nonce"))
        assert tx.fee_cap_wei == tx.tip_wei == number(case.get("gasPrice"))
        assert tx.gas == number(case.get("gasLimit"))
        assert (tx.to or b"") == raw_bytes(case.get("to"))
        assert tx.value_wei == number(case.get("value"))
        assert tx.data == raw_bytes(case.get("data"))
        assert sender(tx) == raw_bytes(case["accountAddress"]), case["name"]
    assert accepted == 984


def test_typed_vectors():
    decoder = Decoder(BYTES)
    cases = vectors("typed-transactions")
    assert len(cases) == 1792
    for case in cases:
        raw, told = raw_bytes(case["signed"]), case["tx"]
        tx = decoder.decode(raw)
        assert isinstance(tx, Transaction), case["name"]
        assert tx.hash == sha3.keccak_256(raw).digest()
        assert tx.signing_hash() == sha3.keccak_256(raw_bytes(case["unsigned"])).digest()
        assert tx.type == told["type"]
        assert tx.chain_id == number(told.get("chainId"))
        assert tx.nonce == number(told.get("nonce"))
        assert tx.gas == number(told.get("gasLimit"))
        assert (tx.to or b"") == raw_bytes(told.get("to"))
        assert tx.value_wei == number(told.get("value"))
        assert tx.data == raw_bytes(told.get("data"))
        if tx.type == 2:
            assert tx.fee_cap_wei == number(told.get("maxFeePerGas"))
            assert tx.tip_wei == number(told.get("maxPriorityFeePerGas"))
        else:
            assert tx.fee_cap_wei == tx.tip_wei == number(told.get("gasPrice"))
        assert [(a.hex(), [k.hex() for k in keys]) for a, keys in tx.access_list] == [
            (entry["address"][2:].lower(), [key[2:].lower() for key in entry["storageKeys"]])
            for entry in told.get("accessList") or []
        ]
        assert sender(tx) == raw_bytes(case["address"]), case["name"]


def test_mainnet_block():
    """The specification's own reading of the same bytes, senders recovered by it."""
    block = load_block()["transactions"]
    raws = [encode_transaction(fields) for fields in block]
    burst = Decoder(Rules.preset("london", 1)).decode_burst(raws)
    for tx, told, fields in zip(burst, specification(raws, senders=True), block, strict=True):
        assert isinstance(tx, Transaction)
        assert "error" not in told, told
        assert tx.hash.hex() == told["hash"] == fields["hash"][2:]
        assert sender(tx).hex() == told["sender"] == fields["from"][2:]
