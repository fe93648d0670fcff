"""Signed transactions out of files: hex lines, JSON lines, length-prefixed binary, captures."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from appliance.captures import is_capture, read_capture
from barewire.errors import BarewireError
from barewire.untrusted import decode_json

__all__ = ["FORMATS", "read_envelopes"]

_JSON = msgspec.json.Decoder()
_KEYS = ("raw", "rawTransaction", "raw_transaction", "rawTx")


def read_envelopes(path: Path, kind: str = "auto") -> list[bytes]:
    """Reads every envelope in the file at `path`.

    Args:
        path: the file.
        kind: one of :data:`FORMATS`, or ``auto``: told from the first bytes.

    Raises:
        BarewireError: the file cannot be read, or something in it is not what it should be; the
            error names the line or the byte.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BarewireError(f"{path}: {error.strerror}", hint="name a readable file") from error
    if kind == "auto":
        kind = "hex" if path.suffix == ".hex" else _guess(content)
    envelopes = FORMATS[kind](path, content)
    if not envelopes:
        raise BarewireError(f"{path}: no transaction in it, read as {kind}")
    return envelopes


def _guess(content: bytes) -> str:
    if is_capture(content):
        return "pcap"
    start = content[:64].lstrip()
    if start[:1] in (b"{", b'"'):
        return "jsonl"
    if start[:1] == b"#" or re.match(rb"(0x)?[0-9a-fA-F]{2}", start):
        return "hex"
    return "binary"


def _hex_lines(path: Path, content: bytes) -> list[bytes]:
    envelopes = []
    for number, line in enumerate(content.decode("ascii", "replace").splitlines(), 1):
        text = line.strip()
        if text and not text.startswith("#"):
            envelopes.append(_unhex(text, f"{path}:{number}"))
    return envelopes


def _json_lines(path: Path, content: bytes) -> list[bytes]:
    envelopes = []
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            value: Any = decode_json(_JSON.decode, line)
        except msgspec.DecodeError as error:
            raise BarewireError(f"{where}: not JSON: {error}") from None
        if isinstance(value, dict):
            value = next((value[key] for key in _KEYS if key in value), None)
        if not isinstance(value, str):
            raise BarewireError(
                f"{where}: no raw transaction in it",
                hint=f"a hex string, or an object with one under {', '.join(_KEYS)}",
            )
        envelopes.append(_unhex(value, where))
    return envelopes


def _unhex(text: str, where: str) -> bytes:
    try:
        envelope = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        raise BarewireError(f"{where}: {text[:40]!r} is not hexadecimal") from None
    if not envelope:
        raise BarewireError(f"{where}: an empty transaction")
    return envelope


def _binary(path: Path, content: bytes) -> list[bytes]:
    """Each envelope behind its length, 4 bytes, big-endian."""
    envelopes, at = [], 0
    while at < len(content):
        length = int.from_bytes(content[at : at + 4])
        end = at + 4 + length
        if len(content) < at + 4 or end > len(content) or not length:
            raise BarewireError(
                f"{path}: at byte {at} a transaction of {length} bytes is announced, and "
                f"{max(0, len(content) - at - 4)} bytes follow",
                hint="length-prefixed binary is 4 bytes of length, big-endian, then the envelope",
            )
        envelopes.append(content[at + 4 : end])
        at = end
    return envelopes


FORMATS: dict[str, Callable[[Path, bytes], list[bytes]]] = {
    "hex": _hex_lines,
    "jsonl": _json_lines,
    "binary": _binary,
    "pcap": lambda path, _content: read_capture(path),
}
"""Readers by the name of what they read."""
