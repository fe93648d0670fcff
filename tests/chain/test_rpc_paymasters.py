"""Paymasters of three vendors before the real EntryPoint and VerifyingPaymaster, on anvil.

Each vendor is a small JSON-RPC server with a VerifyingPaymaster contract of its own: it signs what
the contract will check. The bundler beside it packs operations and calls handleOps, as any bundler.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from eth_abi import encode
from eth_account import Account
from eth_account.messages import encode_defunct
from web3 import HTTPProvider, Web3

from barewire.errors import ConfigError
from barewire.rpc.config import ProviderConfig
from barewire.rpc.faults import AllProvidersFailed
from barewire.rpc.paymasters import PROFILES, Sponsor, profile
from tests.chain.anvil import Anvil, npm_packages

pytestmark = pytest.mark.asyncio

OWNER = Account.from_key("0x" + "11" * 32)
VENDOR = Account.from_key("0x" + "22" * 32)
TARGET = Web3.to_checksum_address("0x" + "77" * 20)


def artifact(name: str) -> dict[str, Any]:
    folder = npm_packages() / "@account-abstraction/contracts/artifacts"
    return json.loads((folder / f"{name}.json").read_text())


class World:
    """The contracts, deployed and funded."""

    def __init__(self, node: Anvil) -> None:
        self.w3 = Web3(HTTPProvider(node.http))
        self.w3.eth.default_account = self.w3.eth.accounts[0]
        self.entry = self.deploy("EntryPoint")
        factory = self.deploy("SimpleAccountFactory", self.entry.address)
        self.done(factory.functions.createAccount(OWNER.address, 0))
        self.account = self.w3.eth.contract(
            factory.functions.getAddress(OWNER.address, 0).call(),
            abi=artifact("SimpleAccount")["abi"],
        )
        self.done(self.w3.eth.send_transaction({"to": self.account.address, "value": 10**18}))

    def done(self, call: Any) -> Any:
        number = call if isinstance(call, bytes) else call.transact()
        receipt = self.w3.eth.wait_for_transaction_receipt(number)
        assert receipt["status"] == 1
        return receipt

    def deploy(self, name: str, *args: Any) -> Any:
        made = artifact(name)
        contract = self.w3.eth.contract(abi=made["abi"], bytecode=made["bytecode"])
        receipt = self.done(contract.constructor(*args))
        return self.w3.eth.contract(receipt["contractAddress"], abi=made["abi"])

    def operation(self) -> dict[str, Any]:
        """Sends one wei from the smart account, which pays no gas itself."""
        call = self.account.encode_abi("execute", args=[TARGET, 1, b""])
        nonce = self.entry.functions.getNonce(self.account.address, 0).call()
        return {
            "sender": self.account.address,
            "nonce": hex(nonce),
            "callData": call,
            "callGasLimit": hex(100_000),
            "verificationGasLimit": hex(200_000),
            "preVerificationGas": hex(50_000),
            "maxFeePerGas": hex(10**10),
            "maxPriorityFeePerGas": hex(10**9),
            "signature": "0x" + "00" * 65,
        }

    def packed(self, op: dict[str, Any]) -> tuple[Any, ...]:
        """The operation as EntryPoint v0.7 takes it."""

        def halves(high: str, low: str) -> bytes:
            return b"".join(int(op[key], 16).to_bytes(16, "big") for key in (high, low))

        paymaster = b""
        if "paymaster" in op:
            paymaster = bytes.fromhex(op["paymaster"][2:])
            paymaster += halves("paymasterVerificationGasLimit", "paymasterPostOpGasLimit")
            paymaster += bytes.fromhex(op["paymasterData"][2:])
        return (
            op["sender"],
            int(op["nonce"], 16),
            b"",
            bytes.fromhex(op["callData"][2:]),
            halves("verificationGasLimit", "callGasLimit"),
            int(op["preVerificationGas"], 16),
            halves("maxPriorityFeePerGas", "maxFeePerGas"),
            paymaster,
            bytes.fromhex(op["signature"][2:]),
        )

    def signed(self, op: dict[str, Any]) -> dict[str, Any]:
        number = self.entry.functions.getUserOpHash(self.packed(op)).call()
        proof = Account.sign_message(encode_defunct(number), OWNER.key)
        return op | {"signature": "0x" + proof.signature.hex()}


@dataclass
class Vendor:
    """A paymaster and bundler server; `fault` breaks it."""

    world: World
    name: str
    fault: str = ""
    seen: list[str] = field(default_factory=list)
    url: str = ""
    released: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        args = (self.world.entry.address, VENDOR.address)
        self.contract = self.world.deploy("VerifyingPaymaster", *args)
        self.world.done(
            self.world.w3.eth.send_transaction(
                {
                    "to": self.world.entry.address,
                    "data": self.world.entry.encode_abi("depositTo", args=[self.contract.address]),
                    "value": 10**18,
                }
            )
        )

    async def serve(self, stack: AsyncExitStack) -> None:
        app = web.Application()
        app.router.add_post("/", self.answer)
        runner = web.AppRunner(app)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        stack.callback(self.released.set)  # before that: it waits for every answer
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"

    async def answer(self, request: web.Request) -> web.Response:
        asked = await request.json()
        method = asked["method"]
        self.seen.append(method)
        said: dict[str, Any] = {"jsonrpc": "2.0", "id": asked["id"]}
        if self.fault == "down" and method != "eth_chainId":
            return web.Response(status=503, text="maintenance")
        if self.fault == "hang" and method == "pm_getPaymasterData":
            await self.released.wait()
        if self.fault == "refuse" and method == "pm_getPaymasterStubData":
            said["error"] = {"code": -32000, "message": "sponsorship policy exhausted"}
        elif method in HANDLERS:
            said["result"] = await asyncio.to_thread(HANDLERS[method], self, asked["params"])
        else:
            said["error"] = {"code": -32601, "message": "method not found"}
        return web.json_response(said)

    def fields(self, data: bytes) -> dict[str, str]:
        return {
            "paymaster": self.contract.address,
            "paymasterData": "0x" + data.hex(),
            "paymasterVerificationGasLimit": hex(100_000),
            "paymasterPostOpGasLimit": hex(20_000),
        }

    def stub(self, params: list[Any]) -> dict[str, Any]:
        times = encode(["uint48", "uint48"], [2**40, 0])
        return self.fields(times + b"\x01" * 65) | {"isFinal": False}

    def data(self, params: list[Any]) -> dict[str, Any]:
        times = encode(["uint48", "uint48"], [2**40, 0])
        op = params[0] | self.fields(times + b"\x01" * 65)
        number = self.contract.functions.getHash(self.world.packed(op), 2**40, 0).call()
        proof = Account.sign_message(encode_defunct(number), VENDOR.key)
        return {
            "paymaster": self.contract.address,
            "paymasterData": self.fields(times + proof.signature)["paymasterData"],
        }

    def send(self, params: list[Any]) -> str:
        packed = self.world.packed(params[0])
        number = self.world.entry.functions.getUserOpHash(packed).call()
        me = self.world.w3.eth.default_account
        receipt = self.world.done(self.world.entry.functions.handleOps([packed], me))
        RECEIPTS["0x" + number.hex()] = {
            "success": True,
            "receipt": {"transactionHash": receipt["transactionHash"].to_0x_hex()},
        }
        return "0x" + number.hex()

    def receipt(self, params: list[Any]) -> Any:
        return RECEIPTS.get(params[0])

    def chain_id(self, params: list[Any]) -> str:
        return "0x7a69"


RECEIPTS: dict[str, Any] = {}
HANDLERS = {
    "pm_getPaymasterStubData": Vendor.stub,
    "pm_getPaymasterData": Vendor.data,
    "eth_sendUserOperation": Vendor.send,
    "eth_getUserOperationReceipt": Vendor.receipt,
    "eth_chainId": Vendor.chain_id,
}


@pytest.fixture(scope="module")
def world():
    with Anvil() as node:
        yield World(node)


@pytest_asyncio.fixture
async def lab(world):
    async with AsyncExitStack() as stack:
        vendors = [Vendor(world, name) for name in PROFILES]
        for vendor in vendors:
            await vendor.serve(stack)
        providers = [profile(v.name, 31337, http=v.url) for v in vendors]
        sponsor = Sponsor(providers, chain_id=31337, entry_point=world.entry.address)
        yield world, vendors, await stack.enter_async_context(sponsor)


async def test_an_operation_is_paid_for_and_lands(lab):
    world, vendors, sponsor = lab
    before = world.w3.eth.get_balance(TARGET)
    own = world.w3.eth.get_balance(world.account.address)
    paid = await sponsor.sponsor(world.operation(), {"sponsorshipPolicyId": "x"})
    number = await sponsor.send(world.signed(paid.operation))
    assert (await sponsor.receipt(number))["success"]
    assert world.w3.eth.get_balance(TARGET) == before + 1
    assert world.w3.eth.get_balance(world.account.address) == own - 1  # the gas was another's
    asked = [m for v in vendors for m in v.seen if m == "pm_getPaymasterData"]
    assert len(asked) == 1


@pytest.mark.parametrize("fault", ["down", "refuse", "hang"])
async def test_the_next_vendor_pays_where_the_first_will_not(lab, fault):
    world, vendors, sponsor = lab
    await sponsor.sponsor(world.operation())
    # Who was first is not always still: the question itself was measured, on a machine that may be
    # busy. So the one that would be asked now is broken.
    first = sponsor._ranked("pm_getPaymasterStubData")[0].name
    vendor = next(v for v in vendors if v.name == first)
    vendor.fault = fault
    before = vendor.seen.count("pm_getPaymasterData")
    patience_ms = 1_000 if fault == "hang" else 20_000
    paid = await sponsor.sponsor(world.operation(), timeout_ms=patience_ms)
    assert paid.vendor != first
    assert first in paid.tried
    # A promise is asked for once, whatever became of it.
    assert vendor.seen.count("pm_getPaymasterData") - before <= 1
    number = await sponsor.send(world.signed(paid.operation))
    assert (await sponsor.receipt(number))["success"]


async def test_the_next_bundler_takes_an_operation_where_the_first_is_down(lab):
    world, vendors, sponsor = lab
    paid = await sponsor.sponsor(world.operation())
    first = sponsor._ranked("eth_sendUserOperation")[0].name
    next(v for v in vendors if v.name == first).fault = "down"
    number = await sponsor.send(world.signed(paid.operation))
    for vendor in vendors:
        vendor.fault = "down"
    with pytest.raises(AllProvidersFailed) as caught:
        await sponsor.send(world.signed(paid.operation))
    assert {name for name, _ in caught.value.causes} == set(PROFILES)
    for vendor in vendors:
        vendor.fault = ""
    assert (await sponsor.receipt(number))["success"]


async def test_nobody_pays_and_the_error_says_why(lab):
    world, vendors, sponsor = lab
    for vendor in vendors:
        vendor.fault = "refuse"
    with pytest.raises(AllProvidersFailed, match="sponsorship policy exhausted") as caught:
        await sponsor.sponsor(world.operation())
    assert {name for name, _ in caught.value.causes} == set(PROFILES)


async def test_cost_and_success_are_in_the_rank(lab):
    _, _, sponsor = lab
    providers = {p.name: p for p in sponsor.client.pool.providers}
    for provider in providers.values():
        for ewma in provider.ewma:
            ewma.us = 1_000.0
    # All as fast: the cheapest first.
    assert [p.name for p in sponsor._ranked("pm_getPaymasterStubData")] == [
        "candide",
        "gelato",
        "pimlico",
    ]
    providers["candide"].success = 0.5
    assert sponsor._ranked("pm_getPaymasterStubData")[-1].name == "candide"


async def test_an_unknown_vendor_is_refused_by_name():
    with pytest.raises(ConfigError, match="paymaster 'acme' is not known") as caught:
        profile("acme", 1)
    assert "pimlico, gelato, candide" in caught.value.hint
    assert isinstance(profile("pimlico", 8453), ProviderConfig)
    assert "/8453/" in profile("pimlico", 8453).http
