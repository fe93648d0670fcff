"""The error that a person reads."""

from __future__ import annotations

import reprlib

__all__ = ["BarewireError", "ConfigError", "OutageError", "shown"]


class _Bounded(reprlib.Repr):
    """Also of integers that Python refuses to write (sys.set_int_max_str_digits)."""

    def repr_int(self, x: int, level: int) -> str:
        if x.bit_length() > 512:
            return f"<a number of {x.bit_length()} bits>"
        return super().repr_int(x, level)


_bounded = _Bounded()
_bounded.maxstring = _bounded.maxother = _bounded.maxlong = 60


def shown(value: object) -> str:
    """`value` as a message shows it: in one line, cut where it is long, however deep it nests."""
    return _bounded.repr(value)


class BarewireError(Exception):
    """Something the user has to act on.

    Attributes:
        message: what was wrong, with the offending name and value.
        hint: what to do about it, or an empty string where the message says it all. Tracebacks
            show it, as a note of the exception (PEP 678).
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if hint:
            self.add_note(f"hint: {hint}")


class OutageError(BarewireError):
    """What is needed is not there now: the same may work later. Commands end with status 1."""


class ConfigError(BarewireError):
    """A configuration value that cannot be used; nothing was started."""
