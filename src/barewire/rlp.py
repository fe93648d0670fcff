"""RLP, the encoding half (Ethereum yellow paper, appendix B).

Decoding what a network sent is native (`barewire.mempool.decoder`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from barewire.errors import shown

__all__ = ["DEPTH", "Item", "encode"]

Item: TypeAlias = "int | bytes | Sequence[Item]"
"""What can be encoded: an integer of any size from 0 on, a string of bytes, a list of items."""

DEPTH = 64
"""How deep lists may be nested; those of a transaction are at most 4 deep."""


def encode(item: Item) -> bytes:
    """Encodes `item`; integers are big-endian without leading zeros, 0 is the empty string.

    Raises:
        TypeError: text, or anything else that is no integer, string of bytes or sequence.
        ValueError: an integer below 0, or lists nested more than `DEPTH` deep.
    """
    return _encode(item, DEPTH)


def _encode(item: Item, levels: int) -> bytes:
    if isinstance(item, int):
        if item < 0:
            raise ValueError(f"RLP has no numbers below 0, and this is {item:#x}")
        item = item.to_bytes((item.bit_length() + 7) // 8, "big")
    elif isinstance(item, bytearray | memoryview):
        item = bytes(item)
    if isinstance(item, bytes):
        if len(item) == 1 and item[0] < 0x80:
            return item
        return _header(0x80, len(item)) + item
    # A string is a sequence of strings: without end.
    if isinstance(item, str) or not isinstance(item, Sequence):
        raise TypeError(f"RLP carries integers, bytes and lists of them, not {shown(item)}")
    if not levels:
        raise ValueError(f"lists nested more than {DEPTH} deep")
    payload = b"".join(_encode(part, levels - 1) for part in item)
    return _header(0xC0, len(payload)) + payload


def _header(base: int, length: int) -> bytes:
    if length < 56:
        return bytes([base + length])
    size = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([base + 55 + len(size)]) + size
