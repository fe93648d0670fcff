"""New blocks, as a node tells of them (``eth_subscribe`` to ``newHeads``)."""

from __future__ import annotations

import msgspec

from barewire.untrusted import bytes_of, quantity_of

__all__ = ["Block", "block_of"]


class Block(msgspec.Struct, frozen=True, gc=False):
    """The head of a chain, as a node says: nothing of it has been checked.

    Attributes:
        number: its height. A height comes again with another hash where the chain was reorganised.
        hash: 32 bytes.
        parent_hash: 32 bytes.
        timestamp_s: since 1970, as the block says.
        base_fee_wei: a gas (EIP-1559), or None where the chain has none.
    """

    number: int
    hash: bytes
    parent_hash: bytes
    timestamp_s: int
    base_fee_wei: int | None = None


class _Header(msgspec.Struct, rename="camel"):
    number: str
    hash: str
    parent_hash: str
    timestamp: str
    base_fee_per_gas: str | None = None


class _Params(msgspec.Struct):
    result: _Header
    subscription: str | int = ""


class _Notification(msgspec.Struct):
    params: _Params


_decode = msgspec.json.Decoder(_Notification).decode


def block_of(notification: bytes) -> Block | None:
    """The block that a notification of a subscription tells of; None: it is of something else.

    `notification` is JSON whose depth was checked already.
    """
    try:
        said = _decode(notification).params.result
        fee = said.base_fee_per_gas
        return Block(
            number=quantity_of(said.number),
            hash=bytes_of(said.hash, 32),
            parent_hash=bytes_of(said.parent_hash, 32),
            timestamp_s=quantity_of(said.timestamp),
            base_fee_wei=None if fee is None else quantity_of(fee, 256),
        )
    except ValueError:  # msgspec's errors are ValueErrors too
        return None
