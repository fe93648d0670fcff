"""Compiles ``dpdk_bindings._native`` from native/ (cffi, API mode)."""

import os
import runpy
from pathlib import Path

from cffi import FFI

ROOT = Path(__file__).resolve().parent
_cdef = runpy.run_path(str(ROOT / "_cdef.py"))

# Types come before the headers that use them.
HEADERS = [
    ROOT / "include/dpdk_bindings/frame.h",
    ROOT / "include/dpdk_bindings/port.h",
    ROOT / "include/dpdk_bindings/datagram.h",
    ROOT / "include/dpdk_bindings/stream.h",
    ROOT / "native/error.h",
    ROOT / "native/bpf.h",
    ROOT / "native/xdp.h",
    ROOT / "native/afxdp.h",
    ROOT / "native/pcap.h",
    ROOT / "native/share.h",
    ROOT / "native/endpoint.h",
    ROOT / "native/endpoint_kernel.h",
    ROOT / "native/endpoint_joined.h",
    ROOT / "native/stream_kernel.h",
    ROOT / "include/dpdk_bindings/ring.h",
    ROOT / "native/ring_file.h",
    ROOT / "include/dpdk_bindings/outbox.h",
    ROOT / "native/endpoint_outbox.h",
    ROOT / "include/dpdk_bindings/metrics.h",
    ROOT / "native/metrics_file.h",
    ROOT / "native/headers.h",
    ROOT / "native/endpoint_port.h",
]

ffibuilder = FFI()
ffibuilder.cdef(_cdef["read"](HEADERS))
ffibuilder.set_source(
    "dpdk_bindings._native",
    "\n".join(f'#include "{header}"' for header in (h.name for h in HEADERS)),
    sources=sorted(os.path.relpath(c) for c in (ROOT / "native").glob("*.c")),
    depends=sorted(os.path.relpath(h) for h in ROOT.glob("**/*.h")),
    include_dirs=[str(ROOT / "include/dpdk_bindings"), str(ROOT / "include"), str(ROOT / "native")],
    extra_compile_args=[
        "-O3",
        "-g",
        "-Wall",
        "-Wextra",
        "-Werror=incompatible-pointer-types",
        "-Werror=implicit-function-declaration",
        "-Wno-unused-parameter",
        "-std=gnu11",
        "-fvisibility=hidden",
    ]
    + (["-Werror"] if os.environ.get("BAREWIRE_STRICT") else []),
)
_cdef["write_stub"](ffibuilder, ROOT / "_native.pyi")

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
