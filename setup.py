"""Builds the two native cores and the Python types in C; all else is in pyproject.toml."""

import runpy

from setuptools import Extension, setup

FLAGS = [
    *("-O3", "-g", "-std=gnu11", "-Wall", "-Wextra", "-Wno-unused-parameter"),
    *("-Wno-missing-field-initializers", "-Wno-cast-function-type"),
]


def python_types(name: str) -> Extension:
    """Python types over one of the public headers, and nothing else of the native core."""
    return Extension(
        f"dpdk_bindings._{name}",
        [f"dpdk_bindings/python/{name}.c"],
        include_dirs=["dpdk_bindings/include"],
        depends=[
            f"dpdk_bindings/include/dpdk_bindings/{name}.h",
            "dpdk_bindings/python/burst.h",
        ],
        extra_compile_args=FLAGS,
        py_limited_api=True,
    )


lwip = runpy.run_path("dpdk_bindings/_build_lwip.py")

setup(
    ext_modules=[python_types("port"), python_types("datagram"), python_types("stream")],
    cffi_modules=[
        "dpdk_bindings/_build.py:ffibuilder",
        "src/barewire/_build.py:ffibuilder",
        *(["dpdk_bindings/_build_lwip.py:ffibuilder"] if lwip["wanted"]() else []),
    ],
)
