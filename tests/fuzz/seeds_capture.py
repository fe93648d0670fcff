"""Captures of both kinds, whole and cut, with blocks and options of every sort."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator

from tests.unit.test_port_pcap import block, interface, option, packet, section


def seeds() -> Iterator[bytes]:
    rng = random.Random(5)
    for endian in "<>":
        for magic in (0xA1B2C3D4, 0xA1B23C4D):
            header = struct.pack(endian + "IHHIIII", magic, 2, 4, 0, 0, 65535, 1)
            record = struct.pack(endian + "IIII", 1, 2, 5, 9) + b"frame"
            yield header + 3 * record
            yield header + record[:-1]
        flags = option(endian, 1, b"words") + option(endian, 2, struct.pack(endian + "I", 2))
        whole = section(endian) + interface(endian, resolution=b"\x89", offset=bytes(8))
        whole += interface(endian, 113) + packet(endian, 0, 2**40, b"frame", flags + bytes(4))
        whole += packet(endian, 1, 3, b"cooked") + packet(endian, 0, 4, b"frame")
        whole += block(endian, 3, struct.pack(endian + "I", 5) + b"frame\0\0\0")
        whole += block(endian, 2, struct.pack(endian + "HHIIII", 0, 0, 1, 2, 4, 4) + b"old!")
        yield whole + section("<>"[endian == "<"]) + whole
        for _ in range(20):
            changed = bytearray(whole)
            for _ in range(rng.randrange(1, 4)):
                changed[rng.randrange(len(changed))] = rng.randrange(256)
            yield bytes(changed)
