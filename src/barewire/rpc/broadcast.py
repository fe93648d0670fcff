"""A signed transaction goes to everybody on its route, for one acceptance is not a promise.

A provider may take a transaction and never gossip it; so all get it. Sending the same bytes twice
is harmless, hence "already known" is success. "Nonce too low" may mean that these very bytes have
landed already: that is looked up, on the same route.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from barewire.errors import BarewireError
from barewire.keccak import keccak256
from barewire.rpc.faults import AllProvidersFailed, Fault, RpcAnswerError
from barewire.rpc.provider import Provider

if TYPE_CHECKING:
    from barewire.rpc.client import RpcClient

__all__ = ["Broadcast", "broadcast", "transaction_hash"]

# What nodes say when they have the transaction: geth, erigon, besu, nethermind, reth, anvil. Not
# "unknown transaction type", and not that another one with its nonce is already there.
_KNOWN = re.compile(
    r"already known|alreadyknown|\bknown transaction|already imported|already exists"
    r"|already in (the )?(mem|tx)?pool"
)
_TRIES = 3
_BREATH_S = 0.1
_USED = ("nonce too low", "nonce is too low", "noncetoolow", "old nonce")


@dataclass(slots=True)
class Broadcast:
    """What became of one transaction.

    Attributes:
        hash: its hash, worked out from the bytes.
        accepted: names of the providers that took it (or had it).
        refused: name of a provider to what it said instead.
        landed: it was found on chain or in a pool after "nonce too low".
    """

    hash: str
    accepted: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    landed: bool = False


def _has_it(error: RpcAnswerError) -> bool:
    low = error.message.lower()
    return _KNOWN.search(low) is not None and "nonce" not in low


def transaction_hash(raw: str) -> str:
    """The hash of a signed transaction in hex, as 0x and 64 digits.

    Raises:
        BarewireError: `raw` is not hex.
    """
    try:
        return "0x" + keccak256(bytes.fromhex(raw.removeprefix("0x"))).hex()
    except (ValueError, AttributeError):
        raise BarewireError(f"a raw transaction is 0x and hex digits, not {raw!r:.40}") from None


async def broadcast(
    client: RpcClient,
    raw: str,
    number: str,
    *,
    route: str = "",
    settle: bool = False,
    timeout_ms: int = 5_000,
) -> Broadcast:
    """Sends `raw` (0x-prefixed hex, its hash `number`) to every provider of `route`.

    Returns as soon as one took it; the others go on being sent to. With `settle` it waits for all,
    so that `accepted` and `refused` are complete.

    Raises:
        RpcAnswerError: all refused, and this is what the first said.
        AllProvidersFailed: nobody could be reached.
    """
    sent = Broadcast(number)
    targets = [p for p in client.pool.providers if p.terms.private == route and not p.refused]
    if not targets:
        raise AllProvidersFailed(
            "eth_sendRawTransaction", [], hint=f"no provider belongs to the route {route!r}"
        )
    errors: list[BarewireError] = []

    async def one(provider: Provider) -> bool:
        tries = 1
        while True:
            failed: BarewireError | None = None
            try:
                await client.ask(provider, "eth_sendRawTransaction", [raw], timeout_ms=timeout_ms)
            except RpcAnswerError as error:
                failed = None if _has_it(error) else error
            except AllProvidersFailed as error:
                lost = bool(error.causes) and error.causes[-1][1].fault is Fault.TRANSPORT
                if lost and tries < _TRIES:  # the same bytes again do no harm
                    tries += 1
                    await asyncio.sleep(_BREATH_S)
                    continue
                failed = error
            if failed is None:
                sent.accepted.append(provider.name)
                return True
            sent.refused[provider.name] = failed.message
            errors.append(failed)
            return False

    tasks = [asyncio.create_task(one(p)) for p in targets]
    _background.update(tasks)
    for task in tasks:
        task.add_done_callback(_background.discard)
    for done in asyncio.as_completed(tasks):
        if await done and not settle:
            return sent
    if sent.accepted:
        return sent
    answers = [e for e in errors if isinstance(e, RpcAnswerError)]
    if any(word in e.message.lower() for e in answers for word in _USED):
        with contextlib.suppress(AllProvidersFailed, RpcAnswerError):  # then it stays refused
            found = await client.request(
                "eth_getTransactionByHash", [sent.hash], route=route, fresh=True
            )
            if isinstance(found, dict):
                sent.landed = True
                return sent
    raise answers[0] if answers else errors[0]


_background: set[asyncio.Task[bool]] = set()
"""Sends that go on after the first success; asyncio itself holds tasks only weakly."""
