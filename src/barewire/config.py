"""Configuration as typed structs, and errors that say what to write instead.

msgspec converts what ``tomllib`` read; its errors name the place but neither the value nor what
would have been allowed. :func:`convert` adds both::

    appliance.toml: source[0].via = 'afxpd': not one of the allowed values
      hint: allowed: 'kernel', or 'afxdp:INTERFACE'

A type that is written as one string (an address, a duration) is a class with a `parse`
classmethod and an `allowed` sentence; see :class:`Written`.
"""

from __future__ import annotations

import contextlib
import difflib
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import (
    Any,
    ClassVar,
    Protocol,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
    runtime_checkable,
)

import msgspec
from msgspec import inspect

from barewire.errors import BarewireError, ConfigError, shown
from barewire.rpc.addresses import redact, without_secrets

__all__ = [
    "UNREAD",
    "Unread",
    "Written",
    "convert",
    "entries",
    "load",
    "mistakes",
    "raised",
    "read",
    "refusals",
    "salvage",
    "told",
    "toml",
]

T = TypeVar("T")
E = TypeVar("E", bound=BarewireError)


@runtime_checkable
class Written(Protocol):
    """A value that is written as one TOML string and parsed by its own class.

    One that may be written as a list of strings too says so by an attribute `listed`, and its
    `parse` then takes either.
    """

    allowed: ClassVar[str]

    @classmethod
    def parse(cls, text: str) -> Written:
        """The value that `text` writes; raises ValueError that says what is wrong with it."""
        ...


def load(path: Path, kind: type[T]) -> T:
    """Reads the TOML file at `path` into `kind`.

    Raises:
        ConfigError: the file cannot be read, is not TOML, or holds a value that `kind` refuses.
    """
    return convert(read(path), kind, where=str(path))


def read(path: Path) -> dict[str, Any]:
    """The TOML file at `path` as plain data.

    Raises:
        ConfigError: the file cannot be read, or is not TOML.
    """
    try:
        if path.exists() and not path.is_file():
            raise ConfigError(f"{path}: not a file", hint="name a readable file")
        return toml(path.read_text(encoding="utf-8-sig"), where=str(path))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", hint="name a readable file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}") from error


def toml(text: str, *, where: str) -> dict[str, Any]:
    """The TOML in `text` as plain data.

    Raises:
        ConfigError: it is none.
    """
    try:
        return tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError is one; a number of 5,000 digits just that
        raise ConfigError(f"{where} is not TOML: {error}", hint="see https://toml.io") from error
    except RecursionError:
        raise ConfigError(f"{where}: tables inside tables without end") from None


def convert(data: Any, kind: type[T], *, where: str) -> T:
    """Converts plain `data` (dicts, lists, strings, numbers) into `kind`.

    Args:
        data: what a TOML or JSON reader gave.
        kind: a msgspec Struct.
        where: the file's name, for the error.

    Raises:
        ConfigError: names the key, its value, and what is allowed there.
    """
    try:
        return msgspec.convert(data, kind, dec_hook=_parse_written)
    except msgspec.ValidationError as error:
        raise _explain(str(error), data, kind, where) from None
    except RecursionError:
        raise ConfigError(f"{where}: values inside values without end") from None


def mistakes(data: Any, kind: type, *, where: str) -> Iterator[ConfigError]:
    """Everything that `kind` refuses in `data`, where :func:`convert` raises the first of it."""
    for said in refusals(data, kind):
        yield _explain(said, data, kind, where)


class Unread(Exception):  # noqa: N818 - it names a state, as StopIteration does
    """What is asked depends on a value that is wrong."""


class _Unread:
    """Stands for a value that is wrong: whoever wants to know anything of it gets Unread.

    So does who calculates with it or makes a path of it. In words about other values it is ``?``.
    """

    def _refuse(self, *_: object) -> Any:
        raise Unread

    __getattr__ = __bool__ = __eq__ = __hash__ = __iter__ = __len__ = __str__ = _refuse
    __contains__ = __getitem__ = __lt__ = __gt__ = __le__ = __ge__ = __index__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = _refuse
    __floordiv__ = __rfloordiv__ = __rtruediv__ = __mod__ = __pow__ = __rpow__ = _refuse
    __lshift__ = __rlshift__ = __rshift__ = __and__ = __rand__ = __or__ = __ror__ = _refuse
    __neg__ = __invert__ = __abs__ = __int__ = __float__ = __format__ = __fspath__ = _refuse

    def __repr__(self) -> str:
        return "?"


UNREAD: Any = _Unread()


def salvage(data: Any, kind: Any) -> Any:
    """As :func:`convert`, with UNREAD in the place of each value that `kind` refuses.

    So that what several values are together can be asked where others are wrong.
    """
    info = _plain(inspect.type_info(kind), data)
    if isinstance(info, inspect.StructType) and isinstance(data, dict):
        hints = get_type_hints(info.cls, include_extras=True)
        given = {
            field.name: salvage(data[field.encode_name], hints[field.name])
            if field.encode_name in data
            else UNREAD
            for field in info.fields
            if field.required or field.encode_name in data
        }
        try:
            return info.cls(**given)
        except Unread:
            return UNREAD
    if isinstance(info, inspect.ListType) and isinstance(data, list):
        element = _element(kind)
        return [salvage(one, element) for one in data]
    try:
        return msgspec.convert(data, kind, dec_hook=_parse_written)
    except msgspec.ValidationError:
        return UNREAD


def entries(listed: Iterable[T]) -> Iterator[tuple[int, T]]:
    """What could be read of a list that was salvaged, with its places."""
    if listed is not UNREAD:
        yield from ((place, entry) for place, entry in enumerate(listed) if entry is not UNREAD)


def told(found: Iterator[E]) -> Iterator[E]:
    """What of `found` can be told where some values are wrong."""
    with contextlib.suppress(Unread):
        yield from found


def raised(kind: type[E], check: Callable[..., object], *given: object) -> Iterator[E]:
    """What `check` of `given` raises of that kind, if it does."""
    try:
        check(*given)
    except kind as mistake:
        yield mistake


def refusals(value: Any, hint: Any, path: str = "") -> Iterator[str]:
    """What is wrong with `value` (at `path`) and inside it, in msgspec's words."""
    info = _plain(inspect.type_info(hint), value)
    found: list[str] = []
    if isinstance(info, inspect.StructType) and isinstance(value, dict):
        hints = get_type_hints(info.cls, include_extras=True)
        fields = {field.encode_name: field for field in info.fields}
        found += [f"Object contains unknown field `{key}`" for key in value if key not in fields]
        found += [
            f"Object missing required field `{key}`"
            for key, field in fields.items()
            if field.required and key not in value
        ]
        found = [f"{said} - at `$.{path}`" if path else said for said in found]
        inner = [(value[key], hints[fields[key].name], key) for key in value if key in fields]
        for one, inside, key in inner:
            found += refusals(one, inside, f"{path}.{key}" if path else key)
    elif isinstance(info, inspect.ListType) and isinstance(value, list):
        element = _element(hint)
        for index, one in enumerate(value):
            found += refusals(one, element, f"{path}[{index}]")
    if not found:
        try:
            msgspec.convert(value, hint, dec_hook=_parse_written)
        except msgspec.ValidationError as error:
            place = _PLACE.search(str(error))
            problem = str(error)[: place.start()] if place else str(error)
            inside = place.group(1) if place else ""
            found = [f"{problem} - at `$.{path}{inside}`" if path else str(error)]
    yield from found


def _element(hint: Any) -> Any:
    """What the list is of that `hint` allows, alone or among others."""
    if get_origin(hint) is list:
        return get_args(hint)[0]
    return next((found for part in get_args(hint) if (found := _element(part))), None)


def _parse_written(kind: Any, value: Any) -> Any:
    listed = isinstance(value, list) and getattr(kind, "listed", False)
    if not (listed and all(isinstance(part, str) for part in value)) and not isinstance(value, str):
        raise TypeError(f"expected a string, got {type(value).__name__}")
    return kind.parse(value)


_PLACE = re.compile(r" - at `(?:key in )?\$?(.*)`$")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*?)`")
_MISSING = re.compile(r"Object missing required field `(.*?)`")


def _explain(message: str, data: Any, kind: type, where: str) -> ConfigError:
    """Turns msgspec's sentence into one that names key, value and what is allowed."""
    place = _PLACE.search(message)
    path = place.group(1).lstrip(".") if place else ""
    problem = message[: place.start()] if place else message
    value, info = _descend(data, inspect.type_info(kind), path)

    if unknown := _UNKNOWN.search(problem):
        key = unknown.group(1)
        known = [field.encode_name for field in getattr(info, "fields", ())]
        close = difflib.get_close_matches(key, known, n=1)
        full = f"{path}.{key}" if path else key
        given = value.get(key) if isinstance(value, dict) else None
        return ConfigError(
            f"{where}: {full} = {shown(without_secrets(given))}: no such key",
            hint=(f"did you mean {close[0]}? " if close else "") + f"allowed: {', '.join(known)}",
        )
    if missing := _MISSING.search(problem):
        key = missing.group(1)
        field = next(f for f in getattr(info, "fields", ()) if f.encode_name == key)
        full = f"{path}.{key}" if path else key
        return ConfigError(f"{where}: {full} is missing", hint=f"allowed: {_allowed(field.type)}")
    if problem.startswith("Invalid enum value"):
        problem = "not one of the allowed values"
    allowed = _allowed(info)
    is_url = path.rpartition(".")[2] == "url" and isinstance(value, str)
    written = shown(redact(value) if is_url else without_secrets(value))
    return ConfigError(
        f"{where}: {path or 'file'} = {written}: {problem[:1].lower()}{problem[1:]}",
        hint=f"allowed: {allowed}" if allowed else "",
    )


def _descend(value: Any, info: Any, path: str) -> tuple[Any, Any]:
    """Follows ``a.b[2].c`` through the data and through the type at once."""
    for name, index in re.findall(r"([^.\[\]]+)|\[(\d+|\.\.\.)\]", path):
        info = _plain(info, value)
        if name and name != "...":
            value = value.get(name) if isinstance(value, dict) else None
            if isinstance(info, inspect.StructType):
                info = next((f.type for f in info.fields if f.encode_name == name), None)
            else:
                info = getattr(info, "value_type", None)
        elif name == "..." or index == "...":
            info = getattr(info, "value_type", None) or getattr(info, "item_type", None)
        else:
            value = value[int(index)] if isinstance(value, list) else None
            info = getattr(info, "item_type", None)
    return value, _plain(info, value)


def _plain(info: Any, value: Any = None) -> Any:
    """The struct or list inside an optional; of a table or a list of them, what `value` is."""
    if isinstance(info, inspect.UnionType):
        rest = [part for part in info.types if not isinstance(part, inspect.NoneType)]
        if isinstance(value, dict):
            rest = [part for part in rest if isinstance(part, inspect.StructType)]
        elif isinstance(value, list):
            rest = [part for part in rest if isinstance(part, inspect.ListType)]
        if len(rest) == 1:
            return rest[0]
    return info


def _allowed(info: Any) -> str:
    """What may be written where `info` is expected, in words."""
    info = _plain(info)
    match info:
        case inspect.LiteralType(values=values):
            return ", ".join(repr(value) for value in values)
        case inspect.EnumType(cls=cls):
            return ", ".join(repr(member.value) for member in cls)
        case inspect.IntType() | inspect.FloatType():
            kind = "a whole number" if isinstance(info, inspect.IntType) else "a number"
            bounds = [
                f"{word} {bound}"
                for word, bound in (
                    ("at least", info.ge),
                    ("above", info.gt),
                    ("at most", info.le),
                    ("below", info.lt),
                )
                if bound is not None
            ]
            return " ".join([kind, " and ".join(bounds)]).strip()
        case inspect.BoolType():
            return "true or false"
        case inspect.StrType(pattern=pattern):
            return f"a string like {pattern}" if pattern else "a string"
        case inspect.ListType() | inspect.VarTupleType():
            least, most = info.min_length, info.max_length
            bounds = [f"at least {least}"] * bool(least) + [f"at most {most}"] * bool(most)
            return f"a list of{' ' + ' and '.join(bounds) if bounds else ''}: " + _allowed(
                info.item_type
            )
        case inspect.StructType(fields=fields):
            return f"a table with {', '.join(field.encode_name for field in fields)}"
        case inspect.DictType():
            return "a table"
        case inspect.UnionType(types=types):
            return ", or ".join(filter(None, map(_allowed, types)))
        case inspect.CustomType(cls=cls):
            return str(getattr(cls, "allowed", cls.__name__))
        case _:
            return ""
