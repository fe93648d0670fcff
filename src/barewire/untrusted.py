"""What somebody else says, made harmless before anybody prints, stores or computes with it.

Every word of a server or a peer that ends in an exception, an event, a log, a table or a counter's
name passes :func:`printable` first; every number and every run of bytes in hexadecimal digits is
read by :func:`quantity_of` and :func:`bytes_of`; every JSON text by :func:`decode_json`.

A decoder of JSON descends by recursion and stops at Python's recursion limit. Libraries that are
often in the same process raise that limit (web3's do, to 100,000); then 100 kB of opening brackets
overflow the stack, and the process is gone. So its depth is asked first. Text that is no UTF-8 and
depths below the bound raise what msgspec does not document; here they are its own error.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import accumulate
from typing import TypeVar

import msgspec

from barewire.errors import shown

__all__ = [
    "DEEPEST",
    "LONGEST",
    "bytes_of",
    "decode_json",
    "escaped",
    "printable",
    "quantity_of",
    "too_deep",
]

T = TypeVar("T")

DEEPEST = 2_500
"""Levels: a trace of calls has two for each of the EVM's 1,024."""

LONGEST = 300
"""Characters that are kept of what somebody else says; what was cut ends in an ellipsis."""

_QUANTITY = re.compile("0[xX]([0-9a-fA-F]{1,64})", re.ASCII)
_BYTES = re.compile("0[xX]([0-9a-fA-F]*)", re.ASCII)
_SPACE = re.compile(r"[ \t\r\n]+")

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
    except (ValueError, RecursionError) as error:  # no UTF-8, or more digits than Python turns
        raise msgspec.DecodeError(str(error)) from error


def printable(said: object, most: int = LONGEST) -> str:
    """`said` as one line of at most `most` characters that means nothing to a terminal or a log.

    Runs of white space become one space. Control characters, marks that reorder or hide text
    (Unicode's Cc, Cf, Zl, Zp), halves of surrogate pairs and unassigned code points are written as
    escapes; bytes that are no UTF-8 as well. What is no text is abbreviated, however deep it nests.
    """
    if isinstance(said, bytes | bytearray | memoryview):
        said = bytes(said[: 4 * most]).decode(errors="backslashreplace")
    elif isinstance(said, BaseException):
        said = str(said)
    elif isinstance(said, int) and said.bit_length() > 512:  # Python refuses to write some of them
        said = f"a number of {said.bit_length()} bits"
    elif not isinstance(said, str):
        said = shown(said)
    line = _SPACE.sub(" ", said[: 4 * most]).strip()
    line = escaped(line)
    return line if len(line) <= most else line[: most - 1] + "…"


def escaped(text: str, but: str = "") -> str:
    """`text` with what does not stand for a visible character as escapes, `but` for these."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in but else ascii(c)[1:-1] for c in text)


def quantity_of(said: object, bits: int = 64) -> int:
    """The number that a quantity of JSON-RPC says (EIP-1474): ``0x`` and hexadecimal digits.

    Zeros in front are let pass, as nodes differ in that.

    Raises:
        ValueError: it is none, or takes more than `bits` bits.
    """
    found = _QUANTITY.fullmatch(said) if isinstance(said, str) else None
    if found is None:
        raise ValueError(f"not a quantity: {printable(said, 80)}")
    number = int(found[1], 16)
    if number >> bits:
        raise ValueError(f"a quantity of more than {bits} bits: {printable(said, 80)}")
    return number


def bytes_of(said: object, length: int | None = None) -> bytes:
    """The bytes of ``0x`` and pairs of hexadecimal digits (EIP-1474), `length` of them.

    Raises:
        ValueError: it is none, or another number of bytes than `length`.
    """
    found = _BYTES.fullmatch(said) if isinstance(said, str) else None
    if found is None or len(found[1]) % 2:
        raise ValueError(f"not hexadecimal bytes: {printable(said, 80)}")
    data = bytes.fromhex(found[1])
    if length is not None and len(data) != length:
        raise ValueError(f"{len(data)} bytes, not {length}: {printable(said, 80)}")
    return data


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
