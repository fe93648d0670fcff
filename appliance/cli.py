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
from barewire.errors import BarewireError, OutageError
from dpdk_bindings.errors import BindingsError

__all__ = ["main"]


_NEEDS = {
    "demo": "pip install 'barewire[execution]', whose eth-account signs the demo's transactions",
    "keys": "pip install 'barewire[execution]'",
    "rpc": "pip install 'barewire[rpc]'",
    "signer": "pip install 'barewire[execution]'",
}
"""What to do where a command's own libraries are missing; the others need none."""

_OURS = {"appliance", "barewire", "dpdk_bindings"}


def _summaries() -> dict[str, str]:
    """The first line of each command's docstring, read without importing what it needs."""
    found = {}
    for file in resources.files(commands).iterdir():
        name, _, suffix = file.name.partition(".")
        if suffix == "py" and name != "__init__":
            text = _docstring(name)
            found[name] = text.splitlines()[0].rstrip(".") if text else ""
    return dict(sorted(found.items()))


def _load(name: str) -> ModuleType:
    try:
        return importlib.import_module(f"appliance.commands.{name}")
    except ModuleNotFoundError as missing:
        if name not in _NEEDS or (missing.name or "").split(".")[0] in _OURS:
            raise
        raise BarewireError(
            f"barewire {name} needs the Python module {missing.name}, which is not installed",
            hint=_NEEDS[name],
        ) from missing


def _docstring(name: str) -> str:
    """What a command says of itself, read without importing what it needs."""
    text = resources.files(commands).joinpath(f"{name}.py").read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(text)) or ""


def _help_without(name: str, missing: BarewireError) -> ModuleType:
    """Stands in for a command that cannot be imported, for ``--help``."""
    module = ModuleType(name, f"{_docstring(name)}\n\n{missing.message}: {missing.hint}")
    module.add_arguments = lambda _parser: None  # type: ignore[attr-defined]
    module.run = lambda _args: 2  # type: ignore[attr-defined]
    return module


def _parser(words: list[str]) -> argparse.ArgumentParser:
    wanted = words[0] if words else None
    parser = argparse.ArgumentParser(
        prog="barewire",
        description="Kernel-bypass, low-latency network appliance for Ethereum and L2 servers.",
    )
    parser.add_argument(
        "--version", action="version", version=importlib.metadata.version("barewire")
    )
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in _summaries().items():
        module = None
        if name == wanted:  # only what is wanted is imported
            try:
                module = _load(name)
            except BarewireError as missing:
                if not {"-h", "--help"} & set(words):
                    raise
                module = _help_without(name, missing)
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
    """Runs one sub-command.

    The exit status is 0 for success, 1 where something failed or is not there now (nobody answers,
    no loop runs), 2 for what the command line or a file says wrongly, 130 after Ctrl-C. A reader
    that has read enough (``| head``) is no failure.
    """
    _open_standard_streams()
    words = _as_options(sys.argv[1:] if argv is None else list(argv))
    if argv is None and words[:1] == ["run"]:
        # Until it can end in good order, and again while it does (appliance.signals).
        signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
    try:
        args = _parser(words).parse_args(words)
        status: int = args.entry(args)
        sys.stdout.flush()
    except (BarewireError, BindingsError) as error:
        complain(error.message, error.hint)
        return 1 if isinstance(error, OutageError) else 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        _forget_output()
        return 0
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        complain(f"not all could be written: {error.strerror}", "make room, or write elsewhere")
        _forget_output()
        return 1
    return status


def _as_options(words: list[str]) -> list[str]:
    """``help``, ``help COMMAND`` and ``version`` as the options that they mean."""
    if words[:1] == ["help"]:
        return [*(word for word in words[1:2] if word != "help"), "--help"]
    return ["--version"] if words == ["version"] else words


def _forget_output() -> None:
    """What is left in the buffer would fail again, with a traceback, when Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
