"""What ``barewire run`` says while it runs: a start, a line a second, a summary.

For people on stderr-like lines, for programs one JSON object a line (``-o json``), each with its
``type``: ``start``, ``statistics``, ``event``, ``summary``.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import msgspec

__all__ = ["Reporter"]


class Reporter:
    """Writes reports to stdout as lines of text or of JSON."""

    def __init__(self, *, as_json: bool) -> None:
        self._json = as_json
        self._before: dict[str, int] = {}
        self._before_at = time.monotonic()

    def start(self, chosen: dict[str, Any], warnings: list[str]) -> None:
        """What was chosen, once; `warnings` are said in capitals where people read."""
        if self._json:
            self._line({"type": "start", "chosen": chosen, "warnings": warnings})
            return
        for part, what in chosen.items():
            rest = "  ".join(f"{key}={value}" for key, value in what.items())
            self._text(f"{part:<12} {rest}")
        for warning in warnings:
            self._text(f"WARNING      {warning.upper()}")

    def event(self, what: str, **details: Any) -> None:
        """Something that a person on call should see at once."""
        if self._json:
            self._line({"type": "event", "event": what, **details})
        else:
            rest = "  ".join(f"{key}={value}" for key, value in details.items())
            self._text(f"EVENT        {what}  {rest}")

    def statistics(self, stats: dict[str, Any]) -> None:
        """Rates since the last call, and what has gone wrong so far."""
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
            f"missing {sum(f['missing'] for f in feeds):,}  lost {sum(f['lost'] for f in feeds):,}"
        )

    def summary(self, stats: dict[str, Any], seconds: float) -> None:
        """Everything that was counted, at the end; zeros are left out where people read."""
        if self._json:
            self._line({"type": "summary", "seconds": seconds, **stats})
            return
        self._text(f"\nstopped after {seconds:,.1f} s")
        for part, counters in stats.items():
            self._tree(part, counters, 0)

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
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    def _line(self, value: dict[str, Any]) -> None:
        sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
        sys.stdout.flush()
