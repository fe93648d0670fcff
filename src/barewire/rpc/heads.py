"""Which head is the newest, when some who claim it are behind and some may lie.

A provider that claims a head far beyond everybody else's would, if believed, throw all the honest
ones out for being behind. So a claim counts only as far as time and the others bear it out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from barewire.rpc.provider import Provider
from barewire.untrusted import quantity_of

__all__ = ["Heads", "quantity"]


def quantity(text: Any) -> int:
    """A block number as JSON-RPC writes it, of 64 bits at most; -1 for anything else."""
    try:
        return quantity_of(text)
    except ValueError:
        return -1


class Heads:
    """The newest believed head of one chain.

    Attributes:
        newest: block number, -1 while unknown.
        newest_ns: when that was learnt, monotonic.
        final: the newest block known to be final, -1 while unknown.
    """

    def __init__(self, providers: Sequence[Provider], block_time_ms: int, max_lag: int) -> None:
        self._providers = providers
        self._block_ns = block_time_ms * 1_000_000
        self._max_lag = max_lag
        self.newest = -1
        self.final = -1
        self.newest_ns = 0
        self._borne_out = False  # two providers have been heard

    def saw(self, provider: Provider, number: int, now_ns: int) -> bool:
        """Takes `provider`'s word that `number` exists; True when the newest head moved."""
        if 0 < provider.head - number <= self._max_lag and not provider.doubtful:
            # Load-balanced backends differ by a block; only a real fall (a reset node) is believed.
            provider.head_ns = now_ns
            return False
        provider.head = number
        provider.head_ns = now_ns
        return self._settle(now_ns)

    def forget(self, provider: Provider, now_ns: int) -> None:
        """What `provider` said was of another chain."""
        provider.head = -1
        if any(p.head >= 0 for p in self._providers):
            self._settle(now_ns)

    def _settle(self, now_ns: int) -> bool:
        known = [p for p in self._providers if p.head >= 0]
        quiet_ns = now_ns - self.newest_ns if self.newest_ns else 0
        slack = 3 + self._max_lag + 2 * quiet_ns // self._block_ns
        # One alone, or the first two: nobody can say who is wrong, and a node that is still
        # catching up is met more often than a liar.
        few = len(known) == 1 or (len(known) == 2 and not self._borne_out)
        borne_out, believed = self._borne_out, -1
        for provider in known:
            head = provider.head
            agreed = any(abs(p.head - head) <= slack for p in known if p is not provider)
            grown = borne_out and head <= self.newest + slack
            provider.doubtful = "" if few or agreed or grown else "alone with its head"
            if not provider.doubtful:
                believed = max(believed, head)
            self._borne_out = self._borne_out or agreed
        if believed < 0:  # all say something else: the second highest, at least two have got there
            believed = sorted(p.head for p in known)[-2]
        for provider in known:
            if provider.doubtful:
                ahead = provider.head - believed
                provider.doubtful = f"claims a head {ahead} blocks ahead of everyone" * (ahead > 0)
        if believed == self.newest:
            return False
        if believed < self.newest:
            # Everybody fell back (a chain that was reset), or the claimant was found out.
            self.newest = believed
            return False
        self.newest = believed
        self.newest_ns = now_ns
        return True

    def behind(self, provider: Provider) -> bool:
        """Whether `provider` is known to be more than the allowed lag behind."""
        return 0 <= provider.head < self.newest - self._max_lag
