"""Swap records against calldata made by Uniswap's own SDKs (tests/chain/uniswap)."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from barewire.mempool.swaps import SwapTable
from tests.requires import requires
from tests.unit.test_swaps import transaction

UNISWAP = Path(__file__).parents[1] / "chain" / "uniswap"
VECTORS = json.loads((UNISWAP / "vectors.json").read_text())
TABLE = SwapTable()


def plain(swap, wanted: dict) -> dict:
    """The fields of `swap` that the vector states, spelt as there."""
    fields = {name: getattr(swap, name) for name in wanted}
    fields["tokens"] = ["0x" + token.hex() for token in swap.tokens]
    fields["fees"] = list(swap.fees)
    for name in ("amount_in", "amount_out"):
        fields[name] = str(fields[name])
    if "recipient" in fields:
        fields["recipient"] = "0x" + swap.recipient.hex()
    return fields


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_sdk_calldata(vector):
    data = bytes.fromhex(vector["calldata"][2:])
    swaps = TABLE.decode(transaction(data, value=int(vector["value"])))
    wanted = vector["swaps"]
    assert [plain(s, w) for s, w in zip(swaps, wanted, strict=True)] == wanted


@pytest.mark.slow
def test_the_vectors_are_what_the_sdks_make(tmp_path):
    requires(shutil.which("npm") is not None, "npm and node (apt-get install npm)")
    for name in ("package.json", "package-lock.json", ".npmrc", "vectors.mjs"):
        shutil.copy(UNISWAP / name, tmp_path)
    install = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(install, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    requires(done.returncode == 0, f"npm packages of Uniswap: {done.stderr[-500:]}")
    made = subprocess.run(
        ["node", "vectors.mjs"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert json.loads(made.stdout) == VECTORS
