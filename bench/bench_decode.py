"""Decoding and hashing signed transactions: Barewire beside eth-account, rlp and the specification.

The mix is one real block of mainnet (144 legacy transactions, one of EIP-2930); ``/TYPE`` rows are
of that type alone, where the block has none or one made to the block's shapes: its calldata, gas
and addresses in envelopes of the other types. Every row decodes to fields and computes the hash;
none recovers the sender. Nanoseconds a transaction.

``keccak-permutation`` is what one permutation costs the burst kernel when every lane is full;
``permutations-per-tx`` is the mean of the mix, a count. Together they are the price of the hash.
"""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import rlp
import sha3
from eth_account._utils.legacy_transactions import Transaction as LegacyTransaction
from eth_account.typed_transactions import TypedTransaction
from eth_utils import keccak
from hexbytes import HexBytes

from appliance.mainnet_block import load_block, load_block_transactions
from barewire._native import ffi, lib
from barewire.keccak import keccak_width
from barewire.mempool.decoder import Decoder, Rules
from bench.harness import arguments, finish, measure, pin, summarise
from tests.oracle import HERE, PYTHON
from tests.transactions import FIELDS, envelope, make, required_gas

NAMES = {0: "legacy", 1: "2930", 2: "1559", 3: "4844", 4: "7702"}
BURST = 64
REPEATS = 40


def transactions() -> dict[str, list[bytes]]:
    """The mix under "", and each type under its name."""
    mix = load_block_transactions()
    rng = random.Random(12_964_999)
    shapes = load_block()["transactions"]
    sets = {"": mix, "/legacy": [raw for raw in mix if raw[0] >= 0xC0]}
    for kind in (1, 2, 3, 4):
        made = []
        for shape in shapes:
            fields = make(rng, kind)
            fields |= {
                "nonce": int(shape["nonce"], 16),
                "data": bytes.fromhex(shape["input"][2:]),
                "value": int(shape["value"], 16),
                "access": fields["access"][:2],
            }
            for authorization in fields.get("auths", ()):
                authorization[3] &= 1  # eth-account reads no other parity
            if shape["to"]:
                fields["to"] = bytes.fromhex(shape["to"][2:])
            cap = int(shape["gasPrice"], 16) + 10**9
            fields |= {"cap": cap, "tip": 10**9} if kind > 1 else {"cap": cap}
            fields["gas"] = required_gas(kind, fields) + int(shape["gas"], 16)
            made.append(envelope(kind, {name: fields[name] for name in FIELDS[kind]}))
        sets[f"/{NAMES[kind]}"] = made
    return sets


class Native:
    """The messages of a set, laid out as a feed's burst, and what they decode to."""

    def __init__(self, raws: list[bytes]) -> None:
        # a whole number of bursts, so that no burst is short
        self.raws = [raws[i % len(raws)] for i in range(-(-len(raws) // BURST) * BURST)]
        self.held = [ffi.from_buffer(raw) for raw in self.raws]
        self.messages = ffi.new("struct bw_message[]", len(self.raws))
        for message, data in zip(self.messages, self.held, strict=True):
            message.data = data
            message.len = len(data)
        self.txs = ffi.new("struct bw_tx[]", BURST)
        self.verdicts = ffi.new("uint8_t[]", BURST)
        self.decoder = Decoder(Rules.preset("prague"))

    def run(self, burst: int) -> list[float]:
        """Decodes and hashes all messages in bursts; ns a transaction, one sample a pass."""
        rules, refusals = self.decoder.native_rules, self.decoder.native_refusals
        starts = [self.messages + at for at in range(0, len(self.raws), burst)]
        decode, finish_hashes = lib.bw_decode_burst, lib.bw_hash_burst
        samples = []
        for _ in range(REPEATS):
            begin = time.perf_counter_ns()
            for messages in starts:
                decode(messages, burst, rules, self.txs, self.verdicts, refusals)
                finish_hashes(messages, self.txs, burst)
            samples.append((time.perf_counter_ns() - begin) / len(self.raws))
        assert not self.decoder.refusals(), self.decoder.refusals()
        return samples


def permutation() -> list[float]:
    """One permutation's share of a burst whose messages are all of five blocks."""
    messages = [random.Random(i).randbytes(5 * 136 - 1) for i in range(BURST)]
    jobs = ffi.new("struct bw_keccak_job[]", BURST)
    out = ffi.new("uint8_t[]", 32 * BURST)
    held = [ffi.from_buffer(message) for message in messages]
    for number, view in enumerate(held):
        jobs[number] = (ffi.cast("uint8_t *", view), out + 32 * number, len(view), -1)
    samples = []
    for _ in range(REPEATS):
        begin = time.perf_counter_ns()
        for _ in range(10):
            lib.bw_keccak256_many(jobs, BURST)
        samples.append((time.perf_counter_ns() - begin) / (10 * BURST * 5))
    return samples


def timed(raws: list[bytes], decode: Callable[[bytes], Any]) -> Callable[[], list[float]]:
    """A row that decodes each of `raws` by itself; the sample is the mean of a pass."""

    def sample() -> list[float]:
        begin = time.perf_counter_ns()
        for raw in raws:
            decode(raw)
        return [(time.perf_counter_ns() - begin) / len(raws)]

    return sample


def eth_account(raw: bytes) -> Any:
    """The usual way: eth-account's object for the transaction, and its hash."""
    if raw[0] < 0x80:
        return TypedTransaction.from_bytes(HexBytes(raw)), keccak(raw)
    return rlp.decode(raw, LegacyTransaction), keccak(raw)


def rlp_pysha3(raw: bytes) -> Any:
    """By hand: a list of byte strings made into integers, and the hash in C."""
    fields = rlp.decode(raw if raw[0] >= 0x80 else raw[1:])
    return [
        int.from_bytes(f, "big") if isinstance(f, bytes) and len(f) != 20 else f for f in fields
    ], sha3.keccak_256(raw).digest()


class Specification:
    """The ``ethereum`` package in the environment it pins, kept warm; its own clock counts."""

    def __init__(self, raws: list[bytes]) -> None:
        self.count = len(raws)
        self.process = subprocess.Popen(
            [str(PYTHON), str(HERE / "spec.py"), "time"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdin
        self.process.stdin.writelines(f"{raw.hex()}\n" for raw in raws)
        self.process.stdin.flush()

    def run(self) -> list[float]:
        """One pass over its transactions; ns a transaction."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return [int(self.process.stdout.readline()) / self.count]

    def close(self) -> None:
        """Ends the process."""
        self.process.communicate()


def main() -> None:
    """Runs the benchmark."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--width", type=int, default=0, help="force a Keccak width: 1, 4 or 8")
    parser.add_argument("--core", type=int, default=1, help="core to run on (default 1)")
    options = parser.parse_args()
    pin(options.core % (os.cpu_count() or 1))
    if lib.bw_keccak_force(options.width):
        parser.error(f"--width {options.width}: this CPU has {keccak_width()} and less")
    sets = transactions()
    callables: dict[str, Callable[[], Any]] = {}
    specifications = []
    for suffix, raws in sets.items():
        native = Native(raws)
        callables[f"eth-account{suffix}"] = timed(raws, eth_account)
        callables[f"rlp-pysha3{suffix}"] = timed(raws, rlp_pysha3)
        specification = Specification(raws)
        specifications.append(specification)
        callables[f"ethereum-spec{suffix}"] = specification.run
        callables[f"barewire-one{suffix}"] = partial(native.run, 1)
        callables[f"barewire-burst64{suffix}"] = partial(native.run, BURST)
    callables["keccak-permutation"] = permutation
    try:
        measured = measure(callables, rounds=options.rounds)
    finally:
        for specification in specifications:
            specification.close()
    by_name = {row.who: row for row in measured}
    price = by_name["keccak-permutation"].p50
    notes = [
        f"Keccak width {keccak_width()}; a permutation costs {price:.1f} ns in a full burst",
        "peers decode one transaction a call in Python; barewire-one too is one call a transaction",
        "of the mix 144 are legacy and one is EIP-2930; rows /1559 /4844 /7702 carry its calldata",
    ]
    for suffix, raws in sets.items():
        permutations = sum(len(raw) // 136 + 1 for raw in raws) / len(raws)
        row = summarise(f"permutations-per-tx{suffix}", [permutations])
        measured.append(row)
        burst, peer = by_name[f"barewire-burst64{suffix}"].p50, by_name[f"eth-account{suffix}"].p50
        notes.append(
            f"{suffix[1:] or 'mix'}: burst64 is {burst / (permutations * price):.2f} x "
            f"the price of its {permutations:.2f} permutations; "
            f"eth-account takes {peer / burst:.0f} x as long"
        )
    finish("decode", measured, notes, unit="ns", to=options.json)


if __name__ == "__main__":
    main()
