"""When one source connects, to which of its addresses, and how it leaves; on a given clock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from websockets.frames import Close
from websockets.server import ServerProtocol

from appliance.config_sources import Source, Url
from appliance.names import Found
from appliance.stream_line import Line
from barewire._native import ffi
from barewire.feeds.txfeed import BURST
from barewire.mempool.decoder import Decoder, Rules
from dpdk_bindings import StreamState
from dpdk_bindings.errors import BindingsError

SECOND = 1_000_000_000
ADDRESSES = ["192.0.2.1", "2001:db8::2", "192.0.2.3"]


class Wire:
    """A connection that does as the test says."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.state = StreamState.CONNECTING
        self.why, self.error = "", 0
        self.readable = self.arrival_ns = self.clock = 0
        self.sent, self.ended = b"", ""

    def send(self, data: Any, offset: int = 0, /) -> int:
        self.sent += bytes(data[offset:])
        return len(data) - offset

    def close(self) -> None:
        self.ended = "closed"

    def abort(self) -> None:
        self.ended = "aborted"


class World:
    """The endpoint and the names of one line."""

    def __init__(self, addresses: list[str]) -> None:
        self.addresses = addresses
        self.wires: list[Wire] = []
        self.unreachable = ""
        world: Any = self
        self.line = Line(
            Source(name="node", url=Url.parse("ws://node.example:8546/ws")),
            0,
            endpoint=world,
            names=world,
            where=Path("/nowhere"),
            decoder=Decoder(Rules.preset("osaka", 1)),
            heard=lambda *_: False,
        )

    def ask(self, host: str) -> int:
        assert host == "node.example"
        return 1

    def answer(self, number: int) -> Found:
        return Found(number, list(self.addresses))

    def connect(self, address: str, port: int, *, tls: bool) -> Wire:
        assert (port, tls) == (8546, False)
        if address == self.unreachable:
            raise BindingsError(f"{address} cannot be reached")
        self.wires.append(Wire(address))
        return self.wires[-1]

    @property
    def tried(self) -> list[str]:
        return [wire.address for wire in self.wires]


def test_a_dead_address_costs_a_quarter_of_a_second() -> None:
    world = World(ADDRESSES)
    line = world.line
    for now in (0, 100, 200, 300):
        line.housekeeping(now * 1_000_000)
    assert world.tried == ADDRESSES[:1]
    line.housekeeping(400_000_000)
    assert world.tried == ADDRESSES[:2]
    world.wires[1].state = StreamState.OPEN
    line.housekeeping(500_000_000)
    assert line.pipe is world.wires[1]
    assert line.stats()["state"] == "connecting"
    assert world.wires[0].ended == "aborted"
    assert world.wires[1].sent.startswith(b"GET /ws HTTP/1.1\r\nHost: node.example:8546\r\n")
    for now in (700, 1500, 3000):
        line.housekeeping(now * 1_000_000)
    assert world.tried == ADDRESSES[:2]


def test_a_refused_address_costs_nothing_and_each_attempt_begins_with_another() -> None:
    world = World(ADDRESSES)
    world.unreachable = ADDRESSES[1]
    line = world.line
    line.housekeeping(0)
    line.housekeeping(0)
    world.wires[0].state, world.wires[0].why = StreamState.FAILED, "Connection refused"
    line.housekeeping(SECOND)
    assert world.tried == [ADDRESSES[0], ADDRESSES[2]]
    assert line.ended == {}
    world.wires[1].state, world.wires[1].why = StreamState.FAILED, "No route to host"
    line.housekeeping(2 * SECOND)
    assert line.ended == {"No route to host": 1}
    for _ in range(3):
        line.housekeeping(10 * SECOND)
    assert world.tried[2] == ADDRESSES[2]  # the one that raised was the first of this attempt


def test_nobody_answers() -> None:
    world = World(ADDRESSES)
    line = world.line
    for now in range(0, 12_000, 100):
        line.housekeeping(now * 1_000_000)
        if line.ended:
            break
    assert line.ended == {"not subscribed within 10 s": 1}
    assert world.tried == ADDRESSES
    assert {wire.ended for wire in world.wires} == {"aborted"}


def shaken(world: World) -> ServerProtocol:
    """The node's side of the connection, after the handshake."""
    world.line.housekeeping(0)
    world.line.housekeeping(0)
    server = ServerProtocol()
    [wire] = world.wires
    wire.state = StreamState.OPEN
    world.line.housekeeping(SECOND)
    server.receive_data(wire.sent)
    [request] = server.events_received()
    server.send_response(server.accept(request))
    wire.sent = b""
    hear(world, server)
    return server


def hear(world: World, server: ServerProtocol) -> None:
    """The line takes what the node said."""
    world.line.session.lend(b"".join(server.data_to_send()), 1, 1)
    messages, records = ffi.new("struct bw_message[]", BURST), ffi.new("struct bw_tx[]", BURST)
    world.line.session.read_into(messages, records)
    world.line.send()
    server.receive_data(world.wires[0].sent)
    world.wires[0].sent = b""


def test_goodbye_is_answered_and_the_connection_ended_in_order() -> None:
    """RFC 6455, 5.5.1 and 7.1.1."""
    world = World(ADDRESSES[:1])
    server = shaken(world)
    server.send_close(1001, "restart")
    hear(world, server)
    assert server.close_rcvd == Close(1001, "restart")
    world.line.housekeeping(2 * SECOND)
    assert world.wires[0].ended == "closed"
    assert world.line.ended == {"closed by the other side: 1001 restart": 1}


def test_whoever_stops_says_goodbye() -> None:
    world = World(ADDRESSES[:1])
    server = shaken(world)
    world.line.close()
    server.receive_data(world.wires[0].sent)
    assert server.close_rcvd == Close(1001, "")
    assert world.wires[0].ended == "closed"


@pytest.mark.parametrize("addresses", [ADDRESSES[:1], ADDRESSES])
def test_closing_says_goodbye_or_gives_up(addresses: list[str]) -> None:
    world = World(addresses)
    line = world.line
    for now in (0, SECOND):
        line.housekeeping(now)
    line.close()
    assert all(wire.ended for wire in world.wires)
