"""The memory ordering of the rings, checked exhaustively by spin on the models in tests/models.

A model that cannot fail proves nothing: each of the precautions is taken away in turn (slow), and
then the checker has to find the record that is torn or lost.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.requires import requires

MODELS = Path(__file__).parents[1] / "models"
TEETH = {
    "lossy": ["NO_BUSY", "NO_RETIRE", "NO_FENCE", "NO_RELEASE", "NO_RECHECK", "NO_ACQUIRE"],
    "lossless": [
        "NO_RECHECK",
        "NO_FENCE",
        "NO_JOINING",
        "NO_TRUTH",
        "NO_SCAN",
        "LOAD_TWICE",
        "ACK_ALL",
    ],
}


def check(model, folder, *options):
    """What spin's verifier says about a model, all states visited."""
    requires(shutil.which("spin") is not None, "spin (Debian package spin)")
    requires(shutil.which("cc") is not None, "a C compiler")

    def run(*command):
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=240, check=True
        )
        return done.stdout

    run("spin", *[f"-D{option}" for option in options], "-a", str(MODELS / f"{model}.pml"))
    # No cycles are looked for (SAFETY); states are compressed (COLLAPSE); warnings are spin's own.
    run("cc", "-O1", "-w", "-DSAFETY", "-DCOLLAPSE", "-DVECTORSZ=2048", "-o", "pan", "pan.c")
    said = run("./pan", "-m100000", "-w22")
    assert "max search depth too small" not in said
    assert "errors: " in said, said
    return said


@pytest.mark.parametrize("model", list(TEETH))
def test_no_order_of_loads_and_stores_tears_or_loses_a_record(model, tmp_path):
    said = check(model, tmp_path)
    assert "errors: 0" in said, said
    assert int(said.split(" states, stored")[0].split()[-1]) > 500_000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "without"), [(model, tooth) for model in TEETH for tooth in TEETH[model]]
)
def test_without_any_one_precaution_the_model_fails(model, without, tmp_path):
    said = check(model, tmp_path, without)
    assert "errors: 1" in said
    assert "assertion violated" in said
