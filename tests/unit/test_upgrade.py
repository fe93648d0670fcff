"""Answers to a WebSocket's opening handshake, by RFC 6455, RFC 7692 and RFC 9110."""

from __future__ import annotations

import base64
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.server import ServerProtocol

from barewire.errors import BarewireError
from barewire.feeds.upgrade import Agreed, Refused, Upgrade
from barewire.feeds.websocket import Closed, Message, Opened, WebSocket

REST = b"\x81\x02hi"


def agreement(request: bytes) -> bytes:
    """What a server of the `websockets` library answers."""
    server = ServerProtocol()
    server.receive_data(request)
    [asked] = server.events_received()
    server.send_response(server.accept(asked))
    return b"".join(server.data_to_send())


def answered(mutate, *, pieces: int = 1 << 20, **options):
    """What becomes of an agreement that was changed, in pieces, with a frame behind it."""
    upgrade = Upgrade("ws://node.example/ws", **options)
    data = mutate(agreement(upgrade.request)) + REST
    for at in range(0, len(data), pieces):
        answer = upgrade.receive(data[at : at + pieces])
        if answer is not None:
            return answer, data[at + pieces :]
    return None, b""


def more(*lines: bytes):
    return lambda text: text[:-2] + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


@pytest.mark.parametrize(
    "mutate",
    [
        lambda text: text,
        lambda text: b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: a\r\n\r\n" + text,
        lambda text: text.replace(b"\r\n", b"\n"),
        lambda text: text.replace(b"101 Switching Protocols", b"101"),
        lambda text: text.replace(b"101 Switching Protocols", b"101 "),
        lambda text: text.replace(b"Switching Protocols", b"\xe9\xff"),
        lambda text: text.replace(b"Connection: Upgrade", b"connection: keep-alive, upgrade"),
        more(b"X-Name: caf\xe9"),
        more(b"X-A: b", b" c"),
        more(b"Set-Cookie: a=" + b"x" * 9_000),
        more(*(b"Set-Cookie: a%d=%b" % (n, b"x" * 3_000) for n in range(15))),
        more(b"Content-Length: 5", b"Transfer-Encoding: chunked"),
    ],
    ids=range(12),
)
@pytest.mark.parametrize("pieces", [1, 7, 1 << 20])
def test_agreements(mutate, pieces):
    answer, behind = answered(mutate, pieces=pieces)
    assert isinstance(answer, Agreed)
    assert answer.rest + behind == REST
    assert all(name.isprintable() and value.isprintable() for name, value in answer.headers.items())


@pytest.mark.parametrize(
    ("mutate", "words"),
    [
        (more(b"Sec-WebSocket-Extensions: permessage-deflate"), "no extensions supported"),
        (more(b"Sec-WebSocket-Protocol: jsonrpc"), "no subprotocols supported"),
        (lambda text: text.replace(b"HTTP/1.1", b"HTTP/1.0"), "HTTP/1.0 101 Switching Protocols"),
        (lambda text: text.replace(b"Accept: ", b"Accept: \x80\xff"), r"Accept"),
        (more(b"X-A: \x1b[2J"), r"no header: X-A: \x1b[2J"),
        (more(b"no header at all"), "no header: no header at all"),
        (more(*(b"A: b",) * 300), "more than 256 headers"),
        (more(b"A: " + b"x" * 70_000), "more than 65536 bytes"),
        (lambda _: b"HTTP/1.1 100 Continue\r\nA: %b\r\n\r\n" % bytes(5_000) * 20, "65536 bytes"),
        (lambda _: b"HTTP/1.1 1" + b"0" * 1_000_000 + b" OK\r\n\r\n", "65536 bytes"),
        (lambda _: b"HTTP/1.1 \xd9\xa1\xd9\xa1\xd9\xa1 OK\r\n\r\n", "no HTTP"),
        (lambda _: b"SSH-2.0-OpenSSH_9\r\n", "no HTTP: SSH-2.0-OpenSSH_9"),
        (lambda _: b"\x00\x00\x12\x04\x00", r"no HTTP: \x00\x00\x12\x04\x00"),
    ],
    ids=range(13),
)
def test_what_is_no_agreement(mutate, words):
    answer, _ = answered(mutate)
    assert isinstance(answer, Refused)
    assert words in answer.why
    assert answer.why.isprintable()
    assert len(answer.why) < 500


def test_a_refusal_is_told_in_its_own_words_and_its_rest_is_kept():
    upgrade = Upgrade("ws://node.example")
    body = b'{"error":\n"\x1b[31mdaily limit"}'
    refused = upgrade.receive(
        b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 60\r\nContent-Length: 29\r\n\r\n" + body
    )
    assert refused == Refused(
        r'HTTP 429 Too Many Requests: {"error": "\x1b[31mdaily limit"}', 429, "60"
    )
    several = "60\r\nRetry-After: soon\r\nRetry-After: 120"
    for said, rest_ms in (
        ("60", 60_000),
        ("9" * 400, 3_600_000),
        ("\u00b2", 0),
        ("soon", 0),
        (several, 120_000),
    ):
        client = WebSocket("ws://node.example")
        answer = f"HTTP/1.1 503 Busy\r\nRetry-After: {said}\r\n\r\n".encode()
        assert client.receive(answer) == [
            Closed(1006, "handshake: HTTP 503 Busy", by_peer=False, rest_ms=rest_ms)
        ]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.integers(1, 300), st.integers(0, 150))
def test_any_bytes_end_in_words(noise, pieces, at):
    upgrade = Upgrade("ws://node.example")
    good = agreement(upgrade.request)
    data = good[:at] + noise + good[at:]
    for start in range(0, len(data), pieces):
        answer = upgrade.receive(data[start : start + pieces])
        if isinstance(answer, Refused):
            assert answer.why.isprintable()
        if answer is not None:
            break


@pytest.mark.parametrize(
    ("url", "user"),
    [
        ("ws://user:pass@node.example/ws", "user:pass"),
        ("ws://user:p%40ss%3a%2F@node.example/ws", "user:p@ss:/"),
        ("ws://key@node.example/ws", "key:"),
        ("ws://:pass@node.example/ws", ":pass"),
        ("ws://us%c3%a9r:a:b@node.example/ws", "us\u00e9r:a:b"),
    ],
)
def test_user_and_password_are_decoded_once(url, user):
    """RFC 7617, section 2; RFC 3986, section 2.4."""
    request = Upgrade(url).request.decode()
    assert request.startswith("GET /ws HTTP/1.1\r\nHost: node.example\r\n")
    [token] = [line.split()[2] for line in request.splitlines() if line.startswith("Authorization")]
    assert base64.b64decode(token).decode() == user


def test_own_headers_take_the_place_of_the_handshakes():
    upgrade = Upgrade(
        "ws://a:b@node.example",
        headers={"host": "other.example", "AUTHORIZATION": "Bearer x", "X-A": "1"},
    )
    lines = upgrade.request.decode().split("\r\n")
    names = [line.partition(":")[0].lower() for line in lines[1:] if line]
    assert sorted(names) == sorted(set(names))
    assert {"host: other.example", "AUTHORIZATION: Bearer x", "X-A: 1"} <= set(lines)
    for name in ("Upgrade", "connection", "Sec-WebSocket-Key"):
        with pytest.raises(BarewireError, match="belongs to the handshake"):
            Upgrade("ws://node.example", headers={name: "x"})


def test_a_subprotocol_that_was_asked_for_may_be_chosen():
    chosen = more(b"Sec-WebSocket-Protocol: jsonrpc")
    answer, _ = answered(chosen, headers={"Sec-WebSocket-Protocol": "eth, jsonrpc"})
    assert isinstance(answer, Agreed)
    answer, _ = answered(chosen, headers={"Sec-WebSocket-Protocol": "eth"})
    assert isinstance(answer, Refused)


def opened(params: bytes) -> WebSocket | Closed:
    """A connection whose server answers the offer of permessage-deflate by `params`."""
    client = WebSocket("ws://node.example", deflate=True, max_message=100_000)
    answer = agreement(client.data_to_send())
    extension = b"Sec-WebSocket-Extensions: permessage-deflate" + params
    [event] = client.receive(answer[:-2] + extension + b"\r\n\r\n")
    assert isinstance(event, Opened | Closed)
    return client if isinstance(event, Opened) else event


def deflated(payload: bytes) -> bytes:
    head = len(payload).to_bytes(2, "big")
    return b"\xc1" + (head[1:] if len(payload) < 126 else b"\x7e" + head) + payload


@pytest.mark.parametrize(
    "params",
    [b"", b"; server_no_context_takeover", b"; client_no_context_takeover"]
    + [b"; client_max_window_bits=%d" % bits for bits in range(8, 16)]
    + [b"; server_max_window_bits=%d" % bits for bits in range(8, 16)],
)
def test_whatever_window_is_agreed_on(params):
    client = opened(params)
    assert isinstance(client, WebSocket)
    text = b"{" + b"abcdefgh" * 500 + b"}"
    if b"no_context" in params or b"=8" in params:
        payload = zlib.compress(text, wbits=-9) + b"\x00"
    else:
        squeeze = zlib.compressobj(wbits=-int(params[-2:].lstrip(b"=") or 15))
        payload = squeeze.compress(text) + squeeze.flush(zlib.Z_SYNC_FLUSH)[:-4]
    assert client.receive(deflated(payload)) == [Message(text, text=True)]


@pytest.mark.parametrize(
    "params",
    [
        b"; server_max_window_bits=7",
        b"; server_max_window_bits=016",
        b"; server_max_window_bits",
        b"; client_max_window_bits=" + b"9" * 5_000,
        b"; server_no_context_takeover=1",
        b"; server_no_context_takeover; server_no_context_takeover",
        b"; unheard_of",
        b", permessage-deflate",
    ],
)
def test_what_nobody_may_agree_on(params):
    closed = opened(params)
    assert isinstance(closed, Closed)
    assert "nsupported extension" in closed.reason or "agreed on" in closed.reason


def test_a_message_that_ends_its_deflate_stream():
    """RFC 7692, 7.2.3.4: a final block, and an empty one behind it."""
    client = opened(b"")
    assert isinstance(client, WebSocket)
    squeeze, texts, frames = zlib.compressobj(wbits=-15), [], b""
    for number in range(40):
        text = b'{"number": %d, "and": "more of the same"}' % number
        payload = squeeze.compress(text)
        if number % 10 == 5:
            payload += squeeze.flush(zlib.Z_FINISH) + b"\x00"
            squeeze = zlib.compressobj(wbits=-15)
        else:
            payload += squeeze.flush(zlib.Z_SYNC_FLUSH)[:-4]
        texts.append(Message(text, text=True))
        frames += deflated(payload)
    assert client.receive(frames) == texts


def test_streams_without_end_in_one_message_are_refused():
    client = opened(b"")
    assert isinstance(client, WebSocket)
    [closed] = client.receive(deflated(b"\x03\x00" * 30_000))
    assert isinstance(closed, Closed)
    assert "DEFLATE streams" in closed.reason
