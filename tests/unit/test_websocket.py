"""WebSocket frames against `websockets`' own parser, and the handshake against its server."""

import random
import struct
import zlib

import pytest
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import Protocol, Side
from websockets.protocol import State as TheirState
from websockets.server import ServerProtocol

from barewire._native import ffi, lib
from barewire.errors import BarewireError
from barewire.feeds.websocket import Closed, Message, Opened, Pong, State, WebSocket

LIMIT = 3000


def shaken(**options) -> tuple[WebSocket, ServerProtocol]:
    """Both ends after the handshake."""
    extensions = [ServerPerMessageDeflateFactory()] if options.pop("server_deflate", False) else []
    client = WebSocket("ws://node.example:8546/path?a=b", **options)
    server = ServerProtocol(extensions=extensions, max_size=None)
    server.receive_data(client.data_to_send())
    [request] = server.events_received()
    assert request.path == "/path?a=b"
    server.send_response(server.accept(request))
    [opened] = client.receive(b"".join(server.data_to_send()))
    assert isinstance(opened, Opened)
    assert opened.headers["upgrade"] == "websocket"
    return client, server


def from_server(server: ServerProtocol) -> bytes:
    return b"".join(server.data_to_send())


def raw(opcode, payload=b"", *, fin=True, rsv=0, mask=False, wide=0, claim=None) -> bytes:
    """A frame as nobody should send it."""
    size = len(payload) if claim is None else claim
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    bit = 0x80 if mask else 0
    if size < 126 and not wide:
        head += bytes([bit | size])
    elif size < 65536 and wide < 8:
        head += struct.pack("!BH", bit | 126, size)
    else:
        head += struct.pack("!BQ", bit | 127, size)
    return head + (b"\1\2\3\4" if mask else b"") + payload


def stream(rng: random.Random) -> bytes:
    """A conversation that is mostly in order."""
    out, inside = [], False
    for _ in range(rng.randrange(1, 12)):
        draw = rng.random()
        fin = rng.random() < 0.6
        sizes = [0, 1, 7, 8, 125, 126, 127, 500, 900, LIMIT, LIMIT + 1]
        payload = rng.randbytes(rng.choice(sizes if draw < 0.5 else sizes[:6]))
        wide = rng.choice([0, 0, 0, 2, 8])
        if draw < 0.55:
            wrong = rng.random() < 0.05
            opcode = 0 if inside != wrong else rng.choice([1, 2])
            out.append(raw(opcode, payload, fin=fin, wide=wide))
            inside = not fin
        elif draw < 0.8:
            out.append(raw(rng.choice([9, 10]), payload, fin=rng.random() < 0.97, wide=wide))
        elif draw < 0.87:
            code = rng.choice([999, 1000, 1001, 1003, 1004, 1005, 1006, 1007, 1014, 1015, 1016])
            code = rng.choice([code, 2999, 3000, 4999, 5000, rng.getrandbits(16)])
            reason = rng.choice(
                [b"", b"bye", "grün".encode(), b"\xff", b"\xed\xa0\x80", b"x" * 123]
            )
            out.append(raw(8, rng.choice([b"", b"\3", code.to_bytes(2, "big") + reason])))
        elif draw < 0.9:
            out.append(raw(rng.randrange(16), payload, rsv=rng.choice([0, 0, 1, 2, 4]), fin=fin))
        elif draw < 0.92:
            out.append(raw(1, payload, mask=True))
        elif draw < 0.94:
            out.append(raw(2, claim=rng.choice([LIMIT + 1, 1 << 20, 1 << 40, 2**64 - 1])))
        else:
            out.append(raw(1, payload))
    return b"".join(out)


def theirs(data: bytes) -> list:
    """What `websockets` makes of it: whole messages, pings, pongs, how it ended, what it sends."""
    protocol = Protocol(Side.CLIENT, state=TheirState.OPEN, max_size=LIMIT)
    protocol.receive_data(data)
    said, parts, kind = [], [], None
    for frame in protocol.events_received():
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            kind = frame.opcode if frame.opcode is not Opcode.CONT else kind
            parts.append(bytes(frame.data))
            if frame.fin:
                said.append(Message(b"".join(parts), kind is Opcode.TEXT))
                parts = []
        elif frame.opcode is Opcode.PONG:
            said.append(Pong(bytes(frame.data)))
    if protocol.parser_exc is not None:
        said.append((protocol.close_sent.code, False))
    elif protocol.close_rcvd is not None:
        said.append((protocol.close_rcvd.code, protocol.close_rcvd.reason))
    # Of pings that came before anything was sent the last is answered (RFC 6455, 5.5.3).
    *pongs, last = [(None, b""), *sent(b"".join(protocol.data_to_send()))]
    if last[0] is Opcode.CLOSE:
        return [said, [*[pong for pong in pongs[-1:] if pong[0]], last]]
    return [said, [last] if last[0] else []]


def sent(data: bytes) -> list:
    """Frames that a client sent, unmasked; of those that close, the code."""
    server = ServerProtocol(max_size=None, state=TheirState.OPEN)
    server.parser = Protocol.parse(server)
    next(server.parser)
    server.receive_data(data)
    frames = []
    for frame in server.events_received():
        payload = bytes(frame.data)
        closes = frame.opcode is Opcode.CLOSE
        frames.append((frame.opcode, Close.parse(payload).code if closes else payload))
    assert server.parser_exc is None
    return frames


def ours(data: bytes, rng: random.Random) -> list:
    client = open_client()
    said = []
    at = 0
    while at < len(data):
        size = rng.choice([1, 1, 2, 3, 10, 100, 1000, len(data)])
        for event in client.receive(data[at : at + size]):
            if isinstance(event, Closed):
                event = (event.code, event.reason if event.by_peer else False)
            said.append(event)
        at += size
    return [said, sent(client.data_to_send())]


def open_client(**options) -> WebSocket:
    client = WebSocket("ws://node.example", max_message=LIMIT, **options)
    client.data_to_send()
    client.state = State.OPEN
    return client


@pytest.mark.parametrize("seed", range(4))
def test_the_same_as_websockets_makes_of_it(seed):
    rng = random.Random(seed)
    ends = set()
    for _ in range(700):
        data = stream(rng)
        expected = theirs(data)
        assert ours(data, rng) == expected, data.hex()
        ends.add(expected[0][-1] if expected[0] and isinstance(expected[0][-1], tuple) else None)
    codes = {end[0] for end in ends if end}
    assert {1002, 1005, 1007, 1009} <= codes
    assert codes & {1000, 1001, 1003, 3000, 4999}


@pytest.mark.parametrize("seed", range(2))
def test_garbage_ends_as_with_websockets(seed):
    rng = random.Random(seed)
    for _ in range(1000):
        # What `websockets` finds wrong only behind the payload is found at once here.
        data = rng.randbytes(rng.randrange(1, 40)) + bytes(70000)
        [mine, _], [other, _] = ours(data, random.Random(1)), theirs(data)
        assert mine[-1:] == other[-1:], data[:40].hex()


def test_what_a_client_sends_is_masked_and_whole():
    client, server = shaken()
    messages = [random.Random(n).randbytes(n) for n in (0, 1, 125, 126, 65535, 65536)]
    for message in messages:
        client.send(message, text=False)
    client.ping(b"here")
    data = client.data_to_send()
    assert data[1] & 0x80
    server.receive_data(data)
    frames = server.events_received()
    assert [bytes(frame.data) for frame in frames] == [*messages, b"here"]
    [pong] = client.receive(from_server(server))
    assert pong == Pong(b"here")


def test_closing_from_here():
    client, server = shaken()
    client.close(1001, "restart")
    assert client.state is State.CLOSING
    with pytest.raises(BarewireError, match="closing"):
        client.send(b"too late")
    server.send_text(b"on its way")
    server.receive_data(client.data_to_send())
    assert server.close_rcvd == Close(1001, "restart")
    assert client.receive(from_server(server)) == [
        Message(b"on its way", text=True),
        Closed(1001, "restart", by_peer=True),
    ]
    assert client.receive_eof() == []
    assert client.data_to_send() == b""


def test_the_stream_ends_in_the_middle():
    client, server = shaken()
    server.send_text(b"half", fin=False)
    assert client.receive(from_server(server)) == []
    assert client.receive_eof() == [
        Closed(1006, "the stream ended without a close frame", by_peer=False)
    ]


def test_frames_behind_the_handshake_in_one_piece():
    client = WebSocket("ws://node.example", headers={"Authorization": "abc"})
    server = ServerProtocol()
    server.receive_data(client.data_to_send())
    [request] = server.events_received()
    assert request.headers["Authorization"] == "abc"
    server.send_response(server.accept(request))
    server.send_text(b"first")
    data = from_server(server)
    events = [event for byte in data for event in client.receive(bytes([byte]))]
    assert isinstance(events[0], Opened)
    assert events[1:] == [Message(b"first", text=True)]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 4\r\n\r\nno: ", "401"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "Connection"),
        (b"220 mail.example ESMTP\r\n\r\n", "HTTP"),
        (b"HTTP/1.1 101 OK\r\nA: " + b"x" * (64 << 10) + b"yz", "more than 65536 bytes"),
        (b"\xff\xfe\r\n\r\n", ""),
    ],
)
def test_a_handshake_that_fails_says_why(answer, words):
    client = WebSocket("ws://node.example")
    [closed] = client.receive(answer)
    assert closed.code == 1006
    assert words in closed.reason
    assert client.state is State.CLOSED


def test_a_wrong_accept_is_no_agreement():
    client = WebSocket("ws://node.example")
    [closed] = client.receive(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n"
    )
    assert "Accept" in closed.reason


def test_deflate_is_off_unless_asked_for():
    client, server = shaken(server_deflate=True)
    assert server.extensions == []
    [closed] = client.receive(raw(1, b"x", rsv=4))
    assert closed.code == 1002


def test_deflated_messages():
    client, server = shaken(deflate=True, server_deflate=True)
    assert server.extensions
    rng = random.Random(0)
    messages = [(b'{"hash":"%d"}' % rng.getrandbits(200)) * rng.randrange(50) for _ in range(40)]
    for number, message in enumerate(messages):
        half = len(message) // 2 * (number % 2)
        if half:
            server.send_text(message[:half], fin=False)
            server.send_ping(b"in between")
            server.send_continuation(message[half:], fin=True)
        else:
            server.send_text(message)
    got = []
    data = from_server(server)
    for at in range(0, len(data), 77):
        got += client.receive(data[at : at + 77])
    assert got == [Message(message, text=True) for message in messages]
    client.send(b"not deflated")
    server.receive_data(client.data_to_send())
    assert bytes(server.events_received()[-1].data) == b"not deflated"


def test_a_bomb_is_not_inflated():
    client, server = shaken(deflate=True, server_deflate=True, max_message=10_000)
    server.send_text(bytes(10_000))
    server.send_text(bytes(10_001))
    server.send_text(b"never read")
    message, closed = client.receive(from_server(server))
    assert message.data == bytes(10_000)
    assert (closed.code, closed.by_peer) == (1009, False)


class CountingInflater:
    """zlib's, and the most that it was given and gave in one call."""

    def __init__(self):
        self.inner = zlib.decompressobj(-zlib.MAX_WBITS)
        self.calls = self.most_in = self.most_out = 0

    def decompress(self, data, room):
        out = self.inner.decompress(data, room)
        self.calls += 1
        self.most_in, self.most_out = max(self.most_in, len(data)), max(self.most_out, len(out))
        return out

    def __getattr__(self, name):
        return getattr(self.inner, name)


@pytest.mark.parametrize("compressible", [True, False])
def test_a_long_message_is_inflated_step_by_step(compressible, monkeypatch):
    client, server = shaken(deflate=True, server_deflate=True, max_message=5 << 20)
    counting = CountingInflater()
    monkeypatch.setattr(client, "_fresh", lambda: counting)
    message = bytes(4 << 20) if compressible else random.Random(3).randbytes(4 << 20)
    server.send_text(message)
    data = from_server(server)
    held, event = ffi.from_buffer("uint8_t[]", data), ffi.new("struct bw_ws_event *")
    assert lib.bw_ws_first(client.native, held, len(data), event)
    before, said = 0, []
    for one in client.take(event):
        assert counting.calls == before + 1  # a turn is one call, and that is bounded
        before = counting.calls
        said.append(one)
    *turns, last = said
    assert last == Message(message, text=True)
    assert len(turns) >= 15
    assert not any(turns)
    assert counting.most_in <= (1 << 16) + 4
    assert counting.most_out <= 1 << 18


def test_what_is_not_deflate_fails():
    client, _ = shaken(deflate=True, server_deflate=True)
    [closed] = client.receive(raw(1, b"\xff\xff\xff", rsv=4))
    assert (closed.code, closed.reason) == (1002, "decompression failed")
    client, _ = shaken(deflate=True)  # offered, not agreed on
    [closed] = client.receive(raw(1, b"\xff\xff\xff", rsv=4))
    assert closed.code == 1002


def test_addresses_and_limits():
    with pytest.raises(BarewireError, match="no WebSocket address"):
        WebSocket("http://node.example")
    with pytest.raises(BarewireError, match="max_message"):
        WebSocket("ws://node.example", max_message=0)
    client, _ = shaken()
    with pytest.raises(BarewireError, match="126 bytes"):
        client.ping(bytes(126))


def test_counters():
    client, server = shaken()
    server.send_text(b"whole")
    server.send_text(b"in ", fin=False)
    server.send_ping(b"")
    server.send_continuation(b"two", fin=True)
    data = from_server(server)
    client.receive(data[:4])
    client.receive(data[4:])
    stats = client.stats()
    assert stats == {
        "bytes": len(data),
        "messages": 2,
        "fragmented": 1,
        "copied": 2,
        "controls": 1,
        "payload": len(b"wholein two"),
    }
    frame = Frame(Opcode.PONG, b"")
    assert sent(client.data_to_send()) == [(frame.opcode, b"")]


def test_no_log_line_and_no_error_shows_a_credential(caplog):
    caplog.set_level(0)
    ws = WebSocket("ws://user:hunter2@node.example/v3/s3cretkey", headers={"X-Key": "s3cretkey"})
    assert b"s3cretkey" in ws.data_to_send()
    with pytest.raises(BarewireError) as caught:
        ws.send(b"too early")
    said = caplog.text + str(caught.value) + str(caught.value.hint)
    assert "hunter2" not in said
    assert "s3cretkey" not in said


def test_of_pings_that_nobody_lets_us_answer_one_is_owed():
    """RFC 6455, 5.5.3: a pong for the most recently processed ping is enough."""
    client, server = shaken()
    for number in range(5_000):
        server.send_ping(b"%d" % number)
        assert client.receive(from_server(server)) == []
    assert client.unsent_bytes == 0
    client.send(b"and this")
    assert sent(client.data_to_send()) == [(Opcode.PONG, b"4999"), (Opcode.TEXT, b"and this")]
    assert client.data_to_send() == b""
