"""Show the whole path at work: a lossy feed, AF_XDP, triggers, shots, and how long it took.

Two network namespaces and a veth pair. One side publishes real mainnet transactions among others
over two lossy lines; the appliance in the other decodes them and fires prepared transactions
back. Nothing outside the two namespaces is touched, and nothing is left behind.
"""

from __future__ import annotations

import argparse
from typing import TypeVar

from appliance.demo.stage import Show, play
from appliance.demo.traffic import LEAST
from appliance.output import add_output_argument
from barewire.errors import BarewireError

__all__ = ["add_arguments", "run"]


_Number = TypeVar("_Number", int, float)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How much, how fast, how lossy."""
    parser.add_argument("--messages", type=int, help="how many (default 20000)")
    parser.add_argument("--rate", type=float, help="messages a second (default 2000)")
    parser.add_argument(
        "--loss", type=float, default=1.0, metavar="PERCENT", help="on each line (default 1)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the loss and of the traffic")
    parser.add_argument("--via", choices=("afxdp", "kernel"), help="default: afxdp where possible")
    parser.add_argument(
        "--live",
        action="store_true",
        help="a real node with Uniswap V2 on it, heard by three lines at once; --messages are "
        "swaps (default 500), --rate defaults to 50",
    )
    add_output_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Plays the demo; 0 if nothing was lost."""
    messages = _given(args.messages, 500 if args.live else 20_000)
    rate = _given(args.rate, 50.0 if args.live else 2000.0)
    least = 1 if args.live else LEAST
    if messages < least:
        raise BarewireError(
            f"--messages {messages}",
            hint=f"at least {least}; {LEAST} where the block has its place",
        )
    if not 1 <= rate <= 1e6:
        raise BarewireError(f"--rate {rate:g}", hint="1 to 1000000 a second")
    if not 0 <= args.loss <= 50:
        raise BarewireError(f"--loss {args.loss:g}", hint="0 to 50 per cent of each line")
    if args.live:
        from appliance.demo.live import Live, play_live

        return play_live(Live(messages, rate, as_json=args.output == "json"))
    show = Show(
        messages=messages,
        rate=rate,
        loss=args.loss / 100,
        seed=args.seed,
        via=args.via,
        as_json=args.output == "json",
    )
    return play(show)


def _given(value: _Number | None, default: _Number) -> _Number:
    return default if value is None else value
