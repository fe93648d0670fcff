"""What can be wrong with a ring."""

from __future__ import annotations

__all__ = ["RingError", "RingFull"]


class RingError(Exception):
    """A ring that cannot be created, opened or trusted.

    Attributes:
        message: what was wrong, with the ring's name.
        hint: what to do about it, or an empty string.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class RingFull(RingError):  # noqa: N818 - the word is the condition
    """A lossless ring without room: nothing was published, and sending has to halt."""
