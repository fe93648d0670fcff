"""Builds the two native cores and the Port type; all else is in pyproject.toml."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "dpdk_bindings._port",
            ["dpdk_bindings/python/port.c"],
            include_dirs=["dpdk_bindings/include"],
            depends=["dpdk_bindings/include/dpdk_bindings/port.h"],
            extra_compile_args=[
                *("-O3", "-g", "-std=gnu11", "-Wall", "-Wextra", "-Wno-unused-parameter"),
                *("-Wno-missing-field-initializers", "-Wno-cast-function-type"),
            ],
            py_limited_api=True,
        )
    ],
    cffi_modules=[
        "dpdk_bindings/_build.py:ffibuilder",
        "src/barewire/_build.py:ffibuilder",
    ],
)
