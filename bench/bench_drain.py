"""What one received datagram costs, taken from a queue that is already full.

From `recv()` entered to `release()` returned, divided by the burst: 256 bytes of UDP, each payload
added into a sum that is checked, by native code over the burst's descriptors. The socket peer reads
with recv_into and sums in Python, in the cheapest way we know.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from appliance.lab import Pair
from bench import harness, native_code
from dpdk_bindings import Channel, DatagramEndpoint, open_datagram

PAYLOAD_BYTES = 256
QUEUED = 1024
PORT = 9000
OUR_CORE, THEIR_CORE = 0, 1
BURSTS = (1, 8, 64)

LIB, FFI = native_code.load(
    "io",
    """
    int drain_fill(int fd, uint32_t payload_bytes, uint64_t first, int n);
    uint64_t drain_sum(uintptr_t datagrams, int n);
    """,
)


class Filler:
    """Fills our queue from the other namespace, from the other core."""

    def __init__(self, pair: Pair) -> None:
        with pair.b:
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect((pair.a.ip4, PORT))
        self._next = 0

    def fill(self) -> int:
        """Sends what is then measured; gives the sum of all its words, modulo 2^64."""
        first = self._next
        self._next += QUEUED
        harness.pin(THEIR_CORE)
        left = LIB.drain_fill(self._socket.fileno(), PAYLOAD_BYTES, first, QUEUED)
        harness.pin(OUR_CORE)
        time.sleep(0.002)  # what the kernel has put off is delivered too
        if left:
            raise RuntimeError(f"{left} datagrams could not be sent")
        return sum(range(first, self._next)) * (PAYLOAD_BYTES // 8)

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()


class Rows:
    """One method a row; each opens its receiver, fills and drains `fills` times, and closes it."""

    def __init__(self, pair: Pair, filler: Filler, fills: int) -> None:
        self._pair = pair
        self._filler = filler
        self._fills = fills

    def recv_into(self) -> Any:
        """A non-blocking socket, read into one buffer."""
        with self._pair.a:
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with s:
            s.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE
            s.bind((self._pair.a.ip4, PORT))
            s.setblocking(False)
            buffer = bytearray(2048)
            payload = memoryview(buffer)[:PAYLOAD_BYTES]
            clock, recv_into, as_number = time.perf_counter_ns, s.recv_into, int.from_bytes
            took = np.zeros(self._fills * QUEUED)
            at = 0
            for _ in range(self._fills):
                wanted = self._filler.fill()
                total = 0
                for _ in range(QUEUED):
                    start = clock()
                    recv_into(buffer)
                    total += as_number(payload, "little")
                    took[at] = clock() - start
                    at += 1
                # The words of all payloads, added: the digits of the total in base 2^64.
                if total % (2**64 - 1) != wanted % (2**64 - 1):
                    raise RuntimeError("the sum of what came is not that of what was sent")
            return took

    @contextlib.contextmanager
    def _endpoint(self, via: str, burst: int) -> Iterator[DatagramEndpoint]:
        with self._pair.a:
            channels = [Channel(self._pair.a.ip4, PORT)]
            endpoint = open_datagram(via, channels=channels, burst=burst, buffers=2 * QUEUED)
        with endpoint:
            yield endpoint

    def barewire(self, via: str, burst: int) -> Any:
        """An endpoint; the sum by one native call a burst."""
        clock, add = time.perf_counter_ns, LIB.drain_sum
        took = np.zeros(self._fills * QUEUED)
        at = 0
        with self._endpoint(via, burst) as endpoint:
            recv = endpoint.recv
            for _ in range(self._fills):
                wanted = self._filler.fill()
                total = got = 0
                while got < QUEUED:
                    start = clock()
                    datagrams = recv()
                    n = len(datagrams)
                    total += add(datagrams.address, n)
                    datagrams.release()
                    spent = clock() - start
                    if not n:
                        raise RuntimeError(f"{got} of {QUEUED} came: {endpoint.stats()}")
                    took[at : at + n] = spent / n
                    at += n
                    got += n
                if total % 2**64 != wanted % 2**64:
                    raise RuntimeError("the sum of what came is not that of what was sent")
        return took


def main() -> None:
    parser = harness.arguments(__doc__ or "")
    parser.add_argument("--fills", type=int, default=20, help="queues drained a round and row")
    args = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("bench drain needs root: it makes network namespaces and opens AF_XDP sockets")
    harness.pin(OUR_CORE)
    # A shared machine has other work for these cores; a trading host would not.
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(20))
    with Pair(offloads=True) as pair, contextlib.closing(Filler(pair)) as filler:
        rows = Rows(pair, filler, args.fills)
        measured: dict[str, Callable[[], Any]] = {"recv-into": rows.recv_into}
        for backend, via in (("kernel", "kernel"), ("afxdp", "afxdp:veth0?burst=64")):
            for burst in BURSTS:
                measured[f"barewire-{backend}@{burst}"] = lambda via=via, burst=burst: (
                    rows.barewire(via, burst)
                )
        results = harness.measure(measured, rounds=args.rounds)
    by = {row.who: row for row in results}
    ours, peer = by["barewire-afxdp@64"], by["recv-into"]
    notes = [
        f"{PAYLOAD_BYTES} bytes of UDP, {QUEUED} queued by the other core, then drained",
        "every payload is summed and the sum checked; the clock's own cost is included",
        "both ends at SCHED_FIFO 20: the cores are shared with other work",
        f"barewire-afxdp@64 p50: {ours.p50:.1f} ns; recv-into: {peer.p50 / ours.p50:.1f} x that",
    ]
    harness.finish("drain", results, notes, unit="ns", to=args.json)


if __name__ == "__main__":
    main()
