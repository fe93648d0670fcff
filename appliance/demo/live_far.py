"""The far end of ``demo --live``: a real node with Uniswap V2 on it, swaps, and a site's publisher.

Run inside its namespace as ``python -m appliance.demo.live_far JOB``. It says ``ready`` when the
contracts are there, waits for a line on stdin, sends signed swaps to the node, republishes what the
node announces on its IPC socket as MoldUDP64, and says ``done N``.
"""

from __future__ import annotations

import http.client
import importlib
import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from appliance.config_sources import Source, Url
from appliance.core import die_with_parent
from appliance.node_supply import NodeSupply
from appliance.places import Place
from appliance.publisher import Publisher, PublisherConfig
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
        address: of this side. line: where the publisher sends to, address and port.
        swaps: how many. rate: a second. folder: for the node's IPC socket.
    """

    root: str
    address: str
    line: tuple[str, int]
    swaps: int
    rate: float
    folder: str


class Node:
    """One anvil process, and calls to it."""

    def __init__(self, binary: Path, job: Job) -> None:
        self.ipc = f"{job.folder}/node.ipc"
        words = [str(binary), "--host", job.address, "--port", str(NODE_PORT), "--ipc", self.ipc]
        self.process = subprocess.Popen(
            words, stdout=subprocess.DEVNULL, preexec_fn=die_with_parent
        )
        self._job = job
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


def site(node: Node, line: tuple[str, int]) -> tuple[NodeSupply, Publisher]:
    """What a site does for its machines: hears a node, and publishes what it hears."""
    source = Source(name="node", url=Url.parse(f"ipc://{node.ipc}"))
    supply = NodeSupply(source, Path(node.ipc), most=None, tell=lambda _: None)
    publisher = Publisher(PublisherConfig(lines=(Place(*line),)), supply)
    while not supply.live:
        publisher.poll()
    return supply, publisher


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
        for key in _KEYS:
            node.rpc("anvil_setBalance", Account.from_key(key).address, hex(10**22))
        node.rpc("evm_setAutomine", False)
        node.rpc("evm_setIntervalMining", 1)
        supply, publisher = site(node, job.line)
        say({"ready": market.router})
        while not select.select([sys.stdin], [], [], 0.001)[0]:
            publisher.poll()
        sys.stdin.readline()
        path = [market.weth, market.tokens[0]]
        for number in range(job.swaps):
            key = _KEYS[number % len(_KEYS)]
            fields = {
                "chainId": CHAIN,
                "nonce": number // len(_KEYS),
                "to": to_checksum_address(market.router),
                "value": 10**15 + number,
                "gas": 250_000,
                "maxFeePerGas": 10 * 10**9,
                "maxPriorityFeePerGas": 10**9,
                "data": uniswap.call(_SWAP, 1, path, market.me, uniswap.LATER),
            }
            raw = Account.sign_transaction(fields, key).raw_transaction
            node.rpc("eth_sendRawTransaction", "0x" + bytes(raw).hex())
            until = time.monotonic() + 1 / job.rate
            while time.monotonic() < until:
                publisher.poll()
        until = time.monotonic() + 1
        while time.monotonic() < until:
            publisher.poll()
        # What follows must still be live when the other side looks: it says when that is over.
        say({"done": job.swaps, "published": publisher.sent, "block": node.rpc("eth_blockNumber")})
        sys.stdin.readline()
        publisher.close()
        supply.close()
    finally:
        node.process.kill()


def say(what: dict[str, Any]) -> None:
    """One line of JSON to whoever started this."""
    os.write(1, json.dumps(what).encode() + b"\n")


if __name__ == "__main__":
    main()
