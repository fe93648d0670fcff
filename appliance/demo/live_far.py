"""The far end of ``demo --live``: a real node with Uniswap V2 on it, and who sends it swaps.

Run inside its namespace as ``python -m appliance.demo.live_far JOB``. It says ``ready`` when the
contracts are there. For each line on stdin, a number, it sends so many signed swaps to the node and
says ``done``, how many those were in all; it ends with stdin.
"""

from __future__ import annotations

import http.client
import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from appliance.core import die_with_parent
from barewire.errors import BarewireError
from barewire.interpreter import recursion_limit_kept

with recursion_limit_kept():
    from eth_account import Account
    from eth_utils.address import to_checksum_address

__all__ = ["CHAIN", "NODE_PORT", "Job"]

CHAIN = 31337
NODE_PORT = 8545
_KEYS = [bytes([n]) * 32 for n in range(1, 9)]
_SWAP = "swapExactETHForTokens(uint256,address[],address,uint256)"


class Job(msgspec.Struct):
    """What the far end is to do.

    Attributes:
        root: the repository, of which the tests' node and contracts are used.
        address: of this side. ipc: where the node's IPC socket shall be. rate: swaps a second.
    """

    root: str
    address: str
    ipc: str
    rate: float


class Node:
    """One anvil process, and calls to it."""

    def __init__(self, binary: Path, job: Job) -> None:
        words = [str(binary), "--host", job.address, "--port", str(NODE_PORT), "--ipc", job.ipc]
        self.process = subprocess.Popen(
            words, stdout=subprocess.DEVNULL, preexec_fn=die_with_parent
        )
        self._http = http.client.HTTPConnection(job.address, NODE_PORT, timeout=30)
        until = time.monotonic() + 15
        while True:
            try:
                self.rpc("eth_blockNumber")
            except OSError as error:
                self._http.close()
                if time.monotonic() > until or self.process.poll() is not None:
                    raise BarewireError(f"anvil did not start: {error}") from error
                time.sleep(0.05)
            else:
                break

    def rpc(self, method: str, *params: Any) -> Any:
        """The result of a call; the node's error is raised."""
        call = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        self._http.request("POST", "/", json.dumps(call), {"Content-Type": "application/json"})
        answer = json.loads(self._http.getresponse().read())
        if "error" in answer:
            raise BarewireError(f"the node: {answer['error']['message']}")
        return answer["result"]


class Swaps:
    """Signed swaps, one account after the other."""

    def __init__(self, node: Node, market: Any, calldata: str) -> None:
        self._node = node
        self._router = to_checksum_address(market.router)
        self._calldata = calldata
        self.sent = 0
        for key in _KEYS:
            node.rpc("anvil_setBalance", Account.from_key(key).address, hex(10**22))

    def send(self, count: int, rate: float) -> None:
        """Sends `count`, `rate` of them a second, as far as the node keeps up."""
        began = time.monotonic()
        for number in range(count):
            time.sleep(max(0.0, began + number / rate - time.monotonic()))
            fields = {
                "chainId": CHAIN,
                "nonce": self.sent // len(_KEYS),
                "to": self._router,
                "value": 10**15 + self.sent,
                "gas": 250_000,
                "maxFeePerGas": 10 * 10**9,
                "maxPriorityFeePerGas": 10**9,
                "data": self._calldata,
            }
            signed = Account.sign_transaction(fields, _KEYS[self.sent % len(_KEYS)])
            self._node.rpc("eth_sendRawTransaction", "0x" + bytes(signed.raw_transaction).hex())
            self.sent += 1


def main() -> None:
    """See the module."""
    die_with_parent()
    job = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Job)
    sys.path.insert(0, job.root)
    npm_packages = importlib.import_module("tests.chain.anvil").npm_packages
    uniswap: Any = importlib.import_module("tests.chain.test_swaps_executed")
    node = Node(npm_packages() / "@foundry-rs/anvil-linux-amd64/bin/anvil", job)
    try:
        market = uniswap.Market(node, npm_packages(uniswap.UNISWAP))
        path = [market.weth, market.tokens[0]]
        swaps = Swaps(node, market, uniswap.call(_SWAP, 1, path, market.me, uniswap.LATER))
        node.rpc("evm_setAutomine", False)
        node.rpc("evm_setIntervalMining", 1)
        say({"ready": market.router})
        for line in sys.stdin:
            swaps.send(int(line), job.rate)
            say({"done": swaps.sent})
    finally:
        node.process.kill()


def say(what: dict[str, Any]) -> None:
    """One line of JSON to whoever started this."""
    os.write(1, json.dumps(what).encode() + b"\n")


if __name__ == "__main__":
    main()
