"""A simulated world for the RPC pool: providers that behave by script, on a stepped clock."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from barewire.rpc.faults import Fault, Trouble
from barewire.rpc.methods import lookup
from barewire.rpc.policy import Policy
from barewire.rpc.pool import Attempt, Call, Pool, Step
from barewire.rpc.provider import Provider, Terms

MS = 1_000_000

# What a provider does with an attempt at a time: (delay in ms or None for never, fault or None).
Behaviour = Callable[[int], tuple[float | None, Fault | None]]


def steady(ms: float) -> Behaviour:
    return lambda _now: (ms, None)


def hang(_now: int) -> tuple[float | None, Fault | None]:
    return None, None


def failing(fault: Fault, ms: float = 0.2) -> Behaviour:
    return lambda _now: (ms, fault)


@dataclass
class World:
    """Runs calls against scripted providers; `results` are (call, latency ms or None)."""

    behaviours: list[Behaviour]
    policy: Policy = field(default_factory=Policy)
    seed: int = 1
    terms: list[Terms] | None = None

    def __post_init__(self) -> None:
        terms = self.terms or [Terms(f"p{i}") for i in range(len(self.behaviours))]
        self.providers = [Provider(t) for t in terms]
        for provider in self.providers:
            provider.connected = True
        self.pool = Pool(self.providers, self.policy, random.Random(self.seed))
        self.now = 1_000 * MS
        self.events: list[tuple[int, int, Callable[[], None]]] = []
        self.order = itertools.count()
        self.latencies: list[float] = []
        self.failures: list[Exception] = []
        self.chosen: list[str] = []
        self.sent: list[Attempt] = []
        self.cancelled: list[Attempt] = []
        self.fewest = len(self.providers)

    def at(self, when: int, what: Callable[[], None]) -> None:
        heapq.heappush(self.events, (when, next(self.order), what))

    def send(self, attempt: Attempt) -> None:
        self.sent.append(attempt)
        index = self.providers.index(attempt.provider)
        delay, fault = self.behaviours[index](self.now)
        if delay is None:
            return

        def arrive() -> None:
            if fault is None:
                was_done = attempt.call.done
                self.cancelled += self.pool.answered(attempt, self.now)
                if attempt.call.done and not was_done and not attempt.mirror:
                    self.latencies.append((self.now - attempt.call.waiter) / MS)
                    self.chosen.append(attempt.provider.name)
            else:
                self.step(self.pool.failed(attempt, Trouble(fault, "scripted"), self.now))

        self.at(self.now + int(delay * MS), arrive)

    def step(self, step: Step) -> None:
        for attempt in step.send:
            self.send(attempt)
        self.cancelled += step.cancel
        self.failures += [error for _, error in step.failed]

    def call(self, method: str = "eth_call", **how: object) -> Call:
        call = Call(lookup(method), [], **how)  # type: ignore[arg-type]
        call.waiter = self.now
        attempt = self.pool.start(call, self.now)
        if attempt:
            self.send(attempt)
        mirror = self.pool.mirror(call, self.now)
        if mirror:
            self.send(mirror)
        return call

    def run(self, until_ms: float) -> None:
        """Lets `until_ms` pass."""
        end = self.now + int(until_ms * MS)
        while True:
            event = self.events[0][0] if self.events else end + 1
            due = self.pool.next_due_ns()
            when = min(event, due)
            if when > end:
                break
            self.now = max(self.now, when)
            if event <= due:
                heapq.heappop(self.events)[2]()
            else:
                self.step(self.pool.due(self.now))
            inside = [p for p in self.providers if not self.pool.ejection.is_out(p, self.now)]
            self.fewest = min(self.fewest, len(inside))
        self.now = end

    def load(self, per_s: float, seconds: float, method: str = "eth_call", **how: object) -> None:
        """Calls at a fixed rate for a while, then lets everything finish."""
        for _ in range(int(per_s * seconds)):
            self.call(method, **how)
            self.run(1000 / per_s)
