"""What cffi is told is read from the C headers themselves, so that a layout is written down once.

A header marks the declarations that Python may see::

    /* <cdef> */
    struct dpb_frame { ... };
    /* </cdef> */

Within the marks only what cffi's parser understands may stand: declarations, enums, and
``#define NAME 123`` constants. :func:`read` gives that text back; :func:`write_stub` writes the
``_native.pyi`` of the compiled module, so that mypy knows every function by name.

Used by the build scripts of both native cores.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_MARKED = re.compile(r"/\* <cdef> \*/(.*?)/\* </cdef> \*/", re.DOTALL)
_STATIC_ASSERT = re.compile(r"^_Static_assert\(.*?\);\s*$", re.MULTILINE | re.DOTALL)


def read(headers: list[Path]) -> str:
    """Joins the marked declarations of `headers`, in the order given (types before their users)."""
    parts: list[str] = []
    for header in headers:
        marked = _MARKED.findall(header.read_text())
        if not marked:
            raise ValueError(f"{header}: no <cdef> section")
        parts += [_STATIC_ASSERT.sub("", text) for text in marked]
    return "\n".join(parts)


def write_stub(ffi: Any, path: Path) -> None:
    """Writes the type stub of the module that `ffi` describes to `path`.

    Integers become ``int``, floating point ``float``, ``void`` ``None``; every pointer and struct
    is a cffi object and typed ``Any``.
    """
    lines = [
        "# Generated from the C headers when the module is built.",
        "from typing import Any",
        "",
    ]
    lines += ["import cffi", "", "ffi: cffi.FFI", "", "class _Lib:"]
    # cffi has no public way to list what was declared.
    declarations = ffi._parser._declarations  # noqa: SLF001
    for name, (tp, _quals) in sorted(declarations.items()):
        kind, _, symbol = name.partition(" ")
        if kind == "function":
            params = "".join(f"_{i}: {_python(arg, True)}, " for i, arg in enumerate(tp.args))
            lines.append(f"    def {symbol}(self, {params}/) -> {_python(tp.result)}: ...")
        elif kind in ("macro", "constant"):
            lines.append(f"    {symbol}: int")
        elif kind == "variable":
            lines.append(f"    {symbol}: {_python(tp)}")
        elif kind in ("enum", "anonymous") and hasattr(tp, "enumerators"):
            lines += [f"    {enumerator}: int" for enumerator in tp.enumerators]
    lines += ["", "lib: _Lib", ""]
    text = "\n".join(lines)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


_FLOATS = {"float", "double"}


def _python(tp: Any, argument: bool = False) -> str:
    kind = type(tp).__name__
    if kind == "VoidType":
        return "None"
    if kind == "PrimitiveType":
        return (
            "float"
            if tp.name in _FLOATS
            else "bool"
            if tp.name == "_Bool" and not argument
            else "int"
        )
    if kind == "EnumType":
        return "int"
    return "Any"
