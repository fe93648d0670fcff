"""Shots from a configuration: the book with its caps, and what each of them sends."""

from __future__ import annotations

from pathlib import Path

from appliance.config import Config, Shot
from barewire.errors import ConfigError
from barewire.execution.shots import PAYLOAD_BYTES, Caps, ShotBook

__all__ = ["NOTHING_LEAVES", "UNJOURNALLED", "open_book", "payload_of"]

UNJOURNALLED = (
    "firing is unjournalled: what is sent is recorded nowhere, and after a crash nobody can tell "
    "what left"
)

NOTHING_LEAVES = (
    "fire.unjournalled is false: nothing that the strategy sends leaves, as there is no journal"
)


def open_book(config: Config) -> ShotBook | None:
    """The book of shots, with a number for each that a trigger names; None: nothing fires."""
    fire = config.fire
    if not fire.unjournalled:
        return None
    caps = Caps(
        per_second=fire.max_per_second,
        total=fire.max_total,
        total_value_wei=fire.max_total_value.wei,
        max_fee_wei=fire.max_fee.wei,
    )
    book = ShotBook(caps, unjournalled=True)
    for trigger in config.trigger:
        if trigger.shot is not None:
            book.declare(trigger.shot)
    return book


def payload_of(shot: Shot, where: Path) -> bytes:
    """The bytes in a shot's file, which lies beside the configuration `where`.

    Raises:
        ConfigError: they cannot be read, or are not what a datagram carries.
    """
    path = where.parent / shot.payload
    try:
        payload = bytes.fromhex(path.read_text(encoding="ascii").strip().removeprefix("0x"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{where}: shot {shot.name!r}: payload {path}: {error}",
            hint="a file of hexadecimal digits, relative to the configuration",
        ) from error
    if not 0 < len(payload) <= PAYLOAD_BYTES:
        raise ConfigError(
            f"{where}: shot {shot.name!r}: payload {path}: {len(payload)} bytes",
            hint=f"1 to {PAYLOAD_BYTES} bytes, what a datagram carries",
        )
    return payload
