"""How the command line speaks: tables for people, JSON for programs, complaints on stderr."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

import msgspec
from rich.console import Console

from barewire.errors import BarewireError
from barewire.untrusted import escaped

__all__ = ["add_output_argument", "complain", "console", "print_json", "refuse"]

_WIDE = 120  # columns in a pipe or a file: the usual 80 would cut tables


class _Console(Console):
    """rich's, but for a reader that is gone: that is the command line's to judge."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


_seen = sys.stdout is not None and sys.stdout.isatty()  # None: it was closed at the start

console = _Console(highlight=False, width=None if _seen or "COLUMNS" in os.environ else _WIDE)


def add_output_argument(parser: argparse.ArgumentParser) -> None:
    """Adds ``-o table|json``, and ``--json``, to `parser` (stored as ``args.output``)."""
    parser.add_argument(
        "-o",
        "--output",
        choices=("table", "json"),
        default="table",
        help="table for people (default), json for programs",
    )
    parser.add_argument(
        "--json", dest="output", action="store_const", const="json", help="the same as -o json"
    )


def print_json(value: Any) -> None:
    """Writes `value` (anything msgspec can encode) to stdout as indented JSON."""
    text = msgspec.json.format(msgspec.json.encode(value), indent=2)
    sys.stdout.write(text.decode() + "\n")


def complain(message: str, hint: str = "") -> None:
    """Says on stderr what was wrong and, on a line of its own, what to do about it.

    What a file or a name brings along of a terminal's control characters is written as escapes.
    """
    said = f"barewire: {message}\n" + (f"  hint: {hint}\n" if hint else "")
    sys.stderr.write(escaped(said, but="\n"))


def refuse(mistakes: Sequence[BarewireError]) -> None:
    """Says all of them on stderr, the last by raising it; nothing where there are none."""
    for mistake in mistakes[:-1]:
        complain(mistake.message, mistake.hint)
    if mistakes:
        raise mistakes[-1]
