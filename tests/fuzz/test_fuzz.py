"""Replays what is kept of every fuzzer; under ``--slow fuzz`` runs them for real."""

import shutil
from pathlib import Path

import pytest

from tests.fuzz.runner import Fuzzer, fuzz, fuzzers, replay
from tests.requires import requires

ALL = [pytest.param(fuzzer, id=fuzzer.name) for fuzzer in fuzzers()]


def requires_its_libraries(fuzzer: Fuzzer) -> None:
    if "-llwip" in fuzzer.flags:
        requires(Path("/usr/include/lwip").exists(), "liblwip-dev")


@pytest.mark.parametrize("fuzzer", ALL)
def test_replay(fuzzer: Fuzzer, tmp_path):
    requires_its_libraries(fuzzer)
    assert replay(fuzzer, tmp_path / "seeds") > 0, "no kept input and no seed"


@pytest.mark.fuzz
@pytest.mark.parametrize("fuzzer", ALL)
def test_fuzz(fuzzer: Fuzzer, tmp_path):
    requires_its_libraries(fuzzer)
    requires(shutil.which("clang-14") is not None, "clang-14 and libclang-rt-14-dev")
    fuzz(fuzzer, tmp_path)
