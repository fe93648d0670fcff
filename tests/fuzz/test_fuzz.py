"""Replays what is kept of every fuzzer; under ``--slow fuzz`` runs them for real."""

import shutil

import pytest

from tests.fuzz.runner import Fuzzer, fuzz, fuzzers, replay
from tests.requires import requires

ALL = [pytest.param(fuzzer, id=fuzzer.name) for fuzzer in fuzzers()]


@pytest.mark.parametrize("fuzzer", ALL)
def test_replay(fuzzer: Fuzzer, tmp_path):
    assert replay(fuzzer, tmp_path / "seeds") > 0, "no kept input and no seed"


@pytest.mark.fuzz
@pytest.mark.parametrize("fuzzer", ALL)
def test_fuzz(fuzzer: Fuzzer, tmp_path):
    requires(shutil.which("clang-14") is not None, "clang-14 and libclang-rt-14-dev")
    fuzz(fuzzer, tmp_path)
