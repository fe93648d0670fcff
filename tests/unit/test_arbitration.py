"""Who was first, by how much, who is silent, and when to connect again."""

import random

import pytest

from barewire.errors import BarewireError
from barewire.feeds.arbitration import Arbiter, Watch
from barewire.feeds.reconnect import BackOff, Reconnect
from barewire.mempool.dedup import Dedup

SECOND = 1_000_000_000


def hash_of(n: int) -> bytes:
    return random.Random(n).randbytes(32)


def arbiter(count: int = 3, **options) -> Arbiter:
    return Arbiter([f"s{n}" for n in range(count)], Dedup(entries=1 << 16), **options)


def test_a_random_race_against_a_model():
    rng = random.Random(1)
    race = arbiter(4)
    events = []
    for n in range(3000):
        start = n * 10_000
        for source in rng.sample(range(4), rng.randrange(1, 5)):
            for _ in range(rng.choice([1, 1, 1, 2])):
                events.append((start + rng.randrange(30_000), source, n))
    events.sort()
    first: dict[int, tuple[int, int]] = {}
    seen: dict[int, list[int]] = {}
    expected = [{"first": 0, "behind": 0, "repeated": 0, "lead": [], "lag": []} for _ in range(4)]
    for at, source, n in events:
        new = race.take(source, hash_of(n), at + 1, 1, now_mono_ns=at + 1)
        assert new == (n not in first)
        mine = expected[source]
        if new:
            first[n] = (at, source)
            seen[n] = [source]
            mine["first"] += 1
        elif source in seen[n]:
            mine["repeated"] += 1
        else:
            by = at - first[n][0]
            mine["behind"] += 1
            mine["lag"].append(by)
            if len(seen[n]) == 1:
                expected[first[n][1]]["lead"].append(by)
            seen[n].append(source)
    for report, mine in zip(race.report(), expected, strict=True):
        assert (report.first, report.behind, report.repeated) == (
            mine["first"],
            mine["behind"],
            mine["repeated"],
        )
        for values, exact in ((report.lead, mine["lead"]), (report.lag, mine["lag"])):
            exact.sort()
            assert (values.count, values.sum_ns, values.max_ns) == (
                len(exact),
                sum(exact),
                exact[-1],
            )
            assert values.quantiles_ns[0] == pytest.approx(exact[(len(exact) - 1) // 2], rel=0.01)


def test_a_copy_read_later_that_arrived_earlier():
    race = arbiter()
    assert race.take(0, hash_of(1), 1000, 1, now_mono_ns=2000)
    assert not race.take(1, hash_of(1), 400, 1, now_mono_ns=2001)
    zero, one, _ = race.report()
    assert (zero.first, zero.overtaken, zero.lag.sum_ns, zero.lead.count) == (1, 1, 600, 0)
    assert (one.behind, one.lead.sum_ns, one.lag.count) == (1, 600, 0)


def test_the_earliest_is_counted_by_arrival_and_not_by_the_order_of_reading():
    race = arbiter()
    assert race.take(0, hash_of(1), 1000, 1, now_mono_ns=2000)
    assert not race.take(1, hash_of(1), 400, 1, now_mono_ns=2001)
    assert not race.take(1, hash_of(1), 5, 1, now_mono_ns=2002)  # again: it was early once
    assert not race.take(2, hash_of(1), 300, 1, now_mono_ns=2003)
    assert race.take(2, hash_of(2), 1000, 1, now_mono_ns=3000)
    assert race.heard(0, hash_of(2), 900, 1, now_mono_ns=3001)
    assert not race.take(1, hash_of(2), 1, 2, now_mono_ns=3002)  # of another clock
    reports = race.report()
    assert [report.first for report in reports] == [1, 0, 1]
    assert [report.earliest for report in reports] == [1, 0, 1]
    assert [report.overtaken for report in reports] == [1, 1, 1]
    assert [report.lag.sum_ns for report in reports] == [600, 100, 100]


def test_clocks_that_differ_are_not_subtracted():
    race = arbiter()
    assert race.take(0, hash_of(1), 1000, 1, now_mono_ns=1)
    assert not race.take(1, hash_of(1), 5000, 2, now_mono_ns=2)
    zero, one, _ = race.report()
    assert (one.unlike_clocks, one.lag.count, zero.lead.count) == (1, 0, 0)


def test_what_came_from_a_pool_has_no_time():
    race = arbiter()
    assert race.take(0, hash_of(1), 1000, 1, now_mono_ns=1, filled=True)
    assert not race.take(1, hash_of(1), 5000, 1, now_mono_ns=2)
    assert race.take(1, hash_of(2), 1, 1, now_mono_ns=3)
    assert not race.take(0, hash_of(2), 9000, 1, now_mono_ns=4, filled=True)
    zero, one, _ = race.report()
    assert (zero.first, zero.filled, zero.last_mono_ns) == (0, 1, 0)
    assert (zero.lag.count, one.lag.count, one.lead.count) == (0, 0, 0)


def test_what_lies_in_a_pool_for_long_is_not_new_again():
    """Remembered for 600 s as an arrival, and longer for whom does not announce."""
    race = arbiter()
    assert race.take(0, hash_of(1), 1, 1, now_mono_ns=1)
    assert not race.take(0, hash_of(1), 1, 1, now_mono_ns=601 * SECOND, filled=True)
    assert race.take(0, hash_of(2), 1, 1, now_mono_ns=1)
    assert race.take(0, hash_of(2), 1, 1, now_mono_ns=601 * SECOND)  # announced anew


def test_what_is_read_again_and_again_does_not_either():
    race = arbiter()
    assert race.take(0, hash_of(1), 1, 1, now_mono_ns=1)
    assert not race.take(0, hash_of(1), 1, 1, now_mono_ns=601 * SECOND, filled=True)
    assert not race.take(0, hash_of(1), 1, 1, now_mono_ns=1200 * SECOND)


def test_what_waited_in_a_queue_is_new_once_more_when_it_is_announced():
    """The gap of nonces before it has just closed."""
    race = arbiter()
    assert race.take(0, hash_of(1), 1, 1, now_mono_ns=1, queued=True)
    assert not race.take(1, hash_of(1), 1, 1, now_mono_ns=2, queued=True)
    assert not race.heard(1, hash_of(1), 2, 1, now_mono_ns=3)  # so that it is fetched
    assert race.take(1, hash_of(1), 1000, 1, now_mono_ns=4)
    assert race.heard(2, hash_of(1), 1400, 1, now_mono_ns=5)
    assert not race.take(0, hash_of(1), 1500, 1, now_mono_ns=6)
    assert not race.take(0, hash_of(1), 1, 1, now_mono_ns=7, queued=True)
    assert not race.take(2, hash_of(1), 1600, 1, now_mono_ns=8)
    zero, one, two = race.report()
    assert (zero.filled, zero.first, zero.lag.sum_ns) == (1, 0, 500)
    assert (one.first, one.lead.sum_ns, two.lag.sum_ns) == (1, 400, 400)


def test_what_was_executable_in_a_pool_or_in_a_block_is_old():
    race = arbiter()
    assert race.take(0, hash_of(1), 1, 1, now_mono_ns=1, queued=True)
    assert not race.take(0, hash_of(1), 1, 1, now_mono_ns=2, filled=True)  # its gap had closed
    assert not race.take(0, hash_of(1), 1, 1, now_mono_ns=3)
    assert race.take(0, hash_of(2), 1, 1, now_mono_ns=4, filled=True)
    assert not race.take(0, hash_of(2), 1, 1, now_mono_ns=5, queued=True)
    assert not race.take(0, hash_of(2), 1, 1, now_mono_ns=6)


def test_what_is_gossiped_again_and_again_never_becomes_new():
    race = arbiter()
    assert race.take(0, hash_of(1), 1, 1, now_mono_ns=1)
    for minute in range(1, 60):
        assert not race.take(1, hash_of(1), 1, 1, now_mono_ns=minute * 60 * SECOND)


def test_a_hash_that_is_known_counts_as_brought_and_one_that_is_not_is_not_remembered():
    race = arbiter()
    assert race.take(0, hash_of(1), 1000, 1, now_mono_ns=1000)
    assert race.heard(1, hash_of(1), 1400, 1, now_mono_ns=1500)
    assert not race.heard(1, hash_of(2), 1600, 1, now_mono_ns=1700)
    assert race.take(1, hash_of(2), 1800, 1, now_mono_ns=1900)  # its transaction
    zero, one, _ = race.report()
    assert (zero.first, zero.lead.sum_ns) == (1, 400)
    assert (one.first, one.behind, one.lag.sum_ns, one.last_mono_ns) == (1, 1, 400, 1900)


def test_what_was_mined_in_a_hole():
    race = arbiter()
    race.take(0, hash_of(1), 1, 1, now_mono_ns=1)
    assert race.known(hash_of(1))
    assert race.mined([hash_of(1), hash_of(2), hash_of(3)]) == 2
    assert race.missed == 2


def feed(race: Arbiter, source: int, numbers: range, now: int, *, late: int = 0) -> None:
    for n in numbers:
        race.take(source, hash_of(n), now + late, 1, now_mono_ns=now)


def test_a_source_that_falls_silent_is_told_once():
    race = arbiter(watch=Watch(silent_ns=5 * SECOND, silent_after=10))
    for second in range(30):
        now = second * SECOND + 1
        numbers = range(second * 5, second * 5 + 5)
        feed(race, 0, numbers, now)
        if second < 10 or second > 20:
            feed(race, 1, numbers, now)
        feed(race, 2, numbers, now)
        troubles = race.watch(now)
        if second == 15:
            [trouble] = troubles
            assert (trouble.source, trouble.kind) == (1, "silent")
            assert trouble.detail == "nothing for 6.0 s, in which others brought 30"
        else:
            assert troubles == []


def test_quiet_everywhere_is_no_silence():
    race = arbiter(watch=Watch(silent_ns=5 * SECOND, silent_after=10))
    for second in range(60):
        assert race.watch(second * SECOND) == []


def test_a_source_that_falls_behind():
    race = arbiter(watch=Watch(window_ns=10 * SECOND, window_least=50, lag_ns=SECOND))
    told = []
    for second in range(45):
        now = second * SECOND + 1
        numbers = range(second * 10, second * 10 + 10)
        feed(race, 0, numbers, now)
        feed(race, 1, numbers[: 3 if 10 <= second < 20 else 10], now)
        feed(race, 2, numbers, now, late=3 * SECOND if 30 <= second < 40 else 0)
        told += [(second, t.source, t.kind, t.detail) for t in race.watch(now)]
    assert told == [
        (20, 1, "behind", told[0][3]),
        (40, 2, "behind", told[1][3]),
    ]
    assert "of 100 new" in told[0][3]
    assert "ms later than the first" in told[1][3]


def test_a_source_whose_new_connections_mend_nothing_is_given_more_time():
    """It is what it is: cut after 1, 2, 4, 8 windows and so on, until one is good."""
    race = arbiter(watch=Watch(window_ns=10 * SECOND, window_least=50))
    told = []
    for second in range(400):
        now = second * SECOND + 1
        numbers = range(second * 10, second * 10 + 10)
        feed(race, 0, numbers, now)
        feed(race, 1, numbers[: 10 if 310 <= second < 350 else 3], now)
        feed(race, 2, numbers, now)
        told += [second for trouble in race.watch(now) if trouble.source == 1]
    assert told == [10, 20, 40, 80, 160, 360, 370, 390]


def test_numbers_of_sources():
    for count in (0, 65):
        with pytest.raises(BarewireError, match="sources"):
            arbiter(count)


def test_pauses_double_up_to_a_limit_and_are_never_in_step():
    again = Reconnect(random.Random(3), BackOff(first_ns=100, longest_ns=2000))
    now = 0
    assert again.due(now)
    pauses = []
    for _ in range(9):
        again.began(now)
        assert not again.due(now + 10**12)
        again.failed(now)
        due = again.due_mono_ns
        pauses.append(due - now)
        assert not again.due(due - 1)
        now = due
    for pause, most in zip(pauses, [100, 200, 400, 800, 1600, 2000, 2000, 2000], strict=False):
        assert most // 2 <= pause <= most
    assert len(set(pauses[5:])) > 1


def test_who_asks_to_be_left_alone_is():
    again = Reconnect(random.Random(3), BackOff(first_ns=100, longest_ns=2000))
    again.began(0)
    again.failed(0, 60_000)
    assert again.due_mono_ns == 60_000
    again.began(60_000)
    again.failed(60_000, 1)  # less than the pause that is due anyhow
    assert 60_100 <= again.due_mono_ns <= 60_200


def test_what_worked_for_a_while_is_tried_again_at_once():
    again = Reconnect(random.Random(3), BackOff(first_ns=100, stable_ns=50))
    again.began(0)
    again.live(10)
    again.live(1000)
    again.failed(59)
    assert not again.due(59)
    again.began(200)
    again.live(200)
    again.failed(250)
    assert again.due(250)
    assert again.failures == 1
    again.began(250)
    again.failed(250)
    assert not again.due(250)
