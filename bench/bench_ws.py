"""WebSocket: echoes, notifications of pending transactions, and their rate, beside the peers.

    ./run bench ws [--json FILE] [--rounds N]

Two network namespaces and a veth pair, client and server on a core each. *Echo*: 300 bytes of text
there and back, before send to the message in hand, over plain TCP and TLS, against a server that
spins and one that sleeps (`websockets` on uvloop). *Notification*: from before the server's send of
a notification to a usable record in the client's hand; *rate*: as many as go, one behind the other.
What a usable record is differs: web3.py gives an attribute dictionary, msgspec a typed struct,
Barewire a record whose envelope was rebuilt, decoded and proved by its hash.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import ssl
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import uvloop
from web3 import AsyncWeb3, WebSocketProvider
from websockets.asyncio.client import connect

from appliance.core import die_with_parent
from appliance.lab import Pair
from appliance.mainnet_block import load_block
from barewire._native import ffi, lib
from barewire.feeds.inlet import Inlet, What
from barewire.feeds.jsonrpc import PendingTransactions, Phase
from barewire.feeds.tls import TlsStream, client_context
from barewire.feeds.txfeed import BURST, TxFeed
from barewire.feeds.websocket import Message, State, WebSocket
from barewire.mempool.decoder import Decoder, Rules
from bench.harness import Row, arguments, finish, measure, pin
from bench.ws_server import LIMIT, Control, frame, sleep_on_uvloop, spin
from dpdk_bindings.stream import StreamEndpoint, open_stream
from tests.unit.certificates import Authority

ECHOES = 300
NOTIFIED = 150
RATED = 1500
GAP_NS = 3_000_000
PAYLOAD = bytes(range(32, 126)) * 4
PORTS = {"spin": (9001, 9002), "uvloop": (9003, 9004)}

Sampler = Callable[[], list[float]]


class Tx(msgspec.Struct):
    """What a careful user of msgspec asks for."""

    hash: str
    nonce: str
    gas: str
    value: str
    input: str
    v: str
    r: str
    s: str
    to: str | None = None
    gasPrice: str = "0x0"  # noqa: N815


class Params(msgspec.Struct):
    """Of a notification."""

    result: Tx


class Notification(msgspec.Struct):
    """Of a subscription."""

    params: Params


class Client:
    """A spinning WebSocket connection of ours."""

    def __init__(self, endpoint: StreamEndpoint, ip: str, port: int, context: Any) -> None:
        self._endpoint = endpoint
        pipe: Any = endpoint.connect(ip, port, tls=context is not None)
        if context is not None:
            pipe = TlsStream(pipe, context, ip, now_mono_ns=time.monotonic_ns)
        self._pipe = pipe
        self._buffer = bytearray(1 << 18)
        self._view = memoryview(self._buffer)
        self._socket = WebSocket(f"{'wss' if context else 'ws'}://{ip}:{port}/")
        until = time.monotonic() + 5
        out = self._socket.data_to_send()
        while self._socket.state is not State.OPEN:
            endpoint.poll()
            out = out[max(0, pipe.send(out)) :] if out else out
            self.receive()
            if time.monotonic() > until:
                sys.exit(f"no connection to {ip}:{port}: {pipe.why}")

    def receive(self) -> list[Any]:
        got = self._pipe.recv_into(self._buffer)
        return self._socket.receive(self._view[:got]) if got > 0 else []

    def echoes(self) -> list[float]:
        samples = []
        poll, pipe, websocket = self._endpoint.poll, self._pipe, self._socket
        for _ in range(ECHOES):
            begun = time.monotonic_ns()
            websocket.send(PAYLOAD[:300])
            pipe.send(websocket.data_to_send())
            while True:
                poll()
                events = self.receive()
                if events:
                    break
            samples.append((time.monotonic_ns() - begun) / 1000)
            assert isinstance(events[0], Message)
        return samples


class Subscriber:
    """A subscription of ours."""

    def __init__(self, endpoint: StreamEndpoint, ip: str, control: Control) -> None:
        self._endpoint = endpoint
        self._words = control.words
        port = PORTS["spin"][0]
        self._url = f"ws://{ip}:{port}/"
        self._pipe: Any = endpoint.connect(ip, port)
        self._buffer = bytearray(1 << 18)
        self._view = memoryview(self._buffer)
        self._inlet = Inlet([endpoint.ref], [self._buffer])
        self._messages, self._records = self._inlet.messages, self._inlet.records
        self._session = PendingTransactions(self._url, Decoder(Rules.preset("london", 0)))
        self.refused = 0

    def subscribe(self) -> None:
        """Becomes the connection that is notified."""
        self._session.connect(None)
        session, out = self._session, b""
        self._pipe.close()
        self._pipe = self._endpoint.connect(self._pipe.peer[0], self._pipe.peer[1])
        while session.phase is not Phase.LIVE:
            self._endpoint.poll()
            out += session.data_to_send()
            out = out[max(0, self._pipe.send(out)) :] if out else out
            got = self._pipe.recv_into(self._buffer)
            if got > 0:
                session.lend(self._view[:got], 0, 1)
                session.read_into(self._messages, self._records)
        self._inlet.connect(0, endpoint=0, stream=self._pipe.address)
        self._inlet.lend_to(0, session.feed.native)

    def take(self, count: int, gap_ns: int) -> np.ndarray:
        """When each of `count` records was in hand, CLOCK_MONOTONIC."""
        run, native = self._inlet.run, self._inlet.native
        times = np.zeros(count, dtype=np.uint64)
        done = 0
        self._words[2], self._words[3], self._words[1] = gap_ns, 0, count
        until = time.monotonic_ns() + 20_000_000_000
        while done < count and run(until) == What.RECORDS:
            n = native.count
            times[done : done + n] = time.monotonic_ns()
            done += n
        self._inlet.disconnect(0)
        return times[:done]


class Peers:
    """The same by other means, on a uvloop of their own."""

    def __init__(self, ip: str, control: Control) -> None:
        self._ip = ip
        self._words = control.words
        self._loop = uvloop.new_event_loop()
        asyncio.set_event_loop(self._loop)
        self._open: dict[str, Any] = {}

    def echo(self, server: str, context: ssl.SSLContext | None) -> Sampler:
        key = f"{server}{bool(context)}"
        port = PORTS[server][bool(context)]
        url = f"{'wss' if context else 'ws'}://{self._ip}:{port}/"

        async def run() -> list[float]:
            if key not in self._open:
                how: dict[str, Any] = {"compression": None, "ping_interval": None}
                self._open[key] = await connect(url, ssl=context, **how)
            connection = self._open[key]
            samples = []
            text = PAYLOAD[:300].decode()
            for _ in range(ECHOES):
                begun = time.monotonic_ns()
                await connection.send(text)
                await connection.recv()
                samples.append((time.monotonic_ns() - begun) / 1000)
            return samples

        return lambda: self._loop.run_until_complete(run())

    def web3py(self, count: int, gap_ns: int) -> np.ndarray:
        async def run() -> np.ndarray:
            times = np.zeros(count, dtype=np.uint64)
            url = f"ws://{self._ip}:{PORTS['spin'][0]}/"
            how: dict[str, Any] = {"subscription_response_queue_size": LIMIT}
            async with AsyncWeb3(WebSocketProvider(url, **how)) as w3:
                await w3.eth.subscribe("newPendingTransactions", True)
                self._words[2], self._words[3], self._words[1] = gap_ns, 0, count
                done = 0
                async for message in w3.socket.process_subscriptions():
                    assert message["result"]["hash"]
                    times[done] = time.monotonic_ns()
                    done += 1
                    if done == count:
                        break
            return times[:done]

        return self._loop.run_until_complete(asyncio.wait_for(run(), 60))

    def msgspec(self, count: int, gap_ns: int) -> np.ndarray:
        decode = msgspec.json.Decoder(Notification).decode

        async def run() -> np.ndarray:
            times = np.zeros(count, dtype=np.uint64)
            url = f"ws://{self._ip}:{PORTS['spin'][0]}/"
            how: dict[str, Any] = {"compression": None, "ping_interval": None, "max_queue": None}
            async with connect(url, **how) as connection:
                await connection.send('{"id":1,"method":"eth_subscribe"}')
                await connection.recv()
                self._words[2], self._words[3], self._words[1] = gap_ns, 0, count
                for done in range(count):
                    decode(await connection.recv())
                    times[done] = time.monotonic_ns()
            return times

        return self._loop.run_until_complete(asyncio.wait_for(run(), 60))


def traffic() -> list[bytes]:
    """Notifications of a real block's transactions, as a node spells them."""
    head = {"jsonrpc": "2.0", "method": "eth_subscription"}
    return [
        frame(
            json.dumps(
                head | {"params": {"subscription": "0xabc", "result": tx}}, separators=(",", ":")
            ).encode()
        )
        for tx in load_block()["transactions"]
        if len(json.dumps(tx)) < 8000
    ]


def to_record(frames: list[bytes]) -> tuple[Sampler, Callable[[], float]]:
    """Decrypted bytes to a record in hand, one by one; and the rate of many behind one another."""
    websocket = WebSocket("ws://recorded.example")
    websocket.state = State.OPEN
    feed = TxFeed(Decoder(Rules.preset("london", 0)), websocket=websocket)
    messages, records = ffi.new("struct bw_message[]", BURST), ffi.new("struct bw_tx[]", BURST)
    event = ffi.new("struct bw_txfeed_event *")
    lend, read = lib.bw_txfeed_lend, lib.bw_txfeed_read
    held = [(ffi.from_buffer("uint8_t[]", data), len(data)) for data in frames]
    recorded = ffi.from_buffer("uint8_t[]", b"".join(frames))
    clock = time.perf_counter_ns

    def sample() -> list[float]:
        samples, native = [], feed.native
        for data, size in held * 10:
            begun = clock()
            lend(native, data, size, 1, 1)
            count = read(native, messages, records, BURST, event)
            samples.append((clock() - begun) / 1000)
            assert count == 1
        return samples

    def rate() -> float:
        native = feed.native
        begun, taken = clock(), 0
        for at in range(0, len(recorded), 65536):
            lend(native, recorded + at, min(65536, len(recorded) - at), 1, 1)
            event.kind = lib.BW_TXFEED_MORE
            while event.kind != lib.BW_TXFEED_NONE:
                taken += read(native, messages, records, BURST, event)
        assert taken == len(frames)
        return taken * 1e9 / (clock() - begun)

    return sample, rate


def rows_of_echo(
    pair: Pair, peers: Peers, endpoints: dict[str, StreamEndpoint], ca: Path, control: Control
) -> dict[str, Sampler]:
    rows: dict[str, Sampler] = {}
    ours, theirs = client_context(ca_file=ca), ssl.create_default_context(cafile=str(ca))
    for server, ports in PORTS.items():
        for tls in (False, True):
            kind = f"{'tls' if tls else 'plain'}-{server}"
            samplers: dict[str, Sampler] = {
                "websockets-uvloop": peers.echo(server, theirs if tls else None)
            }
            for name, endpoint in endpoints.items():
                client = Client(endpoint, pair.b.ip4, ports[tls], ours if tls else None)
                samplers[name] = client.echoes
            for who, sampler in samplers.items():
                rows[f"{who}/{kind}"] = _awake(sampler, control, server == "spin")
    return rows


def _awake(sampler: Sampler, control: Control, spinning: bool) -> Sampler:
    """Runs `sampler` with the spinning server awake only where it is wanted."""

    def run() -> list[float]:
        control.words[0] = not spinning
        time.sleep(0.005)
        return sampler()

    return run


def notified(
    take: Callable[[int, int], np.ndarray], control: Control, losses: dict[str, int], who: str
) -> tuple[Sampler, Sampler]:
    """Samplers of latency and of microseconds a notification."""

    def latency() -> list[float]:
        control.words[0] = 0
        times = take(NOTIFIED, GAP_NS)
        losses[who] = losses.get(who, 0) + NOTIFIED - len(times)
        sent = np.array(control.words[8 : 8 + len(times)], dtype=np.uint64)
        return list((times - sent) / 1000.0)

    def rate() -> list[float]:
        control.words[0] = 0
        times = take(RATED, 0)
        losses[who] = losses.get(who, 0) + RATED - len(times)
        return [float(times[-1] - control.words[8]) / 1000 / len(times)]

    return latency, rate


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    pin(0)
    frames = traffic()
    control = Control()
    assert max(NOTIFIED, RATED) <= LIMIT
    with Pair() as pair, tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        authority = Authority(Path(folder))
        certificate = authority.issue(pair.b.ip4)

        def server(function: Callable[..., None], *rest: Any) -> None:
            die_with_parent()
            pin(1)
            function(pair.b.ip4, *rest)

        pair.b.start(server, spin, PORTS["spin"], certificate, control, frames)
        pair.b.start(server, sleep_on_uvloop, PORTS["uvloop"], certificate)
        time.sleep(1)
        stack.enter_context(pair.a)
        endpoints = {
            "barewire-kernel": stack.enter_context(open_stream("kernel")),
            "barewire-afxdp": stack.enter_context(open_stream(f"afxdp:{pair.a.interface}")),
        }
        peers = Peers(pair.b.ip4, control)
        rows = rows_of_echo(pair, peers, endpoints, authority.ca, control)
        losses: dict[str, int] = {}
        takers = {"web3py": peers.web3py, "websockets-msgspec": peers.msgspec}
        for name, endpoint in endpoints.items():
            subscriber = Subscriber(endpoint, pair.b.ip4, control)

            def take(count: int, gap: int, who: Subscriber = subscriber) -> np.ndarray:
                who.subscribe()
                return who.take(count, gap)

            takers[name] = take
        for who, taker in takers.items():
            latency, rate = notified(taker, control, losses, who)
            rows[f"{who}/notification"], rows[f"{who}/rate"] = latency, rate
        one, recorded_rate = to_record(frames)
        rows["barewire-frame-to-record"] = one
        measured = measure(rows, rounds=args.rounds)
        control.words[0] = 1
        recorded = max(recorded_rate() for _ in range(20))
    finish("ws", [_finished(row, losses, recorded) for row in measured], NOTES, to=args.json)


def _finished(row: Row, losses: dict[str, int], recorded: float) -> Row:
    who, _, kind = row.who.rpartition("/")
    if kind == "rate":
        row.load = "as fast as it goes"
        row.extra |= {"rate": round(1e6 / row.p50), "lost": losses[who]}
    elif kind == "notification":
        row.load = f"paced {1_000_000_000 // GAP_NS}/s"
        row.extra["lost"] = losses[who]
    elif row.who == "barewire-frame-to-record":
        row.extra["recorded_rate"] = round(recorded)
    return row


NOTES = """\
client and server have a core each; both ends share the machine with its interrupts
/rate rows are microseconds a notification over one go of 1,500; the sender is a loop in Python
notifications are those of mainnet block 12,964,999, as a node spells them
veth has no hardware queues: what AF_XDP saves on a real NIC is not measured here
web3.py and msgspec check nothing; Barewire rebuilds the envelope, decodes it, compares its hash
recorded_rate: from recorded frames in pieces of 64 KiB, best of 20
""".splitlines()

if __name__ == "__main__":
    main()
