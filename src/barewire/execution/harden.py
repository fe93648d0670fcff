"""What a process that holds a key asks of the kernel for itself."""

from __future__ import annotations

import ctypes
import resource

__all__ = ["harden"]

_PR_SET_DUMPABLE = 4  # linux/prctl.h


def harden() -> None:
    """Makes this process undumpable: no core file, and no ptrace or /proc/PID/mem by its own user.

    Root (CAP_SYS_PTRACE) is not stopped (prctl(2), ptrace(2)). Costs nothing while running; a
    debugger has to be root from here on. Children made by exec are dumpable again.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE)")
