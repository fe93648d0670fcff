"""Options of the suite: what is slow runs only when asked for."""

from __future__ import annotations

import pytest
from hypothesis import settings

SLOW = ("slow", "fuzz", "soak")

# A run judges the change before it, so it tries the same examples every time. New ones are looked
# for on purpose: ./run test --hypothesis-profile=default
settings.register_profile("suite", derandomize=True)
settings.load_profile("suite")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--slow",
        nargs="?",
        const="slow",
        default=None,
        choices=SLOW,
        help="run only the slow tests: all but soaks (slow), the fuzzers (fuzz), the soak (soak)",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = config.getoption("--slow")
    kept, left = [], []
    for item in items:
        marks = {mark for mark in SLOW if item.get_closest_marker(mark)}
        if wanted is None:
            take = not marks
        elif wanted == "slow":
            take = bool(marks - {"soak"})
        else:
            take = wanted in marks
        (kept if take else left).append(item)
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = kept
