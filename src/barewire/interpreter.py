"""What belongs to the interpreter and to whoever runs it, kept from libraries that change it.

Libraries of the Ethereum world raise Python's recursion limit for the whole process when they are
imported (py_ecc, and so web3, eth-account and eth-keyfile: to 100,000). The stack holds less: from
there on any recursion without end, theirs or another's, ends the process by SIGSEGV instead of
with RecursionError.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["recursion_limit_kept"]


@contextmanager
def recursion_limit_kept() -> Iterator[None]:
    """Around imports of others' modules: afterwards the limit is what it was."""
    before = sys.getrecursionlimit()
    try:
        yield
    finally:
        sys.setrecursionlimit(before)
