"""foundry's ``cast`` reads, and makes, what the decoder reads: a sample of every type."""

from __future__ import annotations

import json
import random
import subprocess
from functools import cache

import pytest

from barewire import secp
from barewire.mempool.decoder import Decoder, Rules
from barewire.mempool.record import Transaction
from tests.chain.anvil import npm_packages
from tests.requires import requires
from tests.transactions import envelope, make

KEY = "0x0123456789012345678901234567890123456789012345678901234567890123"
ADDRESS = "14791697260e4c9a71f18484c9f997b308e59325"


@cache
def cast(*words: str) -> str:
    program = npm_packages() / "@foundry-rs/cast-linux-amd64/bin/cast"
    requires(program.exists(), "cast (npm's @foundry-rs/cast-linux-amd64)")
    done = subprocess.run([str(program), *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"cast {words[0]}: {done.stderr[-500:]}"
    return done.stdout.strip()


def sender(tx: Transaction) -> str:
    secp.load()
    r, s = tx.r.to_bytes(32, "big"), tx.s.to_bytes(32, "big")
    address = secp.recover(tx.signing_hash(), r, s, tx.y_parity)
    return address.hex() if address else ""


@pytest.mark.parametrize("kind", range(5))
def test_cast_decodes_the_same(kind):
    rng = random.Random(kind)
    decoder = Decoder(Rules.preset("osaka"))
    done = 0
    while done < 6:
        fields = make(rng, kind)
        tx = decoder.decode(envelope(kind, fields))
        assert isinstance(tx, Transaction)
        # cast holds prices in 128 bits, and needs a sender that can be recovered
        if tx.fee_cap_wei >> 128 or tx.blob_fee_cap_wei >> 128 or not sender(tx):
            continue
        told = json.loads(cast("decode-transaction", "0x" + tx.raw.hex()))
        told = json.loads(told) if isinstance(told, str) else told
        assert told["hash"] == "0x" + tx.hash.hex()
        assert told["signer"].lower() == "0x" + sender(tx)
        assert int(told["nonce"], 16) == tx.nonce
        assert int(told["gas"], 16) == tx.gas
        assert int(told["value"], 16) == tx.value_wei
        assert told["input"] == "0x" + tx.data.hex()
        assert (told["to"] or "0x") == "0x" + (tx.to or b"").hex()
        assert int(told.get("maxFeePerGas") or told["gasPrice"], 16) == tx.fee_cap_wei
        assert len(told.get("accessList") or []) == len(tx.access_list)
        assert len(told.get("authorizationList") or []) == len(tx.authorizations)
        assert told.get("blobVersionedHashes", []) == ["0x" + h.hex() for h in tx.blob_hashes]
        done += 1


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (0, ["--legacy", "--gas-price", "7"]),
        (2, ["--gas-price", "7", "--priority-gas-price", "3"]),
        (4, ["--gas-price", "7", "--priority-gas-price", "3", "--auth", "0x" + "33" * 20]),
    ],
)
def test_cast_signs(kind, words):
    raw = cast(
        "mktx",
        "0x" + "44" * 20,
        "transfer(address,uint256)",
        "0x" + "55" * 20,
        "5",
        "--chain",
        "5",
        "--nonce",
        "9",
        "--gas-limit",
        "200000",
        "--value",
        "12",
        "--private-key",
        KEY,
        *words,
    )
    tx = Decoder(Rules.preset("osaka", 5)).decode(bytes.fromhex(raw[2:]))
    assert isinstance(tx, Transaction)
    assert (tx.type, tx.chain_id, tx.nonce, tx.gas, tx.value_wei) == (kind, 5, 9, 200000, 12)
    assert tx.selector == bytes.fromhex("a9059cbb")
    assert sender(tx) == ADDRESS
