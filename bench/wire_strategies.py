"""What the appliance is asked to do in ``bench wire``: to answer each swap, either way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from appliance.strategy import Actions
from barewire.pump import Match

__all__ = ["Answer", "KeepArmed"]


class KeepArmed:
    """Arms the shot that native code fires, again as soon as it has left."""

    def __init__(self, actions: Actions, options: dict[str, Any]) -> None:
        self._actions = actions
        self._reply = Path(options["reply"]).read_bytes()
        self._arm()

    def on_match(self, match: Match) -> None:
        """The shot left before this was called."""
        if match.outcome == "fired":
            self._arm()

    def _arm(self) -> None:
        self._actions.arm("answer", "sender", self._reply, expires_after_ms=600_000)


class Answer:
    """Sends the reply from Python, after the hash and de-duplication."""

    def __init__(self, actions: Actions, options: dict[str, Any]) -> None:
        self._send = actions.send
        self._reply = Path(options["reply"]).read_bytes()

    def on_match(self, match: Match) -> None:
        """Sends at once."""
        self._send("sender", self._reply)
