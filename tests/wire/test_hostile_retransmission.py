"""A publisher that lies, a retransmission server that lies, and requesters that want everything.

    BAREWIRE_HOSTILE_S=60 ./run test --slow slow tests/wire/test_hostile_retransmission.py -s

A whole appliance has two feeds. One is what ``barewire publish`` sends, and loses on purpose, while
strangers forge its lines and ask its server for whatever they can think of; the other is nothing
but offences, drawn one after the other. Both processes live, their memory is bounded, the good
feed is complete, every datagram is counted as what it was, and the appliance stops at once when
it is told to.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from appliance.lab import Pair
from barewire.feeds.envelope import to_messages
from tests.requires import requires_root
from tests.running import Run
from tests.transactions import envelope, make
from tests.wire.frames import raw_socket
from tests.wire.test_hostile_streams import EVIL, all_text, resident_kb, stops_within_s

SECONDS = float(os.environ.get("BAREWIRE_HOSTILE_S", "1800"))
MOST_KB = 64 << 10
"""Of memory beyond the start's: 64 envelopes of a MiB in assembly."""
MOST_KB_OF_PUBLISHER = (256 + 64) << 10
"""The same, beside the 256 MiB that it may store to send again."""
RATE = 400
GOOD_LINES = [("239.77.1.1", 9011), ("239.77.1.2", 9012)]
LIAR = "10.55.0.66"
SERVER = 9100
PIECE_BYTES = 1400


def checksum(data: bytes) -> int:
    """RFC 1071."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data[: len(data) & ~1]))
    total += data[-1] << 8 if len(data) % 2 else 0
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def mold(session: bytes, sequence: int, messages: list[bytes], count: int | None = None) -> bytes:
    number = len(messages) if count is None else count
    head = session + struct.pack("!QH", sequence & (2**64 - 1), number & 0xFFFF)
    return head + b"".join(struct.pack("!H", len(one)) + one for one in messages)


class Liar:
    """Sends what it likes, as whoever it likes, to the lines and where answers are awaited."""

    def __init__(self, pair: Pair, seed: int) -> None:
        self.pair = pair
        self.rng = random.Random(seed)
        self.over = False
        self.acts = 0
        self.broken: list[BaseException] = []
        self.lines = [("239.77.0.1", 9001), (pair.b.ip4, 9002)]
        self.session = b"SITE000001"
        self.sequence = 1
        self.asked: deque[tuple[bytes, int]] = deque(maxlen=50)
        """Requests, and the ports that they came from."""
        self._wire = raw_socket(pair.a)
        self._wire.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        with pair.a:
            self._server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._server.bind((LIAR, SERVER))
        self._server.setblocking(False)
        self._thread = threading.Thread(target=self._run)
        make_one = random.Random(3)
        self.transactions = [
            piece
            for number in range(200)
            for piece in to_messages(envelope(2, make(make_one, 2)), PIECE_BYTES, number)
        ]

    def start(self) -> None:
        self._thread.start()

    def message(self) -> bytes:
        return self.rng.choice(self.transactions)

    def hear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                request, source = self._server.recvfrom(2048)
                self.asked.append((request, source[1]))

    # Frames

    def packet(
        self,
        payload: bytes,
        to: tuple[str, int],
        length: int | None = None,
    ) -> bytes:
        """A UDP packet without checksum; `length`: what its header says."""
        said = len(payload) + 8 if length is None else length
        return struct.pack("!HHHH", SERVER, to[1], said & 0xFFFF, 0) + payload

    def put(
        self,
        data: bytes,
        to: str,
        *,
        source: str = LIAR,
        flags: int = 0,
        number: int = 0,
        protocol: int = 17,
        options: bytes = b"",
        length: int | None = None,
    ) -> None:
        """An IPv4 packet with `data` in it; `flags`: more fragments, and the offset."""
        words = 5 + len(options) // 4
        said = 4 * words + len(data) if length is None else length
        head = struct.pack(
            "!BBHHHBBH4s4s",
            *(0x40 | words, 0, said & 0xFFFF, number, flags, 64, protocol, 0),
            *(socket.inet_aton(source), socket.inet_aton(to)),
        )
        head += options
        head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
        group = socket.inet_aton(to)
        mac = bytes.fromhex(self.pair.b.mac.replace(":", ""))
        if group[0] >= 224:
            mac = bytes([1, 0, 0x5E, group[1] & 0x7F, *group[2:]])
        mine = bytes.fromhex(self.pair.a.mac.replace(":", ""))
        with contextlib.suppress(BlockingIOError, TimeoutError):
            self._wire.send(mac + mine + b"\x08\x00" + head + data)

    def say(self, payload: bytes, line: int | None = None, **how: Any) -> None:
        """A datagram on a line; None: on either."""
        to = self.lines[self.rng.randrange(2) if line is None else line]
        if len(payload) <= 1472:
            self.put(self.packet(payload, to), to[0], **how)

    def answer(self, payload: bytes, port: int, **how: Any) -> None:
        """A datagram to where an answer is awaited."""
        to = (self.pair.b.ip4, port)
        if len(payload) <= 1472:
            self.put(self.packet(payload, to), to[0], **how)

    def advance(self, count: int = 1) -> None:
        """An honest datagram on one line or both."""
        payload = mold(self.session, self.sequence, [self.message() for _ in range(count)])
        self.sequence += count
        for line in self.rng.choice([(0,), (1,), (0, 1)]):
            self.say(payload, line)

    def _run(self) -> None:
        try:
            while not self.over:
                self.hear()
                self.rng.choice(ACTS)(self)
                self.acts += 1
        except BaseException as error:
            self.broken.append(error)

    def close(self) -> None:
        self.over = True
        self._thread.join()
        self._wire.close()
        self._server.close()


def honest(liar: Liar) -> None:
    for _ in range(liar.rng.randrange(1, 30)):
        liar.advance(liar.rng.randrange(1, 3))


def serves(liar: Liar) -> None:
    """Answers as it should, or nearly."""
    for request, port in list(liar.asked):
        session, first, count = struct.unpack("!10sQH", request)
        for number in range(first, first + min(count, 20)):
            liar.answer(mold(session, number, [liar.message()]), port)


def lies_of_numbers(liar: Liar) -> None:
    rng = liar.rng
    for _ in range(rng.randrange(1, 20)):
        far = rng.choice([0, 1, 100, 4_096, 1 << 18, 1 << 19, 1 << 40, 2**63, 2**64 - 1])
        sequence = rng.choice([liar.sequence + far, liar.sequence - far, far])
        count = rng.choice([0, 0, 1, 2, 0xFFFE, 0xFFFF, None])
        payload = mold(liar.session, sequence, [liar.message()][: rng.randrange(2)], count)
        for _ in range(rng.choice([1, 1, 2, 9])):
            liar.say(payload)


def another_session(liar: Liar) -> None:
    rng = liar.rng
    before = liar.session, liar.sequence
    liar.session = rng.choice(
        [
            b"SITE%06d" % rng.randrange(10**6),
            b"SITE000001",
            bytes(10),
            EVIL.encode(errors="replace")[:10],
            b"\x1b[2J\x07\n\r\x00\xff\xfe",
            rng.randbytes(10),
        ]
    )
    liar.sequence = rng.choice([1, 1, rng.getrandbits(20) + 1, rng.getrandbits(63) + 1])
    for _ in range(rng.choice([1, 2, 8, 20])):
        liar.advance()
    if rng.random() < 0.3:
        liar.session, liar.sequence = before


def ends(liar: Liar) -> None:
    for _ in range(liar.rng.choice([1, 8, 20])):
        liar.say(mold(liar.session, liar.sequence, [], 0xFFFF))
    if liar.rng.random() < 0.5:
        liar.advance()


def gaps_without_end(liar: Liar) -> None:
    for _ in range(liar.rng.randrange(1, 2_000)):
        liar.sequence += liar.rng.randrange(1, 4)
        liar.advance()


def promises(liar: Liar) -> None:
    """Heartbeats that tell of more and more."""
    for _ in range(liar.rng.randrange(1, 50)):
        liar.sequence += liar.rng.randrange(4_096)
        liar.say(mold(liar.session, liar.sequence, [], 0))


def never_asked(liar: Liar) -> None:
    rng = liar.rng
    for _ in range(rng.randrange(1, 100)):
        request, port = rng.choice(liar.asked) if liar.asked else (bytes(20), 40_000)
        session, first, _ = struct.unpack("!10sQH", request)
        payload = rng.choice(
            [
                mold(session, first + rng.randrange(-5_000, 5_000), [liar.message()]),
                mold(session, first + (1 << 40), [liar.message()]),
                mold(session, first, [], 0xFFFF),
                mold(session, liar.sequence + 10, [], 0),
                mold(session, first, [rng.randbytes(rng.randrange(900))]),
                mold(rng.randbytes(10), 1, [liar.message()]),
                mold(session, first, [b""] * 700),
                request,
                rng.randbytes(rng.randrange(40)),
                b"",
            ]
        )
        for _ in range(rng.choice([1, 1, 1, 30])):
            liar.answer(payload, port, source=rng.choice([LIAR, "10.55.0.77", "203.0.113.9"]))


def icmp(liar: Liar) -> None:
    """Unreachable, too big, redirects: of requests and of what was never sent."""
    rng = liar.rng
    for _ in range(rng.randrange(1, 30)):
        port = liar.asked[-1][1] if liar.asked else 40_000
        cited = struct.pack(
            "!BBHHHBBH4s4sHHHH",
            *(0x45, 0, 48, 0, 0, 64, 17, 0),
            *(socket.inet_aton(liar.pair.b.ip4), socket.inet_aton(LIAR)),
            *(port, SERVER, 28, 0),
        )
        kind, code = rng.choice([(3, 3), (3, 1), (3, 4), (3, 13), (5, 1), (11, 0), (12, 0)])
        rest = rng.choice([0, 68, 552, 1280]) if kind == 3 else rng.getrandbits(32)
        body = struct.pack("!BBHI", kind, code, 0, rest) + cited
        body = body[:2] + struct.pack("!H", checksum(body)) + body[4:]
        liar.put(body, liar.pair.b.ip4, protocol=1)


def half_open_fragments(liar: Liar) -> None:
    """Of IP: firsts without lasts, lasts without firsts, overlaps, thousands of numbers."""
    rng = liar.rng
    port = liar.asked[-1][1] if liar.asked else 40_000
    for _ in range(rng.randrange(1, 400)):
        to = rng.choice([*liar.lines, (liar.pair.b.ip4, port)])
        data = liar.packet(mold(liar.session, liar.sequence, [liar.message()]) * 3, to)[:1400]
        cut = rng.randrange(1, max(len(data) // 8, 2)) * 8
        number = rng.getrandbits(16)
        pieces = [(0x2000, data[:cut]), (cut // 8 - rng.randrange(2), data[cut:])]
        for flags, piece in rng.sample(pieces, rng.choice([1, 1, 1, 2])):
            liar.put(piece, to[0], flags=flags, number=number)


def headers_that_lie(liar: Liar) -> None:
    rng = liar.rng
    for _ in range(rng.randrange(1, 100)):
        payload = mold(liar.session, liar.sequence, [liar.message()])
        to = rng.choice(liar.lines)
        data = liar.packet(payload, to, length=rng.choice([None, 0, 7, 8, 27, 28, 65535]))
        liar.put(
            data[: rng.choice([len(data), 7, 8, 20])],
            to[0],
            options=rng.choice([b"", b"\x01" * 4, b"\x83\x07\x04" + bytes(5), rng.randbytes(40)]),
            length=rng.choice([None, None, 0, 20, 28, 65535]),
            source=rng.choice([LIAR, "0.0.0.0", "255.255.255.255", "127.0.0.1", "224.0.0.1"]),
        )


def pieces_that_lie(liar: Liar) -> None:
    """Of envelopes: (docs/feed-format.md)."""
    rng = liar.rng
    for _ in range(rng.randrange(1, 200)):
        count = rng.choice([0, 1, 2, 3, 700, 4_096, 65_535])
        total = rng.choice([0, 1, 1_000, 1_300 * count, 1 << 20, 2**32 - 1])
        index = rng.randrange(max(count, 1) + 1) & 0xFFFF
        size = min(-(-total // count) if count else 5, 1_300) if rng.random() < 0.8 else 7
        head = struct.pack(
            "!cBHHIQ", b"F", rng.choice([0, 1, 4, 9]), index, count, total, rng.getrandbits(6)
        )
        sent = rng.choice([head + bytes(size), head[: rng.randrange(18)], b"O", b"O\x09x", b"?"])
        liar.say(mold(liar.session, liar.sequence, [sent]))
        liar.sequence += 1


def mutated(liar: Liar) -> None:
    rng = liar.rng
    for _ in range(rng.randrange(1, 100)):
        payload = bytearray(mold(liar.session, liar.sequence, [liar.message()] * 2))
        liar.sequence += 2
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(payload))
            payload[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
        liar.say(bytes(payload))


def floods(liar: Liar) -> None:
    payloads = [mold(liar.session, liar.sequence + i, [liar.message()]) for i in range(20)]
    payloads += [mold(liar.session, liar.sequence, [], 0), liar.rng.randbytes(1_400), b""]
    for _ in range(liar.rng.randrange(1, 100)):
        for payload in payloads:
            liar.say(payload)


def forges_the_good_lines(liar: Liar) -> None:
    """As another than its publisher: whoever forges that one too is believed (docs)."""
    for _ in range(liar.rng.randrange(1, 100)):
        payload = liar.rng.choice(
            [
                mold(b"GOOD      ", liar.rng.getrandbits(20) + 1, [liar.message()]),
                mold(b"GOOD      ", 1 << 62, [], 0xFFFF),
                mold(b"EVIL      ", 1, [liar.message()]),
                liar.rng.randbytes(50),
            ]
        )
        to = liar.rng.choice(GOOD_LINES)
        liar.put(liar.packet(payload, to), to[0])


def is_silent(liar: Liar) -> None:
    time.sleep(liar.rng.random() * 0.2)
    if liar.rng.random() < 0.02:
        time.sleep(3.5)  # longer than a session may be silent


ACTS: list[Callable[[Liar], None]] = [
    *(honest, serves, lies_of_numbers, another_session, ends, gaps_without_end, promises),
    *(never_asked, icmp, half_open_fragments, headers_that_lie, pieces_that_lie, mutated, floods),
    *(forges_the_good_lines, is_silent, honest, serves, is_silent),
]


class Beggars:
    """Ask a retransmission server, from hundreds of addresses, for more than there is."""

    def __init__(self, pair: Pair, server: tuple[str, int], seed: int) -> None:
        self.over = False
        self.sent = 0
        self.broken: list[BaseException] = []
        self._rng = random.Random(seed)
        self._server = server
        with pair.a:
            self._sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(300)]
        for number, sock in enumerate(self._sockets):
            sock.bind((f"127.0.{number // 200}.{number % 200 + 1}", 0))
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def _request(self) -> bytes:
        rng = self._rng
        session = rng.choice([b"GOOD      "] * 9 + [b"EVIL      ", bytes(10)])
        first = rng.choice([1, 1, 1, rng.randrange(20_000), 2**64 - 1, 0])
        request = mold(session, first, [], rng.choice([0, 1, 200, 0xFFFE, 0xFFFF]))
        return rng.choice([request] * 9 + [request + b"x", request[:19], b"", rng.randbytes(64)])

    def _run(self) -> None:
        try:
            while not self.over:
                for _ in range(self._rng.randrange(1, 400)):
                    sock = self._rng.choice(self._sockets)
                    with contextlib.suppress(OSError):
                        sock.sendto(self._request(), self._server)
                        self.sent += 1
                time.sleep(self._rng.random() * 0.3)
        except BaseException as error:
            self.broken.append(error)

    def close(self) -> None:
        self.over = True
        self._thread.join()
        for sock in self._sockets:
            sock.close()


def configured(pair: Pair, via: str) -> str:
    good = ", ".join(f'"{address}:{port}@veth0"' for address, port in GOOD_LINES)
    return f"""statistics_every_s = 0.2
core = {{ lock_memory = false, name = "hostile" }}
recorder = {{ megabytes = 0 }}
[[source]]
name = "good"
via = "{via}"
lines = [{good}]
publishers = ["{pair.a.ip4}"]
retransmit = "{pair.a.ip4}:{SERVER}"
[[source]]
name = "site"
via = "{via}"
lines = ["239.77.0.1:9001@veth0", "{pair.b.ip4}:9002"]
retransmit = "{LIAR}:{SERVER}"
[[trigger]]
name = "all"
"""


def published(pair: Pair, folder: Path, seconds: float) -> subprocess.Popen[str]:
    """``barewire publish`` of a good feed that loses a fifth of all, for so long."""
    rng = random.Random(5)
    file = folder / "txs.hex"
    texts = [envelope(2, make(rng, 2)).hex() for _ in range(500)]
    file.write_text("\n".join(texts))
    good = [f"{address}:{port}@veth0" for address, port in GOOD_LINES]
    return pair.a.popen(
        *(sys.executable, "-m", "appliance", "publish", str(file), "-o", "json"),
        *("--line-a", good[0], "--line-b", good[1], "--session", "GOOD"),
        *("--retransmit", f"{pair.a.ip4}:{SERVER}", "--loss", "20%", "--reorder", "1%"),
        *("--rate", str(RATE), "--count", str(int(RATE * seconds))),
        *("--linger", str(min(seconds, 3))),
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )


def counted(summary: dict[str, Any]) -> None:
    """Every datagram and every message is counted as what it was, and once."""
    feeds, pump = summary["sources"], summary["pump"]
    datagrams = messages = 0
    for name, feed in feeds.items():
        lines = feed["lines"].values()
        taken = sum(line["datagrams"] + line["refused"] for line in lines) + feed["refused"]["line"]
        assert taken == feed["endpoint"]["rx_datagrams"], name
        datagrams += taken
        pieces = summary["reassembly"][name]
        assert feed["delivered"] == (
            pieces["whole"]
            + pieces["pieces"]
            + pieces["duplicate"]
            + sum(pieces["refused"].values())
        ), name
        messages += feed["delivered"]
        refused = sum(feed["refused"].values()) - feed["refused"]["trailing"]
        assert refused == sum(line["refused"] for line in lines) + feed["refused"]["line"]
    assert datagrams == pump["datagrams"]
    assert messages == pump["messages"]
    assert pump["strangers"] == sum(feed["refused"]["line"] for feed in feeds.values())


def hold_out(pair: Pair, folder: Path, via: str, seconds: float, seed: int) -> None:
    pair.a.run("ip", "addr", "replace", f"{LIAR}/24", "dev", "veth0")
    with ExitStack() as stack:
        run = stack.enter_context(Run(folder, configured(pair, via), pair.b))
        liar = Liar(pair, seed)
        stack.callback(liar.close)
        beggars = Beggars(pair, (pair.a.ip4, SERVER), seed)
        stack.callback(beggars.close)
        publisher = stack.enter_context(published(pair, folder, seconds))
        stack.callback(publisher.kill)
        run.until(lambda said: said["sources"]["good"]["delivered"] > 0)
        liar.start()
        beggars.start()
        before, most = resident_kb(run.process.pid), 0
        of_publisher, most_of_publisher = resident_kb(publisher.pid), 0
        while publisher.poll() is None:
            run.read()
            most = max(most, resident_kb(run.process.pid))
            most_of_publisher = max(most_of_publisher, resident_kb(publisher.pid))
        assert publisher.stdout is not None
        sent = json.loads(publisher.stdout.read())
        asked = time.monotonic()
        summary = run.stop()
        took = time.monotonic() - asked
    good, site = summary["sources"]["good"], summary["sources"]["site"]
    print(f"\n{via}, {seconds:g} s: {liar.acts} offences, {beggars.sent} requests; {took:.2f} s")
    print(f"{most - before} kB more, publisher {most_of_publisher - of_publisher} kB more")
    for name in ("site", "good"):
        feed = summary["sources"][name]
        print({k: v for k, v in feed.items() if v and not isinstance(v, dict)}, feed["refused"])
        print({k: v for k, v in feed["endpoint"].items() if v})
        print(summary["reassembly"][name])
    print(sent, publisher.returncode)
    assert not liar.broken + beggars.broken
    assert publisher.returncode == 0
    assert took < stops_within_s(seconds)
    assert most - before < MOST_KB
    assert most_of_publisher - of_publisher < MOST_KB_OF_PUBLISHER
    # On both lines 4 % are lost. What is asked for again the beggars contest, and a slow machine
    # besides: so not all of it has to come, but most, and nothing is missing without a word.
    assert good["delivered"] + good["lost"] == sent["messages"]
    assert good["lost"] < sent["messages"] / 50
    assert (good["missing"], good["displaced"]) == (0, 0)
    assert site["delivered"] > 0
    assert site["requests"] > 0
    counted(summary)
    assert all(text.isprintable() for text in [*all_text(summary), *run.events])


@pytest.fixture
def pair() -> Iterator[Pair]:
    requires_root()
    with Pair() as made:
        yield made


def test_a_second_of_lies(pair: Pair, tmp_path: Path) -> None:
    hold_out(pair, tmp_path, "afxdp:veth0", 0.7, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("via", ["afxdp:veth0", "kernel"])
def test_half_an_hour_of_lies(pair: Pair, tmp_path: Path, via: str) -> None:
    hold_out(pair, tmp_path, via, SECONDS / 2, seed=7)
