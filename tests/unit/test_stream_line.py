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
from appliance.unix_pipe import UnixPipe
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
        self.room = 1 << 20

    def send(self, data: Any, offset: int = 0, /) -> int:
        taken = bytes(data[offset : offset + self.room])
        self.sent += taken
        return len(taken)

    def close(self) -> None:
        self.ended = "closed"

    def abort(self) -> None:
        self.ended = "aborted"


class World:
    """The endpoint and the names of one line."""

    def __init__(self, addresses: list[str], url: str = "ws://node.example:8546/ws") -> None:
        self.addresses = addresses
        self.interface: str | None = None
        self.wires: list[Wire] = []
        self.unreachable = ""
        world: Any = self
        self.line = Line(
            Source(name="node", url=Url.parse(url)),
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

    def connect(self, address: str, port: int, *, interface: str | None, tls: bool) -> Wire:
        assert (port, interface, tls) == (8546, self.interface, False)
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


@pytest.mark.parametrize(
    ("url", "found", "interface"),
    [
        ("ws://[fe80::1%25Eth0.5]:8546", [], "Eth0.5"),  # RFC 6874
        ("ws://[fe80::1%eth0]:8546", [], "eth0"),  # as many write it
        ("ws://[fe80::1]:8546", [], None),
        ("ws://node.example:8546", ["fe80::1%eth0"], "eth0"),  # as getaddrinfo() does
    ],
)
def test_a_zone_is_the_interface_and_nobody_elses_affair(
    url: str, found: list[str], interface: str | None
) -> None:
    world = World(found, url)
    world.interface = interface
    world.line.housekeeping(0)
    world.line.housekeeping(0)
    assert world.tried == ["fe80::1"]
    [wire] = world.wires
    wire.state = StreamState.OPEN
    world.line.housekeeping(SECOND)
    assert b"%" not in wire.sent


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


@pytest.mark.parametrize(("room", "lives"), [(0, False), (1, True)])
def test_a_peer_that_says_much_and_reads_nothing_is_let_go(room: int, lives: bool) -> None:
    """However much it says: what cannot be written is bounded in time as well."""
    world = World(ADDRESSES[:1])
    server = shaken(world)
    [wire] = world.wires
    server.send_text(b'{"id":1,"result":"0x1"}')
    hear(world, server)
    for second in range(1, 30):
        server.send_ping(b"?")
        server.send_text(b'{"method":"eth_subscription","params":{"result":null}}')
        wire.room = 0
        hear(world, server)
        wire.room = room
        world.line.housekeeping(second * SECOND)
        wire.room = 0
        if world.line.pipe is None:
            break
    assert (world.line.pipe is not None) == lives
    assert lives or world.line.ended == {"the other side reads nothing of what it is sent": 1}
    assert lives or 10 < second < 16


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


def test_a_socket_whose_path_is_too_long_says_so() -> None:
    pipe = UnixPipe("/run/" + "x" * 200)
    assert pipe.state is StreamState.FAILED
    assert pipe.why == "AF_UNIX path too long"
    pipe.abort()
