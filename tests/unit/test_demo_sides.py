"""The demo's processes: Ctrl-C is heard while one of them is begun."""

import signal
import subprocess
import sys

INTERRUPTED_WHILE_IT_FORKS = """
import contextlib, os, signal
from appliance.demo.sides import start
os.register_at_fork(before=lambda: os.kill(os.getpid(), signal.SIGINT))
try:
    with contextlib.ExitStack() as stack:
        start(stack, ["sleep", "60"])
        print("lost")
except KeyboardInterrupt:
    os.waitid(os.P_ALL, 0, os.WEXITED)  # ChildProcessError: none is left
"""


def test_ctrl_c_is_not_lost_while_python_forks():
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_WHILE_IT_FORKS],
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert done.stdout == ""
    assert "Exception ignored" not in done.stderr
    assert "ChildProcessError" in done.stderr
