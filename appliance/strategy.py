"""What a user's strategy is, and what it may do.

A strategy is any class whose instances have ``on_match``::

    class Backrun:
        def __init__(self, actions: Actions, options: dict[str, object]) -> None:
            self.actions = actions

        def on_match(self, match: Match) -> None:
            self.actions.send("gateway", answer_to(match.tx))

It is made once, before the first packet, and called in the hot thread: what it takes, every
packet behind this one waits for. What should happen in microseconds belongs into an armed shot
(``actions.arm``), which native code fires without asking. ``on_stop``, where it has one, is called
after the last packet.

An exception in it is counted and shown with its place, and stops sending: the halt word is set, no
shot fires and nothing is sent from then on. Receiving goes on.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, cast

from barewire.errors import ConfigError
from barewire.pump import Match

__all__ = ["Actions", "Strategy", "load"]


class Strategy(Protocol):
    """The one method that a strategy must have."""

    def on_match(self, match: Match) -> None:
        """A transaction met a trigger; `match` is valid until this returns."""


class Actions(Protocol):
    """What a strategy is handed to act with."""

    def send(self, destination: str, payload: bytes) -> bool:
        """Sends `payload` to the destination of that name at once; False if it did not leave."""

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

        Raises:
            BarewireError: it is armed, its group has fired, or a cap forbids it.
        """

    def now_mono_ns(self) -> int:
        """The clock that expiries and arrival times are of."""


def load(spec: str, where: str) -> Callable[[Actions, dict[str, Any]], Strategy]:
    """Finds the class that ``module:Class`` or ``path/to/file.py:Class`` names.

    Args:
        spec: which class; a path is relative to the folder of the configuration.
        where: the configuration's path, for finding files and for the error.

    Raises:
        ConfigError: no such file, module or class, or one without ``on_match``.
    """
    place, _, name = spec.rpartition(":")
    try:
        if place.endswith(".py"):
            module = _from_file((Path(where).parent / place).resolve())
        else:
            module = importlib.import_module(place)
    except (ImportError, OSError, SyntaxError) as error:
        raise ConfigError(
            f"{where}: strategy.load = {spec!r}: {error}",
            hint="name an importable module, or a .py file beside the configuration",
        ) from error
    made = getattr(module, name, None)
    if not isinstance(made, type) or not callable(getattr(made, "on_match", None)):
        raise ConfigError(
            f"{where}: strategy.load = {spec!r}: {place} has no class {name} with on_match",
            hint="see appliance/strategy.py",
        )
    return cast("Callable[[Actions, dict[str, Any]], Strategy]", made)


def _from_file(path: Path) -> ModuleType:
    found = importlib.util.spec_from_file_location(path.stem, path)
    if found is None or found.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(found)
    sys.modules[path.stem] = module
    found.loader.exec_module(module)
    return module
