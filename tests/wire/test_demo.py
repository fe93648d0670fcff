"""``barewire demo`` as its user runs it, to its end and interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from appliance.lab import PREFIX, RUN
from tests.requires import requires_root

SMALL = ["--messages", "1000", "--rate", "2000"]
DEMO = [sys.executable, "-m", "appliance", "demo", *SMALL]


def _watched(*command: str) -> dict[str, object]:
    done = subprocess.run([*command, "-o", "json"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    watched: dict[str, object] = json.loads(done.stdout)
    return watched


def _check(watched) -> None:
    sent = watched["messages_sent"]
    assert sent == watched["messages_received"] == 1000
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


def test_over_af_xdp_nothing_is_lost():
    requires_root()
    _check(_watched(*DEMO))


def test_what_is_missing_is_said_beside_the_result(tmp_path):
    """Without `ip` on the PATH: the result alone is on stdout, the lack on stderr."""
    demo = [*DEMO, "--messages", "400", "-o", "json"]
    environment = os.environ | {"PATH": str(tmp_path)}
    done = subprocess.run(demo, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["lost"] == 0
    assert "kernel sockets on loopback instead" in done.stderr
    assert "Errno" not in done.stderr
    if os.geteuid() == 0:
        assert "there is no command 'ip'" in done.stderr


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


def test_without_root_it_says_what_is_missing_and_runs_over_kernel_sockets():
    requires_root()  # to become nobody
    done = subprocess.run(
        [*NOBODY, *DEMO], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert "CAP_NET_ADMIN" in said
    assert "kernel sockets" in said
    assert "backend=kernel" in said
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
def test_numbers_that_make_no_demo_are_refused_at_once(words, said):
    done = subprocess.run([*DEMO, *words], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def _left_of(pid: int) -> list[Path]:
    return list(RUN.glob(f"{PREFIX}-{pid}-*"))


@pytest.mark.parametrize("after_s", [0.4, 1.5, 3.0, 5.0])
def test_ctrl_c_leaves_nothing_behind(after_s):
    requires_root()
    memory = set(Path("/dev/shm").glob("barewire-demo-*"))
    demo = subprocess.Popen(
        [*DEMO, "--rate", "200"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    time.sleep(after_s)
    assert demo.poll() is None
    before = _children(demo.pid)
    os.killpg(demo.pid, signal.SIGINT)  # as a terminal does
    _, said = demo.communicate(timeout=15)
    # On a slow machine the signal comes before Python has taken it over: a shell calls both 130.
    assert demo.returncode in (130, -signal.SIGINT), said
    assert "Traceback" not in said
    assert _left_of(demo.pid) == []
    assert set(Path("/dev/shm").glob("barewire-demo-*")) <= memory
    assert [pid for pid in before if Path(f"/proc/{pid}").exists()] == []


def _children(pid: int) -> list[int]:
    threads = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for thread in threads for child in thread.read_text().split()]
