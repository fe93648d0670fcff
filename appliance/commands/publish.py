r"""Turn a file of transactions into a feed: MoldUDP64 on lines A and B, paced.

The file holds signed transactions: hex lines, JSON lines (a hex string, or an object with one
under "raw"), length-prefixed binary, or a packet capture (UDP payloads that are such a feed, or
one transaction each). Format of the feed: docs/feed-format.md.

    barewire publish txs.hex --line-a 239.1.1.1:9000@eth1 --line-b 239.1.1.2:9000@eth2 \
        --rate 20000 --retransmit 10.0.0.1:9001

Rehearse bad networks: --loss 1% --duplicate 0.1% --reorder 0.5% --seed 7; each line fares alone.
Ctrl-C ends the session in order and shows the summary; a second one does not wait.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import itertools
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType

from rich.markup import escape
from rich.table import Table

from appliance.envelope_files import FORMATS, read_envelopes
from appliance.faults import Faults
from appliance.output import add_output_argument, console, print_json
from appliance.places import Place
from appliance.publisher import Publisher, PublisherConfig, PublisherSummary
from barewire.errors import BarewireError
from barewire.mempool.decoder import Decoder, Rules

_PROGRESS_NS = 250_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of ``barewire publish``."""
    place = "ADDRESS:PORT[@INTERFACE]"
    add = parser.add_argument
    add("file", type=Path, help="where the transactions are")
    add("--format", choices=("auto", *FORMATS), default="auto", help="of the file (default auto)")
    add("--line-a", metavar=place, required=True, help="address or multicast group of line A")
    add("--line-b", metavar=place, help="of line B")
    add("--retransmit", metavar=place, help="hear requests for retransmission there")
    add("--via", default="kernel", help="datagram backend: kernel (default), afxdp:INTERFACE")
    add(
        "--rate", type=float, default=1000, help="transactions a second, 0: no pause (default 1000)"
    )
    add("--count", type=int, help="how many transactions, beginning anew at the end of the file")
    add("--session", default="", help="1 to 10 ASCII characters never used before (default: made)")
    add("--max-datagram", type=int, default=1472, help="longest UDP payload (default 1472)")
    add("--ttl", type=int, help="of multicast (default: the kernel's)")
    add("--linger", type=float, default=1.0, help="seconds of answering after the end (default 1)")
    for name in ("loss", "duplicate", "reorder"):
        add(f"--{name}", default="0", metavar="N%", help=f"{name} on purpose, of each line")
    add("--seed", type=int, default=0, help="the same seed gives the same faults (default 0)")
    add_output_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Publishes the file; 0 when all of it was sent, 1 when it was stopped or something was not."""
    _check(args)
    lines = [Place.argument(text) for text in (args.line_a, args.line_b) if text]
    config = PublisherConfig(
        lines=tuple(lines),
        rate=args.rate,
        via=args.via,
        retransmit=Place.argument(args.retransmit) if args.retransmit else None,
        session=args.session,
        max_datagram=args.max_datagram,
        ttl=args.ttl,
        linger_ns=int(args.linger * 1e9),
        faults=Faults(
            loss=_fraction("loss", args.loss),
            duplication=_fraction("duplicate", args.duplicate),
            reordering=_fraction("reorder", args.reorder),
            seed=args.seed,
        ),
    )
    envelopes = read_envelopes(args.file, args.format)
    _warn_of_refused(envelopes)
    total = len(envelopes) if args.count is None else args.count
    source: Iterable[bytes] = itertools.islice(itertools.cycle(envelopes), total)
    with Publisher(config, source) as publisher, _interrupts() as interrupted:
        if publisher.server:
            sys.stderr.write(f"retransmission server on {publisher.server.place}\n")
        gc.freeze()  # the file's transactions need not be looked at again and again
        progress = _Progress(publisher, total)
        summary = publisher.run(stop=lambda: bool(interrupted), each_turn=progress)
        progress.clear()
    if args.output == "json":
        print_json(summary)
    else:
        _show(summary)
    complete = summary.transactions == total and not any(line.unsent for line in summary.lines)
    return 0 if complete else 1


def _check(args: argparse.Namespace) -> None:
    if not (args.rate == 0 or 1e-3 <= args.rate <= 1e9):
        raise BarewireError(f"--rate {args.rate:g}", hint="0.001 to 1e9 a second, or 0: no pause")
    if not 0 <= args.linger <= 86_400:
        raise BarewireError(f"--linger {args.linger:g}", hint="0 to 86400 seconds")
    if args.ttl is not None and not 1 <= args.ttl <= 255:
        raise BarewireError(f"--ttl {args.ttl}", hint="1 to 255")
    if args.count is not None and args.count < 1:
        raise BarewireError(f"--count {args.count}", hint="1 or more transactions")


def _warn_of_refused(envelopes: list[bytes]) -> None:
    """Says how many no decoder of ours would take: they are published all the same."""
    decoder = Decoder(Rules.preset("osaka", 0))
    for at in range(0, len(envelopes), 64):
        decoder.decode_burst(envelopes[at : at + 64])
    refused = {name: kept.count for name, kept in decoder.refusals().items() if kept.count}
    if refused:
        causes = ", ".join(f"{name} {count:,}" for name, count in refused.items())
        sys.stderr.write(
            f"{sum(refused.values()):,} of {len(envelopes):,} are no transactions that the "
            f"appliance takes: {causes}\n"
        )


def _fraction(name: str, text: str) -> float:
    """``1%`` or ``0.01`` as 0.01."""
    try:
        return float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise BarewireError(f"--{name} {text!r}", hint="write it like 1% or 0.01") from None


@contextlib.contextmanager
def _interrupts() -> Iterator[list[int]]:
    """The list grows at the first SIGINT or SIGTERM; the second one interrupts."""
    seen: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        if seen:
            raise KeyboardInterrupt
        seen.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Progress:
    """A line on stderr, four times a second, where a person is watching."""

    def __init__(self, publisher: Publisher, total: int) -> None:
        self._publisher = publisher
        self._total = total
        self._watched = sys.stderr.isatty()
        self._next_ns = 0

    def __call__(self) -> None:
        if not self._watched or (now := time.monotonic_ns()) < self._next_ns:
            return
        self._next_ns = now + _PROGRESS_NS
        stats = self._publisher.mold.stats
        sys.stderr.write(
            f"\r\033[K{self._publisher.sent:,} of {self._total:,} transactions, "
            f"{stats.requests:,} requests, {stats.retransmitted:,} messages sent again"
        )
        sys.stderr.flush()

    def clear(self) -> None:
        if self._watched:
            sys.stderr.write("\r\033[K")


def _show(summary: PublisherSummary) -> None:
    console.print(
        f"session {summary.session}: {summary.transactions:,} transactions in "
        f"{summary.messages:,} messages, {summary.seconds:.3f} s, {summary.rate:,.1f} a second"
    )
    console.print(
        f"sent later than intended: p50 {summary.lateness_p50_us} us, "
        f"p99 {summary.lateness_p99_us} us, max {summary.lateness_max_us:,.1f} us"
    )
    table = Table()
    for column in ("line", "datagrams", "lost on purpose", "duplicated", "reordered", "unsent"):
        table.add_column(column, justify="left" if column == "line" else "right")
    for line in summary.lines:
        figures = (line.sent, line.lost_on_purpose, line.duplicated, line.reordered, line.unsent)
        table.add_row(escape(line.place), *(f"{figure:,}" for figure in figures))
    console.print(table)
    console.print(
        f"requests {summary.requests:,}, answered {summary.answered:,}, "
        f"messages sent again {summary.retransmitted:,}"
    )
    refused = {cause: n for cause, n in summary.requests_refused.items() if n}
    if refused:
        console.print("requests refused: " + ", ".join(f"{c} {n:,}" for c, n in refused.items()))
