"""Compiles ``barewire._native`` from native/ (cffi, API mode).

The native loop polls ports and endpoints through the function tables of dpdk_bindings' public
headers; it links with nothing of dpdk_bindings.
"""

import os
import runpy
from pathlib import Path

from cffi import FFI

ROOT = Path(__file__).resolve().parent
BINDINGS = ROOT.parents[1] / "dpdk_bindings"
_cdef = runpy.run_path(str(BINDINGS / "_cdef.py"))

# Types come before the headers that use them.
SHARED = [
    BINDINGS / "include/dpdk_bindings/frame.h",
    BINDINGS / "include/dpdk_bindings/datagram.h",
    BINDINGS / "include/dpdk_bindings/stream.h",
]
HEADERS = [
    ROOT / "native/keccak.h",
    ROOT / "native/mold.h",
    ROOT / "native/fragment.h",
    ROOT / "native/txrecord.h",
    ROOT / "native/secp.h",
    ROOT / "native/decode.h",
    ROOT / "native/senders.h",
    ROOT / "native/calls.h",
    ROOT / "native/trigger.h",
    ROOT / "native/shot.h",
    ROOT / "native/swap.h",
    ROOT / "native/signer.h",
    ROOT / "native/template.h",
    ROOT / "native/request.h",
    ROOT / "native/dedup.h",
    ROOT / "native/arbiter.h",
    ROOT / "native/wsframe.h",
    ROOT / "native/txjson.h",
    ROOT / "native/txfeed.h",
    ROOT / "native/trace.h",
    ROOT / "native/pump.h",
    ROOT / "native/inlet.h",
]

ffibuilder = FFI()
ffibuilder.cdef(_cdef["read"](SHARED + HEADERS))
ffibuilder.set_source(
    "barewire._native",
    "\n".join(f'#include "{header}"' for header in (h.name for h in SHARED + HEADERS)),
    sources=sorted(os.path.relpath(c) for c in (ROOT / "native").glob("*.c")),
    depends=sorted(
        os.path.relpath(h) for h in [*ROOT.glob("native/*.h"), *BINDINGS.glob("include/*/*.h")]
    ),
    include_dirs=[
        str(BINDINGS / "include/dpdk_bindings"),
        str(BINDINGS / "include"),
        str(ROOT / "native"),
    ],
    libraries=["dl", "pthread"],
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
