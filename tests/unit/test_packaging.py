"""The wheel holds what the checkout holds."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOMES = {"dpdk_bindings": ROOT, "barewire": ROOT / "src", "appliance": ROOT}


def test_every_package_is_in_the_wheel():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = {
        ".".join(path.parent.relative_to(home).parts)
        for name, home in HOMES.items()
        for path in (home / name).rglob("__init__.py")
    }
    assert set(declared["packages"]) == found


def test_every_data_file_that_code_reads_is_in_the_wheel():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    globs = declared["package-data"]
    for name, home in HOMES.items():
        for path in (home / name).rglob("*"):
            compiled = path.suffix == ".h" and "include" not in path.parts  # needed to build only
            if path.suffix in {".toml", ".h", ".typed"} and not compiled:
                package, *rest = ".".join(path.parent.relative_to(home).parts), path.name
                while package not in globs:
                    package, _, folder = package.rpartition(".")
                    rest.insert(0, folder)
                    assert package, f"{path} is in no wheel"
                inner = Path(*rest)
                assert any(inner.match(glob) for glob in globs[package]), f"{path} is in no wheel"
