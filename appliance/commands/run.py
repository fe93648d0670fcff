"""Runs the appliance: takes transactions off the wire, matches, fires.

One pinned, spinning process, configured by a TOML file (examples/appliance.toml is one). It says
what it chose when it starts, a line a second while it runs, and everything it counted when
SIGTERM or SIGINT stops it.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from appliance import config
from appliance.assembly import Appliance, examine
from appliance.loop import Loop
from appliance.output import add_output_argument
from appliance.report import Reporter

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``--config FILE``, ``--check``, ``-o``."""
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="what to run")
    parser.add_argument(
        "--check", action="store_true", help="read and check the configuration, open nothing"
    )
    add_output_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Runs until it is told to stop; 0 after a clean stop."""
    loaded = config.load(args.config)
    reporter = Reporter(as_json=args.output == "json")
    if args.check:
        examine(loaded, args.config)
        reporter.event("configuration is good", file=str(args.config))
        return 0
    with Appliance(loaded, args.config) as appliance:
        reporter.start(appliance.chosen, appliance.warnings)
        loop = Loop(
            appliance,
            cpu=loaded.core.cpu,
            every_s=loaded.statistics_every_s,
            report=lambda: reporter.statistics(appliance.stats()),
        )
        began = time.monotonic()
        loop.run()
        appliance.stop()
        stats = appliance.stats() | {"loop": {"longest_pause_ns": loop.longest_pause_ns}}
        reporter.summary(stats, time.monotonic() - began)
    return 0
