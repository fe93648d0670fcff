"""A key that is in another process: what it is asked, and what its keeper refuses.

The keeper sees whole transactions, not hashes, and has a policy: chains, targets, value, fees. So
whoever takes over the process that parses the network gets signatures within the policy, and not
the key. Messages go over anything that keeps their boundaries (a Unix socket, two lossless rings:
appliance.signing):

    asks     'A'                     who are you?
             'T' unsigned bytes      sign this transaction (what EIP-2718 or EIP-155 signs)
             'H' 32 bytes            sign this hash (refused unless the policy allows it)
    answers  0x00 and 20 bytes, or r, s and the parity in 65
             0x01 and why not, in at most REFUSAL bytes of words
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from barewire._native import ffi
from barewire.errors import BarewireError, shown
from barewire.execution import rlp
from barewire.execution.signer import Signature, Signer
from barewire.keccak import keccak256
from barewire.mempool.decoder import Decoder, Refusal, Rules
from barewire.secp import recover

__all__ = ["LONGEST", "REFUSAL", "ExternalSigner", "Keeper", "Policy"]

LONGEST = 131072 + 1
"""Bytes of the longest message: an unsigned transaction as long as pools take, and a letter."""

REFUSAL = 200
"""Bytes of the longest refusal; what is longer is cut off."""

_ADDRESS, _TRANSACTION, _HASH = b"A", b"T", b"H"
_YES, _NO = b"\0", b"\1"

# Where an unsigned transaction of each type has its fields, and how many there are.
_LAYOUT: dict[int, dict[str, int]] = {
    0: {"price": 1, "gas": 2, "to": 3, "value": 4, "chain": 6, "count": 9},
    1: {"chain": 0, "price": 2, "gas": 3, "to": 4, "value": 5, "count": 8},
    2: {"chain": 0, "price": 3, "gas": 4, "to": 5, "value": 6, "count": 9},
    3: {"chain": 0, "price": 3, "gas": 4, "to": 5, "value": 6, "blob": 9, "blobs": 10, "count": 11},
    4: {"chain": 0, "price": 3, "gas": 4, "to": 5, "value": 6, "count": 10},
}
_GAS_PER_BLOB = 131072  # EIP-4844
_HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0  # EIP-2
# For the shape of a transaction, not for what one chain's pool thinks of its gas.
_DECODER = Decoder(Rules.preset(pool=False))


@dataclass(frozen=True)
class Policy:
    """What a keeper signs.

    Attributes:
        chain_ids: only for these chains; a transaction without one is always refused.
        targets: only to these 20-byte addresses; None: to any, and contracts may be created.
        value_wei: at most this much with one transaction.
        fee_wei: at most this much for one transaction's gas and blobs: limit times price.
        delegates: EIP-7702 authorizations only to code at these addresses.
        allow_hashes: sign bare hashes too, of which nobody can say what they are.
    """

    chain_ids: frozenset[int]
    targets: frozenset[bytes] | None
    value_wei: int
    fee_wei: int
    delegates: frozenset[bytes] = frozenset()
    allow_hashes: bool = False

    def check(self, payload: bytes) -> None:
        """Accepts an unsigned transaction or authorization.

        Raises:
            BarewireError: it is outside the policy, or is none.
        """
        try:
            kind, fields = _split(payload)
            if kind == 5:
                self._check_delegation(fields)
            else:
                self._check_transaction(kind, fields)
        except (ValueError, IndexError, KeyError) as error:
            raise BarewireError(f"not an unsigned transaction: {error}") from error

    def _check_chain(self, chain: int) -> None:
        if chain not in self.chain_ids:
            raise BarewireError(f"chain {chain} is not in the policy")

    def _check_transaction(self, kind: int, fields: list[Any]) -> None:
        at = _LAYOUT[kind]
        if kind == 0 and len(fields) == 6:
            raise BarewireError("a transaction for every chain (without EIP-155) is refused")
        if len(fields) != at["count"]:
            raise ValueError(f"{len(fields)} fields in type {kind}, not {at['count']}")
        if kind == 0 and fields[7:] != [b"", b""]:
            raise ValueError("a legacy transaction to be signed ends with two zeros (EIP-155)")
        self._check_chain(_number(fields[at["chain"]]))
        _check_form(kind, fields)
        target = fields[at["to"]]
        if self.targets is not None and target not in self.targets:
            raise BarewireError(f"target 0x{target.hex()} is not in the policy")
        value = _number(fields[at["value"]])
        if value > self.value_wei:
            raise BarewireError(f"value {value} wei: the policy allows {self.value_wei}")
        fee = _number(fields[at["gas"]]) * _number(fields[at["price"]])
        if "blob" in at:
            fee += len(fields[at["blobs"]]) * _GAS_PER_BLOB * _number(fields[at["blob"]])
        if fee > self.fee_wei:
            raise BarewireError(f"fee of up to {fee} wei: the policy allows {self.fee_wei}")

    def _check_delegation(self, fields: list[Any]) -> None:
        if len(fields) != 3:
            raise ValueError(f"{len(fields)} fields in an authorization, not 3")
        chain, delegate, nonce = fields
        self._check_chain(_number(chain))
        if not isinstance(delegate, bytes) or len(delegate) != 20:
            raise ValueError(f"an authorization delegates to an address, not {delegate!r}")
        if _number(nonce) >= 2**64 - 1:
            raise ValueError("nonce of an authorization above 2^64 - 2 (EIP-7702)")
        if delegate not in self.delegates:
            raise BarewireError(f"delegating to 0x{delegate.hex()} is not in the policy")


def _split(payload: bytes) -> tuple[int, list[Any]]:
    """Type and fields."""
    kind = 0 if payload[0] >= 0xC0 else payload[0]
    fields = rlp.decode(payload[1:] if kind else payload)
    if isinstance(fields, list):
        return kind, fields
    raise ValueError("not a list of fields")


def _number(raw: Any) -> int:
    if not isinstance(raw, bytes) or len(raw) > 32 or raw[:1] == b"\0":
        raise ValueError(f"{raw!r} is not a number")
    return int.from_bytes(raw, "big")


def _check_form(kind: int, fields: list[Any]) -> None:
    """Refuses what would be no transaction once signed, by the decoder that reads mempools."""
    signature = [35 + 2 * _number(fields[6]), 1, 1] if kind == 0 else [0, 1, 1]
    signed = [*(fields if kind else fields[:6]), *signature]
    envelope = (bytes([kind]) if kind else b"") + rlp.encode(signed)
    refused = _DECODER.decode(envelope, hashed=False)
    if isinstance(refused, Refusal):
        raise ValueError(refused.verdict)  # noqa: TRY004 - the type says whether, not what
    # What only pools refuse, which nobody's own node may be asked to find out.
    if _number(fields[1 if kind else 0]) == 2**64 - 1:
        raise ValueError("nonce 2^64 - 1 (EIP-2681)")
    if kind >= 2 and _number(fields[2]) > _number(fields[3]):
        raise ValueError("the tip is above the fee cap (EIP-1559)")
    if kind == 3 and (not fields[10] or any(blob[0] != 1 for blob in fields[10])):
        raise ValueError("no blob, or a versioned hash that does not begin with 1 (EIP-4844)")
    if kind == 4 and not fields[9]:
        raise ValueError("no authorization (EIP-7702)")


class Keeper:
    """The side that has the key: a message in, a message out.

    Attributes:
        signed: messages answered with a signature.
        refused: messages answered with a refusal.
    """

    def __init__(self, signer: Signer, policy: Policy) -> None:
        self._signer = signer
        self._policy = policy
        self.signed = self.refused = 0

    def answer(self, message: bytes) -> bytes:
        """The answer to any message; what is not understood is refused in words."""
        try:
            return self._answer(message[:1], message[1:])
        except BarewireError as error:
            self.refused += 1
            return _NO + error.message.encode()[:REFUSAL]

    def _answer(self, kind: bytes, body: bytes) -> bytes:
        if len(body) >= LONGEST:
            raise BarewireError(f"{1 + len(body)} bytes: the longest message has {LONGEST}")
        if kind == _ADDRESS and not body:
            return _YES + self._signer.address
        if kind == _TRANSACTION:
            self._policy.check(body)
            signed = self._signer.sign_payload(body)
        elif kind == _HASH and len(body) == 32:
            if not self._policy.allow_hashes:
                raise BarewireError("the policy does not allow bare hashes")
            signed = self._signer.sign_hash(body)
        else:
            raise BarewireError(f"not a question: {shown(kind)} and {len(body)} bytes")
        self.signed += 1
        return _YES + signed.r + signed.s + bytes([signed.y_parity])


class ExternalSigner:
    """The side that asks: a signer whose key is in a keeper's process.

    Every signature is checked before it is used, so a broken keeper cannot make anyone send it.

    Args:
        exchange: sends one message to a :class:`Keeper` and returns its answer.

    Attributes:
        address: the 20 bytes of the keeper's address.
        native: NULL: the key is not in this process.
    """

    def __init__(self, exchange: Callable[[bytes], bytes]) -> None:
        self._exchange = exchange
        self.native: Any = ffi.NULL
        self.address = self._ask(_ADDRESS, 20)

    def sign_hash(self, digest: bytes) -> Signature:
        """Signs a 32-byte hash, if the keeper's policy allows bare hashes."""
        if len(digest) != 32:
            raise ValueError(f"a hash to sign is 32 bytes, not {len(digest)}")
        return self._signature(self._ask(_HASH + digest, 65), digest)

    def sign_payload(self, payload: bytes) -> Signature:
        """Signs an unsigned transaction within the keeper's policy.

        Raises:
            BarewireError: the keeper refuses, in its words; or its signature does not verify.
        """
        return self._signature(self._ask(_TRANSACTION + payload, 65), keccak256(payload))

    def _ask(self, message: bytes, length: int) -> bytes:
        answer = self._exchange(message)
        if answer[:1] == _NO:
            said = answer[1:].decode(errors="replace")
            raise BarewireError(f"the external signer refuses: {said}")
        if answer[:1] != _YES or len(answer) != 1 + length:
            raise BarewireError(f"the external signer answered {len(answer)} bytes of nonsense")
        return answer[1:]

    def _signature(self, raw: bytes, digest: bytes) -> Signature:
        signed = Signature(raw[:32], raw[32:64], raw[64])
        if signed.y_parity > 1 or int.from_bytes(signed.s, "big") > _HALF_ORDER:
            raise BarewireError("the external signer's signature has a high s or no parity (EIP-2)")
        if recover(digest, *signed) != self.address:
            raise BarewireError("the external signer's signature is not of its address")
        return signed
