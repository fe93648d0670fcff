"""What ``barewire run`` says while it runs: a start, a line a second, a summary.

For people lines of text, for programs one JSON object a line (``-o json``), each with its
``type``: ``start``, ``statistics``, ``event``, ``summary``. It is called in the hot thread, so it
never waits for whoever reads (appliance.outlet).
"""

from __future__ import annotations

import time
from typing import Any

import msgspec

from appliance.links import overruns
from appliance.outlet import Outlet
from appliance.output import complain

__all__ = ["Reporter"]


_STDOUT = 1
_PATIENCE_S = 2.0  # with whoever reads, once there is nothing hot any more


class Reporter:
    """Writes reports to stdout as lines of text or of JSON."""

    def __init__(self, *, as_json: bool) -> None:
        self._json = as_json
        self._outlet = Outlet(_STDOUT)
        self._before: dict[str, int] = {}
        self._before_at = time.monotonic()
        self._states: dict[tuple[str, str, str], str] = {}

    def start(self, chosen: dict[str, Any], warnings: list[str]) -> None:
        """What was chosen, once, and what whoever starts it has to know."""
        if self._json:
            self._line({"type": "start", "chosen": chosen, "warnings": warnings})
            return
        for part, what in chosen.items():
            rest = "  ".join(f"{key}={value}" for key, value in what.items())
            self._text(f"{part:<12} {rest}")
        for warning in warnings:
            self._text(f"WARNING      {warning}")

    def event(self, what: str, **details: Any) -> None:
        """Something that a person on call should see at once."""
        if self._json:
            self._line({"type": "event", "event": what, **details})
        else:
            rest = "  ".join(f"{key}={value}" for key, value in details.items())
            self._text(f"EVENT        {what}  {rest}")

    def statistics(self, stats: dict[str, Any]) -> None:
        """Rates since the last call, and what has gone wrong so far."""
        self._changes(stats)
        if self._json:
            self._line({"type": "statistics", **stats})
            return
        now = time.monotonic()
        elapsed = max(now - self._before_at, 1e-9)
        pump = stats["pump"]
        before, self._before, self._before_at = self._before, pump, now

        def rate(name: str) -> str:
            return f"{(pump[name] - before.get(name, 0)) / elapsed:,.0f}/s"

        feeds = stats["sources"].values()
        self._text(
            f"{time.strftime('%H:%M:%S')}  {rate('messages')} messages  "
            f"{rate('transactions')} transactions  {rate('matched')} matched  "
            f"fired {pump['fired']:,}  refused {pump['refused']:,}  "
            f"missing {sum(f['missing'] for f in feeds):,}  "
            f"lost {sum(f['lost'] for f in feeds):,}  "
            f"overruns {sum(overruns(f['endpoint']) for f in feeds):,}"
        )

    def _changes(self, stats: dict[str, Any]) -> None:
        """Says what has changed since the last call of what a person on call has to know."""
        for part in ("sources", "streams", "destinations"):
            for name, one in stats.get(part, {}).items():
                for what in ("state", "trouble"):
                    self._change(part, name, what, one.get(what, ""))
        self._change("", "triggers", "reload", stats["reload"])
        self._change("", "shots", "expired", stats["expired"])

    def _change(self, part: str, name: str, what: str, now: str) -> None:
        before = self._states.get((part, name, what), "")
        self._states[part, name, what] = now
        if now != before:
            self.event(f"{name}: {now or before + ' no longer'}")

    def summary(self, stats: dict[str, Any], seconds: float) -> None:
        """Everything that was counted, at the end; zeros are left out where people read."""
        if self._json:
            self._line({"type": "summary", "seconds": seconds, **stats})
            return
        self._text(f"\nstopped after {seconds:,.1f} s")
        for part, counters in stats.items():
            self._tree(part, counters, 0)

    def close(self) -> None:
        """Waits a little for whoever reads, and says on stderr what could not be said on stdout."""
        self._outlet.finish(_PATIENCE_S)
        if self._outlet.lost:
            why = self._outlet.broken or "nobody read it"
            complain(f"{self._outlet.lost:,} lines of output are lost: {why}")

    def _tree(self, name: str, value: Any, depth: int) -> None:
        indent = "  " * depth
        if isinstance(value, dict):
            if any(value.values()):
                self._text(f"{indent}{name}")
                for key, inner in value.items():
                    self._tree(str(key), inner, depth + 1)
        elif value:
            self._text(
                f"{indent}{name:<{36 - len(indent)}} {value:>14,}"
                if isinstance(value, int)
                else f"{indent}{name:<{36 - len(indent)}} {value}"
            )

    def _text(self, line: str) -> None:
        self._outlet.write(line)

    def _line(self, value: dict[str, Any]) -> None:
        self._outlet.write(msgspec.json.encode(value).decode())
