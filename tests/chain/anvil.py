"""A real node for tests: anvil, from npm, on a free loopback port and a Unix socket of its own.

    with Anvil() as node:
        node.rpc("eth_blockNumber")
        node.http, node.ws, node.ipc          where it listens

What npm brings is pinned in package.json and package-lock.json beside this file; the first caller
installs it (`node_modules`), without running anyone's install scripts.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import json
import os
import selectors
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from tests.pace import installing
from tests.requires import requires

__all__ = ["HERE", "Anvil", "RpcError", "anvil", "npm_packages"]

HERE = Path(__file__).resolve().parent


def npm_packages(folder: Path = HERE) -> Path:
    """The node_modules that package-lock.json in `folder` describes, installed if not yet."""
    modules = folder / "node_modules"
    stamp = modules / ".barewire-stamp"
    wanted = hashlib.sha256((folder / "package-lock.json").read_bytes()).hexdigest()
    with (folder / "package.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text() != wanted:
            requires(shutil.which("npm") is not None, "npm (apt-get install npm)")
            with installing():
                done = subprocess.run(
                    ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
                    cwd=folder,
                    capture_output=True,
                    text=True,
                    timeout=600,
                )
            requires(done.returncode == 0, f"npm packages of the chain tests: {done.stderr[-500:]}")
            stamp.write_text(wanted)
    return modules


class RpcError(Exception):
    """The node's own words about a call it refused: ``args`` are its code and message."""


class Anvil:
    """One anvil process; a context manager that stops what it started.

    Args:
        *options: more words for anvil's command line, for example ``"--no-mining"``.
    """

    def __init__(self, *options: str) -> None:
        self._options = options
        self._number = 0
        self.port = 0

    @property
    def http(self) -> str:
        """The URL of JSON-RPC over HTTP."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws(self) -> str:
        """The URL of JSON-RPC over WebSocket."""
        return f"ws://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Its process, for tests that stop or kill it."""
        return self._process.pid

    def __enter__(self) -> Self:
        binary = npm_packages() / "@foundry-rs/anvil-linux-amd64/bin/anvil"
        requires(binary.exists(), "anvil (its package is pinned for x86-64 only)")
        self._folder = tempfile.TemporaryDirectory(prefix="barewire-anvil-")
        self.ipc = str(Path(self._folder.name) / "anvil.ipc")
        words = [str(binary), "--port", "0", "--ipc", self.ipc, *self._options]
        self._process = subprocess.Popen(
            words,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={"PATH": os.environ["PATH"], "HOME": self._folder.name},
        )
        try:
            self.port = self._read_port(time.monotonic() + 30)
            # It writes a line for every call, and would stop for ever at a full pipe.
            threading.Thread(target=self._drain, daemon=True).start()
            self._connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()
        self._stop()

    def _read_port(self, until: float) -> int:
        """Waits for the line that says where it listens; `until` is of time.monotonic()."""
        out = self._process.stdout
        assert out is not None
        said = b""
        with selectors.DefaultSelector() as selector:
            selector.register(out, selectors.EVENT_READ)
            while selector.select(max(0.0, until - time.monotonic())):
                part = os.read(out.fileno(), 65536)
                said += part
                _, found, rest = said.partition(b"Listening on 127.0.0.1:")
                if found and b"\n" in rest:
                    return int(rest.split(b"\n")[0])
                if not part:
                    break
        raise RuntimeError(f"anvil did not start: {said.decode(errors='replace')[-2000:]}")

    def _drain(self) -> None:
        out = self._process.stdout
        assert out is not None
        with contextlib.suppress(ValueError, OSError):  # closed by _stop
            while os.read(out.fileno(), 65536):
                pass

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._folder.cleanup()

    def rpc(self, method: str, *params: Any) -> Any:
        """Calls `method` over HTTP and returns its result; raises RpcError for an error answer."""
        self._number += 1
        call = {"jsonrpc": "2.0", "id": self._number, "method": method, "params": params}
        headers = {"Content-Type": "application/json"}
        self._connection.request("POST", "/", json.dumps(call), headers)
        answer = json.loads(self._connection.getresponse().read())
        if "error" in answer:
            raise RpcError(answer["error"]["code"], answer["error"]["message"])
        return answer["result"]


@pytest.fixture
def anvil() -> Iterator[Anvil]:
    """A node of the test's own; import it by name to use it."""
    with Anvil() as node:
        yield node
