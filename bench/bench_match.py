"""What recognising costs: matching triggers, and reading swaps out of calldata.

``match@N`` is one call of the matcher for a burst of 64 transactions that were decoded (and hashed)
just before, divided by 64: the demo block's mix against N triggers of which none, or few, match.
Variants at 100,000: every transaction meets one trigger (``/hit``); all triggers on one router,
told apart by a calldata word (``/word``); all looking inside wrappers (``/inside``). ``bias`` is
the same call for no transactions, divided alike: what calling from Python adds to these rows.

``swap-decode/KIND`` is one native call for 256 transactions, divided by 256; ``eth-abi/KIND``
decodes the same calldata to the same arguments with eth-abi, wrappers included. Nanoseconds.
"""

from __future__ import annotations

import gc
import os
import random
import time
from collections.abc import Callable

import eth_abi

from appliance.mainnet_block import load_block_transactions
from barewire import keccak256
from barewire._native import ffi, lib
from barewire.mempool.decoder import DecodedBurst, Decoder, Rules
from barewire.mempool.swaps import SwapTable
from barewire.mempool.trigger_table import load_native
from barewire.mempool.triggers import Trigger, Word, compile_triggers
from bench.harness import Row, arguments, finish, measure, pin, summarise

BURST = 64
ROUTER = "0x7a250d5630b4cf539739df2c5dacb4c659f2488d"
SELECTORS = ["0x38ed1739", "0x7ff36ab5", "0xa9059cbb", "0x095ea7b3"]


def block_bursts() -> list[list[bytes]]:
    """The demo block's transactions, in bursts of 64 that wrap around."""
    raw = load_block_transactions()
    raw += raw[: -len(raw) % BURST]
    return [raw[i : i + BURST] for i in range(0, len(raw), BURST)]


def random_targets(count: int, rng: random.Random) -> list[Trigger]:
    return [
        Trigger(str(i), to=["0x" + rng.randbytes(20).hex()], selector=[SELECTORS[i % 4]])
        for i in range(count)
    ]


def trigger_sets(raw: list[bytes]) -> dict[str, list[Trigger]]:
    """The sets of triggers by row."""
    rng = random.Random(1)
    many = random_targets(100_000, rng)
    burst = Decoder(Rules.preset("london", 1)).decode_burst(raw)
    met = {("0x" + tx.to.hex(), tx.selector) for tx in burst if tx.to}
    hit = [
        Trigger(f"hit-{i}", to=[to], selector=["0x" + selector.hex()] if selector else [])
        for i, (to, selector) in enumerate(sorted(met, key=str))
    ]
    words = [
        Trigger(str(i), to=[ROUTER], words=[Word(index=0, equals=rng.getrandbits(256))])
        for i in range(100_000)
    ]
    inside = [
        Trigger(str(i), to=["0x" + rng.randbytes(20).hex()], inside=True) for i in range(100_000)
    ]
    return {
        "match@1": many[:1],
        "match@1000": many[:1000],
        "match@100000": many,
        "match@100000/hit": hit + many[len(hit) :],
        "match@100000/word": words,
        "match@100000/inside": inside,
    }


class Matching:
    """One row: the current table, and how its burst is matched."""

    def __init__(self, triggers: list[Trigger] | None, bursts: list[list[bytes]]) -> None:
        self.table = load_native(compile_triggers(triggers or []))
        self.count = BURST if triggers is not None else 0
        self.bursts = bursts
        self.decoder = Decoder(Rules.preset("london", 1))
        self.out = ffi.new("struct bw_match[]", 16 * BURST)
        self.stats = ffi.new("struct bw_match_stats *")

    def sample(self) -> list[float]:
        """Decodes each burst, then times matching it."""
        times = []
        now, match = time.perf_counter_ns, lib.bw_triggers_match
        for _ in range(60):
            for raw in self.bursts:
                burst: DecodedBurst = self.decoder.decode_burst(raw)
                messages, records = burst.native_messages, burst.records
                start = now()
                match(self.table, messages, records, self.count, self.out, 16 * BURST, self.stats)
                times.append((now() - start) / BURST)
        return times


# ---- swaps ----


def call(signature: str, *values: object) -> bytes:
    types = signature[signature.index("(") :]
    encoded = eth_abi.encode([types], [values])
    return keccak256(signature.encode())[:4] + encoded[32 if _dynamic(types) else 0 :]


def _dynamic(types: str) -> bool:
    return "[]" in types or "bytes" in types.replace("bytes32", "")


A, B, C = ("0x" + f"{n:040x}" for n in (2**159 + 1, 2**158 + 2, 2**157 + 3))
PATH = b"".join(
    part for token in (A, B, C) for part in (bytes.fromhex(token[2:]), b"\x00\x0b\xb8")
)[:-3]
V2 = "swapExactTokensForTokens(uint256,uint256,address[],address,uint256)"
SINGLE = "exactInputSingle((address,address,uint24,address,uint256,uint256,uint160))"
MULTI = "exactInput((bytes,address,uint256,uint256))"
UNIVERSAL = "execute(bytes,bytes[],uint256)"
V3_COMMAND = ["address", "uint256", "uint256", "bytes", "bool"]
V2_COMMAND = ["address", "uint256", "uint256", "address[]", "bool"]
ONE_INCH = "swap(address,(address,address,address,address,uint256,uint256,uint256),bytes)"
SELL = "sellToUniswap(address[],uint256,uint256,bool)"


def types_of(signature: str) -> list[str]:
    """The argument types that eth-abi wants, split at the outermost commas."""
    parts, depth, last = [], 0, ""
    for char in signature[signature.index("(") + 1 : -1]:
        depth += (char == "(") - (char == ")")
        if char == "," and not depth:
            parts.append(last)
            last = ""
        else:
            last += char
    return [*parts, last]


def split_path(path: bytes) -> list[bytes]:
    return [path[i : i + 20] for i in range(0, len(path), 23)]


def peer(signature: str) -> Callable[[bytes], object]:
    types = types_of(signature)
    return lambda data: eth_abi.decode(types, data[4:])


def peer_multi(data: bytes) -> object:
    ((path, *rest),) = eth_abi.decode(types_of(MULTI), data[4:])
    return split_path(path), rest


def peer_multicall(data: bytes) -> object:
    (inner,) = eth_abi.decode(["bytes[]"], data[4:])
    return [peer_multi(each) for each in inner]


def peer_universal(data: bytes) -> object:
    commands, inputs, deadline = eth_abi.decode(["bytes", "bytes[]", "uint256"], data[4:])
    found: list[object] = [deadline]
    for command, given in zip(commands, inputs, strict=True):
        if command == 0:
            values = eth_abi.decode(V3_COMMAND, given)
            found.append((values, split_path(values[3])))
        elif command == 8:
            found.append(eth_abi.decode(V2_COMMAND, given))
    return found


def swap_kinds() -> dict[str, tuple[bytes, Callable[[bytes], object]]]:
    single = call(SINGLE, (A, B, 3000, C, 10**18, 1, 0))
    multi = call(MULTI, (PATH, C, 10**18, 1))
    v3 = eth_abi.encode(V3_COMMAND, [C, 10**18, 1, PATH, True])
    v2 = eth_abi.encode(V2_COMMAND, [C, 10**18, 1, [A, B], True])
    return {
        "v2": (call(V2, 10**18, 1, [A, B, C], C, 2**31), peer(V2)),
        "v2-pair": (
            call("swap(uint256,uint256,address,bytes)", 0, 10**18, C, b""),
            peer("swap(uint256,uint256,address,bytes)"),
        ),
        "v3-single": (single, peer(SINGLE)),
        "v3-path": (multi, peer_multi),
        "v3-multicall": (call("multicall(bytes[])", [multi]), peer_multicall),
        "universal-v3": (call(UNIVERSAL, b"\0", [v3], 2**31), peer_universal),
        "universal-v2+v3": (call(UNIVERSAL, b"\0\x08", [v3, v2], 2**31), peer_universal),
        "0x": (call(SELL, [A, B], 10**18, 1, False), peer(SELL)),
        "1inch": (call(ONE_INCH, A, (A, B, C, C, 10**18, 1, 4), bytes(64)), peer(ONE_INCH)),
    }


class Swapping:
    """256 times the same call, in records of their own."""

    COUNT = 256

    def __init__(self, table: SwapTable, data: bytes) -> None:
        self.table = table
        self.held = [ffi.new("uint8_t[]", data) for _ in range(self.COUNT)]
        self.records = ffi.new("struct bw_tx[]", self.COUNT)
        self.messages = ffi.new("struct bw_message[]", self.COUNT)
        for record, message, own in zip(self.records, self.messages, self.held, strict=True):
            message.data = own
            record.raw_len = record.data_len = message.len = len(data)
            record.flags = lib.BW_TX_HAS_SELECTOR
            record.selector = int.from_bytes(data[:4], "big")
            record.to = b"\1" * 20
        self.out = ffi.new("struct bw_swap[]", 4 * self.COUNT)

    def sample(self) -> list[float]:
        now, decode = time.perf_counter_ns, lib.bw_swaps_decode
        native, stats, most = self.table.native, self.table.stats, 4 * self.COUNT
        times = []
        for _ in range(100):
            start = now()
            found = decode(native, self.messages, self.records, self.COUNT, self.out, most, stats)
            times.append((now() - start) / self.COUNT)
        assert found >= self.COUNT
        return times


def sample_peer(decode: Callable[[bytes], object], data: bytes) -> list[float]:
    now = time.perf_counter_ns
    times = []
    for _ in range(100):
        start = now()
        decode(data)
        times.append(float(now() - start))
    return times


def ratio(rows: dict[str, Row], kind: str) -> float:
    return rows[f"eth-abi/{kind}"].p50 / rows[f"swap-decode/{kind}"].p50


def main() -> None:
    options = arguments(__doc__.splitlines()[0]).parse_args()
    pin(max(os.sched_getaffinity(0)))
    bursts = block_bursts()
    raw = [one for burst in bursts for one in burst]
    sets = trigger_sets(raw)
    matching = {"bias": Matching(None, bursts)} | {
        who: Matching(triggers, bursts) for who, triggers in sets.items()
    }
    loads = []
    blob = compile_triggers(sets["match@100000"])
    for _ in range(5):
        start = time.perf_counter()
        load_native(blob)
        loads.append((time.perf_counter() - start) * 1e9)
    kinds = swap_kinds()
    table = SwapTable()
    rows: dict[str, Callable[[], list[float]]] = {w: m.sample for w, m in matching.items()}
    for kind, (data, decode) in kinds.items():
        rows[f"swap-decode/{kind}"] = Swapping(table, data).sample
        rows[f"eth-abi/{kind}"] = lambda decode=decode, data=data: sample_peer(decode, data)  # type: ignore[misc]
    del sets
    gc.collect()
    gc.freeze()
    gc.disable()
    measured = measure(rows, rounds=options.rounds)
    by_name = {row.who: row for row in measured}
    one, most = by_name["match@1"].p50, by_name["match@100000"].p50
    bias = by_name["bias"].p50
    cost = (
        f"matching 100,000 triggers costs {(most - bias) / (one - bias):.2f} times one trigger,"
        f" {most - bias:.1f} ns a transaction without the bias of {bias:.1f} ns"
    )
    finish(
        "match",
        [*measured, summarise("load@100000", loads)],
        [
            cost,
            "times faster than eth-abi: "
            + ", ".join(f"{kind} {ratio(by_name, kind):.0f}" for kind in kinds),
            "load@100000 is building the native table once, in ns, not per transaction",
            "eth-abi rows include the calls of wrappers; neither side hashes a signature",
        ],
        unit="ns",
        to=options.json,
    )


if __name__ == "__main__":
    main()
