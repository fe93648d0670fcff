r"""Turn transactions into a feed: MoldUDP64 on lines A and B.

They come from a file of signed transactions, paced: hex lines, JSON lines (a hex string, or an
object with one under "raw"), length-prefixed binary, or a packet capture (UDP payloads that are
such a feed, or one transaction each). Or from a node as it announces them: ws://, wss:// or ipc://.
Format of the feed: docs/feed-format.md.

    barewire publish txs.hex --line-a 239.1.1.1:9000@eth1 --line-b 239.1.1.2:9000@eth2 \
        --rate 20000 --retransmit 10.0.0.1:9001
    barewire publish ws://10.0.0.2:8546 --line-a 239.1.1.1:9000@eth1

A node that cannot be reached, or no longer, is tried again, with pauses that double up to 30 s;
what it announced in between is read from its pool (docs/stream-feeds.md).

A datagram that cannot leave (no link, no route, too long) is no error: it is counted by its cause
and said on stderr, publishing goes on, an interface that comes back is used again, and the exit
status is 1.

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
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from rich.markup import escape
from rich.table import Table

from appliance.config_sources import Source, source_mistakes
from appliance.envelope_files import FORMATS, read_envelopes
from appliance.faults import Faults
from appliance.output import add_output_argument, console, print_json
from appliance.places import Place
from appliance.publisher import Publisher, PublisherConfig, PublisherSummary
from appliance.supply import Paced, Supply
from barewire.config import convert
from barewire.errors import BarewireError
from barewire.mempool.decoder import Decoder, Rules

_FILES = {
    "headers-file": "NAME: VALUE lines for the handshake, mode 0600",
    "ca-file": "who may vouch for a wss:// server, instead of the system's authorities",
    "certificate-file": "what is shown to a server that asks",
    "key-file": "its key, mode 0600, where it is not in the same file",
}
_PROGRESS_NS = 250_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of ``barewire publish``."""
    place = "ADDRESS:PORT[@INTERFACE]"
    add = parser.add_argument
    add("source", help="a file of transactions, or a node: ws://, wss:// or ipc://")
    add("--format", choices=("auto", *FORMATS), help="of the file (default auto)")
    add("--line-a", metavar=place, required=True, help="address or multicast group of line A")
    add("--line-b", metavar=place, help="of line B")
    add("--retransmit", metavar=place, help="hear requests for retransmission there")
    add("--via", default="kernel", help="datagram backend: kernel (default), afxdp:INTERFACE")
    add("--rate", type=float, help="of a file: transactions a second, 0: no pause (default 1000)")
    add("--count", type=int, help="how many transactions; at the end of a file it begins anew")
    add("--session", default="", help="1 to 10 ASCII characters never used before (default: made)")
    add("--max-datagram", type=int, default=1472, help="longest UDP payload (default 1472)")
    add("--ttl", type=int, help="of multicast (default: the kernel's)")
    add("--linger", type=float, default=1.0, help="seconds of answering after the end (default 1)")
    for name in ("loss", "duplicate", "reorder"):
        add(f"--{name}", default="0", metavar="N%", help=f"{name} on purpose, of each line")
    add("--seed", type=int, default=0, help="the same seed gives the same faults (default 0)")
    node = parser.add_argument_group("of a node").add_argument
    node("--subscribe", choices=("bodies", "hashes", "bloxroute"), help="to what (default bodies)")
    for name, what in _FILES.items():
        node(f"--{name}", metavar="FILE", help=what)
    add_output_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Publishes; 0 when all of it was sent, 1 when it was stopped or something was not.

    A node without ``--count`` has no end: to be stopped is the end of it.
    """
    _check(args)
    lines = [Place.argument(text) for text in (args.line_a, args.line_b) if text]
    if len(lines) > len(set(lines)):
        raise BarewireError(
            f"--line-b {args.line_b} is line A",
            hint="copies of one feed go to different addresses or ports",
        )
    config = PublisherConfig(
        lines=tuple(lines),
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
    with contextlib.ExitStack() as stack:
        supply, total = _supply(args, stack)
        publisher = stack.enter_context(Publisher(config, supply))
        interrupted = stack.enter_context(_interrupts())
        if publisher.server:
            sys.stderr.write(f"retransmission server on {publisher.server.place}\n")
        gc.freeze()  # a file's transactions need not be looked at again and again
        progress = _Progress(publisher, total)
        summary = publisher.run(stop=lambda: bool(interrupted), each_turn=progress)
        progress.clear()
    if args.output == "json":
        print_json(summary)
    else:
        _show(summary)
    complete = total in (None, summary.transactions)
    return 0 if complete and not any(line.unsent for line in summary.lines) else 1


def _supply(args: argparse.Namespace, stack: contextlib.ExitStack) -> tuple[Supply, int | None]:
    """Where the transactions come from, and how many they will be; None: as long as it runs."""
    if "://" in args.source:
        return _from_node(args, stack), args.count
    envelopes = read_envelopes(Path(args.source), args.format or "auto")
    _warn_of_refused(envelopes)
    total = len(envelopes) if args.count is None else args.count
    rate = 1000.0 if args.rate is None else args.rate
    return Paced(itertools.islice(itertools.cycle(envelopes), total), rate), total


def _from_node(args: argparse.Namespace, stack: contextlib.ExitStack) -> Supply:
    try:  # only here: to publish a file must not need websockets
        from appliance.node_supply import NodeSupply
    except ModuleNotFoundError as error:
        raise BarewireError(
            f"a node is a stream, and there is no {error.name}",
            hint="pip install 'barewire[feeds]'",
        ) from error
    written = {"name": "node", "url": args.source, "subscribe": args.subscribe}
    written |= {key: getattr(args, key) for key in (name.replace("-", "_") for name in _FILES)}
    given = {key: value for key, value in written.items() if value is not None}
    source = convert(given, Source, where="publish")
    if not source.is_stream:
        raise BarewireError(f"{args.source}: it is a feed already", hint="name a node")
    for mistake in source_mistakes("publish", source):
        raise mistake
    where = Path.cwd() / "publish"  # files are relative to the folder
    supply = NodeSupply(
        source, where, most=args.count, tell=lambda said: print(said, file=sys.stderr)
    )
    stack.callback(supply.close)
    return supply


def _check(args: argparse.Namespace) -> None:
    if "://" in args.source:
        _refuse(args, ("rate", "format"), "it is of files; a node gives the pace itself")
    else:
        of_nodes = ("subscribe", *(name.replace("-", "_") for name in _FILES))
        _refuse(args, of_nodes, f"it is of nodes, and {args.source} is a file")
    if args.rate is not None and not (args.rate == 0 or 1e-3 <= args.rate <= 1e9):
        raise BarewireError(f"--rate {args.rate:g}", hint="0.001 to 1e9 a second, or 0: no pause")
    if not 0 <= args.linger <= 86_400:
        raise BarewireError(f"--linger {args.linger:g}", hint="0 to 86400 seconds")
    if args.ttl is not None and not 1 <= args.ttl <= 255:
        raise BarewireError(f"--ttl {args.ttl}", hint="1 to 255")
    if args.count is not None and args.count < 1:
        raise BarewireError(f"--count {args.count}", hint="1 or more transactions")


def _refuse(args: argparse.Namespace, names: tuple[str, ...], why: str) -> None:
    """Refuses options that would do nothing."""
    for name in names:
        if (given := getattr(args, name)) is not None:
            option = f"--{name.replace('_', '-')}"
            raise BarewireError(f"{option} {given}: {why}", hint="leave it out")


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
    """Says on stderr what keeps datagrams from leaving, and to who watches how far it is."""

    def __init__(self, publisher: Publisher, total: int | None) -> None:
        self._publisher = publisher
        self._total = total
        self._watched = sys.stderr.isatty()
        self._next_ns = 0
        self._trouble = ""

    def __call__(self) -> None:
        now = time.monotonic_ns()
        if now < self._next_ns:
            return
        self._next_ns = now + _PROGRESS_NS
        if (trouble := self._publisher.trouble) != self._trouble:
            self.clear()
            sys.stderr.write(f"{trouble or 'datagrams leave again'}\n")
            self._trouble = trouble
        if not self._watched:
            return
        stats = self._publisher.mold.stats
        of = f" of {self._total:,}" if self._total is not None else ""
        sys.stderr.write(
            f"\r\033[K{self._publisher.sent:,}{of} transactions, "
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
        f"sent later than {summary.lateness_from}: p50 {summary.lateness_p50_us} us, "
        f"p99 {summary.lateness_p99_us} us, max {summary.lateness_max_us:,.1f} us"
    )
    table = Table()
    for column in ("line", "datagrams", "lost on purpose", "duplicated", "reordered", "refused"):
        table.add_column(column, justify="left" if column == "line" else "right")
    for line in summary.lines:
        figures = (line.sent, line.lost_on_purpose, line.duplicated, line.reordered, line.unsent)
        table.add_row(escape(line.place), *(f"{figure:,}" for figure in figures))
    console.print(table)
    for line in summary.lines:
        if causes := ", ".join(f"{cause} {n:,}" for cause, n in line.refused.items()):
            console.print(f"refused on {escape(line.place)}: {causes}")
    console.print(
        f"requests {summary.requests:,}, answered {summary.answered:,}, "
        f"messages sent again {summary.retransmitted:,}"
    )
    refused = {cause: n for cause, n in summary.requests_refused.items() if n}
    if refused:
        console.print("requests refused: " + ", ".join(f"{c} {n:,}" for c, n in refused.items()))
    if summary.source:
        _show_node(summary.source)


def _show_node(stats: dict[str, Any]) -> None:
    console.print(
        f"node: {stats['attempts']:,} connections tried, {stats['first']:,} transactions announced,"
        f" {stats['filled']:,} more from its pool, {stats['repeated']:,} again"
    )
    for why, times in stats["ended"].items():
        console.print(f"connections ended: {times:,}: {escape(why)}")
    refused = {cause: n for cause, n in stats["refused"].items() if n}
    if refused:
        console.print("refused: " + ", ".join(f"{cause} {n:,}" for cause, n in refused.items()))
