"""What a message of a feed holds: a signed transaction, or a piece of a long one.

Format: docs/feed-format.md; the work is done by native/fragment.h.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from barewire._native import ffi, lib
from barewire.errors import BarewireError
from barewire.mempool.record import ORIGINS, Origin

__all__ = ["CAUSES", "Reassembler", "ReassemblerConfig", "to_messages"]

CAUSES = {
    lib.BW_FRAGMENT_EMPTY: "empty",
    lib.BW_FRAGMENT_TYPE: "type",
    lib.BW_FRAGMENT_HEADER: "header",
    lib.BW_FRAGMENT_LENGTH: "length",
    lib.BW_FRAGMENT_TOO_LONG: "too_long",
    lib.BW_FRAGMENT_CONFLICT: "conflict",
    lib.BW_FRAGMENT_BUSY: "busy",
}
"""Why a message gave no envelope and never will (``enum bw_fragment_cause``)."""

_WHOLE = bytes([lib.BW_FEED_WHOLE])


def to_messages(
    envelope: bytes, max_message: int, fragment_id: int, *, origin: Origin = "announced"
) -> list[bytes]:
    """The messages that carry `envelope`, each of at most `max_message` bytes.

    Args:
        envelope: a signed EIP-2718 transaction.
        max_message: what fits a datagram (:attr:`MoldPublisher.max_message`).
        fragment_id: 64 bits that tell its pieces from those of other envelopes of the same
            publisher; unused where one message suffices.
        origin: how the publisher came by it; receivers are told.

    Raises:
        BarewireError: the envelope is empty or would take more than 4096 pieces.
    """
    if 0 < len(envelope) < max_message and origin == "announced":
        return [_WHOLE + envelope]
    number = ORIGINS.index(origin)
    count = lib.bw_fragments_needed(len(envelope), number, max_message)
    if not count:
        raise BarewireError(
            f"an envelope of {len(envelope)} bytes cannot be sent in messages of {max_message}",
            hint="at least 1 byte, at most 4096 pieces",
        )
    room = ffi.new("uint8_t[]", max_message)
    held = ffi.from_buffer("uint8_t[]", envelope)
    return [
        bytes(
            ffi.buffer(
                room,
                lib.bw_fragments_write(held, len(envelope), number, fragment_id, i, count, room),
            )
        )
        for i in range(count)
    ]


@dataclass(frozen=True, slots=True)
class ReassemblerConfig:
    """Bounds of reassembly.

    Attributes:
        slots: envelopes put together at once; a newcomer evicts the oldest.
        max_bytes: of one envelope.
        max_age_ns: an envelope whose pieces take longer is dropped.
    """

    slots: int = 64
    max_bytes: int = 1 << 20
    max_age_ns: int = 5_000_000_000

    def native(self) -> Any:
        """``struct bw_fragment_config *`` of these values."""
        config: Any = ffi.new("struct bw_fragment_config *")
        config.slots, config.max_bytes = self.slots, self.max_bytes
        config.max_age_ns = self.max_age_ns
        return config


class Reassembler:
    """Messages in, whole envelopes out.

    Attributes:
        native: ``struct bw_fragments *``, for native loops; valid as long as this object.
        origin: how the publisher came by what :meth:`push` gave last.
    """

    def __init__(self, config: ReassemblerConfig | None = None) -> None:
        chosen = config or ReassemblerConfig()
        self.native: Any = ffi.gc(lib.bw_fragments_new(chosen.native()), lib.bw_fragments_free)
        if not self.native:
            raise BarewireError(
                f"reassembly of {chosen.slots} envelopes of {chosen.max_bytes} bytes each",
                hint="1 to 4096 slots, 1 byte to 16 MiB, and memory for both",
            )
        self._envelope: Any = ffi.new("struct bw_envelope *")
        self.origin: Origin = "announced"
        self._stats = lib.bw_fragments_stats(self.native)

    def push(self, message: bytes, now_mono_ns: int, source: int = 0) -> bytes | None:
        """Takes a message; gives the envelope that it holds or completes, or None.

        Whatever is wrong with it is counted (:meth:`stats`), never raised.
        """
        held = ffi.from_buffer("uint8_t[]", message)
        done = lib.bw_fragments_push(
            self.native, source, held, len(held), now_mono_ns, self._envelope
        )
        if done != 1:
            return None
        envelope = bytes(ffi.buffer(self._envelope.data, self._envelope.len))
        self.origin = ORIGINS[self._envelope.origin]
        lib.bw_fragments_release(self.native, self._envelope)
        return envelope

    def expire(self, now_mono_ns: int) -> int:
        """Drops envelopes whose pieces took too long; returns how many."""
        return lib.bw_fragments_expire(self.native, now_mono_ns)

    def stats(self) -> dict[str, Any]:
        """Every counter (``struct bw_fragment_stats``), causes by name."""
        scalars = {
            name: getattr(self._stats, name)
            for name, field in ffi.typeof("struct bw_fragment_stats").fields
            if field.type.kind == "primitive"
        }
        return scalars | {
            "refused": {name: self._stats.refused[cause] for cause, name in CAUSES.items()}
        }

    def samples(self) -> dict[str, bytes]:
        """The last message of each cause seen, its first 64 bytes."""
        kept = {}
        for cause, name in CAUSES.items():
            if self._stats.refused[cause]:
                sample = self._stats.sample[cause]
                kept[name] = bytes(ffi.buffer(sample.bytes, min(sample.len, len(sample.bytes))))
        return kept
