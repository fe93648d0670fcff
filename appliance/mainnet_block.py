"""The transactions of one real block, as they were on the wire.

Block 12,964,999 of Ethereum's mainnet (the last before London, 145 transactions) is a JSON file
inside the PyPI package ``ethereum-execution``, which `./run` installs for the demo, the tests and
the benchmarks. JSON has lost the envelopes, so they are encoded again; that the result is what was
on the wire is shown by its hashes, which the same JSON holds.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

from barewire.errors import BarewireError
from barewire.rlp import Item, encode

__all__ = [
    "BLOCK_NUMBER",
    "encode_transaction",
    "has_block",
    "load_block",
    "load_block_transactions",
]

BLOCK_NUMBER = 12_964_999


def load_block_transactions() -> list[bytes]:
    """The 145 envelopes, in the order of the block.

    Raises:
        BarewireError: the package that holds the block is not installed.
    """
    return [encode_transaction(fields) for fields in load_block()["transactions"]]


def load_block() -> dict[str, Any]:
    """The block as a node's ``eth_getBlockByNumber`` gives it, transactions in full.

    Raises:
        BarewireError: the package that holds the block is not installed.
    """
    if (path := _path()) is not None:
        block: dict[str, Any] = json.loads(path.read_text())
        return block
    raise BarewireError(
        f"block {BLOCK_NUMBER} is not here: the package ethereum-execution is not installed",
        hint="./run demo installs it; or pip install --no-deps -r requirements/demo.lock",
    )


def has_block() -> bool:
    """Whether the package that holds the block is installed."""
    return _path() is not None


def _path() -> Path | None:
    package = importlib.util.find_spec("ethereum")
    folders = package.submodule_search_locations if package else None
    paths = [Path(f) / "assets" / "blocks" / f"block_{BLOCK_NUMBER}.json" for f in folders or ()]
    return next((path for path in paths if path.exists()), None)


def encode_transaction(fields: dict[str, Any]) -> bytes:
    """The envelope of a type 0 or type 1 transaction in a node's JSON.

    Raises:
        BarewireError: another type.
    """
    kind = int(fields.get("type", "0x0"), 16)
    call: list[Item] = [
        *(int(fields[name], 16) for name in ("nonce", "gasPrice", "gas")),
        bytes.fromhex((fields["to"] or "0x")[2:]),
        int(fields["value"], 16),
        bytes.fromhex(fields["input"][2:]),
    ]
    signature: list[Item] = [int(fields[name], 16) for name in ("v", "r", "s")]
    if kind == 0:
        return encode([*call, *signature])
    if kind == 1:
        access: list[Item] = [
            [
                bytes.fromhex(entry["address"][2:]),
                [bytes.fromhex(k[2:]) for k in entry["storageKeys"]],
            ]
            for entry in fields["accessList"]
        ]
        return b"\x01" + encode([int(fields["chainId"], 16), *call, access, *signature])
    raise BarewireError(f"transaction type {kind} is not one that this block has")
