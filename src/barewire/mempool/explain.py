"""Why a trigger was not met by a transaction: the first of its conditions that does not hold.

The answer comes from the native matcher itself (native/trigger.h), asked anew with one condition
at a time, so that it cannot differ from what decided.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from barewire.mempool.decoder import Decoder
from barewire.mempool.record import Origin, Transaction
from barewire.mempool.trigger_table import TriggerTable
from barewire.mempool.triggers import Range, Trigger

__all__ = ["why_not"]

_PLAIN = (
    "origin",
    "chain_id",
    "type_",
    "to",
    "selector",
    "value_wei",
    "tip_wei",
    "fee_cap_wei",
    "gas",
)


def why_not(
    trigger: Trigger,
    raw: bytes,
    decoder: Decoder,
    sender: bytes | None = None,
    origin: Origin = "announced",
) -> str:
    """Says in words which condition of `trigger` the transaction in `raw` does not meet.

    Args:
        trigger: the trigger.
        raw: the whole envelope.
        decoder: with the rules that it was judged by.
        sender: the transaction's signer, where it was recovered.
        origin: how it came.
    """
    burst = decoder.decode_burst([raw], origin=origin)
    tx = burst[0]
    if not isinstance(tx, Transaction):
        return f"it is no valid transaction: {tx.verdict}"

    def meets(part: Trigger) -> bool:
        with TriggerTable([part]) as table:
            return bool(table.match(burst))

    for name, part in _conditions(trigger):
        if not meets(part):
            return _says(name, trigger, tx)
    if trigger.sender:
        allowed = {address.lower() for address in trigger.sender}
        if sender is None:
            return "its sender decides, and none could be recovered from its signature"
        if f"0x{sender.hex()}" not in allowed:
            return f"sender: it is from 0x{sender.hex()}, not {_one_of(trigger.sender)}"
    if trigger.inside and not meets(msgspec.structs.replace(trigger, sender=[], shot=None)):
        return "each condition holds of some call in it, and all of them of none"
    return "it meets the trigger as it is now"


def _conditions(trigger: Trigger) -> Iterator[tuple[str, Trigger]]:
    """Every condition but the sender's, as a trigger that has no other."""
    for name in _PLAIN:
        if value := getattr(trigger, name):
            yield (
                name,
                msgspec.structs.replace(
                    Trigger(name="one", inside=trigger.inside), **{name: value}
                ),
            )
    for index, word in enumerate(trigger.words):
        yield f"words[{index}]", Trigger(name="one", words=[word], inside=trigger.inside)


def _says(name: str, trigger: Trigger, tx: Transaction) -> str:
    inside = ", nor does a call inside it" if trigger.inside else ""
    match name:
        case "to":
            is_ = f"0x{tx.to.hex()}" if tx.to else "a contract creation"
            return f"to: it calls {is_}, not {_one_of(trigger.to)}{inside}"
        case "selector":
            is_ = f"0x{tx.selector.hex()}" if tx.selector else "none"
            return f"selector: its is {is_}, not {_one_of(trigger.selector)}{inside}"
        case "origin":
            return f"origin: it is {tx.origin}, not {_one_of(trigger.origin)}"
        case "type_":
            return f"type: it is {tx.type}, not {_one_of(trigger.type_)}"
        case "chain_id":
            is_ = "none (before EIP-155)" if tx.chain_id is None else str(tx.chain_id)
            return f"chain_id: it is {is_}, not {_one_of(trigger.chain_id)}"
        case "value_wei" | "tip_wei" | "fee_cap_wei" | "gas":
            bounds: Range = getattr(trigger, name)
            return f"{name}: it is {getattr(tx, name):,}, not {_range(bounds)}{inside}"
    index = int(name[6:-1])
    word = trigger.words[index]
    place = word.offset if word.index is None else word.index * 32
    assert place is not None
    has = tx.data[4:][place : place + 32]
    is_ = f"0x{has.hex()}" if len(has) == 32 else "not there"
    wanted = f"equal to {word.equals!r}" if word.equals is not None else _range(word)
    return f"{name}: the word at byte {place} is {is_}, not {wanted}{inside}"


def _one_of(values: Sequence[str] | Sequence[int]) -> str:
    if len(values) == 1:
        return str(values[0])
    return f"one of {len(values)}: {', '.join(map(str, values[:4]))}" + (
        ", ..." if len(values) > 4 else ""
    )


def _range(bounds: object) -> str:
    least, most = getattr(bounds, "min", None), getattr(bounds, "max", None)
    said = [f"at least {least}"] * (least is not None) + [f"at most {most}"] * (most is not None)
    return " and ".join(said)
