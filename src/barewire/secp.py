"""Which libsecp256k1 this process uses: found at start, loaded once, reported."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from barewire._native import ffi, lib
from barewire.errors import BarewireError

__all__ = ["Library", "load", "recover"]

# The sonames of releases 0.2 to 0.7, newest first; Debian 12 has .1, Debian 13 has .2.
_SYSTEM = [f"libsecp256k1.so.{version}" for version in range(6, 0, -1)]
_HINT = "install Debian's libsecp256k1-1 (libsecp256k1-2 from Debian 13 on), or coincurve from PyPI"


@dataclass(frozen=True)
class Library:
    """The library in use.

    Attributes:
        path: the file that was loaded, links resolved.
        version: what the file says of itself: the end of its name (``1.0.0`` for
            ``libsecp256k1.so.1.0.0``), or ``coincurve 21.0.0`` for the copy inside that wheel.
            libsecp256k1 itself exports no version.
    """

    path: str
    version: str


def _inside_coincurve() -> list[str]:
    spec = importlib.util.find_spec("coincurve")  # found, not imported
    folders = spec.submodule_search_locations if spec else None
    return [str(file) for f in folders or [] for file in Path(f).glob("_libsecp256k1*.so")]


def _text(pointer: Any) -> str:
    raw = ffi.string(pointer)
    assert isinstance(raw, bytes)
    return raw.decode(errors="replace")


def _describe() -> Library:
    path = _text(lib.bw_secp_path())
    if Path(path).parent.name == "coincurve":
        return Library(path, f"coincurve {importlib.metadata.version('coincurve')}")
    return Library(path, Path(path).name.partition(".so.")[2])


def load(path: str | None = None) -> Library:
    """Loads libsecp256k1 (only the first call does anything) and says which one it is.

    Args:
        path: the library to use; by default the system's, else the one inside coincurve's wheel.

    Raises:
        BarewireError: none could be loaded, or another one than `path` is already in use.
    """
    tried = []
    for candidate in [path] if path else [*_SYSTEM, *_inside_coincurve()]:
        if lib.bw_secp_load(candidate.encode()) == 0:
            break
        tried.append(_text(lib.bw_secp_error()))
    else:
        raise BarewireError(
            "no usable libsecp256k1: " + ("; ".join(tried) or "none found"), hint=_HINT
        )
    library = _describe()
    if path and "/" in path and Path(path).resolve() != Path(library.path):
        raise BarewireError(
            f"libsecp256k1 {library.path} is already in use, so {path} was not loaded",
            hint="name the library before anything signs or recovers",
        )
    return library


def recover(digest: bytes, r: bytes, s: bytes, y_parity: int) -> bytes | None:
    """The 20-byte address that signed the 32-byte `digest`, or None if nobody can have.

    `r` and `s` are 32 bytes each, big-endian; `y_parity` is 0 or 1. A high s is accepted, as by
    the ECRECOVER precompile (yellow paper, appendix E); transactions must refuse it (EIP-2).
    """
    if not (len(digest) == len(r) == len(s) == 32):
        raise ValueError("digest, r and s are 32 bytes each")
    load()
    address = ffi.new("uint8_t[20]")
    return bytes(address) if lib.bw_secp_recover(digest, r + s, y_parity, address) == 1 else None
