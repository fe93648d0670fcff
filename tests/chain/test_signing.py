"""What is signed here is accepted by a real node, and does there what it says."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from eth_account import Account

from barewire.execution.calldata import Calldata, Slot, encode_call
from barewire.execution.keys import Key
from barewire.execution.multicall import Call, multicall
from barewire.execution.signer import PresignedSigner
from barewire.execution.template import AccessEntry, Caps, Template, sign_authorization
from tests.chain.anvil import Anvil, anvil, npm_packages

__all__ = ["anvil"]

CHAIN = 31337
CAPS = Caps(10**12, 10**12, 10**20, 10**12)
SECRET = b"\x71" * 32
TO = b"\x72" * 20


@pytest.fixture
def signer(anvil: Anvil) -> Iterator[PresignedSigner]:
    with (
        Key.from_bytes(SECRET) as key,
        PresignedSigner(key, capacity=256, accept_snapshot_risk=True) as signer,
    ):
        anvil.rpc("anvil_setBalance", "0x" + signer.address.hex(), hex(10**21))
        yield signer


def mined(node: Anvil, sent: str) -> dict[str, Any]:
    """The receipt, once there is one."""
    until = time.monotonic() + 10
    while (receipt := node.rpc("eth_getTransactionReceipt", sent)) is None:
        assert time.monotonic() < until
        time.sleep(0.005)
    return dict(receipt)


def send(node: Anvil, template: Template, nonce: int, **numbers: Any) -> dict[str, Any]:
    """Fires, sends, and gives the receipt; the node's hash is the template's."""
    raw = template.fire(nonce, 10**11, **numbers)
    sent = node.rpc("eth_sendRawTransaction", "0x" + raw.hex())
    assert sent == "0x" + template.hash().hex()
    return mined(node, sent)


def test_every_type_is_mined(anvil, signer):
    delegation = sign_authorization(signer, CHAIN, b"\x73" * 20, 105)
    made: list[dict[str, Any]] = [
        {"type": 0},
        {"type": 1, "access_list": [AccessEntry(TO, [bytes(32)])]},
        {"type": 2},
        {"type": 4, "authorizations": [delegation]},
    ]
    for nonce in range(100):
        fields = made[nonce % 3]
        template = Template(signer, chain_id=CHAIN, to=TO, gas=60_000, caps=CAPS, **fields)
        tip = {"tip_wei": 10**9} if fields["type"] == 2 else {}
        receipt = send(anvil, template, nonce, value_wei=nonce, **tip)
        assert receipt["status"] == "0x1"
        assert receipt["from"] == "0x" + signer.address.hex()
        assert receipt["type"] == hex(fields["type"])
    assert int(anvil.rpc("eth_getBalance", "0x" + TO.hex(), "latest"), 16) == sum(range(100))
    assert signer.counts().rfc6979 == 0


def test_a_delegation_takes_effect(anvil, signer):
    target = b"\x73" * 20
    delegation = sign_authorization(signer, CHAIN, target, 1)
    template = Template(
        signer,
        type=4,
        chain_id=CHAIN,
        to=TO,
        gas=100_000,
        caps=CAPS,
        authorizations=[delegation],
    )
    assert send(anvil, template, 0, tip_wei=1)["status"] == "0x1"
    code = anvil.rpc("eth_getCode", "0x" + signer.address.hex(), "latest")
    assert code == "0xef0100" + target.hex()
    # The account has used two nonces: the transaction's, and the delegation's.
    assert anvil.rpc("eth_getTransactionCount", "0x" + signer.address.hex(), "latest") == "0x2"


def test_an_unprotected_transaction_and_a_contract_creation(anvil, signer):
    # PUSH1 0 SLOAD ... : returns one byte of code, 0x00
    init = bytes.fromhex("6001600c60003960016000f300")
    template = Template(
        signer, type=0, chain_id=None, to=None, gas=200_000, caps=CAPS, data=Calldata(init)
    )
    receipt = send(anvil, template, 0)
    assert receipt["status"] == "0x1"
    assert anvil.rpc("eth_getCode", receipt["contractAddress"], "latest") == "0x00"


def deployed_multicall3(node: Anvil) -> bytes:
    """Multicall3, from the creation code that viem ships."""
    source = (npm_packages() / "viem/constants/contracts.ts").read_text()
    code = source.split("multicall3Bytecode")[1].split("'")[1]
    (sender,) = node.rpc("eth_accounts")[:1]
    sent = node.rpc("eth_sendTransaction", {"from": sender, "data": code, "gas": hex(3_000_000)})
    return bytes.fromhex(mined(node, sent)["contractAddress"][2:])


def test_a_multicall_saves_what_it_says(anvil, signer):
    contract = deployed_multicall3(anvil)
    # Stores the second word of calldata under the first: SSTORE(CALLDATALOAD 4, CALLDATALOAD 36).
    store = bytes.fromhex("600780600b6000396000f36024356004355500")
    receipt = send(
        anvil,
        Template(signer, type=2, chain_id=CHAIN, to=None, gas=200_000, caps=CAPS, data=store),
        0,
    )
    target = bytes.fromhex(receipt["contractAddress"][2:])
    count = 5
    alone = 0
    for turn in range(count):
        data = encode_call("put(uint256,uint256)", [turn + 1, turn + 100])
        template = Template(
            signer, type=2, chain_id=CHAIN, to=target, gas=100_000, caps=CAPS, data=data
        )
        alone += int(send(anvil, template, 1 + turn)["gasUsed"], 16)
    calls = [
        Call(target, encode_call("put(uint256,uint256)", [Slot(f"key{i}"), Slot(f"value{i}")]))
        for i in range(count)
    ]
    whole = multicall(calls)
    template = Template(
        signer, type=2, chain_id=CHAIN, to=contract, gas=500_000, caps=CAPS, data=whole.data
    )
    values = {f"key{i}": 50 + i for i in range(count)} | {f"value{i}": 7 + i for i in range(count)}
    receipt = send(anvil, template, 1 + count, slots=whole.data.pack(**values))
    together = int(receipt["gasUsed"], 16)
    for i in range(count):
        word = anvil.rpc("eth_getStorageAt", "0x" + target.hex(), hex(50 + i), "latest")
        assert int(word, 16) == 7 + i
    assert whole.round_trips_saved == count - 1
    # What the contract itself uses lies between: at most 3,000 gas a call.
    assert whole.intrinsic_gas_saved - 3000 * count < alone - together
    assert alone - together < whole.intrinsic_gas_saved
    print(f"alone {alone}, together {together}, said {whole.intrinsic_gas_saved}")


def test_eth_account_agrees_on_who_signed(signer):
    template = Template(signer, type=2, chain_id=CHAIN, to=TO, gas=21_000, caps=CAPS)
    raw = bytes(template.fire(0, 10**11))
    assert Account.recover_transaction(raw) == Account.from_key(SECRET).address
