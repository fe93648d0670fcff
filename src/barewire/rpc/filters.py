"""Filters live in the node that made them; here they outlive it.

Nodes number filters as they like, some from 0x1, so two providers give the same id to two filters.
The ids that users see are ours. A filter is asked where it was made; when that provider is gone or
has forgotten it, it is made again at the next one, and what happened in between is fetched: logs
and blocks. Pending transactions cannot be had back; the log says so.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from barewire.errors import BarewireError
from barewire.rpc.faults import AllProvidersFailed, Fault, RpcAnswerError, Trouble, from_error
from barewire.rpc.followers import logs_between
from barewire.rpc.heads import quantity
from barewire.rpc.jsonrpc import is_handle
from barewire.rpc.methods import lookup
from barewire.rpc.provider import Provider
from barewire.untrusted import printable

if TYPE_CHECKING:
    from barewire.rpc.client import RpcClient

__all__ = ["Filters"]

log = logging.getLogger("barewire.rpc")

_MOST = 10_000
_REMEMBERED = 10_000
_WIDEST = 1_000
"""Blocks of a gap whose hashes are fetched for a block filter."""
_ASK_MS = 2_000


@dataclass(slots=True)
class _Filter:
    """One filter.

    Attributes:
        method: what made it.
        params: with which parameters.
        route: the private route it belongs to, or "".
        owner: the provider where it lives.
        number: its id there.
        upto: the newest block whose changes were told, as far as known.
        told: keys of what was told last, so that a gap is not told twice.
        again: keys of a gap that was told, until the new filter has first been asked.
    """

    method: str
    params: Sequence[Any]
    route: str
    owner: Provider
    number: Any
    upto: int
    told: OrderedDict[Any, None] = field(default_factory=OrderedDict)
    again: set[Any] = field(default_factory=set)

    def changed(self, changes: list[Any]) -> list[Any]:
        """What to tell of what its provider says; that it says so is enough, but after a gap."""
        again, self.again = self.again, set()
        new = [item for item in changes if _key(item) not in again] if again else changes
        for item in changes:
            key = _key(item)
            self.told[key] = None
            if isinstance(item, dict):
                self.upto = max(self.upto, quantity(item.get("blockNumber")) - 1)
                if isinstance(key, tuple) and item.get("removed"):
                    self.told.pop((*key[:2], False), None)  # if it comes again, it is news
        while len(self.told) > _REMEMBERED:
            self.told.popitem(last=False)
        return new

    def missed(self, changes: list[Any]) -> list[Any]:
        """What to tell of what was fetched for a gap: the gap's edge is not known exactly."""
        new = [item for item in changes if _key(item) not in self.told]
        self.changed(new)
        self.again = {_key(item) for item in changes}
        return new


def _key(item: Any) -> Any:
    if isinstance(item, dict):
        parts = item.get("blockHash"), item.get("logIndex")
        return (*map(str, parts), bool(item.get("removed")))
    return str(item)


class Filters:
    """The filters of one client.

    Attributes:
        MAKERS: methods whose result is the id of a new filter.
        METHODS: methods whose first parameter is such an id.
    """

    MAKERS = frozenset({"eth_newFilter", "eth_newBlockFilter", "eth_newPendingTransactionFilter"})
    METHODS = frozenset({"eth_getFilterChanges", "eth_getFilterLogs", "eth_uninstallFilter"})

    def __init__(self, client: RpcClient) -> None:
        self._client = client
        self._filters: OrderedDict[str, _Filter] = OrderedDict()
        self._ids = itertools.count(1)

    async def make(self, method: str, params: Sequence[Any], route: str) -> str:
        """Makes a filter, at the next provider where one is in trouble; its id, which is ours.

        Raises:
            RpcAnswerError: a provider refuses it.
            AllProvidersFailed: nobody makes one.
        """
        owner, number, upto = await self._make(method, params, route, None)
        ours = f"0xf1{next(self._ids):030x}"
        self._filters[ours] = _Filter(method, params, route, owner, number, upto)
        if len(self._filters) > _MOST:
            self._filters.popitem(last=False)
        return ours

    async def ask(self, method: str, params: Sequence[Any]) -> Any:
        """The answer to `method` about one of our filters.

        Raises:
            RpcAnswerError: it is not one of ours, or the provider's honest error.
            AllProvidersFailed: its provider is gone, and nobody makes another.
        """
        ours = params[0] if params and isinstance(params[0], str) else ""
        known = self._filters.get(ours)
        if known is None and method == "eth_uninstallFilter":
            return False
        if known is None:
            raise RpcAnswerError({"code": -32000, "message": "filter not found"}, "this client")
        if method == "eth_uninstallFilter":
            del self._filters[ours]
            with contextlib.suppress(BarewireError):  # gone with its provider, or soon forgotten
                await self._client.ask(known.owner, method, [known.number], timeout_ms=_ASK_MS)
            return True
        head = known.owner.head
        try:
            said = await self._client.ask(known.owner, method, [known.number], timeout_ms=_ASK_MS)
        except (RpcAnswerError, AllProvidersFailed) as error:
            if isinstance(error, RpcAnswerError) and "filter" not in error.message.lower():
                raise
            log.info("filter at %s: %s; made anew", known.owner.name, error)
            known.owner, known.number, upto = await self._make(
                known.method, known.params, known.route, known.owner
            )
            if method == "eth_getFilterLogs":
                return await self._client.ask(known.owner, method, [known.number])
            missed = known.missed(await self._missed(known, upto))
            known.upto = max(known.upto, upto)
            return missed
        if method == "eth_getFilterLogs" or not isinstance(said, list):
            return said
        known.upto = max(known.upto, head)
        return known.changed(said)

    async def _make(
        self, method: str, params: Sequence[Any], route: str, last: Provider | None
    ) -> tuple[Provider, Any, int]:
        info = lookup(method)
        causes: list[tuple[str, Trouble]] = []
        refused: RpcAnswerError | None = None
        candidates = self._client.pool.order(info, route, time.monotonic_ns())
        for provider in sorted(candidates, key=lambda p: p is last):
            try:
                number = await self._client.ask(provider, method, params, timeout_ms=_ASK_MS)
            except RpcAnswerError as error:
                if from_error(error.error).fault is Fault.ANSWER:
                    raise
                refused = refused or error  # not all that serve eth_getLogs have filters
            except AllProvidersFailed as error:
                causes += error.causes
            else:
                if not is_handle(number):
                    why = f"called a filter {printable(number, 40)}"
                    causes.append((provider.name, Trouble(Fault.PROVIDER, why)))
                    continue
                upto = -1
                with contextlib.suppress(RpcAnswerError, AllProvidersFailed):
                    said = await self._client.ask(provider, "eth_blockNumber", timeout_ms=_ASK_MS)
                    upto = quantity(said)
                return provider, number, upto if upto >= 0 else self._client.pool.heads.newest
        raise refused or AllProvidersFailed(method, causes)

    async def _missed(self, known: _Filter, upto: int) -> list[Any]:
        """What changed since the last answer, by the provider where it lives now."""
        first = known.upto + 1
        if known.method == "eth_newPendingTransactionFilter":
            log.warning("pending transactions of a filter were lost with its provider")
            return []
        if known.method == "eth_newBlockFilter":
            hashes = []
            for number in range(max(first, upto - _WIDEST + 1), upto + 1):
                block = await self._client.request(
                    "eth_getBlockByNumber",
                    [hex(number), False],
                    route=known.route,
                    at_least=-1 if known.route else number,
                    fresh=True,
                )
                if isinstance(block, dict):
                    hashes.append(block.get("hash"))
            return hashes
        where = dict(known.params[0]) if known.params and isinstance(known.params[0], dict) else {}
        if "blockHash" in where:
            return []
        begin, end = quantity(where.get("fromBlock")), quantity(where.get("toBlock"))
        last = upto if end < 0 else min(upto, end)
        return await logs_between(self._client, known.owner, where, max(first, begin), last)
