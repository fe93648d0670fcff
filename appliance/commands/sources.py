"""Show the sources of the running loops: state, rate, who leads, duplicates, gaps.

Reads what the loops wrote down, about once a second; they do not notice. *First* is what nobody
else had brought before, in the order of reading; *earliest* what arrived before all other copies,
by the stamps: AF_XDP's is made at the interface, a kernel socket's when it is read. *Lead* is by
how much earlier than the second that was, *lag* by how much later than the first the rest came.
What a source did not bring is said below, cause by cause.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from appliance import ledger
from appliance.metrics.files import FOLDER
from appliance.output import add_output_argument, console, print_json
from barewire.errors import OutageError

__all__ = ["add_arguments", "run", "show"]

_STALE_NS = 10_000_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``barewire sources``."""
    add_output_argument(parser)
    parser.add_argument(
        "--folder", type=Path, default=FOLDER, help=f"where the loops' metrics lie ({FOLDER})"
    )


def run(args: argparse.Namespace) -> int:
    """0 if every source is live, 1 if one is not, or its loop is gone."""
    loops = ledger.read(args.folder)
    if not loops:
        raise OutageError(
            f"no loop writes about its sources in {args.folder}",
            hint="start one (barewire run), or name its folder (--folder)",
        )
    now = time.monotonic_ns()
    for content in loops.values():
        content["stale"] = now - content["at_mono_ns"] > _STALE_NS
    if args.output == "json":
        print_json(loops)
    else:
        for name, content in loops.items():
            show(name, content)
    good = all(
        not content["stale"]
        and content["compares"]
        and all(row.get("state") in ("live", "active") for row in content["sources"])
        for content in loops.values()
    )
    return 0 if good else 1


def show(name: str, content: dict[str, Any]) -> None:
    """Prints what a ledger holds (appliance.ledger) as a table."""
    gone = "   (has not written for a while: is it gone?)" if content.get("stale") else ""
    if not content["compares"]:
        gone += "   (the core that compares them is gone)"
    table = Table(title=f"{name}{gone}", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("source", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for column in ("tx/s", "first", "earliest", "behind"):
        table.add_column(column, justify="right", no_wrap=True)
    for column in ("lead\np50 us", "lag\np50 us", "lag\np99 us", "gaps", "refused"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in content["sources"]:
        compared = "rate" in row
        table.add_row(
            row["source"],
            str(row.get("state", "?")),
            f"{row['rate']:,.1f}" if compared else "-",
            f"{row['first']:,}" if compared else "-",
            f"{row['earliest']:,}" if compared else "-",
            f"{row['behind']:,}" if compared else "-",
            _time(row, "lead", "p50_us"),
            _time(row, "lag", "p50_us"),
            _time(row, "lag", "p99_us"),
            f"{row.get('gaps', 0):,}",
            f"{row.get('refused', 0):,}",
        )
    console.print(table)
    for row in content["sources"]:
        if why := _why(row):
            console.print(f"{escape(row['source'])}: {escape(why)}")
        for cause, words in ledger.MISSING.items():
            if count := row["missing"].get(cause, 0):
                console.print(f"{escape(row['source'])}: {words}: {count:,}")


def _why(row: dict[str, Any]) -> str:
    """What has to be said of the state."""
    if row.get("quiet_ms") is None and row.get("state") in ("live", "active"):
        return "nothing yet"
    return str(row.get("why") or "")


def _time(row: dict[str, Any], which: str, quantile: str) -> str:
    values = row.get(which)
    return f"{values[quantile]:,.1f}" if values and values["n"] else "-"
