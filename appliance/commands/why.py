"""Tell one transaction's way through the stages.

On which source it was seen and when, whether it matched and why, whether anything fired and why,
and the time of each step, from the flight recorders of the loops. Says so, with exit status 1,
where they do not hold it (any more).
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from appliance.metrics.files import FOLDER
from appliance.output import add_output_argument, console, print_json
from appliance.why import lines, story
from barewire.errors import BarewireError

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``barewire why``."""
    parser.add_argument("hash", help="the transaction's hash, 0x and 64 hexadecimal digits")
    parser.add_argument(
        "--folder", type=Path, default=FOLDER, help=f"where the recorders lie ({FOLDER})"
    )
    add_output_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Tells the story; 0 where there is one."""
    if not re.fullmatch("(0x)?[0-9a-fA-F]{64}", args.hash):
        raise BarewireError(
            f"{args.hash!r} is not a transaction's hash", hint="0x and 64 hexadecimal digits"
        )
    told = story(bytes.fromhex(args.hash.removeprefix("0x")), args.folder)
    if args.output == "json":
        print_json(told)
    else:
        for line in lines(told):
            console.print(line, markup=False, soft_wrap=True)
    return 0 if told["sightings"] else 1
