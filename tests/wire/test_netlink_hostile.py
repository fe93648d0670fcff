"""Half an hour of random changes to the links, addresses, routes and neighbours of an appliance.

    BAREWIRE_NETLINK_S=20 ./run test --slow slow tests/wire/test_netlink_hostile.py

It has to live, to receive and send again whenever its network is whole, and to have counted what
it could not send.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import time
from pathlib import Path

import pytest

from appliance.lab import Namespace, Pair
from barewire.feeds.envelope import to_messages
from tests.requires import requires_root
from tests.transactions import envelope, make
from tests.wire.rig import Rig

SECONDS = float(os.environ.get("BAREWIRE_NETLINK_S", "1800"))
MENDED_S = 60.0
FIRE = """[fire]
unjournalled = true
max_per_second = 60000
max_total = 100000000
max_total_value = "1000000000 ether"
max_fee = "1000000 ether"
"""


def batch(end: Namespace, lines: list[str]) -> None:
    """Applies what is possible of `lines`: chaos may ask for what is there, or is not."""
    command = ["ip", "-n", end.name, "-force", "-batch", "-"]
    text = "".join(f"{line}\n" for line in lines)
    subprocess.run(command, input=text, text=True, capture_output=True, check=False)


def trouble(rng: random.Random, pair: Pair) -> tuple[Namespace, list[str]]:
    """A random change, and where."""
    near, far = pair.b, pair.a
    prefix = f"10.{rng.randrange(100, 250)}"
    mac = "02:00:00:" + ":".join(f"{rng.randrange(256):02x}" for _ in range(3))
    address = f"10.55.0.{rng.randrange(20, 60)}/24"
    changes: list[tuple[Namespace, list[str]]] = [
        (near, ["link set veth0 down", "link set veth0 up"]),
        (near, [f"link set veth0 {rng.choice(('up', 'down'))}"]),
        (far, [f"link set veth0 {rng.choice(('up', 'down'))}"]),
        (near, [f"link set veth0 mtu {rng.choice((68, 576, 1000, 1280, 1400, 1500))}"]),
        (near, [f"link set veth0 promisc {rng.choice(('on', 'off'))}"]),
        (near, [f"addr {rng.choice(('add', 'del'))} {address} dev veth0"]),
        (near, [f"addr {rng.choice(('add', 'del'))} {near.ip4}/24 dev veth0"]),
        (near, [f"addr {rng.choice(('add', 'del'))} {near.ip6}/64 dev veth0"]),
        (near, [f"route add {prefix}.{i}.0/24 via {far.ip4}" for i in range(250)]),
        (near, [f"route del {prefix}.{i}.0/24" for i in range(250)]),
        (near, [f"route {rng.choice(('add', 'del'))} {rng.choice(KINDS)} {far.ip4}/32"]),
        (near, [f"rule {rng.choice(('add', 'del'))} to {far.ip4} prohibit"]),
        (near, ["neigh flush dev veth0"]),
        (near, [f"neigh replace {far.ip4} lladdr {mac} dev veth0 nud {rng.choice(STATES)}"]),
        (near, [f"neigh del {far.ip4} dev veth0"]),
        (near, [f"link {rng.choice(('add', 'del'))} dummy{rng.randrange(4)} type dummy"]),
    ]
    return rng.choice(changes)


KINDS = ("blackhole", "unreachable", "prohibit")
STATES = ("permanent", "reachable", "stale", "failed", "noarp")


def mend(pair: Pair) -> None:
    """Makes the network whole again."""
    for end in (pair.a, pair.b):
        end.run("ip", "link", "set", "veth0", "mtu", "1500", "up", "promisc", "off")
    near, far = pair.b, pair.a
    undo = [f"route del {kind} {far.ip4}/32" for kind in KINDS]
    undo += [f"rule del to {far.ip4} prohibit"] * 50
    undo += [f"addr replace {near.ip4}/24 dev veth0", f"neigh del {far.ip4} dev veth0"]
    batch(near, undo)
    near.run("sysctl", "-qw", "net.ipv6.conf.veth0.disable_ipv6=0")


def transaction(rng: random.Random) -> bytes:
    (message,) = to_messages(envelope(2, make(rng, 2)), 1400, 0)[:1]
    return message


@pytest.mark.slow
@pytest.mark.parametrize("via", ["afxdp:veth0", "kernel"])
def test_random_changes_of_its_network(via: str, tmp_path: Path) -> None:
    requires_root()
    rng = random.Random(10)
    strategy = "tests.wire.strategies:Answers"
    with Pair() as pair, Rig(pair, tmp_path, via=via, strategy=strategy, extra=FIRE) as rig:
        assert rig.process is not None
        end, changes = time.monotonic() + SECONDS / 2, 0
        while time.monotonic() < end:
            for _ in range(rng.randrange(1, 25)):
                batch(*trouble(rng, pair))
                changes += 1
                if rng.random() < 0.1:
                    setting = f"net.ipv6.conf.veth0.disable_ipv6={rng.randrange(2)}"
                    with contextlib.suppress(RuntimeError):  # below an MTU of 1280 there is none
                        pair.b.run("sysctl", "-qw", setting)
                rig.publish([transaction(rng) for _ in range(rng.randrange(5))])
                assert rig.process.poll() is None, f"ended after {changes} changes"
                rig._read(0)
            mend(pair)
            answered = len(rig.replies)
            mended_by = time.monotonic() + MENDED_S
            while len(rig.replies) == answered:
                rig.publish([transaction(rng)])
                rig.settle(0.05)
                rig._read(0)
                assert time.monotonic() < mended_by, rig._said[-2000:]
        stopped = rig.stop()
        summary = stopped.summary
        sends = dict(summary["sends"])
        counted = summary["sources"]["site"]["endpoint"]
        print(f"{via}: {changes} times changes, {len(rig.replies)} replies came of {sends}")
        print({name: count for name, count in counted.items() if count})
        assert summary["strategy"]["errors"] == 0
        assert sum(sends.values()) == summary["pump"]["matched"]
        assert 0 < len(rig.replies) <= sends["left"]
        unsent = ("link_down", "unresolved", "too_long", "ring_full", "withdrawn", "failed")
        assert (
            sum(counted[f"tx_{cause}"] for cause in unsent) >= sum(sends.values()) - sends["left"]
        )
