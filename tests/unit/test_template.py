"""Templates of every type, against eth-account."""

from __future__ import annotations

import copy
import os
import pickle
import random
from collections.abc import Iterator
from typing import Any

import pytest
from eth_account import Account
from eth_account.datastructures import SignedTransaction

from barewire.errors import BarewireError
from barewire.execution.calldata import Calldata, Place, Slot, encode_call
from barewire.execution.keys import Key
from barewire.execution.signer import PresignedSigner, Rfc6979Signer
from barewire.execution.template import (
    AccessEntry,
    Authorization,
    Caps,
    Template,
    sign_authorization,
)

SECRET = b"\x42" * 32
OPEN = Caps(2**64 - 1, 2**64 - 1, 2**128 - 1, 2**64 - 1)
SWAP = "swapExactTokensForTokens(uint256,uint256,address[],address,uint256)"


@pytest.fixture(scope="module")
def signer() -> Iterator[Rfc6979Signer]:
    with Key.from_bytes(SECRET) as key, Rfc6979Signer(key) as signer:
        yield signer


def number(rng: random.Random, bits: int) -> int:
    """Any width is as likely as any other; zero, and the widths' limits, often."""
    width = rng.randrange(bits + 1)
    return rng.choice((rng.getrandbits(width) if width else 0, 2**width - 1, 0))


def raw(rng: random.Random, length: int) -> bytes:
    return rng.choice((rng.randbytes(length), bytes(length)))


def case(rng: random.Random, kind: int) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """A random template, what it is fired with, and the same for eth-account."""
    data = raw(rng, rng.choice((0, 1, 2, 4, 36, 55, 56, 200, 255, 256, 300, 5000)))
    places = []
    if len(data) >= 2 and rng.random() < 0.8:
        width = rng.randrange(1, min(33, len(data)))
        at = rng.randrange(len(data) - width + 1)
        places.append(Place("slot", at, width, "bytes"))
    slots = rng.randbytes(sum(place.width for place in places))
    sent = bytearray(data)
    for place in places:
        sent[place.offset : place.offset + place.width] = slots
    to = rng.randbytes(20) if kind > 2 or rng.random() < 0.9 else None
    access = [
        AccessEntry(rng.randbytes(20), [raw(rng, 32) for _ in range(rng.randrange(4))])
        for _ in range(rng.randrange(4) if kind else 0)
    ]
    chain_id = number(rng, 63) + 1 if kind or rng.random() < 0.8 else None
    made: dict[str, Any] = {
        "type": kind,
        "chain_id": chain_id,
        "to": to,
        "gas": number(rng, 40) + 1,
        "data": Calldata(data, tuple(places)),
        "access_list": access,
    }
    fee = number(rng, 64)
    fired: dict[str, Any] = {
        "nonce": min(number(rng, 64), 2**64 - 2),
        "fee_cap_wei": fee,
        "value_wei": number(rng, 128),
        "slots": slots,
    }
    other: dict[str, Any] = {
        "nonce": fired["nonce"],
        "gas": made["gas"],
        "value": fired["value_wei"],
        "data": bytes(sent),
        "to": to or b"",
    }
    if chain_id is not None:
        other["chainId"] = chain_id
    if kind:
        other["type"] = kind
        other["accessList"] = [
            {
                "address": "0x" + entry.address.hex(),
                "storageKeys": ["0x" + key.hex() for key in entry.storage_keys],
            }
            for entry in access
        ]
    if kind < 2:
        other["gasPrice"] = fee
    else:
        fired["tip_wei"] = rng.randrange(fee + 1)
        other["maxFeePerGas"] = fee
        other["maxPriorityFeePerGas"] = fired["tip_wei"]
    if kind == 3:
        hashes = [b"\1" + rng.randbytes(31) for _ in range(rng.randrange(1, 7))]
        made["blob_versioned_hashes"] = hashes
        fired["blob_fee_cap_wei"] = number(rng, 64)
        other["blobVersionedHashes"] = hashes
        other["maxFeePerBlobGas"] = fired["blob_fee_cap_wei"]
    if kind == 4:
        auths = [
            Authorization(
                number(rng, 64),
                rng.randbytes(20),
                number(rng, 63),
                rng.randrange(2),
                number(rng, 255).to_bytes(32, "big"),
                number(rng, 255).to_bytes(32, "big"),
            )
            for _ in range(rng.randrange(1, 4))
        ]
        made["authorizations"] = auths
        other["authorizationList"] = [
            {
                "chainId": auth.chain_id,
                "address": auth.address,
                "nonce": auth.nonce,
                "yParity": auth.y_parity,
                "r": int.from_bytes(auth.r, "big"),
                "s": int.from_bytes(auth.s, "big"),
            }
            for auth in auths
        ]
    return made, fired, other


def expected(other: dict[str, Any]) -> SignedTransaction:
    return Account.sign_transaction(other, SECRET)


def compare(signer: Rfc6979Signer, seed: int, count: int) -> None:
    rng = random.Random(seed)
    for turn in range(count):
        made, fired, other = case(rng, turn % 5)
        template = Template(signer, caps=OPEN, **made)
        ours = bytes(template.fire(**fired))
        theirs = expected(other)
        assert ours == bytes(theirs.raw_transaction), (made, fired)
        assert template.hash() == bytes(theirs.hash)


def test_equal_to_eth_accounts(signer):
    compare(signer, int.from_bytes(os.urandom(4), "big"), 500)


@pytest.mark.slow
def test_equal_to_eth_accounts_a_hundred_thousand_times(signer):
    compare(signer, 5, 100_000)


def test_one_template_fired_again_and_again(signer):
    """Every width of every number, out of one template: nothing of the last time is left."""
    rng = random.Random(7)
    data = encode_call(
        SWAP, [Slot("amount"), Slot("least"), [b"\x11" * 20, b"\x22" * 20], b"\x33" * 20, 2**40]
    )
    template = Template(
        signer, type=2, chain_id=1, to=b"\x44" * 20, gas=180_000, caps=OPEN, data=data
    )
    for _ in range(300):
        fee = number(rng, 64)
        tip, nonce, value = rng.randrange(fee + 1), number(rng, 63), number(rng, 128)
        amount, least = number(rng, 256), number(rng, 256)
        ours = template.fire(nonce, fee, tip, value, data.pack(amount=amount, least=least))
        call = encode_call(SWAP, [amount, least, [b"\x11" * 20, b"\x22" * 20], b"\x33" * 20, 2**40])
        theirs = expected(
            {
                "type": 2,
                "chainId": 1,
                "nonce": nonce,
                "maxFeePerGas": fee,
                "maxPriorityFeePerGas": tip,
                "gas": 180_000,
                "to": b"\x44" * 20,
                "value": value,
                "data": call.data,
            }
        )
        assert bytes(ours) == bytes(theirs.raw_transaction)


def test_presigned_recovers_to_the_key():
    with (
        Key.from_bytes(SECRET) as key,
        PresignedSigner(key, capacity=64, accept_snapshot_risk=True) as signer,
    ):
        address = Account.from_key(SECRET).address
        rng = random.Random(1)
        for turn in range(300):
            made, fired, _ = case(rng, turn % 5)
            if made["chain_id"] is not None and made["chain_id"] > 2**62:
                made["chain_id"] = 1
            template = Template(signer, caps=OPEN, **made)
            assert Account.recover_transaction(bytes(template.fire(**fired))) == address


def test_an_authorization_is_signed_as_eth_account_does(signer):
    ours = sign_authorization(signer, 1, b"\x55" * 20, 7)
    theirs = Account.from_key(SECRET).sign_authorization(
        {"chainId": 1, "address": b"\x55" * 20, "nonce": 7}
    )
    assert (ours.chain_id, ours.address, ours.nonce) == (1, b"\x55" * 20, 7)
    assert (ours.y_parity, int.from_bytes(ours.r, "big"), int.from_bytes(ours.s, "big")) == (
        theirs.y_parity,
        theirs.r,
        theirs.s,
    )


# ---- what is refused, before anything is signed ----

CAPS = Caps(fee_cap_wei=100, tip_wei=50, value_wei=1000, blob_fee_cap_wei=9)
BAD_NUMBERS = [
    ({"nonce": 2**64 - 1}, "nonce 18446744073709551615"),
    ({"nonce": 2**70}, "nonce"),
    ({"nonce": -1}, "nonce -1"),
    ({"fee_cap_wei": 101}, "fee cap 101 wei: the template allows 0 to 100"),
    ({"fee_cap_wei": 2**64}, "fee cap"),
    ({"fee_cap_wei": -1}, "fee cap -1"),
    ({"tip_wei": 51}, "tip 51 wei: the template allows 0 to 50"),
    ({"tip_wei": 2**65}, "tip"),
    ({"fee_cap_wei": 10, "tip_wei": 11}, "above the fee cap"),
    ({"value_wei": 1001}, "value 1001 wei: the template allows 0 to 1000"),
    ({"value_wei": 2**64}, "value"),
    ({"value_wei": 2**128}, "value"),
    ({"value_wei": -1}, "value -1"),
    ({"blob_fee_cap_wei": 1}, "blob fee cap 1 wei: the template allows 0 to 0"),
    ({"blob_fee_cap_wei": 2**64}, "blob fee cap"),
    ({"slots": b""}, "0 bytes were given for slots of 32"),
    ({"slots": bytes(31)}, "31 bytes"),
    ({"slots": bytes(33)}, "33 bytes"),
]


@pytest.mark.parametrize(("bad", "said"), BAD_NUMBERS)
def test_numbers_out_of_bounds_are_refused_before_anything_is_signed(bad, said):
    with Key.from_bytes(SECRET) as key, Rfc6979Signer(key) as signer:
        data = encode_call("f(uint256)", [Slot("x")])
        template = Template(signer, type=2, chain_id=1, to=bytes(20), gas=1, caps=CAPS, data=data)
        good = {"nonce": 0, "fee_cap_wei": 100, "tip_wei": 1, "slots": bytes(32)}
        with pytest.raises(BarewireError, match=said) as caught:
            template.fire(**{**good, **bad})
        assert "nothing was signed" in caught.value.message
        assert signer.counts().rfc6979 == 0
        with pytest.raises(BarewireError, match="nothing was fired"):
            template.hash()
        assert template.fire(**good)


def test_a_tip_where_there_is_none_is_refused(signer):
    template = Template(signer, type=1, chain_id=1, to=bytes(20), gas=1, caps=CAPS)
    with pytest.raises(BarewireError, match="tip 1 wei: the template allows 0 to 0"):
        template.fire(0, 100, 1)


def test_the_last_nonce_is_signed(signer):
    template = Template(signer, type=2, chain_id=1, to=bytes(20), gas=1, caps=CAPS)
    assert template.fire(2**64 - 2, 1)


def authorized(**changed: Any) -> dict[str, Any]:
    good = Authorization(1, bytes(20), 0, 0, b"\1" * 32, b"\1" * 32)
    return {"type": 4, "authorizations": [good._replace(**changed)]}


BAD_FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"type": 5}, "unknown transaction type 5"),
    ({"type": -1}, "unknown transaction type"),
    ({"chain_id": None}, "needs a chain id"),
    ({"chain_id": 0}, "chain id 0"),
    ({"chain_id": 2**64}, "chain id"),
    ({"gas": 0}, "gas limit 0"),
    ({"gas": 2**64}, "gas limit"),
    ({"to": bytes(19)}, "to is 20 bytes, not 19"),
    ({"type": 3, "to": None, "blob_versioned_hashes": [b"\1" * 32]}, "cannot create"),
    ({"type": 0, "access_list": [AccessEntry(bytes(20))]}, "no access list"),
    ({"access_list": [AccessEntry(bytes(21))]}, "20 bytes, not 21"),
    ({"access_list": [AccessEntry(bytes(20), [bytes(31)])]}, "storage key is 32 bytes, not 31"),
    ({"type": 3}, "0 blob hashes"),
    ({"blob_versioned_hashes": [b"\1" * 32]}, "1 blob hashes in a transaction of type 2"),
    ({"type": 3, "blob_versioned_hashes": [b"\1" * 31]}, "32 bytes, not 31"),
    ({"type": 3, "blob_versioned_hashes": [bytes(32)]}, "begins with 1"),
    ({"type": 4}, "0 authorizations"),
    (
        {"type": 4, "authorizations": [Authorization(1, bytes(19), 0, 0, b"", b"")]},
        "20 bytes, not 19",
    ),
    ({"to": "0x" + "11" * 20}, "to is 20 bytes, not the str '0x11"),
    ({"access_list": [AccessEntry(20)]}, "20 bytes, not the int 20"),
    (authorized(chain_id=2**64), "chain_id 18446744073709551616"),
    (authorized(nonce=-1), "nonce -1"),
    (authorized(nonce=2**64 - 1), "nonce 18446744073709551615"),
    (authorized(y_parity=2), "y_parity 2"),
    (authorized(r=b"1"), "r is 32 bytes, not 1"),
    (authorized(s=bytes(33)), "s is 32 bytes, not 33"),
]


@pytest.mark.parametrize(("bad", "said"), BAD_FIELDS)
def test_fields_that_do_not_go_together_are_refused(signer, bad, said):
    good: dict[str, Any] = {"type": 2, "chain_id": 1, "to": bytes(20), "gas": 1, "caps": CAPS}
    with pytest.raises(BarewireError, match=said):
        Template(signer, **{**good, **bad})


@pytest.mark.parametrize("caps", [{"fee_cap_wei": 2**64}, {"fee_cap_wei": 1, "value_wei": -1}])
def test_caps_out_of_range_are_refused(caps):
    with pytest.raises(BarewireError, match="cap "):
        Caps(**caps)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_template_is_not_copied(duplicate):
    with Key.from_bytes(SECRET) as key, Rfc6979Signer(key) as signer:
        template = Template(signer, type=2, chain_id=1, to=bytes(20), gas=1, caps=CAPS)
        with pytest.raises(TypeError, match="owns native memory"):
            duplicate(template)


def test_a_closed_signer_signs_nothing():
    key = Key.from_bytes(SECRET)
    signer = Rfc6979Signer(key)
    template = Template(signer, type=2, chain_id=1, to=bytes(20), gas=1, caps=CAPS)
    signer.close()
    signer.close()
    with pytest.raises(BarewireError, match="closed"):
        template.fire(0, 1)
    key.close()
    with pytest.raises(BarewireError, match="closed"):
        Rfc6979Signer(key)
