"""Chains by name, and what a pool has to know of each.

Block times and how far a healthy provider may be behind, in blocks: about two block times on
Ethereum, about a second on the rollups, whose sequencers are seen by all within that.
"""

from __future__ import annotations

from typing import NamedTuple

from barewire.errors import ConfigError

__all__ = ["CHAINS", "Chain", "chain"]


class Chain(NamedTuple):
    """One chain.

    Attributes:
        name: as in a configuration.
        chain_id: EIP-155 chain id.
        block_time_ms: usual time between blocks.
        max_lag: blocks a provider may be behind the newest head.
    """

    name: str
    chain_id: int
    block_time_ms: int
    max_lag: int


CHAINS = {
    chain.name: chain
    for chain in (
        Chain("ethereum", 1, 12_000, 2),
        Chain("optimism", 10, 2_000, 3),
        Chain("polygon", 137, 2_000, 3),
        Chain("base", 8453, 2_000, 3),
        Chain("arbitrum", 42161, 250, 8),
    )
}


def chain(name: str, chain_id: int = 0) -> Chain:
    """The chain called `name`; for one that is not known here, `chain_id` has to be given.

    Raises:
        ConfigError: the name is unknown and there is no id, or the id is another chain's.
    """
    known = CHAINS.get(name)
    if known is None:
        if chain_id:
            return Chain(name, chain_id, 2_000, 3)
        raise ConfigError(
            f"chain {name!r} is not known and has no chain_id",
            hint=f"known are {', '.join(CHAINS)}; for another give chain_id = ...",
        )
    if chain_id and chain_id != known.chain_id:
        raise ConfigError(
            f"chain {name!r} has id {known.chain_id}, but chain_id = {chain_id} is configured",
            hint="give another name, or leave chain_id out",
        )
    return known
