"""Transactions as nodes and relays spell them in JSON, made from fields; and strange spellings."""

import random
from typing import Any

from barewire.keccak import keccak256
from tests.transactions import envelope


def spelled(kind: int, fields: dict[str, Any]) -> dict[str, Any]:
    """The object that geth gives for a pending transaction with these fields."""
    raw = envelope(kind, fields)
    tx: dict[str, Any] = {
        "blockHash": None,
        "blockNumber": None,
        "from": "0x" + "11" * 20,
        "gas": hex(fields["gas"]),
        "gasPrice": hex(fields["cap"]),
        "hash": "0x" + keccak256(raw).hex(),
        "input": "0x" + fields["data"].hex(),
        "nonce": hex(fields["nonce"]),
        "to": "0x" + fields["to"].hex() if fields["to"] else None,
        "transactionIndex": None,
        "value": hex(fields["value"]),
        "type": hex(kind),
        "v": hex(fields["v"]),
        "r": hex(fields["r"]),
        "s": hex(fields["s"]),
    }
    if kind:
        tx["chainId"] = hex(fields["chain_id"])
        tx["yParity"] = hex(fields["v"])
        tx["accessList"] = [
            {"address": "0x" + address.hex(), "storageKeys": ["0x" + key.hex() for key in keys]}
            for address, keys in fields["access"]
        ]
    if kind > 1:
        tx["maxFeePerGas"] = hex(fields["cap"])
        tx["maxPriorityFeePerGas"] = hex(fields["tip"])
    if kind == 3:
        tx["maxFeePerBlobGas"] = hex(fields["blob_cap"])
        tx["blobVersionedHashes"] = ["0x" + blob.hex() for blob in fields["blobs"]]
    if kind == 4:
        tx["authorizationList"] = [
            {
                "chainId": hex(chain),
                "address": "0x" + address.hex(),
                "nonce": hex(nonce),
                "yParity": hex(parity),
                "r": hex(r),
                "s": hex(s),
            }
            for chain, address, nonce, parity, r, s in fields["auths"]
        ]
    return tx


def notification(result: Any) -> dict[str, Any]:
    """What `eth_subscribe` sends."""
    return {
        "jsonrpc": "2.0",
        "method": "eth_subscription",
        "params": {"subscription": "0x9ce59a13059e417087c02d3236a0b1cc", "result": result},
    }


def oddly(rng: random.Random, value: Any, *, escapes: float = 0.02) -> str:
    """`value` as JSON with members in any order, white space anywhere, escapes where allowed."""

    def space() -> str:
        return "".join(rng.choices(" \t\r\n", k=rng.randrange(3))) if rng.random() < 0.3 else ""

    def text(string: str) -> str:
        out = []
        for c in string:
            if rng.random() < escapes or c in '"\\' or c < " ":
                pairs = c.encode("utf-16-be")
                for i in range(0, len(pairs), 2):
                    digits = pairs[i : i + 2].hex()
                    out.append("\\u" + (digits.upper() if rng.random() < 0.5 else digits))
            elif c == "/" and rng.random() < 0.5:
                out.append("\\/")
            else:
                out.append(c)
        return '"' + "".join(out) + '"'

    def put(value: Any) -> str:
        if isinstance(value, dict):
            items = list(value.items())
            rng.shuffle(items)
            inner = ",".join(f"{space()}{text(k)}{space()}:{put(v)}" for k, v in items)
            written = "{" + (inner or space()) + "}"
        elif isinstance(value, list):
            written = "[" + (",".join(map(put, value)) or space()) + "]"
        elif isinstance(value, str):
            written = text(value)
        elif value is None:
            written = "null"
        elif isinstance(value, bool):
            written = "true" if value else "false"
        else:
            written = repr(value)
        return space() + written + space()

    return put(value)


def clutter(rng: random.Random, depth: int = 3) -> Any:
    """Some JSON value that is nobody's business."""
    draw = rng.randrange(10)
    if draw < 2 and depth:
        return [clutter(rng, depth - 1) for _ in range(rng.randrange(4))]
    if draw < 4 and depth:
        return {clutter_word(rng): clutter(rng, depth - 1) for _ in range(rng.randrange(4))}
    return rng.choice(
        [None, True, False, 0, -1, 12345, 1.5e300, -0.25, 2**70, clutter_word(rng), ""]
    )


def clutter_word(rng: random.Random) -> str:
    """A string from anywhere in Unicode."""
    alphabets = ["abc", "0x19af", 'quo"te\\', "\n\t\x00\x1f", "äöü€", "𝄞🦄", "/"]
    return "".join(rng.choice(rng.choice(alphabets)) for _ in range(rng.randrange(9)))
