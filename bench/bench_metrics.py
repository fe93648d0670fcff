"""What the metrics of one packet cost, in nanoseconds a packet, measured in isolation.

``barewire-packet`` is every metric call that a turn with one datagram makes which is decoded,
matched and fired: three histograms, all counters, the duty of the turn. ``barewire-record`` is one
value into an HDR histogram, ``barewire-idle-turn`` the duty of a turn that found nothing.
``clock-reading`` is what one reading of CLOCK_MONOTONIC takes here, of which the metrics add two to
such a packet (when its shot had left, and at the end of the turn); ``python-dict`` is a counter in
a Python dictionary, to compare with. Batches of 1000 calls; each sample is a batch's mean.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from appliance.metrics.files import create
from bench.harness import arguments, finish, measure, pin
from bench.native_code import load
from dpdk_bindings._native import ffi as bindings

CALLS, BATCHES = 1000, 400
_ROWS = {
    "barewire-packet": "bench_packet",
    "barewire-record": "bench_record",
    "barewire-idle-turn": "bench_idle",
    "clock-reading": "bench_clock",
}


def main() -> None:
    args = arguments(__doc__ or "").parse_args()
    pin(1)
    library, ffi = load(
        "metrics",
        "struct dpb_metrics;"
        + "".join(f"uint64_t {name}(struct dpb_metrics *, int);" for name in _ROWS.values()),
    )
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="barewire-bench-") as folder:
        metrics = create("bench", folder=Path(folder), stall_ms=1e6)
        address = int(bindings.cast("uintptr_t", metrics.handle))
        handle = ffi.cast("struct dpb_metrics *", address)

        def native(name: str) -> Callable[[], np.ndarray]:
            call = getattr(library, name)
            return lambda: np.array([call(handle, CALLS) / CALLS for _ in range(BATCHES)])

        rows = {who: native(name) for who, name in _ROWS.items()} | {"python-dict": _dictionary}
        results = measure(rows, rounds=args.rounds)
        metrics.close()
    by = {row.who: row.p50 for row in results}
    with_clock = by["barewire-packet"] + 2 * by["clock-reading"]
    notes = [
        "the goals: barewire-packet <= 40 ns, barewire-record <= 10 ns",
        f"with the two readings of the clock that they need: {with_clock:.1f} ns a packet",
        "the flight recorder is not in it: it writes after the shots have left",
    ]
    finish("metrics", results, notes, unit="ns", to=args.json)


def _dictionary() -> np.ndarray:
    counters = {"shots": 0}
    samples = np.empty(BATCHES)
    for batch in range(BATCHES):
        begin = time.perf_counter_ns()
        for _ in range(CALLS):
            counters["shots"] += 1
        samples[batch] = (time.perf_counter_ns() - begin) / CALLS
    return samples


if __name__ == "__main__":
    main()
