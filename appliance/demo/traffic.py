"""The demo's transactions: a real mainnet block among signed transactions of every other type."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

from appliance.mainnet_block import has_block, load_block_transactions
from barewire.feeds.envelope import to_messages
from barewire.interpreter import recursion_limit_kept

with recursion_limit_kept():
    from eth_account import Account
    from eth_utils.address import to_checksum_address

__all__ = ["LEAST", "WATCHED", "build", "payloads"]

WATCHED = {
    "uniswap-v2": "0x7a250d5630b4cf539739df2c5dacb4c659f2488d",
    "uniswap-v3": "0xe592427a0aece92de3edee1f18e0157c05861564",
    "uniswap-v3-02": "0x68b3465833fb72a70ecdf485e0e4c7bd8665fc45",
    "universal": "0x66a9893cc07d91d95644aedd05d03f95e1dba8af",
    "sushiswap": "0xd9e1ce17f2641f24ae83637ab66a2cca9c378b9f",
    "0x": "0xdef1c0ded9bec7f1a1670819833240f027b25eff",
    "balancer": "0xba12222222228d8ba445958a75a0704d566bf2c8",
    "multicall3": "0xca11bde05977b3631167028862be2a173976ca11",
}
"""Mainnet contracts that the demo's triggers watch for, by name."""

LEAST = 400
"""Messages: the block takes less than half of them."""

_KEY = "0x" + "42" * 32
_SHARE_WATCHED = 0.1
_WEI = 10**18
_MAX_MESSAGE = 1450  # in datagrams of 1472 bytes


def build(messages: int, seed: int, progress: Callable[[int], None]) -> list[bytes]:
    """Signed transactions that take `messages` feed messages in datagrams of 1472 bytes.

    The block's transactions, where the package that holds it is installed, stand evenly among the
    others; those too long for a datagram take several messages.

    Args:
        messages: how many messages in all; at least `LEAST`.
        seed: of everything random here.
        progress: called with the number of transactions made so far.
    """
    block = load_block_transactions() if has_block() else []
    left = messages - sum(len(to_messages(envelope, _MAX_MESSAGE, 0)) for envelope in block)
    signed = _signed(random.Random(seed))  # noqa: S311 - to be repeated
    every = left // max(len(block), 1)
    made: list[bytes] = []
    for number in range(left):
        made.append(next(signed))
        if (number + 1) % every == 0 and block:
            made.append(block.pop(0))
        if number % 256 == 0:
            progress(number)
    progress(messages)
    return made + block


def payloads(count: int) -> list[bytes]:
    """What the demo's shots send: `count` signed transactions with nonces from 0 on."""
    account = Account.from_key("0x" + "43" * 32)
    fields: dict[str, Any] = {
        "type": 2,
        "chainId": 1,
        "gas": 250_000,
        "maxFeePerGas": 60 * 10**9,
        "maxPriorityFeePerGas": 3 * 10**9,
        "to": _checksummed(WATCHED["uniswap-v2"]),
        "value": 0,
        "data": "0x38ed1739" + "00" * 256,
    }
    return [
        bytes(account.sign_transaction(fields | {"nonce": nonce}).raw_transaction)
        for nonce in range(count)
    ]


def _signed(rng: random.Random) -> Iterator[bytes]:
    """Signed transactions of types 0 to 4, each with another value, for ever."""
    account = Account.from_key(_KEY)
    watched = [_checksummed(address) for address in WATCHED.values()]
    nonce = 0
    while True:
        kind = rng.choice((0, 1, 2, 2, 2, 2, 3, 4))
        to = rng.choice(watched) if rng.random() < _SHARE_WATCHED else _random_address(rng)
        fields: dict[str, Any] = {
            "nonce": nonce,
            "gas": 400_000,
            "to": to,
            "value": rng.randrange(10 * _WEI),
            "data": rng.randbytes(4 + 32 * rng.randrange(9)),
            "chainId": 1,
        }
        if kind in (0, 1):
            fields["gasPrice"] = 40 * 10**9
        else:
            fields["maxFeePerGas"] = 60 * 10**9
            fields["maxPriorityFeePerGas"] = 2 * 10**9
        if kind:
            fields["type"] = kind
            fields["accessList"] = [
                {"address": to, "storageKeys": ["0x" + rng.randbytes(32).hex()]}
            ]
        if kind == 3:
            fields["maxFeePerBlobGas"] = 10**9
            fields["blobVersionedHashes"] = ["0x01" + rng.randbytes(31).hex()]
        if kind == 4:
            authorization = {"chainId": 1, "address": to, "nonce": nonce}
            fields["authorizationList"] = [account.sign_authorization(authorization)]
        yield bytes(account.sign_transaction(fields).raw_transaction)
        nonce += 1


def _random_address(rng: random.Random) -> str:
    return _checksummed("0x" + rng.randbytes(20).hex())


def _checksummed(address: str) -> str:
    return str(to_checksum_address(address))
