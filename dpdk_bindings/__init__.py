"""Frames in, frames out: AF_XDP, captures and kernel sockets for Python.

Knows Ethernet, IP, UDP and TCP, and nothing of what the bytes mean.
"""

from pathlib import Path

__all__ = ["include_dir"]


def include_dir() -> Path:
    """The folder to put on a C compiler's include path for ``dpdk_bindings/*.h``."""
    return Path(__file__).resolve().parent / "include"
