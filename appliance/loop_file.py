"""A file about one loop that others read, beside its metrics."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

__all__ = ["LoopFile"]


class LoopFile:
    """Written in one step, so that a reader never sees half of it; removed on :meth:`close`.

    Args:
        path: where.
        tell: hears what went wrong. It must not stop the loop that there is no room, or that
            somebody removed the folder (systemd-logind does, when a user logs out: RemoveIPC).
    """

    def __init__(self, path: Path, tell: Callable[[str], None]) -> None:
        self._path = path
        self._tell = tell

    def write(self, content: bytes) -> None:
        """Puts `content` in the place of what was there."""
        unfinished = self._path.with_name(self._path.name + "~")
        try:
            unfinished.write_bytes(content)
            unfinished.rename(self._path)
        except OSError as error:
            with contextlib.suppress(OSError):  # it fails for the same cause, mostly
                unfinished.unlink()
            self._tell(f"{self._path}: {error.strerror}")

    def close(self) -> None:
        """Removes the file; that it cannot be is told, and is no reason not to end."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            self._tell(f"{self._path}: {error.strerror}")
