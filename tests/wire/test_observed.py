"""What a real appliance shows of itself: counters, times, stalls by cause, its recorder."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from pathlib import Path

import pytest
import sha3
from scapy.all import UDP, rdpcap

from appliance.cli import main
from appliance.demo.traffic import build
from appliance.lab import Pair
from appliance.metrics.files import open_all
from barewire.feeds.envelope import to_messages
from barewire.feeds.mold_publisher import MoldPublisher
from tests.requires import requires_root
from tests.wire.rig import PAYLOAD, Rig

COUNT = 300
BUILT = 600
SHOT = (
    '[[shot]]\nname = "s"\ndestination = "gateway"\npayload = "{}"\nexpires_after_ms = 60000\n'
    "[fire]\nunjournalled = true\n"
)
TRIGGERS = (
    '[[trigger]]\nname = "all"\nshot = "s"\n'
    '[[trigger]]\nname = "elsewhere"\nto = ["0x00000000000000000000000000000000000000aa"]\n'
)


@pytest.fixture(scope="module")
def traffic():
    """Transactions as feed messages, one each, and the hashes that pysha3 gives them."""
    envelopes = [one for one in build(BUILT, 11, lambda _: None) if len(one) < 1400][:COUNT]
    return (
        [to_messages(envelope, 1450, number)[0] for number, envelope in enumerate(envelopes)],
        [sha3.keccak_256(envelope).hexdigest() for envelope in envelopes],
    )


@pytest.fixture(scope="module")
def pair():
    requires_root()
    with Pair() as made:
        yield made


@pytest.fixture
def shot(tmp_path):
    path = tmp_path / "shot.hex"
    path.write_text(PAYLOAD.hex())
    return SHOT.format(path)


def asked(capsys, *words):
    """What a command says as JSON."""
    capsys.readouterr()
    status = main([*words, "-o", "json"])
    return status, json.loads(capsys.readouterr().out)


def metrics(capsys, rig, count=1):
    status, shown = asked(capsys, "metrics", "--folder", str(rig.records))
    assert status == 0
    assert len(shown) == count
    return shown[0]


def links_of(rig):
    with open_all(rig.records) as ([core], _):
        return {link.name: link for link in core.links()}


def received(rig, name):
    """By the link of that name; 0 as long as it was not written down."""
    link = links_of(rig).get(name)
    return 0 if link is None else link.received


def eventually(true, seconds=20):
    deadline = time.monotonic() + seconds
    while not (answer := true()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return answer


@pytest.mark.parametrize("via", ["kernel", "afxdp:veth0"])
def test_metrics_of_a_running_appliance(pair, tmp_path, traffic, shot, capsys, via):
    messages, _ = traffic
    every = "statistics_every_s = 0.2\n"
    rig = Rig(pair, tmp_path, via=via, triggers=TRIGGERS, extra=shot)
    rig.config.write_text(every + rig.config.read_text())
    with rig:
        rig.publish([*messages, *messages[:20], b"Tgarbage"])
        rig.arrive()
        # Links are written down every 200 ms here, counters at every turn.
        eventually(lambda: received(rig, "site/A") > len(messages))
        shown = metrics(capsys, rig)
        counters, histograms = shown["counters"], shown["histograms"]
        assert shown["loop"] == "hot"
        assert shown["heartbeat_age_ns"] < 1e9
        assert counters["messages_delivered"] == len(messages) + 21
        assert counters["transactions_decoded"] == len(messages) + 20
        assert counters["transactions_duplicate"] == 20
        assert counters["transactions_refused"] == 1
        assert counters["transactions_matched"] == len(messages)
        assert counters["shots_asked"] == len(messages) + 20
        assert counters["shots_fired"] == counters["datagrams_sent"] == 1
        assert counters["strategy_calls"] == len(messages)
        assert counters["strategy_errors"] == counters["strategy_stalls"] == 0
        assert histograms["wire_to_match"]["count"] == len(messages)
        assert histograms["wire_to_wire"]["count"] == 1
        assert 0 < histograms["wire_to_wire"]["max_ns"] < 5e9
        assert histograms["strategy"]["count"] == len(messages)
        assert 0 < histograms["turn"]["count"] <= counters["datagrams_received"]
        assert histograms["housekeeping"]["count"] > 10
        spent = shown["duty"]["spent_ns"]
        assert all(spent[kind] > 0 for kind in ("idle", "busy", "housekeeping", "callback"))
        links = {link["name"]: link for link in shown["links"]}
        assert 2 * len(messages) < links["site"]["received"] <= counters["datagrams_received"]
        assert (
            links["site/A"]["received"] + links["site/B"]["received"] <= links["site"]["received"]
        )
        assert links["site/A"]["received"] > len(messages)
        assert main(["metrics", "--folder", str(rig.records), "--prometheus"]) == 0
        assert f'barewire_shots_asked_total{{loop="hot"}} {len(messages) + 20}\n' in (
            capsys.readouterr().out
        )
        rig.stop()
    assert not list(tmp_path.glob("*.metrics"))


@pytest.mark.parametrize("via", ["kernel", "afxdp:veth0"])
def test_the_recorder_tells_why(pair, tmp_path, traffic, shot, capsys, via):
    """Hashes by pysha3, the capture read by scapy."""
    messages, hashes = traffic
    refused = messages[5][1:-1]
    with Rig(pair, tmp_path, via=via, triggers=TRIGGERS, extra=shot) as rig:
        rig.publish(messages[:50])
        rig.publish([messages[3], b"T" + refused])
        rig.arrive()
        assert rig.process is not None
        rig.kill()  # what was recorded outlives the process
        folder = str(rig.records)

        status, told = asked(capsys, "why", "0x" + hashes[0], "--folder", folder)
        assert status == 0
        (seen,) = told["sightings"]
        assert (seen["source"], seen["trusted"], seen["duplicate"]) == ("site", True, False)
        steps = seen["steps_after_arrival_ns"]
        assert list(steps) == ["received", "fed", "decoded", "matched", "fired", "settled"]
        assert 0 <= steps["received"] <= steps["fed"] <= steps["decoded"] <= steps["matched"]
        assert steps["matched"] <= steps["fired"] <= steps["settled"] < 5e9
        assert abs(seen["seen_real_ns"] - time.time_ns()) < 60e9
        met, missed = seen["triggers"]
        assert (met["matched"], met["fired"], met["shot"]) == (True, True, "s")
        assert missed["matched"] is False
        assert missed["why"].startswith("to: it calls ")
        assert "called" in seen["strategy"]
        (sent,) = told["sent"]
        assert sent["to"] == f"{pair.a.ip4}:7000"
        assert sent["bytes"] == len(PAYLOAD)

        _, told = asked(capsys, "why", hashes[3], "--folder", folder)
        first, second = told["sightings"]
        assert first["triggers"][0]["why"] == "not fired: it had fired before"
        assert (first["duplicate"], second["duplicate"]) == (False, True)
        assert "seen before" in second["strategy"]
        assert told["sent"] == []

        name = sha3.keccak_256(refused).hexdigest()
        _, told = asked(capsys, "why", name, "--folder", folder)
        assert told["sightings"][0]["refused"] == "rlp_truncated"

        assert main(["why", "0x" + "ab" * 32, "--folder", folder]) == 1
        assert "is not in the flight recorders" in capsys.readouterr().out
        assert main(["why", "0x" + hashes[0], "--folder", folder]) == 0
        assert "fired: handed to the endpoint" in capsys.readouterr().out
        assert main(["why", "0x12", "--folder", folder]) == 2

        capture = tmp_path / "dump.pcap"
        status, said = asked(capsys, "record", "--to", str(capture), "--folder", folder)
        assert status == 0
        assert said["cut_short"] == 0
        frames = rdpcap(str(capture))
        assert len(frames) == said["frames"]
        assert said["sent"] >= 1
        payloads = {bytes(frame[UDP].payload) for frame in frames}
        assert PAYLOAD in payloads
        for message in messages[:50]:
            assert sum(message in payload for payload in payloads) >= 1
        lines = {(frame["IP"].dst, frame[UDP].dport) for frame in frames}
        assert {*rig.lines, (pair.a.ip4, 7000)} <= lines
        times = [float(frame.time) for frame in frames]
        assert times == sorted(times)
        assert abs(times[-1] - time.time()) < 60


def test_the_recorder_can_be_off(pair, tmp_path, traffic, capsys):
    with Rig(pair, tmp_path, extra="[recorder]\nmegabytes = 0\n") as rig:
        rig.publish(traffic[0][:20])
        assert main(["why", "ab" * 32, "--folder", str(rig.records)]) == 1
        assert "recorder.megabytes" in capsys.readouterr().err
        rig.arrive()
        assert len(rig.stop().hashes) == 20


@pytest.mark.parametrize("strategy", ["SleepsOnce", "SpinsInC"])
def test_a_strategy_that_stalls_stops_sending_and_not_receiving(
    pair, tmp_path, traffic, capsys, strategy
):
    messages, _ = traffic
    with Rig(
        pair,
        tmp_path,
        strategy=f"tests.wire.strategies:{strategy}",
        strategy_limits="limit_ms = 50\n",
        extra="[fire]\nunjournalled = true\nmax_per_second = 1000\n",
    ) as rig:
        rig.publish(messages)
        rig.arrive()
        shown = metrics(capsys, rig)
        stopped = rig.stop()
    assert shown["counters"]["strategy_calls"] == 100
    assert shown["counters"]["strategy_stalls"] == 1
    assert shown["counters"]["messages_delivered"] == len(messages)
    assert shown["duty"]["stalls"]["callback"] >= 1
    assert shown["duty"]["longest_ns"]["callback"] >= 50e6
    (note,) = [one for one in shown["errors"] if "took longer" in one["text"]]
    assert note["count"] == 1
    assert "sending stopped" in note["text"]
    if strategy == "SleepsOnce":
        assert shown["duty"]["longest_ns"]["callback"] < 10e9
        assert "strategies.py:" in note["text"]
    assert stopped.summary["strategy"]["stalled"] == 1
    assert 99 <= len(stopped.replies) <= 100
    assert stopped.summary["pump"]["transactions"] == len(messages)


def test_a_strategy_that_raises_is_noted_once_with_its_place(pair, tmp_path, traffic, capsys):
    with Rig(pair, tmp_path, strategy="tests.wire.strategies:Raises") as rig:
        rig.log.write_text("[]")
        rig.publish(traffic[0])
        rig.arrive()
        shown = metrics(capsys, rig)
        rig.stop()
    assert shown["counters"]["strategy_errors"] == len(traffic[0])
    (note,) = shown["errors"]
    assert note["text"].startswith("strategy: LookupError at strategies.py:")
    assert note["count"] == len(traffic[0])
    assert note["first_real_ns"] <= note["last_real_ns"]


def test_a_strategy_that_leaks_is_noted(pair, tmp_path, traffic, capsys):
    with Rig(
        pair,
        tmp_path,
        strategy="tests.wire.strategies:Leaks",
        strategy_limits="memory_mb = 8\n",
    ) as rig:
        eventually(lambda: metrics(capsys, rig)["memory_bytes"])
        rig.publish(traffic[0])
        rig.arrive()
        shown = eventually(
            lambda: (s := metrics(capsys, rig)) and s["memory_growth_bytes"] > 20e6 and s
        )
        rig.stop()
    (note,) = shown["errors"]
    assert note["text"].startswith("strategy: memory grew by more than 8 MiB")


def test_a_core_that_is_stopped_shows_a_stall_with_its_cause(pair, tmp_path, traffic, capsys):
    with Rig(pair, tmp_path, extra="") as rig:
        rig.publish(traffic[0][:50])
        before = metrics(capsys, rig)["duty"]
        assert rig.process is not None
        os.kill(rig.process.pid, signal.SIGSTOP)
        time.sleep(0.05)
        os.kill(rig.process.pid, signal.SIGCONT)
        after = eventually(
            lambda: (
                (d := metrics(capsys, rig)["duty"])
                and d["stalls"]["descheduled"] > before["stalls"]["descheduled"]
                and d["longest_ns"]["descheduled"] >= 45e6
                and d
            )
        )
        assert after["longest_ns"]["callback"] < 45e6
        rig.publish(traffic[0][50:])
        rig.arrive()
        assert len(rig.stop().hashes) == len(traffic[0])


CORES = (
    '[[core]]\nname = "rx"\nstages = ["receive", "feed"]\n'
    '[[core]]\nname = "hit"\nstages = ["decode", "trigger"]\n'
)


def test_a_core_that_does_not_stop_is_killed_and_named(pair, tmp_path, capfd):
    """It is stopped by a signal; it might be in a strategy's on_stop, or in a driver."""
    with Rig(pair, tmp_path, extra=CORES) as rig:
        _, shown = asked(capfd, "metrics", "--folder", str(rig.records))
        os.kill({loop["loop"]: loop["pid"] for loop in shown}["hit"], signal.SIGSTOP)
        assert rig.process is not None
        rig.process.terminate()
        assert rig.process.wait(20) == 1
        assert "core 'hit' did not stop within 5 s, and was killed" in capfd.readouterr().err


def test_as_many_links_as_can_be_configured(pair, tmp_path, capsys):
    """Feeds of eight lines, all of them heard, and two rings."""
    feeds = "".join(
        f'[[source]]\nname = "a-feed-with-a-rather-long-name-{feed:02}"\n'
        f"lines = [{', '.join(repr(f'127.0.0.1:{20000 + 8 * feed + i}') for i in range(8))}]\n"
        for feed in range(15)
    )
    with Rig(pair, tmp_path, retransmit=False, extra=CORES + feeds) as rig:
        with pair.b, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as near:
            for port in range(20000, 20000 + 15 * 8):
                near.sendto(MoldPublisher(f"F{port // 8}").heartbeat(), ("127.0.0.1", port))
        links = {"site", "site/A", "site/B"}
        for feed in range(15):
            name = f"a-feed-with-a-rather-long-name-{feed:02}"
            links |= {name, *(f"{name}/{line}" for line in "ABCDEFGH")}

        def shown():
            _, loops = asked(capsys, "metrics", "--folder", str(rig.records))
            return [
                link["name"] for loop in loops for link in loop["links"] if loop["loop"] == "rx"
            ]

        eventually(lambda: sorted(shown()) == sorted(links))
        rig.log.write_text("[]")
        rig.stop()


def test_a_core_that_dies_takes_the_others_with_it_and_is_named(pair, tmp_path, traffic, capsys):
    with Rig(pair, tmp_path, extra=CORES) as rig:
        rig.publish(traffic[0][:50])
        rig.arrive()
        _, shown = asked(capsys, "metrics", "--folder", str(rig.records))
        loops = {loop["loop"]: loop for loop in shown}
        assert loops["hit"]["histograms"]["ring"]["count"] == 50
        os.kill(loops["hit"]["pid"], signal.SIGKILL)
        assert rig.process is not None
        assert rig.process.wait(20) == 1
        eventually(lambda: not Path(f"/proc/{loops['rx']['pid']}").exists())
        assert "xdp" not in pair.b.run("ip", "link", "show", pair.b.interface)
        rig.kill()
        rig.start()
        rig.publish(traffic[0][:50])
        rig.arrive()
        assert rig.stop().feed["delivered"] > 0
