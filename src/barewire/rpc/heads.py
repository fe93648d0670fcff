"""Which head is the newest, when some who claim it are behind and some may lie.

A provider that claims a head far beyond everybody else's would, if believed, throw all the honest
ones out for being behind. So a claim counts only as far as time and the others bear it out.
"""

from __future__ import annotations

from collections.abc import Sequence

from barewire.rpc.provider import Provider

__all__ = ["Heads"]


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

    def saw(self, provider: Provider, number: int, now_ns: int) -> bool:
        """Takes `provider`'s word that `number` exists; True when the newest head moved."""
        if 0 < provider.head - number <= self._max_lag and not provider.doubtful:
            # Load-balanced backends differ by a block; only a real fall (a reset node) is believed.
            provider.head_ns = now_ns
            return False
        provider.head = number
        provider.head_ns = now_ns
        return self._settle(now_ns)

    def _settle(self, now_ns: int) -> bool:
        known = sorted((p for p in self._providers if p.head >= 0), key=lambda p: -p.head)
        # The best head that two agree on; a lone claimant may be ahead by what time allows.
        second = known[1].head if len(known) > 1 else -1
        believed = second
        for provider in known:
            witness = second if provider is known[0] else known[0].head
            if witness < 0:
                provider.doubtful = ""
                believed = max(believed, provider.head)
                continue
            quiet_ns = now_ns - self.newest_ns if self.newest_ns else 0
            slack = 3 + self._max_lag + 2 * quiet_ns // self._block_ns
            if provider.head > max(witness, self.newest) + slack:
                ahead = provider.head - max(witness, self.newest)
                provider.doubtful = f"claims a head {ahead} blocks ahead of everyone"
            else:
                provider.doubtful = ""
                believed = max(believed, provider.head)
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
