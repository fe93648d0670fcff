"""Compiles ``dpdk_bindings._lwip`` from lwip/ (cffi, API mode): TCP in user space, by lwIP.

It is optional, and a module of its own, so that the core loads where lwIP is not. The environment
variable BAREWIRE_LWIP says what to do when it is built: ``auto`` (the default) takes lwIP if a
compiler finds it, ``require`` fails without it, ``off`` leaves it out.
"""

import os
import runpy
import subprocess
from pathlib import Path

from cffi import FFI

ROOT = Path(__file__).resolve().parent
INCLUDE = "/usr/include/lwip"  # where Debian's liblwip-dev puts it, as `pkg-config lwip` leaves out
_cdef = runpy.run_path(str(ROOT / "_cdef.py"))

# Types come before the headers that use them.
HEADERS = [
    ROOT / "include/dpdk_bindings/frame.h",
    ROOT / "include/dpdk_bindings/stream.h",
    ROOT / "include/dpdk_bindings/datagram.h",
    ROOT / "native/headers.h",
    ROOT / "native/endpoint.h",
    ROOT / "lwip/siphash.h",
    ROOT / "lwip/stream_lwip.h",
]
SOURCES = [
    *sorted(ROOT.glob("lwip/*.c")),
    ROOT / "native/headers.c",
    ROOT / "native/checksum.c",
    ROOT / "native/endpoint.c",
]


def wanted() -> bool:
    """Whether to build it."""
    choice = os.environ.get("BAREWIRE_LWIP", "auto")
    if choice not in ("auto", "require", "off"):
        raise ValueError(f"BAREWIRE_LWIP={choice}: it is auto, require or off")
    if choice == "off":
        return False
    test = f"cc -fsyntax-only -I{INCLUDE} -include lwip/tcp.h -x c /dev/null"
    found = subprocess.run(test.split(), capture_output=True, check=False).returncode == 0
    if choice == "require" and not found:
        raise RuntimeError("BAREWIRE_LWIP=require, but there is no lwip/tcp.h: apt liblwip-dev")
    return found


ffibuilder = FFI()
ffibuilder.cdef(_cdef["read"](HEADERS))
ffibuilder.set_source(
    "dpdk_bindings._lwip",
    "\n".join(f'#include "{header}"' for header in (h.name for h in HEADERS)),
    sources=[os.path.relpath(c) for c in SOURCES],
    depends=sorted(os.path.relpath(h) for h in ROOT.glob("**/*.h")),
    include_dirs=[
        *(str(ROOT / folder) for folder in ("include/dpdk_bindings", "include", "native", "lwip")),
        INCLUDE,
    ],
    libraries=["lwip"],
    extra_compile_args=["-O3", "-g", "-Wall", "-Wextra", "-Wno-unused-parameter", "-std=gnu11"]
    + ["-Werror=incompatible-pointer-types", "-Werror=implicit-function-declaration"]
    + ["-fvisibility=hidden"]
    + (["-Werror"] if os.environ.get("BAREWIRE_STRICT") else []),
)
_cdef["write_stub"](ffibuilder, ROOT / "_lwip.pyi")  # for mypy, also where it is not built

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
