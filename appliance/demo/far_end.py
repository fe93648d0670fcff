"""The other side of the demo's wire: publishes the feed and takes what is fired.

Runs as a process of its own in its own namespace (``python -m appliance.demo.far_end JOB RESULT``).
It publishes with the product's own publisher and notes when each transaction should have left and
when what the appliance fired came back: one clock, one process, so that the difference is the
sender's own view. When all is sent it goes on answering requests; SIGTERM says that none will come.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import msgspec

from appliance.demo.traffic import build, payloads
from appliance.faults import Faults
from appliance.places import Place
from appliance.publisher import Publisher, PublisherConfig, PublisherSummary
from appliance.supply import Paced
from barewire.keccak import keccak256
from dpdk_bindings import Channel, DatagramEndpoint, open_datagram

__all__ = ["Job", "Progress", "Result"]

GATEWAY_PORT = 7000
RETRANSMIT_PORT = 9100
_PROGRESS_NS = 200_000_000
_LINGER_NS = 3_500_000_000  # longer than a receiver asks for what it lacks


class Job(msgspec.Struct):
    """What to publish, where to, and how badly."""

    address: str
    lines: list[str]
    messages: int
    rate: float
    loss: float
    seed: int
    shots: int
    cpu: int | None


class Progress(msgspec.Struct):
    """One line on stdout, several times a second."""

    phase: str
    done: int
    of: int
    replies: int = 0


class Result(msgspec.Struct):
    """What the sender saw; all times are CLOCK_MONOTONIC.

    Attributes:
        intended_mono_ns: when each transaction should have left, by its hash.
        replies_mono_ns: when each fired payload came back, by its index.
    """

    published: PublisherSummary
    intended_mono_ns: dict[str, int]
    replies_mono_ns: dict[int, int]


class Replies:
    """Takes what the appliance fires, and the time when it came."""

    def __init__(self, endpoint: DatagramEndpoint, shots: int) -> None:
        self._endpoint = endpoint
        self._numbers = {payload: i for i, payload in enumerate(payloads(shots))}
        self.mono_ns: dict[int, int] = {}

    def poll(self) -> None:
        """Takes what has come."""
        burst = self._endpoint.recv()
        if not burst:
            return
        with burst:
            for index in range(len(burst)):
                number = self._numbers.get(bytes(burst[index]))
                if number is not None:
                    self.mono_ns[number] = burst.arrival_ns(index)


def publish(job: Job) -> Result:
    """Prepares everything, then sends it, then lingers for requests and replies.

    Spins throughout: a reply is timed when it is taken, so nothing may sleep.
    """
    traffic = build(
        job.messages, job.seed, lambda done: _say(Progress("preparing", done, job.messages))
    )
    config = PublisherConfig(
        lines=tuple(map(Place.parse, job.lines)),
        retransmit=Place(job.address, RETRANSMIT_PORT),
        faults=Faults(loss=job.loss, seed=job.seed),
        linger_ns=_LINGER_NS,
    )
    hashes = [keccak256(envelope).hex() for envelope in traffic]
    paced = Paced(traffic, job.rate)
    gateway = [Channel(job.address, GATEWAY_PORT)]
    with (
        open_datagram("kernel", channels=gateway) as endpoint,
        Publisher(config, paced) as publisher,
    ):
        replies = Replies(endpoint, job.shots)
        next_say = 0
        told: list[int] = []  # not before: while it prepares, SIGTERM ends it at once
        signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
        while not publisher.finished:
            if told:
                publisher.end(linger=False)
            publisher.poll()
            replies.poll()
            now = time.monotonic_ns()
            if now > next_say:
                next_say = now + _PROGRESS_NS
                sent = publisher.mold.stats.messages
                _say(Progress("publishing", sent, job.messages, len(replies.mono_ns)))
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a late one finds it on its way out
        _say(Progress("published", job.messages, job.messages, len(replies.mono_ns)))
        intended = {name: paced.intended_mono_ns(i) for i, name in enumerate(hashes)}
        return Result(publisher.summary(), intended, replies.mono_ns)


def _say(progress: Progress) -> None:
    sys.stdout.write(msgspec.json.encode(progress).decode() + "\n")
    sys.stdout.flush()


def main(job_file: Path, result_file: Path) -> None:
    """Does the job in `job_file` and writes what was seen to `result_file`."""
    job = msgspec.json.decode(job_file.read_bytes(), type=Job)
    if job.cpu is not None:
        os.sched_setaffinity(0, {job.cpu})
    result_file.write_bytes(msgspec.json.encode(publish(job)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
