"""How many blocks a provider gives in one eth_getLogs, learnt from how it refuses.

Every vendor has a limit and words of its own for it: "up to a 10 block range" (Alchemy), "limited
to a 10,000 range" (QuickNode), "exceed maximum block range: 5000" (BNB chain), "Try with this block
range [0x65, 0x6e]" (Infura), "retry with the range 101-110" (reth). What all share is that a number
smaller than what was asked for stands in them, or two blocks that would do. Where neither does,
half is asked for.
"""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["Narrower", "narrower"]

_SPAN = re.compile(
    r"(0x[0-9a-f]{1,16}|\b\d{1,20})\s*(?:,|-|to|\.\.)\s*(0x[0-9a-f]{1,16}|\d{1,20}\b)"
)
_COUNT = re.compile(r"(?<![\w.-])(\d{1,3}(?:[,_]\d{3})+|\d{1,12})\s?(k)?(?![\w.]*x)\b")
_BY_SIZE = ("result", "response size", "log", "took", "time")


class Narrower(NamedTuple):
    """What to ask for instead.

    Attributes:
        blocks: so many at once.
        lasting: it is the provider's limit, whatever the answer's size.
    """

    blocks: int
    lasting: bool


def narrower(message: str, asked: int) -> Narrower:
    """The range to try after `message` refused one of `asked` blocks, which is more than 1."""
    low = message.lower().replace("eth_getlogs", "")
    by_size = any(word in low for word in _BY_SIZE)
    for first, last in _SPAN.findall(low):
        blocks = _block(last) - _block(first) + 1
        if _block(first) and 1 <= blocks < asked:
            return Narrower(blocks, lasting="up to" in low and not by_size)
    counts = [
        int(digits.replace(",", "").replace("_", "")) * (1000 if thousands else 1)
        for digits, thousands in _COUNT.findall(low)
    ]
    smaller = [n for n in counts if 1 <= n < asked]
    if smaller and ("block" in low or "range" in low):
        return Narrower(max(smaller), lasting=not by_size)
    return Narrower(asked // 2, lasting=False)


def _block(text: str) -> int:
    return int(text, 16 if text.startswith("0x") else 10)
