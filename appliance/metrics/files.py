"""Where the loops' metrics lie, and how they are opened."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from appliance.metrics.places import SCHEMA, Counter, Histogram
from barewire.errors import BarewireError
from dpdk_bindings.metrics import MetricsError, MetricsReader, MetricsWriter

__all__ = ["FOLDER", "create", "free_name", "open_all"]

# One a user: created 0700, and files in it are opened without following links.
FOLDER = Path("/dev/shm/barewire" + (f"-{os.geteuid()}" if os.geteuid() else ""))  # noqa: S108


def free_name(loop: str, folder: Path) -> str:
    """`loop`, or with our process id behind it where another living loop has that name.

    What loops left that are gone is removed: of `loop` itself by its successor, of others that
    had to take a process id here.
    """
    for path in folder.glob(f"{loop}-*.metrics"):
        if not _lives(path):
            for left in folder.glob(f"{path.stem}.*"):
                left.unlink(missing_ok=True)
    return f"{loop}-{os.getpid()}" if _lives(folder / f"{loop}.metrics") else loop


def _lives(path: Path) -> bool:
    try:
        with contextlib.closing(_open(path)) as reader:
            return reader.alive
    except MetricsError:
        return False


def _open(path: Path) -> MetricsReader:
    return MetricsReader(path, schema=SCHEMA, counters=len(Counter), histograms=len(Histogram))


def create(loop: str, *, folder: Path = FOLDER, stall_ms: float = 1.0) -> MetricsWriter:
    """The metrics of the loop called `loop`, to be written by it alone."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return MetricsWriter(
        folder / f"{loop}.metrics",
        loop,
        schema=SCHEMA,
        counters=len(Counter),
        histograms=len(Histogram),
        stall_ms=stall_ms,
    )


def open_all(folder: Path = FOLDER) -> list[MetricsReader]:
    """The metrics of every loop in `folder`, by name.

    Raises:
        BarewireError: there are none, or some that cannot be read.
    """
    paths = sorted(folder.glob("*.metrics"))
    if not paths:
        raise BarewireError(
            f"no loop has metrics in {folder}",
            hint="is the appliance running, as the same user? Another folder is named by --folder",
        )
    try:
        return [_open(path) for path in paths]
    except MetricsError as error:
        raise BarewireError(
            str(error), hint="remove it if its loop is gone; or read it with its own version"
        ) from error
