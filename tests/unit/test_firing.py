"""Shots of the configuration: kept armed while the loop runs, or said to have expired."""

import pytest

from appliance.config import Amount, Shot
from appliance.desk import Desk
from appliance.firing import Standing
from barewire.execution.shots import Caps, ShotBook
from tests.unit.test_shots import Endpoint, fire

CAPS = Caps(per_second=10, total=10, total_value_wei=10, max_fee_wei=10)


@pytest.fixture
def standing(tmp_path):
    """A way to make shots that live for 4 s: the book, the desk, what tends them, what was said."""
    (tmp_path / "s.hex").write_text("aabb")
    now, said, out = [10**9], [], Endpoint()
    with ShotBook(CAPS, unjournalled=True) as book:
        desk = Desk(out, {"gateway": 3}, book, clock_mono_ns=lambda: now[0])

        def make(**more):
            shot = Shot("s", "gateway", "s.hex", 4000, **more)
            made = Standing([shot], tmp_path / "a.toml", desk, book, said.append)

            def run_until(until_s):
                while now[0] < until_s * 10**9:
                    now[0] += 10**8
                    made.tend(now[0])

            return book, desk, now, run_until, said, out

        yield make


def test_one_that_is_kept_armed_fires_after_an_hour_and_once(standing):
    book, _, now, run_until, said, out = standing(keep_armed=True, value=Amount(3))
    run_until(3600)
    assert fire(book, "s", out, now=now[0]) == "fired"
    run_until(3700)
    assert fire(book, "s", out, now=now[0]) == "already_fired"
    assert (out.sent, said) == ([(3, b"\xaa\xbb")], [])


def test_one_that_is_kept_armed_expires_when_nobody_tends_it(standing):
    book, _, now, run_until, _, out = standing(keep_armed=True)
    run_until(10)
    assert fire(book, "s", out, now=now[0] + 4 * 10**9) == "expired"


def test_an_expiry_is_said_once(standing):
    book, _, now, run_until, said, out = standing()
    run_until(4.9)
    assert said == []
    run_until(60)
    assert said == ["shot 's' has expired without having fired"]
    assert fire(book, "s", out, now=now[0]) == "expired"


def test_what_a_strategy_armed_anew_is_the_strategys(standing):
    book, desk, now, run_until, said, out = standing(keep_armed=True)
    run_until(2)
    assert desk.disarm("s")
    assert not desk.disarm("s")
    desk.arm("s", "gateway", b"for one block", expires_after_ms=1000)
    run_until(20)
    assert fire(book, "s", out, now=now[0]) == "expired"
    assert said == []
