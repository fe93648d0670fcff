"""Whatever a strategy does, the loop that called it goes on."""

import asyncio
import os
import queue
import signal
import time
from types import SimpleNamespace

import pytest

from appliance import strategy
from appliance.conductor import Conductor
from appliance.desk import Desk
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
