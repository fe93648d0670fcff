"""Wire to wire: before the sender's send of a transaction to the reply in its hand.

A C sender in one network namespace, on core 1, over a spinning kernel socket, the same for every
row; in the other namespace, on core 0, whoever is measured. Each datagram holds one signed swap,
all different. The appliance's rows are ``barewire run`` with a configuration as a user would write
it; ``-shot`` fires an armed shot, ``-match`` hands the match to Python, which sends;
``-shot-two-cores`` is the path cut between feed and decode. The peers are in wire_peers.py.
``io-afxdp`` is what the wire and packet I/O take without any of that, and ``barewire-afxdp-loop``
the hot path without the appliance around it (wire_loop.py).
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from appliance.lab import Pair
from bench import harness
from bench.native_code import program
from bench.wire_peers import HERE_CORE
from bench.wire_traffic import WATCHED, datagrams, prepared_reply, written

SENDER_CORE = 1
FEED_PORT, FIRST_SENDER_PORT = 9000, 9001
GAP_US = 100  # between reply and next send: the shot is armed again meanwhile
SETTLE = 100  # packets that a subject gets before it is measured, each round
ROOT = Path(__file__).resolve().parents[1]
TIMEOUT_NS = 50_000_000
ONE_CORE = f"[core]\ncpu = {HERE_CORE}\n"
BEHIND_CORE = 2  # where there is one: otherwise the core behind has to share the sender's
TWO_CORES = f"""
[[core]]
name = "rx"
cpu = {HERE_CORE}
stages = ["receive", "feed"]
[[core]]
name = "hit"
cpu = {BEHIND_CORE if BEHIND_CORE in os.sched_getaffinity(0) else SENDER_CORE}
stages = ["decode", "trigger"]
"""


class Stage:
    """The namespaces, the packets, and how a row is measured on them."""

    def __init__(self, pair: Pair, folder: Path, samples: int, rounds: int) -> None:
        self._pair = pair
        self._folder = folder
        self._samples = samples
        self._reply = folder / "reply"
        self._reply.write_bytes(prepared_reply())
        self._packets = folder / "packets"
        self._packets.write_bytes(written(datagrams((samples + SETTLE) * (rounds + 1))))
        self._sender = program("wire_sender")
        self._senders: dict[str, subprocess.Popen[bytes]] = {}
        self._ports: dict[str, int] = {}
        self.unanswered: dict[str, int] = {}

    def close(self) -> None:
        """Ends the senders."""
        for sender in self._senders.values():
            sender.kill()
            sender.wait()

    def peer(self, who: str) -> np.ndarray:
        """One round with a peer of wire_peers.py."""
        here, there = self._pair.b.ip4, self._pair.a.ip4
        words = [who, here, str(FEED_PORT), there, str(self._port(who)), str(self._reply)]
        return self._round(who, [sys.executable, "-m", "bench.wire_peers", *words])

    def loop(self, who: str, via: str) -> np.ndarray:
        """One round with the plain loop."""
        here, there = self._pair.b.ip4, self._pair.a.ip4
        words = [via, here, str(FEED_PORT), there, str(self._port(who)), str(self._reply)]
        return self._round(who, [sys.executable, "-m", "bench.wire_loop", *words])

    def appliance(self, who: str, via: str, strategy: str, cores: str = ONE_CORE) -> np.ndarray:
        """One round with ``barewire run``."""
        config = self._folder / f"{who}.toml"
        config.write_text(self._configuration(who, via, strategy, cores))
        command = [sys.executable, "-m", "appliance", "run", "--config", str(config), "-o", "json"]
        return self._round(who, command)

    def _port(self, who: str) -> int:
        """Where the sender of this row hears replies; each row has a sender of its own."""
        return self._ports.setdefault(who, FIRST_SENDER_PORT + len(self._ports))

    def _configuration(self, who: str, via: str, strategy: str, cores: str) -> str:
        shot = 'shot = "answer"\n' if strategy == "KeepArmed" else ""
        return f"""
{cores}
[[source]]
name = "site"
via = "{via}"
lines = ["{self._pair.b.ip4}:{FEED_PORT}"]
trusted = true

[[destination]]
name = "sender"
address = "{self._pair.a.ip4}:{self._port(who)}"

[[trigger]]
name = "router"
to = ["{WATCHED}"]
{shot}
[fire]
unjournalled = true
max_per_second = 65536
max_total = 100000000
max_total_value = "1000000000 ether"

[strategy]
load = "bench.wire_strategies:{strategy}"
options = {{ reply = "{self._reply}" }}

[metrics]
folder = "{self._folder}"
"""

    @contextlib.contextmanager
    def _subject(self, command: list[str]) -> Iterator[None]:
        process = self._pair.b.popen(
            *command, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)}
        )
        try:
            assert process.stdout is not None
            if not process.stdout.readline():
                raise RuntimeError(f"{command} did not start")
            yield
            if process.poll() is not None:
                raise RuntimeError(f"{command} died")
        finally:
            process.kill()
            process.wait()
            process.stdout.close()

    def _round(self, who: str, command: list[str]) -> np.ndarray:
        with self._subject(command):
            self._go(who, SETTLE)
            took = self._go(who, self._samples)
        # A reply that never came counts as the time after which it was given up.
        lost = took == np.iinfo(np.uint64).max
        self.unanswered[who] = self.unanswered.get(who, 0) + int(lost.sum())
        return np.where(lost, TIMEOUT_NS, took).astype(float) / 1000

    def _go(self, who: str, count: int) -> np.ndarray:
        if who not in self._senders:
            there = [self._pair.b.ip4, str(FEED_PORT), str(self._port(who)), str(GAP_US)]
            self._senders[who] = self._pair.a.popen(
                *(str(self._sender), str(SENDER_CORE), *there, str(self._packets)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        sender = self._senders[who]
        assert sender.stdin is not None
        assert sender.stdout is not None
        sender.stdin.write(b"go %d\n" % count)
        sender.stdin.flush()
        took = np.frombuffer(sender.stdout.read(8 * count), dtype=np.uint64)
        if len(took) != count:
            raise RuntimeError(f"{who}: the sender ended early")
        return took


def main() -> None:
    parser = harness.arguments(__doc__ or "")
    parser.add_argument("--samples", type=int, default=2000, help="packets a round and row")
    args = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("bench wire needs root: it makes network namespaces and opens AF_XDP sockets")
    sys.stderr.write("signing the packets\n")
    # Checksums are finished on this wire, as on a real one, so that every row sees the same frames.
    with Pair(offloads=False) as pair, tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        stage = Stage(pair, Path(folder), args.samples, args.rounds)
        rows: dict[str, Callable[[], np.ndarray]] = {
            "idiomatic": lambda: stage.peer("idiomatic"),
            "tuned-python": lambda: stage.peer("tuned-python"),
            "barewire-kernel": lambda: stage.appliance("barewire-kernel", "kernel", "KeepArmed"),
            "barewire-afxdp-match": lambda: stage.appliance(
                "barewire-afxdp-match", "afxdp:veth0", "Answer"
            ),
            "barewire-afxdp-shot": lambda: stage.appliance(
                "barewire-afxdp-shot", "afxdp:veth0", "KeepArmed"
            ),
            "barewire-afxdp-shot-two-cores": lambda: stage.appliance(
                "barewire-afxdp-shot-two-cores", "afxdp:veth0", "KeepArmed", TWO_CORES
            ),
            "barewire-afxdp-loop": lambda: stage.loop("barewire-afxdp-loop", "afxdp:veth0"),
            "io-afxdp": lambda: stage.peer("io-afxdp"),
        }
        try:
            results = harness.measure(rows, rounds=args.rounds)
        finally:
            stage.close()
    for row in results:
        row.extra["unanswered"] = stage.unanswered[row.who]
    harness.finish("wire", results, notes(results), to=args.json)


def notes(results: list[harness.Row]) -> list[str]:
    """What was measured, and the ratios that the goals are about."""
    by = {row.who: row.p50 for row in results}
    io, shot = by["io-afxdp"], by["barewire-afxdp-shot"]
    against = f"1/{by['idiomatic'] / shot:.0f} of idiomatic, 1/{by['tuned-python'] / shot:.1f}"
    match = by["barewire-afxdp-match"] - io
    loop = by["barewire-afxdp-loop"]
    crowded = (
        f"the machine has no core {BEHIND_CORE}: the core behind of the two-core row shares core "
        f"{SENDER_CORE} with the spinning sender, and its times are the scheduler's"
    )
    return [
        f"one signed EIP-1559 swap a datagram, {GAP_US} us of quiet between reply and next send",
        "the sender is a spinning kernel socket in C, the same for all",
        "idiomatic recovers the sender; tuned-python and the shots believe a trusted source",
        "tuned-python hashes after its reply has left, as the shots do",
        "a reply that did not come within 50 ms counts as 50 ms (unanswered)",
        "a veth pair shows neither a NIC's latency nor its jitter; AF_XDP is in its generic mode",
        f"p50: shot is io-afxdp {shot - io:+.2f} us, {against} of tuned-python",
        f"p50: match is io-afxdp {match:+.2f} us",
        f"p50: the one-core topology (shot) is the plain loop {100 * (shot / loop - 1):+.1f} %",
        *([] if BEHIND_CORE in os.sched_getaffinity(0) else [crowded]),
    ]


if __name__ == "__main__":
    main()
