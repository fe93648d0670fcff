"""Streams over links that lose, double and reorder, flap, or change gateways: a whole appliance."""

from __future__ import annotations

import random
import ssl
from pathlib import Path
from typing import Any

import pytest

from appliance.lab import Pair
from tests.node import Node
from tests.running import Run
from tests.transactions import make
from tests.unit.certificates import Authority
from tests.unit.txjson_texts import spelled
from tests.wire.relay import BadWire
from tests.wire.test_stream_faults import (  # noqa: F401 - `via` is a fixture
    CHAIN,
    configured,
    hashes,
    live,
    seen,
    via,
)

BEYOND = "10.99.0.1"

# The kernel's own TCP is the yardstick, and slow.
pytestmark = pytest.mark.parametrize(
    "via", ["afxdp:veth0", pytest.param("kernel", marks=pytest.mark.slow)], indirect=True
)


def make_some(count: int, seed: int) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    return [spelled(2, make(rng, 2, CHAIN)) for _ in range(count)]


def brought(count: int) -> Any:
    return lambda said: said["pump"]["matched"] == count


@pytest.mark.parametrize(
    ("faults", "count"),
    [
        pytest.param({"loss": 0.01, "reorder": 0.02, "duplicate": 0.02}, 300, id="all-1%"),
        pytest.param({"loss": 0.1}, 60, id="loss-10%", marks=pytest.mark.slow),
    ],
)
def test_a_bad_wire(via: str, faults: dict[str, float], count: int, tmp_path: Path) -> None:  # noqa: F811
    """TCP mends it: nothing is missing, nothing doubled, and no connection is lost."""
    with BadWire(**faults, seed=3) as wire, Node(wire.b) as node:
        source = {"node": f'url = "{node.url}"'}
        with Run(tmp_path, configured(tmp_path, via, source), wire.a) as run:
            run.until(live("node"), 30)
            told = make_some(count, 1)
            for at in range(0, count, 20):
                node.announce(told[at : at + 20])
                run.until(brought(at + 20), 30)
            summary = run.stop()
    assert seen(tmp_path) == hashes(told)
    assert summary["streams"]["node"]["failures"] == 0
    assert summary["streams"]["node"]["refused"] == {}
    assert summary["pump"]["duplicates"] == 0


def test_a_link_that_flaps(via: str, tmp_path: Path) -> None:  # noqa: F811
    """At either end, for a moment: delayed, not broken."""
    with Pair() as pair, Node(pair.b) as node:
        source = {"node": f'url = "{node.url}"'}
        with Run(tmp_path, configured(tmp_path, via, source), pair.a) as run:
            run.until(live("node"))
            told = make_some(40, 2)
            for at in (0, 20):
                node.announce(told[at : at + 10])
                end = pair.b if at else pair.a  # our end, or the switch's
                end.run("ip", "link", "set", "veth0", "down")
                node.announce(told[at + 10 : at + 20])
                run.read()
                end.run("ip", "link", "set", "veth0", "up")
                run.until(brought(at + 20), 15)
            summary = run.stop()
    assert seen(tmp_path) == hashes(told)
    assert summary["streams"]["node"]["failures"] == 0


@pytest.mark.slow
def test_a_link_that_stays_down_and_comes_back(via: str, tmp_path: Path) -> None:  # noqa: F811
    with Pair() as pair, Node(pair.b) as node:
        source = {"node": f'url = "{node.url}"'}
        with Run(tmp_path, configured(tmp_path, via, source), pair.a) as run:
            run.until(live("node"))
            told = make_some(40, 4)
            node.announce(told[:20])
            run.until(brought(20))
            pair.b.run("ip", "link", "set", "veth0", "down")
            node.announce(told[20:])
            said = run.until(lambda said: said["streams"]["node"]["failures"] > 0, 25)
            assert "no sign of life within 10 s" in said["streams"]["node"]["ended"]
            pair.b.run("ip", "link", "set", "veth0", "up")
            run.until(live("node"), 25)
            run.until(brought(40))  # from the pool: their connection is no more
            summary = run.stop()
    assert seen(tmp_path) == hashes(told)
    assert summary["streams"]["node"]["hole"]["filled"] >= 20


def test_a_gateway_whose_mac_address_changes(via: str, tmp_path: Path) -> None:  # noqa: F811
    """As when a standby router takes over: it announces itself (RFC 5227, 3)."""
    with Pair() as pair:
        authority = Authority(tmp_path)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*authority.issue(BEYOND))
        pair.a.run("ip", "route", "add", "10.99.0.0/24", "via", pair.b.ip4)
        pair.b.run("ip", "addr", "add", f"{BEYOND}/32", "dev", "lo")
        with pair.b:
            Path("/proc/sys/net/ipv4/conf/veth0/arp_notify").write_text("1")
        with Node(pair.b, context=context, address=BEYOND) as node:
            source = {"node": f'url = "{node.url}"\nca_file = "{authority.ca}"'}
            with Run(tmp_path, configured(tmp_path, via, source), pair.a) as run:
                run.until(live("node"))
                told = make_some(120, 3)
                node.announce(told[:20])
                run.until(brought(20))
                pair.b.run("ip", "link", "set", "veth0", "address", "02:00:00:00:55:99")
                run.read()
                node.announce(told[20:])
                run.until(brought(120))  # more than the server sends without our acknowledgement
                summary = run.stop()
    assert seen(tmp_path) == hashes(told)
    assert summary["streams"]["node"]["failures"] == 0
