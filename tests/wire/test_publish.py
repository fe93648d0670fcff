"""The publisher and a receiver over kernel sockets on loopback, with faults on purpose."""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import sys
import time

import msgspec
import pytest

from appliance.cli import main
from appliance.faults import Faults
from appliance.lab import INTERFACE, Pair
from appliance.places import Place
from appliance.publisher import Publisher, PublisherConfig
from appliance.supply import Paced
from barewire.feeds.envelope import Reassembler
from barewire.feeds.moldudp64 import RETRANSMISSION, MoldConfig, MoldReceiver
from dpdk_bindings.datagram import Channel, open_datagram
from tests.requires import requires_root
from tests.transactions import envelope, make

RETRANSMIT = Place("127.0.0.1", 0)
CHANNELS = {0: RETRANSMISSION, 1: 0, 2: 1}


def transactions(count: int, seed: int = 1) -> list[bytes]:
    """Not decoded here, so any bytes do; one in fifty needs several messages."""
    r = random.Random(seed)
    return [r.randbytes(9000 if i % 50 == 7 else r.randint(100, 700)) for i in range(count)]


class Site:
    """A receiver of two lines: the retransmission channel is the first, so requests leave by it."""

    def __init__(self, a: Channel, b: Channel, config: MoldConfig):
        self.endpoint = open_datagram(
            "kernel", channels=[Channel("127.0.0.1", 0), a, b], burst=64, buffers=256
        )
        _, self.a, self.b = self.endpoint.channels
        self.mold = MoldReceiver(config)
        self.reassembler = Reassembler()
        self.server: int | None = None
        self.got: list[bytes] = []
        self.deaf = lambda _line: False

    def poll(self) -> None:
        with self.endpoint.recv() as burst:
            now = time.monotonic_ns()
            for i in range(len(burst)):
                line = CHANNELS[burst.channel(i)]
                if self.deaf(line):
                    continue
                for message in self.mold.receive(line, burst[i], now):
                    envelope = self.reassembler.push(message.data, now)
                    if envelope is not None:
                        self.got.append(envelope)
        for request in self.mold.requests(time.monotonic_ns()):
            if self.server is not None:
                self.endpoint.send(self.server, request.packet)
        self.endpoint.flush()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.endpoint.close()


def exchange(sent, *, faults=None, deaf=None, a=None, b=None, rate=4000, server=True, each=None):
    """Publishes `sent` to a Site; both in this thread, turn by turn."""
    loopback = Channel("127.0.0.1", 0)
    with Site(a or loopback, b or loopback, MoldConfig(start=1, ask=server)) as site:
        lines = tuple(Place(c.address, c.port, c.interface) for c in (site.a, site.b))
        config = PublisherConfig(
            lines=lines,
            retransmit=RETRANSMIT if server else None,
            faults=faults or Faults(),
            linger_ns=300_000_000,
            record=True,
        )
        with Publisher(config, Paced(sent, rate)) as publisher:
            if publisher.server:
                site.server = site.endpoint.add_peer("127.0.0.1", publisher.server.place.port)
            if deaf:
                site.deaf = lambda line: deaf(line, publisher.sent)

            def turn():
                site.poll()
                if each:
                    each(site, publisher)

            summary = publisher.run(each_turn=turn)
            for _ in range(20):
                site.poll()
            assert len(publisher.sent_mono_ns) == len(sent)
        return site.got, site.mold.stats(), summary


def test_a_good_network():
    sent = transactions(500)
    got, stats, summary = exchange(sent)
    assert sorted(got) == sorted(sent)
    assert (stats["lost"], stats["missing"], stats["state"]) == (0, 0, "ended")
    assert stats["delivered"] == summary.messages
    assert summary.transactions == 500
    assert [line.unsent for line in summary.lines] == [0, 0]


@pytest.mark.parametrize("seed", range(3))
def test_lossy_duplicating_reordering_lines(seed):
    sent = transactions(1000, seed)
    faults = Faults(loss=0.1, duplication=0.05, reordering=0.05, seed=seed)
    got, stats, summary = exchange(sent, faults=faults)
    assert sorted(got) == sorted(sent)
    assert (stats["lost"], stats["missing"]) == (0, 0)
    assert stats["other_line"] > 0
    assert stats["retransmitted"] > 0
    assert summary.retransmitted >= stats["retransmitted"]
    assert all(line.lost_on_purpose > 20 for line in summary.lines)


def test_one_line_dead():
    sent = transactions(500)
    got, stats, _ = exchange(sent, deaf=lambda line, _sent: line == 0)
    assert sorted(got) == sorted(sent)
    assert set(stats["lines"]) == {"B"}
    assert stats["gaps"] == 0


def test_both_lines_dead_for_a_while():
    sent = transactions(1000)
    got, stats, _ = exchange(sent, deaf=lambda line, n: line != RETRANSMISSION and 300 < n < 600)
    assert sorted(got) == sorted(sent)
    assert stats["retransmitted"] >= 250
    assert (stats["lost"], stats["missing"]) == (0, 0)


def test_loss_without_a_server_is_accounted_for():
    sent = transactions(1000)
    got, stats, summary = exchange(sent, faults=Faults(loss=0.3, seed=5), server=False)
    assert set(got) < set(sent)
    assert stats["delivered"] + stats["missing"] + stats["lost"] == stats["next_sequence"] - 1
    assert stats["next_sequence"] <= summary.messages + 1


def test_garbage_on_every_channel():
    noise = random.Random(3)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:

        def each(site, publisher):
            for channel in site.endpoint.channels:
                sender.sendto(
                    noise.randbytes(noise.randint(0, 60)), (channel.address, channel.port)
                )
            sender.sendto(noise.randbytes(20), ("127.0.0.1", publisher.server.place.port))
            sender.sendto(b"", ("127.0.0.1", publisher.server.place.port))

        sent = transactions(100)
        got, stats, summary = exchange(sent, each=each, rate=1000)
    assert sorted(got) == sorted(sent)
    assert stats["refused"]["short"] > 0
    assert summary.requests_refused["malformed"] > 0


def test_multicast():
    sent = transactions(200)
    group = [Channel(f"239.255.77.{n}", 0, "lo") for n in (1, 2)]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    a, b = (Channel(c.address, port, c.interface) for c in group)
    got, stats, _ = exchange(sent, a=a, b=b)
    assert sorted(got) == sorted(sent)
    assert stats["lines"]["A"]["messages"] == stats["lines"]["B"]["messages"]


def test_over_af_xdp_into_the_kernel():
    requires_root()
    sent = transactions(300)
    with Pair() as pair:
        with pair.b:
            group = Channel("239.1.1.1", 9000, INTERFACE)
            receiver = open_datagram("kernel", channels=[group, Channel(pair.b.ip4, 9001)])
        lines = (Place("239.1.1.1", 9000, INTERFACE), Place(pair.b.ip4, 9001))
        config = PublisherConfig(lines=lines, via=f"afxdp:{INTERFACE}")
        mold, reassembler, got = MoldReceiver(), Reassembler(), []

        def turn():
            now = time.monotonic_ns()
            with receiver.recv() as burst:
                for i in range(len(burst)):
                    for message in mold.receive(burst.channel(i), burst[i], now):
                        got.append(reassembler.push(message.data, now))

        with receiver, pair.a, Publisher(config, Paced(sent, 3000)) as publisher:
            summary = publisher.run(each_turn=turn)
            for _ in range(50):
                turn()
    assert [envelope for envelope in got if envelope] == sent
    assert [line.unsent for line in summary.lines] == [0, 0]
    lines_heard = mold.stats()["lines"]
    assert lines_heard["A"]["messages"] == lines_heard["B"]["messages"] == summary.messages


def test_interrupting_the_command(tmp_path):
    path = tmp_path / "txs.hex"
    path.write_text(envelope(2, make(random.Random(1), 2)).hex() + "\n")
    words = ["publish", str(path), "--line-a", "127.0.0.1:9", "--count", "10000000", "-o", "json"]
    command = [sys.executable, "-m", "appliance", *words, "--retransmit", "127.0.0.1:0"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert b"retransmission server on 127.0.0.1:" in child.stderr.readline()
        time.sleep(0.3)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=10)
    finally:
        child.kill()
        child.wait()
    assert child.returncode == 1, err
    summary = msgspec.json.decode(out)
    assert 0 < summary["transactions"] < 10_000_000


def test_the_command(tmp_path, capsys):
    path = tmp_path / "txs.hex"
    sent = transactions(40)
    path.write_text("".join(f"0x{envelope.hex()}\n" for envelope in sent))
    with Site(Channel("127.0.0.1", 0), Channel("127.0.0.1", 0), MoldConfig()) as site:
        line_a, line_b = (f"127.0.0.1:{c.port}" for c in (site.a, site.b))
        words = ["publish", str(path), "--line-a", line_a, "--line-b", line_b]
        words += ["--rate", "2000", "--count", "80", "--loss", "10%", "--seed", "3", "-o", "json"]
        assert main(words) == 0
        for _ in range(40):
            site.poll()
    summary = msgspec.json.decode(capsys.readouterr().out)
    assert summary["transactions"] == 80
    assert summary["lines"][0]["place"] == line_a
    assert summary["lines"][0]["lost_on_purpose"] > 0
    assert set(site.got) <= set(sent)
    assert len(site.got) > 40


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--line-a", "nowhere"], "'nowhere' is not ADDRESS:PORT"),
        (["--line-a", "127.0.0.1:1", "--loss", "x"], "--loss 'x'"),
        (["--line-a", "127.0.0.1:1", "--loss", "101%"], "loss of 1.01"),
        (["--line-a", "127.0.0.1:1", "--rate", "-1"], "--rate -1"),
        (["--line-a", "127.0.0.1:1", "--count", "0"], "--count 0"),
        (["--line-a", "127.0.0.1:1", "--retransmit", "192.0.2.1:9"], "192.0.2.1:9"),
        (["--line-a", "127.0.0.1:1", "--session", "longer than ten"], "'longer than ten'"),
    ],
)
def test_what_the_command_refuses(tmp_path, capsys, words, said):
    path = tmp_path / "txs.hex"
    path.write_text("02ab\n")
    assert main(["publish", str(path), *words]) == 2
    assert said in capsys.readouterr().err
