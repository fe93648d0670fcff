"""Every kind of swap under its own operations, bare and in each kind of wrapper; whole tables."""

from __future__ import annotations

from collections.abc import Iterator

import eth_abi

from barewire.mempool.abi import parse_function
from barewire.mempool.swaps import STANDARD_SWAPS, SwapTable
from tests.unit.test_swaps import KINDS, ROUTER, TABLE, Material, transaction

OP_BYTES = 12
SWAP = (6).to_bytes(4, "big")


def seeds() -> Iterator[bytes]:
    yield b"\xff" + SwapTable(STANDARD_SWAPS[:2], wrappers=[]).serialised
    yield b"\xff" + TABLE.serialised
    for number, make in enumerate(KINDS.values()):
        data, expected = make(Material(number))
        (swap,) = TABLE.decode(transaction(data, to=expected.get("target", ROUTER)))
        for abi in STANDARD_SWAPS:
            if parse_function(abi.signature).selector == swap.selector and not swap.depth:
                serialised = SwapTable([abi], wrappers=[]).serialised
                count = int.from_bytes(serialised[28:32], "little")
                head = bytes([count - 1]) + serialised[-OP_BYTES * count :]
                for wrapped in _wrapped(SWAP + data[4:]):
                    yield head + wrapped


def _wrapped(call: bytes) -> Iterator[bytes]:
    target = "0x" + "11" * 20
    yield call
    for selector, types, values in (
        (1, ["address", "uint256", "bytes"], [target, 1, call]),
        (2, ["bytes[]"], [[call, call]]),
        (3, ["(address,uint256,bytes)[]"], [[(target, 1, call)]]),
        (4, ["address[]", "uint256[]", "bytes[]"], [[target], [1], [call]]),
        (5, ["bytes", "bytes[]", "uint256"], [b"\1", [call[4:]], 7]),
        (7, ["bytes"], [bytes(53) + len(call).to_bytes(32, "big") + call]),
    ):
        yield selector.to_bytes(4, "big") + eth_abi.encode(types, values)
