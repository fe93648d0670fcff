"""How many examples hypothesis tries: few while one works, many behind ``--slow``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings

__all__ = ["examples", "many"]

_many = False


def many() -> None:
    """From now on the greater number is meant: the suite was asked for what is slow."""
    global _many
    _many = True


def examples(few: int, at_length: int) -> Callable[[Any], Any]:
    """A test of `few` examples by default that ``--slow`` runs too, with `at_length` of them."""

    def decorated(test: Any) -> Any:
        chosen = settings(max_examples=at_length if _many else few, deadline=None)
        return pytest.mark.at_length(chosen(test))

    return decorated
