"""What taking a MoldUDP64 datagram costs: nanoseconds each, in batches of 64 of 400-byte messages.

The peer is the receiver one writes in an afternoon of Python: struct, a set of numbers seen.
"""

from __future__ import annotations

import struct
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.harness import arguments, finish, measure

ROOT = Path(__file__).resolve().parents[1]
HEADER = struct.Struct("!10sQH")
BATCH = 64


def build(folder: Path) -> Path:
    """Compiles bench/feed.c with the package's own flags."""
    program = folder / "feed"
    native = ROOT / "src/barewire/native"
    command = ["cc", "-O3", "-std=gnu11", f"-I{native}", "-o", str(program)]
    subprocess.run([*command, str(ROOT / "bench/feed.c"), str(native / "mold.c")], check=True)
    return program


def native(program: Path, what: str) -> Callable[[], list[float]]:
    def run() -> list[float]:
        done = subprocess.run([program, what], check=True, capture_output=True, text=True)
        return [float(line) for line in done.stdout.split()]

    return run


def python_both() -> list[float]:
    """Lines A and B in turn, in pure Python."""
    seen: set[int] = set()
    sequence, samples, total = 1, [], 0
    for _ in range(400):
        datagrams = []
        for i in range(BATCH):
            head = HEADER.pack(b"BENCH     ", sequence + i // 2, 1)
            datagrams.append(head + (400).to_bytes(2, "big") + bytes(400))
        sequence += BATCH // 2
        before = time.perf_counter_ns()
        for datagram in datagrams:
            session, number, count = HEADER.unpack_from(datagram)
            at = HEADER.size
            if session != b"BENCH     ":
                continue
            for n in range(number, number + count):
                length = int.from_bytes(datagram[at : at + 2], "big")
                if n not in seen:
                    seen.add(n)
                    total += len(memoryview(datagram)[at + 2 : at + 2 + length])
                at += 2 + length
        samples.append((time.perf_counter_ns() - before) / BATCH)
    return samples


def main() -> None:
    args = arguments(__doc__ or "").parse_args()
    with tempfile.TemporaryDirectory() as folder:
        program = build(Path(folder))
        kinds = ("first", "copy", "both", "lossy")
        rows: dict[str, Callable[[], list[float]]] = {
            f"barewire/{kind}": native(program, kind) for kind in kinds
        }
        rows["python/both"] = python_both
        result = measure(rows, rounds=args.rounds)
    notes = [
        "first: line A alone; copy: B's copies only; both: A and B in turn; lossy: both, 1 % lost",
        "a sample is a batch of 64 between two clock readings; the datagrams are in the cache",
        "the peer has no gaps, requests, sessions or bounds",
    ]
    finish("feed", result, notes, unit="ns", to=args.json)


if __name__ == "__main__":
    main()
