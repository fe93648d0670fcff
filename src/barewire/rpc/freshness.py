"""Which block an answer has to know of, so that time does not run backwards for who reads.

Providers differ by a block or two. Who was told of block N and then asks another provider about
"latest" may be told of N - 1; who asks for the logs up to N is given those up to N - 1, by many
nodes without a word; and a receipt that one has is `null` at another. So each read has a floor: the
block that it names, or the newest that this client was told of. It is kept for as long as anybody
can be found who has it; where nobody can within half a second, what there is is given.
"""

from __future__ import annotations

from typing import Any

from barewire.rpc.heads import Heads, quantity
from barewire.rpc.methods import Life, Method

__all__ = ["BY_HASH", "Freshness"]

BY_HASH = frozenset(
    {
        "eth_getTransactionReceipt",
        "eth_getTransactionByHash",
        "eth_getBlockByHash",
        "eth_getHeaderByHash",
        "eth_getBlockTransactionCountByHash",
        "eth_getTransactionByBlockHashAndIndex",
        "eth_getUncleCountByBlockHash",
        "eth_getRawTransactionByHash",
        "debug_traceTransaction",
        "trace_transaction",
    }
)
"""Methods that say null of what a node has not seen yet."""
_RANGES = ("eth_getLogs", "trace_filter")
_NEWEST = ("latest", "pending")
_MOVING = ("latest", "pending", "safe", "finalized")


class Freshness:
    """What one client was told.

    Attributes:
        told: the newest block that an answer or a subscription has told of, -1 while none has.
    """

    def __init__(self, heads: Heads) -> None:
        self._heads = heads
        self.told = -1

    @property
    def floor_now(self) -> int:
        """The newest block told of, where it is still believed to exist."""
        return min(self.told, self._heads.newest)

    def floor(self, method: Method, params: Any) -> int:
        """The block that whoever answers has to know, -1 for any."""
        if not method.repeat:
            return -1
        if method.name in _RANGES:
            where = params[0] if isinstance(params, list | tuple) and params else None
            return self._range(where) if isinstance(where, dict) else self.floor_now
        if method.block >= 0:
            given = isinstance(params, list | tuple) and len(params) > method.block
            return self._block(params[method.block] if given else "latest")
        return self.floor_now if method.life is Life.HEAD else -1

    def _range(self, where: dict[str, Any]) -> int:
        if "blockHash" in where:
            return self.floor_now
        return self._block(where.get("toBlock", "latest"))

    def _block(self, block: Any) -> int:
        if block in _MOVING:
            return self.floor_now
        if isinstance(block, dict):  # EIP-1898
            return self._block(block.get("blockNumber", "latest"))
        number = quantity(block)
        if number >= 0:
            return number if number <= self._heads.newest else -1  # else nobody has it yet
        return -1 if block == "earliest" else self.floor_now

    def tells(self, method: Method, params: Any, result: Any) -> int:
        """The newest block that `result` tells of, where it says "latest"; -1 where it does not."""
        if method.name == "eth_blockNumber":
            return quantity(result)
        if method.name == "eth_getBlockByNumber" and params and params[0] in _NEWEST:
            return quantity(result.get("number")) if isinstance(result, dict) else -1
        return -1

    def learn(self, method: Method, params: Any, result: Any, *, waited: bool) -> None:
        """`result` is about to be told; `waited`: nobody had what was asked for in time."""
        number = self.tells(method, params, result)
        if 0 <= number < self.told and waited:
            self.told = number
        elif method.life is Life.RESULT and isinstance(result, dict):
            number = quantity(result.get("blockNumber", result.get("number")))
        self.tell(number)

    def tell(self, number: int) -> None:
        """Block `number` is about to be told of."""
        if self.told < number <= self._heads.newest:
            self.told = number
