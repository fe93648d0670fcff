"""Write what came and went in the last seconds to a capture file.

Reads the flight recorders of the running loops, or of those that died; the loops do not notice.
The file is a pcapng: each frame at the time when it arrived here, marked as inbound or outbound;
what WebSocket and IPC sources brought is in it transaction by transaction (appliance/captured.py).
"""

from __future__ import annotations

import argparse
import errno
import time
from pathlib import Path

from appliance.captured import write_capture
from appliance.flight_reader import read_records, real_ns
from appliance.metrics.files import FOLDER
from appliance.output import add_output_argument, console, print_json
from barewire.errors import BarewireError, OutageError

__all__ = ["add_arguments", "run"]

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


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
    records = [record for record in read_records(args.folder) if real_ns(record) >= since_ns]
    try:
        written = write_capture(args.to, records)
    except OSError as error:
        if error.errno in _FULL:  # no mistake of whoever named it
            hint = "make room, or write elsewhere"
            raise OutageError(f"{args.to}: {error.strerror}", hint=hint) from error
        raise BarewireError(f"{args.to}: {error.strerror}", hint="name a file to write") from error
    said = {
        "file": str(args.to),
        "frames": written.frames,
        "sent": written.sent,
        "streamed": written.streamed,
        "cut_short": written.cut_short,
        "seconds": (written.last_ns - written.first_ns) / 1e9,
    }
    if args.output == "json":
        print_json(said)
    else:
        console.print(
            f"{said['file']}: {said['frames']:,} frames of {said['seconds']:.3f} s, "
            f"{said['sent']:,} of them sent by us, {said['streamed']:,} transactions of streams, "
            f"{said['cut_short']:,} cut short"
        )
    return 0
