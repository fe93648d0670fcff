"""Swaps through the real Uniswap V2 router on a real node: what the record says is what moved."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import eth_abi
import pytest

from barewire import keccak256
from barewire.mempool.decoder import Decoder, Rules
from barewire.mempool.record import Transaction
from barewire.mempool.swaps import Swap, SwapTable
from tests.chain.anvil import HERE, Anvil, npm_packages

UNISWAP = HERE / "uniswap"
TRANSFER = "0x" + keccak256(b"Transfer(address,address,uint256)").hex()
ETHER = 10**18
LATER = 2**33
TABLE = SwapTable()


def call(signature: str, *values: object) -> str:
    types = signature[signature.index("(") + 1 : -1].split(",") if "()" not in signature else []
    return "0x" + (keccak256(signature.encode())[:4] + eth_abi.encode(types, values)).hex()


class Market:
    """WETH, three tokens and the pairs between them, on a node."""

    def __init__(self, node: Anvil, modules: Path) -> None:
        self.node = node
        self.me = node.rpc("eth_accounts")[0]
        self.build = modules / "@uniswap"
        self.weth = self.deploy("v2-periphery", "WETH9", [])
        factory = self.deploy("v2-core", "UniswapV2Factory", [("address", self.me)])
        self.router = self.deploy(
            "v2-periphery", "UniswapV2Router02", [("address", factory), ("address", self.weth)]
        )
        self.tokens = [
            self.deploy("v2-periphery", "ERC20", [("uint256", 10**30)]) for _ in range(3)
        ]
        for token in self.tokens:
            self.send(token, call("approve(address,uint256)", self.router, 2**256 - 1))
            self.send(
                self.router,
                call(
                    "addLiquidityETH(address,uint256,uint256,uint256,address,uint256)",
                    *(token, 1000 * ETHER, 0, 0, self.me, LATER),
                ),
                100 * ETHER,
            )
        for one, other in zip(self.tokens, self.tokens[1:], strict=False):
            self.send(
                self.router,
                call(
                    "addLiquidity(address,address,uint256,uint256,uint256,uint256,address,uint256)",
                    *(one, other, 5000 * ETHER, 7000 * ETHER, 0, 0, self.me, LATER),
                ),
            )

    def deploy(self, package: str, name: str, arguments: list[tuple[str, object]]) -> str:
        code = json.loads((self.build / package / "build" / f"{name}.json").read_text())["bytecode"]
        types, values = [kind for kind, _ in arguments], [value for _, value in arguments]
        data = "0x" + code.removeprefix("0x") + eth_abi.encode(types, values).hex()
        address = self.send(None, data)["contractAddress"]
        assert isinstance(address, str)
        return address

    def send(self, to: str | None, data: str, value: int = 0) -> dict:
        request = {"from": self.me, "data": data, "value": hex(value), "gas": hex(8_000_000)}
        sent = self.node.rpc("eth_sendTransaction", request | ({"to": to} if to else {}))
        until = time.monotonic() + 30
        while (receipt := self.node.rpc("eth_getTransactionReceipt", sent)) is None:
            assert time.monotonic() < until, f"{sent} is not mined"
            time.sleep(0.002)
        assert receipt["status"] == "0x1"
        return receipt

    def swap(self, data: str, value: int) -> tuple[Swap, list[tuple[str, int]]]:
        """Sends it; the decoded swap of the mined bytes, and what each Transfer moved."""
        receipt = self.send(self.router, data, value)
        raw = self.node.rpc("eth_getRawTransactionByHash", receipt["transactionHash"])
        tx = Decoder(Rules.preset("osaka")).decode(bytes.fromhex(raw[2:]))
        assert isinstance(tx, Transaction)
        (swap,) = TABLE.decode(tx)
        moved = [
            (log["address"], int(log["data"], 16))
            for log in receipt["logs"]
            if log["topics"][0] == TRANSFER
        ]
        return swap, moved


@pytest.fixture(scope="module")
def market() -> Iterator[Market]:
    with Anvil() as node:
        yield Market(node, npm_packages(UNISWAP))


AMOUNTS = "uint256,uint256,address[],address,uint256"
LIMIT = "uint256,address[],address,uint256"
TAXED = "SupportingFeeOnTransferTokens"


@pytest.mark.parametrize("hops", [1, 2])
@pytest.mark.parametrize(
    ("name", "types", "give", "take"),
    [
        ("swapExactTokensForTokens", AMOUNTS, False, False),
        ("swapTokensForExactTokens", AMOUNTS, False, False),
        ("swapExactETHForTokens", LIMIT, True, False),
        ("swapETHForExactTokens", LIMIT, True, False),
        ("swapExactTokensForETH", AMOUNTS, False, True),
        ("swapTokensForExactETH", AMOUNTS, False, True),
        ("swapExactTokensForTokens" + TAXED, AMOUNTS, False, False),
        ("swapExactETHForTokens" + TAXED, LIMIT, True, False),
        ("swapExactTokensForETH" + TAXED, AMOUNTS, False, True),
    ],
)
def test_the_record_is_what_moved(market, name, types, give, take, hops):
    path = market.tokens[: hops + 1]
    if give:
        path = [market.weth, *market.tokens[:hops]]
    if take:
        path = [*market.tokens[:hops], market.weth][-(hops + 1) :]
        path = [market.tokens[hops - 1], *path[1:]] if hops == 1 else path
    exact_in = name.startswith("swapExact")
    exact = ETHER // 7 + hops
    value = (exact if exact_in else 3 * ETHER) if give else 0
    limit = 1 if exact_in else 10**24
    amounts = {
        (AMOUNTS, True): [exact, limit],
        (AMOUNTS, False): [exact, limit],
        (LIMIT, True): [limit],
        (LIMIT, False): [exact],
    }[types, exact_in]
    swap, moved = market.swap(call(f"{name}({types})", *amounts, path, market.me, LATER), value)

    (token_in, amount_in), (token_out, amount_out) = moved[0], moved[-1]
    assert len(moved) == swap.hops + 1 == hops + 1
    assert [token for token, _ in moved] == ["0x" + token.hex() for token in swap.tokens]
    assert (token_in, token_out) == (path[0], path[-1])
    assert (swap.native_in, swap.native_out) == (give, take)
    assert swap.target == bytes.fromhex(market.router[2:])
    if swap.exact == "in":
        assert swap.amount_in == amount_in == exact
        assert swap.amount_out <= amount_out
    else:
        assert swap.amount_out == amount_out == exact
        assert swap.amount_in >= amount_in
