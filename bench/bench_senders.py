"""Who signed: what asking costs the hot core, and what an answer costs and takes.

``barewire-submit@64`` and ``-collect@64`` are all that the hot core does for a sender that a worker
recovers, ``-known@64`` asks for one that is remembered: one call for a burst of the demo block, its
hashes computed before, divided by 64. ``barewire-work@8`` is the worker's side of a ring, in this
process, divided by 8; ``bw-recover`` the recovery alone. ``barewire-worker@1`` and ``@64`` go there
and back, to a worker process on another core: before the submitting to all senders collected,
divided by the number.

Peers in the same run: ``coincurve`` and ``eth-account`` recover in this process, as a script would;
``mp-pool@64`` hands the burst to a ``multiprocessing.Pool`` of one process on the same core that
recovers with coincurve and pysha3. Microseconds.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable

import sha3
from coincurve import PublicKey
from eth_account import Account
from hexbytes import HexBytes

from appliance.mainnet_block import load_block, load_block_transactions
from appliance.sender_pool import SenderPool
from appliance.sender_worker import SEAT
from barewire import secp
from barewire._native import ffi, lib
from barewire.mempool.decoder import DecodedBurst, Decoder, Rules
from barewire.mempool.record import Transaction
from barewire.mempool.senders import JOB_BYTES, RESULT_BYTES, Senders, work
from bench.harness import arguments, finish, measure, pin
from dpdk_bindings.ring import RingConsumer, RingKind, RingProducer

BURST = 64
REPEATS = 20

RAWS = load_block_transactions()[:BURST]
WHO = [bytes.fromhex(told["from"][2:]) for told in load_block()["transactions"][:BURST]]
DECODER = Decoder(Rules.preset("london", 1))


def decoded(raws: list[bytes] = RAWS) -> DecodedBurst:
    return DECODER.decode_burst(raws)


class Lane:
    """A worker's rings with both ends in this process, so that each step can be timed alone."""

    def __init__(self) -> None:
        self.jobs = RingProducer.create(
            "memfd:bench-jobs", kind=RingKind.LOSSLESS, depth=256, mtu=JOB_BYTES
        )
        self.answers = RingProducer.create(
            "memfd:bench-results", kind=RingKind.LOSSLESS, depth=256, mtu=RESULT_BYTES
        )
        self.results = RingConsumer.open(self.answers.fd, seat="collector", start="oldest")
        self.asked = RingConsumer.open(self.jobs.fd, seat=SEAT, start="oldest")
        self.out = ffi.new("struct bw_sender_answer[]", BURST)
        self._times: dict[str, list[float]] = {}

    def times(self, step: str, *, fresh: bool = False) -> list[float]:
        """Of one step of a round; `fresh` runs the round."""
        if fresh:
            self._times = {"submit": [], "work": [], "collect": [], "known": []}
            for _ in range(REPEATS):
                self._round()
        return self._times[step]

    def _round(self) -> None:
        senders, burst, again = Senders(), decoded(), decoded()
        senders.add_lane(self.jobs.handle, self.results.handle)
        now, native, times = time.perf_counter_ns, senders.native, self._times
        submit, collect = lib.bw_senders_submit, lib.bw_senders_collect

        messages, records = burst.native_messages, burst.records
        begin = now()
        submit(native, messages, records, BURST, 0, 1, 1)
        times["submit"].append((now() - begin) / BURST / 1000)
        for _ in range(BURST // 8):
            begin = now()
            work(self.asked.handle, self.answers.handle)
            times["work"].append((now() - begin) / 8 / 1000)
        begin = now()
        collect(native, self.out, BURST, 1)
        times["collect"].append((now() - begin) / BURST / 1000)
        assert [getattr(tx, "sender", None) for tx in burst] == WHO

        messages, records = again.native_messages, again.records
        begin = now()
        submit(native, messages, records, BURST, 0, 1, 1)
        times["known"].append((now() - begin) / BURST / 1000)


def rounds_of(pool: SenderPool, senders: Senders, count: int) -> Callable[[], list[float]]:
    """Bursts of `count` to a worker process and back; us a transaction.

    `senders` remembers so few that it has to ask each time.
    """
    bursts = [decoded(RAWS[at : at + count]) for at in range(0, BURST, count)]

    def sample() -> list[float]:
        samples = []
        for _ in range(REPEATS):
            for burst in bursts:
                for record in burst.records:
                    record.flags &= ~lib.BW_TX_SENDER
                begin = time.perf_counter_ns()
                missing = senders.submit(burst, now_mono_ns=begin)
                while missing:
                    missing -= len(senders.collect(now_mono_ns=begin))
                samples.append((time.perf_counter_ns() - begin) / count / 1000)
        pool.check()
        return samples

    return sample


# ---- peers, and the recovery alone ----


def parts(tx: Transaction) -> tuple[bytes, bytes]:
    """What was signed, and the signature as coincurve takes it."""
    room = ffi.new("uint8_t[]", len(tx.raw) + lib.BW_SIGNING_MORE)
    size = lib.bw_signing_bytes(ffi.from_buffer(tx.raw), tx.record, room)
    signature = tx.r.to_bytes(32, "big") + tx.s.to_bytes(32, "big") + bytes([tx.y_parity])
    return bytes(ffi.buffer(room, size)), signature


def by_coincurve(asked: tuple[bytes, bytes]) -> bytes:
    """The address that signed."""
    signed, signature = asked
    digest = sha3.keccak_256(signed).digest()
    key = PublicKey.from_signature_and_message(signature, digest, hasher=None)
    return bytes(sha3.keccak_256(key.format(compressed=False)[1:]).digest()[12:])


def one_by_one(recover: Callable[[int], object]) -> Callable[[], list[float]]:
    def sample() -> list[float]:
        samples = []
        for number in range(BURST):
            begin = time.perf_counter_ns()
            recover(number)
            samples.append((time.perf_counter_ns() - begin) / 1000)
        return samples

    return sample


def alone(burst: DecodedBurst) -> Callable[[int], object]:
    """bw_secp_recover of a digest that is known."""
    digests, signatures, out = [], [], ffi.new("uint8_t[20]")
    for tx in burst:
        assert isinstance(tx, Transaction)
        digests.append(tx.signing_hash())
        signatures.append((parts(tx)[1][:64], tx.y_parity))

    def recover(number: int) -> object:
        return lib.bw_secp_recover(digests[number], *signatures[number], out)

    return recover


def main() -> None:
    options = arguments(__doc__.splitlines()[0]).parse_args()
    secp.load()
    cores = sorted(os.sched_getaffinity(0))
    here, there = cores[-1], cores[0]
    burst, senders = decoded(), Senders(entries=8)
    asked = [parts(tx) for tx in burst if isinstance(tx, Transaction)]
    assert [by_coincurve(each) for each in asked] == WHO
    lane = Lane()
    context = multiprocessing.get_context("spawn")
    with (
        context.Pool(1, initializer=pin, initargs=(there,)) as processes,
        SenderPool(senders, cpus=[there], tell=print) as workers,
    ):
        pin(here)

        def pool() -> list[float]:
            samples = []
            for _ in range(REPEATS):
                begin = time.perf_counter_ns()
                answers = processes.map(by_coincurve, asked)
                samples.append((time.perf_counter_ns() - begin) / BURST / 1000)
                assert answers == WHO
            return samples

        rows: dict[str, Callable[[], list[float]]] = {
            "mp-pool@64": pool,
            "eth-account": one_by_one(lambda i: Account.recover_transaction(HexBytes(RAWS[i]))),
            "coincurve": one_by_one(lambda i: by_coincurve(asked[i])),
            "bw-recover": one_by_one(alone(burst)),
            "barewire-submit@64": lambda: lane.times("submit", fresh=True),
            "barewire-work@8": lambda: lane.times("work"),
            "barewire-collect@64": lambda: lane.times("collect"),
            "barewire-known@64": lambda: lane.times("known"),
            "barewire-worker@1": rounds_of(workers, senders, 1),
            "barewire-worker@64": rounds_of(workers, senders, BURST),
        }
        measured = measure(rows, rounds=options.rounds)
    p50 = {row.who: row.p50 for row in measured}
    own = p50["barewire-submit@64"] + p50["barewire-collect@64"]
    cost = (
        f"the hot core pays {own * 1000:.0f} ns a sender, to recover it by coincurve"
        f" {p50['coincurve'] / own:.0f} times as much"
    )
    finish(
        "senders",
        measured,
        [
            cost,
            f"worker on core {there}, everything else on core {here}",
        ],
        to=options.json,
    )


if __name__ == "__main__":
    main()
