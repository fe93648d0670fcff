"""Filters live in the node that made them, so they are asked where they were made."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from barewire.rpc.provider import Provider

__all__ = ["Filters"]

_MOST = 10_000


class Filters:
    """Which provider made which filter.

    Attributes:
        MAKERS: methods whose result is the id of a new filter.
        METHODS: methods whose first parameter is such an id.
    """

    MAKERS = frozenset({"eth_newFilter", "eth_newBlockFilter", "eth_newPendingTransactionFilter"})
    METHODS = frozenset({"eth_getFilterChanges", "eth_getFilterLogs", "eth_uninstallFilter"})

    def __init__(self) -> None:
        self._owners: OrderedDict[str, Provider] = OrderedDict()

    def made(self, filter_id: Any, provider: Provider) -> None:
        """`provider` made the filter `filter_id`."""
        if isinstance(filter_id, str):
            self._owners[filter_id] = provider
            if len(self._owners) > _MOST:
                self._owners.popitem(last=False)

    def owner(self, params: Sequence[Any]) -> Provider | None:
        """Who made the filter that `params` names, or None when nobody is known to have."""
        return self._owners.get(params[0]) if params and isinstance(params[0], str) else None
