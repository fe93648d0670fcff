"""The error that a person reads, for those who use this package alone."""

from __future__ import annotations

__all__ = ["BindingsError", "Released"]


class BindingsError(Exception):
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


class Released(RuntimeError):  # noqa: N818 - it names a state, as StopIteration does
    """A burst was touched, or released once more, after it had been given back."""
