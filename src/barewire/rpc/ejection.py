"""When a provider is put out, for how long, and how it comes back.

Out after a few failures in a row; out twice as long each time; never so many out that none is left.
It comes back through probation: copies of real, repeatable, public requests (or, without traffic, a
quiet probe) whose answers nobody waits for. A few good ones in a row and it is in again.
"""

from __future__ import annotations

from collections.abc import Sequence

from barewire.rpc.faults import Fault
from barewire.rpc.policy import Policy
from barewire.rpc.provider import Provider

__all__ = ["Ejection"]

_MS = 1_000_000


class Ejection:
    """The rules of putting out and letting in for one pool."""

    def __init__(self, providers: Sequence[Provider], policy: Policy) -> None:
        self._providers = providers
        self._policy = policy

    def is_out(self, provider: Provider, now_ns: int) -> bool:
        """Whether it gets no traffic of its own: ejected, or on probation."""
        return provider.probation or now_ns < provider.out_until_ns

    def struck(self, provider: Provider, fault: Fault, now_ns: int) -> bool:
        """After a failure has been counted: ejects where the rules say so; True when it did."""
        if now_ns < provider.out_until_ns:
            return False  # it is out already; what was on its way does not count twice
        if provider.probation:
            self._put_out(provider, f"failed on probation ({fault.value})", now_ns)
            return True
        if provider.strikes < self._policy.strikes:
            return False
        others_in = any(
            p is not provider and p.connected and not p.refused and not self.is_out(p, now_ns)
            for p in self._providers
            if p.terms.private == provider.terms.private
        )
        if not others_in:
            return False  # the last one stays: a bad provider beats none
        self._put_out(provider, f"{provider.strikes} failures in a row ({fault.value})", now_ns)
        return True

    def _put_out(self, provider: Provider, reason: str, now_ns: int) -> None:
        policy = self._policy
        for_ms = min(policy.eject_ms << min(provider.ejections, 16), policy.eject_max_ms)
        provider.ejections += 1
        provider.out_until_ns = now_ns + for_ms * _MS
        provider.out_reason = reason
        provider.probation = True
        provider.mirror_wins = 0
        provider.strikes = 0

    def park(
        self, provider: Provider, retry_after_ms: int, now_ns: int, *, method: str = ""
    ) -> None:
        """A rate limit is no sickness: leave it alone for as long as it asked.

        Where it spoke of one `method` alone, it goes on being asked others.
        """
        for_ms = retry_after_ms or self._policy.park_ms << min(provider.parkings, 2)
        if method:
            provider.parked[method] = now_ns + for_ms * _MS
            return
        if now_ns >= provider.parked_until_ns:  # what was on its way counts once
            provider.parkings += 1
        provider.parked_until_ns = max(provider.parked_until_ns, now_ns + for_ms * _MS)

    def wants_mirror(self, provider: Provider, now_ns: int) -> bool:
        """Whether a copy of a request may go to `provider` now, to learn how it does."""
        return (
            provider.connected
            and not provider.refused
            and now_ns >= provider.out_until_ns
            and now_ns >= provider.parked_until_ns
            and not provider.mirror_in_flight
            and now_ns >= provider.mirror_next_ns
        )

    def proved(self, provider: Provider, now_ns: int) -> None:
        """A mirrored request or a probe was answered; enough of them end a probation."""
        if not provider.probation or now_ns < provider.out_until_ns:
            return
        provider.mirror_wins += 1
        if provider.mirror_wins < self._policy.mirror_wins:
            return
        provider.probation = False
        provider.out_reason = ""
        provider.success = max(provider.success, 0.9)

    def calm(self, provider: Provider, now_ns: int) -> None:
        """At each health check: a provider long well is forgiven its past, one step at a time."""
        if (
            provider.ejections
            and not provider.probation
            and now_ns - provider.out_until_ns > 60_000 * _MS
        ):
            provider.ejections -= 1
            provider.out_until_ns = now_ns
