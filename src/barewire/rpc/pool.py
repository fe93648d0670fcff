"""Calls, attempts, hedges and fail-over: the decisions, without a socket or a clock.

A `Call` is what a user asked for. An `Attempt` is that call at one provider. The shell asks for the
first attempt, reports what became of each, and asks at `next_due_ns` what is overdue; the pool
answers with a `Step`: what to send, what to cancel, what is finished. Every rule of fail-over is
here, so that all of them can be tested on a simulated clock.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from barewire.rpc.ejection import Ejection
from barewire.rpc.faults import AllProvidersFailed, Fault, Trouble
from barewire.rpc.heads import Heads
from barewire.rpc.methods import KINDS, Kind, Method
from barewire.rpc.policy import Policy
from barewire.rpc.provider import Provider
from barewire.rpc.ranking import Ranking

__all__ = ["Attempt", "Call", "Pool", "Step"]

_MS = 1_000_000
_NEVER = 1 << 62
_FLOOR_NS = 500 * _MS
"""How long a call holds out for a provider that knows the block its answer has to know."""
_SOON_NS = 20 * _MS
_HOPELESS = (Fault.UNSUPPORTED, Fault.PRUNED, Fault.TOO_MUCH, Fault.UNSURE)
"""What asking the same provider again does not change."""


class Call:
    """One request of a user.

    Attributes:
        method: what is known about its method.
        params: JSON-encodable parameters.
        wire: the parameters as JSON, filled in by the shell.
        route: "" for the public providers, or the name of the only private set it may reach.
        bulk: it goes in the bulk lane.
        at_least: the provider asked must know this block, -1 for any.
        held: nobody that may be asked knows the floor.
        floor: the same, for as long as `floor_ns` says: where nobody knows it by then, any will do.
        archive: it needs states that only archive nodes keep.
        only: the only provider it may go to, or None.
        joined: others wait for it beside the one who began it; each has a deadline of its own.
        ready_ns: when the limits of those who may be asked let it through, where they do not now.
        suspects: who failed at it, and how; they are blamed once another has done better.
        waiter: the shell's own (what to wake when it is finished).
    """

    __slots__ = (
        "archive",
        "at_least",
        "attempts",
        "bulk",
        "causes",
        "deadline_ns",
        "done",
        "floor",
        "floor_ns",
        "hedges",
        "held",
        "joined",
        "method",
        "only",
        "params",
        "ready_ns",
        "resume_ns",
        "rounds",
        "route",
        "suspects",
        "tried",
        "waiter",
        "wire",
    )

    def __init__(
        self,
        method: Method,
        params: Any,
        *,
        route: str = "",
        bulk: bool = False,
        at_least: int = -1,
        floor: int = -1,
        archive: bool = False,
        only: Provider | None = None,
    ) -> None:
        self.method = method
        self.params = params
        self.route = route
        self.bulk = bulk
        self.at_least = at_least
        self.floor = floor
        self.floor_ns = 0
        self.held = False
        self.archive = archive
        self.only = only
        self.waiter: Any = None
        self.wire = b"[]"
        self.tried: list[Provider] = []
        self.attempts: list[Attempt] = []  # those still open
        self.causes: list[tuple[str, Trouble]] = []
        self.suspects: list[tuple[Provider, Trouble]] = []
        self.hedges = 0
        self.joined = False
        self.rounds = 0
        self.ready_ns = 0
        self.resume_ns = 0
        self.deadline_ns = 0
        self.done = False


class Attempt:
    """One call at one provider.

    Attributes:
        call: the call.
        provider: who was asked.
        sent_ns: when.
        due_ns: when something has to be done about it.
        closed: it is over, whatever still comes for it.
        trouble_ns: when at the latest another provider is asked.
        late: it was overdue, and another provider was asked.
        mirror: a copy for learning; nobody waits for it.
        waiter: the shell's own (the exchange that carries it).
    """

    __slots__ = (
        "call",
        "closed",
        "due_ns",
        "late",
        "mirror",
        "provider",
        "sent_ns",
        "trouble_ns",
        "waiter",
    )

    def __init__(self, call: Call, provider: Provider, sent_ns: int, due_ns: int) -> None:
        self.call = call
        self.provider = provider
        self.sent_ns = sent_ns
        self.due_ns = due_ns
        self.trouble_ns = due_ns
        self.closed = False
        self.late = False
        self.mirror = False
        self.waiter: Any = None

    def may_repeat(self, trouble: Trouble) -> bool:
        """Whether the request may go out again after `trouble`."""
        return self.call.method.repeat or trouble.untouched


@dataclass(slots=True)
class Step:
    """What the shell has to do next."""

    send: list[Attempt] = field(default_factory=list)
    cancel: list[Attempt] = field(default_factory=list)
    failed: list[tuple[Call, Exception]] = field(default_factory=list)


class Pool:
    """All providers of one chain.

    Attributes:
        providers: in the order of the configuration.
        heads: what is known of the chain's head.
        ranking: who is asked next.
        ejection: who is out.
        calls: calls begun.
        hedges: speculative hedges sent.
        failovers: attempts sent because another was in trouble.
        prunes: some provider does not keep old states.
        woken: `due` has to be asked at once, whatever `next_due_ns` said; the shell puts it back.
        wants_heads: a call could be answered by more providers if their heads were known better.
    """

    def __init__(
        self,
        providers: Sequence[Provider],
        policy: Policy | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.policy = policy or Policy()
        self.providers = list(providers)
        self._rng = rng or random.Random()  # noqa: S311  (spreads load; protects nothing)
        self.heads = Heads(self.providers, self.policy.block_time_ms, self.policy.max_lag)
        self.ranking = Ranking(self._rng)
        self.ejection = Ejection(self.providers, self.policy)
        self.calls = 0
        self.hedges = 0
        self.failovers = 0
        self.prunes = any(not p.archive for p in self.providers)
        self.wants_heads = False
        self._allowance = 1.0  # speculative hedges that may be sent now
        self._usual = [(0.0, 0)] * KINDS  # see `_usual_us`: the value and until when it holds
        self.woken = False
        self._open: dict[Attempt, None] = {}
        self._paused: dict[Call, None] = {}

    # Beginning

    def start(self, call: Call, now_ns: int, timeout_ms: int = 0) -> Attempt | None:
        """The first attempt of `call`; None while it waits for a provider to reach its block.

        Raises:
            AllProvidersFailed: no provider of its route may be asked at all.
        """
        self.calls += 1
        self._allowance = min(self._allowance + self.policy.hedge_share, 10.0)
        call.deadline_ns = now_ns + (timeout_ms or self.policy.timeout_ms) * _MS
        call.floor_ns = now_ns + _FLOOR_NS
        provider = self._pick(call, now_ns)
        if provider is not None:
            return self._attempt(call, provider, now_ns)
        if call.held or self._rests(call, now_ns):
            self._pause(call, now_ns)
            return None
        if call.at_least >= 0 and any(self._allowed(call, p, at_least=-1) for p in self.providers):
            self._pause(call, now_ns)
            return None
        raise AllProvidersFailed(call.method.name, call.causes, hint=self._why_none(call))

    @staticmethod
    def _rests(call: Call, now_ns: int) -> bool:
        """Whether `call` can wait for a limit to let it through; where it is too late, says so."""
        if call.ready_ns <= now_ns or call.ready_ns < call.deadline_ns:
            return call.ready_ns > now_ns
        in_s = (call.ready_ns - now_ns) / 1e9
        why = f"the first that may be asked again is ready in {in_s:.1f} s"
        call.causes.append(("limits", Trouble(Fault.RATE_LIMIT, why)))
        return False

    def mirror(self, call: Call, now_ns: int) -> Attempt | None:
        """A copy of `call` to learn how another provider does, where that is allowed and wanted."""
        if not call.method.repeat or call.route or call.only:
            return None
        explore = self._rng.random() < self.policy.mirror_share
        for provider in self.providers:
            new = not provider.ewma[call.method.kind].us
            if not (provider.probation or explore or new) or provider in call.tried:
                continue
            if provider.terms.private or not provider.serves(call.method):
                continue
            if not self.ejection.wants_mirror(provider, now_ns) or provider.head < call.at_least:
                continue
            if not provider.can_afford(call.method, now_ns):
                continue
            copy = Call(call.method, call.params, only=provider)
            copy.wire = call.wire
            copy.deadline_ns = now_ns + self.policy.timeout_ms * _MS
            copy.done = True  # nobody waits for it
            attempt = self._attempt(copy, provider, now_ns)
            attempt.mirror = True
            provider.mirror_in_flight += 1
            provider.mirror_next_ns = now_ns + 200 * _MS
            provider.tally.mirrored += 1
            return attempt
        return None

    def _attempt(self, call: Call, provider: Provider, now_ns: int) -> Attempt:
        patience_ns, ceiling_ns = self._patience_ns(call, provider, now_ns)
        due_ns = min(now_ns + patience_ns, call.deadline_ns)
        attempt = Attempt(call, provider, now_ns, due_ns)
        attempt.trouble_ns = now_ns + ceiling_ns
        call.tried.append(provider)
        call.attempts.append(attempt)
        provider.in_flight += 1
        provider.asked_ns = now_ns
        provider.tally.sent += 1
        provider.spend(call.method)
        self._open[attempt] = None
        return attempt

    def _patience_ns(self, call: Call, provider: Provider, now_ns: int) -> tuple[int, int]:
        """When an attempt is late, and when at the latest another provider is asked.

        What is slow everywhere is not in trouble: the measure is what is usual for its kind. Where
        nothing is known, one more is asked soon, and further ones each four times as far away.
        """
        policy = self.policy
        if not call.method.repeat or call.only:
            return policy.timeout_ms * _MS, policy.timeout_ms * _MS
        kind = call.method.kind
        usual_us = provider.sketch[kind].quantile(policy.hedge_quantile, now_ns)
        if not call.bulk and not call.route:
            # One that has become slow is measured by what another would do, not by itself.
            quickest_us = self._usual_us(kind, now_ns)
            usual_us = min(usual_us or quickest_us, quickest_us or usual_us)
        late = sum(attempt.late for attempt in call.attempts)
        ceiling_ms = policy.hedge_ceiling_ms
        if not usual_us:
            ceiling_ms *= 4**late
            return int(ceiling_ms * _MS), int(ceiling_ms * _MS)
        if usual_us / 1000 > ceiling_ms:
            ceiling_ms = 1.5 * usual_us / 1000 * 2**late
        patience_ms = min(max(usual_us / 1000, policy.hedge_floor_ms), ceiling_ms)
        return int(patience_ms * _MS), int(ceiling_ms * _MS)

    def _usual_us(self, kind: Kind, now_ns: int) -> float:
        """The least of the public providers' hedging quantiles, worked out at most 20x/s."""
        usual_us, until_ns = self._usual[kind]
        if now_ns < until_ns:
            return usual_us
        known = (
            p.sketch[kind].quantile(self.policy.hedge_quantile, now_ns)
            for p in self.providers
            if p.connected and not p.terms.private and not self.ejection.is_out(p, now_ns)
        )
        usual_us = min((us for us in known if us), default=0.0)
        self._usual[kind] = usual_us, now_ns + 50 * _MS
        return usual_us

    # Choosing

    def _pick(self, call: Call, now_ns: int) -> Provider | None:
        if call.only:
            return None if call.only in call.tried else call.only
        method, route, floor = call.method, call.route, call.floor
        if floor >= 0 and now_ns >= call.floor_ns:
            floor = -1
        fresh = self.heads.newest - self.policy.max_lag
        usable = [
            p
            for p in self.providers
            if p.connected
            and not p.refused
            and not p.probation
            and p.out_until_ns <= now_ns
            and not p.doubtful
            and (p.head < 0 or p.head >= fresh)
            and p.terms.private == route
            and (call.at_least < 0 or p.head >= call.at_least)
            and p not in call.tried
            and p.serves(method)
            and p.can_afford(method, now_ns)
            and (p.archive or not call.archive)
        ]
        call.held = False
        call.ready_ns = 0
        if not usable:
            return self._last_resort(call, now_ns)
        if floor >= 0:
            knowing = [p for p in usable if p.head < 0 or p.head >= floor]
            self.wants_heads = self.wants_heads or len(knowing) < len(usable)
            if not knowing:
                call.held = True
                return None
            usable = knowing
        if len(usable) == 1:
            return usable[0]
        if call.bulk:
            return self.ranking.of_two(usable, method.kind)
        return self.ranking.argmin(usable, method.kind, now_ns)

    def _last_resort(self, call: Call, now_ns: int) -> Provider | None:
        """Nobody is well: the least bad of those that may be asked. The route always holds."""
        allowed = [
            p
            for p in self.providers
            if p not in call.tried and self._allowed(call, p, at_least=call.at_least)
        ]
        if not allowed:
            return None
        ready = [p for p in allowed if p.can_afford(call.method, now_ns)]
        if not ready:  # limits are kept, also where nobody else is there
            call.ready_ns = min(p.ready_ns(call.method, now_ns) for p in allowed)
            return None
        return min(
            ready,
            key=lambda p: (
                not p.connected,
                bool(p.doubtful),
                self.heads.behind(p),
                self.ejection.is_out(p, now_ns),
                self.ranking.unloaded(p, call.method.kind),
            ),
        )

    def order(self, method: Method, route: str, now_ns: int) -> list[Provider]:
        """Those of `route` that may be asked for `method`, the best first."""
        serving = (
            p
            for p in self.providers
            if p.connected and not p.refused and p.terms.private == route and p.serves(method)
        )
        return sorted(
            serving,
            key=lambda p: (
                self.ejection.is_out(p, now_ns) or bool(p.doubtful),
                now_ns < p.parked_until_ns or not p.can_afford(method, now_ns),
                self.heads.behind(p),
                self.ranking.unloaded(p, method.kind),
            ),
        )

    @staticmethod
    def _allowed(call: Call, p: Provider, *, at_least: int) -> bool:
        """What holds however badly things stand: route, chain, configured methods, block."""
        return (
            not p.refused
            and p.terms.private == call.route
            and p.may_serve(call.method)
            and (at_least < 0 or p.head >= at_least)
            and (p.archive or not call.archive)
        )

    def _why_none(self, call: Call) -> str:
        if call.route and not any(p.terms.private == call.route for p in self.providers):
            return f"no provider belongs to the private route {call.route!r}"
        reasons = []
        for p in self.providers:
            if p.terms.private != call.route:
                continue
            if p.refused:
                reasons.append(f"{p.name}: {p.refused}")
            elif not p.may_serve(call.method):
                reasons.append(f"{p.name} does not serve {call.method.name}")
            elif call.at_least >= 0 and p.head < call.at_least:
                reasons.append(f"{p.name} is at block {p.head}, {call.at_least} was asked for")
            elif call.archive and not p.archive:
                reasons.append(f"{p.name} is no archive")
        return "; ".join(reasons) or "no provider is configured for the public route"

    # What became of it

    def _close(self, attempt: Attempt) -> bool:
        """Forgets an open attempt; False when it was closed before."""
        if attempt.closed:
            return False
        attempt.closed = True
        del self._open[attempt]
        attempt.call.attempts.remove(attempt)
        attempt.provider.in_flight -= 1
        if attempt.mirror:
            attempt.provider.mirror_in_flight -= 1
        return True

    def answered(self, attempt: Attempt, now_ns: int) -> Sequence[Attempt]:
        """An answer came (an honest error is one). Returns the losers, to be cancelled."""
        if not self._close(attempt):
            return ()
        provider, call = attempt.provider, attempt.call
        was_silent, rested = provider.silent, provider.parkings
        provider.took(call.method.kind, (now_ns - attempt.sent_ns) / 1000, now_ns)
        if was_silent:
            self._recovered(provider, now_ns)
        if rested:  # the one that was let through has been answered
            for waiting in self._paused:
                if waiting.ready_ns:
                    waiting.resume_ns = now_ns
                    self.woken = True
        if call.only:  # a mirror, or a probe
            self.ejection.proved(provider, now_ns)
        call.done = True
        # A question at which all fail is to blame itself; at this one somebody did better.
        for suspect, trouble in call.suspects:
            if suspect is not provider:
                self._blame(suspect, trouble, now_ns)
        if not call.attempts:
            return ()
        losers = call.attempts[:]
        for loser in losers:
            self._close(loser)
            if loser.late and loser.sent_ns <= attempt.sent_ns:  # asked later, it might have won
                loser.provider.tally.hedged_away += 1
                trouble = Trouble(Fault.TIMEOUT, "another provider was faster")
                self._strike(loser.provider, trouble, now_ns)
        return losers

    def abandon(self, call: Call) -> Sequence[Attempt]:
        """The user no longer waits. Returns the attempts to cancel."""
        call.done = True
        self._paused.pop(call, None)
        open_attempts = call.attempts[:]
        for attempt in open_attempts:
            self._close(attempt)
        return open_attempts

    def failed(self, attempt: Attempt, trouble: Trouble, now_ns: int) -> Step:
        """An attempt failed with `trouble` that is the provider's own."""
        step = Step()
        if not self._close(attempt):
            return step
        provider, call = attempt.provider, attempt.call
        call.causes.append((provider.name, trouble))
        if trouble.fault is Fault.RATE_LIMIT:
            provider.tally.faults["rate-limit"] = provider.tally.faults.get("rate-limit", 0) + 1
            provider.last_trouble = f"rate-limit: {trouble.message}"
            name = call.method.name
            alone = name if name.lower() in trouble.message.lower() else ""
            self.ejection.park(provider, trouble.retry_after_ms, now_ns, method=alone)
            if provider in call.tried:
                call.tried.remove(provider)  # it was not tried: it may be, once it has rested
        elif trouble.fault is Fault.UNSUPPORTED:
            provider.does_not_serve(call.method)
        elif trouble.fault is Fault.PRUNED:
            # Not a sickness: it only does not keep everything. Who does is asked instead.
            provider.archive = False
            call.archive = self.prunes = True
        elif trouble.fault in (Fault.TOO_MUCH, Fault.UNSURE) or not trouble.counts:
            pass  # the next may give more, or say the like; nothing is wrong with this one
        elif call.only or not call.method.repeat:
            self._strike(provider, trouble, now_ns)
        else:
            provider.erred(trouble.fault, trouble.message)
            call.suspects.append((provider, trouble))
        if not call.done and not attempt.mirror:
            again = attempt.may_repeat(trouble)
            self._go_on(call, now_ns, step, again, held=not trouble.counts)
        return step

    def _strike(self, provider: Provider, trouble: Trouble, now_ns: int) -> None:
        provider.erred(trouble.fault, trouble.message)
        self._blame(provider, trouble, now_ns)

    def _blame(self, provider: Provider, trouble: Trouble, now_ns: int) -> None:
        provider.blame(trouble)
        self.ranking.unseat(provider)
        self.ejection.struck(provider, trouble.fault, now_ns)

    def _go_on(
        self, call: Call, now_ns: int, step: Step, may_repeat: bool = True, *, held: bool = False
    ) -> None:
        """`call` lost an attempt: the next provider, a pause, or the end.

        `held`: what came was well, but of before the block that it has to know.
        """
        agreed = sum(t.fault is Fault.UNSURE for _, t in call.causes) > 1
        if agreed:
            step.cancel += self.abandon(call)
        elif may_repeat and not call.only and now_ns < call.deadline_ns:
            provider = self._pick(call, now_ns)
            if provider is not None:
                self.failovers += 1
                step.send.append(self._attempt(call, provider, now_ns))
                return
            if call.attempts:
                return
            late = now_ns < call.ready_ns >= call.deadline_ns
            hopeless = late or all(t.fault in _HOPELESS for _, t in call.causes)
            held = held and now_ns < call.floor_ns
            waits = call.at_least >= 0 or call.held or held or self._rests(call, now_ns)
            if waits or (call.rounds + 1 < self.policy.rounds and not hopeless):
                self._pause(call, now_ns)
                return
        if not call.attempts:
            call.done = True
            step.failed.append((call, self._error(call)))

    @staticmethod
    def _error(call: Call) -> AllProvidersFailed:
        # Nonsense and gateways' errors are said of what was carried out as well.
        lost = (Fault.TRANSPORT, Fault.TIMEOUT, Fault.PROVIDER)
        unknown = any(t.fault in lost and not t.untouched for _, t in call.causes)
        if unknown and not call.method.repeat:
            hint = "it may have been carried out: look before it is sent again"
            return AllProvidersFailed(call.method.name, call.causes, hint=hint)
        return AllProvidersFailed(call.method.name, call.causes)

    def _pause(self, call: Call, now_ns: int) -> None:
        """Another round, after a breath; a call that waits for a block has as many as it needs."""
        pause_ms = min(self.policy.backoff_ms << min(call.rounds, 4), 500)
        if call.tried and call.rounds + 1 < self.policy.rounds:
            call.ready_ns = 0  # those who failed may do better before a limit lets others through
        if call.ready_ns > now_ns:  # to wait for a limit is no round
            call.resume_ns = min(call.ready_ns, call.deadline_ns)
        else:
            call.rounds += 1
            call.resume_ns = min(now_ns + pause_ms * _MS, call.deadline_ns)
        if now_ns < call.floor_ns:
            call.resume_ns = min(call.resume_ns, call.floor_ns)
        self._paused[call] = None

    def heads_moved(self, now_ns: int) -> bool:
        """Wakes the calls that wait for a provider to know a block; whether there are any."""
        waiting = [c for c in self._paused if c.at_least >= 0 or c.floor >= 0]
        for call in waiting:
            call.resume_ns = now_ns
        return bool(waiting)

    def stop(self) -> Step:
        """Fails every call, as when the client is closed."""
        step = Step()
        for call in list(dict.fromkeys([a.call for a in self._open] + list(self._paused))):
            waited_for = not call.done
            why = "closed before an answer came"
            if call.attempts and not call.method.repeat:
                why += "; it may have been carried out"
            step.cancel += self.abandon(call)
            if waited_for:
                call.causes.append(("this client", Trouble(Fault.TRANSPORT, why)))
                error = AllProvidersFailed(call.method.name, call.causes)
                step.failed.append((call, error))
        return step

    # Time

    def next_due_ns(self) -> int:
        """When `due` has to be asked, or a time that never comes."""
        soonest = min((a.due_ns for a in self._open), default=_NEVER)
        return min(soonest, min((c.resume_ns for c in self._paused), default=_NEVER))

    def due(self, now_ns: int) -> Step:
        """Hedges, fails over and gives up whatever is overdue at `now_ns`."""
        step = Step()
        for attempt in [a for a in self._open if a.due_ns <= now_ns]:
            if not attempt.closed:
                self._overdue(attempt, now_ns, step)
        for call in [c for c in self._paused if c.resume_ns <= now_ns]:
            del self._paused[call]
            if not call.ready_ns:  # it was a round, not a limit that was waited for
                call.tried.clear()
            self._go_on(call, now_ns, step)
        return step

    def _overdue(self, attempt: Attempt, now_ns: int, step: Step) -> None:
        call, provider = attempt.call, attempt.provider
        if now_ns >= call.deadline_ns:
            self._give_up(call, now_ns, step)
            return
        waited_ns = now_ns - attempt.sent_ns
        in_trouble = now_ns >= attempt.trouble_ns
        attempt.due_ns = call.deadline_ns
        if not in_trouble:
            attempt.due_ns = min(attempt.trouble_ns, call.deadline_ns)
        if not call.method.repeat or call.only:
            attempt.due_ns = call.deadline_ns
            return
        # One late answer is a tail, and hedging it is speculation. Several requests without a word
        # since the first of them was sent is a provider in trouble.
        unanswered = provider.in_flight + provider.strikes
        silent = unanswered >= self.policy.silent and provider.heard_ns < attempt.sent_ns
        in_trouble = in_trouble or silent or self.ejection.is_out(provider, now_ns)
        provider.overdue(call.method.kind, waited_ns / 1000, now_ns)
        provider.silent = provider.silent or silent
        if not in_trouble and self._allowance < 1.0:
            return  # the speculative share is spent; fail-over follows at the ceiling
        already_moved_on = attempt.late and not self._back(call)
        attempt.late = True
        if already_moved_on:
            return
        target = self._pick(call, now_ns)
        if target is None:
            if call.held:  # another may know the block in a moment
                attempt.late = False
                attempt.due_ns = min(attempt.due_ns, now_ns + _SOON_NS, call.floor_ns)
            return
        if in_trouble:
            self.failovers += 1
        else:
            self._allowance -= 1.0
            self.hedges += 1
            call.hedges += 1
        step.send.append(self._attempt(call, target, now_ns))

    @staticmethod
    def _back(call: Call) -> bool:
        """Whether some who were asked fell silent and are back: what they were sent is lost."""
        asked = {a.provider: a.sent_ns for a in call.attempts}
        back = [p for p in call.tried if p.recovered_ns > asked.get(p, 0) > 0]
        for provider in back:
            call.tried.remove(provider)
        return bool(back)

    def _recovered(self, provider: Provider, now_ns: int) -> None:
        """`provider` was silent and is back: those who still wait for anybody may ask it again."""
        for attempt in self._open:
            if attempt.late and provider in attempt.call.tried:
                attempt.due_ns = now_ns
                self.woken = True

    def _give_up(self, call: Call, now_ns: int, step: Step) -> None:
        for attempt in call.attempts[:]:
            self._close(attempt)
            waited_ms = (now_ns - attempt.sent_ns) // _MS
            trouble = Trouble(Fault.TIMEOUT, f"no answer within {waited_ms} ms")
            call.causes.append((attempt.provider.name, trouble))
            if attempt.provider.heard_ns < attempt.sent_ns:
                attempt.provider.silent = True
            self._strike(attempt.provider, trouble, now_ns)
            step.cancel.append(attempt)
        if call.done:
            return
        call.done = True
        step.failed.append((call, self._error(call)))
