"""A UDP frame taken apart, one at a time: for tools that read captures, not for fast paths."""

from __future__ import annotations

from typing import Any, NamedTuple

from dpdk_bindings._native import ffi, lib

__all__ = ["UdpFrame", "parse_udp"]


class UdpFrame(NamedTuple):
    """What a frame carried: payload (a copy), source and destination port."""

    payload: bytes
    source_port: int
    dest_port: int


def parse_udp(frame: bytes | memoryview, *, verify: bool = True) -> UdpFrame | None:
    """Takes an Ethernet frame (native/headers.h) apart; None: not one sound UDP datagram.

    Args:
        frame: from the Ethernet header on.
        verify: whether the UDP checksum must be right. Captures made at the sender hold checksums
            that were left to the hardware.
    """
    held = ffi.from_buffer("uint8_t[]", frame)
    udp: Any = ffi.new("struct dpb_udp *")
    if lib.dpb_udp_parse(held, len(held), verify, udp):
        return None
    payload = bytes(ffi.buffer(udp.payload, udp.payload_len))
    return UdpFrame(payload, udp.source_port, udp.dest_port)
