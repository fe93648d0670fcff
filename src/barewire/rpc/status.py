"""What a pool looks like to a person: rank, reasons, latencies, lag, errors."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from barewire.rpc.methods import Kind
from barewire.rpc.provider import Provider

if TYPE_CHECKING:
    from barewire.rpc.client import RpcClient

__all__ = ["ProviderStatus", "snapshot"]


class ProviderStatus(msgspec.Struct):
    """One line of the table.

    Attributes:
        rank: 1 is asked first; 0 is not asked.
        state: up, doubtful, parked, probation, ejected, refused or down.
        reason: why it stands where it does.
        cost: weighted microseconds, what the rank goes by; None when never measured.
        p50_us, p99_us: of calls and other state reads, or of light reads when there were none.
        head: newest block, -1 when unknown.
        lag: blocks behind the newest known head.
        success: moving share of requests that were served.
        sent, answered, hedged_away, mirrored: counters.
        errors: failures by cause.
        last_trouble: the last failure, or "".
    """

    name: str
    tier: str
    rank: int
    state: str
    reason: str
    cost: float | None
    p50_us: float
    p99_us: float
    head: int
    lag: int
    success: float
    sent: int
    answered: int
    hedged_away: int
    mirrored: int
    errors: dict[str, int]
    last_trouble: str


def snapshot(client: RpcClient, kind: Kind = Kind.STATE) -> list[ProviderStatus]:
    """All providers of `client`, in the order in which a call of `kind` would ask them."""
    pool, now_ns = client.pool, time.monotonic_ns()
    order = pool.ranking.order(pool.providers, kind)
    usable = [p for p in order if p.state(now_ns) == "up" and not pool.heads.behind(p)]
    rest = [p for p in order if p not in usable]
    return [_one(client, p, kind, i + 1, now_ns) for i, p in enumerate(usable)] + [
        _one(client, p, kind, 0, now_ns) for p in rest
    ]


def _one(client: RpcClient, p: Provider, kind: Kind, rank: int, now_ns: int) -> ProviderStatus:
    pool = client.pool
    sketch = p.sketch[kind] if p.sketch[kind].count(now_ns) else p.sketch[Kind.LIGHT]
    cost = pool.ranking.unloaded(p, kind)
    return ProviderStatus(
        name=p.name,
        tier=p.terms.tier,
        rank=rank,
        state=p.state(now_ns),
        reason=_reason(client, p, rank, now_ns),
        cost=None if cost == float("inf") else round(cost, 1),
        p50_us=round(sketch.quantile(0.5, now_ns), 1),
        p99_us=round(sketch.quantile(0.99, now_ns), 1),
        head=p.head,
        lag=max(pool.heads.newest - p.head, 0) if p.head >= 0 else 0,
        success=round(p.success, 4),
        sent=p.tally.sent,
        answered=p.tally.answered,
        hedged_away=p.tally.hedged_away,
        mirrored=p.tally.mirrored,
        errors=dict(p.tally.faults),
        last_trouble=p.last_trouble,
    )


def _reason(client: RpcClient, p: Provider, rank: int, now_ns: int) -> str:
    state = p.state(now_ns)
    if state == "refused":
        return p.refused
    if state == "down":
        return p.last_trouble or "not connected"
    if state == "ejected":
        return f"{p.out_reason}; tried again in {(p.out_until_ns - now_ns) / 1e9:.0f} s"
    if state == "probation":
        return f"{p.out_reason}; mirrored answers so far: {p.mirror_wins}"
    if state == "doubtful":
        return p.doubtful
    if state == "parked":
        return f"asked to be left alone for {(p.parked_until_ns - now_ns) / 1e9:.1f} s"
    if client.pool.heads.behind(p):
        return f"{client.pool.heads.newest - p.head} blocks behind"
    terms = p.terms
    return f"priority {terms.priority}, weight {terms.weight:g}" if rank else ""
