"""Options of the suite: what is slow runs only when asked for, and folders can be run alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

from tests import examples, pace

HERE = Path(__file__).resolve().parent
LONG = pace.LONG

# A run judges the change before it, so it tries the same examples every time. New ones are looked
# for on purpose: ./run test --hypothesis-profile=default
settings.register_profile("suite", derandomize=True)
settings.load_profile("suite")


def groups() -> list[str]:
    """The folders that hold tests."""
    return sorted({file.parent.name for file in HERE.glob("*/test_*.py")})


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--slow",
        nargs="?",
        const="slow",
        default=None,
        choices=LONG,
        help="run only the slow tests: all but soaks (slow), the fuzzers (fuzz), the soak (soak)",
    )
    parser.addoption(
        "--group",
        default=None,
        metavar="NAME",
        help=f"run the tests of one folder only: {', '.join(groups())}",
    )


def pytest_configure(config: pytest.Config) -> None:
    wanted = config.getoption("--group")
    if wanted is not None and wanted not in groups():
        raise pytest.UsageError(f"no group is named {wanted!r}; there are {', '.join(groups())}")
    if config.getoption("--slow") == "slow":
        examples.many()
    config.pluginmanager.register(pace)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    wanted = config.getoption("--group")
    if wanted is None or collection_path.parent != HERE or not collection_path.is_dir():
        return None
    return True if collection_path.name != wanted else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = config.getoption("--slow")
    kept, left = [], []
    for item in items:
        marks = {mark for mark in LONG if item.get_closest_marker(mark)}
        if wanted is None:
            take = not marks
        elif wanted == "slow":
            take = bool(marks - {"soak"}) or item.get_closest_marker("at_length") is not None
        else:
            take = wanted in marks
        (kept if take else left).append(item)
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = kept
