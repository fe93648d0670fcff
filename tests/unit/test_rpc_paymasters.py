"""What paymasters and bundlers say, in the shapes that they say it in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from barewire.rpc.config import ProviderConfig
from barewire.rpc.faults import AllProvidersFailed, RpcAnswerError
from barewire.rpc.paymasters import Sponsor
from tests.unit.rpc_node import ScriptedNode, http, result

pytestmark = pytest.mark.asyncio

OPERATION = {
    "sender": "0x" + "11" * 20,
    "nonce": "0x0",
    "callData": "0x",
    "maxFeePerGas": "0x1",
    "maxPriorityFeePerGas": "0x1",
    "signature": "0x",
}
PAYMASTER = "0x" + "22" * 20
STUB = {
    "paymaster": PAYMASTER,
    "paymasterData": "0x",
    "paymasterVerificationGasLimit": "0x5000",
    "paymasterPostOpGasLimit": "0xc350",
}
DATA = {"paymaster": PAYMASTER, "paymasterData": "0xabcd"}
GAS = {"callGasLimit": "0x1", "verificationGasLimit": "0x2", "preVerificationGas": "0x3"}
NUMBER = "0x" + "77" * 32


class Vendor(ScriptedNode):
    """A paymaster and bundler that answers each method with what `answers` has for it."""

    def __init__(self, **answers: Any) -> None:
        super().__init__(self._say)
        self.answers: dict[str, Any] = {
            "pm_getPaymasterStubData": STUB,
            "pm_getPaymasterData": DATA,
            "eth_estimateUserOperationGas": GAS,
            "eth_sendUserOperation": NUMBER,
            "eth_getUserOperationReceipt": None,
        } | answers

    def _say(self, asked: dict[str, Any]) -> bytes:
        said = self.answers[asked["method"]]
        if isinstance(said, RpcAnswerError):
            return http(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "error": said.error}))
        return result(asked, said)

    def asked_with(self, method: str) -> dict[str, Any]:
        """The operation of the last question of `method`."""
        return [one["params"][0] for one in self.asked if one["method"] == method][-1]


def error(code: int, message: str) -> RpcAnswerError:
    return RpcAnswerError({"code": code, "message": message}, "")


@asynccontextmanager
async def sponsor_of(first: Vendor, second: Vendor | None = None) -> AsyncIterator[Sponsor]:
    second = second or Vendor()
    async with first, second, asyncio.timeout(20):
        providers = [
            ProviderConfig(name="first", http=first.url, priority=1),
            ProviderConfig(name="second", http=second.url, priority=1_000),
        ]
        async with Sponsor(providers, chain_id=1, entry_point="0x" + "00" * 20) as sponsor:
            yield sponsor


async def test_the_limits_of_the_stub_stand_whatever_the_estimate_says():
    estimate = GAS | {"paymasterVerificationGasLimit": None, "paymasterPostOpGasLimit": "0x0"}
    first = Vendor(eth_estimateUserOperationGas=estimate)
    async with sponsor_of(first) as sponsor:
        paid = (await sponsor.sponsor(OPERATION)).operation
        assert paid == OPERATION | GAS | STUB | DATA
        assert first.asked_with("pm_getPaymasterData") == OPERATION | GAS | STUB


async def test_limits_that_the_stub_leaves_open_are_taken_from_the_estimate():
    limits = {"paymasterVerificationGasLimit": "0x7", "paymasterPostOpGasLimit": "0x8"}
    estimate = GAS | limits | {"junk": "0x1", "maxFeePerGas": "0x9", "signature": "0xbad"}
    first = Vendor(pm_getPaymasterStubData=DATA, eth_estimateUserOperationGas=estimate)
    async with sponsor_of(first) as sponsor:
        paid = await sponsor.sponsor(OPERATION)
        assert paid.operation == OPERATION | GAS | limits | DATA


async def test_what_erc_7677_does_not_know_stays_out_of_the_operation():
    more = {
        "sponsor": {"name": "x"},
        "isFinal": True,
        "junk": 1,
        "signature": "0xbad",
        "nonce": "0x9",
    }
    first = Vendor(
        pm_getPaymasterStubData=STUB | more | {"isFinal": None}, pm_getPaymasterData=DATA | more
    )
    async with sponsor_of(first) as sponsor:
        paid = await sponsor.sponsor(OPERATION)
        assert (paid.vendor, paid.operation) == ("first", OPERATION | GAS | STUB | DATA)


async def test_a_final_stub_is_not_asked_about_again():
    first = Vendor(pm_getPaymasterStubData=STUB | {"isFinal": True})
    async with sponsor_of(first) as sponsor:
        assert (await sponsor.sponsor(OPERATION)).operation == OPERATION | GAS | STUB
        assert "pm_getPaymasterData" not in first.seen


NONSENSE: list[Any] = [None, [], "0x", 5, {}, {"paymaster": 5}, {"paymaster": "0xzz"}]


@pytest.mark.parametrize("nonsense", [*NONSENSE, {"paymaster": "0x"}, {"paymaster": None}])
async def test_the_next_pays_where_what_is_said_pays_nothing(nonsense):
    async with sponsor_of(Vendor(pm_getPaymasterData=nonsense)) as sponsor:
        paid = await sponsor.sponsor(OPERATION)
        assert paid.vendor == "second"
        assert list(paid.tried) == ["first"]


@pytest.mark.parametrize("nonsense", [n for n in NONSENSE if n != {}])
async def test_the_next_pays_where_the_stub_is_nonsense(nonsense):
    async with sponsor_of(Vendor(pm_getPaymasterStubData=nonsense)) as sponsor:
        assert (await sponsor.sponsor(OPERATION)).vendor == "second"


@pytest.mark.parametrize("nonsense", [None, "0x5208", [], {}, GAS | {"callGasLimit": None}])
async def test_the_next_bundler_estimates_where_one_has_nothing_to_say(nonsense):
    first, second = Vendor(eth_estimateUserOperationGas=nonsense), Vendor()
    async with sponsor_of(first, second) as sponsor:
        paid = await sponsor.sponsor(OPERATION)
        assert (paid.vendor, paid.operation["callGasLimit"]) == ("first", "0x1")
        assert "eth_estimateUserOperationGas" in second.seen


TROUBLE = [
    (-32005, "rate limit exceeded"),
    (-32603, "internal error"),
    (429, "Too Many Requests"),
    (-32000, "upstream request timeout"),
    (-32601, "the method eth_sendUserOperation does not exist/is not available"),
    (-32504, "paymaster is throttled"),
    (-32505, "sender stake too low"),
    (-32001, "something that nobody knows"),
]
FINAL = [
    (-32521, "UserOperation reverted during simulation"),
    (-32500, "AA21 didn't pay prefund"),
    (-32507, "Invalid UserOp signature or paymaster signature"),
    (-32602, "Missing/invalid userOpHash"),
]


@pytest.mark.parametrize(("code", "message"), TROUBLE)
async def test_the_next_bundler_is_asked_where_one_is_in_trouble(code, message):
    async with sponsor_of(Vendor(eth_sendUserOperation=error(code, message))) as sponsor:
        assert await sponsor.send(OPERATION) == NUMBER


@pytest.mark.parametrize(("code", "message"), FINAL)
async def test_what_is_wrong_with_the_operation_is_final(code, message):
    second = Vendor()
    async with sponsor_of(Vendor(eth_sendUserOperation=error(code, message)), second) as sponsor:
        with pytest.raises(RpcAnswerError) as caught:
            await sponsor.send(OPERATION)
        assert caught.value.code == code
        assert "eth_sendUserOperation" not in second.seen


@pytest.mark.parametrize("nonsense", [None, 5, "0x", "0x12", {}])
async def test_what_is_no_hash_is_not_handed_out(nonsense):
    bad = Vendor(eth_sendUserOperation=nonsense)
    async with sponsor_of(bad, Vendor(eth_sendUserOperation=nonsense)) as sponsor:
        with pytest.raises(AllProvidersFailed, match="for its hash"):
            await sponsor.send(OPERATION)


async def test_a_receipt_is_waited_for_through_trouble_and_nonsense():
    says = iter([error(-32603, "internal error"), 5, None])
    receipt = {"success": True}

    class Moody(Vendor):
        def _say(self, asked: dict[str, Any]) -> bytes:
            self.answers["eth_getUserOperationReceipt"] = next(says, receipt)
            return super()._say(asked)

    async with sponsor_of(Moody()) as sponsor:
        assert await sponsor.receipt(NUMBER, timeout_ms=10_000) == receipt
        with pytest.raises(TimeoutError):
            await sponsor_receipt_never(sponsor)


async def sponsor_receipt_never(sponsor: Sponsor) -> None:
    for provider in sponsor.client.pool.providers:
        provider.refused = "closed"
    await sponsor.receipt(NUMBER, timeout_ms=300)
