"""Calldata that is encoded once, with named places of fixed width that are filled in later."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

from eth_abi.abi import encode
from eth_abi.exceptions import EncodingError, ParseError
from eth_abi.grammar import ABIType, TupleType, normalize, parse

from barewire.errors import BarewireError, shown
from barewire.keccak import keccak256
from barewire.mempool.quantities import address_of

__all__ = ["Calldata", "Place", "Slot", "encode_call"]


class Slot(NamedTuple):
    """Stands for an argument that is known only when the transaction is fired.

    Attributes:
        name: how it is called when it is filled in.
        width: bytes; only for an argument of type ``bytes``, whose length is fixed with it.
    """

    name: str
    width: int = 0


class Place(NamedTuple):
    """Where a slot lies.

    Attributes:
        name: how it is called when it is filled in.
        offset: of its first byte in the calldata.
        width: bytes; as many as the type needs (3 for ``uint24``), 32 for signed integers.
        abi_type: ``uint256``, ``address``, ``bytes``, ...
    """

    name: str
    offset: int
    width: int
    abi_type: str

    def pack(self, value: Any) -> bytes:
        """The bytes of `value` at this place.

        Raises:
            BarewireError: it has another width, or does not fit the type.
        """
        raw = self._raw(value)
        if len(raw) != self.width:
            raise BarewireError(
                f"slot {self.name} ({self.abi_type}) takes {self.width} bytes, not {len(raw)}"
            )
        return raw

    def _raw(self, value: Any) -> bytes:
        signed = self.abi_type.startswith("int")
        try:
            if signed or self.abi_type.startswith("uint"):
                if isinstance(value, int):
                    bits = int(self.abi_type.removeprefix("u").removeprefix("int"))
                    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1)) if signed else (0, 2**bits)
                    if low <= value < high:
                        return value.to_bytes(self.width, "big", signed=signed)
            elif self.abi_type == "bool":
                if isinstance(value, bool):
                    return bytes([value])
            elif isinstance(value, str):
                if self.abi_type == "address":
                    digits = value.removeprefix("0x")
                    return address_of(f"slot {self.name}", f"0x{digits}")
                return bytes.fromhex(value.removeprefix("0x"))
            elif isinstance(value, bytes | bytearray | memoryview):
                return bytes(value)
        except ValueError:
            pass
        raise BarewireError(
            f"slot {self.name}: {shown(value)} is not a value of type {self.abi_type}"
        )


def _packer(place: Place) -> Callable[[Any], bytes]:
    """What packs values of `place`, quickly for the type that most slots have."""
    if not place.abi_type.startswith("uint"):
        return place.pack
    width = place.width  # as wide as the type: to_bytes refuses what does not fit
    return lambda value: value.to_bytes(width, "big")


@dataclass(frozen=True)
class Calldata:
    """Encoded calldata and the places in it that are filled in later.

    Attributes:
        data: all of it; the places hold zeros.
        places: in the order in which their bytes are given when a template is fired.
    """

    data: bytes
    places: tuple[Place, ...] = ()
    _packers: list[tuple[str, Callable[[Any], bytes]]] = field(
        init=False, repr=False, compare=False, default_factory=list
    )

    def __post_init__(self) -> None:
        names = [place.name for place in self.places]
        for name in names:
            if names.count(name) > 1:
                raise BarewireError(f"two slots are named {name}")
        for place in self.places:
            if place.offset < 0 or place.width < 1 or place.offset + place.width > len(self.data):
                raise BarewireError(
                    f"slot {place.name} (bytes {place.offset} to {place.offset + place.width}) "
                    f"is not inside {len(self.data)} bytes of calldata"
                )
        ordered = sorted(self.places, key=lambda place: place.offset)
        for place, following in pairwise(ordered):
            if place.offset + place.width > following.offset:
                raise BarewireError(f"slots {place.name} and {following.name} overlap")
        if self.places and len(self.data) < 2:
            raise BarewireError("calldata of one byte has no room for a slot")
        self._packers.extend((place.name, _packer(place)) for place in self.places)

    def pack(self, **values: Any) -> bytes:
        """The bytes of all slots, as :meth:`barewire.execution.template.Template.fire` takes them.

        Values are ints, bools, bytes, or hexadecimal text for addresses and bytes.

        Raises:
            BarewireError: a slot that is missing or unknown, or a value that does not fit.
        """
        try:
            packed = [pack(values[name]) for name, pack in self._packers]
            if len(packed) == len(values):
                return b"".join(packed)
        except (KeyError, AttributeError, OverflowError):
            pass  # said in words below
        unknown = values.keys() - {place.name for place in self.places}
        missing = [place.name for place in self.places if place.name not in values]
        if unknown or missing:
            raise BarewireError(
                "slots: " + ", ".join([*(f"no {n}" for n in sorted(unknown)), *missing]),
                hint=f"needed are {[place.name for place in self.places]}",
            )
        return b"".join(place.pack(values[place.name]) for place in self.places)


# To find out where an argument lies it is encoded twice, once with every bit clear and once with
# every bit set that its type allows: the bytes in which the two encodings differ are its place.
Path = tuple[int, ...]


def _extremes(argument: Slot | Calldata, abi_type: str) -> tuple[Any, Any]:
    base = abi_type.rstrip("0123456789")
    size = int(abi_type.removeprefix(base) or 0)
    if isinstance(argument, Calldata):
        if abi_type == "bytes":
            return bytes(len(argument.data)), b"\xff" * len(argument.data)
        raise BarewireError(f"calldata was given for an argument of type {abi_type}")
    if base == "bytes" and size and argument.width not in (0, size):
        raise BarewireError(f"slot {argument.name}: {abi_type} is not {argument.width} bytes wide")
    width = size or argument.width
    if base == "bytes" and width:
        return bytes(width), b"\xff" * width
    if base in ("uint", "int"):
        return 0, 2**size - 1 if base == "uint" else -1
    if base == "address":
        return bytes(20), b"\xff" * 20
    if base == "bool":
        return False, True
    raise BarewireError(
        f"slot {argument.name}: an argument of type {abi_type} has no fixed width",
        hint="integers, addresses, bool and bytesN can be slots, and bytes with Slot(name, width)",
    )


def _find(kind: ABIType, value: Any, path: Path) -> list[tuple[Path, Slot | Calldata, str]]:
    """The slots and calldata inside `value`: the indices that lead there, and the type."""
    if isinstance(value, Slot | Calldata):
        return [(path, value, str(kind.to_type_str()))]  # type: ignore[no-untyped-call]
    if not isinstance(value, list | tuple):
        return []
    if kind.is_array:
        inner = [kind.item_type] * len(value)
    elif isinstance(kind, TupleType):
        inner = list(kind.components)
    else:
        return []
    # Where the lengths differ, encoding says so.
    return [
        found
        for index, (part_kind, part) in enumerate(zip(inner, value, strict=False))
        for found in _find(part_kind, part, (*path, index))
    ]


def _fill(value: Any, chosen: Mapping[Path, Any], path: Path = ()) -> Any:
    if path in chosen:
        return chosen[path]
    if isinstance(value, list | tuple):
        return tuple(_fill(part, chosen, (*path, i)) for i, part in enumerate(value))
    return value


def _signature(function: str | Mapping[str, Any]) -> tuple[str, str]:
    """Name and tuple type of a function given as ``name(type,...)`` or as its ABI entry."""
    if isinstance(function, str):
        name, bracket, types = function.replace(" ", "").partition("(")
        return name, bracket + types

    def spelled(entries: Sequence[Mapping[str, Any]]) -> str:
        return ",".join(
            f"({spelled(entry['components'])}){entry['type'].removeprefix('tuple')}"
            if entry["type"].startswith("tuple")
            else str(entry["type"])
            for entry in entries
        )

    return str(function["name"]), f"({spelled(function['inputs'])})"


def _places(data: bytes, other: bytes, argument: Slot | Calldata, abi_type: str) -> list[Place]:
    """The places of one argument, which is where `data` and `other` differ."""
    if data == other:  # calldata of no bytes
        return []
    differing = [i for i, (a, b) in enumerate(zip(data, other, strict=True)) if a != b]
    first, width = differing[0], differing[-1] - differing[0] + 1
    if isinstance(argument, Slot):
        return [Place(argument.name, first, width, abi_type)]
    return [place._replace(offset=first + place.offset) for place in argument.places]


def encode_call(function: str | Mapping[str, Any], arguments: Sequence[Any]) -> Calldata:
    """Encodes a call of `function`, any of whose static arguments may be a :class:`Slot`.

    Args:
        function: ``"transfer(address,uint256)"``, or the function's entry of a JSON ABI.
        arguments: values as eth-abi takes them. Slots may also stand in tuples and arrays, and for
            an argument of type ``bytes`` another :class:`Calldata`, whose slots become this one's.

    Raises:
        BarewireError: an unknown type, a value that does not fit, or a slot without fixed width.
    """
    name, types = _signature(function)
    try:
        types = str(normalize(types))  # type: ignore[no-untyped-call]
        selector = keccak256(f"{name}{types}".encode())[:4]
        if types == "()" and not arguments:
            return Calldata(selector)
        kind = parse(types)
        kind.validate()
        if not isinstance(kind, TupleType) or kind.is_array:
            raise BarewireError(f"{name}{types}: a function is written as name(type,...)")
        inner_types = [str(part.to_type_str()) for part in kind.components]
        found = _find(kind, tuple(arguments), ())
        pairs = {path: _extremes(argument, abi_type) for path, argument, abi_type in found}

        def encoded(chosen: Mapping[Path, Any]) -> bytes:
            return selector + encode(inner_types, _fill(tuple(arguments), chosen))

        low = {path: pair[0] for path, pair in pairs.items()}
        data = encoded(low)
        places = [
            place
            for path, argument, abi_type in found
            for place in _places(data, encoded({**low, path: pairs[path][1]}), argument, abi_type)
        ]
        inner = {path: part.data for path, part, _ in found if isinstance(part, Calldata)}
        return Calldata(encoded({**low, **inner}), tuple(places))
    except (ParseError, EncodingError, ValueError, TypeError) as error:
        raise BarewireError(f"{name}{types}: {error}") from error
