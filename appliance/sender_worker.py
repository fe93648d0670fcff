"""One worker that recovers senders: `python -m appliance.sender_worker JOBS RESULTS [CPU]`.

JOBS and RESULTS are the file descriptors of its two rings. It ends when whoever submits has closed
the ring of jobs, or is gone. Started and watched by `appliance.sender_pool`.
"""

from __future__ import annotations

import os
import sys
import time

from barewire import secp
from barewire.mempool.senders import work
from dpdk_bindings.ring import RingConsumer, RingProducer, RingState

__all__ = ["SEAT", "serve"]

SEAT = "sender-worker"
"""The worker's seat on its ring of jobs."""

_LOOKS_BEFORE_SLEEP = 200  # about as long as a recovery takes
_SLEEP_S = 50e-6
_CHECK_EVERY_NS = 50_000_000


def serve(jobs_fd: int, results_fd: int) -> None:
    """Answers until the ring of jobs has no producer any more and is empty."""
    secp.load()
    with (
        RingConsumer.open(jobs_fd, seat=SEAT, start="oldest") as jobs,
        RingProducer.open(results_fd) as results,
    ):
        results.say(RingState.RUN)
        idle, next_check_ns = 0, 0
        while True:
            if work(jobs.handle, results.handle):
                idle = 0
                continue
            idle += 1
            if idle < _LOOKS_BEFORE_SLEEP:
                continue
            now_ns = time.monotonic_ns()
            if now_ns >= next_check_ns:
                next_check_ns = now_ns + _CHECK_EVERY_NS
                jobs.beat()
                results.beat()
                if not jobs.producer_status().alive:
                    return
            time.sleep(_SLEEP_S)


def _main(words: list[str]) -> None:
    # What was inherited from a hot thread is not for a worker.
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    os.sched_setaffinity(0, {int(words[2])} if len(words) > 2 else range(os.cpu_count() or 1))
    serve(int(words[0]), int(words[1]))


if __name__ == "__main__":
    _main(sys.argv[1:])
