"""What a test needs of the machine, said loudly when it is not there.

`requires(have, what)` skips with a reason; with BAREWIRE_REQUIRE_ALL=1 (as CI sets) the same lack
fails the test instead, so that nothing passes by being skipped.
"""

from __future__ import annotations

import importlib.util
import os

import pytest


def requires(have: bool, what: str) -> None:
    """Goes on if `have`; otherwise skips, or fails where everything is required."""
    if have:
        return
    if os.environ.get("BAREWIRE_REQUIRE_ALL") == "1":
        pytest.fail(f"BAREWIRE_REQUIRE_ALL is set and this machine lacks: {what}")
    pytest.skip(f"this machine lacks: {what}")


def requires_root() -> None:
    """Network namespaces and AF_XDP need root."""
    requires(os.geteuid() == 0, "root (network namespaces, AF_XDP)")


def requires_lwip() -> None:
    """TCP over a port is built only where lwIP is."""
    have = importlib.util.find_spec("dpdk_bindings._lwip") is not None
    requires(have, "lwIP (Debian: liblwip-dev, when the package is built)")
