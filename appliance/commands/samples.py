"""Show the last bad bytes of each cause that the running loops counted.

A frame, datagram, message or transaction that is refused is counted by cause, and its first bytes
are kept. They are shown in hex, never as the text that a stranger may have put there. Reads what
the loops wrote down, about once a second; they do not notice.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from rich import box
from rich.table import Table

from appliance import causes
from appliance.metrics.files import FOLDER
from appliance.output import add_output_argument, console, print_json
from barewire.errors import OutageError

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``barewire samples``."""
    add_output_argument(parser)
    parser.add_argument(
        "--folder", type=Path, default=FOLDER, help=f"where the loops' metrics lie ({FOLDER})"
    )


def run(args: argparse.Namespace) -> int:
    """Shows them; 0 also where nothing was refused."""
    loops = causes.read(args.folder)
    if not loops:
        raise OutageError(
            f"no loop writes about its causes in {args.folder}",
            hint="start one (barewire run), or name its folder (--folder)",
        )
    if args.output == "json":
        print_json({name: known.samples for name, known in loops.items()})
        return 0
    for name, known in loops.items():
        table = Table(title=name, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for column in ("part", "of", "cause"):
            table.add_column(column, no_wrap=True)
        for column in ("count", "bytes"):
            table.add_column(column, justify="right", no_wrap=True)
        table.add_column("last seen", no_wrap=True)
        table.add_column("first bytes", overflow="fold")
        for one in known.samples:
            seen = time.strftime("%F %T", time.localtime(one.seen_real_ns / 1e9))
            table.add_row(
                *(one.part, one.of, one.cause, f"{one.count:,}", f"{one.sample_bytes:,}"),
                *(seen, one.sample_hex),
            )
        console.print(table)
    return 0
