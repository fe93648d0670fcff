"""Helpers of a hot thread run although it spins, and where it does not."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.requires import requires, requires_root

CHILD = "import os; print(os.sched_getscheduler(0), sorted(os.sched_getaffinity(0)))"
# A thread as hot as there are any, which spins until its helper has ended.
PARENT = f"""
import subprocess, sys, time
from appliance.beside import start_beside
from appliance.config import Core
from appliance.core import Hot
cpu, fifo = int(sys.argv[1]), int(sys.argv[2]) or None
with Hot(Core(name="t", cpu=cpu if cpu >= 0 else None, fifo=fifo, lock_memory=False)) as hot:
    hot.settle()
    hot.harden()
    child = start_beside([sys.executable, "-c", {CHILD!r}], stdout=subprocess.PIPE)
    until = time.monotonic() + 30
    while child.poll() is None and time.monotonic() < until:
        pass
    print(child.returncode, child.stdout.read().decode() if child.returncode == 0 else "")
    child.kill()
"""


@pytest.mark.parametrize(("pinned", "fifo"), [(True, 40), (True, 0), (False, 0)])
def test_a_helper_runs_although_the_hot_thread_spins(pinned, fifo):
    requires_root()
    allowed = sorted(os.sched_getaffinity(0))
    requires(len(allowed) > 1, "two CPUs")
    cpu = allowed[0] if pinned else -1
    done = subprocess.run(
        [sys.executable, "-P", "-c", PARENT, str(cpu), str(fifo)],
        capture_output=True,
        text=True,
        timeout=30,
    )
    status, _, said = done.stdout.strip().partition(" ")
    assert status == "0", done
    policy, _, cpus = said.partition(" ")
    assert int(policy) == os.SCHED_OTHER
    assert cpus == str(allowed[1:] if pinned else allowed)
