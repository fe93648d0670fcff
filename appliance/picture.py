"""A latency distribution as a picture in the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["histogram", "percentile"]

_EIGHTHS = " ▏▎▍▌▋▊▉█"


def percentile(ordered: Sequence[int], share: float) -> int:
    """The nearest-rank percentile of ascending `ordered`: a value that was seen.

    Args:
        ordered: at least one value, ascending.
        share: 0 to 100.
    """
    rank = math.ceil(share / 100 * len(ordered))
    return ordered[max(rank, 1) - 1]


def histogram(ordered_ns: Sequence[int], *, width: int = 50, per_doubling: int = 2) -> list[str]:
    """Lines of a horizontal histogram of ascending `ordered_ns`, in microseconds.

    Buckets grow geometrically, `per_doubling` of them to a factor of two, so that one slow packet
    does not flatten the picture; bar lengths are linear in the count, and no bucket that holds
    anything is drawn empty.
    """

    def bucket(value: int) -> int:
        return math.floor(math.log2(max(value, 1)) * per_doubling)

    first, last = bucket(ordered_ns[0]), bucket(ordered_ns[-1])
    counts = [0] * (last - first + 1)
    for value in ordered_ns:
        counts[bucket(value) - first] += 1
    most = max(counts)
    lines = []
    for index, count in enumerate(counts):
        low = 2 ** ((first + index) / per_doubling) / 1000
        eighths = max(round(count / most * width * 8), 1 if count else 0)
        bar = _EIGHTHS[8] * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")
        lines.append(f"{low:>10,.1f} us  {bar:<{width}} {count:>7,}")
    return lines
