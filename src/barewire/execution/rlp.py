"""Recursive length prefix (yellow paper, appendix B), for what is encoded ahead of time."""

from __future__ import annotations

from typing import TypeAlias

from barewire.rlp import DEPTH, Item, encode

__all__ = ["DEPTH", "Item", "decode", "encode"]

Decoded: TypeAlias = "bytes | list[Decoded]"


def _split(data: bytes, at: int, limit: int) -> tuple[bool, int, int]:
    """Whether a list starts at `at`, and where its content begins and ends, `limit` at most."""
    if at >= limit:
        raise ValueError(f"nothing at {at}")
    first = data[at]
    if first < 0x80:
        return False, at, at + 1
    base = 0xC0 if first >= 0xC0 else 0x80
    begin, length = at + 1, first - base
    if length > 55:
        size = length - 55
        raw = data[begin : min(begin + size, limit)]
        begin, length = begin + size, int.from_bytes(raw, "big")
        if len(raw) < size or raw[0] == 0 or length < 56:
            raise ValueError(f"length at {at} is cut off or not in its shortest form")
    end = begin + length
    if end > limit:
        raise ValueError(f"item at {at} ends at {end}, beyond {limit} bytes")
    if base == 0x80 and length == 1 and data[begin] < 0x80:
        raise ValueError(f"byte at {at} is not in its shortest form")
    return base == 0xC0, begin, end


def _read(data: bytes, at: int, limit: int, levels: int) -> tuple[Decoded, int]:
    is_list, begin, end = _split(data, at, limit)
    if not is_list:
        return data[begin:end], end
    if not levels:
        raise ValueError(f"lists nested more than {DEPTH} deep")
    items: list[Decoded] = []
    while begin < end:
        item, begin = _read(data, begin, end, levels - 1)
        items.append(item)
    return items, end


def decode(data: bytes) -> Decoded:
    """Decodes one item that is all of `data`; only the shortest forms are accepted.

    Raises:
        TypeError: `data` is no string of bytes.
        ValueError: anything else, and lists nested more than `DEPTH` deep.
    """
    if not isinstance(data, bytes):
        raise TypeError(f"RLP is read from bytes, not {type(data).__name__}")
    item, end = _read(data, 0, len(data), DEPTH)
    if end != len(data):
        raise ValueError(f"{len(data) - end} bytes after the item")
    return item
