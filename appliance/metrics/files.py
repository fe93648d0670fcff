"""Where the loops' metrics lie, and how they are opened."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from appliance.metrics.places import SCHEMA, Counter, Histogram
from barewire.errors import BarewireError, OutageError
from dpdk_bindings.metrics import MetricsError, MetricsReader, MetricsWriter

__all__ = ["FOLDER", "UNREADABLE", "alone", "create", "free_name", "open_all"]

# One a user: created 0700, and files in it are opened without following links.
FOLDER = Path("/dev/shm/barewire" + (f"-{os.geteuid()}" if os.geteuid() else ""))  # noqa: S108

UNREADABLE = "remove it if its loop is gone; or read it with its own version"


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Makes `folder` where there is none; inside, no other loop takes a name in it.

    Raises:
        BarewireError: `folder` is not ours alone.
        OSError: it cannot be made.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_folder(folder)
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def free_name(loop: str, folder: Path) -> str:
    """`loop`, or with a number from 2 on behind it where living loops have that name.

    What numbered loops left that are gone is removed; `loop` itself is gone on with. Call it inside
    :func:`alone`.
    """
    numbered = re.compile(rf"{re.escape(loop)}-\d+(?=\.)")
    for path in folder.glob(f"{loop}-*"):
        name = numbered.match(path.name)
        if name and not _lives(folder / f"{name[0]}.metrics"):
            path.unlink(missing_ok=True)
    names = itertools.chain([loop], (f"{loop}-{number}" for number in itertools.count(2)))
    return next(name for name in names if not _lives(folder / f"{name}.metrics"))


def _lives(path: Path) -> bool:
    """Also of a file that another version wrote: its lock is asked for, not what it holds."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _check_folder(folder: Path) -> None:
    """In /dev/shm anyone may make a folder of our name, and what is in it would be theirs."""
    us = os.geteuid()
    for seen in (folder.lstat(), folder.stat()):
        if seen.st_uid != us:
            raise BarewireError(
                f"{folder} belongs to uid {seen.st_uid}, and this process is uid {us}",
                hint="remove it, or name a folder of your own",
            )
    if (mode := folder.stat().st_mode) & (stat.S_IWGRP | stat.S_IWOTH):
        raise BarewireError(
            f"{folder} has mode {stat.S_IMODE(mode):04o}: others may write to it",
            hint=f"chmod 0700 {folder}",
        )


def _open(path: Path) -> MetricsReader:
    return MetricsReader(path, schema=SCHEMA, counters=len(Counter), histograms=len(Histogram))


def create(loop: str, *, folder: Path = FOLDER, stall_ms: float = 1.0) -> MetricsWriter:
    """The metrics of the loop called `loop`, to be written by it alone; inside :func:`alone`.

    Raises:
        MetricsError: they cannot be made.
        OSError: as this.
    """
    for left in folder.glob(f".{loop}.metrics.*"):  # of one that was killed while it made them
        left.unlink(missing_ok=True)
    return MetricsWriter(
        folder / f"{loop}.metrics",
        loop,
        schema=SCHEMA,
        counters=len(Counter),
        histograms=len(Histogram),
        stall_ms=stall_ms,
    )


@contextlib.contextmanager
def open_all(folder: Path = FOLDER) -> Iterator[tuple[list[MetricsReader], list[str]]]:
    """The metrics of every loop in `folder`, by name, while inside.

    Yields:
        Those that can be read, and what is wrong with the others: what one loop left must not
        hide those that run.

    Raises:
        OutageError: none can be read.
    """
    with contextlib.ExitStack() as opened:
        readers: list[MetricsReader] = []
        refused: list[str] = []
        for path in sorted(folder.glob("*.metrics")):
            try:
                readers.append(opened.enter_context(contextlib.closing(_open(path))))
            except MetricsError as error:
                if not isinstance(error.__cause__, FileNotFoundError):  # its loop ended just now
                    refused.append(str(error))
        if not readers and refused:
            raise OutageError(refused[0], hint=UNREADABLE)
        if not readers:
            raise OutageError(
                f"no loop has metrics in {folder}",
                hint="is the appliance running, as the same user? Another folder is named by "
                "--folder",
            )
        yield readers, refused
