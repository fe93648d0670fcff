"""JSON from somebody else: whatever is wrong with it is one kind of error, and nothing worse.

A decoder descends by recursion and stops at Python's recursion limit. Libraries that are often in
the same process raise that limit (web3's do, to 100,000); then 100 kB of opening brackets overflow
the stack, and the process is gone. So its depth is asked first. Text that is no UTF-8 and depths
below the bound raise what msgspec does not document; here they are its own error.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import TypeVar

import msgspec

__all__ = ["DEEPEST", "decode_json", "too_deep"]

T = TypeVar("T")

DEEPEST = 2_500
"""Levels: a trace of calls has two for each of the EVM's 1,024."""

_OTHERS = bytes(set(range(256)) - set(b"{}[]"))
_STEP = [0] * 256
for _opening, _closing in (b"{}", b"[]"):
    _STEP[_opening], _STEP[_closing] = 1, -1
_AT_ONCE = 1 << 16


def decode_json(decode: Callable[..., T], text: bytes | bytearray | memoryview) -> T:
    """`text` by `decode`, the method of a `msgspec.json.Decoder`.

    Raises:
        msgspec.DecodeError: it is not what the decoder expects, whatever it is instead.
    """
    if too_deep(text):
        raise msgspec.DecodeError(f"nested deeper than {DEEPEST:,} levels")
    try:
        return decode(text)
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from error


def too_deep(text: bytes | bytearray | memoryview) -> bool:
    """Whether `text` nests more than `DEEPEST` levels; brackets in strings count as well."""
    if isinstance(text, memoryview):
        text = bytes(text)
    if len(text) <= DEEPEST or text.count(b"{") + text.count(b"[") <= DEEPEST:
        return False
    brackets = bytes(text).translate(None, _OTHERS)
    depth = 0
    for start in range(0, len(brackets), _AT_ONCE):
        steps = map(_STEP.__getitem__, brackets[start : start + _AT_ONCE])
        depths = list(accumulate(steps, initial=depth))
        if max(depths) > DEEPEST:
            return True
        depth = depths[-1]
    return False
