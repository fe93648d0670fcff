"""The ``ethereum`` package (the execution specification) at work; runs in .venv-oracle alone.

Reads envelopes as hex, one a line, from standard input and answers each with one line of JSON: its
fields, or ``{"error": ...}``. With the argument ``time`` it decodes and hashes all it was given
once for every further line ``go``, answering with the nanoseconds.
"""

import json
import sys
import time

from ethereum.forks.osaka.transactions import (
    LegacyTransaction,
    decode_transaction,
    get_transaction_hash,
    recover_sender,
)
from ethereum_rlp import rlp
from ethereum_types.bytes import Bytes
from ethereum_types.numeric import U64

NAMES = {
    "gas_price": "cap",
    "max_fee_per_gas": "cap",
    "max_priority_fee_per_gas": "tip",
    "max_fee_per_blob_gas": "blob_cap",
    "blob_versioned_hashes": "blobs",
    "access_list": "access",
    "authorizations": "auths",
    "y_parity": "v",
}


def decode(raw):
    wire = rlp.decode_to(LegacyTransaction, raw) if raw[0] >= 0xC0 else Bytes(raw)
    return wire, decode_transaction(wire)


def plain(value):
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        return [plain(getattr(value, name)) for name in value.__dataclass_fields__]
    return int(value)


def answer(raw, senders):
    try:
        wire, tx = decode(raw)
        fields = {
            NAMES.get(name, name): plain(getattr(tx, name)) for name in tx.__dataclass_fields__
        }
        fields["hash"] = get_transaction_hash(wire).hex()
        if senders:
            chain = getattr(tx, "chain_id", None)
            if chain is None:
                chain = (int(tx.v) - 35) // 2 if int(tx.v) >= 35 else 1
            fields["sender"] = recover_sender(U64(chain), tx).hex()
    except Exception as error:  # whatever the package raises on bad bytes is its answer
        return {"error": f"{type(error).__name__}: {error}"}
    return fields


if sys.argv[1:] == ["time"]:
    raws = []
    for line in sys.stdin:
        if line != "go\n":
            raws.append(bytes.fromhex(line))
            continue
        begin = time.perf_counter_ns()
        for raw in raws:
            get_transaction_hash(decode(raw)[0])
        print(time.perf_counter_ns() - begin, flush=True)
else:
    for line in sys.stdin:
        print(json.dumps(answer(bytes.fromhex(line), "senders" in sys.argv)), flush=False)
