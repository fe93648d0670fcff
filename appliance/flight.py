"""The flight recorder's ring of each loop, and what is needed to read it.

Beside ``NAME.metrics`` a loop has ``NAME.flight``, a lossy ring (its records are described in
native/trace.h), and ``NAME.about.SEQ``, what the numbers in it stand for from record SEQ on:
sources, channels, peers, triggers. They stay when the loop dies; its successor writes on in the
ring. Numbers change their meaning when triggers are read again, or a successor has another
configuration: so there is a file for each meaning that the ring still holds records of.
"""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import msgspec

from barewire.errors import BarewireError, OutageError
from barewire.mempool.triggers import Trigger
from dpdk_bindings.ring import RingError, RingKind, RingProducer

__all__ = ["About", "Listed", "create", "read_about", "remove", "write_about"]

_MTU = 1 << 17  # of a record: the longest envelope but those with blobs, which are cut


class Listed(msgspec.Struct, frozen=True):
    """One source: its channels as address and port, whether it is trusted, and a byte stream."""

    name: str
    channels: list[tuple[str, int]]
    trusted: bool = False
    stream: bool = False


class About(msgspec.Struct, frozen=True):
    """What the numbers of one loop's records stand for; `peers` by "source/number"."""

    loop: str
    stages: list[str]
    fork: str
    chain_id: int
    sources: list[Listed] = []
    peers: dict[str, tuple[str, int]] = {}
    triggers: list[Trigger] = []
    fires: bool = False
    strategy: str = ""


def create(folder: Path, loop: str, megabytes: int) -> RingProducer | None:
    """The recorder ring of a loop, gone on with where it is of this size; None where it is off."""
    path = folder / f"{loop}.flight"
    if megabytes == 0:
        remove(folder, loop)
        return None
    size = megabytes << 20
    for attempt in range(2):
        try:
            return RingProducer.create(
                str(path), kind=RingKind.LOSSY, depth=size >> 10, mtu=_MTU, payload_bytes=size
            )
        except RingError:
            # Another size, or damaged: what it held is given up.
            if attempt:
                raise
            remove(folder, loop)
    raise AssertionError


def remove(folder: Path, loop: str) -> None:
    """Removes what a loop recorded."""
    (folder / f"{loop}.flight").unlink(missing_ok=True)
    for path, _ in _written(folder, loop):
        path.unlink(missing_ok=True)


def _written(folder: Path, loop: str) -> list[tuple[Path, int]]:
    """The files of one loop, and from which record on each holds, ascending."""
    paths = folder.glob(f"{loop}.about.*")
    numbered = [(path, int(path.suffix[1:])) for path in paths if path.suffix[1:].isdecimal()]
    return sorted(numbered, key=lambda pair: pair[1])


def write_about(
    folder: Path, about: About, ring: RingProducer, triggers: bytes | None = None
) -> None:
    """Writes what the numbers in `ring` stand for from its next record on, in one step.

    `triggers` are those of `about`, already as JSON: a hot thread has no time for many of them.
    """
    plain = msgspec.structs.asdict(about)
    if triggers is not None:
        plain["triggers"] = msgspec.Raw(triggers)
    status = ring.producer_status()
    path = folder / f"{about.loop}.about.{status.head + 1}"
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_bytes(msgspec.json.encode(plain))
        unfinished.rename(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
    for (old, _), (_, until) in pairwise(_written(folder, about.loop)):
        if until <= status.oldest:
            old.unlink(missing_ok=True)


def read_about(folder: Path) -> dict[str, list[tuple[int, About]]]:
    """Of every loop in `folder` that records, by its name: from which record on what holds.

    Raises:
        BarewireError: there are none, or what is written is of another version.
    """
    found: dict[str, list[tuple[int, About]]] = {}
    for path in sorted(folder.glob("*.flight")):
        found[path.stem] = []  # of one that is about to start
        for about, since in _written(folder, path.stem):
            try:
                decoded = msgspec.json.decode(about.read_bytes(), type=About)
            except FileNotFoundError:  # nothing that is left is of it, as of now
                continue
            except (OSError, msgspec.MsgspecError) as error:
                raise BarewireError(
                    f"{about}: {error}", hint="remove it if its loop is gone"
                ) from error
            found[path.stem].append((since, decoded))
    if not found:
        raise OutageError(
            f"no loop has a flight recorder in {folder}",
            hint="is the appliance running, as the same user, and recorder.megabytes not 0? "
            "Another folder is named by --folder",
        )
    return found
