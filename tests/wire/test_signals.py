"""Stopped as supervisors and terminals do it: one clean end, and nothing is left."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

PATIENCE_S = 60.0
CORES = {
    "one": "",
    "two": '[[core]]\nname = "rx"\nstages = ["receive"]\n'
    '[[core]]\nname = "hit"\nstages = ["feed", "decode", "trigger"]\n'
    "[senders]\nworkers = 1\n",
}


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="barewire-test-") as name:
        yield Path(name)


def ready(process: subprocess.Popen[bytes], said: Path) -> bool:
    """It has begun, and a signal is its own to handle: held back, or caught."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    masks = re.findall(r"^Sig(?:Blk|Cgt):\s*(\w+)$", status, re.MULTILINE)
    return any(int(mask, 16) >> (signal.SIGTERM - 1) & 1 for mask in masks)


def started(process: subprocess.Popen[bytes], said: Path) -> bool:
    return b'"type":"start"' in said.read_bytes()


def wait_for(true: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < until
        time.sleep(0.005)


def children_of(group: int) -> list[int]:
    """Processes of that process group that run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, of_group = stat.read_text().rpartition(") ")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(of_group) == group and state != "Z":
            found.append(int(stat.parent.name))
    return found


@pytest.mark.parametrize(
    ("cores", "moment", "number"),
    [
        ("one", ready, signal.SIGTERM),
        ("one", started, signal.SIGINT),
        ("two", ready, signal.SIGINT),
        ("two", started, signal.SIGTERM),
    ],
)
def test_a_group_that_is_signalled_again_and_again_ends_once(
    folder, tmp_path, cores, moment, number
):
    config, said = tmp_path / "a.toml", tmp_path / "said"
    config.write_text(
        '[[source]]\nname = "site"\nlines = ["127.0.0.1:19077"]\n[recorder]\nmegabytes = 4\n'
        f'[metrics]\nfolder = "{folder}"\n{CORES[cores]}'
    )
    words = [sys.executable, "-c", "import sys; from appliance.cli import main; sys.exit(main())"]
    with said.open("wb") as out:
        process = subprocess.Popen(
            [*words, "run", "--config", str(config), "-o", "json"],
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_for(lambda: process.poll() is not None or moment(process, said))
        until = time.monotonic() + PATIENCE_S
        while process.poll() is None:
            assert time.monotonic() < until
            os.killpg(process.pid, number)
            time.sleep(0.01)
    finally:
        for left in (running := children_of(process.pid)):
            os.kill(left, signal.SIGKILL)
        process.wait()
    assert process.returncode == 0, said.read_text()
    assert not running
    lines = [json.loads(line) for line in said.read_text().splitlines()]
    assert [line["type"] for line in lines][-1] == "summary"
    assert {path.suffixes[0] for path in folder.iterdir()} <= {".flight", ".about"}
