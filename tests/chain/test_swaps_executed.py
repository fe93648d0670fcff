"""Swaps through Uniswap's real routers on a real node: what the record says is what moved.

The contracts are those of Uniswap's npm packages (V2 router, V3 SwapRouter, SwapRouter02, Universal
Router); calldata comes from eth-abi, for every V2 function, and from Uniswap's own SDKs.
"""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import eth_abi
import pytest

from barewire import keccak256
from barewire.mempool.decoder import Decoder, Rules
from barewire.mempool.record import Transaction
from barewire.mempool.swaps import Swap, SwapTable
from tests.chain.anvil import HERE, Anvil, npm_packages
from tests.requires import requires

UNISWAP = HERE / "uniswap"
TRANSFER = "0x" + keccak256(b"Transfer(address,address,uint256)").hex()
ETHER = 10**18
LATER = 2**33
TABLE = SwapTable()


def call(signature: str, *values: object) -> str:
    types = signature[signature.index("(") + 1 : -1].split(",") if "()" not in signature else []
    return "0x" + (keccak256(signature.encode())[:4] + eth_abi.encode(types, values)).hex()


class Moved(NamedTuple):
    """One Transfer event."""

    token: str
    amount: int
    giver: str
    taker: str


class Market:
    """WETH, three tokens and the pairs between them, on a node."""

    def __init__(self, node: Anvil, modules: Path) -> None:
        self.node = node
        self.me = node.rpc("eth_accounts")[0]
        self.build = modules / "@uniswap"
        # where the SDKs believe it is on chain 1
        self.weth = "0xc02aaa39b223fe8d0a0e5c4f27ead9083c756cc2"
        deployed = self.deploy("v2-periphery/build/WETH9")
        node.rpc("anvil_setCode", self.weth, node.rpc("eth_getCode", deployed, "latest"))
        self.v2 = self.deploy("v2-core/build/UniswapV2Factory", address=[self.me])
        self.router = self.deploy(
            "v2-periphery/build/UniswapV2Router02", address=[self.v2, self.weth]
        )
        self.tokens = [self.deploy("v2-periphery/build/ERC20", uint256=[10**30]) for _ in range(3)]
        for token in self.tokens:
            self.approve(token, self.router)
            self.send(
                self.router,
                call(
                    "addLiquidityETH(address,uint256,uint256,uint256,address,uint256)",
                    *(token, 1000 * ETHER, 0, 0, self.me, LATER),
                ),
                1000 * ETHER,
            )
        for one, other in itertools.pairwise(self.tokens):
            self.send(
                self.router,
                call(
                    "addLiquidity(address,address,uint256,uint256,uint256,uint256,address,uint256)",
                    *(one, other, 5000 * ETHER, 7000 * ETHER, 0, 0, self.me, LATER),
                ),
            )

    def approve(self, token: str, spender: str) -> None:
        self.send(token, call("approve(address,uint256)", spender, 2**256 - 1))

    def bytecode(self, path: str) -> str:
        found = json.loads((self.build / f"{path}.json").read_text())["bytecode"]
        assert isinstance(found, str)
        return found.removeprefix("0x")

    def deploy(self, path: str, **arguments: list[object]) -> str:
        """Deploys a build artifact; its arguments by their type, in order."""
        types = [kind for kind, values in arguments.items() for _ in values]
        values = [value for values in arguments.values() for value in values]
        data = "0x" + self.bytecode(path) + eth_abi.encode(types, values).hex()
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

    def swaps(self, router: str, data: str, value: int) -> tuple[list[Swap], list[Moved]]:
        """Sends it; the decoded swaps of the mined bytes, and what each Transfer moved."""
        receipt = self.send(router, data, value)
        raw = self.node.rpc("eth_getRawTransactionByHash", receipt["transactionHash"])
        tx = Decoder(Rules.preset("osaka")).decode(bytes.fromhex(raw[2:]))
        assert isinstance(tx, Transaction)
        moved = [
            Moved(log["address"], int(log["data"], 16), *("0x" + t[26:] for t in log["topics"][1:]))
            for log in receipt["logs"]
            if log["topics"][0] == TRANSFER
        ]
        return TABLE.decode(tx), moved


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
    data = call(f"{name}({types})", *amounts, path, market.me, LATER)
    (swap,), moved = market.swaps(market.router, data, value)

    (token_in, amount_in, *_), (token_out, amount_out, *_) = moved[0], moved[-1]
    assert len(moved) == swap.hops + 1 == hops + 1
    assert [move.token for move in moved] == ["0x" + token.hex() for token in swap.tokens]
    assert (token_in, token_out) == (path[0], path[-1])
    assert (swap.native_in, swap.native_out) == (give, take)
    assert swap.target == bytes.fromhex(market.router[2:])
    if swap.exact == "in":
        assert swap.amount_in == amount_in == exact
        assert swap.amount_out <= amount_out
    else:
        assert swap.amount_out == amount_out == exact
        assert swap.amount_in >= amount_in


# ---- V3 and the Universal Router, by calldata of Uniswap's SDKs ----

FEES = {500: 10, 3000: 60, 10000: 200}  # and the spacing of the ticks
ADDRESSES = "address,address"


class WideMarket(Market):
    """The same, with V3 pools of two fees between its tokens, and the routers that know V3."""

    def __init__(self, node: Anvil, modules: Path) -> None:
        super().__init__(node, modules)
        core, periphery = "v3-core/artifacts/contracts", "v3-periphery/artifacts/contracts"
        factory = self.deploy(f"{core}/UniswapV3Factory.sol/UniswapV3Factory")
        positions = self.deploy(
            f"{periphery}/NonfungiblePositionManager.sol/NonfungiblePositionManager",
            address=[factory, self.weth, factory],  # who describes a position is not asked
        )
        swap_router = "swap-router-contracts/artifacts/contracts/SwapRouter02.sol/SwapRouter02"
        self.routers = {
            "v2": self.router,
            "v3": self.deploy(
                f"{periphery}/SwapRouter.sol/SwapRouter", address=[factory, self.weth]
            ),
            "v3-02": self.deploy(swap_router, address=[self.v2, factory, positions, self.weth]),
            "universal": self.deploy(
                "universal-router/artifacts/contracts/UniversalRouter.sol/UniversalRouter",
                **{
                    "(address,address,address,address,bytes32,bytes32,"
                    "address,address,address,address)": [
                        (
                            self.me,  # Permit2: no swap here goes through it
                            self.weth,
                            self.v2,
                            factory,
                            self.code_hash("v2-core/build/UniswapV2Pair"),
                            self.code_hash(f"{core}/UniswapV3Pool.sol/UniswapV3Pool"),
                            *[self.me] * 4,  # V4 and bridges
                        )
                    ]
                },
            ),
        }
        self.send(self.weth, call("deposit()"), 5000 * ETHER)
        every = [self.weth, *self.tokens]
        for token in every:
            for spender in (positions, *self.routers.values()):
                self.approve(token, spender)
            self.send(token, call("transfer(address,uint256)", self.routers["universal"], ETHER))
        for one, other in itertools.pairwise(every):
            for fee, spacing in FEES.items():
                self.provide(positions, *sorted((one, other)), fee, 887272 // spacing * spacing)

    def path(self, numbers: list[int]) -> list[str]:
        """Token addresses; number 0 is WETH."""
        every = [self.weth, *self.tokens]
        return [every[number] for number in numbers]

    def code_hash(self, path: str) -> bytes:
        return keccak256(bytes.fromhex(self.bytecode(path)))

    def provide(self, positions: str, one: str, other: str, fee: int, tick: int) -> None:
        create = "createAndInitializePoolIfNecessary(address,address,uint24,uint160)"
        self.send(positions, call(create, one, other, fee, 2**96))
        mint = (
            "mint((address,address,uint24,int24,int24,uint256,uint256,uint256,uint256,"
            "address,uint256))"
        )
        amount = 300 * ETHER
        given = (one, other, fee, -tick, tick, amount, amount, 0, 0, self.me, LATER)
        data = keccak256(mint.encode())[:4] + eth_abi.encode([mint[5:-1]], [given])
        self.send(positions, "0x" + data.hex())


class Case(NamedTuple):
    """One swap through the SDKs; tokens by number, 0 is WETH."""

    router: str
    exact: str
    routes: list[tuple[str, list[int], list[int]]]
    give: bool = False
    take: bool = False

    def __str__(self) -> str:
        routes = "+".join(f"{kind}/{len(tokens) - 1}" for kind, tokens, _ in self.routes)
        ether = " from ether" * self.give + " to ether" * self.take
        return f"{self.router} {routes} {self.exact}{ether}"


V2_ONE, V2_TWO = ("v2", [0, 1], []), ("v2", [1, 2, 3], [])
V3_ONE, V3_TWO = ("v3", [1, 2], [3000]), ("v3", [1, 2, 3], [500, 10000])
SDK = [
    case
    for exact in ("in", "out")
    for case in (
        Case("v2", exact, [V2_ONE], give=True),
        Case("v2", exact, [V2_TWO]),
        *(
            Case(router, exact, [route], **ether)
            for router in ("v3", "v3-02", "universal")
            for route, ether in [
                (V3_ONE, {}),
                (V3_TWO, {}),
                (("v3", [0, 1, 2], [3000, 500]), {"give": True}),
                (("v3", [2, 1, 0], [10000, 3000]), {"take": True}),
            ]
        ),
        Case("universal", exact, [V2_TWO]),
        Case("universal", exact, [("v2", [0, 1, 2], [])], give=True),
        Case("universal", exact, [V2_TWO, V3_TWO]),
        Case("universal", exact, [V2_ONE, ("v3", [0, 1], [500])], give=True),
    )
]
AMOUNT = ETHER // 11


@pytest.fixture(scope="module")
def wide_market() -> Iterator[WideMarket]:
    with Anvil() as node:
        yield WideMarket(node, npm_packages(UNISWAP))


@pytest.fixture(scope="module")
def sdk_calldata(wide_market) -> dict[str, dict[str, str]]:
    """What the SDKs make of every case, by its name."""
    requires(shutil.which("node") is not None, "node (apt-get install nodejs)")
    requests = [
        {
            "router": case.router,
            "exact": case.exact,
            "amount": str(AMOUNT),
            "guess": str(AMOUNT),
            "routes": [
                {"kind": kind, "tokens": wide_market.path(numbers), "fees": fees}
                for kind, numbers, fees in case.routes
            ],
            "give": case.give,
            "take": case.take,
            "recipient": wide_market.me,
        }
        for case in SDK
    ]
    script = ["node", str(UNISWAP / "execute.mjs")]
    done = subprocess.run(script, input=json.dumps(requests), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(zip(map(str, SDK), json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("case", SDK, ids=str)
def test_sdk_calldata_moves_what_the_record_says(wide_market, sdk_calldata, case):
    made = sdk_calldata[str(case)]
    swaps, moved = wide_market.swaps(
        wide_market.routers[case.router], made["calldata"], int(str(made["value"]), 0)
    )
    assert len(swaps) == len(case.routes)
    for swap, (kind, numbers, fees) in zip(swaps, case.routes, strict=True):
        path = wide_market.path(numbers)
        assert swap.protocol == f"uniswap-{kind}"
        assert ["0x" + token.hex() for token in swap.tokens] == path
        assert list(swap.fees) == fees
        assert swap.exact == case.exact
        assert all(steps_of(moved, token) for token in path)
        given, taken = steps_of(moved, path[0]), steps_of(moved, path[-1])
        if case.exact == "in":
            assert swap.amount_in == AMOUNT
            assert given.count(AMOUNT) >= len(swaps)
            assert max(taken) >= swap.amount_out
        else:
            assert swap.amount_out == AMOUNT
            # the Universal Router works V2's output out anew from an input that was rounded up
            assert sum(AMOUNT <= amount <= AMOUNT + 1 for amount in taken) >= len(swaps)
            assert AMOUNT in taken or case.router == "universal"
            assert min(given) <= swap.amount_in


@pytest.mark.parametrize("extra", [0, 1, 22])
@pytest.mark.parametrize("router", ["v3", "universal"])
@pytest.mark.parametrize(("numbers", "fees"), [([1, 2], [3000]), ([1, 2, 3], [500, 10000])])
def test_bytes_behind_a_path_are_not_looked_at(wide_market, router, numbers, fees, extra):
    tokens = [bytes.fromhex(token[2:]) for token in wide_market.path(numbers)]
    path = tokens[0]
    for fee, token in zip(fees, tokens[1:], strict=True):
        path += fee.to_bytes(3, "big") + token
    path += b"\xaa" * extra
    if router == "v3":
        name, inside = "exactInput", "(bytes,address,uint256,uint256,uint256)"
        given = eth_abi.encode([inside], [(path, wide_market.me, LATER, AMOUNT, 0)])
        data = keccak256(f"{name}({inside})".encode())[:4] + given
    else:
        # It pays from what it holds, of which other tests leave more or less.
        give = call("transfer(address,uint256)", wide_market.routers[router], AMOUNT)
        wide_market.send("0x" + tokens[0].hex(), give)
        sender = "0x" + "00" * 19 + "01"
        swap = eth_abi.encode(
            ["address", "uint256", "uint256", "bytes", "bool"], [sender, AMOUNT, 0, path, False]
        )
        data = bytes.fromhex(call("execute(bytes,bytes[],uint256)", b"\0", [swap], LATER)[2:])
    (swap,), moved = wide_market.swaps(wide_market.routers[router], "0x" + data.hex(), 0)
    assert len(moved) == 2 * len(fees)  # into each pool, and out of it
    assert (list(swap.tokens), list(swap.fees)) == (tokens, fees)
    assert swap.amount_in == AMOUNT


def test_an_element_before_its_array_is_executed_and_seen(wide_market):
    """A router counts to the calls of its multicall with a sign."""
    tokens = [bytes.fromhex(token[2:]) for token in wide_market.path([1, 2])]
    path, inside = (
        tokens[0] + (3000).to_bytes(3, "big") + tokens[1],
        "(bytes,address,uint256,uint256)",
    )
    inner = keccak256(f"exactInput({inside})".encode())[:4]
    inner += eth_abi.encode([inside], [(path, wide_market.me, AMOUNT, 0)])
    held = len(inner).to_bytes(32, "big") + inner + bytes(-len(inner) % 32)
    numbers = [32 + len(held), 1, 2**256 - len(held) - 32]
    array, one, back = (number.to_bytes(32, "big") for number in numbers)
    data = keccak256(b"multicall(bytes[])")[:4] + array + held + one + back
    (swap,), moved = wide_market.swaps(wide_market.routers["v3-02"], "0x" + data.hex(), 0)
    assert len(moved) == 2
    assert (list(swap.tokens), swap.amount_in) == (tokens, AMOUNT)


def steps_of(moved: list[Moved], token: str) -> list[int]:
    return [move.amount for move in moved if move.token == token]
