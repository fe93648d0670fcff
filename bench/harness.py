"""How every benchmark here is run and written down.

A benchmark hands :func:`measure` one callable a row. The rows take turns, round by round, so that
a drifting machine hurts all of them alike; the first round of each is warm-up and thrown away;
percentiles are taken over all samples of all other rounds. Microseconds, unless the benchmark says
nanoseconds. The machine's own noise is measured beside it and written into the result.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

__all__ = ["Row", "arguments", "finish", "machine", "measure", "pin", "summarise"]

Samples = Sequence[float] | np.ndarray


@dataclass
class Row:
    """One line of a result: who was measured, its percentiles, and what else there is to say."""

    who: str
    p50: float
    p99: float
    p999: float
    max: float
    n: int
    load: str = "closed"
    extra: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The row as the result file holds it."""
        fields = {k: v for k, v in vars(self).items() if k != "extra"}
        return fields | self.extra


def summarise(who: str, samples: Samples, *, load: str = "closed", **extra: Any) -> Row:
    """Percentiles of `samples`, by nearest rank, so that each is a value that was seen."""
    values = np.asarray(samples, dtype=float)
    if not values.size:
        raise ValueError(f"{who}: no samples")
    p50, p99, p999 = (float(q) for q in np.percentile(values, [50, 99, 99.9], method="higher"))
    return Row(who, p50, p99, p999, float(values.max()), int(values.size), load, extra)


def measure(
    rows: dict[str, Callable[[], Samples]], *, rounds: int, load: str = "closed"
) -> list[Row]:
    """Runs each callable once a round, in turn; a call returns that round's samples."""
    samples: dict[str, list[np.ndarray]] = {who: [] for who in rows}
    for turn in range(rounds + 1):
        for who, sample in rows.items():
            sys.stderr.write(f"\r\033[Kround {turn}/{rounds}  {who}")
            sys.stderr.flush()
            values = np.asarray(sample(), dtype=float)
            if turn:  # round 0 is warm-up
                samples[who].append(values)
    sys.stderr.write("\r\033[K")
    return [summarise(who, np.concatenate(parts), load=load) for who, parts in samples.items()]


def pin(core: int) -> None:
    """Pins the calling thread to `core`."""
    os.sched_setaffinity(0, {core})


def _noise(seconds: float = 0.5) -> dict[str, float]:
    """Longest and p99.9 gap between two clock readings of a spinning loop, in microseconds."""
    end = time.perf_counter_ns() + int(seconds * 1e9)
    gaps: list[int] = []
    before = time.perf_counter_ns()
    while before < end:
        now = time.perf_counter_ns()
        gaps.append(now - before)
        before = now
    row = summarise("noise", np.array(gaps) / 1000)
    return {"spin_gap_p999_us": round(row.p999, 3), "spin_gap_max_us": round(row.max, 1)}


def machine() -> dict[str, Any]:
    """What the figures were measured on, its noise included."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "virtual": "hypervisor" in Path("/proc/cpuinfo").read_text(),
        "load_1m": os.getloadavg()[0],
        "noise": _noise(),
    }


def arguments(description: str) -> argparse.ArgumentParser:
    """The parser every benchmark starts from: ``--json FILE`` and ``--rounds N``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here")
    parser.add_argument("--rounds", type=int, default=10, help="counted rounds (default 10)")
    return parser


def finish(
    name: str,
    rows: Sequence[Row],
    notes: Sequence[str],
    *,
    unit: str = "us",
    to: Path | None = None,
) -> None:
    """Prints the rows as a table and writes the result file."""
    if len({row.who for row in rows}) != len(rows):
        raise ValueError("two rows of one name")
    table = Table(title=f"{name} ({unit})", title_justify="left")
    table.add_column("who")
    for column in ("p50", "p99", "p99.9", "max", "n"):
        table.add_column(column, justify="right")
    table.add_column("load")
    table.add_column("")
    for row in rows:
        figures = [f"{value:,.3f}" for value in (row.p50, row.p99, row.p999, row.max)]
        rest = "  ".join(f"{key}={value}" for key, value in row.extra.items())
        table.add_row(row.who, *figures, f"{row.n:,}", row.load, rest)
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(table)
    about = machine()
    console.print(f"machine: {about}")
    for note in notes:
        console.print(f"note: {note}")
    if to:
        result = {
            "name": name,
            "machine": about,
            "rows": [row.as_dict() for row in rows],
            "notes": list(notes),
        }
        to.write_text(json.dumps(result, indent=1) + "\n")
