"""Starts the processes of a demo, so that none of them outlives it and Ctrl-C is heard."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Collection, Sequence
from typing import Any

from appliance.core import die_with_parent
from appliance.signals import held

__all__ = ["Side", "start"]

Side = subprocess.Popen[str]

_PATIENCE_S = 5.0


def start(
    stack: contextlib.ExitStack, command: Sequence[str], *, cpus: Collection[int] = (), **how: Any
) -> Side:
    """Starts one side, and ends it with `stack`; it is killed should we end without that.

    Signals wait until it runs: what their handlers raise while Python forks is lost, as it may come
    out of a hook (os.register_at_fork; logging has one).

    Args:
        stack: ends it.
        command: its words.
        cpus: the cores that it may have; where there are none, ours.
        **how: see `subprocess.Popen`.
    """
    with held() as before:

        def prepare() -> None:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            die_with_parent()
            if cpus:
                os.sched_setaffinity(0, cpus)

        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=prepare,
            **how,
        )
        stack.callback(_end, process)
    return process


def _end(process: Side) -> None:
    process.terminate()
    try:
        process.communicate(timeout=_PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
