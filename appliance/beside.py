"""Processes beside a hot one, for what may take its time."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Sequence
from typing import Any

from appliance.core import spare_cpus
from appliance.signals import held

__all__ = ["start_beside"]


def start_beside(words: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Starts a process that does not inherit the core of a hot thread.

    It is taken from it from outside: beside a thread that spins it would have half of the core, or
    (SCHED_FIFO) nothing, so it could not leave by itself. The priority is not inherited either, see
    `Hot.harden`.

    SIGTERM, SIGINT and SIGHUP do not reach it: what is sent to a whole group of processes is its
    owner's to handle, who ends it (`Popen.kill`).

    Args:
        words: the command.
        options: of `subprocess.Popen`.
    """
    with held():  # inherited over exec: signal(7)
        process = subprocess.Popen(words, **options)
    # On the kernel's isolated cores nothing moves by itself, so ours must not be among them.
    if spare := spare_cpus():
        with contextlib.suppress(ProcessLookupError):  # it has ended, as its owner will see
            os.sched_setaffinity(process.pid, spare)
    return process
