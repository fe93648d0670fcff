"""No test of the default suite takes long: the rule is 5 s, and what takes twice that fails.

The whole suite is run before anything lands, so it has to stay short; what takes longer is marked
`slow` and leaves a short sibling behind. People wait for the clock, but it is the clock that a
loaded machine stretches, and no test may depend on a quiet one. So a part of a test (its fixtures,
its call, its end) is judged only where the machine was its own: where others took no more than a
tenth of the CPUs meanwhile (what /proc/uptime does not call idle, less what getrusage(2) calls
ours). And a machine that is merely slower fails nobody: between 5 s and 10 s a test is named at the
end, no more.
"""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

__all__ = ["LONG", "Reading", "installing", "verdict"]

LONG = ("slow", "fuzz", "soak")
RULE_S = 5.0
FAILS_AFTER_S = 2 * RULE_S
OTHERS_SHARE = 0.1


@dataclass(frozen=True)
class Reading:
    """Seconds: of the clock, that the CPUs were idle (all together), and that they were ours."""

    clock: float
    idle: float
    ours: float

    @classmethod
    def now(cls) -> Reading:
        """As things are, but for what went into installing."""
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return cls(
            clock=time.monotonic() - _installing[0],
            idle=float(Path("/proc/uptime").read_text().split()[1]) - _installing[1],
            ours=sum(one.ru_utime + one.ru_stime for one in used) - _installing[2],
        )


_installing = [0.0, 0.0, 0.0]  # as in Reading


@contextlib.contextmanager
def installing() -> Iterator[None]:
    """What a fresh checkout lacks is fetched or compiled: that is none of the test's own time."""
    before = Reading.now()
    try:
        yield
    finally:
        after = Reading.now()
        _installing[0] += after.clock - before.clock
        _installing[1] += after.idle - before.idle
        _installing[2] += after.ours - before.ours


def verdict(before: Reading, after: Reading, cpus: int) -> str:
    """What is to be said of the time between: nothing, "long", or "too long", which fails.

    Children are ours when they have been waited for. Those that live on count as others: whom
    they excuse is excused.
    """
    seconds = after.clock - before.clock
    taken = cpus * seconds - (after.idle - before.idle)
    others = taken - (after.ours - before.ours)
    if seconds <= RULE_S or others > OTHERS_SHARE * cpus * seconds:
        return ""
    return "too long" if seconds > FAILS_AFTER_S else "long"


_BEGAN = pytest.StashKey[Reading]()
_NAMED = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_NAMED] = []


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    item.stash[_BEGAN] = Reading.now()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport]:
    """Called at the end of each part, which began at the end of the one before."""
    report = yield
    before, after = item.stash[_BEGAN], Reading.now()
    item.stash[_BEGAN] = after
    found = verdict(before, after, os.cpu_count() or 1)
    if found and not any(item.get_closest_marker(mark) for mark in LONG):
        said = f"{report.nodeid} ({report.when}) took {after.clock - before.clock:.1f} s"
        item.config.stash[_NAMED].append(said)
        if found == "too long" and report.passed:
            report.outcome = "failed"
            report.longrepr = (
                f"{said}, on a machine of its own; the default suite's tests take {RULE_S:g} s at "
                "most. Make it shorter, or mark it slow and leave a short one beside it."
            )
    return report


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    for said in config.stash[_NAMED]:
        terminalreporter.write_line(f"longer than {RULE_S:g} s: {said}")
