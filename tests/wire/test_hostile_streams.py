"""Servers that speak TLS, HTTP, WebSocket and JSON, and then anything else, to a whole appliance.

    BAREWIRE_HOSTILE_S=60 ./run test --slow slow tests/wire/test_hostile_streams.py -s

Five sources are hostile in every way that is drawn, connection after connection; one is good. The
process lives, its memory is bounded, the good source's transactions are all there, every end of a
connection is counted under a harmless line, and it stops at once when it is told to, whatever they
are saying.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import random
import resource
import socket
import ssl
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.node import Node, framed, head
from tests.running import Run
from tests.transactions import make
from tests.unit.certificates import Authority
from tests.unit.txjson_texts import notification, spelled
from tests.wire.test_stream_faults import CHAIN, configured, seen

SECONDS = float(os.environ.get("BAREWIRE_HOSTILE_S", "1800"))
"""Of its own time on a CPU: how long a loaded machine does not let it run says nothing of it."""
MOST_KB = 400 << 10
"""Of memory beyond the start's: five sources with messages of 16 MiB in every stage of reading."""
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
EVIL = "\x1b]0;owned\x07\x1b[2J\n12:00:00  EVENT  all sources live \u202e\ud800 [/b]"


def announcements(count: int) -> list[bytes]:
    rng = random.Random(3)
    return [
        json.dumps(notification(spelled(2, make(rng, 2, CHAIN)))).encode() for _ in range(count)
    ]


ANNOUNCED = announcements(50)


class Here:
    """This namespace, as tests.node wants it."""

    ip4 = "127.0.0.1"

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


class Enough(Exception):  # noqa: N818  (nothing is wrong)
    """The other side is gone, or this connection has said enough."""


class Talk:
    """One connection of a hostile server."""

    def __init__(self, sock: socket.socket, rng: random.Random, *, frames: bool) -> None:
        self.sock = sock
        self.rng = rng
        self.frames = frames
        self.deflated = False
        self.asked = 1

    def say(self, data: bytes) -> None:
        self.sock.sendall(data)

    def text(self, text: bytes) -> None:
        """One message, in one of the ways that messages come."""
        if not self.frames:
            self.say(text)
        elif self.deflated and self.rng.random() < 0.7:
            squeeze = zlib.compressobj(1, wbits=-15)
            ending = self.rng.choice([zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH])
            payload = (squeeze.compress(text) + squeeze.flush(ending))[:-4]
            self.say(bytes([0xC1]) + head(len(payload))[1:] + payload)
        elif self.rng.random() < 0.3:
            cut = self.rng.randrange(len(text) + 1)
            between = framed(b"?", 9) * self.rng.randrange(3)
            self.say(framed(text[:cut], 1, last=False) + between + framed(text[cut:], 0))
        else:
            self.say(framed(text))

    def announcement(self) -> bytes:
        """Of few transactions: who brings what is for others to judge (feeds/arbitration.py)."""
        return self.rng.choice(ANNOUNCED)


# What is said, once the subscription is there.


def mutated(talk: Talk) -> None:
    text = bytearray(talk.announcement())
    for _ in range(talk.rng.randrange(1, 6)):
        at = talk.rng.randrange(len(text))
        text[at : at + talk.rng.randrange(3)] = talk.rng.randbytes(talk.rng.randrange(3))
    talk.text(bytes(text))


def nonsense(talk: Talk) -> None:
    many = talk.rng.randrange(1, 300_000)
    talk.text(
        talk.rng.choice(
            [
                b"[" + b"1," * many + b"1]",
                b"[" + b"{}," * many + b"{}]",
                b'{"id":%d,"result":[' % talk.asked + b"[]," * many + b"1]}",
                b'{"id":%d,"result":{"pending":{"a":{' % talk.asked
                + b'"0":1,' * many
                + b'"1":1}}}}',
                b'{"id":%d,"result":{"transactions":["0x12"]}}' % talk.asked,
                b'{"id":' + b"1" * many + b',"result":"0x' + b"f" * many + b'"}',
                b"[" * many + b"]" * many,
                b'{"a":' * 70 + b"1" + b"}" * 70,
                b'{"id":%d,"error":{"code":1e999,"message":' % talk.asked
                + json.dumps(EVIL * 50).encode()
                + b"}}",
                b'"' + talk.rng.randbytes(20) + b'"',
                b'{"result":"0x1","id":null,"method":5,"params":{"result":{"number":"0x'
                + b"1" * 99,
            ]
        )
    )


def frames(talk: Talk) -> None:
    for _ in range(talk.rng.randrange(1, 40)):
        size = talk.rng.choice([0, 1, 125, 126, 1000, 65536])
        first = talk.rng.getrandbits(8)
        if talk.rng.random() < 0.9:
            first &= 0x8F
        wrong = head(talk.rng.choice([size, size + 1, 1 << 40 if size == 1 else size]))[1:]
        talk.say(bytes([first]) + wrong + talk.rng.randbytes(size))


def pings(talk: Talk) -> None:
    for _ in range(talk.rng.randrange(1, 60)):
        talk.say(framed(talk.rng.randbytes(125), talk.rng.choice([9, 9, 10])) * 500)


def fragments(talk: Talk) -> None:
    talk.say(framed(b"[", 1, last=False))
    for _ in range(talk.rng.randrange(1, 2_000)):
        talk.say(framed(b"0," * talk.rng.randrange(50), 0, last=False))


def drip(talk: Talk) -> None:
    for byte in framed(talk.announcement())[: talk.rng.randrange(2, 300)]:
        talk.say(bytes([byte]))
        time.sleep(0.001)


def flood(talk: Talk) -> None:
    burst = b"".join(framed(talk.announcement()) for _ in range(50))
    for _ in range(talk.rng.randrange(1, 60)):
        talk.say(burst)


def bomb(talk: Talk) -> None:
    payload = zlib.compress(b"[" + bytes([talk.rng.choice(b" 1,[{")]) * (17 << 20), wbits=-15)
    payload += talk.rng.choice([b"", b"\x00", b"\x03\x00" * 1_000])
    talk.say(bytes([0xC1]) + head(len(payload))[1:] + payload)


def hashes(talk: Talk) -> None:
    """Whose transactions nobody has."""
    for _ in range(talk.rng.randrange(1, 800)):
        told = {"params": {"result": f"0x{talk.rng.randbytes(32).hex()}"}, "method": "x"}
        talk.text(json.dumps(told).encode())


def answers(talk: Talk) -> None:
    """To questions that were asked, perhaps, and twice; and a chain that jumps."""
    for _ in range(talk.rng.randrange(1, 100)):
        number = talk.rng.choice([talk.rng.randrange(400), -1, 1 << 70, None, "7", [], True])
        result = talk.rng.choice(
            [
                *(None, False, "", {}, [], "0x", "0x1", f"0x{talk.rng.getrandbits(64):x}"),
                *("0xffffffffffffffff", "0x1" * 40, {"pending": [1] * 300}, {"number": "0x5"}),
                {"transactions": ["0x" + "ab" * 32] * 300, "number": "0x1"},
            ]
        )
        said = {"id": number, talk.rng.choice(["result", "result", "error", "id"]): result}
        talk.text(json.dumps(said).encode())


def blocks(talk: Talk) -> None:
    for _ in range(talk.rng.randrange(1, 200)):
        quantity = f"0x{talk.rng.getrandbits(talk.rng.choice([8, 64, 65])):x}"
        header: dict[str, Any] = {
            "number": quantity,
            "hash": f"0x{talk.rng.randbytes(32).hex()}",
            "parentHash": f"0x{talk.rng.randbytes(talk.rng.choice([31, 32])).hex()}",
            "timestamp": talk.rng.choice([quantity, 1, None]),
            "baseFeePerGas": "0x" + "f" * talk.rng.choice([64, 65]),
        }
        header.pop(talk.rng.choice([*header, "nothing"]), None)
        talk.text(json.dumps({"method": "eth_subscription", "params": {"result": header}}).encode())


def goodbye(talk: Talk) -> None:
    code = talk.rng.choice([1000, 1001, 1008, 1013, 999, 4999, 5000])
    reason = EVIL.encode(errors="surrogatepass") if talk.rng.random() < 0.3 else b"\x1b[2J\nno"
    talk.say(framed(struct.pack("!H", code) + reason[:120], 8))
    raise Enough


def leaves(talk: Talk) -> None:
    if talk.rng.random() < 0.5:
        talk.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raise Enough


def is_silent(talk: Talk) -> None:
    time.sleep(talk.rng.random())


ACTS: list[Callable[[Talk], None]] = [
    *(mutated, nonsense, frames, pings, fragments, drip, flood, bomb, goodbye, leaves, is_silent),
    *(hashes, answers, blocks),
    *(mutated, nonsense, nonsense, flood),
]
LASTING: list[Callable[[Talk], None]] = [
    *(mutated, nonsense, pings, drip, flood, is_silent, hashes, answers, blocks),
]
"""What does not end a connection: of one that lasts the next attempt follows at once."""
OF_JSON: list[Callable[[Talk], None]] = [
    *(mutated, nonsense, nonsense, leaves, is_silent, hashes, answers, blocks),
]


class Hostile:
    """A server whose every connection is another offence; `path`: a Unix socket without frames."""

    def __init__(
        self, seed: int, *, context: ssl.SSLContext | None = None, path: Path | None = None
    ) -> None:
        self.over = False
        self.connections = 0
        self.broken: list[BaseException] = []
        self._seed = seed
        self._context = context
        self._frames = path is None
        if path is not None:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(path))
            self._listener.listen(8)
            self.url = f"ipc://{path}"
        else:
            self._listener = socket.create_server(("127.0.0.1", 0))
            scheme = "ws" if context is None else "wss"
            self.url = f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}"
        self._listener.settimeout(0.05)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self.over:
            with contextlib.suppress(TimeoutError):
                sock, _ = self._listener.accept()
                rng = random.Random(self._seed * 1_000_000 + self.connections)
                self.connections += 1
                # The other side may not read, and nobody is to wait for it.
                sock.settimeout(2)
                with contextlib.suppress(OSError, ValueError, Enough), sock:
                    self._play(sock, rng)

    def _play(self, sock: socket.socket, rng: random.Random) -> None:
        if self._context is not None:
            if rng.random() < 0.1:
                sock.sendall(rng.randbytes(rng.randrange(1, 5_000)))
                return
            sock = self._context.wrap_socket(sock, server_side=True)
        with sock:
            talk = Talk(sock, rng, frames=self._frames)
            if self._frames:
                self._agree(talk)
            self._answer(talk)
            acts = ACTS if self._frames else OF_JSON
            now = time.monotonic()
            lasting = now + (11 if self._frames and rng.random() < 0.5 else 0)
            end = lasting + rng.random() * 4
            while (now := time.monotonic()) < end and not self.over:
                rng.choice(acts if now > lasting else LASTING)(talk)

    def _agree(self, talk: Talk) -> None:
        rng, request = talk.rng, b""
        while b"\r\n\r\n" not in request:
            if not (some := talk.sock.recv(65536)):
                raise Enough
            request += some
        lines = request.decode("latin-1").split("\r\n")
        [key] = [line.split()[1] for line in lines if line.lower().startswith("sec-websocket-key")]
        accept = base64.b64encode(hashlib.sha1(key.encode() + GUID).digest())
        answer = [
            b"HTTP/1.1 101 Switching Protocols",
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            b"Sec-WebSocket-Accept: " + accept,
        ]
        if b"permessage-deflate" in request:
            talk.deflated = True
            more = rng.choice([b"", b"; server_max_window_bits=8", b"; client_max_window_bits=8"])
            answer.append(b"Sec-WebSocket-Extensions: permessage-deflate" + more)
        if rng.random() < 0.3:
            evil = EVIL.encode(errors="surrogatepass")
            odd = [
                b"X: " + b"y" * rng.randrange(70_000),
                b"X: " + evil.replace(b"\n", b""),
                evil,
                *(b"Caf\xe9: \xff", b" folded", b"Sec-WebSocket-Protocol: x", b"A: b" * 300),
                b"HTTP/1.1 429 \x1b[2J\r\nRetry-After: "
                + rng.choice([b"0", b"9" * 500, b"\xb2", evil]),
                *(b"HTTP/1.1 100 Continue\r\n\r\n" * 9, b"HTTP/9.9 999", rng.randbytes(99)),
            ]
            answer.insert(rng.randrange(5), rng.choice(odd))
        text = b"\r\n".join(answer) + b"\r\n\r\n"
        step = rng.choice([1 << 20, 1 << 20, 50, 7])
        for at in range(0, len(text), step):
            talk.say(text[at : at + step])

    def _answer(self, talk: Talk) -> None:
        """Takes the subscription, and agrees to it, mostly."""
        if not talk.sock.recv(65536):
            raise Enough
        if talk.rng.random() < 0.1:
            return
        # The chain that is asked for, or where it is of another one, the end; and a subscription.
        result = hex(CHAIN) if talk.rng.random() < 0.95 else "0x1"
        for number in range(1, 400):  # whatever its number is
            talk.asked = number
            answer = b'{"jsonrpc":"2.0","id":%d,"result":"%b"}' % (number, result.encode())
            talk.say(framed(answer) if self._frames else answer)

    def close(self) -> None:
        self.over = True
        self._thread.join()
        self._listener.close()


def stops_within_s(played_s: float) -> float:
    """A second; after a short play, on a machine that may be loaded with other tests, ten."""
    return 1.0 if played_s > 60 else 10.0


def resident_kb(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    return 0


def processor_s(pid: int) -> float:
    """What a process that runs, and those that it waited for, have had of the CPUs."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def ended_s() -> float:
    """The same of all our children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def all_text(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from all_text(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from all_text(inner)


def hold_out(folder: Path, seconds: float, seed: int) -> None:
    """Runs it for so long, and looks at what became of it."""
    authority = Authority(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("127.0.0.1"))
    with ExitStack() as stack:
        hostile = {
            "plain": Hostile(seed),
            "deflated": Hostile(seed + 1),
            "hashes": Hostile(seed + 2),
            "tls": Hostile(seed + 3, context=context),
            "ipc": Hostile(seed + 4, path=folder / "node.ipc"),
        }
        for server in hostile.values():
            stack.callback(server.close)
        more = {
            "deflated": "deflate = true\n",
            "hashes": 'subscribe = "hashes"\n',
            "tls": f'ca_file = "{authority.ca}"\n',
        }
        good = stack.enter_context(Node(Here()))
        sources = {"good": f'url = "{good.url}"\n'} | {
            name: f'url = "{server.url}"\n{more.get(name, "")}' for name, server in hostile.items()
        }
        run = stack.enter_context(Run(folder, configured(folder, "kernel", sources)))
        run.until(lambda said: said["streams"]["good"]["state"] == "live")
        before, most, told = resident_kb(run.process.pid), 0, 0
        rng = random.Random(seed)
        own: list[str] = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            some = [spelled(2, make(rng, 2, CHAIN)) for _ in range(4)]
            good.announce(some)
            own += [tx["hash"][2:] for tx in some]
            told += len(some)
            wanted = told
            # Each time, all of them are there before the next are told.
            run.until(lambda said: said["streams"]["good"]["transactions"] >= wanted, 60)  # noqa: B023
            most = max(most, resident_kb(run.process.pid))
        before_s = ended_s() + processor_s(run.process.pid)
        summary = run.stop()
        took = ended_s() - before_s
    streams = summary["streams"]
    print(f"{seconds:g} s: {most - before} kB more at most, stopped within {took:.2f} s of CPU")
    print("good", streams["good"]["ended"])
    for name, server in hostile.items():
        print(name, server.connections, "connections", streams[name]["ended"])
    assert took < stops_within_s(seconds)
    assert most - before < MOST_KB
    assert set(own) <= set(seen(folder))
    assert streams["good"]["ended"] == {}
    assert streams["good"]["connections"] == 1
    for name, server in hostile.items():
        assert server.connections
        # One that failed in the very last turn is not written down yet.
        unsaid = streams[name]["failures"] - sum(streams[name]["ended"].values())
        assert unsaid in (0, 1)
        assert streams[name]["failures"] >= server.connections - 2
    words = [*all_text(summary), *run.events]
    assert all(text.isprintable() for text in words)


def test_a_few_seconds_of_everything(tmp_path: Path) -> None:
    hold_out(tmp_path, 1.0, seed=1)


@pytest.mark.slow
def test_half_an_hour_of_everything(tmp_path: Path) -> None:
    hold_out(tmp_path, SECONDS, seed=7)
