"""An eth_getLogs that providers refuse as too wide, asked in parts that one of them gives.

The parts are what one call would have brought: of one provider, in order, and of one chain, for the
hash of the last block is the same before and after them, and with it that of every block before.
Where that cannot be had, the refusal stands. So it does where the range is not given by numbers, or
would take more than a hundred parts: who asks for a chain's whole history is told so at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from barewire.errors import BarewireError
from barewire.rpc.faults import AllProvidersFailed, Fault, RpcAnswerError
from barewire.rpc.followers import WIDE, is_header, logs_between
from barewire.rpc.heads import quantity
from barewire.rpc.log_range import narrower
from barewire.rpc.pool import Call
from barewire.rpc.provider import Provider

if TYPE_CHECKING:
    from barewire.rpc.client import RpcClient

__all__ = ["in_parts"]

_PARTS = 100
_TRIES = 2
"""A chain that is reorganised between the parts is asked again."""


async def in_parts(client: RpcClient, call: Call, refused: BarewireError) -> list[dict[str, Any]]:
    """What `call`, which was `refused`, asked for.

    Raises:
        BarewireError: `refused`, where parts would not do or cannot be had.
    """
    where = call.params[0] if call.params else None
    if not isinstance(where, dict):
        raise refused
    first, last = quantity(where.get("fromBlock")), quantity(where.get("toBlock"))
    source = _most_generous(client, call, last - first + 1) if 0 <= first < last else None
    if source is None:
        raise refused
    try:
        for _ in range(_TRIES):
            before = await _hash(client, source, last)
            if not before:
                break
            logs = await logs_between(client, source, where, first, last)
            if before == await _hash(client, source, last):
                return logs
    except (RpcAnswerError, AllProvidersFailed) as error:
        raise refused from error
    raise refused


def _most_generous(client: RpcClient, call: Call, asked: int) -> Provider | None:
    """Who gives `asked` blocks in the fewest parts, of those that refused; None for too many."""
    named = {provider.name: provider for provider in client.pool.providers}
    found, widest = None, (asked - 1) // _PARTS
    for name, trouble in call.causes:
        if trouble.fault is not Fault.TOO_MUCH:
            continue
        provider, limit = named[name], narrower(trouble.message, asked)
        if limit.lasting:
            provider.log_blocks = limit.blocks
        wide = provider.log_blocks or min(limit.blocks, WIDE)
        if wide > widest:
            found, widest = provider, wide
    return found


async def _hash(client: RpcClient, source: Provider, number: int) -> str:
    block = await client.ask(source, "eth_getBlockByNumber", [hex(number), False])
    return block["hash"] if is_header(block) else ""
