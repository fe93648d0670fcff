"""The next nonce of an account, right after this client itself has used one.

A transaction reaches the pools of other providers a moment after the one that took it, and until
then they count as if it did not exist. So "pending" counts begin with what a provider says and go
on over the nonces that this client sent without a gap; where a sender cannot be worked out, those
are asked too that took the transaction. What is older than a minute every pool has, or nobody.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from barewire import secp
from barewire.errors import BarewireError
from barewire.mempool.decoder import Decoder, Refusal, Rules

__all__ = ["OwnNonces"]

_HOLDS_NS = 60_000_000_000
_MOST = 10_000


@dataclass(slots=True)
class _Sent:
    """One transaction.

    Attributes:
        raw: its bytes, until they have been looked at.
        sender: its sender's address in lower case, "" where that cannot be known.
        nonce: its nonce, -1 where that cannot be known.
        hash: its hash, "" where that is not known.
        takers: names of the providers that took it; more may follow.
        at_ns: when, monotonic.
    """

    raw: bytes
    sender: str
    nonce: int
    hash: str
    takers: list[str]
    at_ns: int


class OwnNonces:
    """What one client sent publicly within the last minute."""

    def __init__(self) -> None:
        self._sent: deque[_Sent] = deque()
        self._takers: dict[str, list[str]] = {}
        self._decoder: Decoder | None = None

    def sent(self, raw: str, number: str, takers: list[str], now_ns: int) -> None:
        """The signed transaction `raw`, whose hash is `number`, was taken."""
        self._forget(now_ns)
        raw_bytes = bytes.fromhex(raw.removeprefix("0x"))
        self._sent.append(_Sent(raw_bytes, "", -1, number, takers, now_ns))
        self._takers[number] = takers

    def takers(self, number: object) -> list[str]:
        """Who took the transaction whose hash is `number`; none where it is not ours."""
        return self._takers.get(number, []) if isinstance(number, str) else []

    def sent_by(self, sender: object, taker: str, now_ns: int) -> None:
        """`taker` signed and took a transaction of `sender`."""
        self._forget(now_ns)
        if isinstance(sender, str):
            self._sent.append(_Sent(b"", sender.lower(), -1, "", [taker], now_ns))

    def __bool__(self) -> bool:
        return bool(self._sent)

    def of(self, address: object, now_ns: int) -> tuple[set[int], set[str]]:
        """Nonces that `address` used, and takers of transactions that may be its own as well."""
        self._forget(now_ns)
        nonces: set[int] = set()
        takers: set[str] = set()
        for one in self._sent:
            if one.raw:
                self._look_at(one)
            if one.nonce < 0 and one.sender in ("", str(address).lower()):
                takers.update(one.takers)
            elif one.sender == str(address).lower():
                nonces.add(one.nonce)
        return nonces, takers

    def _forget(self, now_ns: int) -> None:
        sent = self._sent
        while sent and (now_ns - sent[0].at_ns > _HOLDS_NS or len(sent) >= _MOST):
            self._takers.pop(sent.popleft().hash, None)

    def _look_at(self, one: _Sent) -> None:
        raw, one.raw = one.raw, b""
        self._decoder = self._decoder or Decoder(Rules.preset(pool=False))
        tx = self._decoder.decode(raw, hashed=False)
        if isinstance(tx, Refusal):
            return
        try:
            r, s = tx.r.to_bytes(32, "big"), tx.s.to_bytes(32, "big")
            sender = secp.recover(tx.signing_hash(), r, s, tx.y_parity)
        except BarewireError:
            return  # no libsecp256k1 here: the takers are asked
        if sender is not None:
            one.sender, one.nonce = "0x" + sender.hex(), tx.nonce

    @staticmethod
    def after(count: int, used: set[int]) -> int:
        """The first nonce from `count` on that is not among `used`."""
        while count in used:
            count += 1
        return count
