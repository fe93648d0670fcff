"""Ranking, hedging, fail-over and ejection on a simulated clock."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barewire.rpc.faults import AllProvidersFailed, Fault, Trouble
from barewire.rpc.methods import lookup
from barewire.rpc.policy import Policy
from barewire.rpc.pool import Call
from barewire.rpc.provider import Terms
from tests.examples import examples
from tests.unit.rpc_sim import MS, World, failing, hang, steady


def healthy(n: int = 5, ms: float = 1.0) -> list:
    return [steady(ms + i * ms) for i in range(n)]


def test_the_fastest_is_chosen_and_keeps_its_place():
    world = World(healthy())
    world.load(200, 5)
    assert world.chosen.count("p0") > 0.95 * len(world.chosen)
    assert not world.failures


@pytest.mark.parametrize(
    "bad",
    [
        hang,
        failing(Fault.TRANSPORT),
        failing(Fault.PROVIDER),
        failing(Fault.RATE_LIMIT),
        failing(Fault.STALE),
        steady(300.0),
    ],
    ids=["hang", "reset", "500", "429", "stale", "slow"],
)
def test_the_best_provider_at_fault_loses_nothing(bad):
    world = World(healthy())
    world.load(200, 3)
    world.latencies.clear()
    world.behaviours[0] = bad
    world.load(200, 30)
    assert not world.failures
    assert len(world.latencies) >= 200 * 30 - 1
    ordered = sorted(world.latencies)
    assert ordered[-1] < 500
    assert ordered[int(len(ordered) * 0.99)] <= 2 * 1.0 + 25


def test_one_that_has_become_slow_is_not_measured_by_itself():
    world = World(healthy(), policy=Policy(strikes=1_000))  # never ejected
    world.load(200, 3)
    world.behaviours[0] = steady(300)
    world.load(200, 20)  # by now its own quantile is far above the ceiling
    world.latencies.clear()
    world.load(200, 60)
    ordered = sorted(world.latencies)
    assert ordered[-1] < 270
    assert ordered[int(len(ordered) * 0.99)] < 30


def test_silence_is_trouble_even_where_no_speculation_is_allowed():
    world = World(healthy(), policy=Policy(hedge_share=0.0))
    world.load(200, 3)
    world.latencies.clear()
    world.behaviours[0] = hang
    world.load(200, 10)
    assert not world.failures
    assert world.pool.hedges <= 1
    assert max(world.latencies) < 50  # the ceiling is 250


def test_three_of_five_hang():
    world = World(healthy())
    world.load(200, 2)
    for index in range(3):
        world.behaviours[index] = hang
    world.load(200, 20)
    world.run(5_000)
    assert not world.failures
    assert max(world.latencies) < 1_000


def test_all_hang_and_the_call_says_who_did_what():
    world = World([hang] * 3)
    world.call()
    world.run(20_000)
    (error,) = world.failures
    assert isinstance(error, AllProvidersFailed)
    assert {name for name, _ in error.causes} == {"p0", "p1", "p2"}
    assert all(not p.in_flight for p in world.providers)


def test_a_provider_that_recovers_returns_through_mirrored_traffic():
    world = World(healthy())
    world.load(200, 2)
    world.behaviours[0] = failing(Fault.PROVIDER)
    world.load(200, 3)
    assert world.pool.ejection.is_out(world.providers[0], world.now)
    world.behaviours[0] = steady(1.0)
    world.chosen.clear()
    world.load(200, 20)
    assert not world.pool.ejection.is_out(world.providers[0], world.now)
    assert world.providers[0].tally.mirrored >= 3
    assert world.chosen[-100:].count("p0") == 100


def test_a_sick_provider_sees_only_mirrors_and_is_put_out_for_longer_each_time():
    world = World(healthy())
    world.load(100, 1)
    world.behaviours[0] = failing(Fault.PROVIDER)
    world.load(100, 60)
    sick = world.providers[0]
    assert sick.ejections >= 3
    assert sick.tally.sent - sick.tally.answered < 20
    assert world.pool.ejection.is_out(sick, world.now)


@pytest.mark.parametrize(
    "method",
    [
        "eth_sendTransaction",
        "pm_getPaymasterData",
        "eth_sendUserOperation",
        "eth_newFilter",
        "eth_getFilterChanges",
        "made_up",
    ],
)
@pytest.mark.parametrize("bad", [hang, failing(Fault.TRANSPORT), failing(Fault.PROVIDER)])
def test_what_may_not_be_repeated_goes_out_once(method, bad):
    world = World([bad] * 3)
    world.call(method)
    world.run(20_000)
    assert len(world.sent) == 1
    assert len(world.failures) == 1


@pytest.mark.parametrize("bad", [hang, failing(Fault.TRANSPORT), failing(Fault.RATE_LIMIT)])
def test_private_requests_never_leave_their_route(bad):
    terms = [Terms("a"), Terms("b", private="builders"), Terms("c"), Terms("d", private="builders")]
    world = World(
        [steady(1), bad, steady(1), steady(5)], terms=terms, policy=Policy(mirror_share=1)
    )
    for _ in range(50):
        world.call("eth_getTransactionReceipt", route="builders")
        world.run(100)
    assert {a.provider.name for a in world.sent} <= {"b", "d"}
    assert not world.failures
    before = len(world.sent)
    for _ in range(50):
        world.call("eth_getTransactionReceipt")
        world.run(100)
    assert {a.provider.name for a in world.sent[before:]} <= {"a", "c"}


def test_a_route_without_providers_is_refused_by_name():
    world = World(healthy(2))
    with pytest.raises(AllProvidersFailed) as caught:
        world.call(route="flashbots")
    assert "flashbots" in caught.value.hint


def test_a_provider_behind_the_head_is_left_out_and_a_liar_does_not_throw_the_others_out():
    world = World(healthy())
    heads, (p0, p1, p2, p3, p4) = world.pool.heads, world.providers
    for provider in (p1, p2, p3, p4):
        heads.saw(provider, 100, world.now)
    heads.saw(p0, 90, world.now)
    world.load(100, 1)
    assert "p0" not in world.chosen
    heads.saw(p0, 5_000, world.now)
    assert heads.newest == 100
    assert "ahead of everyone" in p0.doubtful
    world.load(100, 1)
    assert "p0" not in world.chosen
    heads.saw(p0, 100, world.now)
    assert not p0.doubtful


@pytest.mark.parametrize("order", list(itertools.permutations([10**9, 5 * 10**8, 100, 100])))
def test_liars_are_found_out_whoever_is_heard_first(order):
    world = World(healthy(4))
    for provider, head in zip(world.providers, order, strict=True):
        world.pool.heads.saw(provider, head, world.now)
    assert world.pool.heads.newest == 100
    assert [bool(p.doubtful) for p in world.providers] == [head > 100 for head in order]


@pytest.mark.parametrize("order", [(5, 1_000), (1_000, 5)])
def test_of_two_the_one_that_is_still_catching_up_is_left_out(order):
    world = World(healthy(2))
    for provider, head in zip(world.providers, order, strict=True):
        world.pool.heads.saw(provider, head, world.now)
    assert world.pool.heads.newest == 1_000
    assert [world.pool.heads.behind(p) for p in world.providers] == [h == 5 for h in order]


def test_heads_advance_with_time_even_when_one_provider_sees_them_alone():
    world = World(healthy(2), policy=Policy(block_time_ms=1_000))
    heads, (p0, p1) = world.pool.heads, world.providers
    heads.saw(p0, 100, world.now)
    heads.saw(p1, 100, world.now)
    for number in range(101, 200):
        world.run(1_000)
        heads.saw(p0, number, world.now)
    assert heads.newest == 199
    assert heads.behind(p1)


def test_at_least_asks_only_who_knows_the_block():
    world = World(healthy(3), policy=Policy(max_lag=5))
    for provider, head in zip(world.providers, (100, 101, 102), strict=True):
        world.pool.heads.saw(provider, head, world.now)
    world.call(at_least=102)
    world.run(10)
    assert world.chosen == ["p2"]
    world.call(at_least=103)
    world.run(700)
    assert len([a for a in world.sent if not a.mirror]) == 1  # nobody is there yet: the call waits
    world.pool.heads.saw(world.providers[1], 103, world.now)
    world.run(700)
    assert world.chosen == ["p2", "p1"]
    world.call(at_least=110)
    world.run(11_000)
    assert len(world.failures) == 1


def test_rate_limits_are_kept():
    terms = [Terms("a", requests_per_s=50), Terms("b")]
    world = World([steady(1), steady(20)], terms=terms)
    world.load(200, 10)
    assert world.providers[0].tally.sent <= 50 * 10 + 55
    assert world.providers[0].tally.sent >= 50 * 9


def test_compute_units_are_kept():
    terms = [Terms("a", units_per_s=260), Terms("b")]  # ten eth_calls of 26
    world = World([steady(1), steady(20)], terms=terms)
    world.load(50, 10)
    assert 90 <= world.providers[0].tally.sent <= 10 * 10 + 11


def test_weight_and_priority_count_beside_latency():
    world = World(
        [steady(2), steady(3), steady(4)], terms=[Terms("a", priority=4), Terms("b"), Terms("c")]
    )
    world.load(100, 3)
    assert world.chosen[-100:].count("b") == 100
    world = World([steady(2), steady(3)], terms=[Terms("a"), Terms("b", weight=4.0)])
    world.load(100, 3)
    assert world.chosen[-100:].count("b") == 100


def test_old_states_are_asked_of_archives():
    terms = [Terms("pruned", archive=False), Terms("archive")]
    world = World([steady(1), steady(20)], terms=terms)
    world.load(50, 1)
    world.chosen.clear()
    world.load(50, 1, archive=True)
    assert set(world.chosen) == {"archive"}
    world.chosen.clear()
    world.load(50, 1)
    assert set(world.chosen) == {"pruned"}


def test_who_turns_out_to_be_no_archive_is_not_punished_for_it():
    world = World([steady(1), steady(20)])
    world.load(50, 1)
    world.behaviours[0] = failing(Fault.PRUNED)
    world.call()
    world.run(100)
    assert world.chosen[-1] == "p1"
    assert not world.providers[0].archive
    assert not world.providers[0].strikes
    world.behaviours[0] = steady(1)
    world.load(50, 1)
    assert world.chosen[-40:].count("p0") == 40


def test_without_traffic_a_probe_brings_an_ejected_provider_back():
    world = World(healthy(2))
    world.load(100, 1)
    sick = world.providers[0]
    world.behaviours[0] = failing(Fault.PROVIDER)
    world.load(100, 0.1)
    assert world.pool.ejection.is_out(sick, world.now)
    world.behaviours[0] = steady(1)
    for _ in range(4):  # the health check's question, every five seconds
        world.run(5_000)
        world.call("eth_getBlockByNumber", only=sick)
        world.run(100)
    assert not world.pool.ejection.is_out(sick, world.now)


def test_heavy_questions_put_nobody_out():
    """All need two seconds; who was asked later and loses to the first is not slower than it."""
    world = World([steady(2_000)] * 4, policy=Policy(mirror_share=0.0))
    for _ in range(10):
        world.call("debug_traceTransaction")
        world.run(5_000)
    assert not world.failures
    assert [p.ejections for p in world.providers] == [0] * 4


def test_one_lost_connection_is_one_failure_however_many_calls_were_on_it():
    world = World([hang, steady(5), steady(5)], policy=Policy(mirror_share=0.0))
    world.providers[0].ewma[lookup("eth_call").kind].observe(1, world.now)
    world.call()
    first = world.sent[0]
    attempts = [
        first,
        *(
            world.pool._attempt(Call(first.call.method, []), first.provider, world.now)
            for _ in range(9)
        ),
    ]
    lost = Trouble(Fault.TRANSPORT, "the connection was lost")
    for attempt in attempts:
        world.step(world.pool.failed(attempt, lost, world.now))
    world.run(1_000)
    assert world.providers[0].strikes == 1
    assert world.providers[0].tally.faults == {"transport": 10}
    assert not world.pool.ejection.is_out(world.providers[0], world.now)


def test_method_not_found_is_remembered():
    world = World([failing(Fault.UNSUPPORTED), steady(2)])
    world.load(50, 1, "debug_traceTransaction")
    assert world.providers[0].tally.sent == 1
    assert not world.pool.ejection.is_out(world.providers[0], world.now)
    assert not world.failures


def test_an_abandoned_call_leaves_nothing_in_flight():
    world = World([hang, hang])
    call = world.call()
    world.run(300)
    assert len(world.pool.abandon(call)) == 2
    world.run(20_000)
    assert not world.failures
    assert [p.in_flight for p in world.providers] == [0, 0]


# Properties


@examples(6, 100)
@given(
    plans=st.lists(
        st.lists(
            st.sampled_from(["ok", "slow", "hang", "reset", "429", "stale"]),
            min_size=6,
            max_size=6,
        ),
        min_size=1,
        max_size=5,
    ),
    seed=st.integers(0, 1000),
)
def test_whatever_happens_one_provider_stays_in_and_the_books_balance(plans, seed):
    kinds = {
        "ok": steady(1),
        "slow": steady(400),
        "hang": hang,
        "reset": failing(Fault.TRANSPORT),
        "429": failing(Fault.RATE_LIMIT),
        "stale": failing(Fault.STALE),
    }
    world = World([steady(1)] * len(plans), seed=seed)
    for phase in range(6):
        for index, plan in enumerate(plans):
            world.behaviours[index] = kinds[plan[phase]]
        world.load(50, 2)
    world.run(30_000)
    assert world.fewest >= 1
    assert all(p.in_flight == 0 for p in world.providers)
    assert len(world.latencies) + len(world.failures) == 6 * 100
    if any("ok" not in {plan[phase] for plan in plans} for phase in range(6)):
        return
    assert not world.failures


@examples(6, 100)
@given(
    share=st.floats(0.0, 0.3),
    tail=st.floats(0.0, 0.5),
    seed=st.integers(0, 1000),
)
def test_speculative_hedges_stay_within_their_share(share, tail, seed):
    rng = random.Random(seed)

    def moody(_now: int) -> tuple[float, None]:
        return (rng.uniform(30, 240) if rng.random() < tail else 1.0), None

    world = World([moody] * 4, policy=Policy(hedge_share=share), seed=seed)
    world.load(100, 10)
    world.run(5_000)
    assert world.pool.hedges <= share * world.pool.calls + 1
    assert not world.failures


@examples(10, 100)
@given(
    usual=st.floats(0.1, 400),
    floor=st.floats(1, 50),
    stretch=st.floats(1, 10),
    seed=st.integers(0, 1000),
)
def test_nobody_is_asked_before_the_floor_and_somebody_is_at_the_ceiling(
    usual, floor, stretch, seed
):
    policy = Policy(hedge_floor_ms=floor, hedge_ceiling_ms=floor * stretch)
    world = World([steady(usual)] * 3, policy=policy, seed=seed)
    world.load(20, 3)
    world.sent.clear()
    world.behaviours = [hang] * 3
    call = world.call()
    ceiling = policy.hedge_ceiling_ms
    if usual * 1.05 > ceiling:  # slow everywhere: what is usual is the measure
        ceiling = usual * 1.5 * 1.05 * 2
    world.run(ceiling * 2.5)
    mine = [a.sent_ns / 1e6 for a in world.sent if a.call is call]
    for before, after in itertools.pairwise(mine):
        assert max(floor, min(usual * 0.95, ceiling)) - 0.001 <= after - before <= ceiling + 0.001
    assert len(mine) == 3


@examples(6, 100)
@given(slow=st.floats(300, 4_000), seed=st.integers(0, 1000))
def test_what_is_slow_everywhere_is_not_asked_of_everybody(slow, seed):
    behaviours = [steady(slow * (1 + i / 20)) for i in range(5)]
    world = World(behaviours, policy=Policy(mirror_share=0.0), seed=seed)
    for _ in range(12):
        world.call("debug_traceTransaction")
        world.run(slow * 1.5)
    own = [a for a in world.sent if not a.mirror]
    assert len(own) <= 12 + 3 + 2  # the first, which nothing is known of; a tenth of the rest
    assert len(world.latencies) == 12
    assert all(p.state(world.now) == "up" for p in world.providers)


def test_calls_that_an_outage_swallowed_are_asked_again_of_who_comes_back():
    world = World([steady(2)] * 3, policy=Policy(mirror_share=0.0))
    world.load(50, 2)
    world.behaviours = [hang] * 3
    for _ in range(5):
        world.call()
    world.run(3_000)
    assert not world.failures
    world.behaviours[1] = steady(2)
    probe = Call(lookup("eth_getBlockByNumber"), [], only=world.providers[1])  # a health check
    probe.waiter = world.now
    world.send(world.pool.start(probe, world.now))
    before = len(world.latencies)
    world.run(1_000)
    assert len(world.latencies) - before == 5 + 1
    assert not world.failures


def test_limits_are_kept_where_nobody_else_is():
    world = World([steady(2)], terms=[Terms("a", requests_per_s=10.0)])
    for _ in range(50):
        world.call()
    world.run(9_000)
    assert len(world.latencies) == 50
    sent = sorted(a.sent_ns for a in world.sent)
    for first, eleventh in zip(sent, sent[20:], strict=False):
        assert eleventh - first >= 950 * MS  # a second's worth at once, then ten a second
    for _ in range(200):
        world.call()
    world.run(20_000)
    assert 95 <= len(world.latencies) - 50 <= 115  # the others could not wait so long
    assert all("ready in" in str(failure) for failure in world.failures)


def test_who_asked_to_be_left_alone_is_and_is_asked_one_thing_first():
    told: list[int] = []

    def limited(now: int) -> tuple[float, Fault | None]:
        told.append(now)
        return 1.0, Fault.RATE_LIMIT if len(told) < 3 else None

    world = World([limited], policy=Policy(park_ms=1_000, mirror_share=0.0))
    for _ in range(20):
        world.call()
        world.run(10)
    world.run(9_000)
    assert [round((b - a) / 1e9) for a, b in itertools.pairwise(told[:3])] == [1, 2]
    assert len(told) == 22
    assert len(world.latencies) == 20


def test_a_limit_of_one_method_leaves_the_others():
    world = World([steady(2)], policy=Policy(mirror_share=0.0))
    provider = world.providers[0]
    world.pool.ejection.park(provider, 2_000, world.now, method="eth_getLogs")
    world.call("eth_getLogs")
    world.call("eth_call")
    world.run(1_000)
    assert [a.call.method.name for a in world.sent] == ["eth_call"]
    world.run(2_000)
    assert len(world.latencies) == 2


@examples(4, 100)
@given(spread=st.floats(0.05, 0.8), spikes=st.floats(0, 0.01), seed=st.integers(0, 1000))
def test_noise_does_not_make_traffic_flap(spread, spikes, seed):
    rng = random.Random(seed)

    def noisy(_now: int) -> tuple[float, None]:
        spike = 10 if rng.random() < spikes else 1
        return rng.lognormvariate(0, spread) * spike, None

    world = World([noisy] * 5, seed=seed)
    world.load(100, 30)
    assert world.pool.ranking.switches <= 31  # never more than the dwell of a second allows
    assert not world.failures


@examples(6, 100)
@given(seed=st.integers(0, 1000))
def test_the_bulk_lane_spreads(seed):
    world = World([steady(5)] * 5, seed=seed)
    for _ in range(200):
        world.call(bulk=True)
    world.run(1_000)
    shares = [p.tally.sent for p in world.providers]
    assert min(shares) > 20
    assert max(shares) < 80
