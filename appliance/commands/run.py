"""Run the appliance: take transactions off the wire, match, fire.

One pinned, spinning process for each core of the configuration, a TOML file
(examples/appliance.toml is one). It says what it chose when it starts, a line a second while it
runs, and everything it counted when SIGTERM or SIGINT stops it. SIGHUP has it read the file's
[[trigger]] tables again, and puts them in the place of the current ones without losing a packet.
"""

from __future__ import annotations

import argparse
import signal
import time
from pathlib import Path

from appliance import config
from appliance.crew import cut_off, hot_core, run_crew
from appliance.examine import examine
from appliance.loop import Loop
from appliance.output import add_output_argument, refuse
from appliance.report import Reporter
from appliance.signals import HELD, Signals

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``--config FILE``, ``--check``, ``-o``."""
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="what to run")
    parser.add_argument(
        "--check", action="store_true", help="read and check the configuration, open nothing"
    )
    add_output_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Runs until it is told to stop; 0 after a clean stop, 1 if nothing could come in any more."""
    if args.check:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)  # nothing is opened that had to be closed
        return _check(args)
    with Signals() as signals:
        loaded = config.load(args.config)
        reporter = Reporter(as_json=args.output == "json")
        try:
            if len(loaded.cores) > 1:
                return run_crew(loaded, args.config, reporter, signals)
            return _run_one(loaded, args.config, reporter, signals)
        finally:
            reporter.close()


def _check(args: argparse.Namespace) -> int:
    refuse(list(examine(args.config)))
    reporter = Reporter(as_json=args.output == "json")
    try:
        reporter.event("configuration is good", file=str(args.config))
    finally:
        reporter.close()
    return 0


def _run_one(loaded: config.Config, where: Path, reporter: Reporter, signals: Signals) -> int:
    with hot_core(loaded, where, loaded.cores[0]) as (appliance, chosen, warnings):
        reporter.start(chosen, warnings)
        loop = Loop(
            appliance,
            signals,
            every_s=loaded.statistics_every_s,
            report=lambda: reporter.statistics(appliance.stats()),
        )
        began = time.monotonic()
        loop.run()
        appliance.stop()
        appliance.measure()
        stats = appliance.stats() | {"loop": {"longest_pause_ns": loop.longest_pause_ns}}
        reporter.summary(stats, time.monotonic() - began)
        return cut_off(appliance)
