"""Strategies that the wire tests load into a real appliance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from appliance.strategy import Actions
from barewire.pump import Match


class Recorder:
    """Writes down every match, at the end."""

    def __init__(self, actions: Actions, options: dict[str, Any]) -> None:
        self.log = Path(options["log"])
        self.seen: list[dict[str, Any]] = []
        self.actions = actions
        self.answer = options.get("answer")

    def on_match(self, match: Match) -> None:
        assert match.tx.hash is not None
        self.seen.append(
            {"hash": match.tx.hash.hex(), "trigger": match.trigger, "outcome": match.outcome}
        )
        if self.answer:
            self.actions.send("gateway", self.answer.encode())

    def on_stop(self) -> None:
        self.log.write_text(json.dumps(self.seen))


class Raises:
    """A strategy with a mistake in it."""

    def __init__(self, actions: Actions, options: dict[str, Any]) -> None:
        pass

    def on_match(self, match: Match) -> None:
        raise LookupError("the strategy's own mistake")
