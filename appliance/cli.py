"""The ``barewire`` command."""

from __future__ import annotations

import argparse
import ast
import errno
import importlib
import importlib.metadata
import os
import signal
import sys
from importlib import resources
from types import ModuleType

from appliance import commands
from appliance.output import complain
from appliance.signals import HELD
from barewire.errors import BarewireError
from dpdk_bindings.errors import BindingsError

__all__ = ["main"]


_NEEDS = {
    "demo": "run it as `./run demo` in a checkout, which installs what it needs",
    "keys": "pip install 'barewire[execution]'",
    "rpc": "pip install 'barewire[rpc]'",
    "signer": "pip install 'barewire[execution]'",
}
"""What to do where a command's own libraries are missing; the others need none."""


def _summaries() -> dict[str, str]:
    """The first line of each command's docstring, read without importing what it needs."""
    found = {}
    for file in resources.files(commands).iterdir():
        name, _, suffix = file.name.partition(".")
        if suffix == "py" and name != "__init__":
            text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
            found[name] = text.splitlines()[0].rstrip(".") if text else ""
    return dict(sorted(found.items()))


def _load(name: str) -> ModuleType:
    try:
        return importlib.import_module(f"appliance.commands.{name}")
    except ModuleNotFoundError as missing:
        if name not in _NEEDS:
            raise
        raise BarewireError(
            f"barewire {name} needs the Python module {missing.name}, which is not installed",
            hint=_NEEDS[name],
        ) from missing


def _parser(wanted: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="barewire",
        description="Kernel-bypass, low-latency network appliance for Ethereum and L2 servers.",
    )
    parser.add_argument(
        "--version", action="version", version=importlib.metadata.version("barewire")
    )
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in _summaries().items():
        module = _load(name) if name == wanted else None  # only what is wanted is imported
        sub = subparsers.add_parser(
            name,
            help=summary,
            description=module.__doc__ if module else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if module:
            module.add_arguments(sub)
            sub.set_defaults(entry=module.run)
    return parser


def _open_standard_streams() -> None:
    """Opens what is closed of them to /dev/null, or the next socket would get its number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.open(os.devnull, os.O_RDWR), mode))  # noqa: SIM115, PTH123


def main(argv: list[str] | None = None) -> int:
    """Runs one sub-command; the exit status is 0 for success, 1 for failure, 2 for bad input."""
    _open_standard_streams()
    words = sys.argv[1:] if argv is None else argv
    if argv is None and words[:1] == ["run"]:
        # Until it can end in good order, and again while it does (appliance.signals).
        signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
    try:
        args = _parser(words[0] if words else None).parse_args(words)
        status: int = args.entry(args)
        sys.stdout.flush()
    except (BarewireError, BindingsError) as error:
        complain(error.message, error.hint)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 141
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        complain(f"not all could be written: {error.strerror}", "make room, or write elsewhere")
        # What is left in the buffer would fail again, with a traceback, when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status
