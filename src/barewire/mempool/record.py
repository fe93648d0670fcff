"""The transaction record as Python sees it: one C layout, read from cffi, never written down again.

`Transaction` is a view of one record and of the bytes it was decoded from; `record_dtype` is the
numpy type of an array of records. 256-bit quantities are four 64-bit words in the record, least
significant first; here they are integers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from barewire._native import ffi, lib
from dpdk_bindings.errors import Released

if TYPE_CHECKING:
    import numpy as np

__all__ = ["ORIGINS", "RECORD_BYTES", "Authorization", "Origin", "Transaction", "record_dtype"]

RECORD_BYTES: int = ffi.sizeof("struct bw_tx")
"""Size of one record: six cache lines."""

Origin = Literal["announced", "resent", "pool", "queued", "block"]
"""How a transaction came.

`announced`: told by its source when that had it. `resent`: it had been missed, and was sent again.
`pool`: read from a node's pool after a break; `queued`: the same, behind a gap in its sender's
nonces. `block`: it stood in a block, mined, pending or being built.
"""

ORIGINS: tuple[Origin, ...] = get_args(Origin)
"""Origins by number (``enum bw_origin``)."""

assert len(ORIGINS) == lib.BW_ORIGINS


class Authorization(NamedTuple):
    """One entry of an EIP-7702 authorization list; its signature has not been checked."""

    chain_id: int
    address: bytes
    nonce: int
    y_parity: int
    r: int
    s: int


class _Gone:
    """In the place of a record whose memory may be another's by now."""

    def __getattr__(self, name: str) -> Any:
        raise Released("a transaction on loan was read after its end: copy what is to be kept")


_GONE = _Gone()


class Transaction:
    """One decoded transaction.

    Attributes:
        record: the ``struct bw_tx *`` (cffi).
        raw: the bytes of the envelope, as received.
    """

    __slots__ = ("_owner", "raw", "record")

    def __init__(self, record: Any, raw: bytes, owner: Any = None) -> None:
        """Views `record`; `owner` is what holds its memory, kept alive as long as this view."""
        self.record = record
        self.raw = raw
        self._owner = owner

    def release(self) -> None:
        """Ends the loan of the record: from here on reading it raises Released."""
        self.record = _GONE

    @property
    def hash(self) -> bytes | None:
        """Keccak-256 of the envelope (without blobs), or None while it is not computed."""
        return bytes(self.record.hash) if self._has(lib.BW_TX_HASHED) else None

    @property
    def type(self) -> int:
        """EIP-2718 type; 0 is legacy."""
        return int(self.record.type)

    @property
    def chain_id(self) -> int | None:
        """The chain that the signature covers, or None where it covers none (before EIP-155)."""
        return int(self.record.chain_id) if self._has(lib.BW_TX_PROTECTED) else None

    @property
    def nonce(self) -> int:
        """The sender's transaction count."""
        return int(self.record.nonce)

    @property
    def gas(self) -> int:
        """The gas limit."""
        return int(self.record.gas)

    @property
    def to(self) -> bytes | None:
        """The 20-byte address that is called, or None where a contract is created."""
        return None if self._has(lib.BW_TX_CREATE) else bytes(self.record.to)

    @property
    def value_wei(self) -> int:
        """Ether sent along."""
        return _integer(self.record.value_wei)

    @property
    def tip_wei(self) -> int:
        """Most that the block's producer gets per gas; the gas price of types 0 and 1."""
        return _integer(self.record.tip_wei)

    @property
    def fee_cap_wei(self) -> int:
        """Most that is paid per gas; the gas price of types 0 and 1."""
        return _integer(self.record.fee_cap_wei)

    @property
    def blob_fee_cap_wei(self) -> int:
        """Most that is paid per blob gas; 0 but for type 3."""
        return _integer(self.record.blob_fee_cap_wei)

    @property
    def data(self) -> bytes:
        """Calldata, or the init code of a creation."""
        return self._part(self.record.data_off, self.record.data_len)

    @property
    def selector(self) -> bytes | None:
        """The first four bytes of calldata, or None where it is shorter."""
        if not self._has(lib.BW_TX_HAS_SELECTOR):
            return None
        return int(self.record.selector).to_bytes(4, "big")

    @property
    def access_list(self) -> tuple[tuple[bytes, tuple[bytes, ...]], ...]:
        """Addresses and the storage keys of each (EIP-2930)."""
        entries = []
        for entry in _items(self._part(self.record.access_off, self.record.access_len)):
            address, keys = _items(entry)
            entries.append((address, tuple(_items(keys))))
        return tuple(entries)

    @property
    def blob_hashes(self) -> tuple[bytes, ...]:
        """Versioned hashes of the blobs (EIP-4844)."""
        return tuple(_items(self._part(self.record.blobs_off, self.record.blobs_len)))

    @property
    def authorizations(self) -> tuple[Authorization, ...]:
        """The authorization list (EIP-7702)."""
        entries = []
        for entry in _items(self._part(self.record.auths_off, self.record.auths_len)):
            chain_id, address, *rest = _items(entry)
            entries.append(
                Authorization(
                    int.from_bytes(chain_id, "big"),
                    address,
                    *(int.from_bytes(number, "big") for number in rest),
                )
            )
        return tuple(entries)

    @property
    def y_parity(self) -> int:
        """Which of the two points r names: 0 or 1."""
        return int(self.record.y_parity)

    @property
    def r(self) -> int:
        """The signature's r."""
        return int.from_bytes(bytes(self.record.r), "big")

    @property
    def s(self) -> int:
        """The signature's s, in the lower half (EIP-2)."""
        return int.from_bytes(bytes(self.record.s), "big")

    @property
    def sender(self) -> bytes | None:
        """The 20-byte address that signed, or None while it has not been recovered."""
        return bytes(self.record.sender) if self._has(lib.BW_TX_SENDER) else None

    @property
    def wrapper_version(self) -> int | None:
        """The version of the blob wrapper it came in, or None where no blobs travelled with it."""
        return int(self.record.wrapper_version) if self._has(lib.BW_TX_WRAPPED) else None

    @property
    def source(self) -> int:
        """Number of the source that delivered it."""
        return int(self.record.source)

    @property
    def arrival_ns(self) -> int:
        """When it arrived, by the clock of `arrival_clock`."""
        return int(self.record.arrival_ns)

    @property
    def arrival_clock(self) -> int:
        """Number of the clock of `arrival_ns` (``enum dpb_clock``)."""
        return int(self.record.arrival_clock)

    @property
    def origin(self) -> Origin:
        """How it came: only what was `announced` was news at its arrival."""
        return ORIGINS[int(self.record.origin)]

    @property
    def known_ns(self) -> int:
        """When somebody had it at the latest, by the clock of `known_clock`.

        Its arrival; of what was sent again the time when it was found missing; of what stood in a
        relay's sequence or in a block the time that is written there. It may be older.
        """
        return int(self.record.known_ns)

    @property
    def known_clock(self) -> int:
        """Number of the clock of `known_ns` (``enum dpb_clock``)."""
        return int(self.record.known_clock)

    def signing_hash(self) -> bytes:
        """The 32 bytes that the sender signed (unprotected, EIP-155 or typed)."""
        out = ffi.new("uint8_t[32]")
        lib.bw_signing_hash(ffi.from_buffer(self.raw), self.record, out)
        return bytes(out)

    def __repr__(self) -> str:
        name = f"0x{self.hash.hex()}" if self.hash else "not hashed"
        return f"<Transaction {name} type={self.type} nonce={self.nonce}>"

    def _has(self, flag: int) -> bool:
        return bool(self.record.flags & flag)

    def _part(self, offset: int, length: int) -> bytes:
        return self.raw[offset : offset + length]


def record_dtype() -> np.dtype[Any]:
    """The numpy type of ``struct bw_tx``, field by field, the same 384 bytes.

    Byte strings (hash, to, sender, r, s) are arrays of uint8, 256-bit quantities arrays of four
    uint64, least significant first. Needs numpy (the ``analysis`` extra).
    """
    import numpy as np

    fields = ffi.typeof("struct bw_tx").fields
    assert fields is not None
    names, formats, offsets = [], [], []
    for name, field in fields:
        kind, shape = field.type, []
        if kind.kind == "array":
            kind, shape = kind.item, [kind.length]
        names.append(name)
        formats.append((f"u{ffi.sizeof(kind)}", tuple(shape)))
        offsets.append(field.offset)
    return np.dtype(
        {"names": names, "formats": formats, "offsets": offsets, "itemsize": RECORD_BYTES}
    )


def _integer(words: Any) -> int:
    return int(words[0] | words[1] << 64 | words[2] << 128 | words[3] << 192)


def _items(payload: bytes) -> list[bytes]:
    """Payloads of the RLP items in `payload`, which the decoder has found to be well formed."""
    items, at = [], 0
    while at < len(payload):
        prefix = payload[at]
        small = prefix & 0x3F
        if prefix < 0x80:
            start, end = at, at + 1
        elif small < 56:
            start = at + 1
            end = start + small
        else:
            start = at + 1 + small - 55
            end = start + int.from_bytes(payload[at + 1 : start], "big")
        items.append(payload[start:end])
        at = end
    return items
