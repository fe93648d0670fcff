"""Other implementations, each in a process of its own, asked for what they make of the bytes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.requires import requires

HERE = Path(__file__).resolve().parent
PYTHON = HERE.parents[1] / ".venv-oracle" / "bin" / "python"


def specification(raws: list[bytes], *, senders: bool = False) -> list[dict[str, Any]]:
    """What the ``ethereum`` package decodes each envelope to: its fields, or ``error``."""
    requires(PYTHON.exists(), ".venv-oracle (./run test makes it)")
    done = subprocess.run(
        [str(PYTHON), str(HERE / "spec.py"), *(["senders"] if senders else [])],
        input="".join(f"{raw.hex()}\n" for raw in raws),
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]
