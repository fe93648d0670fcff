"""Triggers: which transactions matter, and what to do when one comes.

A `Trigger` is a conjunction of conditions. `compile_triggers` writes many of them in the compact
form that native/trigger.h loads, and a `TriggerTable` holds the current table where a native loop
finds it, replaces it while the loop runs, and frees the old one.

In a configuration file::

    [[trigger]]
    name = "big-v2-swaps"
    to = ["0x7a250d5630B4cF539739dF2C5dAcb4c659F2488D"]
    selector = ["swapExactTokensForTokens(uint256,uint256,address[],address,uint256)"]
    tip_wei = { min = "2 gwei" }
    words = [{ index = 0, min = "10 ether" }]
    inside = true
    shot = "backrun"

Targets, selectors, senders and equal words are looked up, not compared one by one: their number
does not matter. Triggers of one target and selector that differ by nothing but ranges, chain or
type are tried one after the other, at most `CHAIN` of them.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from barewire._native import ffi, lib
from barewire.config import Unread, convert, entries
from barewire.errors import ConfigError, shown
from barewire.mempool.abi import parse_function
from barewire.mempool.quantities import address_of, amount_of
from barewire.mempool.record import ORIGINS, Origin
from barewire.mempool.wrappers import STANDARD, Wrapper, serialise
from barewire.untrusted import too_deep

__all__ = [
    "CHAIN",
    "Range",
    "Trigger",
    "Word",
    "compile_triggers",
    "parse_triggers",
    "read_triggers",
    "trigger_mistakes",
]

CHAIN: int = lib.BW_TRIGGER_CHAIN
"""Triggers in one place that no exact value tells apart."""

T = TypeVar("T")

_U64 = 2**64 - 1
_U256 = 2**256 - 1


class Range(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Least and greatest, both inclusive; either may be left out.

    Numbers, or strings: hexadecimal ("0x...") or an amount ("1.5 ether", "30 gwei", "7 wei").
    """

    min: int | str | None = None
    max: int | str | None = None


class Word(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A condition on one 32-byte word of calldata, read as a big-endian number.

    Attributes:
        index: which word behind the selector, or
        offset: at which byte behind the selector.
        mask: applied to the word first; all of it by default.
        equals: the masked word is one of these; else
        min: least, and
        max: greatest value of the masked word.
    """

    index: int | None = None
    offset: int | None = None
    mask: int | str | None = None
    equals: int | str | list[int | str] | None = None
    min: int | str | None = None
    max: int | str | None = None


# An empty list would be met by everything, where whoever wrote it may have meant nothing.
_Some = Annotated[list[T], msgspec.Meta(min_length=1)]


class Trigger(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    rename={"type_": "type"},
):
    """What has to hold of a transaction; a condition left out always holds.

    In a file a list that is there is not empty.

    Attributes:
        name: unique; errors, statistics and matches name it.
        to: targets, as hexadecimal addresses. A creation of a contract has none.
        selector: four bytes in hexadecimal, or a signature, or the name of a Universal Router
            command with its types.
        value_wei: ether sent along.
        tip_wei: maxPriorityFeePerGas; the gas price of types 0 and 1.
        fee_cap_wei: maxFeePerGas; the gas price of types 0 and 1.
        gas: the gas limit.
        chain_id: chains; 0 stands for a legacy transaction that names none.
        type_: EIP-2718 types ("type" in a file).
        words: conditions on calldata, all of which must hold.
        origin: how it came ("announced", "resent", "pool", "queued", "block"; see
            `barewire.mempool.record.Origin`). Where this is left out, anything matches, but `shot`
            fires on what was announced only.
        sender: signers; the signature has to be recovered before such a trigger can match.
        inside: look at the calls inside wrappers too (barewire.mempool.wrappers). There the target,
            selector, value and words are those of the inner call.
        shot: the armed shot to fire; without it the match is handed to Python.
        tag: a number of the caller's own, handed back with a match; by default the trigger's place.
    """

    name: str
    to: _Some[str] = []
    selector: _Some[str] = []
    value_wei: Range | None = None
    tip_wei: Range | None = None
    fee_cap_wei: Range | None = None
    gas: Range | None = None
    chain_id: _Some[int] = []
    type_: _Some[int] = []
    words: _Some[Word] = []
    origin: _Some[Origin] = []
    sender: _Some[str] = []
    inside: bool = False
    shot: str | None = None
    tag: int | None = None


class _Many(msgspec.Struct, forbid_unknown_fields=True):
    trigger: list[Trigger] = []


def parse_triggers(data: Any, *, where: str = "triggers") -> list[Trigger]:
    """Triggers from plain data: a list of tables, or a table whose one key `trigger` holds one.

    Raises:
        ConfigError: names the key, its value, and what is allowed.
    """
    many = data if isinstance(data, Mapping) else {"trigger": data}
    return convert(many, _Many, where=where).trigger


def read_triggers(path: Path) -> list[Trigger]:
    """Triggers from a TOML or (``.json``) JSON file.

    Raises:
        ConfigError: the file cannot be read, or as `parse_triggers`.
    """
    try:
        text = path.read_text(encoding="utf-8")
        data = _from_json(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", hint="name a readable file") from error
    except RecursionError:
        raise ConfigError(f"{path}: tables inside tables without end") from None
    except ValueError as error:  # both readers' errors, and bad UTF-8
        raise ConfigError(f"{path}: {error}", hint="TOML, or JSON in a file named .json") from error
    return parse_triggers(data, where=str(path))


def _from_json(text: str) -> Any:
    if too_deep(text.encode()):
        raise RecursionError  # before the reader overflows the stack
    return json.loads(text)


def compile_triggers(
    triggers: Sequence[Trigger],
    *,
    shots: Mapping[str, int] | None = None,
    wrappers: Sequence[Wrapper] = STANDARD,
) -> bytes:
    """The serialised form of `triggers`, in their order.

    Args:
        triggers: at most one of each name.
        shots: numbers of the shots that triggers may name (`ShotBook.numbers`).
        wrappers: what triggers with `inside` look into.

    Raises:
        ConfigError: names the trigger, the key, the value and what is allowed.
    """
    seen: set[str] = set()
    for trigger in triggers:
        if trigger.name in seen:
            raise ConfigError(
                f"trigger {trigger.name!r}: another one has this name", hint="give each its own"
            )
        seen.add(trigger.name)
    packed, wrapper_count, sets, set_count = serialise(wrappers)
    records: list[bytes] = []
    for number, trigger in enumerate(triggers):
        reading = _Reading()
        records.append(_pack(trigger, number, {} if shots is None else shots, reading))
        if reading.mistakes:
            raise reading.mistakes[0]
    body = b"".join([packed, sets, *records])
    header: Any = ffi.new(
        "struct bw_trigger_file *",
        {
            "magic": b"BWTRIGS\0",
            "version": lib.BW_TRIGGER_VERSION,
            "length": ffi.sizeof("struct bw_trigger_file") + len(body),
            "triggers": len(records),
            "wrappers": wrapper_count,
            "command_sets": set_count,
        },
    )
    return bytes(ffi.buffer(header)) + body


def trigger_mistakes(trigger: Trigger, shots: Mapping[str, int]) -> list[ConfigError]:
    """All that `compile_triggers` refuses in `trigger`, of which it raises the first.

    Of one that was salvaged (`barewire.config.salvage`), in its right values.
    """
    reading = _Reading()
    _pack(trigger, 0, shots, reading)
    return reading.mistakes


class _Reading:
    """Goes on behind a condition that is wrong, with another value in its place."""

    def __init__(self) -> None:
        self.mistakes: list[ConfigError] = []

    def __call__(self, read: Callable[..., T], *given: Any, instead: T) -> T:
        try:
            return read(*given)
        except ConfigError as mistake:
            self.mistakes.append(mistake)
        except Unread:
            pass  # and said already
        return instead

    def each(self, where: str, given: Sequence[Any], read: Callable[[str, Any], T]) -> list[T]:
        """What `read` makes of each right one of a list; `where` is its place."""
        made = [self(read, f"{where}[{index}]", one, instead=None) for index, one in entries(given)]
        return [one for one in made if one is not None]


def _pack(trigger: Trigger, number: int, shots: Mapping[str, int], reading: _Reading) -> bytes:
    """One record."""
    where = f"trigger {shown(trigger.name)}"
    flags = reading(_inside, trigger, instead=0)
    parts: list[bytes] = []
    for key, flag, most in (
        ("value_wei", lib.BW_TRIGGER_VALUE, _U256),
        ("tip_wei", lib.BW_TRIGGER_TIP, _U256),
        ("fee_cap_wei", lib.BW_TRIGGER_FEE_CAP, _U256),
        ("gas", lib.BW_TRIGGER_GAS, _U64),
    ):
        bounds: Range | None = getattr(trigger, key)
        if bounds is not None:
            flags |= flag
            width = 32 if most == _U256 else 8
            low, high = reading(_range, f"{where}: {key}", bounds, most, reading, instead=(0, 0))
            parts += [low.to_bytes(width, "little"), high.to_bytes(width, "little")]
    types = sum({1 << kind for kind in reading.each(f"{where}: type", trigger.type_, _type)})
    flags |= lib.BW_TRIGGER_TYPES if types else 0
    origins = sum({1 << ORIGINS.index(name) for _, name in entries(trigger.origin)})
    flags |= lib.BW_TRIGGER_ORIGINS if origins else 0
    chains = sorted(set(reading.each(f"{where}: chain_id", trigger.chain_id, _chain)))
    targets = sorted(set(reading.each(f"{where}: to", trigger.to, address_of)))
    senders = sorted(set(reading.each(f"{where}: sender", trigger.sender, address_of)))
    selectors = sorted(set(reading.each(f"{where}: selector", trigger.selector, _selector)))
    words = reading.each(f"{where}: words", trigger.words, partial(_word, reading=reading))
    words.sort(key=lambda packed: int.from_bytes(packed[:4], "little"))
    parts += [chain.to_bytes(8, "little") for chain in chains]
    body = b"".join([*parts, *targets, *selectors, *senders, *words])
    record: Any = ffi.new(
        "struct bw_trigger_record *",
        {
            "length": ffi.sizeof("struct bw_trigger_record") + len(body),
            "tag": reading(_tag, where, trigger.tag, number, instead=0),
            "shot": reading(_shot, where, trigger.shot, shots, instead=0),
            "flags": flags,
            "types": types,
            "origins": origins,
            "chain_ids": len(chains),
            "targets": len(targets),
            "selectors": len(selectors),
            "senders": len(senders),
            "words": len(words),
        },
    )
    return bytes(ffi.buffer(record)) + body


def _inside(trigger: Trigger) -> int:
    return lib.BW_TRIGGER_INSIDE if trigger.inside else 0


def _type(where: str, kind: int) -> int:
    if not 0 <= kind <= 7:
        _refuse(where, kind, "an EIP-2718 type from 0 to 7")
    return kind


def _chain(where: str, chain: int) -> int:
    if not 0 <= chain <= _U64:
        _refuse(where, chain, "a whole number from 0 to 2^64 - 1")
    return chain


def _tag(where: str, tag: int | None, number: int) -> int:
    if tag is None:
        return number
    if not 0 <= tag < 2**32:
        _refuse(f"{where}: tag", tag, "a whole number from 0 to 2^32 - 1")
    return tag


def _refuse(where: str, value: object, allowed: str) -> None:
    raise ConfigError(f"{where} = {shown(value)}: not allowed", hint=f"allowed: {allowed}")


def _shot(where: str, name: str | None, shots: Mapping[str, int]) -> int:
    if name is None:
        return int(lib.BW_NO_SHOT)
    if name not in shots:
        known = ", ".join(sorted(shots)[:20]) or "none is armed"
        raise ConfigError(f"{where}: shot = {name!r}: no such shot", hint=f"allowed: {known}")
    return shots[name]


def _selector(where: str, text: str) -> bytes:
    allowed = "four bytes like 0x38ed1739, or a signature like transfer(address,uint256)"
    if text.startswith("0x"):
        if not re.fullmatch("0x[0-9a-fA-F]{8}", text):
            _refuse(where, text, allowed)
        return bytes.fromhex(text[2:])
    try:
        return parse_function(text).selector
    except ValueError as error:
        raise ConfigError(f"{where} = {shown(text)}: {error}", hint=f"allowed: {allowed}") from None


def _bounds(
    where: str, low: int | str | None, high: int | str | None, most: int, reading: _Reading
) -> tuple[int, int]:
    least = 0 if low is None else reading(amount_of, f"{where}.min", low, most, instead=None)
    greatest = (
        most if high is None else reading(amount_of, f"{where}.max", high, most, instead=None)
    )
    if least is None or greatest is None:
        raise Unread
    if least > greatest:
        _refuse(f"{where}.min", low, f"at most max, which is {shown(high)}")
    return least, greatest


def _equal(where: str, value: int | str) -> int:
    if isinstance(value, str) and re.fullmatch("0x[0-9a-fA-F]{40}", value):
        address_of(where, value)  # mistyped capitals are said here too
    return amount_of(where, value)


def _range(where: str, bounds: Range, most: int, reading: _Reading) -> tuple[int, int]:
    return _bounds(where, bounds.min, bounds.max, most, reading)


def _word(where: str, word: Word, reading: _Reading) -> bytes:
    if (word.index is None) == (word.offset is None):
        raise ConfigError(
            f"{where}: index = {word.index!r}, offset = {word.offset!r}: needs one of the two",
            hint="allowed: index (which word behind the selector) or offset (which byte)",
        )
    offset = word.offset if word.index is None else word.index * 32
    key = "offset" if word.index is None else "index"
    if offset is None or not 0 <= offset < 2**24:
        _refuse(f"{where}.{key}", getattr(word, key), "a place within the calldata")
    mask = _U256 if word.mask is None else amount_of(f"{where}.mask", word.mask)
    if word.equals is not None and (word.min is not None or word.max is not None):
        raise ConfigError(
            f"{where}: has both equals and a range", hint="allowed: equals, or min and max"
        )
    if word.equals is None:
        values = list(_bounds(where, word.min, word.max, _U256, reading))
        if word.max is None:
            values[1] = mask
        count = 0
    else:
        listed = word.equals if isinstance(word.equals, list) else [word.equals]
        if not listed:
            _refuse(f"{where}.equals", word.equals, "at least one value")
        values = sorted(set(reading.each(f"{where}.equals", listed, _equal)))
        count = len(values)
    for value in values:
        if value & ~mask:
            _refuse(where, hex(value), f"values within the mask {mask:#x}")
    record: Any = ffi.new(
        "struct bw_word_record *",
        {"offset": offset, "values": count, "mask": mask.to_bytes(32, "big")},
    )
    return bytes(ffi.buffer(record)) + b"".join(v.to_bytes(32, "big") for v in values)
