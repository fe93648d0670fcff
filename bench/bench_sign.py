"""From a decision to final bytes: Barewire beside eth-account and the tuned usual way.

The transaction is a swap of 374 bytes: EIP-1559, 260 bytes of calldata to a router. A decision is
five integers: nonce, tip, fee cap, the amount that goes in and the least that must come out. Every
row begins with these integers in Python and ends with signed bytes in Python's hand, one call of
the row's function a sample. ``eth-account`` gets a dictionary and a key that is parsed already, and
``coincurve-rlp`` is what people write when that is too slow: rlp, Keccak in C, and a coincurve key
kept warm. Both of them, and ``barewire-rfc6979``, must give the same bytes; ``barewire-presigned``
must recover to the same address. ``bundle-request`` signs the transaction, lays it into a ready
HTTP request, hashes that request's body and signs it with a second presigned key.

``presign-refill`` is what one presignature costs the thread that makes them, on a core of its own:
a sample is one filling of a pool of 4096, divided by as many.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import coincurve
import numpy as np
import rlp
import sha3
from eth_account import Account
from eth_keys import keys

from barewire.execution.calldata import Slot, encode_call
from barewire.execution.keys import Key
from barewire.execution.request import ReadyRequest
from barewire.execution.signer import PresignedSigner, Rfc6979Signer, Signer
from barewire.execution.template import Caps, Template
from barewire.keccak import keccak_width
from bench.harness import arguments, finish, measure, pin

SECRET, AUTH_SECRET = b"\x42" * 32, b"\x43" * 32
ADDRESS = Account.from_key(SECRET).address
ROUTER, PATH = b"\x44" * 20, [b"\x11" * 20, b"\x22" * 20]
FUNCTION = "swapExactTokensForTokens(uint256,uint256,address[],address,uint256)"
DATA = encode_call(FUNCTION, [Slot("pays"), Slot("least"), PATH, b"\x33" * 20, 2**31])
GAS, LENGTH = 180_000, 374
POOL, BIG_POOL = 4096, 100_000


# Nonce, tip and fee cap in wei, what is paid, and the least to be got.
Decision = tuple[int, int, int, int, int]


def decisions(count: int) -> list[Decision]:
    """Decisions whose numbers have the widths of today's mainnet, and so give equal lengths."""
    rng = np.random.default_rng(374)
    return [
        (
            int(rng.integers(256, 2**16)),
            int(rng.integers(2**16, 2**24)),
            int(rng.integers(2**30, 2**32)),
            int(rng.integers(10**17, 10**18)),
            int(rng.integers(10**9, 10**10)),
        )
        for _ in range(count)
    ]


# ---- the peers ----

# Where the two amounts lie in the calldata.
HEAD, TAIL = DATA.data[:4], DATA.data[68:]


def by_eth_account() -> Callable[[Decision], bytes]:
    """As its documentation shows, with the key parsed ahead."""
    key = keys.PrivateKey(SECRET)
    sign, to = Account.sign_transaction, "0x" + ROUTER.hex()

    def make(d: Decision) -> bytes:
        nonce, tip_wei, fee_cap_wei, pays, least = d
        data = HEAD + pays.to_bytes(32, "big") + least.to_bytes(32, "big") + TAIL
        return sign(
            {
                "type": 2,
                "chainId": 1,
                "nonce": nonce,
                "maxPriorityFeePerGas": tip_wei,
                "maxFeePerGas": fee_cap_wei,
                "gas": GAS,
                "to": to,
                "value": 0,
                "data": data,
            },
            key,
        ).raw_transaction

    return make


def by_coincurve_and_rlp() -> Callable[[Decision], bytes]:
    """By hand: what is known is bytes already, and nothing is checked."""
    key, keccak, encode = coincurve.PrivateKey(SECRET), sha3.keccak_256, rlp.encode
    chain, gas = b"\1", GAS.to_bytes(3, "big")

    def number(value: int) -> bytes:
        return value.to_bytes((value.bit_length() + 7) // 8, "big")

    def make(d: Decision) -> bytes:
        nonce, tip_wei, fee_cap_wei, pays, least = d
        data = HEAD + pays.to_bytes(32, "big") + least.to_bytes(32, "big") + TAIL
        fields: list[Any] = [
            chain,
            number(nonce),
            number(tip_wei),
            number(fee_cap_wei),
            gas,
            ROUTER,
            b"",
            data,
            [],
        ]
        digest = keccak(b"\2" + encode(fields)).digest()
        signed = key.sign_recoverable(digest, hasher=None)
        fields += [
            b"\1" if signed[64] else b"",
            signed[:32].lstrip(b"\0"),
            signed[32:64].lstrip(b"\0"),
        ]
        return b"\2" + encode(fields)

    return make


# ---- Barewire ----


def template(signer: Signer) -> Template:
    """The swap, finished but for a decision."""
    caps = Caps(fee_cap_wei=10**10, tip_wei=10**9)
    return Template(signer, type=2, chain_id=1, to=ROUTER, gas=GAS, caps=caps, data=DATA)


def by_template(signer: Signer) -> Callable[[Decision], memoryview]:
    """Native code fires it; the two slots are 32 bytes each, one after the other."""
    fire = template(signer).fire

    def make(d: Decision) -> memoryview:
        nonce, tip_wei, fee_cap_wei, pays, least = d
        slots = pays.to_bytes(32, "big") + least.to_bytes(32, "big")
        return fire(nonce, fee_cap_wei, tip_wei, 0, slots)

    return make


def by_name(signer: Signer) -> Callable[[Decision], memoryview]:
    """The same with the slots given by name."""
    fire, pack = template(signer).fire, DATA.pack

    def make(d: Decision) -> memoryview:
        nonce, tip_wei, fee_cap_wei, pays, least = d
        return fire(nonce, fee_cap_wei, tip_wei, 0, pack(pays=pays, least=least))

    return make


def request_of(auth: PresignedSigner) -> ReadyRequest:
    """A bundle's request as relays take it."""
    return ReadyRequest.send_bundle(
        "relay.example",
        auth=auth,
        fields={"replacementUuid": "3c8a1d0e-6d6a-4b7e-9f51-2a4f5d1c7b90"},
        raw_max=4096,
    )


def by_request(signer: Signer, auth: PresignedSigner) -> Callable[[Decision], memoryview]:
    """Transaction and request."""
    sign, fire = by_template(signer), request_of(auth).fire
    return lambda d: fire(sign(d), block_number=23_000_000)


# ---- measuring ----


def timed(make: Callable[[Decision], Any], work: list[Decision]) -> Callable[[], np.ndarray]:
    """One sample a decision, in microseconds."""

    def sample() -> np.ndarray:
        clock = time.perf_counter_ns
        samples = np.empty(len(work), np.int64)
        gc.collect()
        gc.disable()
        for i, decision in enumerate(work):
            begin = clock()
            make(decision)
            samples[i] = clock() - begin
        gc.enable()
        return samples / 1000

    return sample


def after(wait: Callable[[], None], sample: Callable[[], np.ndarray]) -> Callable[[], np.ndarray]:
    """`sample`, when `wait` is over."""

    def both() -> np.ndarray:
        wait()
        return sample()

    return both


def refill(signer: PresignedSigner) -> list[float]:
    """Empties the pool a few times and waits until it is full; microseconds an entry."""
    samples = []
    for _ in range(3):
        signer.wait(POOL)
        before = signer.counts().made
        begin = time.perf_counter_ns()
        signer.drop()
        signer.wait(POOL)
        spent = time.perf_counter_ns() - begin
        samples.append(spent / 1000 / (signer.counts().made - before))
    return samples


def check(rows: dict[str, Callable[[Decision], Any]], work: list[Decision]) -> None:
    """All rows must make the same transaction."""
    exact = ("eth-account", "coincurve-rlp", "barewire-rfc6979")
    for decision in work:
        first, *others = (bytes(rows[who](decision)) for who in exact)
        assert all(other == first for other in others)
        presigned = bytes(rows["barewire-presigned"](decision))
        assert Account.recover_transaction(presigned) == ADDRESS
        ours, theirs = rlp.decode(presigned[1:]), rlp.decode(first[1:])
        assert ours[:9] == theirs[:9]


def main() -> None:
    """Runs the benchmark."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--core", type=int, default=1, help="core to sign on (default 1)")
    parser.add_argument("--refill-core", type=int, default=0, help="core to presign on (default 0)")
    options = parser.parse_args()
    cores = os.cpu_count() or 1
    pin(options.core % cores)
    presigned = partial(
        PresignedSigner, core=options.refill_core % cores, accept_snapshot_risk=True
    )
    with ExitStack() as stack:
        key = stack.enter_context(Key.from_bytes(SECRET))
        auth_key = stack.enter_context(Key.from_bytes(AUTH_SECRET))
        with presigned(key, capacity=BIG_POOL) as big:
            begin = time.perf_counter()
            big.wait(BIG_POOL, timeout_s=60)
            big_fill_s, big_bytes = time.perf_counter() - begin, big.counts().locked_bytes
        plain = stack.enter_context(Rfc6979Signer(key))
        signer = stack.enter_context(presigned(key, capacity=POOL))
        auth = stack.enter_context(presigned(auth_key, capacity=POOL))
        making: dict[str, Callable[[Decision], Any]] = {
            "bias": lambda d: d,
            "eth-account": by_eth_account(),
            "coincurve-rlp": by_coincurve_and_rlp(),
            "barewire-rfc6979": by_template(plain),
            "barewire-presigned": by_template(signer),
            "barewire-presigned/named": by_name(signer),
            "bundle-request": by_request(signer, auth),
        }
        check(making, decisions(50))
        sizes = {who: len(making[who](decisions(1)[0])) for who in list(making)[1:]}
        assert abs(sizes["barewire-presigned"] - LENGTH) <= 2, sizes  # r or s may be short

        def full() -> None:
            signer.wait(POOL)
            auth.wait(POOL)

        counts = {"eth-account": 100, "coincurve-rlp": 500, "barewire-rfc6979": 1000}
        callables: dict[str, Callable[[], Any]] = {
            who: after(full, timed(make, decisions(counts.get(who, 3000))))
            for who, make in making.items()
        }
        callables["presign-refill"] = partial(refill, signer)
        gc.freeze()
        rows = measure(callables, rounds=options.rounds)
        fallbacks = signer.counts().rfc6979 + auth.counts().rfc6979
    by_who = {row.who: row for row in rows}
    ours = by_who["barewire-presigned"].p50
    fill = by_who["presign-refill"]
    fill.extra = {"rate": round(1e6 / fill.p50), "pool_of_100000_bytes": big_bytes}
    slower = ", ".join(
        f"{who} {by_who[who].p50 / ours:.1f} x"
        for who in ("eth-account", "coincurve-rlp", "barewire-rfc6979")
    )
    notes = [
        f"{sizes['barewire-presigned']} bytes of transaction, {sizes['bundle-request']} of request",
        f"p50 as long as barewire-presigned: {slower}",
        f"eth-account signs with {type(keys.PrivateKey(SECRET).backend).__name__}",
        "/named gives the slots by name (Calldata.pack); the others lay their bytes in order",
        f"filling a pool of {BIG_POOL:,} took {big_fill_s:.2f} s",
        f"an empty pool made {fallbacks} signatures fall back to RFC 6979",
        f"Keccak of one message: {'AVX-512VL' if keccak_width() == 8 else 'scalar'}",
    ]
    finish("sign", rows, notes, to=options.json)


if __name__ == "__main__":
    main()
