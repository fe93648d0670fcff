"""Several calls in one transaction, by way of the Multicall3 contract."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from barewire.errors import BarewireError
from barewire.execution.calldata import Calldata, encode_call

__all__ = ["MULTICALL3", "Call", "Multicall", "intrinsic_gas", "multicall"]

#: Where Multicall3 lies on most chains.
MULTICALL3 = bytes.fromhex("cA11bde05977b3631167028862bE2a173976CA11")

# EIP-2028 and EIP-2 (yellow paper, appendix G).
_TRANSACTION_GAS, _ZERO_BYTE_GAS, _BYTE_GAS = 21000, 4, 16


class Call(NamedTuple):
    """One of several calls.

    Attributes:
        target: 20 bytes.
        data: calldata, whose slots become slots of the whole.
        allow_failure: whether the others go on if this one reverts.
        value_wei: sent with it.
    """

    target: bytes
    data: Calldata
    allow_failure: bool = False
    value_wei: int = 0


@dataclass(frozen=True)
class Multicall:
    """Calldata for the Multicall3 contract, and what it saves.

    Attributes:
        data: what to send there.
        value_wei: to send with it, the sum of the calls' values.
        round_trips_saved: transactions that need not be sent.
        intrinsic_gas_saved: what the calls would cost as transactions of their own before any of
            them runs, less what this one costs before it runs. The contract itself uses part of
            it: about 2,300 gas a call for a cold target, and 6,700 more where value goes with it.
    """

    data: Calldata
    value_wei: int
    round_trips_saved: int
    intrinsic_gas_saved: int


def intrinsic_gas(data: bytes) -> int:
    """What a plain transaction with this calldata pays before it runs (EIP-2028)."""
    zeros = data.count(0)
    return _TRANSACTION_GAS + _ZERO_BYTE_GAS * zeros + _BYTE_GAS * (len(data) - zeros)


def multicall(calls: Sequence[Call]) -> Multicall:
    """Puts `calls` into one call of Multicall3 (aggregate3, or aggregate3Value where they pay).

    The contract is then who calls (``msg.sender``): allowances and owners must fit that.

    Raises:
        BarewireError: no calls, or two slots of one name.
    """
    if not calls:
        raise BarewireError("a multicall of no calls")
    value_wei = sum(call.value_wei for call in calls)
    if value_wei:
        data = encode_call(
            "aggregate3Value((address,bool,uint256,bytes)[])",
            [[(c.target, c.allow_failure, c.value_wei, c.data) for c in calls]],
        )
    else:
        data = encode_call(
            "aggregate3((address,bool,bytes)[])",
            [[(c.target, c.allow_failure, c.data) for c in calls]],
        )
    alone = sum(intrinsic_gas(call.data.data) for call in calls)
    return Multicall(data, value_wei, len(calls) - 1, alone - intrinsic_gas(data.data))
