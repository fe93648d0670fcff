"""What a strategy acts by: sends at once, and arms shots."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from barewire.errors import BarewireError
from barewire.execution.shots import PAYLOAD_BYTES, ShotBook
from barewire.mempool.record import Transaction
from barewire.mempool.senders import Senders

__all__ = ["Desk", "Out"]


class Out(Protocol):
    """By which datagrams leave: an endpoint, or the outbox to the core that has one."""

    @property
    def ref(self) -> Any:
        """``struct dpb_datagram_ref *``."""

    def send(self, peer: int, payload: bytes, /) -> bool:
        """Queues `payload` for that peer."""

    def flush(self) -> bool:
        """Lets what is queued leave."""


class Desk:
    """:class:`appliance.strategy.Actions` of one appliance.

    Args:
        out: by which datagrams leave.
        peers: number of each destination among `out`'s peers.
        shots: what may fire, or None.
        senders: who signed what, or None.
        clock_mono_ns: the clock.

    Attributes:
        max_payload: the longest payload that a peer can be sent.
        note_sent: told of everything that was sent from here: the transaction it was about, the
            peer, the bytes, and whether it left.
        halted: whether sending has stopped.
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
        self._out = out
        self._peers = peers
        self._shots = shots
        self._senders = senders
        self._clock_mono_ns = clock_mono_ns
        self.max_payload: Callable[[int], int] = lambda _peer: PAYLOAD_BYTES
        self.note_sent: Callable[[Transaction | None, int, bytes, bool], None] | None = None
        self.halted: Callable[[], bool] = lambda: False
        self.cause: Callable[[], Transaction | None] = lambda: None

    def send(self, destination: str, payload: bytes) -> bool:
        """Sends `payload` to the destination of that name at once; False if it did not leave."""
        peer = self._peer(destination)
        left = not self.halted() and self._out.send(peer, payload) and bool(self._out.flush())
        if self.note_sent is not None:
            self.note_sent(self.cause(), peer, payload, left)
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
