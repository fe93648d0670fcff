"""What nodes, gateways and vendors say, and what each saying means.

Codes tell little: -32000 is a revert, a timeout and a range limit. So the words decide, by the
first row that fits; codes come last, where no words are known. Rows name where the words come from.
What no row knows is `Fault.UNSURE`: it is believed once a second provider has said the like.
"""

from __future__ import annotations

import enum
import re
from typing import NamedTuple

__all__ = ["CODES", "ROWS", "Fault", "Row", "meaning"]


class Fault(enum.Enum):
    """Causes of failure, by what to do about them."""

    ANSWER = "answer"
    """The node answered, honestly, with an error; asking elsewhere changes nothing."""
    TRANSPORT = "transport"
    TIMEOUT = "timeout"
    RATE_LIMIT = "rate-limit"
    PROVIDER = "provider"
    """Internal errors, nonsense, refused credentials."""
    STALE = "stale"
    """The provider has not seen the block that was asked for."""
    PRUNED = "pruned"
    """The provider no longer has the state that was asked for; an archive may."""
    UNSUPPORTED = "unsupported"
    """The provider does not serve this method."""
    TOO_MUCH = "too-much"
    """The answer would be longer than the provider gives; another may give more."""
    UNSURE = "unsure"
    """An error that nobody knows; the node's answer, once another says the like."""
    BATCH = "batch"
    """The provider refuses the batch, not its items."""


class Row(NamedTuple):
    """One kind of saying.

    Attributes:
        fault: what it means.
        words: a pattern of the message and the data, in lower case.
        source: whose words these are.
    """

    fault: Fault
    words: re.Pattern[str]
    source: str


def _row(fault: Fault, words: str, source: str) -> Row:
    return Row(fault, re.compile(words), source)


_SPAN = r"(?:blocks?|ranges?|logs?|results?|query|response|getlogs|eth_getlogs)"
_OVER = (
    r"(?:exceed\w*|too (?:many(?! requests)|wide|large|big|long)|greater than|larger than|"
    r"smaller than|more than|limit(?:ed)? (?:to|is|of)|max(?:imum)?\b|up to|over \d+|"
    r"not supported on)"
)

ROWS = (
    # A contract's own words come behind the node's "execution reverted", whatever they say.
    _row(
        Fault.ANSWER,
        r"execution reverted|\breverted\b|\brevert\b|vm exception|vm execution error",
        "geth internal/ethapi/errors.go, Nethermind, Besu, Hardhat; eRPC error_normalizer.go",
    ),
    _row(
        Fault.ANSWER,
        r"invalid (?:opcode|jump)|invalidjump|stack (?:under|over)flow|stack limit|out of gas|"
        r"outofgas|evm error|write protection|max(?:imum)? (?:code|initcode) size|"
        r"return data out of bounds|gas uint64 overflow|contract creation code|nonrevert|"
        r"always failing transaction|gas required exceeds",
        "geth core/vm/errors.go, reth rpc-eth-types, anvil; eRPC error_normalizer.go",
    ),
    _row(
        Fault.PROVIDER,
        r"txpool is full|transaction pool (?:is )?full|pool is full",
        "geth core/txpool/errors.go: another node has another pool",
    ),
    _row(
        Fault.ANSWER,
        r"nonce (?:is )?too (?:low|high)|noncetoo|nonce has already|old nonce|invalid nonce|"
        r"already known|alreadyknown|known transaction|already imported|already exists|"
        r"already in (?:the )?(?:mem|tx)?pool|underpriced|insufficient (?:funds|balance)|"
        r"intrinsic ?gas|gas limit|gas too (?:low|high)|max fee per|fee cap|feecap|"
        r"priority fee|gas price (?:too|below|less)|account limit|oversized data|"
        r"transaction type not supported|tx type|invalid sender|invalid signature|"
        r"invalid transaction|only replay-protected|sender not an eoa|exceeds the configured cap|"
        r"inflight transaction limit|future transaction tries|address already reserved|"
        r"negative value|transaction would|invalid chain ?id|wrong chain ?id|"
        r"oldnonce|nonce ?gap|insufficientfunds|feetoolow|gaslimitexceeded|senderiscontract|"
        r"failedtoresolvesender|int256overflow|could not replace existing|"
        r"existing tx with same hash",
        "geth core/txpool/errors.go and core/error.go, reth, Erigon txpoolcfg, Nethermind "
        "AcceptTxResult (whose code, -32010, is also proxyd's)",
    ),
    _row(
        Fault.ANSWER,
        r"typed transaction too short|transaction too short|rlp: |failed to decode signed|"
        r"invalid argument|missing value for required argument|missing required (?:field|param)|"
        r"param is required|too many arguments|hex string|cannot unmarshal|invalid hex|"
        r"unknown account|bad address checksum|both gasprice and|filter not found|"
        r"invalid block range params|invalid from and to block combination|exceed max topics|"
        r"both \"data\" and \"input\"|data did not match|"
        r"authentication needed: password",
        "geth rpc/json.go, internal/ethapi, eth/filters/api.go; serde's words in reth and anvil",
    ),
    # Vendors' plans and limits on logs: the next provider may have wider ones.
    _row(
        Fault.UNSUPPORTED,
        r"not included in your (?:current )?plan|not available (?:on|in|for) (?:your|the|this)"
        r"[^.]{0,30}(?:plan|tier)|method[^.]{0,60}(?:plan|tier|paid)|not whitelisted|"
        r"upgrade[^.]{0,40}to (?:access|use) (?:this|the) (?:method|api|namespace)|"
        r"no longer supported|rpc method is not",
        "Infura, QuickNode, Chainstack, dRPC, proxyd rpc.go; eRPC thirdparty/",
    ),
    _row(
        Fault.STALE,
        r"range extends beyond|out ?of ?range|after last accepted|beyond (?:the )?head|"
        r"height must be less|block height passed is invalid|greater than (?:the )?latest|"
        r"cannot query unfinalized|not yet (?:available|accepted|processed)|in the future|"
        r"could not find finalizeblock",
        "reth rpc-eth-types logs, Avalanche coreth, Cosmos EVM chains, proxyd; eRPC common.go",
    ),
    _row(
        Fault.RATE_LIMIT,
        r"too many requests|rate ?-?limit|compute units|per second|requests per|request count|"
        r"over rate|request rate",
        "Alchemy, Infura, QuickNode, proxyd: also where the words name logs or ranges",
    ),
    _row(
        Fault.TOO_MUCH,
        rf"{_SPAN}[^.]{{0,60}}{_OVER}|{_OVER}[^.]{{0,60}}\b{_SPAN}\b|blocks distance|"
        r"(?:with|try) (?:this|the|a smaller) (?:block )?range|block range should work|"
        r"reduc\w+[^.]{0,20}range|narrow[^.]{0,30}(?:range|fromblock)|range limit|max range|"
        r"limit the query to|less number of address|too many addresses|response size|too big|"
        r"batch response too large|content too large|payload too large",
        "Alchemy, Infura, QuickNode, dRPC, Ankr, publicnode, 1rpc, Cloudflare, Avalanche, Cronos, "
        "Sonic, Arbitrum, zkSync, Erigon, Nethermind; eRPC error_normalizer.go",
    ),
    _row(Fault.BATCH, r"batch", "geth rpc/errors.go, proxyd rpc.go (-32014), Alchemy, Ankr"),
    _row(
        Fault.PRUNED,
        r"missing trie node|trie does not|historical state|no state available|no historical rpc|"
        r"state (?:is |histories |at block [^ ]* is )?(?:not available|unavailable|not found)|"
        r"state already pruned|prun(?:ed|ing)|archive|state histor|proof window|"
        r"history (?:is )?(?:expired|unavailable)|world state unavailable",
        "geth trie and eth/state_accessor.go, Erigon, Nethermind, Besu, reth, publicnode, Ankr",
    ),
    _row(
        Fault.STALE,
        r"header not found|block(?: \S+)? (?:was )?not found|header for hash not found|"
        r"unknown block|unknown header|(?:could not|cannot|can't) find (?:the )?block|"
        r"blocks specified[^.]*cannot be found|invalid blockhash finalized|"
        r"expect block number from id|genesis is not traceable|not currently canonical|"
        r"requested data is not available|height is not available|block is not available|"
        r"indexing is in progress|block (?:number )?not (?:available|known)|block does not exist",
        "geth eth/api_backend.go and rpc, Erigon, Nethermind, Besu, reth; eRPC common.go",
    ),
    _row(
        Fault.RATE_LIMIT,
        r"request limit|limit exceeded|limited to \d+|capacity|credits|throttl|quota|"
        r"has exceeded|free tier|free plan|monthly|daily|billing|upgrade your|exceeded your|"
        r"slow down|reached the|usage limit|limit reached",
        "Alchemy, Infura, QuickNode, Ankr, Chainstack, BlockPI, dRPC; eRPC error_normalizer.go",
    ),
    _row(
        Fault.PROVIDER,
        r"time[ds]? ?-?out|timeout|deadline exceeded|execution aborted|context cancell?ed|"
        r"took too long|request aborted",
        "geth eth/tracers and internal/ethapi, Go's context, Erigon, nginx, vendors",
    ),
    _row(
        Fault.PROVIDER,
        r"internal (?:server |json-?rpc |node )?error|server error|temporar|retry|try again|"
        r"unavailable|no (?:available )?(?:backends?|servers?|nodes?|upstreams?|providers?)\b|"
        r"backends?\b|upstream|gateway|overload|too much load|server (?:is )?busy|\bbusy\b|"
        r"not healthy|unhealthy|syncing|not (?:fully )?synced|still sync|shutting down|"
        r"connection (?:refused|reset|closed|error|lost)|no connection|broken pipe|unexpected eof|"
        r"\beof\b|econn|socket|panic|crashed|database|leveldb|pebble|mdbx|something went wrong|"
        r"unknown error|unexpected error|failed to (?:fetch|forward|proxy|connect|call|send|get|"
        r"read|load|process|retrieve|resolve)|(?:could|can) ?not (?:connect|fetch|reach|process)|"
        r"bad response|invalid response|network error|disk|maintenance|"
        r"node is (?:not|still|behind|down|off)|not ready|no response|too many open|"
        r"cannot allocate",
        "geth rpc/handler.go, Erigon, proxyd rpc.go, dRPC (code 19), Ankr, llamarpc, BlockPI",
    ),
    _row(
        Fault.PROVIDER,
        r"authenticat|(?:un|not )authori[sz]ed|api[ -]?key|apikey|project id|forbidden|"
        r"access denied|invalid token|token is invalid|personal token|not allowed to access|"
        r"key is inactive|tenant|permission|not permitted|whitelist",
        "Alchemy, Infura, Ankr, polygon-rpc.com, Tenderly; eRPC thirdparty/",
    ),
    _row(
        Fault.UNSUPPORTED,
        r"(?:method|module|namespace|api|rpc)\b.*(?:not found|not supported|unsupported|"
        r"does ?n[o']t exist|does not exist|not available|not allowed|disabled|not enabled|"
        r"not implemented|unknown)|unsupported (?:method|rpc)|unknown method|not implemented|"
        r"unsupported operation|notifications not supported|subscriptions? (?:are |is )?not",
        "JSON-RPC 2.0, geth rpc/errors.go, Erigon, Nethermind, Besu, Tenderly",
    ),
)

CODES = {
    3: Fault.ANSWER,  # geth's revert, with data
    429: Fault.RATE_LIMIT,  # vendors put HTTP statuses here
    -32005: Fault.RATE_LIMIT,  # EIP-1474: limit exceeded; but see `_BARE_LIMIT`
    -32029: Fault.RATE_LIMIT,  # OnFinality
    -32097: Fault.RATE_LIMIT,  # Alchemy's old one
    -32012: Fault.RATE_LIMIT,  # proxyd: a backend is over capacity
    -32016: Fault.RATE_LIMIT,  # proxyd: over rate limit
    -32017: Fault.RATE_LIMIT,  # proxyd: the sender is
    -32014: Fault.BATCH,  # proxyd: too many calls in a batch
    -32001: Fault.STALE,  # EIP-1474: resource not found
    -39001: Fault.STALE,  # execution-apis: unknown block
    4444: Fault.PRUNED,  # execution-apis: pruned history unavailable
    -32601: Fault.UNSUPPORTED,  # JSON-RPC 2.0: method not found
    -32004: Fault.UNSUPPORTED,  # EIP-1474: method not supported
    -32614: Fault.TOO_MUCH,  # Base, Optimism, Blast: eth_getLogs is limited to a range
    -32701: Fault.TOO_MUCH,  # publicnode: exceeds maximum block range
    -32062: Fault.TOO_MUCH,  # Scroll, Etherlink
    -32047: Fault.TOO_MUCH,  # Cloudflare
    -32008: Fault.TOO_MUCH,  # jsonrpsee: the response is too big
    -32603: Fault.PROVIDER,  # JSON-RPC 2.0: internal error
    -32700: Fault.PROVIDER,  # JSON-RPC 2.0: parse error, of what we know to be JSON
    -32002: Fault.PROVIDER,  # EIP-1474: resource unavailable
    -32010: Fault.PROVIDER,  # proxyd: backend offline
    -32011: Fault.PROVIDER,  # proxyd: no backends
    -32013: Fault.PROVIDER,  # proxyd: bad response of a backend
    -32018: Fault.PROVIDER,  # proxyd: not healthy
    19: Fault.PROVIDER,  # dRPC: temporary internal error
}


_OF_LOGS = frozenset({"eth_getLogs", "eth_getFilterLogs", "eth_newFilter", "trace_filter"})
_BARE_LIMIT = re.compile(r"\W*(?:limit exceeded)?\W*")
"""Asked for logs, BNB chain's public nodes say nothing but this, and go on answering all else
(bnb-chain/bsc issue 1215); Infura has the code for too many results and for ten seconds over a
query ("eth_getLogs", constraints). Where it is the rate, words about rates stand beside it."""


def meaning(code: object, words: str, method: str = "") -> Fault:
    """What `words`, in lower case, under `code` mean; `Fault.UNSURE` where nobody knows them.

    Args:
        code: of the error.
        words: its message and what its data adds.
        method: what was asked: of logs there are limits that have the code of a rate limit.
    """
    if code == 3:
        return Fault.ANSWER
    if code == -32005 and method in _OF_LOGS and _BARE_LIMIT.fullmatch(words):
        return Fault.TOO_MUCH
    for fault, pattern, _ in ROWS:
        if pattern.search(words):
            return fault
    if isinstance(code, int):
        return CODES.get(code, Fault.PROVIDER if 500 <= code < 600 else Fault.UNSURE)
    return Fault.UNSURE
