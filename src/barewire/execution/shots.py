"""Shots: signed bytes that wait for a trigger, fired by native code without asking Python.

A `ShotBook` arms, disarms and reports; firing happens in native/shot.c, where expiry, exclusion
group, halt word, caps, trust, how its cause came, and journal are checked in one call. Every time a
shot is asked for has an outcome (`OUTCOMES`), which is counted and, for the last `EVENTS_KEPT` of
them, recorded.

It is also the gate of what Python sends without a shot: `ShotBook.send` goes through the same halt
word, journal and caps.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self

from barewire._native import ffi, lib
from barewire.errors import BarewireError

__all__ = [
    "EVENTS_KEPT",
    "OUTCOMES",
    "PAYLOAD_BYTES",
    "STATES",
    "Caps",
    "ShotBook",
    "ShotEvent",
    "ShotStatus",
]

OUTCOMES: tuple[str, ...] = (
    "fired",
    "empty",
    "already_fired",
    "disarmed",
    "halted",
    "group",
    "expired",
    "untrusted",
    "cap_rate",
    "cap_total",
    "cap_value",
    "cap_fee",
    "no_room",
    "journal",
    "send_failed",
    "not_announced",
)
"""Outcomes of asking for a shot, by number (``enum bw_shot_outcome``)."""

STATES: tuple[str, ...] = ("empty", "arming", "armed", "firing", "fired", "disarmed")
"""States of a shot, by number (``enum bw_shot_state``)."""

EVENTS_KEPT: int = lib.BW_SHOT_EVENTS

assert len(OUTCOMES) == lib.BW_SHOT_OUTCOMES

_U256 = 2**256 - 1


PAYLOAD_BYTES: int = lib.BW_SHOT_BYTES
"""The longest payload of a shot: what a datagram carries."""


@dataclass(frozen=True, slots=True)
class Caps:
    """What may leave by one book, shots and sends together.

    Attributes:
        per_second: in any second, 1 to 65536.
        total: since the book was made.
        total_value_wei: ether moved by all of them together.
        max_fee_wei: the most that one may pay for gas.
    """

    per_second: int
    total: int
    total_value_wei: int
    max_fee_wei: int


@dataclass(frozen=True, slots=True)
class ShotStatus:
    """How a shot stands.

    Attributes:
        state: one of `STATES`. An armed shot whose group has fired, or that has expired, cannot
            fire any more.
        group: its exclusion group, or None.
        group_closed: the group has fired.
        last_outcome: of the last time that it was asked for since it was armed, or None.
        asked: how often it was asked for.
        expires_mono_ns: when it expires.
        fired_mono_ns: when it was fired, or None.
    """

    state: str
    group: str | None
    group_closed: bool
    last_outcome: str | None
    asked: int
    expires_mono_ns: int
    fired_mono_ns: int | None


@dataclass(frozen=True, slots=True)
class ShotEvent:
    """One outcome of asking for a shot.

    Attributes:
        seq: its number, counted from 0.
        at_mono_ns: when.
        shot: the shot's name, or its number where none has it.
        outcome: one of `OUTCOMES`.
        trigger: number of the trigger that asked.
        cause_hash: hash of the transaction that met the trigger; None while not computed.
        cause_source: number of the source that it came from.
        cause_arrival_ns: when it arrived, by `cause_arrival_clock` (``enum dpb_clock``).
        cause_arrival_clock: see above.
        peers_sent: destinations that the bytes were handed to the endpoint for.
        cookie: the caller's own, as armed.
    """

    seq: int
    at_mono_ns: int
    shot: str | int
    outcome: str
    trigger: int
    cause_hash: bytes | None
    cause_source: int
    cause_arrival_ns: int
    cause_arrival_clock: int
    peers_sent: int
    cookie: int


@dataclass(slots=True)
class _Armed:
    payload: bytes
    peers: tuple[int, ...]
    group: str | None
    value_wei: int
    max_fee_wei: int
    cookie: int


class ShotBook:
    """The shots of one native loop.

    One thread fires and sends; one other thread may arm, disarm and read at the same time.

    Attributes:
        native: the ``struct bw_shots *`` for native code.
    """

    def __init__(
        self,
        caps: Caps,
        *,
        capacity: int = 1024,
        halt_word: Any = None,
        journal: Any = None,
        journal_context: Any = ffi.NULL,
        unjournalled: bool = False,
    ) -> None:
        """Makes an empty book.

        Args:
            caps: limits checked at every shot.
            capacity: most shots, and most groups.
            halt_word: a writable buffer of 8 aligned bytes, shared memory perhaps; while it is not
                0 nothing is fired. By default the book has one of its own.
            journal: a native ``bw_shot_journal_fn`` that takes the bytes before they leave.
            journal_context: handed to it.
            unjournalled: permits firing without a journal.

        Raises:
            BarewireError: a value is out of range, or there is no journal and no permission.
        """
        if journal is None and not unjournalled:
            raise BarewireError(
                "shots have no journal: what is sent could not be proved after a crash",
                hint="hand in a journal, or permit it with unjournalled = true",
            )
        _within("capacity", capacity, 1, 1 << 20)
        _within("caps.per_second", caps.per_second, 1, 65536)
        _within("caps.total", caps.total, 0, 2**64 - 1)
        _within("caps.total_value_wei", caps.total_value_wei, 0, _U256)
        _within("caps.max_fee_wei", caps.max_fee_wei, 0, _U256)
        if halt_word is None:
            self._halt: Any = ffi.new("uint64_t[1]")
        else:
            self._halt = ffi.from_buffer("uint64_t[]", halt_word, require_writable=True)
            if len(self._halt) != 1 or int(ffi.cast("uintptr_t", self._halt)) % 8:
                raise BarewireError("the halt word is not 8 aligned bytes")
        config: Any = ffi.new(
            "struct bw_shot_config *",
            {
                "capacity": capacity,
                "unjournalled": unjournalled,
                "caps": {
                    "per_second": caps.per_second,
                    "total": caps.total,
                    "total_value_wei": _limbs(caps.total_value_wei),
                    "max_fee_wei": _limbs(caps.max_fee_wei),
                },
                "halt": self._halt,
                "journal": ffi.NULL if journal is None else journal,
                "journal_context": journal_context,
            },
        )
        self.native: Any = lib.bw_shots_new(config)
        if self.native == ffi.NULL:
            raise MemoryError
        self.caps = caps
        self.capacity = capacity
        self._keep = (journal, journal_context)
        self._one: Any = ffi.new("struct bw_shot_spec *")  # of send(), which allocates none
        self._numbers: dict[str, int] = {}
        self._groups: dict[str, int] = {}
        self._armed: dict[str, _Armed] = {}

    @property
    def numbers(self) -> Mapping[str, int]:
        """Numbers of the shots by name, for `compile_triggers`."""
        return MappingProxyType(self._numbers)

    def declare(self, name: str) -> int:
        """The number of shot `name`, which need not be armed yet.

        Raises:
            BarewireError: the book is full.
        """
        return self._number(self._numbers, name, "shots")

    def arm(
        self,
        name: str,
        payload: bytes,
        *,
        peers: Sequence[int],
        expires_mono_ns: int,
        value_wei: int,
        max_fee_wei: int,
        group: str | None = None,
        cookie: int = 0,
    ) -> int:
        """Arms shot `name`; returns its number.

        Args:
            name: given its number by the first call.
            payload: the exact bytes that are sent to each peer.
            peers: numbers of the endpoint's peers, 1 to 4.
            expires_mono_ns: from this moment of CLOCK_MONOTONIC on it does not fire.
            value_wei: ether that it moves, for the caps; where `payload` is a signed transaction
                that moves more, what that says.
            max_fee_wei: the most it can pay for gas (gas limit x fee cap), likewise.
            group: exclusion group; once one of its shots has fired no other does.
            cookie: comes back in events.

        Raises:
            BarewireError: it is armed, its group has fired, or a value is out of range.
        """
        _within("payload bytes", len(payload), 1, PAYLOAD_BYTES)
        _within("peers", len(peers), 1, lib.BW_SHOT_PEERS)
        for peer in peers:
            _within("peer", peer, 0, 2**31 - 1)
        _within("expires_mono_ns", expires_mono_ns, 0, 2**64 - 1)
        _within("value_wei", value_wei, 0, _U256)
        _within("max_fee_wei", max_fee_wei, 0, self.caps.max_fee_wei)
        _within("cookie", cookie, 0, 2**64 - 1)
        armed = _Armed(payload, tuple(peers), group, value_wei, max_fee_wei, cookie)
        self._arm(name, armed, expires_mono_ns)
        return self._numbers[name]

    def rearm(self, name: str, *, expires_mono_ns: int) -> None:
        """Arms the bytes that were armed last once more, with a new expiry.

        For a shot that is armed, disarmed or expired. One that has fired is spent.

        Raises:
            BarewireError: it was never armed, has fired, or its group has.
        """
        armed = self._armed.get(name)
        if armed is None:
            raise BarewireError(f"shot {name!r} was never armed", hint="arm it first")
        self.disarm(name)
        if self.status(name).state == "fired":
            raise BarewireError(
                f"shot {name!r} has fired and its bytes are spent", hint="arm new bytes"
            )
        self._arm(name, armed, expires_mono_ns)

    def _arm(self, name: str, armed: _Armed, expires_mono_ns: int) -> None:
        group = lib.BW_NO_GROUP
        if armed.group is not None:
            group = self._number(self._groups, armed.group, "groups")
        data = ffi.from_buffer(armed.payload)
        spec: Any = ffi.new(
            "struct bw_shot_spec *",
            {
                "bytes": ffi.cast("uint8_t *", data),
                "len": len(armed.payload),
                "group": group,
                "expires_mono_ns": expires_mono_ns,
                "value_wei": _limbs(armed.value_wei),
                "max_fee_wei": _limbs(armed.max_fee_wei),
                "cookie": armed.cookie,
                "peers": list(armed.peers),
                "peer_count": len(armed.peers),
            },
        )
        result = lib.bw_shots_arm(self.native, self.declare(name), spec)
        if result == -errno.EBUSY:
            raise BarewireError(f"shot {name!r} is armed already", hint="disarm it first")
        if result == -errno.EALREADY:
            raise BarewireError(
                f"shot {name!r}: group {armed.group!r} has fired",
                hint="settle_group() once the outcome of what was sent is known",
            )
        if result == -errno.E2BIG:
            raise BarewireError(
                f"shot {name!r}: its transaction may pay more for gas than {self.caps.max_fee_wei} "
                "wei",
                hint="the cap on the fee of one (fire.max_fee) would never let it leave",
            )
        if result:
            raise OSError(-result, f"shot {name!r} could not be armed")
        self._armed[name] = armed

    def disarm(self, name: str) -> bool:
        """Disarms shot `name`. False: it was not armed, it may have fired (see `status`).

        When this returns the shot is not being fired either.
        """
        number = self._numbers.get(name)
        if number is None:
            return False
        while True:
            result = lib.bw_shots_disarm(self.native, number)
            if result != -errno.EAGAIN:
                return result == 0

    def send(
        self,
        payload: bytes,
        *,
        peer: int,
        out: Any,
        now_mono_ns: int,
        value_wei: int = 0,
        max_fee_wei: int = 0,
        cause: Any = None,
    ) -> str:
        """Sends `payload` at once, through the same gate as every shot.

        Args:
            payload: the exact bytes.
            peer: number of the endpoint's peer.
            out: ``struct dpb_datagram_ref *`` of the endpoint.
            now_mono_ns: the clock of the caps.
            value_wei: ether that it moves, for the caps, as in :meth:`arm`.
            max_fee_wei: likewise.
            cause: ``struct bw_tx *`` that it answers, for the journal, or None.

        Returns:
            "fired" where it left, or why not, one of `OUTCOMES`: "halted", "cap_rate",
            "cap_total", "cap_value", "cap_fee", "no_room", "journal", "send_failed".

        Raises:
            BarewireError: a value is out of range.
        """
        _within("payload bytes", len(payload), 1, PAYLOAD_BYTES)
        _within("peer", peer, 0, 2**31 - 1)
        _within("value_wei", value_wei, 0, _U256)
        _within("max_fee_wei", max_fee_wei, 0, _U256)
        spec, held = self._one, ffi.from_buffer(payload)
        spec.bytes, spec.len, spec.peers[0] = ffi.cast("uint8_t *", held), len(payload), peer
        spec.value_wei, spec.max_fee_wei = _limbs(value_wei), _limbs(max_fee_wei)
        about = ffi.NULL if cause is None else cause
        return OUTCOMES[lib.bw_shots_send(self.native, spec, about, now_mono_ns, out)]

    def settle_group(self, group: str) -> None:
        """Opens a group that has fired for new shots: what it sent is settled.

        Raises:
            BarewireError: shots of the group are armed still, or there is no such group.
        """
        if group not in self._groups:
            known = ", ".join(self._groups) or "none"
            raise BarewireError(f"{group!r} is not a group", hint=f"there are: {known}")
        if lib.bw_shots_reopen_group(self.native, self._groups[group]):
            raise BarewireError(
                f"group {group!r} has armed shots, which would come alive", hint="disarm them first"
            )

    def halt(self, reason: int = 1) -> None:
        """Sets the halt word: nothing is fired until `resume`."""
        _within("reason", reason, 1, 2**64 - 1)
        self._halt[0] = reason

    def resume(self) -> None:
        """Clears the halt word."""
        self._halt[0] = 0

    @property
    def halted(self) -> int:
        """The halt word; 0 is "go"."""
        return int(self._halt[0])

    def status(self, name: str) -> ShotStatus:
        """How shot `name` stands.

        Raises:
            BarewireError: no shot has this name.
        """
        if name not in self._numbers:
            known = ", ".join(list(self._numbers)[:20]) or "none"
            raise BarewireError(f"{name!r} is not a shot", hint=f"there are: {known}")
        native: Any = ffi.new("struct bw_shot_status *")
        lib.bw_shots_status(self.native, self._numbers[name], native)
        armed = self._armed.get(name)
        return ShotStatus(
            state=STATES[native.state],
            group=armed.group if armed else None,
            group_closed=bool(native.group_closed),
            last_outcome=None
            if native.last_outcome == lib.BW_SHOT_OUTCOMES
            else OUTCOMES[native.last_outcome],
            asked=native.asked,
            expires_mono_ns=native.expires_mono_ns,
            fired_mono_ns=native.fired_mono_ns or None,
        )

    def counts(self) -> dict[str, int]:
        """How often each outcome of asking for a shot occurred."""
        return self._counted(lib.bw_shots_counts)

    def send_counts(self) -> dict[str, int]:
        """How often each outcome of :meth:`send` occurred; "fired" are those that left."""
        return self._counted(lib.bw_shots_send_counts)

    def _counted(self, read: Any) -> dict[str, int]:
        out: Any = ffi.new("uint64_t[]", len(OUTCOMES))
        read(self.native, out)
        return dict(zip(OUTCOMES, out, strict=True))

    def events(self, since: int = 0, *, limit: int = EVENTS_KEPT) -> list[ShotEvent]:
        """Outcomes from number `since` on, oldest first; those no longer kept are left out."""
        out: Any = ffi.new("struct bw_shot_event[]", limit)
        count = lib.bw_shots_events(self.native, since, out, limit)
        names = {number: name for name, number in self._numbers.items()}
        return [
            ShotEvent(
                seq=event.seq,
                at_mono_ns=event.at_mono_ns,
                shot=names.get(event.shot, event.shot),
                outcome=OUTCOMES[event.outcome],
                trigger=event.trigger,
                cause_hash=bytes(event.hash) if event.hashed else None,
                cause_source=event.source,
                cause_arrival_ns=event.arrival_ns,
                cause_arrival_clock=event.arrival_clock,
                peers_sent=event.peers_sent,
                cookie=event.cookie,
            )
            for event in out[0:count]
        ]

    def why(self, cause_hash: bytes) -> list[ShotEvent]:
        """What came of the transaction with this hash, as far as it is kept."""
        return [event for event in self.events() if event.cause_hash == cause_hash]

    def close(self) -> None:
        """Frees the book; no thread may fire any more."""
        if self.native is not None:
            lib.bw_shots_free(self.native)
            self.native = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _number(self, numbers: dict[str, int], name: str, what: str) -> int:
        if name not in numbers:
            if len(numbers) == self.capacity:
                raise BarewireError(
                    f"{what}: no room for {name!r}", hint=f"capacity is {self.capacity}"
                )
            numbers[name] = len(numbers)
        return numbers[name]


def _within(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise BarewireError(f"{name} = {value} is out of range", hint=f"allowed: {least} to {most}")


def _limbs(value: int) -> list[int]:
    return [value >> shift & 0xFFFFFFFFFFFFFFFF for shift in (0, 64, 128, 192)]
