"""A thread made hot: pinned, named, its memory local, locked and never collected.

Each step that the machine refuses is said in :attr:`Hot.warnings`, but for what was asked for by
name (a core, SCHED_FIFO): that it cannot have is an error. :meth:`Hot.settle` comes before
anything is opened, so that all memory is taken where it will be used; :meth:`Hot.harden` behind
it, when everything that is needed is there; the end of the ``with`` undoes both.
"""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import re
from pathlib import Path
from typing import Any

from appliance.config import Core
from barewire.errors import BarewireError, ConfigError

__all__ = ["Hot", "die_with_parent", "spare_cpus"]

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_NAME = 15  # linux/prctl.h
_MCL_CURRENT, _MCL_FUTURE = 1, 2  # asm-generic/mman.h
_MPOL_DEFAULT, _MPOL_PREFERRED = 0, 1  # linux/mempolicy.h
_SET_MEMPOLICY = {"x86_64": 238, "aarch64": 237}.get(platform.machine())
_RT = Path("/proc/sys/kernel/sched_rt_runtime_us")


_spare: set[int] = set()


def spare_cpus() -> set[int]:
    """What this process might use before its hot thread was pinned, but for that core.

    Empty where it was not pinned, or has no other.
    """
    return _spare


class Hot:
    """The calling thread, which is to be a process's main thread, on its core.

    Attributes:
        chosen: what was done, by part.
        warnings: what could not be, and what it costs.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self.chosen: dict[str, Any] = {"stages": " ".join(core.stages)}
        self.warnings: list[str] = []
        self._before = os.sched_getaffinity(0), os.sched_getscheduler(0), os.sched_getparam(0)
        self._name = Path("/proc/self/comm").read_bytes().rstrip(b"\n")
        self._local = self._locked = False

    def settle(self) -> None:
        """Pins the thread, names it, and asks for memory of its own NUMA node.

        Raises:
            ConfigError: the core is none that this process may use.
        """
        _libc.prctl(_PR_SET_NAME, f"bw-{self._core.name}".encode()[:15], 0, 0, 0)
        cpu = self._core.cpu
        if cpu is None:
            self.chosen["cpu"] = "not pinned"
            return
        try:
            os.sched_setaffinity(0, {cpu})
        except OSError as error:
            allowed = ", ".join(map(str, sorted(self._before[0])))
            raise ConfigError(
                f"core {self._core.name!r}: cpu = {cpu}: {error.strerror}",
                hint=f"this process may use {allowed}",
            ) from error
        self.chosen["cpu"] = cpu
        _spare.update(self._before[0] - {cpu})
        self._prefer_node(_node_of(cpu))

    def _prefer_node(self, node: int | None) -> None:
        self.chosen["numa_node"] = "only one" if node is None else node
        if node is None or _SET_MEMPOLICY is None:
            return
        mask = ctypes.c_ulong(1 << node)
        if _libc.syscall(_SET_MEMPOLICY, _MPOL_PREFERRED, ctypes.byref(mask), 64):
            self.warnings.append(
                f"memory is taken from any NUMA node: {os.strerror(ctypes.get_errno())}"
            )
        self._local = True

    def harden(self) -> None:
        """Locks all memory, touches it, freezes the garbage, and takes the real-time priority.

        Raises:
            ConfigError: SCHED_FIFO was asked for and is refused.
        """
        if self._core.lock_memory:
            # Present and future pages are there from now on: no turn faults.
            self._locked = _libc.mlockall(_MCL_CURRENT | _MCL_FUTURE) == 0
            if not self._locked:
                why = os.strerror(ctypes.get_errno())
                self.warnings.append(
                    f"memory is not locked ({why}): a page fault can hold a packet up; raise "
                    "`ulimit -l`, or set lock_memory = false"
                )
        self.chosen["memory"] = "locked" if self._locked else "not locked"
        gc.collect()
        gc.freeze()
        gc.disable()
        self._take_priority()

    def _take_priority(self) -> None:
        fifo = self._core.fifo
        self.chosen["scheduler"] = "other" if fifo is None else f"fifo {fifo}"
        if fifo is None:
            return
        try:
            # Its children begin without it: a new one would otherwise come before its parent.
            policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
            os.sched_setscheduler(0, policy, os.sched_param(fifo))
        except PermissionError as error:
            raise ConfigError(
                f"core {self._core.name!r}: fifo = {fifo}: {error.strerror}",
                hint="needs root, CAP_SYS_NICE, or LimitRTPRIO= in the unit",
            ) from error
        if (runtime_us := int(_RT.read_text())) != -1:
            period_us = int(_RT.with_name("sched_rt_period_us").read_text())
            away_ms = (period_us - runtime_us) / 1000
            self.warnings.append(
                f"kernel.sched_rt_runtime_us = {runtime_us}: of every {period_us / 1000:g} ms the "
                f"kernel may give {away_ms:g} ms of a spinning SCHED_FIFO core to other threads; "
                "-1 switches this throttling off"
            )

    def __enter__(self) -> Hot:
        return self

    def __exit__(self, *_: object) -> None:
        gc.enable()
        gc.unfreeze()
        cores, scheduler, parameters = self._before
        if os.sched_getscheduler(0) != scheduler:
            # Who has no privileges may not let go of the flag.
            os.sched_setscheduler(0, scheduler | os.SCHED_RESET_ON_FORK, parameters)
        if self._locked:
            _libc.munlockall()
        if self._local and _SET_MEMPOLICY is not None:
            _libc.syscall(_SET_MEMPOLICY, _MPOL_DEFAULT, None, 0)
        os.sched_setaffinity(0, cores)
        _spare.clear()
        _libc.prctl(_PR_SET_NAME, self._name, 0, 0, 0)


def die_with_parent() -> None:
    """Has the kernel kill this process when the thread that made it ends, however it ends."""
    if _libc.prctl(1, 9, 0, 0, 0):  # PR_SET_PDEATHSIG, SIGKILL
        raise BarewireError(f"prctl: {os.strerror(ctypes.get_errno())}")


def _node_of(cpu: int) -> int | None:
    """The NUMA node of `cpu`, or None where there is only one."""
    nodes = [path.name for path in Path("/sys/devices/system/node").glob("node[0-9]*")]
    if len(nodes) < 2:
        return None
    here = Path(f"/sys/devices/system/cpu/cpu{cpu}").glob("node[0-9]*")
    return next((int(re.sub(r"\D", "", path.name)) for path in here), None)
