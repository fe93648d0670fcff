"""Keccak-256 as Ethereum uses it."""

from __future__ import annotations

from barewire._native import ffi, lib

__all__ = ["keccak256"]


def keccak256(data: bytes | bytearray | memoryview) -> bytes:
    """Hashes `data` (any contiguous buffer) and returns the 32-byte digest.

    This is the original Keccak of the Ethereum yellow paper (appendix B), not FIPS 202's SHA3-256.
    """
    view = ffi.from_buffer(data)
    out = ffi.new("uint8_t[32]")
    lib.bw_keccak256(ffi.cast("uint8_t *", view), len(view), out)
    return bytes(out)
