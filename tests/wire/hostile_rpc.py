"""Providers that speak HTTP, WebSocket and JSON-RPC as they should, and then anything else.

What they do is drawn by chance, connection after connection. One promise they keep: of what they
have carried out they never say that it was not touched. Without it nobody could send anything once.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.node import framed
from tests.unit.test_rpc_http2 import Wire
from tests.wire.test_hostile_streams import EVIL, Enough, Hostile, Talk

__all__ = ["Http1", "Http2", "Ledger", "Servant", "WebSocket", "balance"]

_FAR = 1 << 40
"""Nobody has asked so often: an id beyond it is nobody's."""


def balance(address: str) -> str:
    """What everyone who tells the truth says that `address` has."""
    return hex(int(address, 16) * 7 % (1 << 64))


def block(number: int) -> dict[str, Any]:
    return {
        "number": hex(number),
        "hash": f"0x{number:064x}",
        "parentHash": f"0x{number - 1:064x}",
        "transactions": [],
    }


class Ledger:
    """What was carried out, by whomever, and how often; and the chain, which grows by itself."""

    def __init__(self) -> None:
        self.times: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._began = time.monotonic()

    @property
    def head(self) -> int:
        return 100 + int(time.monotonic() - self._began)

    def answer(self, asked: dict[str, Any]) -> Any:
        method, params = asked["method"], asked["params"]
        if method == "eth_sendTransaction":
            with self._lock:
                self.times[params[0]["data"]] += 1
            return "0x" + "11" * 32
        if method == "eth_getBlockByNumber":
            named = params[0].startswith("0x")
            return block(min(int(params[0], 16), self.head) if named else self.head)
        if method == "eth_getBalance":
            return balance(params[0])
        return {"eth_chainId": "0x1", "eth_blockNumber": hex(self.head)}.get(method, "0x1")


@dataclass
class Said:
    """What becomes of one message.

    Attributes:
        body: the answer; the right one, or a spoilt one.
        right: it is the right one.
        touched: it was carried out.
    """

    body: bytes
    right: bool
    touched: bool


def refusal(rng: random.Random, number: Any) -> bytes:
    """What says that nothing was done."""
    error = rng.choice(
        [
            {"code": -32005, "message": "rate limit exceeded"},
            {"code": -32601, "message": "the method does not exist"},
            {"code": -32603, "message": f"internal error {EVIL[:60]}"},
            {"code": "x" * 99, "message": "internal error", "data": [[[]]]},
            "internal error",
            7,
            [],
        ]
    )
    return json.dumps({"jsonrpc": "2.0", "id": number, "error": error}).encode()


def spoilt(rng: random.Random, replies: list[dict[str, Any]], *, many: bool) -> bytes:
    """A wrong answer that speaks of no refusal and has nothing wrong for a result."""
    odd_ids = [
        *(_FAR + rng.randrange(1 << 20), -1, 1.5, True, "1", "", None, [], {}, 1 << 70),
    ]
    fine = json.dumps(replies if many else replies[0]).encode()
    deep = rng.choice([50, 2_000, 100_000])
    ways: list[Callable[[], bytes]] = [
        lambda: b"",
        lambda: fine[: rng.randrange(len(fine))],
        lambda: rng.randbytes(rng.randrange(1, 300)),
        lambda: fine.replace(b'"result"', rng.choice([b'"Result"', b'"resul\xff"', b'"x"'])),
        lambda: fine.replace(b'"id":', b'"id":' + rng.choice([b"-", b"1e9", b"00", b"\x00"])),
        lambda: json.dumps(
            [reply | {"id": rng.choice(odd_ids)} for reply in replies]
            if many
            else replies[0] | {"id": rng.choice(odd_ids)}
        ).encode(),
        lambda: b"[" * deep + b"]" * deep,
        lambda: b'{"a":' * deep + b"1" + b"}" * deep,
        lambda: b"[" + b",".join([b"{}"] * rng.randrange(1, 50_000)) + b"]",
        lambda: rng.choice(
            [b"null", b"[]", b"{}", b"1e999", b'"\\ud800"', b"\xef\xbb\xbf", b"[[]]"]
        ),
        lambda: json.dumps(EVIL * rng.randrange(1, 2_000)).encode(),
        lambda: fine + fine,
    ]
    if many:
        ways += [lambda: json.dumps(rng.sample(replies, rng.randrange(len(replies)))).encode()] * 3
    return rng.choice(ways)()


class Servant:
    """Who does what is asked, or does not, and finds words for it; well at first, or always."""

    def __init__(self, rng: random.Random, ledger: Ledger, ill: float) -> None:
        self.rng = rng
        self._ledger = ledger
        self._ill = ill if rng.random() < 0.8 else 0.0
        self._well = rng.randrange(6)

    @property
    def turns(self) -> bool:
        """Whether the next thing is an ill one."""
        self._well -= 1
        return self._well < 0 and self.rng.random() < self._ill

    def hear(self, message: bytes) -> Said:
        rng, asked = self.rng, json.loads(message)
        many = isinstance(asked, list)
        items: list[dict[str, Any]] = asked if many else [asked]
        turns = self.turns
        if turns and rng.random() < 0.25:
            return Said(refusal(rng, None if many else asked["id"]), right=False, touched=False)
        replies = [
            {"jsonrpc": "2.0", "id": one["id"], "result": self._ledger.answer(one)} for one in items
        ]
        if turns and rng.random() < 0.5:
            return Said(spoilt(rng, replies, many=many), right=False, touched=True)
        rng.shuffle(replies)
        body = json.dumps(replies if many else replies[0]).encode()
        return Said(body, right=True, touched=True)


def trickle(sock: socket.socket, data: bytes, rng: random.Random) -> None:
    """Sends `data` at once or in pieces, some of them late."""
    step = rng.choice([1 << 30, 1 << 30, 1 << 30, 1000, 50, 1 if len(data) < 500 else 50])
    for at in range(0, len(data), step):
        sock.sendall(data[at : at + step])
        if rng.random() < 0.05 and step < 1 << 30:
            time.sleep(0.002)


class Http1(Hostile):
    """HTTP/1.1, many connections at a time."""

    def __init__(self, seed: int, ledger: Ledger, ill: float = 0.4) -> None:
        self.ledger = ledger
        self.ill = ill
        self._talks: list[threading.Thread] = []
        super().__init__(seed)
        self.url = self.url.replace("ws://", "http://")

    def _play(self, sock: socket.socket, rng: random.Random) -> None:
        own = socket.socket(fileno=sock.detach())
        own.settimeout(3)
        self._talks = [thread for thread in self._talks if thread.is_alive()]
        talk = threading.Thread(target=self._apart, args=(own, rng))
        self._talks.append(talk)
        talk.start()

    def _apart(self, sock: socket.socket, rng: random.Random) -> None:
        with contextlib.suppress(OSError, Enough), sock:
            self._talk(sock, Servant(rng, self.ledger, self.ill))

    def _talk(self, sock: socket.socket, servant: Servant) -> None:
        with sock.makefile("rb") as lines:
            while not self.over:
                length = -1
                while (line := lines.readline()) != b"\r\n":
                    if not line:
                        raise Enough
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.partition(b":")[2])
                self._reply(sock, servant, servant.hear(lines.read(length)))

    def _reply(self, sock: socket.socket, servant: Servant, said: Said) -> None:
        rng, body = servant.rng, said.body
        if said.right and servant.turns:
            self._offend(sock, rng, body)
            return
        status = b"200 OK"
        if not said.touched and rng.random() < 0.5:
            status = rng.choice([b"429 Too Many\r\nretry-after: 0", b"413 Large", b"503 Busy"])
        start = b"HTTP/1.1 " + status + b"\r\n"
        if rng.random() < 0.1:
            start = b"HTTP/1.1 100 Continue\r\n\r\n" * rng.randrange(1, 4) + start
        way = rng.randrange(8)
        if way == 0:
            trickle(sock, start + b"\r\n" + body, rng)
            raise Enough
        if way < 3:
            parts = [body[at : at + 100] for at in range(0, len(body), 100)]
            chunks = b"".join(b"%x;a=b\r\n%b\r\n" % (len(part), part) for part in parts)
            trickle(
                sock, start + b"transfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n", rng
            )
            return
        trickle(sock, start + b"content-length: %d\r\n\r\n" % len(body) + body, rng)

    def _offend(self, sock: socket.socket, rng: random.Random, body: bytes) -> None:
        evil = EVIL.encode(errors="surrogatepass")
        long = b"content-length: %d\r\n\r\n" % len(body)
        ok = b"HTTP/1.1 200 OK\r\n"
        chunked = ok + b"transfer-encoding: chunked\r\n\r\n"
        code = rng.choice([100, 101, 199, 204, 302, 304, 401, 403, 404, 500, 502, 599, 600, 999, 0])
        choice = rng.randrange(18)
        texts = [
            b"HTTP/1.1 %d %b\r\n" % (code, evil[:7]) + long + body,
            ok + b"x: " + b"y" * rng.randrange(1 << 20) + b"\r\n" + long + body,
            ok + b"x: y\r\n" * rng.randrange(50_000) + long + body,
            ok + evil + b"\r\n" + long + body,
            ok + b"content-length: %b\r\n\r\n" % rng.choice([b"-1", b"9" * 40, b"x", b""]) + body,
            ok + b"content-length: %d\r\n\r\n" % (len(body) + rng.choice([-5, 5])) + body,
            ok + b"content-length: 5\r\n" + long + body,
            ok + b"transfer-encoding: chunked\r\n" + long + body,
            chunked + b"%b\r\n" % rng.choice([b"f" * 20, b"-1", b"", b"zz"]) + body,
            chunked + b"1\r\n \r\n" * rng.randrange(20_000) + b"0\r\n" + b"t: x\r\n" * 5_000,
            ok + b"content-encoding: gzip\r\n\r\n" + gzip.compress(body),
            (ok + long + body) * rng.randrange(2, 20),
            b"HTTP/1.1 100 Continue\r\n\r\n" * rng.randrange(20_000),
            rng.choice([b"HTTP/9.9 200\r\n\r\n", b"ICY 200 OK\r\n\r\n", rng.randbytes(500), b""]),
            (ok + long + body)[: rng.randrange(len(long) + len(body))],
        ]
        if choice < len(texts):
            trickle(sock, texts[choice], rng)
            if rng.random() < 0.3:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if rng.random() < 0.7:
                raise Enough
        elif choice == 15:
            sock.sendall(chunked)
            for _ in range(rng.randrange(200)):
                sock.sendall(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
            raise Enough
        else:
            end = time.monotonic() + rng.random() * 2
            while time.monotonic() < end and not self.over:
                time.sleep(0.05)

    def close(self) -> None:
        super().close()
        for talk in self._talks:
            talk.join()


class _Out:
    """What `Wire` writes to."""

    def __init__(self, sock: socket.socket) -> None:
        self.write = sock.sendall


class Http2(Http1):
    """HTTP/2 with prior knowledge."""

    def _talk(self, sock: socket.socket, servant: Servant) -> None:
        rng = servant.rng
        wire = Wire(cast(Any, None), cast(Any, _Out(sock)))
        last = 1 << 31
        if rng.random() < 0.1:
            most = rng.choice([0, 1, 5, 1 << 31])
            wire.send(SettingsFrame(0, {SettingsFrame.MAX_CONCURRENT_STREAMS: most}))
        else:
            wire.send(SettingsFrame(0))
        with sock.makefile("rb") as lines:
            if not lines.read(24):
                raise Enough
            while not self.over:
                header = lines.read(9)
                if len(header) < 9:
                    raise Enough
                frame, length = Frame.parse_frame_header(memoryview(header))
                frame.parse_body(memoryview(lines.read(length)))
                number = frame.stream_id
                if isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
                    wire.send(SettingsFrame(0, flags=["ACK"]))
                elif isinstance(frame, DataFrame) and number <= last:
                    wire.bodies[number] = wire.bodies.get(number, b"") + frame.data
                    if "END_STREAM" not in frame.flags:
                        continue
                    said = servant.hear(wire.bodies.pop(number))
                    if not said.touched and rng.random() < 0.5:
                        if rng.random() < 0.5:
                            wire.refuse(number)
                        else:
                            last = max(number - 2, 0)
                            wire.goodbye(last)
                    elif said.right and servant.turns:
                        last = min(last, self._offend_in_frames(sock, wire, number, said.body, rng))
                    else:
                        self._answer_in_frames(wire, number, said.body, rng)

    @staticmethod
    def _answer_in_frames(wire: Wire, number: int, body: bytes, rng: random.Random) -> None:
        block = wire.encoder.encode([(":status", "200"), ("x", "y" * rng.randrange(300))])
        cut = len(block) if rng.random() < 0.7 else rng.randrange(len(block))
        headers = HeadersFrame(number, block[:cut])
        frames: list[Frame] = [headers]
        if cut < len(block):
            frames.append(ContinuationFrame(number, block[cut:], flags=["END_HEADERS"]))
        else:
            headers.flags.add("END_HEADERS")
        step = rng.choice([16_000, 16_000, 10])
        parts = [body[at : at + step] for at in range(0, len(body), step)]
        frames += [DataFrame(number, part) for part in parts]
        frames.append(DataFrame(number, b"", flags=["END_STREAM"]))
        wire.send(*frames)

    def _offend_in_frames(
        self, sock: socket.socket, wire: Wire, number: int, body: bytes, rng: random.Random
    ) -> int:
        """Says something else; up to which stream it will still do anything."""
        junk = rng.randbytes(rng.randrange(1, 200))
        settings = SettingsFrame(
            0, {rng.randrange(1, 9): rng.choice([0, 1, 1 << 14, (1 << 32) - 1]) for _ in range(4)}
        )
        ok = wire.encoder.encode([(":status", rng.choice(["200", "200", "500", "99", "x", ""]))])
        sets: list[list[Frame]] = [
            [PingFrame(0, b"12345678")] * rng.randrange(20_000),
            [SettingsFrame(0, {SettingsFrame.MAX_CONCURRENT_STREAMS: 50})] * rng.randrange(9_000),
            [settings],
            [WindowUpdateFrame(rng.choice([0, number]), 0x7FFFFFFF)] * 2,
            [RstStreamFrame(number, error_code=rng.choice([0, 1, 2, 5, 8, 11, 13, 1 << 31]))],
            [RstStreamFrame(number + 2 * rng.randrange(9), error_code=rng.choice([1, 2, 8]))],
            [GoAwayFrame(0, last_stream_id=0x7FFFFFFF, error_code=11, additional_data=junk)],
            [GoAwayFrame(0, last_stream_id=number)] * rng.randrange(1, 5_000),
            [HeadersFrame(number, junk, flags=["END_HEADERS"])],
            [HeadersFrame(number, ok, flags=["END_HEADERS", "END_STREAM"])],
            [HeadersFrame(number, ok), DataFrame(number, body)],
            [HeadersFrame(number, b""), *[ContinuationFrame(number, b"")] * 9_000],
            [DataFrame(number, body, flags=["END_STREAM"])],
            [DataFrame(number + 100, b" " * 16_000)] * 3,
            [PushPromiseFrame(number, 2, b"", flags=["END_HEADERS"])],
            [
                HeadersFrame(number, ok, flags=["END_HEADERS"]),
                *[DataFrame(number, b" " * 16_000)] * rng.randrange(900),
            ],
            [],
        ]
        frames = rng.choice(sets)
        data = b"".join(frame.serialize() for frame in frames)
        if rng.random() < 0.1:  # neither RST_STREAM nor GOAWAY: those would be lies
            kind = rng.choice([0, 1, 2, 4, 5, 6, 8, 9, 10, 255])
            size = rng.choice([len(junk), 1 << 14, (1 << 24) - 1])
            data += size.to_bytes(3) + bytes([kind, rng.getrandbits(8)])
            data += rng.choice([0, number, 1 << 31]).to_bytes(4) + junk
        trickle(sock, data, rng)
        if rng.random() < 0.3:
            raise Enough
        if rng.random() < 0.5:  # it goes on, or does not read for a while
            end = time.monotonic() + rng.random() * 2
            while time.monotonic() < end and not self.over:
                time.sleep(0.05)
        return min(
            [f.last_stream_id for f in frames if isinstance(f, GoAwayFrame)], default=1 << 31
        )


def payload(lines: Any) -> tuple[int, bytes]:
    """One frame of a client: masked, below 2^16 bytes or not (RFC 6455, section 5.2)."""
    start = lines.read(2)
    if len(start) < 2:
        raise Enough
    first, second = start
    size = second & 0x7F
    if size > 125:
        size = int.from_bytes(lines.read(2 if size == 126 else 8))
    mask, data = lines.read(4), lines.read(size)
    repeated = (mask * (size // 4 + 1))[:size]
    return first & 0x0F, (int.from_bytes(data) ^ int.from_bytes(repeated)).to_bytes(size)


class WebSocket(Hostile):
    """JSON-RPC over WebSocket, with everything that the hostile feeds do behind it."""

    def __init__(self, seed: int, ledger: Ledger, ill: float = 0.2) -> None:
        self.ledger = ledger
        self.ill = ill
        super().__init__(seed)

    def _answer(self, talk: Talk) -> None:
        """Serves for a while; the acts of a hostile feed come after."""
        servant = Servant(talk.rng, self.ledger, self.ill)
        told = 0
        end = time.monotonic() + talk.rng.random() * 8
        with talk.sock.makefile("rb") as lines:
            while time.monotonic() < end and not self.over:
                opcode, message = payload(lines)
                if opcode != 1:
                    continue
                said = servant.hear(message)
                if said.right and servant.turns:
                    return
                talk.text(said.body)
                if self.ledger.head > told:
                    told = self.ledger.head
                    pushed = {"subscription": "0x1", "result": block(told)}
                    push = {"jsonrpc": "2.0", "method": "eth_subscription", "params": pushed}
                    talk.say(framed(json.dumps(push).encode()))
