"""Builds the two native cores; everything else about the package is in pyproject.toml."""

from setuptools import setup

setup(
    cffi_modules=[
        "dpdk_bindings/_build.py:ffibuilder",
        "src/barewire/_build.py:ffibuilder",
    ],
)
