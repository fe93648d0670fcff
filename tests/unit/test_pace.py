"""The suite's own rules: a test that takes long is found out, and one folder runs alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import conftest
from tests.pace import Reading, verdict

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("seconds", "idle", "ours", "said"),
    [
        (4.9, 9.8, 0.0, ""),
        (5.1, 10.2, 0.0, "long"),  # it slept
        (5.1, 0.0, 10.2, "long"),  # it worked, on both CPUs
        (5.1, 3.5, 5.9, "long"),
        (5.1, 3.0, 5.9, ""),  # others took 1.3 s of 10.2 s
        (10.1, 20.2, 0.0, "too long"),
        (10.1, 19.0, 0.0, "too long"),
        (10.1, 18.0, 0.0, ""),
        (60.0, 0.0, 2.0, ""),  # all CPUs were busy with something else
    ],
)
def test_who_takes_long_is_judged_where_the_machine_is_its_own(seconds, idle, ours, said):
    assert verdict(Reading(100, 7, 3), Reading(100 + seconds, 7 + idle, 3 + ours), 2) == said


TESTS = """
import pytest
def test_sleeps(clock): clock.now += 11
def test_dozes(clock): clock.now += 6
@pytest.fixture
def fixture(clock): clock.now += 11
def test_waits_for_its_fixture(fixture): pass
@pytest.mark.slow
def test_may_take_long(clock): clock.now += 100
def test_is_short(clock): clock.now += 4
"""
CONFTEST = """
import pytest
from tests import pace
class Clock:
    now = 0.0
    monotonic = staticmethod(lambda: Clock.now)
pace.time = Clock
pace.OTHERS_SHARE = 2.0  # however loaded this machine is
def pytest_configure(config): config.pluginmanager.register(pace)
@pytest.fixture
def clock(): return Clock
"""


def ran(folder: Path, *words: str, **environment: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words]
    done = subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True
    )
    return done.returncode, done.stdout + done.stderr


def test_who_takes_too_long_fails_and_is_named(tmp_path):
    (tmp_path / "pytest.ini").write_text(
        f"[pytest]\npythonpath = {ROOT}\nmarkers = slow: takes long\n"
    )
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_it.py").write_text(TESTS)
    status, said = ran(tmp_path, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    assert status == 1
    named = [line for line in said.splitlines() if line.startswith("longer than 5 s: ")]
    assert [line.split("::")[1] for line in named] == [
        "test_sleeps (call) took 11.0 s",
        "test_dozes (call) took 6.0 s",
        "test_waits_for_its_fixture (setup) took 11.0 s",
    ]
    assert "FAILED test_it.py::test_sleeps" in said
    assert "ERROR test_it.py::test_waits_for_its_fixture" in said
    assert "1 failed, 3 passed, 1 error" in said


def test_a_folder_runs_alone():
    status, said = ran(ROOT, "--group", "fuzz", "--collect-only")
    assert status == 0
    assert "tests/fuzz/" in said
    assert "tests/unit/" not in said


def test_a_group_that_is_not_there_is_named_with_those_that_are(pytestconfig, monkeypatch):
    monkeypatch.setattr(pytestconfig.option, "group", "wires")
    with pytest.raises(pytest.UsageError, match="no group is named 'wires'; there are chain, "):
        conftest.pytest_configure(pytestconfig)
