"""What can be wrong with a ring."""

from __future__ import annotations

from dpdk_bindings.errors import BindingsError

__all__ = ["RingError", "RingFull"]


class RingError(BindingsError):
    """A ring that cannot be created, opened or trusted."""


class RingFull(RingError):  # noqa: N818 - the word is the condition
    """A lossless ring without room: nothing was published, and sending has to halt."""
