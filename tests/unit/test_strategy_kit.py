"""Strategies replayed without a network, and how they are found and held to their limits."""

from __future__ import annotations

import importlib.metadata
import signal
import struct
import time
from pathlib import Path

import pytest
import sha3
from scapy.all import IP, UDP, Ether, wrpcap

from appliance import config
from appliance.conductor import Conductor
from appliance.demo.traffic import WATCHED, build
from appliance.strategy import load
from appliance.strategy_kit import replay
from barewire.errors import BarewireError, ConfigError
from barewire.execution.shots import Caps
from barewire.feeds.blocks import Block
from barewire.feeds.envelope import to_messages
from barewire.mempool.record import Transaction

ROOT = Path(__file__).resolve().parents[2]
NAME, TO = next(iter(WATCHED.items()))
TRIGGER = {"name": "watched", "to": [TO], "shot": "answer"}


@pytest.fixture(scope="module")
def traffic():
    return [(10**18 + i * 10**6, raw) for i, raw in enumerate(build(600, 3, lambda _: None))]


@pytest.fixture(scope="module")
def watched(traffic):
    """Hashes (pysha3) of those that call the watched contract, found by their bytes."""
    address = bytes.fromhex(TO[2:])
    return [sha3.keccak_256(raw).digest() for _, raw in traffic if b"\x94" + address in raw]


class Arms:
    def __init__(self, actions, options):
        self.actions, self.options, self.times = actions, options, []
        self.outcomes = []
        self.arm()

    def arm(self):
        self.actions.arm("answer", "gateway", b"bang", expires_after_ms=self.options["keep_ms"])

    def on_match(self, match):
        self.outcomes.append(match.outcome)
        self.times.append(self.actions.now_mono_ns())
        if match.outcome == "fired":
            self.arm()
        self.actions.send("monitor", b"saw " + match.tx.hash)

    def on_stop(self):
        self.stopped = True


def test_shots_and_sends_in_order_with_their_causes(traffic, watched):
    seen = replay(
        Arms,
        traffic,
        triggers=[TRIGGER],
        options={"keep_ms": 1000},
        destinations=["gateway", "monitor"],
    )
    assert watched
    assert seen.transactions == len(traffic)
    assert seen.matched == len(watched)
    assert [(s.destination, s.payload, s.cause, s.shot) for s in seen.sent] == [
        one
        for cause in watched
        for one in (
            ("gateway", b"bang", cause, "answer"),
            ("monitor", b"saw " + cause, cause, None),
        )
    ]
    at = {sha3.keccak_256(raw).digest(): at_ns for at_ns, raw in traffic}
    assert all(sent.at_ns == at[sent.cause] for sent in seen.sent)
    assert seen.strategy.times == [at[cause] for cause in watched]
    assert seen.strategy.stopped
    assert (seen.errors, seen.stalled, seen.outcomes) == (0, False, {"fired": len(watched)})


def test_expiry_trust_and_caps_are_those_of_the_capture(traffic, watched):
    seen = replay(
        Arms,
        [(10**18 + (at - 10**18) * 10, raw) for at, raw in traffic],
        triggers=[TRIGGER],
        options={"keep_ms": 1},
        destinations=["gateway", "monitor"],
    )
    # Armed at the first envelope's time, for a tenth of the time between two.
    assert set(seen.strategy.outcomes) == {"expired"}
    caps = Caps(per_second=10, total=3, total_value_wei=0, max_fee_wei=0)
    seen = replay(
        Arms,
        traffic,
        triggers=[TRIGGER],
        options={"keep_ms": 10**6},
        destinations=["gateway", "monitor"],
        caps=caps,
    )
    # Shots and the strategy's own sends are counted together.
    assert [s.shot for s in seen.sent] == ["answer", None, "answer"]
    assert seen.outcomes["cap_total"] > 0
    assert seen.not_sent == {"cap_total": len(watched) - 1}


def test_a_capture_of_a_feed(tmp_path, traffic, watched):
    """A pcap written by scapy: MoldUDP64, two lines, times kept."""
    frames, sequence = [], 1
    for at_ns, raw in traffic:
        messages = to_messages(raw, 1450, sequence)
        for message in messages:
            packet = b"SESSION   " + struct.pack(">QH", sequence, 1)
            packet += struct.pack(">H", len(message)) + message
            sequence += 1
            for port in (9001, 9002):
                frame = Ether() / IP(dst="239.0.0.1") / UDP(sport=1, dport=port) / packet
                frame.time = at_ns / 10**9
                frames.append(frame)
    wrpcap(str(tmp_path / "feed.pcap"), frames)
    seen = replay(
        Arms,
        tmp_path / "feed.pcap",
        triggers=[TRIGGER],
        options={"keep_ms": 10**6},
        destinations=["gateway", "monitor"],
    )
    assert [s.cause for s in seen.sent if s.shot] == watched
    assert seen.transactions == len(traffic)
    assert abs(seen.sent[0].at_ns - 10**18) < 10**9
    with pytest.raises(BarewireError):
        replay(Arms, tmp_path / "feed.pcap", triggers=[{"name": "x", "too": []}])


class Raises(Arms):
    def on_match(self, match):
        super().on_match(match)
        if len(self.times) == 3:
            raise LookupError("the strategy's own mistake")


def test_an_exception_stops_sending_and_not_receiving(traffic, watched):
    seen = replay(
        Raises,
        traffic,
        triggers=[TRIGGER],
        options={"keep_ms": 1000},
        destinations=["gateway", "monitor"],
    )
    assert seen.transactions == len(traffic)
    assert seen.errors == 1
    assert "the strategy's own mistake" in seen.last_error
    assert [s.cause for s in seen.sent] == [c for c in watched[:3] for _ in range(2)]
    assert seen.outcomes == {"fired": 3, "halted": len(watched) - 3}
    assert len(seen.strategy.times) == len(watched)


def test_the_example_does_what_it_says(traffic):
    example = config.load(ROOT / "examples/strategy.toml")
    assert example.strategy is not None
    made = load(example.strategy.load, str(ROOT / "examples/strategy.toml"))
    seen = replay(
        made,
        traffic,
        triggers=[{"name": "all", "shot": "answer"}],
        options=example.strategy.options | {"limit_wei": 10**18},
        destinations=["gateway", "monitor"],
    )
    assert seen.errors == 0
    fired = [sent for sent in seen.sent if sent.shot == "answer"]
    assert len(fired) == len(traffic)
    assert {sent.payload for sent in fired} == {b"an answer"}
    told = [sent for sent in seen.sent if sent.shot is None]
    assert all(sent.payload == sent.cause for sent in told)


def test_the_example_is_armed_for_the_next_swap_whenever_it_comes(traffic):
    """Its answer lives for 12 s: neither a quiet hour nor a new block leaves it without."""
    made = load("strategy.py:Answer", str(ROOT / "examples/strategy.toml"))
    hour_ns, at_ns = 3600 * 10**9, traffic[0][0]
    seen = replay(
        made,
        [(at_ns, traffic[0][1]), (at_ns + hour_ns, traffic[1][1])],
        triggers=[{"name": "all", "shot": "answer"}],
        options={"answer": "616e20616e73776572", "limit_wei": 2**256},
        blocks=[(at_ns - 5 * 10**9, Block(1, bytes(32), bytes(32), 0))],
    )
    assert [(sent.at_ns - at_ns, sent.shot) for sent in seen.sent] == [
        (0, "answer"),
        (hour_ns, "answer"),
    ]
    assert (seen.errors, seen.outcomes) == (0, {"fired": 2})


def test_timers_and_blocks_come_in_the_order_of_their_times(traffic):
    class Clock:
        def __init__(self, actions, options):
            self.now, self.seen = actions.now_mono_ns, []

        def on_match(self, match):
            self.seen.append(("match", self.now()))

        def on_timer(self):
            self.seen.append(("timer", self.now()))

        def on_block(self, block):
            self.seen.append((block.number, self.now()))

    raws = [raw for _, raw in traffic[:2]]
    seen = replay(
        Clock,
        [(2_000, raws[0]), (6_500, raws[1])],
        triggers=[{"name": "all"}],
        timer_ms=0.002,
        blocks=[(at, Block(at, bytes(32), bytes(32), 0)) for at in (1_000, 3_000, 9_000)],
    )
    assert seen.strategy.seen == [
        (1_000, 1_000),
        ("match", 2_000),
        ("timer", 3_000),
        (3_000, 3_000),
        ("timer", 5_000),
        ("match", 6_500),
        ("timer", 7_000),
        ("timer", 9_000),
        (9_000, 9_000),
    ]


class _Match:
    tx = Transaction(None, b"")


def test_a_call_that_does_not_end_is_broken_off_and_not_repeated():
    class Endless:
        def on_match(self, match):
            while True:
                pass

    halted = []
    before = signal.getsignal(signal.SIGALRM)
    with Conductor(Endless(), halt=lambda: halted.append(1), limit_ms=20) as conductor:
        began = time.monotonic()
        conductor.hand_over([_Match(), _Match()])
        assert time.monotonic() - began < 30
    assert conductor.stalled
    assert conductor.halted
    assert halted == [1]
    assert "test_strategy_kit.py" in conductor.last_error
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_quick_calls_are_not_broken_off_by_the_timer_of_earlier_ones():
    class Quick:
        calls = 0

        def on_match(self, match):
            self.calls += 1
            end = time.monotonic() + 0.002
            while time.monotonic() < end:
                pass

    with Conductor(strategy := Quick(), halt=lambda: None, limit_ms=50) as conductor:
        conductor.hand_over([_Match()] * 100)  # four times the limit, all together
    assert strategy.calls == 100
    assert not conductor.halted


def test_strategies_are_found_by_module_path_and_entry_point(tmp_path, monkeypatch):
    where = str(tmp_path / "a.toml")
    (tmp_path / "mine.py").write_text("class Mine:\n    def on_match(self, match): ...\n")
    assert load("mine.py:Mine", where).__name__ == "Mine"
    assert load("tests.unit.test_strategy_kit:Arms", where).__name__ == "Arms"
    point = importlib.metadata.EntryPoint(
        "arms", "tests.unit.test_strategy_kit:Arms", "barewire.strategies"
    )
    monkeypatch.setattr("appliance.strategy.entry_points", lambda group: [point])
    assert load("arms", where).__name__ == "Arms"
    with pytest.raises(ConfigError, match="'nobody': no installed package") as caught:
        load("nobody", where)
    assert "arms" in caught.value.hint
    with pytest.raises(ConfigError, match="no class Nobody"):
        load("mine.py:Nobody", where)


def test_what_is_sent_before_the_first_transaction_counts():
    class Greets:
        def __init__(self, actions, options):
            assert actions.send("gateway", b"hello")
            actions.arm("s", "gateway", b"shot", expires_after_ms=1000)

        def on_match(self, match):
            pass

    (envelope,) = build(600, 3, lambda _: None)[:1]
    seen = replay(Greets, [(1000, envelope)], triggers=[{"name": "all", "shot": "s"}])
    assert [(sent.payload, sent.cause, sent.shot) for sent in seen.sent] == [
        (b"hello", None, None),
        (b"shot", sha3.keccak_256(envelope).digest(), "s"),
    ]


class Quiet:
    def __init__(self, actions, options):
        pass

    def on_match(self, match):
        pass


def test_an_envelope_that_no_feed_carries_is_named():
    with pytest.raises(BarewireError, match=r"an envelope of 2,000,000 bytes"):
        replay(Quiet, [(1, bytes(2_000_000))], triggers=[{"name": "all"}])
