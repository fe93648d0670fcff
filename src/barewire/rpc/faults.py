"""What went wrong, told apart by whether another provider could do better.

A revert is an honest answer: every provider would give it. A rate limit, a dead connection, a
missing block or nonsense is the provider's own trouble. The difference decides everything that
the pool does next, so it is made in one place, from the HTTP status or the JSON-RPC error object.
"""

from __future__ import annotations

import datetime
import math
import re
from email.utils import parsedate_to_datetime
from typing import Any

from barewire.errors import BarewireError, OutageError
from barewire.rpc.error_table import Fault, meaning
from barewire.untrusted import printable

__all__ = [
    "AllProvidersFailed",
    "Fault",
    "RpcAnswerError",
    "Trouble",
    "from_error",
    "from_status",
    "is_honest",
    "rest_ms",
]


class Trouble(Exception):  # noqa: N818  (an attempt is in trouble; a call has errors)
    """One attempt's failure, as the transports and the classifier hand it to the pool.

    Attributes:
        fault: the cause.
        message: one line for people, without credentials, harmless whatever a server said.
        retry_after_ms: how long the provider asked to be left alone, or 0.
        error: the JSON-RPC error object, where there was one.
        untouched: for certain nothing was done with the request; without it, perhaps.
        counts: it counts against the provider.
    """

    def __init__(
        self,
        fault: Fault,
        message: str,
        *,
        retry_after_ms: int = 0,
        error: Any = None,
        untouched: bool = False,
        counts: bool = True,
    ) -> None:
        self.message = printable(message)
        super().__init__(self.message)
        self.fault = fault
        self.retry_after_ms = retry_after_ms
        self.error = error
        self.untouched = untouched
        self.counts = counts


class RpcAnswerError(BarewireError):
    """The node's honest error.

    Attributes:
        code: the JSON-RPC error code.
        data: the error's data (revert bytes as hex), or None.
        error: the whole error object.
        provider: the name of the provider that said it.
    """

    def __init__(self, error: dict[str, Any], provider: str) -> None:
        super().__init__(printable(error.get("message", "no message"), _LONGEST_MESSAGE))
        self.code = error.get("code", 0)
        self.data = error.get("data")
        self.error = error
        self.provider = provider


class AllProvidersFailed(OutageError):  # noqa: N818  (it reads as the sentence it is)
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


_LONGEST_MESSAGE = 1_000  # characters of an error's message: a revert's reason is in it
_SECONDS = re.compile(r"\s*([0-9]{1,300}(?:\.[0-9]{1,9})?)[0-9]*\s*")
_LONGEST_REST_MS = 3_600_000
"""A provider that asks to be left alone for a month is asked again after an hour."""


def is_honest(error: Any) -> bool:
    """Whether the error object can only come from a node that did as it was asked."""
    return from_error(error).fault is Fault.ANSWER


def from_error(error: Any, method: str = "") -> Trouble:
    """The trouble that a JSON-RPC error object means, as the answer to `method`: `error_table`."""
    if not isinstance(error, dict):
        return Trouble(Fault.PROVIDER, f"the error is no object: {printable(error, 80)}")
    code = error.get("code")
    text = printable(error.get("message", ""), _LONGEST_MESSAGE)
    words = f"{text} {_more(error.get('data'))}".lower()
    said = f"{text[:200]} ({printable(code, 40)})"
    asked_ms = _backoff_ms(error.get("data"))
    return Trouble(meaning(code, words, method), said, error=error, retry_after_ms=asked_ms)


def _backoff_ms(data: Any) -> int:
    """How long Infura asks to be left alone, in the data of the error."""
    rate = data.get("rate") if isinstance(data, dict) else None
    seconds = rate.get("backoff_seconds") if isinstance(rate, dict) else None
    if not isinstance(seconds, int | float) or not 0 < seconds < _LONGEST_REST_MS:
        return 0
    return min(int(seconds * 1000), _LONGEST_REST_MS)


def _more(data: Any) -> str:
    """What an error's data adds in words: Nethermind and others say there what is wrong."""
    if isinstance(data, dict):
        data = data.get("message") or data.get("details") or data.get("reason") or ""
    if not isinstance(data, str) or data.startswith("0x"):
        return ""
    return printable(data, _LONGEST_MESSAGE)


def from_status(status: int, retry_after: str = "") -> Trouble:
    """The trouble that an HTTP status other than 200 means."""
    asked_ms = rest_ms(retry_after)
    if status == 429 or (status == 503 and asked_ms):
        return Trouble(Fault.RATE_LIMIT, f"HTTP {status}", retry_after_ms=asked_ms)
    if status == 413:
        return Trouble(Fault.BATCH, "HTTP 413: the body is too large")
    if status in (401, 403):
        return Trouble(Fault.PROVIDER, f"HTTP {status}: the credentials were refused")
    if 300 <= status < 400:  # whoever is redirected to would get the keys as well
        return Trouble(Fault.PROVIDER, f"HTTP {status}: redirected, which is not followed")
    return Trouble(Fault.PROVIDER, f"HTTP {status}")


def rest_ms(retry_after: str) -> int:
    """What a Retry-After header asks for (RFC 9110 section 10.2.3), 0 where it says nothing.

    Some say fractions of a second, which the RFC does not know.
    """
    if seconds := _SECONDS.fullmatch(retry_after):
        return min(math.ceil(float(seconds[1]) * 1000), _LONGEST_REST_MS)
    try:
        until = parsedate_to_datetime(retry_after)
        if until.tzinfo is None:  # as asctime() writes it, which is GMT too (RFC 9110, 5.6.7)
            until = until.replace(tzinfo=datetime.UTC)
        rest = until - datetime.datetime.now(datetime.UTC)
    except (ValueError, TypeError, OverflowError):
        return 0
    return min(max(int(rest.total_seconds() * 1000), 0), _LONGEST_REST_MS)
