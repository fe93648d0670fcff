"""Round trip of 256 bytes of UDP, from before the send to the reply in hand, over a veth pair.

Every row talks to one spinning C echo in another network namespace, on another core; only our end
differs. The echo is on AF_XDP, so that the far end weighs as little as it can in every row.
sockperf brings its own server.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from appliance.lab import Child, Pair
from bench import harness, native_code
from dpdk_bindings import Channel, DatagramEndpoint, open_datagram

PAYLOAD_BYTES = 256
OUR_CORE, THEIR_CORE = 0, 1
ECHO_PORT, OUR_PORT, SOCKPERF_PORT = 9000, 9001, 9002
PAYLOAD = bytes(range(256))

LIB, FFI = native_code.load(
    "io",
    """
    void io_echo_endpoint(const void *ref);
    int io_socket(int fd, uint32_t payload_bytes, uint64_t *took_ns, int n);
    int io_endpoint(const void *ref, int peer, uint32_t payload_bytes, uint64_t *took_ns, int n);
    """,
)


def echo(address: str, to: str) -> None:
    """The other end; never returns."""
    harness.pin(THEIR_CORE)
    endpoint = open_datagram("afxdp:veth0", channels=[Channel(address, ECHO_PORT)])
    peer = endpoint.add_peer(to, OUR_PORT)
    while not endpoint.send(peer, b"resolves the next hop"):
        endpoint.housekeeping()
    LIB.io_echo_endpoint(FFI.cast("void *", _address(endpoint.ref)))


class Rows:
    """One method a row; each opens what it needs and closes it again, so that rows do not meet."""

    def __init__(self, pair: Pair, n: int) -> None:
        self._pair = pair
        self._n = n
        self._there = (pair.b.ip4, ECHO_PORT)
        self._echo = self._start_echo()

    def _start_echo(self) -> Child:
        child = self._pair.b.start(echo, self._pair.b.ip4, self._pair.a.ip4)
        with self._socket(blocking=True) as s:
            s.settimeout(0.05)
            for _ in range(200):
                with contextlib.suppress(OSError):
                    s.send(PAYLOAD)
                    if s.recv(2048) == PAYLOAD:
                        return child
        raise RuntimeError("the echo does not answer")

    def _socket(self, *, blocking: bool) -> socket.socket:
        with self._pair.a:
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.bind((self._pair.a.ip4, OUR_PORT))
        s.connect(self._there)
        s.setblocking(blocking)
        return s

    @contextlib.contextmanager
    def _endpoint(self, via: str) -> Iterator[tuple[DatagramEndpoint, int]]:
        with self._pair.a:
            endpoint = open_datagram(via, channels=[Channel(self._pair.a.ip4, OUR_PORT)])
            with endpoint:
                peer = endpoint.add_peer(*self._there)
                while not endpoint.send(peer, PAYLOAD):
                    endpoint.housekeeping()
                endpoint.flush()
                while not (burst := endpoint.recv()):
                    pass
                burst.release()
                yield endpoint, peer

    def python_blocking(self) -> list[int]:
        """socket.send and recv, blocking."""
        took: list[int] = []
        clock = time.perf_counter_ns
        with self._socket(blocking=True) as s:
            for _ in range(self._n // 4):
                start = clock()
                s.send(PAYLOAD)
                s.recv(2048)
                took.append(clock() - start)
        return took

    def uvloop(self) -> list[int]:
        """A datagram protocol on uvloop that sends again when the reply is there."""
        took: list[int] = []
        clock = time.perf_counter_ns
        wanted = self._n // 4

        class Client(asyncio.DatagramProtocol):
            def __init__(self) -> None:
                self.done = asyncio.get_running_loop().create_future()

            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                self.transport: Any = transport
                self.start = clock()
                transport.sendto(PAYLOAD)  # type: ignore[attr-defined]

            def datagram_received(self, data: bytes, addr: Any) -> None:
                took.append(clock() - self.start)
                if len(took) == wanted:
                    self.done.set_result(None)
                    return
                self.start = clock()
                self.transport.sendto(PAYLOAD)

        async def run() -> None:
            loop = asyncio.get_running_loop()
            transport, client = await loop.create_datagram_endpoint(
                Client, sock=self._socket(blocking=False)
            )
            await client.done
            transport.close()

        uvloop.run(run())
        return took

    def c_spin(self) -> Any:
        """A C loop over a non-blocking kernel socket."""
        with self._socket(blocking=False) as s:
            return self._native(lambda took: LIB.io_socket(s.fileno(), 256, took, self._n))

    def c_afxdp(self) -> Any:
        """A C loop over the function table of Barewire's AF_XDP endpoint."""
        with self._endpoint("afxdp:veth0") as (endpoint, peer):
            ref = FFI.cast("void *", int(_address(endpoint.ref)))
            return self._native(lambda took: LIB.io_endpoint(ref, peer, 256, took, self._n))

    def _native(self, run: Callable[[Any], int]) -> Any:
        took = np.zeros(self._n, dtype=np.uint64)
        done = run(FFI.cast("uint64_t *", took.ctypes.data))
        if done != self._n:
            raise RuntimeError(f"round trip {done} failed")
        return took

    def sockperf(self) -> list[float]:
        """Sockperf ping-pong; its own server takes the place of the echo."""
        server_command = ["taskset", "-c", str(THEIR_CORE), "sockperf", "server"]
        server_command += ["-i", self._pair.b.ip4, "-p", str(SOCKPERF_PORT)]
        self._echo.kill()
        server = self._pair.b.popen(
            *server_command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            time.sleep(0.3)
            return self._sockperf()
        finally:
            server.kill()
            server.wait()
            self._echo = self._start_echo()

    def _sockperf(self) -> list[float]:
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "log"
            command = ["sockperf", "ping-pong", "-i", self._pair.b.ip4, "-p", str(SOCKPERF_PORT)]
            command += ["-m", "256", "-t", "1", "--full-rtt", "--full-log", str(log)]
            pinned = ["taskset", "-c", str(OUR_CORE), *command]
            done = self._pair.a.popen(*pinned, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            words, _ = done.communicate(timeout=30)
            if done.returncode:
                raise RuntimeError(words.decode())
            rows = csv.reader(line for line in log.read_text().splitlines() if line[:1].isdigit())
            return [float(trip_us) * 1000 for *_, trip_us in rows]

    def barewire(self, via: str) -> list[int]:
        """Barewire from Python."""
        took: list[int] = []
        clock = time.perf_counter_ns
        with self._endpoint(via) as (endpoint, peer):
            send, flush, recv = endpoint.send, endpoint.flush, endpoint.recv
            for _ in range(self._n):
                start = clock()
                send(peer, PAYLOAD)
                flush()
                while not (burst := recv()):
                    pass
                took.append(clock() - start)
                burst.release()
        return took


def _address(pointer: Any) -> int:
    from dpdk_bindings._native import ffi

    return int(ffi.cast("uintptr_t", pointer))


def main() -> None:
    parser = harness.arguments(__doc__ or "")
    parser.add_argument("--trips", type=int, default=10000, help="round trips a round and row")
    args = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("bench io needs root: it makes network namespaces and opens AF_XDP sockets")
    harness.pin(OUR_CORE)
    # A shared machine has other work for these cores; a trading host would not.
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(20))
    with Pair(offloads=True) as pair:
        rows = Rows(pair, args.trips)
        measured: dict[str, Callable[[], Any]] = {
            "python-blocking": rows.python_blocking,
            "uvloop": rows.uvloop,
            "c-spin": rows.c_spin,
            "c-afxdp": rows.c_afxdp,
            "barewire-kernel": lambda: rows.barewire("kernel"),
            "barewire-afxdp": lambda: rows.barewire("afxdp:veth0"),
        }
        notes = [
            "256 bytes of UDP over a veth pair, our end on core 0, C echo (on AF_XDP) on core 1",
            "checksum offload on, the kernel's rows at their best; AF_XDP in veth's generic mode",
            "both ends at SCHED_FIFO 20: the cores are shared with other work",
        ]
        if shutil.which("sockperf"):
            measured["sockperf"] = rows.sockperf
            notes.append("sockperf as it comes: it blocks, and so does its server")
        else:
            notes.append("sockperf is not installed: no row")
        scaled = {
            who: (lambda sample=sample: np.asarray(sample(), dtype=float) / 1000)
            for who, sample in measured.items()
        }
        results = harness.measure(scaled, rounds=args.rounds)
    by = {row.who: row for row in results}
    ours, spin, loop = by["barewire-afxdp"], by["c-spin"], by["uvloop"]
    notes.append(
        f"barewire-afxdp p50 is {ours.p50 / spin.p50:.2f} x c-spin and 1/{loop.p50 / ours.p50:.1f} "
        f"of uvloop; p99 is 1/{loop.p99 / ours.p99:.1f} of uvloop"
    )
    harness.finish("io", results, notes, to=args.json)


if __name__ == "__main__":
    main()
