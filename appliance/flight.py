"""The flight recorder's ring of each loop, and what is needed to read it.

Beside ``NAME.metrics`` a loop has ``NAME.flight``, a lossy ring (its records are described in
native/trace.h), and ``NAME.about``, what the numbers in it stand for: sources, channels, peers,
triggers. They stay when the loop dies; its successor writes on in the ring.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from barewire.errors import BarewireError
from barewire.mempool.triggers import Trigger
from dpdk_bindings.ring import RingError, RingKind, RingProducer

__all__ = ["About", "Listed", "create", "read_about", "write_about"]

_MTU = 1 << 17  # of a record: the longest envelope but those with blobs, which are cut


class Listed(msgspec.Struct, frozen=True):
    """One source: its channels as address and port, and whether its transactions are trusted."""

    name: str
    channels: list[tuple[str, int]]
    trusted: bool = False


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
        path.unlink(missing_ok=True)
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
            path.unlink(missing_ok=True)
    raise AssertionError


def write_about(folder: Path, about: About, triggers: bytes | None = None) -> None:
    """Writes what the numbers stand for, in one step.

    `triggers` are those of `about`, already as JSON: a hot thread has no time for many of them.
    """
    plain = msgspec.structs.asdict(about)
    if triggers is not None:
        plain["triggers"] = msgspec.Raw(triggers)
    path = folder / f"{about.loop}.about"
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_bytes(msgspec.json.encode(plain))
    unfinished.rename(path)


def read_about(folder: Path) -> dict[str, About]:
    """Of every loop in `folder` that records, by its name.

    Raises:
        BarewireError: there are none, or what is written is of another version.
    """
    found: dict[str, Any] = {}
    for path in sorted(folder.glob("*.flight")):
        about = path.with_suffix(".about")
        try:
            found[path.stem] = msgspec.json.decode(about.read_bytes(), type=About)
        except (OSError, msgspec.MsgspecError) as error:
            raise BarewireError(
                f"{about}: {error}", hint="remove both if their loop is gone"
            ) from error
    if not found:
        raise BarewireError(
            f"no loop has a flight recorder in {folder}",
            hint="is the appliance running, as the same user, and recorder.megabytes not 0? "
            "Another folder is named by --folder",
        )
    return found
