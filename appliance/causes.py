"""What a loop counts, by cause, and the last sample of each, in a file beside its metrics.

Counters of the hot path have places in shared memory (appliance.metrics). What else the parts count
(each refusal by its rule, each rejected frame by its reason, each port's drops) is written here
about once a second, in one step, as `barewire sources` gets its file: nothing that a part counts
has to be named again to be seen. `barewire metrics` and Prometheus show the numbers, and
``barewire samples`` the bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from appliance.loop_file import LoopFile
from barewire.errors import BarewireError

__all__ = ["Causes", "Counted", "Known", "Sample", "counted", "read"]

# Parts whose next level is the name of something: a source, a destination, an interface.
_NAMED = ("sources", "streams", "stream_ports", "reassembly", "destinations")


@dataclass(frozen=True, slots=True)
class Counted:
    """A number: `part` counted it, `of` a source or another thing with a name, or of nothing."""

    part: str
    of: str
    cause: str
    value: int


@dataclass(frozen=True, slots=True)
class Sample:
    """The last bad bytes of one cause.

    Attributes:
        part, of, cause: as in :class:`Counted`.
        count: how many there were.
        sample_bytes: length of the last of them; where that is not kept, of what is.
        sample_hex: its first bytes.
        seen_real_ns: when its count was last seen to have grown, CLOCK_REALTIME: up to the
            interval of the statistics late.
    """

    part: str
    of: str
    cause: str
    count: int
    sample_bytes: int
    sample_hex: str
    seen_real_ns: int = 0


@dataclass(frozen=True, slots=True)
class Known:
    """What a loop's file holds."""

    counted: list[Counted] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _File:
    """As it is written: in the loop's own time, so taking it apart is left to who reads."""

    stats: dict[str, Any]
    samples: list[Sample]


def counted(stats: dict[str, Any]) -> Iterator[Counted]:
    """Every whole number in what `Appliance.stats` gives."""
    for part, inside in stats.items():
        if part in _NAMED:
            for name, more in inside.items():
                yield from _leaves(part, name, "", more)
        else:
            yield from _leaves(part, "", "", inside)


def _leaves(part: str, of: str, cause: str, inside: Any) -> Iterator[Counted]:
    if isinstance(inside, dict):
        for name, more in inside.items():
            yield from _leaves(part, of, f"{cause}/{name}" if cause else str(name), more)
    elif isinstance(inside, int) and not isinstance(inside, bool):
        yield Counted(part, of, cause, inside)


class Causes:
    """The file of one loop.

    Args:
        path: where; removed on :meth:`close`.
        tell: hears what went wrong; see `LoopFile`.
    """

    def __init__(self, path: Path, tell: Callable[[str], None]) -> None:
        self._file = LoopFile(path, tell)
        self._seen: dict[tuple[str, str, str], tuple[int, int]] = {}

    def write(self, stats: dict[str, Any], samples: Iterable[Sample], now_real_ns: int) -> None:
        """Writes what is known now."""
        dated = [self._dated(one, now_real_ns) for one in samples]
        self._file.write(msgspec.json.encode(_File(stats, dated)))

    def _dated(self, sample: Sample, now_real_ns: int) -> Sample:
        key = sample.part, sample.of, sample.cause
        count, seen_real_ns = self._seen.get(key, (0, 0))
        if sample.count > count:
            seen_real_ns = now_real_ns
        self._seen[key] = sample.count, seen_real_ns
        return replace(sample, seen_real_ns=seen_real_ns)

    def close(self) -> None:
        """Removes the file; that it cannot be is told, and is no reason not to end."""
        self._file.close()


def read(folder: Path) -> dict[str, Known]:
    """What every loop in `folder` has written, by the loop's name."""
    found = {}
    for path in sorted(folder.glob("*.causes")):
        try:
            content = msgspec.json.decode(path.read_bytes(), type=_File)
        except FileNotFoundError:
            continue  # its loop has just ended
        except msgspec.DecodeError as error:
            raise BarewireError(
                f"{path} is damaged, or of another version: {error}", hint="remove it"
            ) from error
        found[path.stem] = Known(list(counted(content.stats)), content.samples)
    return found
