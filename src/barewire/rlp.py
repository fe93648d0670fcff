"""RLP, the encoding half (Ethereum yellow paper, appendix B).

Decoding what a network sent is native (`barewire.mempool.decoder`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

__all__ = ["Item", "encode"]

Item: TypeAlias = "int | bytes | Sequence[Item]"
"""What can be encoded: an integer of any size from 0 on, a string of bytes, a list of items."""


def encode(item: Item) -> bytes:
    """Encodes `item`; integers are big-endian without leading zeros, 0 is the empty string."""
    if isinstance(item, int):
        item = item.to_bytes((item.bit_length() + 7) // 8, "big")
    if isinstance(item, bytes):
        if len(item) == 1 and item[0] < 0x80:
            return item
        return _header(0x80, len(item)) + item
    payload = b"".join(map(encode, item))
    return _header(0xC0, len(payload)) + payload


def _header(base: int, length: int) -> bytes:
    if length < 56:
        return bytes([base + length])
    size = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([base + 55 + len(size)]) + size
