"""A strategy: answers large swaps on Uniswap's V2 router. docs/strategies.md explains each part.

barewire run --config examples/strategy.toml
"""

from __future__ import annotations

from typing import Any

from appliance.strategy import Actions
from barewire.feeds.blocks import Block
from barewire.pump import Match

_KEEP_MS = 12_000  # a slot: what was signed for one block is not for the next
_RENEW_MS = 6_000  # before that, where no source tells of blocks


class Answer:
    """Keeps a prepared answer armed, and tells a monitor about what was too large for it.

    Options: ``answer``, the bytes to send, in hexadecimal; ``limit_wei``, above which it only
    tells.
    """

    def __init__(self, actions: Actions, options: dict[str, Any]) -> None:
        self._actions = actions
        self._answer = bytes.fromhex(options["answer"])
        self._limit_wei = int(options["limit_wei"])
        self._arm()

    def on_match(self, match: Match) -> None:
        """Called in the hot thread, after whatever was armed has fired."""
        if match.outcome in ("fired", "expired"):
            self._arm()
        if match.tx.value_wei > self._limit_wei:
            assert match.tx.hash is not None
            self._actions.send("monitor", match.tx.hash)

    def on_block(self, block: Block) -> None:
        """Called for each new block, where a source is a node: to sign anew for the next."""
        self._arm()

    def on_timer(self) -> None:
        """Called once a second: nothing may expire only because nothing happens."""
        if self._actions.now_mono_ns() - self._armed_ns > _RENEW_MS * 1_000_000:
            self._arm()

    def _arm(self) -> None:
        self._actions.disarm("answer")
        self._actions.arm("answer", "gateway", self._answer, expires_after_ms=_KEEP_MS)
        self._armed_ns = self._actions.now_mono_ns()
