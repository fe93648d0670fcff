"""The appliance from wire to wire: real interfaces, real processes, broken lines."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import termios
import threading
import time

import pytest
import sha3

from appliance.demo.traffic import build
from appliance.lab import Pair
from appliance.metrics.places import Counter
from barewire.feeds.envelope import to_messages
from barewire.feeds.mold_publisher import MoldPublisher
from tests.requires import requires_root
from tests.wire.bpf_links import detach
from tests.wire.rig import PAYLOAD, Rig, dead, duplicated, lossy, reordered

COUNT = 600


@pytest.fixture(scope="module")
def traffic():
    """Transactions as feed messages, and the hashes that pysha3 gives them."""
    envelopes = build(COUNT, 7, lambda _: None)
    return (
        [
            message
            for number, envelope in enumerate(envelopes)
            for message in to_messages(envelope, 1450, number)
        ],
        {sha3.keccak_256(envelope).hexdigest() for envelope in envelopes},
    )


@pytest.fixture(scope="module")
def pair():
    requires_root()
    with Pair() as made:
        yield made


def check_complete(stopped, traffic):
    """Every transaction was matched exactly once, and nothing was lost."""
    messages, hashes = traffic
    assert len(stopped.hashes) == len(set(stopped.hashes))
    assert set(stopped.hashes) == hashes
    assert stopped.feed["delivered"] == len(messages)
    assert stopped.feed["lost"] == 0
    assert stopped.summary["refused"] == {}


@pytest.mark.parametrize("via", ["kernel", "afxdp:veth0"])
@pytest.mark.parametrize(
    "faults",
    [
        {},
        {0: lossy(0.2, 1), 1: lossy(0.2, 2)},
        {0: duplicated, 1: duplicated},
        {0: reordered(8, 3), 1: reordered(8, 4)},
        {0: dead},
    ],
    ids=["whole", "lossy", "duplicated", "reordered", "one-dead"],
)
def test_every_transaction_once(pair, tmp_path, traffic, via, faults):
    with Rig(pair, tmp_path, via=via) as rig:
        rig.publish(traffic[0], faults=faults)
        rig.arrive()
        check_complete(rig.stop(), traffic)


@pytest.mark.parametrize("via", ["kernel", "afxdp:veth0"])
@pytest.mark.parametrize(
    "cut", [("receive",), ("receive", "feed"), ("receive", "feed", "decode")], ids="-".join
)
def test_two_cores(pair, tmp_path, traffic, via, cut):
    """The path cut anywhere: lossy lines, retransmission asked for and a shot fired across it."""
    stages = ("receive", "feed", "decode", "trigger")
    cores = "".join(
        f'[[core]]\nname = "{name}"\nstages = {list(part)}\n'
        for name, part in (("front", cut), ("behind", stages[len(cut) :]))
    )
    payload = tmp_path / "shot.hex"
    payload.write_text(PAYLOAD.hex())
    fire = (
        f'[[shot]]\nname = "s"\ndestination = "gateway"\npayload = "{payload}"\n'
        "expires_after_ms = 60000\n[fire]\nunjournalled = true\n"
    )
    trigger = '[[trigger]]\nname = "all"\nshot = "s"\n'
    messages = traffic[0]
    with Rig(pair, tmp_path, via=via, triggers=trigger, extra=fire + cores) as rig:
        rig.publish(messages[:200], faults={0: lossy(0.2, 1), 1: lossy(0.2, 2)})
        rig.publish(messages[200:250], faults={0: dead, 1: dead})
        rig.publish(messages[250:])
        rig.arrive()
        stopped = rig.stop()
    check_complete(stopped, traffic)
    assert stopped.feed["retransmitted"] >= 50
    assert stopped.replies == [PAYLOAD]
    assert stopped.summary["shots"]["fired"] == 1
    assert stopped.summary["pump"]["handed_on"] > 0
    assert stopped.summary["pump"]["not_handed_on"] == 0


@pytest.mark.parametrize("cores", ["one", "two"])
@pytest.mark.parametrize(
    ("fire", "left", "why"),
    [
        ("", 0, "unjournalled"),
        ("unjournalled = true\nmax_per_second = 1000\nmax_total = 3\n", 3, "cap_total"),
    ],
    ids=["not-permitted", "capped"],
)
def test_what_a_strategy_sends_passes_the_same_gate_as_shots(
    pair, tmp_path, traffic, cores, fire, left, why
):
    extra = f"[fire]\n{fire}"
    if cores == "two":
        extra += '[[core]]\nname = "front"\nstages = ["receive"]\n'
        extra += '[[core]]\nname = "behind"\nstages = ["feed", "decode", "trigger"]\n'
    strategy = "tests.wire.strategies:Answers"
    with Rig(pair, tmp_path, via="kernel", strategy=strategy, extra=extra) as rig:
        rig.publish(traffic[0][:50])
        rig.arrive()
        stopped = rig.stop()
    assert stopped.replies == [b"an answer"] * left
    matched = stopped.summary["pump"]["matched"]
    assert matched > 3
    assert stopped.summary["sends"] == {"left": left, why: matched - left}
    assert stopped.summary["pump"]["sends_refused"] == matched - left


def test_both_lines_dead_for_a_while_is_recovered_by_retransmission(pair, tmp_path, traffic):
    messages = traffic[0]
    with Rig(pair, tmp_path) as rig:
        rig.publish(messages[:200])
        rig.publish(messages[200:300], faults={0: dead, 1: dead})
        rig.publish(messages[300:])
        rig.arrive()
        stopped = rig.stop()
    check_complete(stopped, traffic)
    assert stopped.feed["retransmitted"] == 100


def test_what_nobody_can_bring_back_is_counted_as_lost(pair, tmp_path, traffic):
    messages = traffic[0]
    with Rig(pair, tmp_path, retransmit=False) as rig:
        rig.publish(messages[:200])
        rig.publish(messages[200:300], faults={0: dead, 1: dead})
        rig.publish(messages[300:])
        rig.arrive()
        stopped = rig.stop()
    assert stopped.feed["lost"] == 100
    assert stopped.feed["delivered"] == len(messages) - 100


def test_two_receive_queues(tmp_path, traffic):
    requires_root()
    with Pair(queues=2) as pair, Rig(pair, tmp_path) as rig:
        rig.publish(traffic[0])
        rig.arrive()
        check_complete(rig.stop(), traffic)


def test_frames_of_9000_bytes(tmp_path):
    requires_root()
    envelopes = build(COUNT, 7, lambda _: None)
    messages = [part for i, one in enumerate(envelopes) for part in to_messages(one, 8000, i)]
    assert max(map(len, messages)) > 4096
    with Pair(mtu=9000) as pair, Rig(pair, tmp_path, max_datagram=8900) as rig:
        rig.publish(messages)
        rig.arrive()
        stopped = rig.stop()
    assert stopped.feed["lost"] == 0
    assert stopped.summary["pump"]["transactions"] == len(envelopes)


def test_ipv6_unicast_and_multicast(pair, tmp_path, traffic):
    lines = [(pair.b.ip6, 9001), ("ff15::77", 9002)]
    with Rig(pair, tmp_path, lines=lines, far=pair.a.ip6) as rig:
        rig.publish(traffic[0], faults={0: lossy(0.1, 5), 1: lossy(0.1, 6)})
        rig.arrive()
        check_complete(rig.stop(), traffic)


def test_a_shot_leaves_once_and_is_not_fired_by_an_untrusted_stranger(pair, tmp_path, traffic):
    """Trusted: the first match fires, once. Untrusted: only after the sender was recovered."""
    payload = tmp_path / "shot.hex"
    payload.write_text(PAYLOAD.hex())
    fire = (
        f'[[shot]]\nname = "s"\ndestination = "gateway"\npayload = "{payload}"\n'
        "expires_after_ms = 60000\n[fire]\nunjournalled = true\n"
    )
    trigger = '[[trigger]]\nname = "all"\nshot = "s"\n'
    for trusted in (True, False):
        with Rig(pair, tmp_path, triggers=trigger, extra=fire, trusted=trusted) as rig:
            rig.publish(traffic[0][:50])
            rig.arrive()
            stopped = rig.stop()
        assert stopped.replies == [PAYLOAD]
        assert stopped.summary["shots"]["fired"] == 1
        assert stopped.summary["shots"]["already_fired"] == len(stopped.seen) - 1
        assert (stopped.summary["pump"]["recovered_senders"] > 0) is not trusted


@pytest.mark.parametrize("cores", ["one", "two"])
def test_a_shot_too_long_for_its_way_is_refused_at_the_start(pair, tmp_path, cores):
    payload = tmp_path / "shot.hex"
    payload.write_text("00" * 1480)
    fire = (
        f'[[shot]]\nname = "s"\ndestination = "gateway"\npayload = "{payload}"\n'
        "expires_after_ms = 60000\n[fire]\nunjournalled = true\n"
    )
    if cores == "two":
        fire += '[[core]]\nname = "front"\nstages = ["receive"]\n'
        fire += '[[core]]\nname = "behind"\nstages = ["feed", "decode", "trigger"]\n'
    trigger = '[[trigger]]\nname = "all"\nshot = "s"\n'
    rig = Rig(pair, tmp_path, triggers=trigger, extra=fire)
    with pytest.raises(RuntimeError, match="did not start"):
        rig.start()
    rig.__exit__()


@pytest.mark.parametrize("via", ["kernel", "afxdp:veth0"])
def test_only_publishers_are_heard(pair, tmp_path, traffic, via):
    messages = traffic[0]
    rig = Rig(pair, tmp_path, via=via)
    written = rig.config.read_text()
    rig.config.write_text(
        written.replace("trusted = true", f'trusted = true\npublishers = ["{pair.a.ip4}"]')
    )
    with rig:
        pair.a.run("ip", "addr", "add", "10.55.0.66/24", "dev", pair.a.interface)
        with pair.a, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.bind(("10.55.0.66", 0))
            stranger.setsockopt(
                socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("10.55.0.66")
            )
            forged = MoldPublisher("EVIL")
            for datagram in forged.pack(messages[:50]):
                stranger.sendto(datagram, rig.lines[0])
        rig.publish(messages)
        rig.arrive()
        stopped = rig.stop()
        pair.a.run("ip", "addr", "del", "10.55.0.66/24", "dev", pair.a.interface)
    check_complete(stopped, traffic)
    assert stopped.summary["pump"]["strangers"] > 0


def test_garbage_on_the_feed_is_counted_and_nothing_else(pair, tmp_path, traffic):
    messages = traffic[0]
    with Rig(pair, tmp_path) as rig:
        rig.publish(messages[:100])
        with pair.a:
            stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            stranger.setsockopt(
                socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(pair.a.ip4)
            )
            for size in (0, 1, 19, 20, 21, 300, 1400):
                for address, port in rig.lines:
                    stranger.sendto(bytes([0xF0 + size % 16]) * size, (address, port))
            stranger.close()
        rig.publish([b"T" + bytes(40), b"T" + messages[0][1:-1], b"?x", b""])
        rig.publish(messages[100:])
        rig.arrive()
        stopped = rig.stop()
    assert set(stopped.hashes) == traffic[1]
    assert stopped.feed["refused"]["short"] > 0
    assert sum(stopped.summary["refused"].values()) == 2
    reassembly = stopped.summary["reassembly"]["site"]["refused"]
    assert reassembly["type"] == 1
    assert reassembly["empty"] == 1


def test_a_strategy_that_raises_stops_sending_and_not_receiving(pair, tmp_path, traffic):
    with Rig(pair, tmp_path, strategy="tests.wire.strategies:Raises") as rig:
        rig.log.write_text("[]")
        rig.publish(traffic[0])
        rig.arrive()
        stopped = rig.stop()
    assert stopped.summary["strategy"]["errors"] == len(traffic[1])
    assert "the strategy's own mistake" in stopped.summary["strategy"]["last_error"]
    assert stopped.summary["pump"]["transactions"] == len(traffic[1])


def test_senders_are_found_out_beside_the_path_and_a_dead_worker_is_replaced(
    pair, tmp_path, traffic
):
    with Rig(pair, tmp_path, extra="[senders]\nworkers = 1\n") as rig:
        (worker,) = rig.started["chosen"]["senders"]["pids"]
        time.sleep(1.1)  # younger workers are not started again at once
        os.kill(worker, signal.SIGKILL)
        rig.publish(traffic[0])
        rig.arrive()
        rig.reach(Counter.SENDERS_ANSWERED, len(traffic[1]))
        stopped = rig.stop()
    check_complete(stopped, traffic)
    senders = stopped.summary["senders"]
    # the traffic's signatures are well formed and sign nothing: some of them nobody can have made
    assert senders["queued"] == senders["recovered"] + senders["nobody"] == len(traffic[1])
    assert senders["recovered"] > 0
    assert (senders["waiting"], senders["refused"]) == (0, 0)


def test_kernel_tcp_on_the_same_interface_is_undisturbed(pair, tmp_path, traffic):
    with pair.b:
        server = socket.create_server((pair.b.ip4, 8080))
    data = bytes(range(256)) * 4096

    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            while chunk := connection.recv(65536):
                connection.sendall(chunk)

    thread = threading.Thread(target=serve)
    thread.start()
    with Rig(pair, tmp_path) as rig, server:
        rig.publish(traffic[0][:300])
        with pair.a:
            client = socket.create_connection((pair.b.ip4, 8080), timeout=10)
        with client:
            got = bytearray()
            for at in range(0, len(data), 8192):
                client.sendall(data[at : at + 8192])
                while len(got) < min(at + 8192, len(data)):
                    got += client.recv(65536)
        rig.publish(traffic[0][300:])
        rig.arrive()
        check_complete(rig.stop(), traffic)
    thread.join(10)
    assert bytes(got) == data


def test_kill_9_leaves_the_interface_working_and_a_new_start_succeeds_at_once(
    pair, tmp_path, traffic
):
    with Rig(pair, tmp_path) as rig:
        for moment in (0.0, 0.01, 0.1):
            rig.publish(traffic[0][:100])
            time.sleep(moment)
            rig.kill()
            with pair.b:
                plain = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                plain.bind((pair.b.ip4, 9001))
                plain.settimeout(10)
            with pair.a, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.sendto(b"to the kernel again", (pair.b.ip4, 9001))
            assert plain.recv(100) == b"to the kernel again"
            plain.close()
            rig.start()
            rig.publish(traffic[0][100:200])
            rig.arrive()
        assert rig.stop().feed["delivered"] > 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_clean_stop_says_what_was_counted(pair, tmp_path, traffic, number):
    with Rig(pair, tmp_path) as rig:
        rig.publish(traffic[0])
        rig.arrive()
        check_complete(rig.stop(number), traffic)
    assert "xdp" not in pair.b.run("ip", "link", "show", pair.b.interface)


def test_two_sources_share_an_interface(pair, tmp_path, traffic):
    other = (
        '[[source]]\nname = "other"\nvia = "afxdp:veth0"\nlines = ["239.77.0.3:9003@veth0"]\n'
        "trusted = true\n"
    )
    messages = traffic[0]
    with Rig(pair, tmp_path, extra=other) as rig:
        second = MoldPublisher("OTHER")
        with pair.a:
            peer = rig.endpoint.add_peer("239.77.0.3", 9003, interface=pair.a.interface)
        rig.endpoint.send(peer, second.heartbeat())
        for message in messages[:300]:
            for datagram in second.pack([message]):
                rig.endpoint.send(peer, datagram)
            rig.publish([message])
        rig.publish(messages[300:])
        rig.arrive(others=300)
        stopped = rig.stop()
    check_complete(stopped, traffic)
    assert stopped.summary["sources"]["other"]["delivered"] == 300
    assert stopped.summary["sources"]["other"]["endpoint"]["port_share_dropped"] == 0


def test_a_program_that_somebody_takes_off_is_told_and_put_back(pair, tmp_path, traffic):
    messages = traffic[0]
    with Rig(pair, tmp_path) as rig:
        rig.publish(messages[:100])
        about = json.loads(pair.b.run("ip", "-j", "link", "show", pair.b.interface))[0]
        assert detach(about["xdp"]["prog"]["id"]) == 1
        rig.hear("site: our XDP program was taken off interface veth0 by somebody else")
        rig.publish(messages[100:])
        rig.arrive()
        stopped = rig.stop()
    check_complete(stopped, traffic)
    assert stopped.feed["endpoint"]["port_program_taken_off"] == 1


def test_an_interface_that_is_deleted_is_told_and_ends_it(tmp_path, traffic):
    requires_root()
    with Pair() as pair, Rig(pair, tmp_path) as rig:
        rig.publish(traffic[0][:100])
        pair.b.run("ip", "link", "set", pair.b.interface, "down")
        rig.hear("site: interface veth0 is down")
        pair.b.run("ip", "link", "del", pair.b.interface)
        lines = rig.end(status=1)
    assert lines[-1]["type"] == "summary"
    assert lines[-1]["sources"]["site"]["trouble"] == "interface veth0 is gone"


def talkative(rig: Rig) -> Rig:
    """Ten lines of statistics a second, not one."""
    rig.config.write_text("statistics_every_s = 0.1\n" + rig.config.read_text())
    return rig


def test_who_does_not_read_its_output_does_not_hold_it_up(pair, tmp_path, traffic):
    with talkative(Rig(pair, tmp_path)) as rig:
        # The smallest pipe there is: it is full as soon as there is anything in it.
        pipe, size = rig.process.stdout.fileno(), bytearray(4)
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 4096)
        while not any(size):
            rig.settle(0.05)
            fcntl.ioctl(pipe, termios.FIONREAD, size)
        rig.settle(0.5)
        rig.publish(traffic[0])
        rig.arrive()
        rig.process.send_signal(signal.SIGTERM)
        assert rig.process.wait(20) == 0
        assert {match["hash"] for match in json.loads(rig.log.read_text())} == traffic[1]


def test_who_stops_reading_does_not_end_it(pair, tmp_path, traffic):
    with talkative(Rig(pair, tmp_path)) as rig:
        rig.process.stdout.close()
        rig.settle(0.5)
        rig.publish(traffic[0])
        rig.arrive()
        rig.process.send_signal(signal.SIGTERM)
        assert rig.process.wait(20) == 0
        assert {match["hash"] for match in json.loads(rig.log.read_text())} == traffic[1]


SPLIT = (
    '[[core]]\nname = "front"\nstages = ["receive", "feed"]\n'
    '[[core]]\nname = "behind"\nstages = ["decode", "trigger"]\n'
)


@pytest.mark.parametrize("cores", ["", SPLIT], ids=["one-core", "two-cores"])
def test_triggers_are_replaced_while_packets_flow(pair, tmp_path, traffic, cores):
    """By SIGHUP; a file that is wrong changes nothing and is told."""
    nothing = '[[trigger]]\nname = "old"\ngas = { min = 30000000, max = 30000001 }\n'
    messages = traffic[0]
    with Rig(pair, tmp_path, triggers=nothing, extra=cores) as rig:
        good = rig.config.read_text().replace(nothing, '[[trigger]]\nname = "new"\n')
        rig.publish(messages[:200])
        rig.config.write_text(good.replace('"new"', '"new"\nto = ["0x12"]'))
        rig.process.send_signal(signal.SIGHUP)
        rig.hear("triggers stay as they are")
        rig.config.write_text(good)
        rig.process.send_signal(signal.SIGHUP)
        rig.publish(messages[200:400], every_s=0.002)  # while it happens
        rig.hear("triggers: 1 triggers are in use")
        rig.publish(messages[400:])
        rig.arrive()
        stopped = rig.stop()
    feed = stopped.summary["sources"]["site"]
    assert (feed["delivered"], feed["lost"]) == (len(messages), 0)
    assert stopped.summary["pump"]["transactions"] == len(traffic[1])
    assert {match["trigger"] for match in stopped.seen} == {"new"}
    hashes = [match["hash"] for match in stopped.seen]
    assert 0 < len(hashes) == len(set(hashes)) < len(traffic[1])


@pytest.mark.slow
@pytest.mark.parametrize("via", ["kernel", "afxdp:veth0"])
def test_a_hundred_thousand_triggers_are_replaced_without_a_lost_packet(pair, tmp_path, via):
    """Nobody answers for what is lost: it would be counted."""
    envelopes = build(4_000, 8, lambda _: None) * 12
    messages = [m for n, e in enumerate(envelopes) for m in to_messages(e, 1450, n)]
    via = via.replace("veth0", pair.b.interface)
    many = "".join(
        f'[[trigger]]\nname = "t{n}"\nto = ["0x{n:040x}"]\ninside = true\n' for n in range(100_000)
    )
    with Rig(pair, tmp_path, via=via, triggers=many, retransmit=False) as rig:
        rig.publish(messages[:100])
        rig.config.write_text(rig.config.read_text().replace('name = "t', 'name = "new'))
        rig.process.send_signal(signal.SIGHUP)
        rig.publish(messages[100:], every_s=0.0003)  # longer than reading takes, where it can
        rig.hear("triggers: 100,000 triggers are in use", 60)
        rig.arrive(seconds=60)
        rig.process.send_signal(signal.SIGTERM)
        lines = rig.end()
    feed = lines[-1]["sources"]["site"]
    assert (feed["delivered"], feed["lost"]) == (len(messages), 0)
