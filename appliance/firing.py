"""Shots from a configuration: the book with its caps, and what each of them sends."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from pathlib import Path

from appliance.config import Config, Shot
from appliance.desk import Desk
from barewire.errors import ConfigError
from barewire.execution.shots import PAYLOAD_BYTES, Caps, ShotBook

__all__ = [
    "NOTHING_LEAVES",
    "UNJOURNALLED",
    "Standing",
    "open_book",
    "payload_of",
    "signatures_needed",
]

UNJOURNALLED = (
    "firing is unjournalled: what is sent is recorded nowhere, and after a crash nobody can tell "
    "what left"
)

NOTHING_LEAVES = (
    "fire.unjournalled is false: nothing that the strategy sends leaves, as there is no journal"
)


class Standing:
    """The shots of the configuration: armed at the start, kept armed, or said to have expired.

    One that a strategy has armed anew is the strategy's from then on.

    Args:
        shots: theirs.
        where: the configuration, which payloads lie beside.
        desk: arms them.
        book: where they are armed.
        tell: hears that one expired without having fired.
    """

    def __init__(
        self,
        shots: Sequence[Shot],
        where: Path,
        desk: Desk,
        book: ShotBook,
        tell: Callable[[str], None],
    ) -> None:
        self._book = book
        self._tell = tell
        self._kept_ns: dict[str, int] = {}
        self._due: list[tuple[int, int, str]] = []  # when to look, the expiry then, at which shot
        for shot in shots:
            desk.arm(
                shot.name,
                shot.destination,
                payload_of(shot, where),
                expires_after_ms=shot.expires_after_ms,
                value_wei=shot.value.wei,
                max_fee_wei=shot.max_fee.wei,
                group=shot.group,
            )
            if shot.keep_armed:
                self._kept_ns[shot.name] = shot.expires_after_ms * 1_000_000
            self._look_again(shot.name)

    def _look_again(self, name: str) -> None:
        expires = self._book.status(name).expires_mono_ns
        # Half of its life is left for a loop that does not get round to it.
        heapq.heappush(self._due, (expires - self._kept_ns.get(name, 0) // 2, expires, name))

    def tend(self, now_mono_ns: int) -> None:
        """Moves expiries on; a few times a second."""
        while self._due and self._due[0][0] <= now_mono_ns:
            _, expires, name = heapq.heappop(self._due)
            status = self._book.status(name)
            if status.state != "armed" or status.group_closed or status.expires_mono_ns != expires:
                continue
            if kept_ns := self._kept_ns.get(name):
                self._book.rearm(name, expires_mono_ns=now_mono_ns + kept_ns)
                self._look_again(name)
            else:
                self._tell(f"shot {name!r} has expired without having fired")


def signatures_needed(config: Config) -> str:
    """What in `config` needs libsecp256k1, in words; empty: nothing."""
    if config.senders.workers:
        return "senders.workers recovers senders"
    if any(trigger.sender for trigger in config.trigger):
        return "a trigger asks who the sender is"
    untrusted = [source.name for source in config.source if not source.trusted]
    if untrusted and any(trigger.shot for trigger in config.trigger):
        return f"source {untrusted[0]!r} is not trusted: its signatures are checked before a shot"
    return ""


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
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(
            f"{where}: shot {shot.name!r}: payload {path}: {why}",
            hint="a file of hexadecimal digits, relative to the configuration",
        ) from error
    if not 0 < len(payload) <= PAYLOAD_BYTES:
        raise ConfigError(
            f"{where}: shot {shot.name!r}: payload {path}: {len(payload)} bytes",
            hint=f"1 to {PAYLOAD_BYTES} bytes, what a datagram carries",
        )
    return payload
