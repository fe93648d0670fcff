"""Which transactions went out on a private route, so that nobody else is asked about them.

A receipt poll tells a public provider that a hash exists, which is as much as a searcher needs. So
the client remembers what it sent privately: whoever asks for such a hash without naming a route is
sent over the transaction's own, and its bytes are refused to any other. What was sent by an earlier
process is the journal's to know.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from barewire.errors import BarewireError
from barewire.keccak import keccak256

__all__ = ["Confidential"]

_MOST = 100_000
_LEAST_HEX = 2 + 2 * 80
"""A signed transaction is longer than 80 bytes; hashes, addresses and numbers are not."""


class Confidential:
    """Hashes of private transactions and their routes."""

    def __init__(self) -> None:
        self._routes: OrderedDict[str, str] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._routes)

    def sending(self, number: str, route: str) -> None:
        """The transaction with the hash `number` is about to leave on `route`.

        Raises:
            BarewireError: it left on another, private route before.
        """
        known = self._routes.get(number, route)
        if known != route:
            raise BarewireError(
                f"transaction {number} was sent on the private route {known!r}; "
                f"it may not leave on {route or 'the public one'!r}",
                hint="sign another transaction for another route",
            )
        if route:
            self._routes[number] = route
            if len(self._routes) > _MOST:
                self._routes.popitem(last=False)

    def carried(self, params: Any, route: str) -> None:
        """`params` of a bundle, or of the like, are about to leave on `route`.

        Raises:
            BarewireError: a transaction in it left on another, private route before.
        """
        if isinstance(params, dict):
            params = params.values()
        elif isinstance(params, str):
            if len(params) >= _LEAST_HEX and params.startswith("0x"):
                try:
                    raw = bytes.fromhex(params[2:])
                except ValueError:
                    return
                self.sending("0x" + keccak256(raw).hex(), route)
            return
        elif not isinstance(params, list | tuple):
            return
        for item in params:
            self.carried(item, route)

    def route_of(self, params: Sequence[Any], route: str) -> str:
        """The route on which the hash that `params` begins with may be asked for.

        Raises:
            BarewireError: `route` is another than its own.
        """
        number = params[0] if isinstance(params, list | tuple) and params else None
        known = self._routes.get(number.lower()) if isinstance(number, str) else None
        if known is None or known == route:
            return route
        if route:
            raise BarewireError(
                f"transaction {number} belongs to the private route {known!r}, not to {route!r}"
            )
        return known
