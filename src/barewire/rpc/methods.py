"""What is known about JSON-RPC methods before one is sent.

Four questions are answered here and nowhere else: how expensive a method is (its kind, by which
latencies are kept apart), whether asking twice is harmless, where its block parameter stands, and
how long its result stays true. A method that is not in the table is never asked twice and never
cached: the table is an allow-list.

Source of names and parameters: ethereum/execution-apis, ERC-7677, ERC-7769 (bundlers), and the
``debug_``, ``trace_`` and ``net_`` namespaces as geth and Erigon serve them.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from barewire.errors import BarewireError

__all__ = ["KINDS", "Kind", "Life", "Method", "lookup"]


class Kind(enum.IntEnum):
    """Methods of one kind cost about the same, so their latencies may be compared."""

    LIGHT = 0
    STATE = 1
    LOGS = 2
    TRACE = 3
    SEND = 4
    OTHER = 5


KINDS = len(Kind)


class Life(enum.Enum):
    """How long a result may be reused."""

    NEVER = enum.auto()
    FOREVER = enum.auto()
    HEAD = enum.auto()
    """Until the next head is known."""
    BLOCK = enum.auto()
    """By the block parameter: for ever at a final block, until the next head at a moving tag."""
    RESULT = enum.auto()
    """By the block number in the result: for ever once that block is final."""


class Method(NamedTuple):
    """One method.

    Attributes:
        name: as on the wire.
        kind: which latencies it belongs to.
        repeat: asking twice does no harm, so hedging, fail-over and mirroring are allowed.
        block: the index of the block parameter, or -1.
        life: how long its result stays true.
        units: compute units it costs where a provider counts them (rough, after the public price
            lists: a light read 10, a call 26, logs 75, a trace 300).
        private: it carries what must not become public, so it is never sent without a route.
    """

    name: str
    kind: Kind
    repeat: bool = False
    block: int = -1
    life: Life = Life.NEVER
    units: int = 20
    private: bool = False


def _table() -> dict[str, Method]:
    light = {
        "web3_clientVersion": Life.NEVER,
        "net_version": Life.FOREVER,
        "net_listening": Life.NEVER,
        "net_peerCount": Life.NEVER,
        "eth_chainId": Life.FOREVER,
        "eth_protocolVersion": Life.NEVER,
        "eth_syncing": Life.NEVER,
        "eth_blockNumber": Life.HEAD,
        "eth_gasPrice": Life.HEAD,
        "eth_maxPriorityFeePerGas": Life.HEAD,
        "eth_blobBaseFee": Life.HEAD,
        "eth_accounts": Life.NEVER,
        "eth_coinbase": Life.NEVER,
        "web3_sha3": Life.FOREVER,
        "eth_supportedEntryPoints": Life.FOREVER,
        "eth_getUserOperationReceipt": Life.NEVER,
        "eth_getUserOperationByHash": Life.NEVER,
        "eth_getTransactionByHash": Life.RESULT,
        "eth_getTransactionReceipt": Life.RESULT,
        "eth_getBlockByHash": Life.RESULT,
        "eth_getBlockTransactionCountByHash": Life.NEVER,
        "eth_getTransactionByBlockHashAndIndex": Life.RESULT,
        "eth_getUncleCountByBlockHash": Life.NEVER,
        "eth_getUncleByBlockHashAndIndex": Life.NEVER,
    }
    at_block = {  # name: (kind, index of the block parameter)
        "eth_getBalance": (Kind.STATE, 1),
        "eth_getCode": (Kind.STATE, 1),
        "eth_getTransactionCount": (Kind.STATE, 1),
        "eth_getStorageAt": (Kind.STATE, 2),
        "eth_getProof": (Kind.STATE, 2),
        "eth_call": (Kind.STATE, 1),
        "eth_estimateGas": (Kind.STATE, 1),
        "eth_createAccessList": (Kind.STATE, 1),
        "eth_simulateV1": (Kind.TRACE, 1),
        "eth_feeHistory": (Kind.STATE, 1),
        "eth_getBlockByNumber": (Kind.LIGHT, 0),
        "eth_getHeaderByNumber": (Kind.LIGHT, 0),
        "eth_getBlockReceipts": (Kind.LOGS, 0),
        "eth_getBlockTransactionCountByNumber": (Kind.LIGHT, 0),
        "eth_getTransactionByBlockNumberAndIndex": (Kind.LIGHT, 0),
        "eth_getUncleCountByBlockNumber": (Kind.LIGHT, 0),
        "eth_getUncleByBlockNumberAndIndex": (Kind.LIGHT, 0),
        "debug_traceBlockByNumber": (Kind.TRACE, 0),
        "debug_traceCall": (Kind.TRACE, 1),
        "trace_block": (Kind.TRACE, 0),
        "trace_call": (Kind.TRACE, 2),
        "trace_replayBlockTransactions": (Kind.TRACE, 0),
    }
    units = {
        Kind.LIGHT: 10,
        Kind.STATE: 26,
        Kind.LOGS: 75,
        Kind.TRACE: 300,
        Kind.SEND: 40,
        Kind.OTHER: 20,
    }
    rows = [Method(name, Kind.LIGHT, True, -1, life) for name, life in light.items()]
    rows += [Method(name, kind, True, at, Life.BLOCK) for name, (kind, at) in at_block.items()]
    rows += [
        Method("eth_getLogs", Kind.LOGS, True),
        Method("txpool_status", Kind.LIGHT, True),
        Method("txpool_inspect", Kind.LOGS, True),
        Method("txpool_content", Kind.LOGS, True),
        Method("debug_traceTransaction", Kind.TRACE, True),
        Method("debug_traceBlockByHash", Kind.TRACE, True),
        Method("trace_transaction", Kind.TRACE, True),
        Method("trace_filter", Kind.TRACE, True),
        Method("eth_estimateUserOperationGas", Kind.STATE, True),
        # A stub is a quotation: nothing is promised or spent until pm_getPaymasterData (ERC-7677).
        Method("pm_getPaymasterStubData", Kind.STATE, True),
        Method("pm_getPaymasterData", Kind.SEND),
        Method("eth_sendUserOperation", Kind.SEND),
        Method("eth_sendRawTransaction", Kind.SEND),
        Method("eth_sendTransaction", Kind.SEND),
        # Builders and relays (Flashbots' names); repeatable where only a question is asked.
        Method("eth_callBundle", Kind.TRACE, True, private=True),
        Method("mev_simBundle", Kind.TRACE, True, private=True),
        Method("flashbots_getBundleStatsV2", Kind.LIGHT, True, private=True),
        Method("eth_sendBundle", Kind.SEND, private=True),
        Method("mev_sendBundle", Kind.SEND, private=True),
        Method("eth_cancelBundle", Kind.SEND, private=True),
        Method("eth_sendPrivateTransaction", Kind.SEND, private=True),
        Method("eth_sendPrivateRawTransaction", Kind.SEND, private=True),
        Method("eth_cancelPrivateTransaction", Kind.SEND, private=True),
    ]
    return {row.name: row._replace(units=units[row.kind]) for row in rows}


_TABLE = _table()


def lookup(name: str) -> Method:
    """The table's row for `name`; for a method that is not in it, one that promises nothing.

    Raises:
        BarewireError: it is no name that could stand in a request.
    """
    known = _TABLE.get(name)
    if known is None:
        if not name.isascii() or not name.isprintable() or '"' in name or "\\" in name:
            raise BarewireError(f"{name!r} is no method name", hint="one such as eth_blockNumber")
        known = Method(name, Kind.OTHER)
    return known
