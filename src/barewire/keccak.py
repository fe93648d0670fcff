"""Keccak-256 as Ethereum uses it.

This is the original Keccak of the Ethereum yellow paper (appendix B), not FIPS 202's SHA3-256.
"""

from __future__ import annotations

from collections.abc import Sequence

from barewire._native import ffi, lib

__all__ = ["keccak256", "keccak256_many", "keccak_width"]

Buffer = bytes | bytearray | memoryview


def keccak256(data: Buffer) -> bytes:
    """Hashes `data` (any contiguous buffer) and returns the 32-byte digest."""
    view = ffi.from_buffer(data)
    out = ffi.new("uint8_t[32]")
    lib.bw_keccak256(ffi.cast("uint8_t *", view), len(view), out)
    return bytes(out)


def keccak256_many(messages: Sequence[Buffer]) -> list[bytes]:
    """Hashes each of `messages`, as many at once as the CPU has lanes; digests in their order."""
    count = len(messages)
    jobs = ffi.new("struct bw_keccak_job[]", count)
    out = ffi.new("uint8_t[]", 32 * count)
    views = [ffi.from_buffer(message) for message in messages]
    for number, view in enumerate(views):
        jobs[number] = (ffi.cast("uint8_t *", view), out + 32 * number, len(view), -1)
    lib.bw_keccak256_many(jobs, count)
    digests = bytes(ffi.buffer(out))
    return [digests[at : at + 32] for at in range(0, 32 * count, 32)]


def keccak_width() -> int:
    """How many messages `keccak256_many` hashes at once: 8 (AVX-512), 4 (AVX2) or 1."""
    return lib.bw_keccak_width()
