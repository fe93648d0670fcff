"""Write what came and went in the last seconds to a capture file.

Reads the flight recorders of the running loops, or of those that died; the loops do not notice.
The file is a classic pcap with nanoseconds, each frame at the time when it arrived here.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from appliance.captured import write_capture
from appliance.flight_reader import Datagram, read_records, real_ns
from appliance.metrics.files import FOLDER
from appliance.output import add_output_argument, console, print_json
from barewire.errors import BarewireError

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``barewire record``."""
    parser.add_argument("--to", type=Path, required=True, metavar="FILE", help="the capture")
    parser.add_argument(
        "--last", type=float, metavar="SECONDS", help="only so much; by default all that is there"
    )
    parser.add_argument(
        "--folder", type=Path, default=FOLDER, help=f"where the recorders lie ({FOLDER})"
    )
    add_output_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Writes the file and says what is in it."""
    if args.last is not None and not 0 < args.last < 1e9:
        raise BarewireError(f"--last {args.last:g} is no time", hint="seconds, more than 0")
    since_ns = time.time_ns() - int(args.last * 1e9) if args.last else 0
    datagrams = [
        record
        for record in read_records(args.folder)
        if isinstance(record, Datagram) and real_ns(record) >= since_ns
    ]
    try:
        count = write_capture(args.to, datagrams)
    except OSError as error:
        raise BarewireError(f"{args.to}: {error.strerror}", hint="name a file to write") from error
    times = [real_ns(one) for one in datagrams]
    said = {
        "file": str(args.to),
        "frames": count,
        "sent": sum(one.out for one in datagrams),
        "cut_short": sum(len(one.content) < one.full_bytes for one in datagrams),
        "seconds": (max(times) - min(times)) / 1e9 if times else 0.0,
    }
    if args.output == "json":
        print_json(said)
    else:
        console.print(
            f"{said['file']}: {said['frames']:,} frames of {said['seconds']:.3f} s, "
            f"{said['sent']:,} of them sent by us, {said['cut_short']:,} cut short"
        )
    return 0
