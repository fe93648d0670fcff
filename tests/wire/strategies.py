"""Strategies that the wire tests load into a real appliance."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any, ClassVar

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


class Answers:
    """Sends an answer to every match, over and over the same bytes."""

    def __init__(self, actions: Actions, options: dict[str, Any]) -> None:
        self.actions = actions
        self.log = Path(options["log"])

    def on_match(self, match: Match) -> None:
        self.actions.send("gateway", b"an answer")

    def on_stop(self) -> None:
        self.log.write_text("[]")


class SleepsOnce(Answers):
    """Answers, and falls asleep at the hundredth match, in a way that excepts everything."""

    calls = 0

    def on_match(self, match: Match) -> None:
        self.calls += 1
        if self.calls == 100:
            with contextlib.suppress(Exception):
                time.sleep(30)
        super().on_match(match)


class SpinsInC(Answers):
    """Stays in code that no signal leaves."""

    calls = 0

    def on_match(self, match: Match) -> None:
        self.calls += 1
        if self.calls == 100:
            sum(range(40_000_000))
        super().on_match(match)


class Leaks(Answers):
    """Keeps what it should forget."""

    kept: ClassVar[list[bytearray]] = []

    def on_match(self, match: Match) -> None:
        self.kept.append(bytearray(b"x" * 100_000))


class Hashes:
    """Writes the 32 bytes of every match's hash to a file as it comes, and keeps none."""

    def __init__(self, actions: Actions, options: dict[str, Any]) -> None:
        self.file = Path(options["log"]).open("wb")  # noqa: SIM115 - open as long as the process

    def on_match(self, match: Match) -> None:
        assert match.tx.hash is not None
        self.file.write(match.tx.hash)

    def on_stop(self) -> None:
        self.file.close()
