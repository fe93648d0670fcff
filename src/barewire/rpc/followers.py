"""What following a stream of one kind means: telling live items, filling gaps, finding muteness.

A follower is told what a provider pushes. It fetches what happened while nobody pushed, from the
view of one provider at a time, so that a block and its logs belong together. And it audits: whether
what was pushed is all there was is measured by what others bring, never by pings, because a
subscription can be dead on a connection that is well.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from barewire.rpc.faults import AllProvidersFailed, Fault, RpcAnswerError, Trouble, from_error
from barewire.rpc.heads import quantity
from barewire.rpc.log_range import narrower
from barewire.rpc.provider import Provider
from barewire.rpc.stitch import DEEPEST, HeadStitch, LogStitch, Loss, OnceStitch
from barewire.untrusted import printable

if TYPE_CHECKING:
    from barewire.rpc.client import RpcClient

__all__ = ["WIDE", "Follower", "follower", "is_header", "logs_between"]

WIDE = 500
"""Blocks asked for in one getLogs, where the provider's limit is not known to be less."""
_AT_ONCE = 100
"""Blocks fetched side by side."""
_ASK_MS = 2_000
_LOGS_MS = 5_000
_UNANNOUNCED = 2
"""Blocks full of transactions that nobody announced, after which announcing has stopped."""
_UNANNOUNCED_AT_FIRST = 5
"""The same where nothing was announced yet: some chains have no public pool."""

_CONTRADICTIONS = 4
"""Sweeps in a row that do not hold together, until one is taken as it is."""

Emit = Callable[[Any], None]
Lose = Callable[[Loss], None]


class Follower:
    """One kind of stream.

    Attributes:
        polls: it can be polled where nobody pushes.
        live_head: the newest block that the provider followed has told of, -1 while unknown.
    """

    polls = False

    def __init__(self, client: RpcClient, args: Sequence[Any], emit: Emit, lose: Lose) -> None:
        self._client = client
        self._args = args
        self._emit = emit
        self._lose = lose
        self.live_head = -1

    async def begin(self) -> None:
        """Learns from where on to tell."""

    def makes_sense(self, item: Any, source: Provider) -> bool:
        """Whether what `source` pushed can be true."""
        return True

    async def live(self, item: Any, source: Provider) -> None:
        """Tells what was pushed."""
        raise NotImplementedError

    async def catch_up(self, source: Provider, upto: int = -1) -> None:
        """Tells what happened up to now, by the view of `source`.

        Args:
            source: who is asked.
            upto: the block after which all is pushed: the view has to reach that far.

        Raises:
            RpcAnswerError, AllProvidersFailed: it cannot be had now.
        """

    def give_up(self, why: str) -> None:
        """What `catch_up` could not bring is lost."""

    def moved(self, gone_ns: int) -> None:
        """Another provider pushes now; nobody did since `gone_ns`."""

    async def audit(
        self, source: Provider, number: int, told: int, witnesses: Sequence[Provider]
    ) -> str:
        """Tells what `source` should have pushed up to block `number`, and did not.

        Args:
            source: who is followed.
            number: a block that has been known for as long as pushing may take.
            told: the newest block that `source` itself had told of by then.
            witnesses: who has block `number`, `source` last.

        Returns:
            Why `source` counts as mute, or "".
        """
        return ""

    async def _block(self, source: Provider, block: int | str, key: str = "") -> dict[str, Any]:
        """Header of a block by number, tag or hash, as `source` has it."""
        by_hash = isinstance(block, str) and len(block) == 66
        method = "eth_getBlockByHash" if by_hash else "eth_getBlockByNumber"
        asked = hex(block) if isinstance(block, int) else block
        found = await self._client.ask(source, method, [asked, False], timeout_ms=_ASK_MS)
        fits = not isinstance(block, int) or (
            isinstance(found, dict) and quantity(found.get("number")) == block
        )
        if not is_header(found) or not fits:
            raise _gone(method, source, f"has no block {asked}")
        header: dict[str, Any] = found
        return header


def _gone(method: str, source: Provider, what: str) -> AllProvidersFailed:
    return AllProvidersFailed(method, [(source.name, Trouble(Fault.STALE, what))])


def is_header(item: Any) -> bool:
    """Whether `item` has what is needed of a header."""
    return (
        isinstance(item, dict)
        and quantity(item.get("number")) >= 0
        and isinstance(item.get("hash"), str)
        and isinstance(item.get("parentHash", ""), str)
    )


def is_log(item: Any) -> bool:
    """Whether `item` has what is needed of a log; one of the pending block has no number."""
    return (
        isinstance(item, dict)
        and (item.get("blockNumber") is None or quantity(item["blockNumber"]) >= 0)
        and all(isinstance(item.get(key, ""), str | None) for key in ("blockHash", "logIndex"))
        and (item.get("logIndex") is None or quantity(item["logIndex"]) >= 0)
    )


class HeadFollower(Follower):
    """newHeads."""

    polls = True

    def __init__(self, client: RpcClient, args: Sequence[Any], emit: Emit, lose: Lose) -> None:
        super().__init__(client, args, emit, lose)
        self._stitch = HeadStitch()
        self._audited = -1  # `live_head` at the last audit

    async def begin(self) -> None:
        """See `Follower.begin`."""
        self._stitch.begin(await newest(self._client))
        self.live_head = self._stitch.last

    def makes_sense(self, item: Any, source: Provider) -> bool:
        """See `Follower.makes_sense`: who claims a head that nobody bears out is not believed."""
        if not is_header(item):
            return False
        number = quantity(item["number"])
        self._client.pool.heads.saw(source, number, time.monotonic_ns())
        return not source.doubtful

    async def live(self, item: Any, source: Provider) -> None:
        """See `Follower.live`."""
        self.live_head = quantity(item["number"])
        try:
            await self._reach(item, source)
        except (RpcAnswerError, AllProvidersFailed) as error:
            first = min(self._stitch.last + 1, self.live_head - 1)
            why = f"before {printable(item['hash'], 70)}: {error}"
            self._lose(Loss("blocks", first, self.live_head - 1, why))
            self._tell(item)

    async def catch_up(self, source: Provider, upto: int = -1) -> None:
        """See `Follower.catch_up`; headers tell by their numbers what is missing between them."""
        header = await self._block(source, "latest")
        self.live_head = quantity(header["number"])
        self._client.pool.heads.saw(source, self.live_head, time.monotonic_ns())
        if not source.doubtful:
            await self._reach(header, source)

    async def audit(
        self, source: Provider, number: int, told: int, witnesses: Sequence[Provider]
    ) -> str:
        """See `Follower.audit`: others told of blocks, `source` did not."""
        stood_still = self.live_head == self._audited
        self._audited = self.live_head
        trails = self.live_head < number - self._client.pool.policy.max_lag
        if self.live_head < number and (stood_still or trails):
            return f"told of no block after {self.live_head}"
        return ""

    def give_up(self, why: str) -> None:
        """See `Follower.give_up`; the next header fills what it can."""

    async def _reach(self, header: dict[str, Any], source: Provider) -> None:
        """Lets `header` through after its ancestors: those missed, those of another branch."""
        stitch = self._stitch
        number = quantity(header["number"])
        if stitch.has(header):
            return
        if 0 <= number < stitch.last - DEEPEST:
            if self._client.pool.heads.newest > number:
                return  # far behind, or what a node says that is catching up
            why = f"the chain fell back from block {stitch.last} to {number}"
            self._lose(Loss("blocks", number, stitch.last, why))
            stitch.begin({"number": hex(max(number - 1, 0)), "hash": header.get("parentHash", "")})
        missing = stitch.missing(number)
        for start in range(0, len(missing), _AT_ONCE):
            part = missing[start : start + _AT_ONCE]
            for block in await asyncio.gather(*(self._fetch(n, source) for n in part)):
                await self._let_through(block, source)
        await self._let_through(header, source)

    async def _let_through(self, block: dict[str, Any], source: Provider) -> None:
        branch = [block]
        while not self._stitch.has_parent(branch[-1]) and len(branch) < DEEPEST:
            number = quantity(branch[-1]["number"]) - 1
            parent = branch[-1].get("parentHash")
            if number < 0 or not parent or not self._stitch.knows(number):
                break
            branch.append(await self._parent(number, parent, source))
        for one in reversed(branch):
            self._tell(one)

    def _tell(self, block: dict[str, Any]) -> None:
        header = self._stitch.take(block)
        if header is not None:
            self._client.freshness.tell(quantity(header["number"]))
            self._emit(header)

    async def _parent(self, number: int, parent: str, source: Provider) -> dict[str, Any]:
        """By its hash: at its number another branch may stand by now."""
        if len(parent) == 66:
            try:
                return await self._block(source, parent)
            except (RpcAnswerError, AllProvidersFailed):
                pass  # it went with its branch, or `source` did; whoever has it may tell
        return await self._fetch(number, source)

    async def _fetch(self, number: int, source: Provider) -> dict[str, Any]:
        try:
            return await self._block(source, number)
        except (RpcAnswerError, AllProvidersFailed):
            block: dict[str, Any] | None = await self._client.request(
                "eth_getBlockByNumber", [hex(number), False], at_least=number, fresh=True
            )
        if not is_header(block):
            raise AllProvidersFailed("eth_getBlockByNumber", [], hint=f"block {number} is gone")
        assert block is not None
        return block


class LogFollower(Follower):
    """logs of one filter."""

    polls = True

    def __init__(self, client: RpcClient, args: Sequence[Any], emit: Emit, lose: Lose) -> None:
        super().__init__(client, args, emit, lose)
        where = args[0] if args else None
        self._where = dict(where) if isinstance(where, dict) else {}
        self._stitch = LogStitch()
        self._sweeping = asyncio.Lock()
        self._contradicted = 0  # sweeps in a row that did not hold together

    async def begin(self) -> None:
        """See `Follower.begin`."""
        self._stitch.begin(await newest(self._client))

    def makes_sense(self, item: Any, source: Provider) -> bool:
        """See `Follower.makes_sense`."""
        return is_log(item)

    async def live(self, item: Any, source: Provider) -> None:
        """See `Follower.live`."""
        for log in self._stitch.take(item):
            self._emit(log)

    async def catch_up(self, source: Provider, upto: int = -1) -> None:
        """See `Follower.catch_up`."""
        async with self._sweeping:
            await self._sweep(source, "latest", upto)

    def give_up(self, why: str) -> None:
        """See `Follower.give_up`."""
        covered, newest_known = self._stitch.covered, self._client.pool.heads.newest
        if newest_known > covered:
            self._lose(Loss("logs", covered + 1, newest_known, why))
            self._stitch.skip(newest_known)

    async def audit(
        self, source: Provider, number: int, told: int, witnesses: Sequence[Provider]
    ) -> str:
        """See `Follower.audit`: logs of blocks up to `number` that somebody has."""
        if number <= self._stitch.covered:
            return ""
        async with self._sweeping:
            for witness in witnesses:
                try:
                    new = await self._sweep(witness, number)
                except (RpcAnswerError, AllProvidersFailed):
                    continue  # counted by the pool; the next may do better, or the next audit
                late = sum(quantity(log["blockNumber"]) <= told for log in new)
                return f"did not push {late} logs up to block {number}" if late else ""
        return ""

    async def _sweep(
        self, source: Provider, upto: int | str, at_least: int = -1
    ) -> list[dict[str, Any]]:
        """Tells and takes back by what `source` says of the blocks up to `upto`; what was new."""
        stitch = self._stitch
        while True:
            turns = stitch.turns
            head = await self._block(source, upto)
            number = quantity(head["number"])
            if number < at_least:
                raise _gone("eth_getLogs", source, f"is at block {number}, not {at_least}")
            fork = await self._fork(source, head)
            if fork < 0:
                return []
            found = await logs_between(self._client, source, self._where, fork + 1, number)
            hashes = {number: head["hash"]}
            for unclear in stitch.unclear(fork, number, found):
                if unclear not in hashes:
                    hashes[unclear] = (await self._block(source, unclear))["hash"]
            if stitch.turns == turns:
                break  # else a node took something back meanwhile: this is out of date
        self._hold_together(source, fork, head, found, hashes)
        gone, new = stitch.swept(fork, head, found, hashes)
        for log in (*gone, *new):
            self._emit(log)
        return new

    def _hold_together(
        self,
        source: Provider,
        fork: int,
        head: dict[str, Any],
        found: Sequence[dict[str, Any]],
        hashes: dict[int, str],
    ) -> None:
        """Logs and headers may come from two backends of one provider, on two branches.

        Raises:
            AllProvidersFailed: they do. Who goes on contradicting himself is believed in the end.
        """
        number = quantity(head["number"])
        left_out = self._stitch.left_out(fork, number, found, hashes)
        if left_out:
            why = f"leaves out logs of block {left_out[0]}"
        elif any(
            quantity(log["blockNumber"]) == number and log.get("blockHash") != head["hash"]
            for log in found
        ):
            why = f"has two blocks {number}"
        else:
            self._contradicted = 0
            return
        self._contradicted += 1
        if self._contradicted < _CONTRADICTIONS:
            raise _gone("eth_getLogs", source, why)

    async def _fork(self, source: Provider, head: dict[str, Any]) -> int:
        """The newest anchor that `source` has in its chain up to `head`; -1 if nothing is new."""
        stitch = self._stitch
        number = quantity(head["number"])
        if stitch.anchor(number - 1) == head.get("parentHash", "") and number > stitch.covered:
            return number - 1
        anchors = stitch.anchors(number)
        if not anchors:
            return self._without_anchor(number)
        there: dict[int, bool] = {number: stitch.anchor(number) == head["hash"]}

        async def stands(anchor: int) -> bool:
            if anchor not in there:
                block = await self._block(source, anchor)
                there[anchor] = block["hash"] == stitch.anchor(anchor)
            return there[anchor]

        if await stands(anchors[-1]):
            # The chain as told, and nothing after it; or one that is behind.
            return anchors[-1] if number > stitch.covered else -1
        low, high = 0, len(anchors) - 1  # what comes before one that stands, stands
        while low < high:
            middle = (low + high) // 2
            if await stands(anchors[middle]):
                low = middle + 1
            else:
                high = middle
        if low:
            return anchors[low - 1]
        oldest = anchors[0]
        why = f"a reorganisation deeper than the {stitch.covered - oldest + 1} blocks remembered"
        self._lose(Loss("logs", oldest, oldest, why))
        return oldest - 1

    def _without_anchor(self, number: int) -> int:
        """As `_fork`, where no block up to `number` is remembered."""
        stitch = self._stitch
        if number > stitch.covered:  # what came before was given up
            return stitch.covered
        if self._client.pool.heads.newest <= number:  # nobody is further: the chain was reset
            why = f"the chain fell back from block {stitch.covered} to {number}"
            self._lose(Loss("logs", number, stitch.covered, why))
            stitch.skip(number)
        return -1


async def logs_between(
    client: RpcClient, source: Provider, where: dict[str, Any], first: int, last: int
) -> list[dict[str, Any]]:
    """Logs of a filter in the blocks from `first` to `last`, in parts that `source` gives.

    Raises:
        RpcAnswerError, AllProvidersFailed: it does not give them.
    """
    logs: list[dict[str, Any]] = []
    wide = source.log_blocks or WIDE
    while first <= last:
        upto = min(first + wide - 1, last)
        span = where | {"fromBlock": hex(first), "toBlock": hex(upto)}
        try:
            found = await client.ask(source, "eth_getLogs", [span], timeout_ms=_LOGS_MS)
        except (RpcAnswerError, AllProvidersFailed) as error:
            if upto == first or not _may_be_too_wide(error):
                raise
            wide, lasting = narrower(_words(error), upto - first + 1)
            if lasting:
                source.log_blocks = wide
            continue
        fits = isinstance(found, list) and all(
            is_log(one) and first <= quantity(one.get("blockNumber")) <= upto for one in found
        )
        if not fits:
            raise _gone("eth_getLogs", source, "what came are no logs of these blocks")
        logs += found
        first = upto + 1
        wide = min(wide * 2, source.log_blocks or WIDE)
    return logs


def _words(error: RpcAnswerError | AllProvidersFailed) -> str:
    if isinstance(error, AllProvidersFailed) and error.causes:
        return error.causes[-1][1].message
    return error.message


def _may_be_too_wide(error: RpcAnswerError | AllProvidersFailed) -> bool:
    """Limits are refused in too many words to know them all; half the range does no harm."""
    if isinstance(error, RpcAnswerError):
        fault = from_error(error.error, "eth_getLogs").fault
    else:
        fault = error.causes[-1][1].fault if error.causes else Fault.TRANSPORT
    return fault not in (Fault.TRANSPORT, Fault.RATE_LIMIT, Fault.UNSUPPORTED, Fault.STALE)


class OnceFollower(Follower):
    """Whatever is only made unique."""

    def __init__(self, client: RpcClient, args: Sequence[Any], emit: Emit, lose: Lose) -> None:
        super().__init__(client, args, emit, lose)
        self._stitch = OnceStitch()

    async def live(self, item: Any, source: Provider) -> None:
        """See `Follower.live`."""
        if (fresh := self._stitch.take(item)) is not None:
            self._emit(fresh)

    def moved(self, gone_ns: int) -> None:
        """See `Follower.moved`: what came meanwhile nobody can tell."""
        why = "the provider changed; what was pending meanwhile nobody can tell"
        self._lose(Loss("pending", gone_ns, time.monotonic_ns(), why))


class PendingFollower(OnceFollower):
    """newPendingTransactions: blocks tell whether their transactions were announced."""

    def __init__(self, client: RpcClient, args: Sequence[Any], emit: Emit, lose: Lose) -> None:
        super().__init__(client, args, emit, lose)
        self._any = False
        self._since = -1  # the newest block when something was last announced
        self._unannounced = 0
        self._looked_at = -1

    async def live(self, item: Any, source: Provider) -> None:
        """See `Follower.live`."""
        self._any = True
        self._unannounced = 0
        self._since = self._client.pool.heads.newest
        await super().live(item, source)

    def moved(self, gone_ns: int) -> None:
        """See `Follower.moved`."""
        self._unannounced = 0
        self._since = self._client.pool.heads.newest
        super().moved(gone_ns)

    async def audit(
        self, source: Provider, number: int, told: int, witnesses: Sequence[Provider]
    ) -> str:
        """See `Follower.audit`."""
        if number <= max(self._since, self._looked_at):
            return ""
        for witness in witnesses:
            try:
                block = await self._block(witness, number)
            except (RpcAnswerError, AllProvidersFailed):
                continue
            self._looked_at = number
            within = block.get("transactions")
            hashes = within if isinstance(within, list) else []
            if hashes and not any(isinstance(h, str) and h in self._stitch for h in hashes):
                self._unannounced += 1
            needed = _UNANNOUNCED if self._any else _UNANNOUNCED_AT_FIRST
            if self._unannounced < needed:
                return ""
            return f"announced nothing that stood in {self._unannounced} blocks up to {number}"
        return ""


async def newest(client: RpcClient) -> dict[str, Any]:
    """The newest block's header, of whoever is believed to have it.

    Raises:
        RpcAnswerError, AllProvidersFailed: nobody tells.
    """
    block = await client.request("eth_getBlockByNumber", ["latest", False], fresh=True)
    if not is_header(block):
        raise AllProvidersFailed("eth_getBlockByNumber", [], hint="what came is no block")
    header: dict[str, Any] = block
    return header


def follower(kind: str, client: RpcClient, args: Sequence[Any], emit: Emit, lose: Lose) -> Follower:
    """Who follows streams of `kind`."""
    kinds: dict[str, type[Follower]] = {
        "newHeads": HeadFollower,
        "logs": LogFollower,
        "newPendingTransactions": PendingFollower,
    }
    return kinds.get(kind, OnceFollower)(client, args, emit, lose)
