"""What a strategy acts by: sends at once, and arms shots; both through the gate of the shots."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from barewire._native import ffi
from barewire.errors import BarewireError
from barewire.execution.shots import PAYLOAD_BYTES, ShotBook
from barewire.mempool.record import Transaction
from barewire.mempool.senders import Senders

__all__ = ["Desk", "Out"]

_WHY = {
    "unjournalled": "fire.unjournalled is false, and there is no journal",
    "halted": "sending is halted",
    "cap_rate": "fire.max_per_second is reached",
    "cap_total": "fire.max_total is reached",
    "cap_value": "fire.max_total_value would be exceeded",
    "cap_fee": "it may pay more for gas than fire.max_fee",
    "no_room": "no room, no next hop, or too long for the way there",
    "journal": "the journal did not take it",
    "send_failed": "the way out failed",
}
"""Why something was not sent, by the outcome of `ShotBook.send`."""


class Out(Protocol):
    """By which datagrams leave: an endpoint, or the outbox to the core that has one."""

    @property
    def ref(self) -> Any:
        """``struct dpb_datagram_ref *``."""


class Desk:
    """:class:`appliance.strategy.Actions` of one appliance.

    Args:
        out: by which datagrams leave.
        peers: number of each destination among `out`'s peers.
        shots: the gate that all goes through; None: nothing may leave.
        senders: who signed what, or None.
        clock_mono_ns: the clock.

    Attributes:
        max_payload: the longest payload that a peer can be sent.
        note_sent: told of everything that was sent from here: the transaction it was about, the
            peer, the bytes, and whether it left.
        refused: how often something was not sent, by cause.
        note: told in words of what was not sent.
        cause: the transaction that the strategy is being called with.
    """

    def __init__(
        self,
        out: Out,
        peers: Mapping[str, int],
        shots: ShotBook | None,
        senders: Senders | None = None,
        clock_mono_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        # The endpoint's module and ours share the header, not the type.
        ref = ffi.NULL if shots is None else int(ffi.cast("uintptr_t", out.ref))
        self._out: Any = ffi.cast("struct dpb_datagram_ref *", ref)
        self._peers = peers
        self._shots = shots
        self._senders = senders
        self._clock_mono_ns = clock_mono_ns
        self.max_payload: Callable[[int], int] = lambda _peer: PAYLOAD_BYTES
        self.note_sent: Callable[[Transaction | None, int, bytes, bool], None] | None = None
        self.note: Callable[[str], None] = lambda _said: None
        self.refused: Counter[str] = Counter()
        self.cause: Callable[[], Transaction | None] = lambda: None

    def send(
        self, destination: str, payload: bytes, *, value_wei: int = 0, max_fee_wei: int = 0
    ) -> bool:
        """Sends `payload` to the destination of that name at once; False if it did not leave.

        What is not sent is counted by cause and said in the distinct-error log.

        Raises:
            BarewireError: there is no such destination, or a value is out of range.
        """
        peer, cause = self._peer(destination), self.cause()
        if self._shots is None:
            outcome = "unjournalled"
        else:
            outcome = self._shots.send(
                payload,
                peer=peer,
                out=self._out,
                now_mono_ns=self.now_mono_ns(),
                value_wei=value_wei,
                max_fee_wei=max_fee_wei,
                cause=None if cause is None else cause.record,
            )
        left = outcome == "fired"
        if not left:
            self.refused[outcome] += 1
            self.note(f"strategy: not sent to {destination}: {_WHY[outcome]}")
        if self.note_sent is not None:
            self.note_sent(cause, peer, payload, left)
        return left

    def arm(
        self,
        shot: str,
        destination: str,
        payload: bytes,
        *,
        expires_after_ms: int,
        value_wei: int = 0,
        max_fee_wei: int = 0,
        group: str | None = None,
        cookie: int = 0,
    ) -> None:
        """Arms a shot; one that has expired gives its place up.

        Raises:
            BarewireError: nothing may fire here, it is armed, its group has fired, a cap
                forbids it, or it is longer than the way to its destination takes.
        """
        if self._shots is None:
            raise BarewireError(
                f"shot {shot!r}: nothing may fire: fire.unjournalled is false",
                hint="there is no journal yet; set it to true if you accept that",
            )
        peer, now = self._peer(destination), self.now_mono_ns()
        longest = self.max_payload(peer)
        if len(payload) > longest:
            raise BarewireError(
                f"shot {shot!r}: {len(payload)} bytes, and {destination!r} takes {longest}",
                hint="datagrams are not fragmented; the MTU of the way there decides",
            )
        self._shots.declare(shot)
        status = self._shots.status(shot)
        if status.state == "armed" and status.expires_mono_ns <= now:
            self._shots.disarm(shot)
        self._shots.arm(
            shot,
            payload,
            peers=[peer],
            expires_mono_ns=now + expires_after_ms * 1_000_000,
            value_wei=value_wei,
            max_fee_wei=max_fee_wei,
            group=group,
            cookie=cookie,
        )

    def disarm(self, shot: str) -> bool:
        """Takes back what was armed, to arm something else.

        Returns:
            False where it was not armed (any more): it has fired, or never was.
        """
        return self._shots is not None and self._shots.disarm(shot)

    def sender(self, tx_hash: bytes) -> bytes | None:
        """Who signed the transaction of this hash, where a worker has answered by now.

        Returns:
            The 20-byte address, empty bytes where nobody can have made the signature, or None
            where it is not known (yet); always None without ``[senders] workers``.
        """
        return None if self._senders is None else self._senders.lookup(tx_hash)

    def now_mono_ns(self) -> int:
        """CLOCK_MONOTONIC; in a replay the capture's clock."""
        return self._clock_mono_ns()

    def _peer(self, destination: str) -> int:
        try:
            return self._peers[destination]
        except KeyError:
            raise BarewireError(
                f"there is no destination {destination!r}",
                hint=f"configured: {', '.join(self._peers) or 'none'}",
            ) from None
