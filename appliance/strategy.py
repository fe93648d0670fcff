"""What a user's strategy is, and what it may do.

A strategy is any class whose instances have ``on_match``::

    class Backrun:
        def __init__(self, actions: Actions, options: dict[str, object]) -> None:
            self.actions = actions

        def on_match(self, match: Match) -> None:
            self.actions.send("gateway", answer_to(match.tx))

It is made once, before the first packet, and called in the hot thread: what it takes, every
packet behind this one waits for. What should happen in microseconds belongs into an armed shot
(``actions.arm``), which native code fires without asking.

Three further methods are called where it has them: ``on_timer()`` every ``strategy.timer_ms``;
``on_block(block)`` for each new block that a source tells of (barewire.feeds.blocks); ``on_stop()``
after the last packet.

An exception in it, or a call that takes longer than ``strategy.limit_ms``, is counted and shown
with its place, and stops sending: the halt word is set, no shot fires and nothing is sent from
then on. Receiving goes on (appliance.conductor). docs/strategies.md is the longer story, and
appliance.strategy_kit replays captures into a strategy without a network.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, cast

from barewire.errors import ConfigError
from barewire.pump import Match

__all__ = ["GROUP", "Actions", "Strategy", "load", "make"]

GROUP = "barewire.strategies"
"""The entry points among which a name without a colon is looked up."""


class Strategy(Protocol):
    """The one method that a strategy must have."""

    def on_match(self, match: Match) -> None:
        """A transaction met a trigger; `match` is valid until this returns."""


class Actions(Protocol):
    """What a strategy is handed to act with."""

    def send(
        self, destination: str, payload: bytes, *, value_wei: int = 0, max_fee_wei: int = 0
    ) -> bool:
        """Sends `payload` to the destination of that name at once; False if it did not leave.

        It goes through the same gate as shots: nothing leaves without ``fire.unjournalled``, while
        sending is halted, or beyond the caps of ``[fire]``, which count shots and sends together.
        Value and fee are read from a signed transaction, where `payload` is one; declare them for
        anything else that moves money. What is refused is counted by cause.

        Raises:
            BarewireError: there is no destination of that name, or a value is out of range.
        """

    def arm(
        self,
        shot: str,
        destination: str,
        payload: bytes,
        *,
        expires_after_ms: int,
        value_wei: int = 0,
        max_fee_wei: int = 0,
        group: str | None = None,
        cookie: int = 0,
    ) -> None:
        """Arms the shot that triggers fire by its name (``shot = ...`` in a [[trigger]]).

        One that has expired gives its place up.

        Raises:
            BarewireError: it is armed, its group has fired, or a cap forbids it.
        """

    def disarm(self, shot: str) -> bool:
        """Takes back what was armed, to arm something else; False: it was not armed any more."""

    def sender(self, tx_hash: bytes) -> bytes | None:
        """Who signed the transaction of this hash, where a worker has answered by now.

        Returns:
            The 20-byte address, empty bytes where nobody can have made the signature, or None
            where it is not known (yet); always None without ``[senders] workers``.
        """

    def now_mono_ns(self) -> int:
        """The clock that expiries and arrival times are of."""


def load(spec: str, where: str) -> Callable[[Actions, dict[str, Any]], Strategy]:
    """Finds a strategy's class.

    Args:
        spec: ``package.module:Class``; ``path/to/file.py:Class``, relative to the folder of the
            configuration; or the name of an entry point of the group ``barewire.strategies``.
        where: the configuration's path, for finding files and for the error.

    Raises:
        ConfigError: no such file, module or class, or one without ``on_match``.
    """
    place, _, name = spec.rpartition(":")
    if not place:
        place, name = _entry_point(spec, where)
    file = (Path(where).parent / place).resolve() if place.endswith(".py") else None
    if file and not file.is_file():
        raise ConfigError(
            f"{where}: strategy.load = {spec!r}: there is no file {file}",
            hint="name an importable module, or a .py file beside the configuration",
        )
    try:
        module = _from_file(file) if file else importlib.import_module(place)
    except (Exception, SystemExit) as error:  # whatever a user's module does when it is imported
        raise ConfigError(
            f"{where}: strategy.load = {spec!r}: {_said(error)}",
            hint="name an importable module, or a .py file beside the configuration",
        ) from error
    made = getattr(module, name, None)
    if not isinstance(made, type) or not callable(getattr(made, "on_match", None)):
        raise ConfigError(
            f"{where}: strategy.load = {spec!r}: {place} has no class {name} with on_match",
            hint="see docs/strategies.md",
        )
    return cast("Callable[[Actions, dict[str, Any]], Strategy]", made)


def make(spec: str, where: str, actions: Actions, options: dict[str, Any]) -> Strategy:
    """An instance of the class that :func:`load` finds.

    Raises:
        ConfigError: there is none, or it could not be made.
    """
    kind = load(spec, where)
    try:
        return kind(actions, options)
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"{where}: strategy {spec!r} could not be made: {_said(error)}",
            hint="it is called with what it may do and with strategy.options",
        ) from error


def _said(error: BaseException) -> str:
    """What a user's code raised, and where."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({last.filename}:{last.lineno})"


def _entry_point(name: str, where: str) -> tuple[str, str]:
    found = {point.name: point for point in entry_points(group=GROUP)}
    if name not in found:
        raise ConfigError(
            f"{where}: strategy.load = {name!r}: no installed package has such an entry point",
            hint=f"of the group {GROUP} there are: {', '.join(sorted(found)) or 'none'}; or name "
            "package.module:Class or file.py:Class",
        )
    return found[name].module, found[name].attr


def _from_file(path: Path) -> ModuleType:
    name = f"{__name__}.{path.stem}"  # a queue.py of the user's is not the library's queue
    found = importlib.util.spec_from_file_location(name, path)
    if found is None or found.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    found.loader.exec_module(module)
    return module
