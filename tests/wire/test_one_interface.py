"""A feed and streams on one AF_XDP interface: one port, shared by all that name it."""

from __future__ import annotations

import json
import random
import threading
import time
from contextlib import contextmanager

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve

from appliance.config import Source, Via
from appliance.demo.traffic import build
from appliance.lab import Pair
from appliance.metrics.places import Counter
from appliance.ports import Ports
from barewire.feeds.envelope import to_messages
from barewire.keccak import keccak256
from dpdk_bindings.datagram import Channel, open_datagram
from dpdk_bindings.errors import BindingsError
from dpdk_bindings.port import Port
from dpdk_bindings.stream import open_stream
from tests.requires import requires_root
from tests.transactions import envelope, make
from tests.unit.txjson_texts import notification, spelled
from tests.wire.rig import Rig, lossy

FIELDS = [make(random.Random(n), 2, 1) for n in range(300)]
TOLD = [json.dumps(notification(spelled(2, fields))) for fields in FIELDS]
TOLD_HASHES = {keccak256(envelope(2, fields)).hex() for fields in FIELDS}


@pytest.fixture(scope="module")
def pair():
    requires_root()
    with Pair() as made:
        yield made


class Node:
    """Tells TOLD, a part on each of its connections, then hangs up, but for the last part."""

    def __init__(self, parts: int) -> None:
        self._size = -(-len(TOLD) // parts)
        self._lock = threading.Lock()
        self._next = 0
        self.connections = 0
        self.told = 0

    def talk(self, connection) -> None:
        try:
            while True:
                request = json.loads(connection.recv())
                connection.send(json.dumps({"id": request["id"], "result": "0x1"}))
                if request["method"] == "eth_subscribe" and self._tell(connection):
                    return
        except ConnectionClosed:
            return

    def _tell(self, connection) -> bool:
        with self._lock:
            part = TOLD[self._next : self._next + self._size]
            self._next += self._size
            self.connections += 1
        for at in range(0, len(part), 10):
            for text in part[at : at + 10]:
                connection.send(text)
                self.told += 1
            time.sleep(0.001)
        return self._next < len(TOLD)


@contextmanager
def node(pair: Pair, parts: int):
    told = Node(parts)
    with pair.a:
        server = serve(told.talk, pair.a.ip4, 0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield told, f"ws://{pair.a.ip4}:{server.socket.getsockname()[1]}"
    finally:
        server.shutdown()
        thread.join(10)


def test_a_feed_and_two_streams_share_a_port(pair, tmp_path):
    """Lossy lines, retransmission, and a node that hangs up twice, all at once."""
    envelopes = build(400, 9, lambda _: None)
    messages = [m for n, raw in enumerate(envelopes) for m in to_messages(raw, 1450, n)]
    via = f'via = "afxdp:{pair.b.interface}"'
    with node(pair, 3) as (first, url), node(pair, 1) as (second, other):
        sources = (
            f'[[source]]\nname = "node"\nurl = "{url}"\n{via}\n'
            f'[[source]]\nname = "other"\nurl = "{other}"\n{via}\n'
        )
        with Rig(pair, tmp_path, extra=sources) as rig:
            rig.publish(messages, faults={0: lossy(0.2, 1), 1: lossy(0.2, 2)}, every_s=0.002)
            until = time.monotonic() + 30
            while first.told + second.told < 2 * len(TOLD):
                assert time.monotonic() < until
                rig.settle(0.05)
            rig.arrive()
            rig.reach(Counter.TRANSACTIONS_DECODED, len(envelopes) + 2 * len(TOLD))
            stopped = rig.stop()
    assert (first.connections, second.connections) == (3, 1)
    hashes = {keccak256(raw).hex() for raw in envelopes}
    assert len(stopped.hashes) == len(set(stopped.hashes))
    assert set(stopped.hashes) == hashes | TOLD_HASHES
    assert stopped.feed["lost"] == 0
    assert stopped.feed["endpoint"]["port_share_dropped"] == 0
    streams = stopped.summary["streams"]
    assert [streams[name]["transactions"] for name in ("node", "other")] == [300, 300]
    assert "xdp" not in pair.b.run("ip", "link", "show", pair.b.interface)


def source(name: str, via: str, fallback: str | None = None, **more) -> Source:
    return Source(name=name, via=Via(via), fallback=Via(fallback) if fallback else None, **more)


def test_whoever_is_alone_on_an_interface_has_it_to_itself():
    ports = Ports([source("a", "afxdp:eth0"), source("b", "kernel"), source("c", "kernel")])
    assert ports.open(source("a", "afxdp:eth0"), lambda way: way) == "afxdp:eth0"
    assert ports.open(source("b", "kernel"), lambda way: way) == "kernel"


def test_a_fallback_is_said_and_streams_share_what_was_opened():
    wants = source("a", "afxdp:nosuch0", "kernel")
    opened: dict[str, object] = {}
    ports = Ports([wants])

    def opener(way):
        if way != "kernel":
            raise BindingsError("no such thing", hint="look for it")
        return object()

    one = ports.open(wants, opener, opened)
    assert ports.open(wants, opener, opened) is one
    why = "no such thing; look for it"
    said = f"source a: afxdp:nosuch0 cannot be had ({why}): its fallback kernel is used"
    assert ports.warnings == [said, said]
    with pytest.raises(BindingsError, match="no such thing"):
        ports.open(source("b", "afxdp:nosuch0"), opener)


def test_a_member_that_could_not_be_opened_leaves_the_port_to_the_others(pair):
    via = f"afxdp:{pair.b.interface}"
    wants = [source("a", via), source("b", via)]
    with pair.b:
        ports = Ports(wants)
        seen: list[Port] = []

        def broken(way):
            seen.append(way)
            raise BindingsError("not this one")

        with pytest.raises(BindingsError):
            ports.open(wants[0], broken)
        assert seen[0].closed
        # The port was closed with its only member, and is opened again for the next.
        channels = [Channel(pair.b.ip4, 9555)]
        endpoint = ports.open(wants[1], lambda way: open_datagram(way, channels=channels))
        with pytest.raises(BindingsError):
            ports.open(wants[0], broken)
        streams = ports.open(wants[0], open_stream)
        streams.close()
        endpoint.close()
        assert "xdp" not in pair.b.run("ip", "link", "show", pair.b.interface)


def test_a_feed_takes_its_fallback_too(pair, tmp_path):
    envelopes = build(50, 11, lambda _: None)
    messages = [m for n, raw in enumerate(envelopes) for m in to_messages(raw, 1450, n)]
    with Rig(pair, tmp_path, via='afxdp:nosuch0"\nfallback = "kernel') as rig:
        rig.publish(messages)
        rig.arrive()
        stopped = rig.stop()
    assert set(stopped.hashes) == {keccak256(raw).hex() for raw in envelopes}
