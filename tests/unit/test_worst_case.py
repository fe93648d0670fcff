"""The slowest legal transaction: found by search, counted in work, and under --slow in time.

The hash of a transaction has to be paid anyway, and grows with its length: one permutation for each
136 bytes. What decoding adds must not grow faster, whatever the bytes are. In the default suite it
is counted in basic blocks entered, which is the same on every machine; timing is for --slow.
"""

from __future__ import annotations

import ctypes
import random
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

import barewire
import dpdk_bindings
from barewire._native import ffi, lib
from barewire.mempool.decoder import FORKS, Decoder, Rules
from barewire.mempool.record import Transaction
from barewire.mempool.swaps import SwapTable
from barewire.mempool.trigger_table import TriggerTable
from barewire.mempool.triggers import Trigger
from tests.requires import requires
from tests.transactions import envelope, make, required_gas, wrapped
from tests.unit.test_triggers import A, call, probe

NATIVE = Path(barewire.__file__).parent / "native"
FRAMES = Path(dpdk_bindings.__file__).parent / "include/dpdk_bindings"  # the clocks' names
LIMIT = 128 * 1024
PRAGUE = FORKS.index("prague")  # the last fork without a limit on gas: the most shapes are legal
# A scalar permutation is 24 rounds of 76 additions, rotations and ands; a basic block of the
# decoder is 5 to 6 instructions. So 300 blocks are as much work as one permutation, or less.
BLOCKS_PER_PERMUTATION = 300


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    flags = ["-std=gnu11", "-O1", "-fPIC", f"-I{NATIVE}", f"-I{FRAMES}"]
    parts = ["decode", "sha256", "keccak", "keccak_many", "keccak_avx2", "keccak_avx512"]
    sources = [(NATIVE / f"{part}.c", part == "decode") for part in parts]
    sources += [(extra, False) for extra in NATIVE.glob("keccak*.c") if extra.stem not in parts]
    sources += [(Path(__file__).parent / "native/work.c", False)]
    objects = []
    for source, traced in sources:
        objects.append(str(folder / f"{source.stem}.o"))
        trace = ["-fsanitize-coverage=trace-pc"] if traced else []
        done = subprocess.run(
            ["cc", *flags, *trace, "-c", str(source), "-o", objects[-1]],
            capture_output=True,
            text=True,
        )
        requires(done.returncode == 0, f"a compiler with trace-pc: {done.stderr[-300:]}")
    library = folder / "work.so"
    subprocess.run(["cc", "-shared", *objects, "-o", str(library)], check=True)
    count = ctypes.CDLL(str(library)).work
    count.restype = ctypes.c_int64

    def blocks(raw: bytes, fork: int = PRAGUE) -> int:
        return int(count(raw, len(raw), fork))

    return blocks


def shape(rng: random.Random, kind: int, genes: dict[str, Any], size: int) -> bytes:
    """A legal transaction of nearly `size` bytes whose room is shared out by `genes`.

    ``data``, ``entries`` and ``auths`` are weights; ``keys`` storage keys an entry; ``zeros`` the
    share of zero bytes; ``tight`` whether the gas just suffices, so that bytes must be counted.
    """
    fields = make(rng, kind) | {"data": b"", "to": b"\x11" * 20}
    if kind == 3:
        fields["blobs"] = fields["blobs"][:1]
    weights = {"data": genes["data"], "entries": genes["entries"] if kind else 0}
    weights["auths"] = genes["auths"] if kind == 4 else 0
    room = (size - 600) / (sum(weights.values()) or 1)
    length = int(room * weights["data"]) if any(weights.values()) else 0
    zeros = bytes(length)
    fields["data"] = {0.0: b"\x01" * length, 1.0: zeros}.get(
        genes["zeros"], (b"\0" * 7 + b"\x01" * genes["run"]) * (length // 7)
    )[:length]
    if kind:
        entry = [rng.randbytes(20), [rng.randbytes(32)] * genes["keys"]]
        fields["access"] = [entry] * int(room * weights["entries"] / (23 + 34 * genes["keys"]))
    if kind == 4:
        wide = 2**256 - 1 if genes["wide"] else 0
        one = [0, rng.randbytes(20), 0, 0, wide, wide]
        count = int(room * weights["auths"] / (93 if genes["wide"] else 28))
        fields["auths"] = [one] * max(1, count)
    fields["gas"] = required_gas(kind, fields) + (0 if genes["tight"] else 2**40)
    return envelope(kind, fields)


def draw(rng: random.Random) -> dict[str, Any]:
    return {
        "data": rng.choice([0, 0, 1, rng.random()]),
        "entries": rng.choice([0, 1, rng.random()]),
        "auths": rng.choice([0, 1, rng.random()]),
        "keys": rng.choice([0, 0, 1, 2, 3, 100]),
        "zeros": rng.choice([0.0, 0.5, 1.0]),
        "run": rng.choice([1, 8, 255]),
        "tight": rng.random() < 0.7,
        "wide": rng.random() < 0.5,
    }


def search(cost, rounds: int, size: int = LIMIT) -> tuple[float, bytes, Any]:
    """Draws shapes and changes the best ones; the dearest transaction by `cost` a permutation."""
    rng = random.Random(9)
    best: list[tuple[float, bytes, Any]] = []
    for turn in range(rounds):
        kind = rng.randrange(5)
        genes = draw(rng)
        if best and turn % 2:
            kind, old = rng.choice(best)[2]
            genes = {name: rng.choice([old[name], old[name], genes[name]]) for name in genes}
        raw = shape(rng, kind, genes, size)
        assert len(raw) <= size
        if len(raw) < 0.9 * size:
            continue
        best.append((cost(raw) / (len(raw) // 136 + 1), raw, (kind, genes)))
        best.sort(key=lambda found: -found[0])
        del best[8:]
    return best[0]


@pytest.mark.parametrize("rounds", [120, pytest.param(1_000, marks=pytest.mark.slow)])
def test_no_legal_transaction_is_more_work_than_its_hash(work, rounds):
    blocks, raw, what = search(work, rounds)
    assert isinstance(Decoder(Rules.preset("prague")).decode(raw), Transaction), what
    assert 50 < blocks < BLOCKS_PER_PERMUTATION, what


def test_work_grows_with_length_and_not_faster(work):
    """Of every shape alone: twice as long is at most twice as much work."""
    none = {"data": 0, "entries": 0, "auths": 0, "keys": 0, "zeros": 0.5, "run": 8}
    none |= {"tight": True, "wide": False}
    for kind, change in [
        (0, {"data": 1}),
        (2, {"data": 1, "zeros": 1.0}),
        (1, {"entries": 1}),
        (2, {"entries": 1, "keys": 1}),
        (3, {"entries": 1, "keys": 100}),
        (4, {"auths": 1}),
        (4, {"auths": 1, "wide": True}),
    ]:
        counts = []
        for size in (LIMIT // 4, LIMIT // 2, LIMIT):
            raw = shape(random.Random(1), kind, none | change, size)
            counts.append(work(raw))
            assert counts[-1] > 0, (kind, change)
        assert counts[2] < 2.1 * counts[1] < 2.1 * 2.1 * counts[0], (kind, change, counts)


@pytest.mark.parametrize("wrapper", [0, 1])
def test_blobs_are_less_work_than_their_hash_is_long(work, wrapper):
    fields = make(random.Random(2), 3)
    fields["blobs"] = fields["blobs"][:1] * 6
    raw = wrapped(random.Random(2), fields, wrapper)
    blocks = work(raw, FORKS.index("osaka" if wrapper else "prague"))
    assert 0 < blocks < 10 * len(raw) // 136


def test_refusing_is_no_more_work_than_accepting(work):
    """Broken at its very end: the decoder has seen all the rest by then."""
    raw = shape(random.Random(3), 4, draw(random.Random(3)) | {"auths": 1, "data": 0}, LIMIT)
    accepted = work(raw)
    assert 0 < accepted < BLOCKS_PER_PERMUTATION * len(raw) / 136
    for broken in (raw[:-1], raw[:-33] + b"\xa0" + b"\xff" * 32, raw + b"\0"):
        assert 0 < -work(broken) <= accepted + 50


@pytest.mark.slow
def test_the_slowest_takes_no_longer_than_twice_its_hash():
    """In time, of the burst kernel's price of a hash too, and with triggers and swaps on top."""
    decoder, table = Decoder(Rules.preset("prague")), SwapTable()
    inside = [Trigger(f"t{n}", to=[f"0x{n:040x}"], inside=True) for n in range(10_000)]
    with TriggerTable(inside) as triggers:

        def run(raw: bytes, count: int, tries: int) -> tuple[float, float]:
            """Best of some tries, ns a transaction: all but the hash, and the hash."""
            message = decoder.decode_burst([raw] * count, hashed=False)
            assert message.accepted == count
            both = []
            for _ in range(tries):
                begin = time.perf_counter_ns()
                lib.bw_decode_burst(
                    message.native_messages,
                    count,
                    decoder.native_rules,
                    message.records,
                    message.verdicts,
                    ffi.NULL,
                )
                triggers.match(message)
                table.decode_burst(message)
                decoded = time.perf_counter_ns()
                lib.bw_hash_burst(message.native_messages, message.records, count)
                both.append((decoded - begin, time.perf_counter_ns() - decoded))
            return min(b[0] for b in both) / count, min(b[1] for b in both) / count

        found = [search(lambda raw: run(raw, 1, 7)[0], 300)[1]]
        found += [
            shape(random.Random(1), kind, draw(random.Random(kind)), LIMIT) for kind in range(5)
        ]
        nested = call("multicall(bytes[])", [probe(n) for n in range(900)])
        calls = [(A, True, 0, nested)] * 3
        data = call("aggregate3Value((address,bool,uint256,bytes)[])", calls)[: LIMIT - 300]
        fields = make(random.Random(1), 2) | {"data": data, "access": []}
        found.append(envelope(2, fields | {"gas": required_gas(2, fields)}))
        for raw in found:
            for count in (1, 8):
                other, hashing = run(raw, count, 200)
                print(
                    f"{len(raw)} bytes, {count} at once: {other:.0f} ns and hash {hashing:.0f} ns"
                )
                assert other + hashing <= 2 * hashing
