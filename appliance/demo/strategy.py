"""The demo's strategy: keeps every trigger armed, and notes which transaction fired which shot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from appliance.demo.traffic import payloads
from appliance.strategy import Actions
from barewire.pump import Match

__all__ = ["KeepArmed"]

_EXPIRES_AFTER_MS = 600_000
_FEE_WEI = 250_000 * 60 * 10**9


class KeepArmed:
    """Arms each trigger anew as soon as its shot has fired.

    Options: ``triggers``, the names in the order of the configuration; ``shots``, how many payloads
    there are; ``log``, the file that gets ``{hash of the cause: index of the payload}`` at the end.
    """

    def __init__(self, actions: Actions, options: dict[str, Any]) -> None:
        self._actions = actions
        self._triggers: list[str] = options["triggers"]
        self._log = Path(options["log"])
        self._payloads = payloads(options["shots"])
        self._next = 0
        self._armed: dict[str, int] = {}
        self._caused: dict[str, int] = {}
        for name in self._triggers:
            self._arm(name)

    def on_match(self, match: Match) -> None:
        """Notes what fired, and arms the next."""
        if match.outcome == "fired":
            assert match.tx.hash is not None  # a match is handed over after hashing
            self._caused[match.tx.hash.hex()] = self._armed[match.trigger]
            self._arm(match.trigger)

    def on_stop(self) -> None:
        """Writes the log."""
        self._log.write_bytes(msgspec.json.encode(self._caused))

    def _arm(self, trigger: str) -> None:
        if self._next == len(self._payloads):
            return  # as many as the far end knows have been fired
        self._actions.arm(
            trigger,  # the shot of each trigger has its name
            "gateway",
            self._payloads[self._next],
            expires_after_ms=_EXPIRES_AFTER_MS,
            max_fee_wei=_FEE_WEI,
            cookie=self._next,
        )
        self._armed[trigger] = self._next
        self._next += 1
