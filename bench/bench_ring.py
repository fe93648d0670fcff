"""One record from one process to another: publish entered to record in the consumer's hand.

Two processes, each pinned to a core of its own; 256 bytes, the first eight of which are
CLOCK_MONOTONIC before the publish. The producer waits until the consumer has the record (a shared
word) before it sends the next, so no row queues behind itself. ``@64`` is throughput: bursts of 64
over a lossless ring, every byte of every payload added up natively and the sum checked.
"""

from __future__ import annotations

import gc
import mmap
import multiprocessing as mp
import os
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zmq

import dpdk_bindings
from bench.harness import arguments, finish, measure, pin, summarise
from dpdk_bindings._native import ffi
from dpdk_bindings.ring import RingConsumer, RingKind, RingProducer

PAYLOAD = 256
PRODUCER_CORE, CONSUMER_CORE = 0, 1
BURST = 64
BURSTS = 8192

Send = Callable[[bytes], Any]
Receive = Callable[[], Any]


def _produce(connect: Callable[[], Send], taken: mmap.mmap, orders: Any, pause_ns: int) -> None:
    """The producer's process: sends as many as it is told to, each after the last was taken."""
    pin(PRODUCER_CORE)
    send = connect()
    gc.freeze()
    gc.disable()
    word = memoryview(taken).cast("Q")
    clock, pack, rest = time.monotonic_ns, struct.Struct("<Q").pack, bytes(PAYLOAD - 8)
    while count := orders.recv():
        base = word[0]
        for i in range(count):
            while word[0] != base + i:
                pass
            until = clock() + pause_ns + i % 512
            while clock() < until:
                pass
            send(pack(clock()) + rest)
    os._exit(0)


class Pair:
    """A producer in a process of its own, and the consumer's half here."""

    def __init__(self, connect: Callable[[], Send], receive: Receive, count: int) -> None:
        self.receive, self.count = receive, count
        self.taken = mmap.mmap(-1, 4096)
        context = mp.get_context("fork")
        self.orders, theirs = context.Pipe()
        # A pause long enough that a consumer which sleeps in the kernel is asleep again.
        self.process = context.Process(
            target=_produce, args=(connect, self.taken, theirs, 20_000), daemon=True
        )
        self.process.start()

    def sample(self) -> np.ndarray:
        """One round: microseconds of each record."""
        pin(CONSUMER_CORE)
        receive, clock, unpack = self.receive, time.monotonic_ns, struct.Struct("<Q").unpack_from
        word = memoryview(self.taken).cast("Q")
        apart = np.empty(self.count, dtype=np.int64)
        self.orders.send(self.count)
        for i in range(self.count):
            payload = receive()
            now = clock()
            apart[i] = now - unpack(payload)[0]
            word[0] += 1
        return apart / 1000

    def close(self) -> None:
        self.orders.send(0)
        self.process.join()


def _mp_queue() -> tuple[Callable[[], Send], Receive]:
    queue = mp.get_context("fork").Queue()
    return lambda: queue.put, queue.get


def _pipe() -> tuple[Callable[[], Send], Receive]:
    ours, theirs = mp.get_context("fork").Pipe(duplex=False)
    return lambda: theirs.send_bytes, ours.recv_bytes


def _zmq(folder: Path) -> tuple[Callable[[], Send], Receive]:
    address = f"ipc://{folder}/zmq"
    socket = zmq.Context().socket(zmq.PULL)
    socket.bind(address)

    def connect() -> Send:
        push = zmq.Context().socket(zmq.PUSH)
        push.connect(address)
        return push.send

    return connect, socket.recv


def _barewire() -> tuple[Callable[[], Send], Receive]:
    ring = RingProducer.create("memfd:bench", kind=RingKind.LOSSY, depth=1024, mtu=PAYLOAD)
    consumer = RingConsumer.open(ring.fd)
    fd = os.dup(ring.fd)
    ring.close()
    poll, records = consumer.poll, consumer.records

    def receive() -> memoryview:
        while not poll():
            pass
        return records.payload(0)

    return lambda: RingProducer.open(fd).publish, receive


class Throughput:
    """Bursts of 64 over a lossless ring, as fast as they go."""

    def __init__(self) -> None:
        ring = RingProducer.create("memfd:bench64", kind=RingKind.LOSSLESS, depth=4096, mtu=PAYLOAD)
        self.consumer = RingConsumer.open(ring.fd, seat="bench")
        self.payloads = np.random.default_rng(1).integers(0, 256, (BURST, PAYLOAD), dtype=np.uint8)
        fd = os.dup(ring.fd)
        ring.close()
        context = mp.get_context("fork")
        self.orders, theirs = context.Pipe()
        self.process = context.Process(target=self._produce, args=(fd, theirs), daemon=True)
        self.process.start()
        self.rates: list[float] = []

    def _produce(self, fd: int, orders: Any) -> None:
        pin(PRODUCER_CORE)
        ring = RingProducer.open(fd)
        records = ffi.new("struct dpb_record[]", BURST)
        for i in range(BURST):
            records[i].data = ffi.from_buffer("uint8_t[]", self.payloads[i])
            records[i].len = PAYLOAD
        gc.disable()
        publish = ring.publish_burst
        while bursts := orders.recv():
            for _ in range(bursts):
                done = publish(records, BURST)
                while done < BURST:
                    done += publish(records + done, BURST - done)
        os._exit(0)

    def sample(self) -> np.ndarray:
        """One round: microseconds a record of each burst polled."""
        pin(CONSUMER_CORE)
        consumer, clock = self.consumer, time.monotonic_ns
        poll, records, acknowledge = consumer.poll, consumer.records, consumer.acknowledge
        total, left, each = 0, BURST * BURSTS, []
        self.orders.send(BURSTS)
        while not (count := poll()):
            pass
        begun = before = clock()
        first = count
        while True:
            total += records.checksum()
            acknowledge()
            left -= count
            now = clock()
            each.append((now - before) / count)
            before = now
            if not left:
                break
            while not (count := poll()):
                pass
        self.rates.append((BURST * BURSTS - first) / (now - begun) * 1e9)
        burst = int(self.payloads.view("<u8").sum(dtype="<u8")) + BURST * PAYLOAD
        expected = burst * BURSTS % 2**64
        if total % 2**64 != expected:
            raise AssertionError(f"sum of the payloads {total}, published {expected}")
        return np.array(each) / 1000

    def close(self) -> None:
        self.orders.send(0)
        self.process.join()


def _native(folder: Path, count: int) -> tuple[Callable[[], np.ndarray], list[np.ndarray]]:
    package = Path(dpdk_bindings.__file__).parent
    program = folder / "ring_pair"
    subprocess.run(
        [
            *("cc", "-std=gnu11", "-O3", "-o", program),
            *(f"-I{package / 'include'}", f"-I{package / 'include/dpdk_bindings'}"),
            *(f"-I{package / 'native'}", Path(__file__).parent / "native/ring_pair.c"),
            package / "native/ring_file.c",
        ],
        check=True,
    )
    where = f"shm:bench-{os.getpid()}"
    RingProducer.create(where, kind=RingKind.LOSSY, depth=1024, mtu=PAYLOAD).close()
    path = f"/dev/shm/dpb-{where[4:]}.ring"
    bias: list[np.ndarray] = []

    def sample() -> np.ndarray:
        done = subprocess.run(
            [program, path, str(count), str(PRODUCER_CORE), str(CONSUMER_CORE)],
            stdout=subprocess.PIPE,
            check=True,
        )
        words = np.frombuffer(done.stdout, dtype=np.uint64).astype(float) / 1000
        bias.append(words[count:])
        return words[:count]

    return sample, bias


@contextmanager
def _rows(folder: Path) -> Iterator[tuple[dict[str, Callable[[], np.ndarray]], Any, Any]]:
    with ExitStack() as stack:
        rows: dict[str, Callable[[], np.ndarray]] = {}
        peers = {
            "mp-queue": _mp_queue(),
            "pipe": _pipe(),
            "zmq-ipc": _zmq(folder),
            "barewire-python": _barewire(),
        }
        for who, (connect, receive) in peers.items():
            pair = Pair(connect, receive, 2000)
            stack.callback(pair.close)
            rows[who] = pair.sample
        rows["barewire-c"], bias = _native(folder, 20_000)
        stack.callback(lambda: Path(f"/dev/shm/dpb-bench-{os.getpid()}.ring").unlink())
        throughput = Throughput()
        stack.callback(throughput.close)
        rows["barewire-python@64"] = throughput.sample
        yield rows, bias, throughput


def main() -> int:
    args = arguments(__doc__).parse_args()
    if (os.cpu_count() or 1) < 2:
        sys.stderr.write("bench ring: two cores are needed\n")
        return 1
    with tempfile.TemporaryDirectory() as folder, _rows(Path(folder)) as (rows, bias, throughput):
        result = measure(rows, rounds=args.rounds)
    rates = sorted(throughput.rates[1:])
    at64 = next(row for row in result if row.who.endswith("@64"))
    at64.extra = {"rate": round(rates[len(rates) // 2]), "rate_worst": round(rates[0])}
    result.append(summarise("bias", np.concatenate(bias[1:])))
    p50 = {row.who: row.p50 for row in result}
    finish(
        "ring",
        result,
        [
            f"{PAYLOAD} bytes, one way, core {PRODUCER_CORE} to {CONSUMER_CORE}, one at a time",
            "mp-queue, pipe and zmq-ipc sleep in the kernel as they are used; Barewire spins",
            "bias: two readings of the clock in C, one after the other; each sample contains one",
            f"zmq-ipc / barewire-c: {p50['zmq-ipc'] / p50['barewire-c']:.0f} times",
            "@64: microseconds a record of each burst, records a second of whole rounds; lossless",
            "@64: every byte of every payload is added up natively, and the sum is checked",
        ],
        to=args.json,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
