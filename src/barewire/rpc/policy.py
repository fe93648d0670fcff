"""The numbers by which a pool acts, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Policy"]


@dataclass(frozen=True, slots=True)
class Policy:
    """How a pool hedges, ejects and gives up.

    Attributes:
        timeout_ms: when a call is given up altogether.
        hedge_quantile: a call slower than this quantile of its kind, at the quickest provider that
            is in, is hedged.
        hedge_floor_ms: never hedge earlier: below it lie garbage collection and scheduling.
        hedge_ceiling_ms: never wait longer before failing over; the 500 ms bound comes from here.
            Of a kind that is slower everywhere, what is usual is the bound.
        hedge_share: speculative hedges are at most this share of calls; fail-over is not counted.
        rounds: how often all providers are tried before a call is given up.
        backoff_ms: pause between rounds, doubled each time.
        silent: this many requests on the way or failed in a row, and nothing heard since the
            overdue one was sent, is trouble before the ceiling.
        strikes: failures in a row that eject a provider.
        eject_ms: the first ejection; each further one doubles, up to `eject_max_ms`.
        eject_max_ms: the longest ejection.
        park_ms: how long a rate-limited provider is left alone when it does not say; doubles
            twice, for a call should be able to wait for it.
        mirror_share: share of repeatable public calls copied to a provider that is not in use, so
            that its latency is known before it is needed.
        mirror_wins: mirrored answers in a row that end a probation.
        max_lag: blocks a provider may be behind the newest head.
        block_time_ms: the chain's block time.
        check_ms: how often health is checked.
    """

    timeout_ms: int = 10_000
    hedge_quantile: float = 0.95
    hedge_floor_ms: float = 20.0
    hedge_ceiling_ms: float = 250.0
    hedge_share: float = 0.1
    rounds: int = 3
    backoff_ms: int = 50
    silent: int = 2
    strikes: int = 3
    eject_ms: int = 2_000
    eject_max_ms: int = 60_000
    park_ms: int = 1_000
    mirror_share: float = 0.01
    mirror_wins: int = 3
    max_lag: int = 2
    block_time_ms: int = 12_000
    check_ms: int = 5_000
