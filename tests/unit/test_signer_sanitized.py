"""The native signer under the sanitizers of the compiler."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import pytest

from barewire import secp
from tests.requires import requires

HERE = Path(__file__).resolve().parent
NATIVE = HERE.parents[1] / "src/barewire/native"
SOURCES = [NATIVE / f"{name}.c" for name in ("presign", "secp", "signer", "vault")]


def stress(folder: Path, sanitizers: str, *words: int) -> int:
    """Builds and runs signer_stress.c; returns how many signatures were presigned."""
    program = folder / "signer_stress"
    built = subprocess.run(
        [
            *("cc", "-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", f"-I{NATIVE}"),
            *(f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all", "-DSTACK_BYTES=2097152"),
            *("-o", program),
            *(HERE / "native/signer_stress.c", *SOURCES, *NATIVE.glob("keccak*.c")),
            *("-ldl", "-lpthread"),
        ],
        capture_output=True,
        text=True,
    )
    requires("cannot find" not in built.stderr, f"the compiler's runtime for {sanitizers}")
    assert built.returncode == 0, built.stderr
    # ThreadSanitizer knows fewer layouts of the address space than kernels have.
    command = ["setarch", platform.machine(), "-R", program, secp.load().path, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    return int(done.stdout)


def test_under_address_and_undefined_behaviour_sanitizers(tmp_path):
    assert stress(tmp_path, "address,undefined", 4, 1000, 8) > 0


def test_under_thread_sanitizer(tmp_path):
    assert stress(tmp_path, "thread", 4, 1000, 0) > 0


@pytest.mark.slow
def test_for_long_under_thread_sanitizer(tmp_path):
    assert stress(tmp_path, "thread", 6, 20_000, 0) > 0
