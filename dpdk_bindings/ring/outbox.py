"""An endpoint that another core sends for (``include/dpdk_bindings/outbox.h`` tells how)."""

from __future__ import annotations

from typing import Any

from dpdk_bindings._native import ffi, lib
from dpdk_bindings.ring.producer import RingProducer

__all__ = ["Outbox"]


class Outbox:
    """Sends by endpoint number `endpoint` of the core at the other end of a lossless ring.

    Attributes:
        ref: ``struct dpb_datagram_ref *`` for native code.
    """

    def __init__(self, ring: RingProducer, endpoint: int) -> None:
        self._ring = ring  # kept: the native side borrows it
        self._native: Any = ffi.new("struct dpb_outbox *")
        lib.dpb_outbox_open(self._native, ring.handle, endpoint)
        self.ref: Any = ffi.new("struct dpb_datagram_ref *")
        lib.dpb_outbox_ref(self._native, self.ref)

    def send(self, peer: int, payload: bytes) -> bool:
        """Hands `payload` over for that peer of the endpoint; False where the ring is full."""
        return bool(lib.dpb_outbox_send(self._native, peer, payload, len(payload)))

    def flush(self) -> bool:
        """True: nothing is left to do here, the other core sends at its next turn."""
        return True
