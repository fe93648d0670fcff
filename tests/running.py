"""``barewire run`` as a process, for tests: its lines as they come, and who its sources are."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from appliance.lab import Namespace

__all__ = ["Run"]

_ENVIRONMENT = os.environ | {
    "PYTHONSAFEPATH": "1",
    "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
}


class Run:
    """``barewire run`` on a configuration.

    Args:
        folder: where the configuration and the appliance's own files go.
        text: the configuration, without ``[metrics]``.
        end: the namespace to run in; None: this one.
    """

    def __init__(self, folder: Path, text: str, end: Namespace | None = None) -> None:
        self.folder = folder / "shm"
        self.folder.mkdir()
        file = folder / "appliance.toml"
        file.write_text(f'{text}\n[metrics]\nfolder = "{self.folder}"\n')
        words = [sys.executable, "-m", "appliance", "run", "--config", str(file), "-o", "json"]
        start: Callable[..., subprocess.Popen[str]]
        start = end.popen if end else lambda *words, **how: subprocess.Popen(words, **how)
        self.process = start(*words, stdout=subprocess.PIPE, text=True, env=_ENVIRONMENT)
        self.events: list[str] = []
        self.start = self.read()
        assert self.start["type"] == "start"

    def read(self) -> dict[str, Any]:
        """The next line; the words of events are kept in `events`."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the appliance ended with {self.process.wait()}"
        said: dict[str, Any] = json.loads(line)
        if said["type"] == "event":
            self.events.append(said["event"])
        return said

    def until(
        self, condition: Callable[[dict[str, Any]], bool], seconds: float = 20
    ) -> dict[str, Any]:
        """The first statistics that fulfil `condition`."""
        end = time.monotonic() + seconds
        while True:
            said = self.read()
            if said["type"] != "statistics":
                continue
            if condition(said):
                return said
            assert time.monotonic() < end, (said, self.events[-20:])

    def sources(self) -> tuple[int, dict[str, Any]]:
        """``barewire sources``: exit status, and the rows by name."""
        words = [sys.executable, "-m", "appliance", "sources", "-o", "json"]
        done = subprocess.run(
            [*words, "--folder", str(self.folder)],
            capture_output=True,
            text=True,
            env=_ENVIRONMENT,
        )
        [content] = json.loads(done.stdout).values()
        return done.returncode, {row["source"]: row for row in content["sources"]}

    def stop(self) -> dict[str, Any]:
        """Stops it cleanly; its summary."""
        self.process.send_signal(signal.SIGTERM)
        while (said := self.read())["type"] != "summary":
            pass
        assert self.process.wait(10) == 0
        return said

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
