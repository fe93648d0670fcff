"""What the optional dependencies are called where one of them is missing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from barewire.errors import BarewireError

__all__ = ["feeds_needed"]


@contextlib.contextmanager
def feeds_needed() -> Iterator[None]:
    """Around the imports of what reads streams: a feed of datagrams must not need websockets.

    Raises:
        BarewireError: what is missing, and how to get it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise BarewireError(
            f"a source is a stream, and there is no {error.name}",
            hint="pip install 'barewire[feeds]'",
        ) from error
