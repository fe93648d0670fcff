"""What went wrong, told apart by whether another provider could do better.

A revert is an honest answer: every provider would give it. A rate limit, a dead connection, a
missing block or nonsense is the provider's own trouble. The difference decides everything that
the pool does next, so it is made in one place, from the HTTP status or the JSON-RPC error object.
"""

from __future__ import annotations

import enum
from typing import Any

from barewire.errors import BarewireError

__all__ = [
    "AllProvidersFailed",
    "Fault",
    "RpcAnswerError",
    "Trouble",
    "from_error",
    "from_status",
]


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
    BATCH = "batch"
    """The provider refuses the batch, not its items."""


class Trouble(Exception):  # noqa: N818  (an attempt is in trouble; a call has errors)
    """One attempt's failure, as the transports and the classifier hand it to the pool.

    Attributes:
        fault: the cause.
        message: one line for people, without credentials.
        retry_after_ms: how long the provider asked to be left alone, or 0.
        error: the JSON-RPC error object, where there was one.
    """

    def __init__(
        self, fault: Fault, message: str, *, retry_after_ms: int = 0, error: Any = None
    ) -> None:
        super().__init__(message)
        self.fault = fault
        self.message = message
        self.retry_after_ms = retry_after_ms
        self.error = error


class RpcAnswerError(BarewireError):
    """The node's honest error.

    Attributes:
        code: the JSON-RPC error code.
        data: the error's data (revert bytes as hex), or None.
        error: the whole error object.
        provider: the name of the provider that said it.
    """

    def __init__(self, error: dict[str, Any], provider: str) -> None:
        super().__init__(str(error.get("message", "no message")))
        self.code = error.get("code", 0)
        self.data = error.get("data")
        self.error = error
        self.provider = provider


class AllProvidersFailed(BarewireError):  # noqa: N818  (it reads as the sentence it is)
    """No provider of the route could answer.

    Attributes:
        causes: (provider name, trouble) in the order they happened.
    """

    def __init__(self, method: str, causes: list[tuple[str, Trouble]], *, hint: str = "") -> None:
        said = "; ".join(f"{name}: {t.fault.value}: {t.message}" for name, t in causes)
        super().__init__(
            f"{method}: no provider could answer ({said or 'none was available'})",
            hint=hint or "see `barewire rpc status` for what each provider last said",
        )
        self.causes = causes


_RATE = (
    "rate limit",
    "ratelimit",
    "too many requests",
    "request limit",
    "limit exceeded",
    "compute units",
    "capacity exceeded",
    "credits",
    "throttl",
    "quota",
)
_STALE = (
    "header not found",
    "block not found",
    "unknown block",
    "could not find block",
    "blockoutofrange",
    "block is out of range",
    "block range extends beyond",
    "after last accepted block",
)
_PRUNED = (
    "missing trie node",
    "historical state",
    "state not available",
    "state is not available",
    "state unavailable",
    "pruned",
)
_HONEST = ("revert", "invalid opcode", "out of gas", "insufficient", "nonce too low")
_UNSUPPORTED = ("method not found", "not supported", "unsupported method", "is not available")
_BATCH = ("batch",)


def from_error(error: Any) -> Trouble:
    """The trouble that a JSON-RPC error object means (JSON-RPC 2.0 section 5.1, EIP-1474)."""
    if not isinstance(error, dict):
        return Trouble(Fault.PROVIDER, f"the error is no object: {error!r:.80}")
    code = error.get("code")
    text = str(error.get("message", ""))
    low = text.lower()
    said = f"{text[:200]} ({code})"
    if code == 3 or any(word in low for word in _HONEST):
        fault = Fault.ANSWER
    elif code in (-32005, 429, -32029, -32097) or any(word in low for word in _RATE):
        fault = Fault.RATE_LIMIT
    elif any(word in low for word in _BATCH):
        fault = Fault.BATCH
    elif any(word in low for word in _PRUNED):
        fault = Fault.PRUNED
    elif any(word in low for word in _STALE) or code == -32001:
        fault = Fault.STALE
    elif code in (-32601, -32004) or any(word in low for word in _UNSUPPORTED):
        fault = Fault.UNSUPPORTED
    elif code in (-32603, -32700, -32002) or (isinstance(code, int) and 500 <= code < 600):
        fault = Fault.PROVIDER
    else:
        fault = Fault.ANSWER
    return Trouble(fault, said, error=error)


def from_status(status: int, retry_after: str = "") -> Trouble:
    """The trouble that an HTTP status other than 200 means."""
    if status == 429:
        wait_ms = int(retry_after) * 1000 if retry_after.isdecimal() else 0
        return Trouble(Fault.RATE_LIMIT, "HTTP 429", retry_after_ms=wait_ms)
    if status == 413:
        return Trouble(Fault.BATCH, "HTTP 413: the body is too large")
    if status in (401, 403):
        return Trouble(Fault.PROVIDER, f"HTTP {status}: the credentials were refused")
    return Trouble(Fault.PROVIDER, f"HTTP {status}")
