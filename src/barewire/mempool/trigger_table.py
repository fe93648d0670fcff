"""The current table of triggers, replaced while transactions are matched against it.

The table is built aside and swapped in by one pointer; the matching thread takes the pointer once
a burst (native/trigger.h), so that a burst is held against the old table or the new one, never
against parts of both, and no packet waits. The old table is freed when the thread has left it.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from barewire._native import ffi, lib
from barewire.errors import BarewireError, ConfigError
from barewire.mempool.decoder import DecodedBurst
from barewire.mempool.triggers import Trigger, compile_triggers
from barewire.mempool.wrappers import STANDARD, Wrapper

__all__ = ["Match", "TriggerTable", "load_native"]

_NONE = 0xFFFFFFFF
_NAMES_KEPT = 16  # tables whose names are known still, for matches that are on their way


@dataclass(frozen=True, slots=True)
class Match:
    """One transaction that met one trigger.

    Attributes:
        index: of the transaction in the burst.
        trigger: the trigger's name.
        tag: its tag.
        shot: number of the shot that it fires, or None.
        inner: 0 where the transaction's own call met it, n where the nth inner call did.
        needs_sender: no match yet: all that is known is met, and the sender decides. Of such
            triggers one is named where there may be several.
    """

    index: int
    trigger: str
    tag: int
    shot: int | None
    inner: int
    needs_sender: bool


def load_native(blob: bytes, names: Sequence[str] = ()) -> Any:
    """Builds a native table (``struct bw_triggers *``) that frees itself when dropped.

    Args:
        blob: the serialised form.
        names: of the triggers, for messages.

    Raises:
        ConfigError: `blob` is not exactly as native/trigger.h says, or a bound is exceeded.
    """
    return ffi.gc(_load(blob, names), lib.bw_triggers_free)


def _load(blob: bytes, names: Sequence[str]) -> Any:
    error: Any = ffi.new("struct bw_load_error *")
    table = lib.bw_triggers_load(ffi.from_buffer(blob), len(blob), secrets.randbits(64), error)
    if table != ffi.NULL:
        return table
    text: Any = ffi.string(error.what)
    what = text.decode()
    if error.trigger == _NONE:
        where = "serialised triggers"
    elif error.trigger < len(names):
        where = f"trigger {names[error.trigger]!r}"
    else:
        where = f"trigger number {error.trigger}"
    raise ConfigError(
        f"{where}: {what} (byte {error.offset})",
        hint=f"allowed: at most {error.limit}" if error.limit else "",
    )


class TriggerTable:
    """A table and the slot where a native loop finds it.

    Attributes:
        native: the ``struct bw_trigger_slot *`` for native code.
        stats: the ``struct bw_match_stats *`` that `match` counts in.
    """

    def __init__(
        self,
        triggers: Sequence[Trigger] = (),
        *,
        shots: Mapping[str, int] | None = None,
        wrappers: Sequence[Wrapper] = STANDARD,
    ) -> None:
        self.native = lib.bw_trigger_slot_new()
        if self.native == ffi.NULL:
            raise MemoryError
        self.stats: Any = ffi.new("struct bw_match_stats *")
        self._current: Any = None
        self._retired: list[Any] = []
        self._names: OrderedDict[int, tuple[str, ...]] = OrderedDict()  # by the table's seed
        self._wrappers = wrappers
        self.replace(triggers, shots=shots)

    def replace(
        self, triggers: Sequence[Trigger], *, shots: Mapping[str, int] | None = None
    ) -> None:
        """Puts `triggers` in the place of the current ones, all at once.

        Nothing changes where an error is raised. Matches that are still on their way are of the
        old table: `names_of` knows them.

        Raises:
            ConfigError: as `compile_triggers`, or too many triggers that nothing tells apart.
        """
        names = tuple(trigger.name for trigger in triggers)
        self.replace_serialised(
            compile_triggers(triggers, shots=shots, wrappers=self._wrappers), names
        )

    def replace_serialised(self, blob: bytes, names: Sequence[str]) -> None:
        """As `replace`, from what `compile_triggers` gave."""
        table = _load(blob, names)
        if lib.bw_triggers_count(table) != len(names):
            lib.bw_triggers_free(table)
            raise BarewireError(f"{len(names)} names for a table of other triggers")
        self._names[lib.bw_triggers_seed(table)] = tuple(names)
        if len(self._names) > _NAMES_KEPT:
            self._names.popitem(last=False)
        old = lib.bw_trigger_slot_swap(self.native, table)
        self._current = table
        if old != ffi.NULL:
            self._retired.append(old)
        self.reclaim()

    def reclaim(self) -> int:
        """Frees old tables that the matching thread has left; returns how many are kept still."""
        kept = []
        for table in self._retired:
            if lib.bw_trigger_slot_busy(self.native, table):
                kept.append(table)
            else:
                lib.bw_triggers_free(table)
        self._retired = kept
        return len(kept)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the current triggers, by number."""
        return self.names_of(lib.bw_triggers_seed(self._current))

    def names_of(self, seed: int) -> tuple[str, ...]:
        """Of the triggers of the table with that seed, current or of late, by number."""
        return self._names[seed]

    @property
    def native_bytes(self) -> int:
        """Memory of the current table."""
        return int(lib.bw_triggers_bytes(self._current))

    def match(self, burst: DecodedBurst, *, limit: int = 1024) -> list[Match]:
        """Holds a decoded burst against the current table, in the calling thread.

        For tests and for callers without a native loop; the slot has one matching thread.
        """
        out: Any = ffi.new("struct bw_match[]", limit)
        table = lib.bw_trigger_slot_enter(self.native)
        names = self.names_of(lib.bw_triggers_seed(table))
        count = lib.bw_triggers_match(
            table, burst.native_messages, burst.records, len(burst), out, limit, self.stats
        )
        lib.bw_trigger_slot_leave(self.native)
        return [
            Match(
                index=found.tx,
                trigger=names[found.trigger],
                tag=found.tag,
                shot=None if found.shot == _NONE else found.shot,
                inner=found.call,
                needs_sender=bool(found.flags & lib.BW_MATCH_NEEDS_SENDER),
            )
            for found in out[0:count]
        ]

    def close(self) -> None:
        """Frees everything; no thread may match any more."""
        if self.native is None:
            return
        for table in [*self._retired, self._current]:
            lib.bw_triggers_free(table)
        lib.bw_trigger_slot_free(self.native)
        self.native = self._current = None
        self._retired = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
