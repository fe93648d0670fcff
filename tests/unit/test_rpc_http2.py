"""HTTP/2 servers that go away or refuse: what they name ends, everything else goes on.

The server speaks in frames of `hyperframe`, so that it can say what no well-behaved library would.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from hpack import Encoder
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from barewire.rpc.addresses import Address
from barewire.rpc.client import RpcClient
from barewire.rpc.config import ProviderConfig, RpcConfig
from barewire.rpc.faults import AllProvidersFailed, Fault, Trouble
from barewire.rpc.transports.base import Exchange
from barewire.rpc.transports.dial import Dialer
from barewire.rpc.transports.http2 import Http2Channel, _Connection, _Frames
from tests.stream_server import StreamServer

pytestmark = pytest.mark.asyncio
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_NAMED = 0x7FFFFFFF


class Wire:
    """One connection: every whole request is handed to the node's script."""

    def __init__(self, node: Node, writer: asyncio.StreamWriter) -> None:
        self.node = node
        self.writer = writer
        self.encoder = Encoder()
        self.bodies: dict[int, bytes] = {}

    def send(self, *frames: Frame) -> None:
        self.writer.write(b"".join(frame.serialize() for frame in frames))

    def answer(self, stream: int, asked: dict[str, Any], value: Any) -> None:
        body = json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": value}).encode()
        headers = HeadersFrame(stream, self.encoder.encode([(":status", "200")]))
        headers.flags.add("END_HEADERS")
        data = DataFrame(stream, body)
        data.flags.add("END_STREAM")
        self.send(headers, data)

    def goodbye(self, last: int) -> None:
        self.send(GoAwayFrame(0, last_stream_id=last))

    def refuse(self, stream: int) -> None:
        self.send(RstStreamFrame(stream, error_code=7))


class Node:
    """A node whose script is called with (wire, stream, request) for what no health check asks."""

    def __init__(self, script: Callable[[Wire, int, dict[str, Any]], None]) -> None:
        self.script = script
        self.asked: list[str] = []
        self.connected = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = Wire(self, writer)
        self.connected += 1
        wire.send(SettingsFrame(0))
        assert await reader.readexactly(len(_PREFACE)) == _PREFACE
        while True:
            frame, length = Frame.parse_frame_header(memoryview(await reader.readexactly(9)))
            frame.parse_body(memoryview(await reader.readexactly(length)))
            if isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
                wire.send(SettingsFrame(0, flags=["ACK"]))
            elif isinstance(frame, DataFrame):
                body = wire.bodies.get(frame.stream_id, b"") + frame.data
                wire.bodies[frame.stream_id] = body
                if "END_STREAM" in frame.flags:
                    self.take(wire, frame.stream_id, json.loads(body))

    def take(self, wire: Wire, stream: int, asked: dict[str, Any]) -> None:
        if asked["method"] == "eth_chainId":
            wire.answer(stream, asked, "0x1")
        elif asked["method"] == "eth_getBlockByNumber":
            wire.answer(stream, asked, {"number": "0x64", "hash": "0x" + "00" * 32})
        else:
            self.asked.append(asked["params"][0])
            self.script(wire, stream, asked)


@asynccontextmanager
async def client_of(node: Node) -> AsyncIterator[RpcClient]:
    server = StreamServer(node.serve)
    url = f"http://127.0.0.1:{await server.listen()}"
    config = RpcConfig(
        providers=[ProviderConfig(name="h2", http=url, http2=True, batch_items=1)],
        mirror_share=0.0,
        check_ms=60_000,
    )
    try:
        async with asyncio.timeout(20), RpcClient(config) as client:
            yield client
    finally:
        await server.close()


def sends(client: RpcClient, *names: str) -> list[asyncio.Task[Any]]:
    """Calls that may be carried out once only."""
    return [asyncio.create_task(client.request("eth_sendTransaction", [n])) for n in names]


async def test_a_goodbye_ends_only_what_it_names():
    """The first is answered on the old connection, the second goes out again on a new one."""
    late: list[tuple[Wire, int, dict[str, Any]]] = []

    def script(wire: Wire, stream: int, asked: dict[str, Any]) -> None:
        if node.connected > 1:
            wire.answer(stream, asked, "new")
            old, number, first = late[0]
            old.answer(number, first, "old")
            return
        late.append((wire, stream, asked))
        if len(late) == 2:
            wire.goodbye(late[0][1])

    node = Node(script)
    async with client_of(node) as client:
        assert await asyncio.gather(*sends(client, "a", "b")) == ["old", "new"]
        assert node.asked == ["a", "b", "b"]  # the RFC promises that the first "b" was not touched
        assert client.pool.providers[0].tally.faults == {}
        assert await sends(client, "c")[0] == "new"


async def test_a_goodbye_in_two_steps():
    """As servers written in Go say it: first that they will go, then what the last one was."""
    held: list[tuple[Wire, int, dict[str, Any]]] = []

    def script(wire: Wire, stream: int, asked: dict[str, Any]) -> None:
        if node.connected > 1:
            wire.answer(stream, asked, "new")
            return
        held.append((wire, stream, asked))
        if len(held) == 1:
            wire.goodbye(_NAMED)
            wire.send(PingFrame(0, opaque_data=b"12345678"))
            asyncio.get_running_loop().call_soon(finish)

    def finish() -> None:
        wire, stream, asked = held[0]
        wire.answer(stream, asked, "old")
        wire.goodbye(stream)
        wire.writer.close()

    node = Node(script)
    async with client_of(node) as client:
        assert await sends(client, "a")[0] == "old"
        assert await sends(client, "b")[0] == "new"
        assert node.asked == ["a", "b"]


async def test_what_was_named_and_not_answered_is_not_sent_again():
    def script(wire: Wire, stream: int, asked: dict[str, Any]) -> None:
        wire.goodbye(stream)
        wire.writer.close()

    node = Node(script)
    async with client_of(node) as client:
        with pytest.raises(AllProvidersFailed) as caught:
            await sends(client, "a")[0]
        assert "may have been carried out" in caught.value.hint
        assert node.asked == ["a"]


async def test_a_goodbye_of_one_stream_is_none():
    """RFC 9113, 6.8: it is a connection's, else a protocol error; so nothing goes out again."""

    def script(wire: Wire, stream: int, asked: dict[str, Any]) -> None:
        said = GoAwayFrame(0, last_stream_id=0).serialize()
        wire.writer.write(said[:5] + stream.to_bytes(4, "big") + said[9:])

    node = Node(script)
    async with client_of(node) as client:
        with pytest.raises(AllProvidersFailed) as caught:
            await sends(client, "a")[0]
        assert "may have been carried out" in caught.value.hint
        assert node.asked == ["a"]


async def test_a_refused_stream_goes_out_again_and_not_for_ever():
    refused = 1

    def script(wire: Wire, stream: int, asked: dict[str, Any]) -> None:
        if len(node.asked) <= refused:
            wire.refuse(stream)
        else:
            wire.answer(stream, asked, "done")

    node = Node(script)
    async with client_of(node) as client:
        assert await sends(client, "a")[0] == "done"
        assert node.connected == 1
        refused = 1_000
        with pytest.raises(AllProvidersFailed) as caught:
            await sends(client, "b")[0]
        assert "may have been" not in caught.value.hint
        assert 3 <= node.asked.count("b") <= 9  # three times a round


async def test_goodbyes_are_found_however_the_stream_is_cut():
    rng = random.Random(7)
    for _ in range(50):
        frames: list[Frame] = []
        for _ in range(rng.randrange(1, 12)):
            if rng.random() < 0.3:
                frames.append(GoAwayFrame(0, last_stream_id=rng.randrange(1, 99)))
            else:
                frames.append(DataFrame(1, rng.randbytes(rng.randrange(0, 300))))
        stream = b"".join(frame.serialize() for frame in frames)
        found, cutter = b"", _Frames()
        while stream:
            cut = rng.randrange(1, 200)
            found += cutter.feed(stream[:cut])
            stream = stream[cut:]
        gone = [f.last_stream_id for f in frames if isinstance(f, GoAwayFrame)]
        assert cutter.last == (min(gone) if gone else None)
        assert found == b"".join(f.serialize() for f in frames if not isinstance(f, GoAwayFrame))


class Unread:
    """A transport to someone who reads at times."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.aborted = False

    def write(self, data: bytes) -> None:
        self.written += data

    def get_write_buffer_size(self) -> int:
        return len(self.written)

    def get_extra_info(self, name: str) -> None:
        """It has none: it is not TLS."""

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True


class Told:
    """A sink that keeps what it is told."""

    def __init__(self) -> None:
        self.troubles: list[Trouble] = []
        self.whys: list[str] = []

    def broke(self, exchange: Exchange, trouble: Trouble) -> None:
        self.troubles.append(trouble)

    def down(self, channel: Http2Channel, why: str) -> None:
        self.whys.append(why)


def up(sink: Any, transport: Unread) -> tuple[Http2Channel, _Connection]:
    """A channel and its one connection, whose other side has sent its settings."""
    channel = Http2Channel(Address("http://node.example"), sink, Dialer())
    connection = _Connection(channel)
    connection.connection_made(cast(Any, transport))
    connection.begin()
    channel._current, channel.is_up = connection, True
    connection.data_received(SettingsFrame(0).serialize())
    return channel, connection


@pytest.mark.parametrize("frame", [PingFrame(0, b"01234567"), SettingsFrame(0, {3: 50})])
async def test_who_asks_on_and_reads_nothing_is_cut(frame: Frame):
    told, transport = Told(), Unread()
    sink: Any = told
    _, connection = up(sink, transport)
    connection.carry(Exchange(1, b"{}", [], sink))
    connection.flush()
    for _ in range(100):  # who reads is answered for as long as he likes
        connection.data_received(frame.serialize() * 100)
        del transport.written[:]
    assert not transport.aborted
    for _ in range(10_000):
        connection.data_received(frame.serialize())
        if transport.aborted:
            break
    assert transport.aborted
    assert len(transport.written) < 70_000
    assert [trouble.fault for trouble in told.troubles] == [Fault.PROVIDER]
    assert told.whys == ["HTTP/2: asks on and on, and reads no answers"]


@pytest.mark.parametrize("asked", ["window", "cancel", "early answer"])
async def test_a_stream_may_have_ended_before_that_is_told(asked: str):
    """h2 has read all of what came at once when it tells of the first of it."""
    told, transport = Told(), Unread()
    sink: Any = told
    channel, connection = up(sink, transport)
    long, short = Exchange(1, b" " * 100_000, [], sink), Exchange(2, b"{}", [], sink)
    assert connection.carry(long)  # more than the window lets out
    assert connection.carry(short)
    connection.flush()
    del transport.written[:]
    refused = RstStreamFrame(1, error_code=0)
    if asked == "window":
        frames: list[Frame] = [WindowUpdateFrame(0, window_increment=1 << 20)]
    elif asked == "cancel":  # as when the other answer of a hedge comes
        sink.broke = lambda exchange, trouble: (
            told.troubles.append(trouble),
            channel.cancel(long) if exchange is short else None,
        )
        frames = [RstStreamFrame(3, error_code=2)]
    else:
        headers = HeadersFrame(1, Encoder().encode([(":status", "413")]))
        headers.flags.add("END_HEADERS")
        headers.flags.add("END_STREAM")
        frames = [headers]
    connection.data_received(b"".join(frame.serialize() for frame in [*frames, refused]))
    assert len(told.troubles) == 1, told.troubles
    assert not transport.aborted
    assert not any(stream.exchange is long for stream in connection.streams.values())
