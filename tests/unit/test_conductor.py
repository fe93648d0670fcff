"""Whatever a strategy does, the loop that called it goes on."""

import asyncio
import os
import queue
import signal
import time
from types import SimpleNamespace

import pytest

from appliance import strategy
from appliance.causes import Causes
from appliance.conductor import NEVER, Conductor
from appliance.desk import Desk
from appliance.heads import Heads
from barewire.feeds.blocks import Block
from barewire.mempool.record import Transaction
from dpdk_bindings.errors import Released


class Noted:
    """In the place of a MetricsWriter."""

    def __init__(self):
        self.errors = []

    def note(self, text):
        self.errors.append(text)

    def count(self, counter):
        pass

    def observe(self, histogram, ns):
        pass

    def turn(self, kind, now):
        pass


class Does:
    """A strategy that does what it is told."""

    def __init__(self, what, at_the_end=lambda: None):
        self.what = what
        self.calls = 0
        self.on_stop = at_the_end

    def on_match(self, match):
        self.calls += 1
        self.what(match)


def match():
    return SimpleNamespace(tx=Transaction(SimpleNamespace(nonce=7), b"raw"))


def conduct(*arguments, limit_ms=1000):
    halts, noted = [], Noted()
    conductor = Conductor(
        Does(*arguments), halt=lambda: halts.append(1), metrics=noted, limit_ms=limit_ms
    )
    return conductor, halts, noted


@pytest.mark.parametrize("kind", [SystemExit, asyncio.CancelledError, KeyboardInterrupt, OSError])
def test_nothing_that_it_raises_leaves(kind):
    def fail(_):
        raise kind

    conductor, halts, noted = conduct(fail)
    conductor.hand_over([match(), match()])
    assert (conductor.errors, len(halts), conductor.halted) == (2, 2, True)
    assert noted.errors[0].startswith(f"strategy: {kind.__name__} at test_conductor.py:")


@pytest.mark.parametrize("said", ["a file's name: \udc80", "0x" + "ab" * 1_000_000])
def test_whatever_an_error_says_can_be_written_with_the_statistics(said, tmp_path):
    def fail(_):
        raise ValueError(said)

    conductor, _, _ = conduct(fail)
    conductor.hand_over([match()])
    assert "ValueError: " in conductor.last_error
    written = Causes(tmp_path / "hot.causes", pytest.fail)
    written.write({"strategy": {"last_error": conductor.last_error}}, [], 1)
    assert (tmp_path / "hot.causes").stat().st_size < 50_000


def test_the_place_of_an_error_is_the_strategys_own_line():
    desk = Desk(None, {}, None)
    conductor, _, noted = conduct(lambda _: desk.send("nowhere", b""))
    conductor.hand_over([match()])
    assert noted.errors[0].startswith("strategy: BarewireError at test_conductor.py:")


def test_what_it_keeps_of_a_match_raises_behind_the_call():
    kept = []
    conductor, _, _ = conduct(lambda one: kept.append((one.tx, one.tx.nonce)))
    conductor.hand_over([match()])
    ((tx, nonce),) = kept
    assert (nonce, tx.raw) == (7, b"raw")
    with pytest.raises(Released, match="copy what is to be kept"):
        _ = tx.nonce


def test_a_handler_of_sigalrm_is_put_back():
    conductor, _, noted = conduct(lambda _: signal.signal(signal.SIGALRM, signal.SIG_DFL))
    before = signal.getsignal(signal.SIGALRM)
    with conductor:
        ours = signal.getsignal(signal.SIGALRM)
        conductor.hand_over([match(), match()])
        assert signal.getsignal(signal.SIGALRM) is ours
    assert signal.getsignal(signal.SIGALRM) is before
    assert noted.errors == ["strategy: it replaced the handler of SIGALRM, which was put back"] * 2


@pytest.mark.parametrize("leave", [lambda: None, lambda: exec("raise SystemExit(0)")])
def test_a_forked_child_does_not_come_back(leave, capfd):
    us, children = os.getpid(), []

    def fork(_):
        child = os.fork()
        if child:
            children.append(child)
        else:
            leave()

    conductor, halts, _ = conduct(fork)
    try:
        conductor.hand_over([match()])
    finally:
        if os.getpid() != us:
            os._exit(77)
    assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 1
    assert not halts
    assert "a child that the strategy forked came back" in capfd.readouterr().err


def test_an_alarm_at_the_end_of_a_call_is_not_heard_again():
    """The signal may come when the call has returned and that is not yet noted."""

    def late(_):
        conductor._began_ns -= 10**10  # so it is late, and the alarm that comes now says so

    conductor, _, _ = conduct(late, limit_ms=10)
    with conductor:
        signal.setitimer(signal.ITIMER_REAL, 0)
        conductor.hand_over([match()])
        assert conductor._began_ns == 0
        conductor._alarm()  # would raise in the middle of the loop


@pytest.mark.parametrize(
    ("end", "stalled", "errors"),
    [(lambda: time.sleep(30), True, 0), (lambda: exec("raise SystemExit(3)"), False, 1)],
)
def test_its_farewell_is_short_and_cannot_fail(monkeypatch, end, stalled, errors):
    monkeypatch.setattr("appliance.conductor._FAREWELL_NS", 50_000_000)
    conductor, _, _ = conduct(lambda _: None, end)
    conductor._limit_ns = 10_000_000
    began = time.monotonic()
    with conductor:
        conductor.stop()
    assert time.monotonic() - began < 20
    assert (conductor.stalled, conductor.errors) == (stalled, errors)


def test_a_strategys_file_takes_no_modules_name(tmp_path):
    (tmp_path / "queue.py").write_text("class Mine:\n    def on_match(self, match): ...\n")
    made = strategy.load("queue.py:Mine", str(tmp_path / "appliance.toml"))
    assert made.__name__ == "Mine"
    import queue as again

    assert again is queue


class Clocked:
    """A strategy with everything that may be called, which keeps what it was called with."""

    def __init__(self):
        self.seen = []

    def on_match(self, match):
        self.seen.append("match")

    def on_block(self, block):
        self.seen.append(block.number)

    def on_timer(self):
        self.seen.append("timer")


def block(number):
    return Block(number, number.to_bytes(32), bytes(32), 0)


def test_a_timer_leaves_out_what_it_missed_and_has_a_strategy_of_its_own():
    strategy = Clocked()
    conductor = Conductor(strategy, halt=lambda: None, timer_ms=10)
    assert conductor.timer_due_mono_ns == NEVER  # not before the loop runs
    conductor.start_timer(1_000_000)
    for now_ms, due_ms in ((11, 21), (22, 31), (99, 109)):
        assert conductor.timer_due_mono_ns <= now_ms * 1_000_000
        conductor.tick(now_ms * 1_000_000)
        assert conductor.timer_due_mono_ns == due_ms * 1_000_000
    assert strategy.seen == ["timer"] * 3
    without, _, _ = conduct(lambda _: None)
    without.start_timer(0)
    without.hand_block(block(1))
    assert (without.timer_due_mono_ns, without.follows_blocks) == (NEVER, False)


@pytest.mark.parametrize("what", ["on_timer", "on_block"])
def test_timers_and_blocks_are_held_to_the_limits_of_matches(what):
    strategy, noted, halts = Clocked(), Noted(), []
    mistakes = iter([lambda *_: 1 / 0, lambda *_: time.sleep(30)])
    setattr(strategy, what, lambda *given: next(mistakes)(*given))
    conductor = Conductor(
        strategy, halt=lambda: halts.append(1), metrics=noted, limit_ms=50, timer_ms=1
    )
    conductor.start_timer(0)
    call = {"on_timer": conductor.tick, "on_block": lambda now: conductor.hand_block(block(now))}
    with conductor:
        call[what](10_000_000)
        assert (conductor.errors, conductor.stalled, len(halts)) == (1, False, 1)
        call[what](20_000_000)
        assert (conductor.errors, conductor.stalled, len(halts)) == (1, True, 2)
        call[what](30_000_000)  # it is called no more
    assert noted.errors[0].startswith("strategy: ZeroDivisionError at test_conductor.py:")
    assert "took longer than 50 ms" in noted.errors[1]
    conductor.tick(40_000_000)
    assert conductor.timer_due_mono_ns == NEVER


def test_blocks_of_several_sources_come_once_and_not_without_end():
    now, seen = [0], []
    heads = Heads(lambda one: seen.append(one.number), clock_mono_ns=lambda: now[0])
    for source, number in ((0, 1), (0, 2), (1, 1), (1, 2), (1, 3), (1, 3)):
        heads(source, block(number))
    assert seen == [1, 2, 3]
    for number in range(4, 200):
        heads(0, block(number))
    assert (len(seen), heads.refused) == (64, 135)
    now[0] = 1_000_000_000
    heads(0, block(199))  # too many then, and told once more
    assert seen[-1] == 199
    now[0] = 2_000_000_000
    for number in range(200, 10_000):
        now[0] += 20_000_000
        heads(0, block(number))
        heads(1, block(number))
    assert heads.stats() == {"given": 65 + 9800, "repeated": 3 + 9800, "refused": 135}


def test_a_block_that_the_chain_comes_back_to_is_told_again_and_once():
    """By each source in its own time."""
    seen = []
    heads = Heads(lambda one: seen.append(one.number), clock_mono_ns=lambda: 0)
    told = [1, 2, 1, 3, 1]
    for number in told[:4]:
        heads(0, block(number))
    for number in told:
        heads(1, block(number))  # the last is news
    heads(0, block(1))
    heads(2, block(1))  # which came later
    assert seen == told
