"""The packets of ``bench wire``: distinct signed swaps in MoldUDP64 datagrams, one in each."""

from __future__ import annotations

import struct
from typing import Any

from eth_account import Account
from eth_utils.address import to_checksum_address

from barewire.feeds.envelope import to_messages
from barewire.feeds.mold_publisher import MoldPublisher

__all__ = ["WATCHED", "datagrams", "prepared_reply", "written"]

WATCHED = "0x7a250d5630b4cf539739df2c5dacb4c659f2488d"
"""The router that everybody watches: each packet meets it."""


def datagrams(count: int) -> list[bytes]:
    """`count` datagrams of one EIP-1559 swap each, all different, all validly signed."""
    publisher = MoldPublisher("BENCHWIRE")
    return [
        datagram
        for number in range(count)
        for datagram in publisher.pack(to_messages(_swap("0x" + "44" * 32, number), 1450, number))
    ]


def prepared_reply() -> bytes:
    """What is sent back: a signed swap as well, prepared beforehand."""
    return _swap("0x" + "45" * 32, 0)


def written(packets: list[bytes]) -> bytes:
    """`packets` as native/wire_sender.c reads them."""
    return b"".join(struct.pack("=I", len(packet)) + packet for packet in packets)


def _swap(key: str, nonce: int) -> bytes:
    fields: dict[str, Any] = {
        "type": 2,
        "chainId": 1,
        "nonce": nonce,
        "gas": 250_000,
        "maxFeePerGas": 60 * 10**9,
        "maxPriorityFeePerGas": 2 * 10**9,
        "to": to_checksum_address(WATCHED),
        "value": 0,
        "data": "0x38ed1739" + f"{10**18 + nonce:064x}" + "00" * 224,
    }
    return bytes(Account.sign_transaction(fields, key).raw_transaction)
