"""The ``barewire`` command."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys

from appliance import commands
from appliance.output import complain
from barewire.errors import BarewireError
from dpdk_bindings.errors import BindingsError

__all__ = ["main"]


def _names() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(commands.__path__))


def _parser(wanted: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="barewire",
        description="Kernel-bypass, low-latency network appliance for Ethereum and L2 servers.",
    )
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    # One command is imported when it is named; all of them only to print the list.
    names = _names()
    for name in [wanted] if wanted in names else names:
        module = importlib.import_module(f"appliance.commands.{name}")
        text = (module.__doc__ or "").strip()
        sub = subparsers.add_parser(
            name,
            help=text.splitlines()[0].rstrip("."),
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(sub)
        sub.set_defaults(entry=module.run)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs one sub-command; the exit status is 0 for success, 1 for failure, 2 for bad input."""
    words = sys.argv[1:] if argv is None else argv
    args = _parser(words[0] if words else None).parse_args(words)
    try:
        status: int = args.entry(args)
    except (BarewireError, BindingsError) as error:
        complain(error.message, error.hint)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 141
    return status
