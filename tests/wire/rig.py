"""A real appliance in one namespace, a publisher whose lines a test can break in the other.

with Rig(pair, config...) as rig:
    rig.publish(messages, faults={0: drop_all})
    seen = rig.stop()
"""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from appliance.lab import Pair
from appliance.metrics.files import open_all
from appliance.metrics.places import Counter
from appliance.places import Place
from barewire.feeds.mold_publisher import MoldPublisher
from dpdk_bindings import Channel, open_datagram
from dpdk_bindings.metrics import MetricsReader

__all__ = ["Rig", "Stopped"]

Fault = Callable[[list[bytes]], list[bytes]]
GATEWAY, RETRANSMIT = 7000, 9100
PAYLOAD = b"prepared bytes"


def untouched(datagrams: list[bytes]) -> list[bytes]:
    return datagrams


class Stopped:
    """What a stopped appliance said: its summary, what its strategy saw, what came back."""

    def __init__(self, summary: dict[str, Any], seen: list[dict[str, Any]], replies: list[bytes]):
        self.summary = summary
        self.seen = seen
        self.replies = replies

    @property
    def feed(self) -> dict[str, Any]:
        feed: dict[str, Any] = self.summary["sources"]["site"]
        return feed

    @property
    def hashes(self) -> list[str]:
        return [match["hash"] for match in self.seen]


class Rig:
    """Publisher in ``pair.a`` (this process), appliance in ``pair.b`` (``barewire run``)."""

    def __init__(
        self,
        pair: Pair,
        folder: Path,
        *,
        via: str | None = None,
        lines: Sequence[tuple[str, int]] | None = None,
        interfaces: Sequence[str] | None = None,
        retransmit: bool = True,
        far: str | None = None,
        max_datagram: int = 1472,
        extra: str = "",
        triggers: str = '[[trigger]]\nname = "all"\n',
        trusted: bool = True,
        strategy: str = "tests.wire.strategies:Recorder",
        strategy_limits: str = "",
    ) -> None:
        self.pair = pair
        self.records = Path(tempfile.mkdtemp(prefix="barewire-rig-", dir="/dev/shm"))
        self.log = folder / "seen.json"
        self.config = folder / "appliance.toml"
        self.lines = list(lines or [("239.77.0.1", 9001), ("239.77.0.2", 9002)])
        self.far = far or pair.a.ip4
        far_written = f"[{self.far}]" if ":" in self.far else self.far
        by = list(interfaces or [pair.b.interface] * len(self.lines))  # of each line, in both ends
        written = ", ".join(
            f'"{Place(address, port, interface)}"'
            for (address, port), interface in zip(self.lines, by, strict=True)
        )
        self.config.write_text(
            f'[[source]]\nname = "site"\nvia = "{via or "afxdp:" + pair.b.interface}"\n'
            f"lines = [{written}]\n"
            f"trusted = {str(trusted).lower()}\n"
            + (f'retransmit = "{far_written}:{RETRANSMIT}"\n' if retransmit else "")
            + f'[[destination]]\nname = "gateway"\naddress = "{far_written}:{GATEWAY}"\n'
            + triggers
            + f'[strategy]\nload = "{strategy}"\n{strategy_limits}'
            + f'options = {{ log = "{self.log}" }}\n'
            + f'[metrics]\nfolder = "{self.records}"\n'
            + extra
        )
        self.publisher = MoldPublisher(f"T{os.getpid() % 10**8:08d}", max_datagram=max_datagram)
        self.replies: list[bytes] = []
        self._begun = self.publisher.next_sequence
        with pair.a:
            self.endpoint = open_datagram(
                "kernel",
                channels=[Channel(self.far, RETRANSMIT), Channel(self.far, GATEWAY)],
            )
            self.peers = [
                self.endpoint.add_peer(address, port, interface=interface)
                for (address, port), interface in zip(self.lines, by, strict=True)
            ]
        self._requesters: dict[tuple[str, int], int] = {}
        self.process: subprocess.Popen[bytes] | None = None
        self._said = b""
        self.started: dict[str, Any] = {}
        self.answering = True

    def __enter__(self) -> Rig:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.endpoint.close()
        shutil.rmtree(self.records)

    def start(self) -> None:
        """Starts the appliance; `started` is what it said of itself."""
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
        self.process = self.pair.b.popen(
            *(sys.executable, "-m", "appliance", "run", "--config", str(self.config), "-o", "json"),
            stdout=subprocess.PIPE,
            env=environment,
        )
        self._said = b""
        while b"\n" not in self._said:
            if not self._read(60):
                raise RuntimeError("the appliance did not start")
        # The receiver takes the sequence up where it first hears of it: before the first message.
        self._begun = self.publisher.next_sequence
        self.heartbeat()
        self.started = self._lines()[0]

    def _read(self, seconds: float) -> bool:
        """Takes what the appliance has said since; False: nothing in that time, or it has ended."""
        assert self.process is not None
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            return False
        some = os.read(self.process.stdout.fileno(), 1 << 20)
        self._said += some
        return bool(some)

    def _lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._said.splitlines(keepends=True) if b"\n" in line]

    def hear(self, words: str, seconds: float = 20) -> None:
        """Settles until the appliance has told of an event with these words in it."""
        end = time.monotonic() + seconds
        while not any(words in line.get("event", "") for line in self._lines()):
            assert time.monotonic() < end, f"no {words!r} in {self._said!r}"
            self.settle(0.05)
            self._read(0)

    def end(self, status: int = 0, seconds: float = 10) -> list[dict[str, Any]]:
        """All that the appliance has said; it ends of itself, or was told to, with that status."""
        assert self.process is not None
        end = time.monotonic() + seconds
        while self._read(max(end - time.monotonic(), 0)):
            pass
        assert self.process.wait(max(end - time.monotonic(), 1)) == status
        return self._lines()

    def kill(self) -> None:
        """``kill -9``."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None

    def publish(
        self,
        messages: Sequence[bytes],
        *,
        faults: dict[int, Fault] | None = None,
        every_s: float = 0.0002,
    ) -> None:
        """Sends each message on every line, through that line's fault."""
        faults = faults or {}
        for message in messages:
            for datagram in self.publisher.pack([message]):
                for line, peer in enumerate(self.peers):
                    for copy in faults.get(line, untouched)([datagram]):
                        self.endpoint.send(peer, copy)
            self.endpoint.flush()
            self.serve(every_s)

    def serve(self, seconds: float) -> None:
        """Answers requests and takes replies for a while."""
        end = time.monotonic() + seconds
        while True:
            with self.endpoint.recv() as burst:
                for index in range(len(burst)):
                    payload = bytes(burst[index])
                    if burst.channel(index) == 1:
                        self.replies.append(payload)
                    elif self.answering:
                        self._answer(payload, burst.source(index))
            if time.monotonic() >= end:
                return

    def heartbeat(self) -> None:
        """Tells the receiver how far the sequence has come."""
        for peer in self.peers:
            self.endpoint.send(peer, self.publisher.heartbeat())
        self.endpoint.flush()

    def settle(self, seconds: float) -> None:
        """Heartbeats and answers for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.heartbeat()
            self.serve(0.02)

    def arrive(self, others: int = 0, seconds: float = 30) -> None:
        """Heartbeats and answers until what was published since the start is through.

        Every message is delivered, or counted as lost, and then every core has found nothing to do:
        the first of them, those behind it, and the strategy.

        Args:
            others: messages that other feeds bring it.
            seconds: until it is given up.
        """
        end = time.monotonic() + seconds
        with open_all(self.records) as (cores, _):
            while (through := self._through(cores)) < others + self._published:
                assert time.monotonic() < end, f"{through} messages of {self._published} came"
                self.heartbeat()
                self.serve(0.01)
            for _ in range(len(cores) + 1):  # a turn may have looked just before
                before = [core.duty().turns["idle"] for core in cores]
                while any(
                    core.duty().turns["idle"] == turns
                    for core, turns in zip(cores, before, strict=True)
                ):
                    assert time.monotonic() < end, "a core has always something to do"
                    self.serve(0.001)

    def reach(self, counter: Counter, value: int, seconds: float = 30) -> None:
        """Heartbeats and answers until all cores together have counted that many."""
        end = time.monotonic() + seconds
        with open_all(self.records) as (cores, _):
            while (counted := sum(core.counters()[counter] for core in cores)) < value:
                assert time.monotonic() < end, f"{counter.name} is {counted} of {value}"
                self.settle(0.02)

    @property
    def _published(self) -> int:
        return self.publisher.next_sequence - self._begun

    @staticmethod
    def _through(cores: Sequence[MetricsReader]) -> int:
        counters = [core.counters() for core in cores]
        return sum(c[Counter.MESSAGES_DELIVERED] + c[Counter.MESSAGES_LOST] for c in counters)

    def stop(self, number: int = signal.SIGTERM) -> Stopped:
        """Stops the appliance cleanly and returns what it said."""
        assert self.process is not None
        self.process.send_signal(number)
        summary = self.end()[-1]
        self.serve(0.05)  # what it sent last
        assert summary["type"] == "summary"
        self.kill()
        return Stopped(summary, json.loads(self.log.read_text()), self.replies)

    def _answer(self, request: bytes, source: tuple[str, int]) -> None:
        peer = self._requesters.get(source)
        if peer is None:
            peer = self._requesters[source] = self.endpoint.add_peer(*source)
        for datagram in self.publisher.answer(request, source, time.monotonic_ns()):
            self.endpoint.send(peer, datagram)
        self.endpoint.flush()


def lossy(share: float, seed: int) -> Fault:
    """Loses a share of the datagrams."""
    rng = random.Random(seed)
    return lambda datagrams: [d for d in datagrams if rng.random() >= share]


def duplicated(datagrams: list[bytes]) -> list[bytes]:
    """Sends every datagram twice."""
    return [d for d in datagrams for _ in range(2)]


def dead(_datagrams: list[bytes]) -> list[bytes]:
    """Sends nothing."""
    return []


def reordered(depth: int, seed: int) -> Fault:
    """Holds datagrams back and lets them go in a random order."""
    rng = random.Random(seed)
    held: list[bytes] = []

    def fault(datagrams: list[bytes]) -> list[bytes]:
        held.extend(datagrams)
        if len(held) < depth:
            return []
        rng.shuffle(held)
        gone = held[: depth // 2]
        del held[: depth // 2]
        return gone

    return fault
