"""Where rings live: names, paths, file descriptors, and what the native side said of them."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import Any

from dpdk_bindings._native import ffi, lib
from dpdk_bindings.ring.errors import RingError

__all__ = ["check", "granule", "open_ring", "remove_ring", "ring_path", "text"]

_MAGIC_TMPFS = 0x01021994  # linux/magic.h
_MAGIC_HUGETLBFS = 0x958458F6


def text(chars: Any) -> str:
    """The NUL-terminated `chars`, whatever they are."""
    raw = ffi.string(chars)
    return raw.decode(errors="replace") if isinstance(raw, bytes) else raw


def ring_path(where: str) -> Path | None:
    """The path that `where` names, None for one without (memfd); RingError where it is neither."""
    scheme, colon, name = where.partition(":")
    if not colon and where.startswith("/") and "\0" not in where:
        return Path(where)
    if scheme not in ("shm", "huge", "memfd") or not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name):
        raise RingError(
            f'"{where}" does not say where a ring is',
            hint="shm:NAME, huge:NAME, memfd:NAME or a path; NAME of letters, digits, . _ -",
        )
    if scheme == "memfd":
        return None
    folder = "/dev/shm"  # noqa: S108 - the place of shared memory; files are 0600 and checked
    if scheme == "huge":
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
        found = [mount[1] for mount in mounts if mount[2] == "hugetlbfs"]
        if not found:
            raise RingError(
                f"{where}: no hugetlbfs is mounted",
                hint="mount -t hugetlbfs none /dev/hugepages, after setting vm.nr_hugepages",
            )
        folder = found[0]
    return Path(folder) / f"dpb-{name}.ring"


def granule(fd: int, where: str) -> int:
    """The page size of the file system of `fd`, which must be one that lives in memory."""
    kind = os.fstat(fd)
    magic = lib.dpb_ring_filesystem(fd)
    if magic == _MAGIC_HUGETLBFS:
        return kind.st_blksize
    if magic != _MAGIC_TMPFS:
        raise RingError(
            f"{where}: on a disk (file system type {magic:#x})",
            hint="a ring lies on a tmpfs or hugetlbfs: a mapped disk file stalls who writes it",
        )
    return os.sysconf("SC_PAGESIZE")


def _named(where: str) -> Path:
    path = ring_path(where)
    if path is None:
        raise RingError(f"ring {where}: has no name to others", hint="attach by its descriptor")
    return path


def open_ring(where: str | int, flags: int) -> int:
    """An open file description of its own; the locks on it tell who lives."""
    path = Path(f"/proc/self/fd/{where}") if isinstance(where, int) else _named(where)
    follow = 0 if isinstance(where, int) else os.O_NOFOLLOW
    try:
        return os.open(path, flags | os.O_CLOEXEC | follow)
    except OSError as error:
        raise RingError(
            f"ring {where}: {error.strerror}",
            hint="nobody created it yet" if error.errno == errno.ENOENT else "",
        ) from error


def check(result: int, where: str | int, why: Any) -> None:
    """Raises what the native side said in `why` when `result` is a negative errno."""
    if result < 0:
        hints = {
            -errno.EBADMSG: "if nobody needs what is in it: remove_ring(), and create it anew",
            -errno.EPERM: "rings belong to the user who runs them, with mode 0600",
        }
        raise RingError(f"ring {where}: {text(why)}", hint=hints.get(result, ""))


def remove_ring(where: str) -> None:
    """Removes the ring's file, and with it what nobody has read; who has it open keeps it."""
    try:
        _named(where).unlink()
    except FileNotFoundError:
        raise RingError(f"ring {where}: there is none") from None
    except OSError as error:
        raise RingError(f"ring {where}: {error.strerror}") from error
