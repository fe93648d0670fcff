"""Signed transactions from bytes, as strict as geth (docs/transaction-validity.md).

One native call decodes a burst; refusals are counted by cause and the last bad bytes of each cause
are kept. Nothing that the bytes hold raises.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from barewire._native import ffi, lib
from barewire.errors import BarewireError, shown
from barewire.mempool.record import ORIGINS, Origin, Transaction

__all__ = ["FORKS", "VERDICTS", "DecodedBurst", "Decoder", "Refusal", "RefusalCount", "Rules"]

FORKS: tuple[str, ...] = ("london", "shanghai", "cancun", "prague", "osaka")
"""Forks that `Rules.preset` knows, oldest first."""

VERDICTS: tuple[str, ...] = tuple(
    ffi.string(lib.bw_verdict_name(number)).decode()  # type: ignore[union-attr]
    for number in range(lib.BW_VERDICTS)
)
"""Names of the verdicts, by number; 0 is "ok"."""

_LIMITS = {  # of `Rules`, and how many bits each has
    "chain_id": 64,
    "max_gas": 64,
    "max_size": 32,
    "max_blob_size": 32,
    "max_blobs": 32,
    "max_initcode": 32,
}


@dataclass(frozen=True, slots=True)
class Rules:
    """What depends on the chain and its fork.

    Attributes:
        fork: one of `FORKS`.
        chain_id: the only chain accepted, or 0 for any. Unprotected legacy transactions name no
            chain and are accepted with either.
        max_gas: the highest gas limit of one transaction (EIP-7825 from Osaka on).
        max_size: bytes of an envelope without blobs.
        max_blob_size: bytes of an EIP-4844 envelope, its wrapper included.
        max_blobs: blobs of one transaction.
        max_initcode: bytes of init code, from Shanghai on (EIP-3860).
        pool: refuse what geth's pool refuses; False for blocks and history, where only the shape
            of the bytes counts.
    """

    fork: str
    chain_id: int
    max_gas: int
    max_size: int
    max_blob_size: int
    max_blobs: int
    max_initcode: int
    pool: bool = True

    def __post_init__(self) -> None:
        if self.fork not in FORKS:
            raise BarewireError(
                f"fork = {shown(self.fork)} is not a fork that the decoder knows",
                hint=f"one of {', '.join(FORKS)}",
            )
        for name, bits in _LIMITS.items():
            value = getattr(self, name)
            if not isinstance(value, int) or not 0 <= value < 1 << bits:
                raise BarewireError(
                    f"{name} = {shown(value)}: not allowed",
                    hint=f"allowed: a whole number from 0 to 2^{bits} - 1",
                )

    @classmethod
    def preset(
        cls, fork: str = "osaka", chain_id: int = 0, *, pool: bool = True, **limits: int
    ) -> Rules:
        """Mainnet's limits at `fork`; `limits` replaces some of them by name.

        Raises:
            BarewireError: no such fork or limit, or a limit that is out of range.
        """
        native = ffi.new("struct bw_rules *")
        lib.bw_rules_preset(FORKS.index(fork) if fork in FORKS else 0, 0, native)
        names = [name for name in _LIMITS if name != "chain_id"]
        for name in limits:
            if name not in names:
                raise BarewireError(
                    f"{name} = {shown(limits[name])}: no such limit",
                    hint=f"one of {', '.join(names)}",
                )
        values = {name: int(getattr(native, name)) for name in names} | limits
        return cls(fork, chain_id, pool=pool, **values)

    def native(self) -> Any:
        """A new ``struct bw_rules *`` with these values."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return ffi.new("struct bw_rules *", fields | {"fork": FORKS.index(self.fork)})


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a message is that was not accepted; `verdict` names the rule that it broke."""

    verdict: str


@dataclass(frozen=True, slots=True)
class RefusalCount:
    """How often a rule was broken, and the last message that did.

    Attributes:
        count: messages refused for this cause.
        sample_bytes: length of the last of them.
        sample: its bytes, cut to what is kept.
    """

    count: int
    sample_bytes: int
    sample: bytes


class DecodedBurst:
    """What one burst decoded to: item i is the `Transaction` or the `Refusal` of message i.

    Attributes:
        records: ``struct bw_tx[]`` (cffi); all zero where refused.
        verdicts: one number a message; 0 is accepted.
        accepted: how many were.
        native_messages: ``struct bw_message[]``, what native code takes beside the records.
    """

    def __init__(
        self,
        messages: Sequence[bytes],
        native_messages: Any,
        records: Any,
        verdicts: Any,
        accepted: int,
    ) -> None:
        self._messages = messages  # what native_messages points into
        self.native_messages = native_messages
        self.records = records
        self.verdicts = verdicts
        self.accepted = accepted

    def __len__(self) -> int:
        return len(self._messages)

    def __getitem__(self, index: int) -> Transaction | Refusal:
        if not 0 <= index < len(self):
            raise IndexError(index)
        if verdict := self.verdicts[index]:
            return Refusal(VERDICTS[verdict])
        return Transaction(self.records + index, self._messages[index], self.records)

    def __iter__(self) -> Iterator[Transaction | Refusal]:
        return (self[index] for index in range(len(self)))


class Decoder:
    """Decodes transactions under one set of rules and counts what it refuses.

    Attributes:
        rules: the rules it was made with.
        native_rules: the same as ``struct bw_rules *``, for native code.
        native_refusals: its counters as ``struct bw_refusals *``.
    """

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.native_rules: Any = rules.native()
        self.native_refusals: Any = ffi.new("struct bw_refusals *")

    def decode(self, raw: bytes, *, hashed: bool = True) -> Transaction | Refusal:
        """Decodes one message; computes its hash unless told not to."""
        return self.decode_burst([raw], hashed=hashed)[0]

    def decode_burst(
        self,
        messages: Sequence[bytes],
        *,
        hashed: bool = True,
        source: int = 0,
        arrival_ns: int = 0,
        arrival_clock: int = 0,
        trusted: bool = False,
        origin: Origin = "announced",
    ) -> DecodedBurst:
        """Decodes `messages` in one native call.

        Args:
            messages: one whole envelope each; what is not `bytes` is copied, so that the burst
                stays what it is when the caller uses a list or a buffer again.
            hashed: compute the hashes too.
            source: number of the source that delivered them.
            arrival_ns: when they arrived, by the clock `arrival_clock` (``enum dpb_clock``).
            arrival_clock: see above.
            trusted: the source is marked trusted.
            origin: how they came.
        """
        kept = [raw if type(raw) is bytes else bytes(memoryview(raw)) for raw in messages]
        count = len(kept)
        flags = ORIGINS.index(origin) << lib.BW_MESSAGE_ORIGIN
        flags |= lib.BW_MESSAGE_TRUSTED if trusted else 0
        native = ffi.new("struct bw_message[]", count)
        for message, raw in zip(native, kept, strict=True):
            message.data = ffi.from_buffer(raw)
            message.len = len(raw)
            message.arrival_ns = arrival_ns
            message.source = source
            message.clock = arrival_clock
            message.flags = flags
        records = ffi.new("struct bw_tx[]", count)
        verdicts = ffi.new("uint8_t[]", count)
        accepted = lib.bw_decode_burst(
            native, count, self.native_rules, records, verdicts, self.native_refusals
        )
        if hashed:
            lib.bw_hash_burst(native, records, count)
        return DecodedBurst(kept, native, records, verdicts, accepted)

    @property
    def accepted(self) -> int:
        """Messages accepted so far."""
        return int(self.native_refusals.of[lib.BW_OK].count)

    def refusals(self) -> dict[str, RefusalCount]:
        """What was refused so far, by verdict; causes that never occurred are left out."""
        counts = {}
        for number, name in enumerate(VERDICTS[1:], start=1):
            cause = self.native_refusals.of[number]
            if cause.count:
                sample = bytes(ffi.buffer(cause.sample, cause.sample_kept))
                counts[name] = RefusalCount(cause.count, cause.sample_len, sample)
        return counts
