"""``barewire demo`` as its user runs it, to its end and interrupted."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from appliance.cli import main
from appliance.demo.traffic import LEAST
from appliance.lab import PREFIX, RUN
from tests.requires import requires_root

DEMO = [sys.executable, "-m", "appliance", "demo", "--messages", str(LEAST), "--loss", "4"]
PATIENCE_S = 60


def _watched(*command: str) -> tuple[dict[str, object], str]:
    """What it says of itself on stdout, which is JSON alone, and its words on stderr."""
    done = subprocess.run([*command, "-o", "json"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def _check(watched) -> None:
    sent = watched["messages_sent"]
    assert sent == watched["messages_received"] == LEAST
    assert watched["lost"] == 0
    assert watched["transactions_decoded"] == watched["transactions_sent"]
    assert min(watched["lost_on_purpose"]) > 0
    assert watched["recovered_by_other_line"] > 0
    assert watched["matched"] > 0
    fired, back = watched["fired"], watched["fired_and_back"]
    assert fired == back == len(watched["wire_to_wire_ns"]) > 0
    assert min(watched["wire_to_wire_ns"]) > 0
    refused = watched["not_armed_again"]
    assert watched["matched"] == fired + refused


@contextlib.contextmanager
def _running(*command: str, **how) -> Iterator[subprocess.Popen[str]]:
    """The demo as from a terminal; killed where the test did not end it."""
    demo = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True, **how
    )
    try:
        yield demo
    finally:
        if demo.poll() is None:
            os.killpg(demo.pid, signal.SIGKILL)
        demo.communicate()


def _interrupt(demo: subprocess.Popen[str]) -> str:
    """Ctrl-C, as a terminal does it, and what was said on stderr."""
    os.killpg(demo.pid, signal.SIGINT)
    _, said = demo.communicate(timeout=PATIENCE_S)
    # On a slow machine the signal comes before Python has taken it over: a shell calls both 130.
    assert demo.returncode in (130, -signal.SIGINT), said
    assert "Traceback" not in said
    return said


def test_over_af_xdp_nothing_is_lost():
    requires_root()
    watched, _ = _watched(*DEMO)
    _check(watched)


def test_without_the_command_ip_it_says_so_and_begins_over_kernel_sockets(tmp_path):
    requires_root()
    environment = os.environ | {"PATH": str(tmp_path)}
    with _running(*DEMO, stdout=subprocess.PIPE, env=environment) as demo:
        assert demo.stdout is not None
        assert any("backend=kernel" in line for line in demo.stdout)
        said = _interrupt(demo)
    assert "kernel sockets on loopback instead" in said
    assert "there is no command 'ip'" in said
    assert "Errno" not in said


# Somebody without rights, but for reading this checkout wherever it lies. Not a user namespace: a
# chroot has none.
NOBODY = (
    *("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"),
    *(
        word
        for which in ("--inh-caps", "--ambient-caps", "--bounding-set")
        for word in (which, "-all,+dac_read_search")
    ),
)


def test_without_root_it_says_what_is_missing_beside_the_result():
    requires_root()  # to become nobody
    watched, said = _watched(*NOBODY, *DEMO)
    _check(watched)
    assert "CAP_NET_ADMIN" in said
    assert "kernel sockets" in said


def test_without_root_there_is_no_af_xdp():
    requires_root()  # to become nobody
    refused = subprocess.run(
        [*NOBODY, *DEMO, "--via", "afxdp"], capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2
    assert "needs root" in refused.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--messages", "0"], "--messages 0"),
        (["--messages", "60"], "at least"),
        (["--loss", "nan"], "--loss nan"),
        (["--loss", "-1"], "--loss -1"),
        (["--rate", "nan"], "--rate nan"),
        (["--rate", "-1"], "--rate -1"),
    ],
)
def test_numbers_that_make_no_demo_are_refused_at_once(words, said, capsys):
    assert main(["demo", *words]) == 2
    assert said in capsys.readouterr().err


def _wait_until(there: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not there():
        assert time.monotonic() < until
        time.sleep(0.01)


def _left_of(pid: int) -> list[Path]:
    return list(RUN.glob(f"{PREFIX}-{pid}-*"))


def _runs(pid: int, words: str) -> bool:
    """Whether the demo of that pid has begun what has `words` in its command line."""
    found = []
    for child in _children(pid):
        with contextlib.suppress(OSError):  # it has just ended
            found.append(Path(f"/proc/{child}/cmdline").read_text().replace("\0", " "))
    return any(words in line for line in found)


@pytest.mark.parametrize(
    "reached",
    [
        lambda pid: ".abi3.so" in Path(f"/proc/{pid}/maps").read_text(),
        lambda pid: bool(_left_of(pid)),
        lambda pid: _runs(pid, "appliance run"),
        lambda pid: _runs(pid, "appliance.demo.far_end"),
    ],
    ids=["imports", "namespaces", "appliance", "publisher"],
)
def test_ctrl_c_leaves_nothing_behind(reached: Callable[[int], bool]):
    requires_root()
    memory = set(Path("/dev/shm").glob("barewire-demo-*"))
    with _running(*DEMO, "--rate", "20", stdout=subprocess.DEVNULL) as demo:
        _wait_until(lambda: reached(demo.pid) or demo.poll() is not None)
        assert demo.poll() is None
        before = _children(demo.pid)
        _interrupt(demo)
    assert _left_of(demo.pid) == []
    assert set(Path("/dev/shm").glob("barewire-demo-*")) <= memory
    # The signal was theirs too: a command that it ended may take a moment to be gone.
    _wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in before))


def _children(pid: int) -> list[int]:
    threads = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for thread in threads for child in thread.read_text().split()]
