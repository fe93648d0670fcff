"""Who is asked next.

Cost of a provider = peak-EWMA latency x (requests in flight + 1) x priority x price / weight /
success. The cheapest is taken on the priority lane; on the bulk lane the cheaper of two drawn at
random, which spreads a load without herding. The incumbent of a kind keeps its place until another
is clearly cheaper (hysteresis) and it has had the place for a while (dwell), so that noise does not
make traffic flap.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from barewire.rpc.methods import KINDS, Kind
from barewire.rpc.provider import Provider

__all__ = ["Ranking"]


class Ranking:
    """Chooses among the usable providers, per method kind.

    Attributes:
        switches: how often an incumbent lost its place, for tests and status.
    """

    def __init__(
        self, rng: random.Random, *, hysteresis: float = 0.7, dwell_ms: float = 1_000.0
    ) -> None:
        self._rng = rng
        self._hysteresis = hysteresis
        self._dwell_ns = int(dwell_ms * 1e6)
        self._incumbent: list[Provider | None] = [None] * KINDS
        self._since_ns = [0] * KINDS
        self.switches = 0

    @staticmethod
    def unloaded(provider: Provider, kind: Kind) -> float:
        """Cost with nothing in flight, in weighted microseconds; infinite if never measured."""
        terms = provider.terms
        success = max(provider.success, 0.05)
        own = provider.ewma[kind].us or provider.latency_us(kind) or float("inf")
        return own * terms.priority * terms.price / (terms.weight * success)

    def argmin(self, usable: Sequence[Provider], kind: Kind, now_ns: int) -> Provider:
        """The cheapest of `usable`, which is not empty; the incumbent has the benefit of doubt."""
        incumbent = self._incumbent[kind]
        best = usable[0]
        best_cost = cheapest = incumbent_cost = float("inf")
        challenger = best
        for provider in usable:
            base = self.unloaded(provider, kind)
            cost = base * (provider.in_flight + 1)
            if provider is incumbent:
                cost *= self._hysteresis
                incumbent_cost = base
            if cost < best_cost or (cost == best_cost and provider.in_flight < best.in_flight):
                best, best_cost = provider, cost
            if base < cheapest:
                challenger, cheapest = provider, base
        if incumbent not in usable:  # it is out, or there was none
            self._seat(best, kind, now_ns)
        elif (
            challenger is not incumbent
            and cheapest < incumbent_cost * self._hysteresis
            and now_ns - self._since_ns[kind] >= self._dwell_ns
        ):
            self._seat(challenger, kind, now_ns)
        elif incumbent is not None and not incumbent.in_flight:
            return (
                incumbent  # within doubt or dwell it keeps idle traffic; a load still spills over
            )
        return best

    def unseat(self, provider: Provider) -> None:
        """Trouble overrides hysteresis and dwell: `provider` has to win its place again."""
        for kind in range(KINDS):
            if self._incumbent[kind] is provider:
                self._incumbent[kind] = None
                self.switches += 1

    def _seat(self, provider: Provider, kind: Kind, now_ns: int) -> None:
        if self._incumbent[kind] not in (None, provider):
            self.switches += 1
        self._incumbent[kind] = provider
        self._since_ns[kind] = now_ns

    def of_two(self, usable: Sequence[Provider], kind: Kind) -> Provider:
        """Power of two choices: the cheaper of two drawn at random."""
        if len(usable) == 1:
            return usable[0]
        one, other = self._rng.sample(usable, 2)
        cost = self.unloaded(one, kind) * (one.in_flight + 1)
        return one if cost <= self.unloaded(other, kind) * (other.in_flight + 1) else other

    def order(self, providers: Sequence[Provider], kind: Kind) -> list[Provider]:
        """All of `providers`, cheapest first, without changing anything."""
        return sorted(providers, key=lambda p: self.unloaded(p, kind) * (p.in_flight + 1))
