"""Takes an XDP program off its interface from outside, as `bpftool link detach` does."""

from __future__ import annotations

import ctypes
import os
import struct

__all__ = ["detach"]

_SYS_BPF = 321  # x86-64
_GET_FD_BY_ID, _NEXT_ID, _INFO_BY_FD, _DETACH = 30, 31, 15, 34  # linux/bpf.h, enum bpf_cmd


def _bpf(command: int, attributes: bytes) -> tuple[int, bytes]:
    room = ctypes.create_string_buffer(attributes, 128)
    return ctypes.CDLL(None, use_errno=True).syscall(_SYS_BPF, command, room, 128), room.raw


def detach(program_id: int) -> int:
    """Detaches every link of that program; how many there were."""
    number = found = 0
    while True:
        result, answer = _bpf(_NEXT_ID, struct.pack("=II", number, 0))
        if result < 0:
            return found
        number = struct.unpack_from("=I", answer, 4)[0]
        link, _ = _bpf(_GET_FD_BY_ID, struct.pack("=I", number))
        if link < 0:
            continue  # it ended meanwhile
        info = ctypes.create_string_buffer(256)
        _bpf(_INFO_BY_FD, struct.pack("=IIQ", link, 256, ctypes.addressof(info)))
        if struct.unpack_from("=I", info.raw, 8)[0] == program_id:
            result, _ = _bpf(_DETACH, struct.pack("=I", link))
            assert result == 0, os.strerror(ctypes.get_errno())
            found += 1
        os.close(link)
