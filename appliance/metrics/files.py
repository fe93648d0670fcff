"""Where the loops' metrics lie, and how they are opened."""

from __future__ import annotations

from pathlib import Path

from appliance.metrics.places import SCHEMA, Counter, Histogram
from barewire.errors import BarewireError
from dpdk_bindings.metrics import MetricsError, MetricsReader, MetricsWriter

__all__ = ["FOLDER", "create", "open_all"]

FOLDER = Path("/dev/shm/barewire")  # noqa: S108 - created 0700, and files are opened without links


def create(loop: str, *, folder: Path = FOLDER, stall_ms: float = 1.0) -> MetricsWriter:
    """The metrics of the loop called `loop`, to be written by it alone."""
    folder.mkdir(mode=0o700, exist_ok=True)
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
        return [
            MetricsReader(path, schema=SCHEMA, counters=len(Counter), histograms=len(Histogram))
            for path in paths
        ]
    except MetricsError as error:
        raise BarewireError(
            str(error), hint="remove it if its loop is gone; or read it with its own version"
        ) from error
