"""De-duplication of transactions by hash: bounded, age-limited, safe against flooding.

The work is done by native/dedup.h; native loops use it directly (:attr:`Dedup.native`).
"""

from __future__ import annotations

import secrets
from typing import Any

from barewire._native import ffi, lib
from barewire.errors import BarewireError

__all__ = ["Dedup"]


class Dedup:
    """Remembers which hashes were seen, and by which sources.

    Args:
        entries: how many hashes are remembered, a power of two; 64 bytes each.
        max_age_ns: for how long, from the last time that it was announced or read.

    Attributes:
        native: ``struct bw_dedup *``, for native loops; valid as long as this object.
    """

    def __init__(self, *, entries: int = 1 << 18, max_age_ns: int = 600_000_000_000) -> None:
        if not 0 <= max_age_ns < 2**64:
            raise BarewireError(f"max_age_ns = {max_age_ns}", hint="0 to 2^64 - 1")
        native = ffi.NULL
        if 0 <= entries < 2**32:
            native = lib.bw_dedup_new(entries, max_age_ns, secrets.token_bytes(16))
        if native == ffi.NULL:
            raise BarewireError(
                f"entries = {entries}", hint="a power of two from 8 to 2^28, 64 bytes each"
            )
        self.native: Any = ffi.gc(native, lib.bw_dedup_free)

    def seen(self, tx_hash: bytes, *, source: int = 0, now_mono_ns: int) -> bool:
        """Whether `tx_hash` (32 bytes) came before; if not, it has now.

        `source` tells up to 64 sources apart.
        """
        return bool(lib.bw_dedup_seen(self.native, _of_32(tx_hash), source, now_mono_ns))

    def sources(self, tx_hash: bytes) -> list[int]:
        """Numbers of the sources that have brought `tx_hash`."""
        bits: int = lib.bw_dedup_sources(self.native, _of_32(tx_hash))
        return [source for source in range(lib.BW_DEDUP_SOURCES) if bits >> source & 1]

    def stats(self) -> dict[str, Any]:
        """Every counter; those by source are lists, for as many sources as were heard."""
        stats = lib.bw_dedup_stats(self.native)
        counts: dict[str, Any] = {
            name: int(getattr(stats, name)) for name in ("first", "seen", "expired", "evicted")
        }
        heard = [i for i in range(lib.BW_DEDUP_SOURCES) if stats.first_of[i] or stats.seen_of[i]]
        counts["first_of"] = {i: int(stats.first_of[i]) for i in heard}
        counts["seen_of"] = {i: int(stats.seen_of[i]) for i in heard}
        return counts


def _of_32(tx_hash: bytes) -> bytes:
    if len(tx_hash) != 32:
        raise BarewireError(f"a hash of {len(tx_hash)} bytes", hint="32 bytes")
    return bytes(tx_hash)
