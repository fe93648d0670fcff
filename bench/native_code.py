"""Compiles the C that benchmarks need, when they need it, into .cache/bench."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from typing import Any

from cffi import FFI

from dpdk_bindings import include_dir

__all__ = ["load", "program"]

HERE = Path(__file__).resolve().parent
BAREWIRE = HERE.parent / "src" / "barewire" / "native"
CACHE = HERE.parent / ".cache" / "bench"


def load(name: str, declarations: str) -> tuple[Any, Any]:
    """The library made of native/`name`.c, and the cffi object that knows its `declarations`."""
    ffi = FFI()
    ffi.cdef(declarations)
    return ffi.dlopen(str(_compiled(name, ".so", "-shared", "-fPIC"))), ffi


def program(name: str) -> Path:
    """The program made of native/`name`.c."""
    return _compiled(name, "")


def _compiled(name: str, suffix: str, *flags: str) -> Path:
    source = HERE / "native" / f"{name}.c"
    made = CACHE / f"{name}-{hashlib.sha256(source.read_bytes()).hexdigest()[:16]}{suffix}"
    if not made.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        usual = ["-O3", "-march=native", "-std=gnu11", "-Wall", "-Wextra"]
        places = [include_dir(), f"{include_dir()}/dpdk_bindings", BAREWIRE]
        compiler = ["cc", *usual, *flags, *(f"-I{place}" for place in places)]
        subprocess.run([*compiler, str(source), "-o", str(made)], check=True)
    return made
