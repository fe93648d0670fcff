"""Worker processes that recover senders, their rings, and what happens when one dies.

The rings are anonymous memory (memfd): nothing is left over, however the service ends. What a
worker that died had not answered is still in its ring of jobs, and its successor takes the seat
and is given it again.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from appliance.beside import start_beside
from barewire.errors import BarewireError
from barewire.mempool.senders import JOB_BYTES, RESULT_BYTES, Senders
from dpdk_bindings.ring import RingConsumer, RingKind, RingProducer

__all__ = ["SenderPool"]

_DEPTH = 1024
_COLLECTOR = "collector"
_CALM_NS = 1_000_000_000
"""A worker that dies sooner than this after its start is started again only this much later."""


@dataclass
class _Worker:
    """One worker: its rings, as seen from here, and its process."""

    cpu: int | None
    jobs: RingProducer
    results: RingConsumer
    fds: tuple[int, int]
    process: subprocess.Popen[bytes]
    started_mono_ns: int
    lane: int = -1
    told: bool = False


class SenderPool:
    """Starts workers, joins them to a `Senders`, and starts the dead again. Use it by ``with``.

    Args:
        senders: asks and collects; the hot thread's.
        workers: how many processes.
        cpus: the core of each, or empty: wherever the scheduler puts them.
        tell: called with a sentence when a worker has died, in the thread of :meth:`check`.

    Attributes:
        deaths: workers that died.
    """

    def __init__(
        self,
        senders: Senders,
        *,
        workers: int = 1,
        cpus: Sequence[int] = (),
        tell: Callable[[str], None],
    ) -> None:
        if workers < 1 or (cpus and len(cpus) != workers):
            raise BarewireError(
                f"{workers} sender workers on {len(cpus)} cores",
                hint="at least one worker, and a core for each or for none",
            )
        self._senders = senders
        self._tell = tell
        self._workers: list[_Worker] = []
        self.deaths = 0
        try:
            for number in range(workers):
                worker = self._open(cpus[number] if cpus else None)
                self._workers.append(worker)
                worker.lane = senders.add_lane(worker.jobs.handle, worker.results.handle)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _open(self, cpu: int | None) -> _Worker:
        jobs = RingProducer.create(
            "memfd:sender-jobs", kind=RingKind.LOSSLESS, depth=_DEPTH, mtu=JOB_BYTES
        )
        answers = RingProducer.create(
            "memfd:sender-results", kind=RingKind.LOSSLESS, depth=_DEPTH, mtu=RESULT_BYTES
        )
        results = RingConsumer.open(answers.fd, seat=_COLLECTOR, start="oldest")
        fds = (_another(jobs.fd), _another(answers.fd))
        answers.close()  # the worker is to be its producer
        return _Worker(cpu, jobs, results, fds, _start(fds, cpu), time.monotonic_ns())

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers, by lane."""
        return [worker.process.pid for worker in self._workers]

    def check(self) -> None:
        """Starts dead workers again; call it as housekeeping, in any one thread."""
        now = time.monotonic_ns()
        for lane, worker in enumerate(self._workers):
            worker.jobs.beat()
            status = worker.process.poll()
            if status is None:
                continue
            if not worker.told:
                worker.told = True
                self.deaths += 1
                self._tell(
                    f"sender worker {lane} (process {worker.process.pid}) died with status"
                    f" {status}; its questions are kept for the next"
                )
            if now - worker.started_mono_ns >= _CALM_NS:
                worker.process = _start(worker.fds, worker.cpu)
                worker.started_mono_ns = now
                worker.told = False

    def close(self) -> None:
        """Ends the workers; questions without an answer stay without one."""
        for worker in self._workers:
            if worker.lane >= 0:
                self._senders.drop_lane(worker.lane)
            worker.jobs.close()
        for worker in self._workers:
            worker.process.kill()
            worker.process.wait()
            worker.results.close()
            for fd in worker.fds:
                os.close(fd)
        self._workers = []


def _another(fd: int) -> int:
    """The same memory by an open file description that holds no lock.

    A worker that inherited the producer's own would keep the lock held when the producer died.
    """
    return os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)


def _start(fds: tuple[int, int], cpu: int | None) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-P", "-m", "appliance.sender_worker", *map(str, fds)]
    return start_beside(
        words + ([] if cpu is None else [str(cpu)]), pass_fds=fds, stdin=subprocess.DEVNULL
    )
