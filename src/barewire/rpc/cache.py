"""Results that are still true, and until when.

What lies in a final block stays true for ever (bounded by the cache's size). What depends on the
newest block is true until the next head is known, and never longer than a part of a block time, for
a head may have come that nobody has told us of.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import Any

from barewire.rpc.heads import Heads, quantity
from barewire.rpc.methods import Life, Method

__all__ = ["Cache", "Key"]

Key = tuple[str, bytes, str, int]
"""Method, parameters as JSON, route, and the least block."""

_FOREVER = -2
_MOVING = ("latest", "safe", "finalized")
_HASH = re.compile("0x[0-9a-fA-F]{64}", re.ASCII)


class Cache:
    """Least recently used results.

    Attributes:
        hits: how often it had the answer.
        misses: how often it did not.
        moving: also keeps what depends on the newest block.
    """

    def __init__(
        self, heads: Heads, *, size: int = 20_000, moving: bool = False, block_time_ms: int = 12_000
    ) -> None:
        self._heads = heads
        self._size = size
        self.moving = moving
        self._moving_ns = min(block_time_ms // 4, 1_000) * 1_000_000
        self._entries: OrderedDict[Key, tuple[int, int, Any]] = OrderedDict()
        self.hits = 0
        self.misses = 0

    def get(self, key: Key, now_ns: int) -> tuple[Any] | None:
        """The result in a tuple, or None."""
        entry = self._entries.get(key)
        if entry is not None:
            head, until_ns, result = entry
            if head == _FOREVER or (head == self._heads.newest and now_ns < until_ns):
                self.hits += 1
                self._entries.move_to_end(key)
                return (result,)
            del self._entries[key]
        self.misses += 1
        return None

    def put(self, key: Key, method: Method, params: Any, result: Any, now_ns: int) -> None:
        """Keeps `result` for as long as it stays true, if at all."""
        if result is None:
            return  # not there yet
        life = self._life(method, params, result)
        if life is Life.FOREVER:
            entry = (_FOREVER, 0, result)
        elif life is Life.HEAD and self.moving and self._heads.newest >= 0:
            entry = (self._heads.newest, now_ns + self._moving_ns, result)
        else:
            return
        self._entries[key] = entry
        if len(self._entries) > self._size:
            self._entries.popitem(last=False)

    def _life(self, method: Method, params: Any, result: Any) -> Life:
        if method.life is Life.RESULT:
            told = result if isinstance(result, dict) else {}
            number = quantity(told.get("blockNumber", told.get("number")))
            return self._at(hex(number)) if number >= 0 else Life.NEVER
        if method.life is Life.BLOCK:
            given = isinstance(params, list | tuple) and len(params) > method.block
            return self._at(params[method.block] if given else "latest")
        return method.life

    def _at(self, block: Any) -> Life:
        if isinstance(block, dict):
            return Life.FOREVER if "blockHash" in block else self._at(block.get("blockNumber"))
        if block == "earliest":
            return Life.FOREVER
        if block in _MOVING:
            return Life.HEAD
        number = quantity(block)
        if number >= 0:
            return Life.FOREVER if number <= self._heads.final else Life.HEAD
        if isinstance(block, str) and _HASH.fullmatch(block):
            return Life.FOREVER
        return Life.NEVER  # pending; or rubbish, of which nobody knows what it means

    def clear(self) -> None:
        """Forgets everything, as after a chain was reset."""
        self._entries.clear()
