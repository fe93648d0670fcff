"""Small steps between C's values and Python's."""

from __future__ import annotations

from typing import Any

from dpdk_bindings._native import ffi
from dpdk_bindings.errors import BindingsError

__all__ = ["address_of", "fields", "raised", "text"]


def text(chars: Any) -> str:
    """A C string as ``str``; bytes that are not UTF-8 show as question marks."""
    raw = ffi.string(chars)
    return raw if isinstance(raw, str) else raw.decode(errors="replace")


def fields(struct: Any) -> dict[str, Any]:
    """Every member of the struct behind a pointer by name; character arrays become ``str``."""
    answer: dict[str, Any] = {}
    for name, _ in ffi.typeof(struct[0]).fields:
        value = getattr(struct, name)
        answer[name] = value if isinstance(value, int) else text(value)
    return answer


def raised(error: Any) -> BindingsError:
    """What C wrote into a ``struct dpb_error``, ready to be raised."""
    message, log = text(error.what), text(error.log).strip()
    if log:
        message += f"\nThe verifier says:\n{log}"
    return BindingsError(message, hint=text(error.hint))


def address_of(pointer: Any) -> int:
    """A pointer as a number."""
    return int(ffi.cast("uintptr_t", pointer))
