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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from barewire._native import ffi, lib
from barewire.config import convert
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
    records = [
        _pack(trigger, number, {} if shots is None else shots)
        for number, trigger in enumerate(triggers)
    ]
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


def _pack(trigger: Trigger, number: int, shots: Mapping[str, int]) -> bytes:
    """One record."""
    where = f"trigger {trigger.name!r}"
    flags = lib.BW_TRIGGER_INSIDE if trigger.inside else 0
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
            low, high = _bounds(f"{where}: {key}", bounds.min, bounds.max, most)
            parts += [low.to_bytes(width, "little"), high.to_bytes(width, "little")]
    types = 0
    for index, kind in enumerate(trigger.type_):
        if not 0 <= kind <= 7:
            _refuse(f"{where}: type[{index}]", kind, "an EIP-2718 type from 0 to 7")
        types |= 1 << kind
    flags |= lib.BW_TRIGGER_TYPES if types else 0
    origins = sum(1 << ORIGINS.index(name) for name in set(trigger.origin))
    flags |= lib.BW_TRIGGER_ORIGINS if origins else 0
    for index, chain in enumerate(trigger.chain_id):
        if not 0 <= chain <= _U64:
            _refuse(f"{where}: chain_id[{index}]", chain, "a whole number from 0 to 2^64 - 1")
    chains = sorted(set(trigger.chain_id))
    targets = _addresses(f"{where}: to", trigger.to)
    senders = _addresses(f"{where}: sender", trigger.sender)
    selectors = sorted(
        {_selector(f"{where}: selector[{i}]", text) for i, text in enumerate(trigger.selector)}
    )
    words = [_word(f"{where}: words[{i}]", word) for i, word in enumerate(trigger.words)]
    words.sort(key=lambda packed: int.from_bytes(packed[:4], "little"))
    parts += [chain.to_bytes(8, "little") for chain in chains]
    body = b"".join([*parts, *targets, *selectors, *senders, *words])
    tag = number if trigger.tag is None else trigger.tag
    if not 0 <= tag < 2**32:
        _refuse(f"{where}: tag", tag, "a whole number from 0 to 2^32 - 1")
    record: Any = ffi.new(
        "struct bw_trigger_record *",
        {
            "length": ffi.sizeof("struct bw_trigger_record") + len(body),
            "tag": tag,
            "shot": _shot(where, trigger.shot, shots),
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


def _refuse(where: str, value: object, allowed: str) -> None:
    raise ConfigError(f"{where} = {shown(value)}: not allowed", hint=f"allowed: {allowed}")


def _shot(where: str, name: str | None, shots: Mapping[str, int]) -> int:
    if name is None:
        return int(lib.BW_NO_SHOT)
    if name not in shots:
        known = ", ".join(sorted(shots)[:20]) or "none is armed"
        raise ConfigError(f"{where}: shot = {name!r}: no such shot", hint=f"allowed: {known}")
    return shots[name]


def _addresses(where: str, texts: Sequence[str]) -> list[bytes]:
    return sorted({address_of(f"{where}[{i}]", text) for i, text in enumerate(texts)})


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
    where: str, low: int | str | None, high: int | str | None, most: int
) -> tuple[int, int]:
    least = 0 if low is None else amount_of(f"{where}.min", low, most)
    greatest = most if high is None else amount_of(f"{where}.max", high, most)
    if least > greatest:
        _refuse(f"{where}.min", low, f"at most max, which is {high!r}")
    return least, greatest


def _word(where: str, word: Word) -> bytes:
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
        values = list(_bounds(where, word.min, word.max, _U256))
        if word.max is None:
            values[1] = mask
        count = 0
    else:
        listed = word.equals if isinstance(word.equals, list) else [word.equals]
        for i, value in enumerate(listed):
            if isinstance(value, str) and re.fullmatch("0x[0-9a-fA-F]{40}", value):
                address_of(f"{where}.equals[{i}]", value)  # mistyped capitals are said here too
        values = sorted({amount_of(f"{where}.equals[{i}]", v) for i, v in enumerate(listed)})
        if not values:
            _refuse(f"{where}.equals", word.equals, "at least one value")
        count = len(values)
    for value in values:
        if value & ~mask:
            _refuse(where, hex(value), f"values within the mask {mask:#x}")
    record: Any = ffi.new(
        "struct bw_word_record *",
        {"offset": offset, "values": count, "mask": mask.to_bytes(32, "big")},
    )
    return bytes(ffi.buffer(record)) + b"".join(v.to_bytes(32, "big") for v in values)
