"""What a process that holds a key asks of the kernel for itself."""

from __future__ import annotations

import ctypes
import os
import resource
from pathlib import Path

__all__ = ["harden", "lock_memory", "traced_by"]

_PR_SET_DUMPABLE = 4  # linux/prctl.h
_MCL_CURRENT, _MCL_FUTURE = 1, 2  # asm-generic/mman.h


def harden() -> None:
    """Makes this process undumpable: no core file, and no ptrace or /proc/PID/mem by its own user.

    Root (CAP_SYS_PTRACE) is not stopped (prctl(2), ptrace(2)). Costs nothing while running; a
    debugger has to be root from here on. Children made by exec are dumpable again.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE)")


def lock_memory() -> str:
    """Keeps all memory of this process out of swap, what it takes later too (mlockall(2)).

    Returns:
        An empty string, or why that was not done: a limit that later allocations could exceed
        (they would then fail) is left alone.
    """
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    if limit != resource.RLIM_INFINITY and os.geteuid():
        return f"RLIMIT_MEMLOCK is {limit >> 10} KiB (LimitMEMLOCK=infinity in the unit)"
    if ctypes.CDLL(None, use_errno=True).mlockall(_MCL_CURRENT | _MCL_FUTURE):
        return os.strerror(ctypes.get_errno())
    return ""


def traced_by() -> int:
    """The process that traces this one, or 0: who did before :func:`harden` still does."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("TracerPid:")[2].split()[0])
