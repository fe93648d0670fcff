"""Processes beside a hot one, for what may take its time."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from typing import Any

__all__ = ["start_beside"]


def start_beside(words: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Starts a process that inherits neither the core nor the priority of a hot thread.

    Both are taken from it from outside: under SCHED_FIFO on the core of a thread that spins it
    would never run, and could not do it itself.

    Args:
        words: the command.
        options: of `subprocess.Popen`.
    """
    process = subprocess.Popen(words, **options)
    here = os.sched_getaffinity(0)
    everywhere = set(range(os.cpu_count() or 1))
    try:
        os.sched_setscheduler(process.pid, os.SCHED_OTHER, os.sched_param(0))
        # On the kernel's isolated cores nothing moves by itself, so ours must not be among them.
        if len(here) == 1:
            os.sched_setaffinity(process.pid, (everywhere - here) or here)
    except ProcessLookupError:
        pass  # it has ended already, as whoever waits for it will see
    return process
