"""The publisher and a receiver over kernel sockets on loopback, with faults on purpose."""

from __future__ import annotations

import contextlib
import random
import signal
import socket
import struct
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
from appliance.retransmission import RetransmissionServer
from appliance.supply import Paced
from barewire.feeds.envelope import Reassembler
from barewire.feeds.mold_publisher import MoldPublisher
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
    faults = Faults(loss=0.2, duplication=0.05, reordering=0.05, seed=seed)
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


class Ends:
    """A publisher in namespace a on two lines, a unicast address and a group; ears in b."""

    def __init__(self, pair: Pair, via: str, count: int = 300):
        self.pair, self.count = pair, count
        self.heard = [0, 0]
        with pair.b:
            self.ears = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
        for ear, address in zip(self.ears, (pair.b.ip4, "239.9.9.9"), strict=True):
            ear.setblocking(False)
            ear.bind((address, 9000))
        self.join()
        lines = (Place(pair.b.ip4, 9000), Place("239.9.9.9", 9000, INTERFACE))
        config = PublisherConfig(lines=lines, via=via, heartbeat_ns=10**12)
        with pair.a:
            self.publisher = Publisher(config, Paced([b"transaction"] * count, 500))

    def join(self) -> None:
        with self.pair.b:
            index = socket.if_nametoindex(INTERFACE)
        request = struct.pack("=4s4si", socket.inet_aton("239.9.9.9"), bytes(4), index)
        self.ears[1].setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)

    def poll_until(self, true) -> None:
        end = time.monotonic() + 20
        while not true():
            with self.pair.a:  # where an interface that was deleted is looked for
                self.publisher.poll()
            for line, ear in enumerate(self.ears):
                with contextlib.suppress(BlockingIOError):
                    while ear.recv(2000):
                        self.heard[line] += 1
            assert time.monotonic() < end, (self.publisher.summary(), self.publisher.trouble)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.publisher.close()
        for ear in self.ears:
            ear.close()


@pytest.mark.parametrize("via", ["kernel", "afxdp:veth0"])
def test_a_link_that_flaps_is_counted_said_and_outlived(via):
    requires_root()
    with Pair() as pair, Ends(pair, via) as ends:
        publisher = ends.publisher
        ends.poll_until(lambda: publisher.sent > 50)
        assert not publisher.trouble
        pair.a.run("ip", "link", "set", INTERFACE, "down")
        ends.poll_until(lambda: publisher.sent > 150 and publisher.trouble)
        pair.a.run("ip", "link", "set", INTERFACE, "up")
        ends.poll_until(lambda: publisher.finished and not publisher.trouble)
        before = list(ends.heard)
        ends.poll_until(lambda: ends.heard == before)
        for line, heard in zip(publisher.summary().lines, ends.heard, strict=True):
            assert line.unsent == sum(line.refused.values()) > 0
            greeting = 1  # before the session, counted nowhere
            assert 0 < heard <= line.sent + greeting
            if via != "kernel":
                assert heard == line.sent + greeting
            assert set(line.refused) <= {"link_down", "unresolved", "failed"}


@pytest.mark.parametrize("via", ["kernel", "afxdp:veth0"])
def test_an_interface_that_is_deleted_and_made_anew_is_used_again(via):
    requires_root()
    with Pair() as pair, Ends(pair, via, count=2000) as ends:
        publisher = ends.publisher
        ends.poll_until(lambda: publisher.sent > 50)
        pair.a.run("ip", "link", "del", INTERFACE)
        ends.poll_until(lambda: publisher.sent > 150 and publisher.trouble)
        peer = ("peer", "name", INTERFACE, "netns", pair.b.name)
        pair.a.run("ip", "link", "add", INTERFACE, "index", "77", "type", "veth", *peer)
        for end in (pair.b, pair.a):
            end.run("ip", "link", "set", INTERFACE, "up")
            end.run("ip", "addr", "add", f"{end.ip4}/24", "dev", INTERFACE)
        ends.join()
        before = list(ends.heard)
        ends.poll_until(
            lambda: all(now > 20 + then for now, then in zip(ends.heard, before, strict=True))
        )
        assert all(line.unsent > 0 for line in publisher.summary().lines)


def test_what_is_too_long_for_the_way_is_refused_by_that_cause():
    requires_root()
    long = PublisherConfig(lines=(Place("10.55.0.2", 9000),), via="afxdp:veth0")
    with Pair() as pair:
        with pair.a:
            publisher = Publisher(long, Paced([bytes(1400)] * 20, 2000))
        with publisher:
            pair.a.run("ip", "link", "set", INTERFACE, "mtu", "576")
            end = time.monotonic() + 10
            while not publisher.finished and time.monotonic() < end:
                publisher.poll()
            (line,) = publisher.summary().lines
            assert line.refused.get("too_long", 0) > 0
            assert line.unsent == line.refused["too_long"]


class Asks:
    """A requester under an address of its own; counts the datagrams that it is sent."""

    def __init__(self, number, server):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((f"127.0.1.{number}", 0))
        self.socket.setblocking(False)
        self.server = server

    def ask(self, first, count):
        request = b"ASKED     " + struct.pack("!QH", first, count)
        self.socket.sendto(request, ("127.0.0.1", self.server.place.port))

    def got(self):
        count = 0
        with contextlib.suppress(BlockingIOError):
            while self.socket.recv(2048):
                count += 1
        return count


def test_those_who_ask_for_everything_keep_nobody_from_a_gap():
    """Forty addresses, each with hundreds of requests for all there is, and one with a gap."""
    publisher = MoldPublisher("ASKED")
    publisher.pack([bytes(700)] * 20_000)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(RetransmissionServer(RETRANSMIT, publisher))
        asking = [Asks(number, server) for number in range(1, 42)]
        for one in asking:
            stack.enter_context(one.socket)
        *greedy, modest = asking
        polls = 0
        for round_ in range(300):
            for one in greedy[round_ % 8 :: 8]:
                for _ in range(3):
                    one.ask(1, 0xFFFE)
            server.poll(round_)
            polls += 1
        # However much was asked for: a turn makes what it sends.
        assert publisher.stats.retransmitted_datagrams <= 32 * polls
        assert publisher.stats.refused["busy"] > 0
        modest.ask(5, 2)
        until = polls + 10
        while not modest.got():
            server.poll(polls)
            polls += 1
            assert polls < until
        assert sum(one.got() > 0 for one in greedy) == len(greedy)
