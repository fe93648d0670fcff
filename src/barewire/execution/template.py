"""Transactions that are prepared once and finished in one native call at the moment of decision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from barewire._native import ffi, lib
from barewire.errors import BarewireError, shown
from barewire.execution import rlp
from barewire.execution.calldata import Calldata
from barewire.execution.keys import Uncopied
from barewire.execution.signer import Signer, refusal

__all__ = ["AccessEntry", "Authorization", "Caps", "Template", "sign_authorization"]

_U64 = 2**64 - 1
_FIRE = lib.bw_template_fire_with


@dataclass(frozen=True)
class Caps:
    """What a template refuses to exceed, whatever it is asked to sign. All in wei.

    Attributes:
        fee_cap_wei: the highest maxFeePerGas, or gas price; below 2^64, 18 ether for one gas.
        tip_wei: the highest maxPriorityFeePerGas; below 2^64.
        value_wei: the highest value; below 2^128.
        blob_fee_cap_wei: the highest maxFeePerBlobGas; below 2^64.
    """

    fee_cap_wei: int
    tip_wei: int = 0
    value_wei: int = 0
    blob_fee_cap_wei: int = 0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            bits = 128 if name == "value_wei" else 64
            if not 0 <= value < 2**bits:
                raise BarewireError(f"cap {name} = {value}", hint=f"from 0 to 2^{bits} - 1")


class AccessEntry(NamedTuple):
    """One entry of an access list (EIP-2930): a 20-byte address and its 32-byte storage keys."""

    address: bytes
    storage_keys: Sequence[bytes] = ()


class Authorization(NamedTuple):
    """A signed delegation of an account to code (EIP-7702)."""

    chain_id: int
    address: bytes
    nonce: int
    y_parity: int
    r: bytes
    s: bytes


def sign_authorization(signer: Signer, chain_id: int, address: bytes, nonce: int) -> Authorization:
    """Delegates the signer's account to the code at the 20-byte `address` (EIP-7702).

    `chain_id` 0 is valid on every chain; `nonce` is the account's when it is applied.

    Raises:
        BarewireError: a number out of range, or an address that is not 20 bytes.
    """
    _within("chain_id", chain_id, _U64)
    _within("nonce", nonce, _U64 - 1)
    address = _sized("an authorization's address", address, 20)
    signed = signer.sign_payload(b"\x05" + rlp.encode([chain_id, address, nonce]))
    return Authorization(chain_id, address, nonce, signed.y_parity, signed.r, signed.s)


class _Number(NamedTuple):
    """Stands in the list of fields for a number that is given when the transaction is fired."""

    kind: int


_NONCE, _TIP = _Number(lib.BW_PIECE_NONCE), _Number(lib.BW_PIECE_TIP)
_FEE_CAP, _VALUE = _Number(lib.BW_PIECE_FEE_CAP), _Number(lib.BW_PIECE_VALUE)
_BLOB_FEE_CAP = _Number(lib.BW_PIECE_BLOB_FEE_CAP)


def _sized(what: str, raw: bytes, size: int) -> bytes:
    if not isinstance(raw, bytes | bytearray | memoryview):
        raise BarewireError(f"{what} is {size} bytes, not the {type(raw).__name__} {shown(raw)}")
    if len(raw) != size:
        raise BarewireError(f"{what} is {size} bytes, not {len(raw)}: 0x{raw.hex()}")
    return bytes(raw)


def _within(name: str, value: int, limit: int) -> None:
    if not isinstance(value, int) or not 0 <= value <= limit:
        raise BarewireError(
            f"{name} {shown(value)} of an authorization", hint=f"a number from 0 to {limit}"
        )


def _authorized(auth: Authorization) -> list[rlp.Item]:
    """The fields of `auth`, of which a node drops the whole transaction if one is too wide."""
    _within("chain_id", auth.chain_id, _U64)
    _within("nonce", auth.nonce, _U64 - 1)
    _within("y_parity", auth.y_parity, 1)
    return [
        auth.chain_id,
        _sized("an authorization's address", auth.address, 20),
        auth.nonce,
        auth.y_parity,
        int.from_bytes(_sized("an authorization's r", auth.r, 32), "big"),
        int.from_bytes(_sized("an authorization's s", auth.s, 32), "big"),
    ]


class Template(Uncopied):
    """A transaction finished but for nonce, fees, value and the slots of its calldata.

    One thread uses a template at a time.

    Args:
        signer: who signs. With a signer of this process :meth:`fire` is one native call.
        type: EIP-2718: 0 legacy, 1 access list (EIP-2930), 2 fee market (EIP-1559), 3 blobs
            (EIP-4844, without the sidecar), 4 set code (EIP-7702).
        chain_id: from 1 to 2^64 - 1; None only for a legacy transaction that is to be valid on
            every chain (without EIP-155).
        to: the 20-byte address, or None to create a contract (types 0 to 2).
        gas: the limit.
        caps: what is refused whatever is asked for.
        data: calldata, with or without slots.
        access_list: types 1 to 4.
        blob_versioned_hashes: type 3 only, 32 bytes each, the first of them 1.
        authorizations: type 4 only.

    Raises:
        BarewireError: fields that do not go together, or of the wrong size.
    """

    def __init__(
        self,
        signer: Signer,
        *,
        type: int,  # noqa: A002 - its name in EIP-2718
        chain_id: int | None,
        to: bytes | None,
        gas: int,
        caps: Caps,
        data: Calldata | bytes = b"",
        access_list: Sequence[AccessEntry] = (),
        blob_versioned_hashes: Sequence[bytes] = (),
        authorizations: Sequence[Authorization] = (),
    ) -> None:
        if type not in range(5):
            raise BarewireError(f"unknown transaction type {type}", hint="0 to 4 (EIP-2718)")
        if chain_id is None and type:
            raise BarewireError(f"a transaction of type {type} needs a chain id")
        if chain_id is not None and not 1 <= chain_id <= _U64:
            raise BarewireError(f"chain id {chain_id}", hint="from 1 to 2^64 - 1")
        if not 0 < gas <= _U64:
            raise BarewireError(f"gas limit {gas}", hint="from 1 to 2^64 - 1")
        if to is None and type > 2:
            raise BarewireError(f"a transaction of type {type} cannot create a contract")
        if access_list and not type:
            raise BarewireError("a legacy transaction has no access list", hint="type 1 or 2")
        if bool(blob_versioned_hashes) != (type == 3):
            raise BarewireError(
                f"{len(blob_versioned_hashes)} blob hashes in a transaction of type {type}",
                hint="type 3 has at least one, the others none",
            )
        if bool(authorizations) != (type == 4):
            raise BarewireError(
                f"{len(authorizations)} authorizations in a transaction of type {type}",
                hint="type 4 has at least one, the others none",
            )
        self.signer, self.type, self.chain_id, self.caps = signer, type, chain_id, caps
        self.calldata = data if isinstance(data, Calldata) else Calldata(bytes(data))
        target = b"" if to is None else _sized("to", to, 20)
        blobs = [_sized("a blob's versioned hash", blob, 32) for blob in blob_versioned_hashes]
        if any(blob[0] != 1 for blob in blobs):
            raise BarewireError("a blob's versioned hash begins with 1 (EIP-4844)")
        access = [
            [
                _sized("an address of the access list", entry.address, 20),
                [_sized("a storage key", key, 32) for key in entry.storage_keys],
            ]
            for entry in access_list
        ]
        signed = [_authorized(auth) for auth in authorizations]
        tail: list[Any] = [gas, target, _VALUE, self.calldata]
        fees = [_FEE_CAP] if type < 2 else [_TIP, _FEE_CAP]
        fields = [*([chain_id] if type else []), _NONCE, *fees, *tail, *([access] if type else [])]
        if type == 3:
            fields += [_BLOB_FEE_CAP, blobs]
        if type == 4:
            fields += [signed]
        self._lay_out(fields)

    def _lay_out(self, fields: Sequence[Any]) -> None:
        """Encodes what is known, and hands the pieces to native code."""
        literal, begin = bytearray(), 0
        pieces: list[tuple[int, int, int]] = []
        slots: list[tuple[int, int]] = []
        for field in fields:
            if isinstance(field, _Number):
                pieces += [(lib.BW_PIECE_LITERAL, begin, len(literal) - begin), (field.kind, 0, 0)]
                begin = len(literal)
            elif isinstance(field, Calldata):
                literal += rlp.encode(field.data)
                start = len(literal) - len(field.data)
                slots = [(start + place.offset, place.width) for place in field.places]
            else:
                literal += rlp.encode(field)
        pieces.append((lib.BW_PIECE_LITERAL, begin, len(literal) - begin))
        caps = self.caps
        value = [caps.value_wei & _U64, caps.value_wei >> 64]
        native = lib.bw_template_new(
            self.type,
            self.chain_id or 0,
            bytes(literal),
            len(literal),
            ffi.new("struct bw_template_piece[]", pieces),
            len(pieces),
            ffi.new("struct bw_template_slot[]", slots),
            len(slots),
            ffi.new(
                "struct bw_template_caps *",
                (caps.fee_cap_wei, caps.tip_wei, caps.blob_fee_cap_wei, value),
            ),
        )
        if not native:
            raise MemoryError("no memory for a template")
        self._native: Any = native
        # Views of the buffer keep the template alive, and not the other way round.
        out = ffi.gc(native.out, lambda _: lib.bw_template_free(native))
        self._out = memoryview(ffi.buffer(out, native.out_len)).toreadonly()

    def fire(
        self,
        nonce: int,
        fee_cap_wei: int,
        tip_wei: int = 0,
        value_wei: int = 0,
        slots: bytes = b"",
        blob_fee_cap_wei: int = 0,
    ) -> memoryview:
        """Checks, encodes and signs: from a decision to final bytes.

        Args:
            nonce: at most 2^64 - 2 (EIP-2681).
            fee_cap_wei: maxFeePerGas, or the gas price of types 0 and 1.
            tip_wei: maxPriorityFeePerGas, types 2 to 4.
            value_wei: the value.
            slots: the bytes of all slots (:meth:`Calldata.pack`).
            blob_fee_cap_wei: maxFeePerBlobGas, type 3.

        Returns:
            The transaction, borrowed: it is overwritten when the template fires again.

        Raises:
            BarewireError: a number beyond its cap or range, or slots of the wrong width (and
                nothing was signed); or the signer has no key.
        """
        try:
            length = _FIRE(
                self._native,
                self.signer.native,
                nonce,
                tip_wei,
                fee_cap_wei,
                blob_fee_cap_wei,
                value_wei >> 64,
                value_wei & _U64,
                slots,
                len(slots),
            )
        except OverflowError:
            length = self._out_of_range(nonce, fee_cap_wei, tip_wei, blob_fee_cap_wei)
        if length < 0:
            if length != lib.BW_SIGN_NOBODY:
                raise self._refused(
                    length, nonce, fee_cap_wei, tip_wei, value_wei, slots, blob_fee_cap_wei
                )
            length = self._sign_elsewhere()
        at = self._native.raw_off
        return self._out[at : at + length]

    def hash(self) -> bytes:
        """The hash of the last transaction fired, computed now: ask after the bytes have left."""
        if not self._native.raw_len:
            raise BarewireError("nothing was fired yet")
        out = ffi.new("uint8_t[32]")
        lib.bw_template_hash(self._native, out)
        return bytes(out)

    @property
    def native(self) -> Any:
        """The C template, for native code that fires it. It lives as long as this object."""
        return self._native

    def _sign_elsewhere(self) -> int:
        """Finishes what was prepared with a signer whose key is not in this process."""
        at = self._native.payload_off
        payload = bytes(self._out[at : at + self._native.payload_len])
        signed = self.signer.sign_payload(payload)
        return lib.bw_template_finish(self._native, signed.r + signed.s, signed.y_parity)

    @staticmethod
    def _out_of_range(nonce: int, fee_cap_wei: int, tip_wei: int, blob_fee_cap_wei: int) -> int:
        """The refusal for a number that does not even fit the native call."""
        numbers = (
            (nonce, lib.BW_REFUSED_NONCE),
            (fee_cap_wei, lib.BW_REFUSED_FEE_CAP),
            (tip_wei, lib.BW_REFUSED_TIP),
            (blob_fee_cap_wei, lib.BW_REFUSED_BLOB_FEE),
        )
        beyond = (code for number, code in numbers if not 0 <= number <= _U64)
        return next(beyond, lib.BW_REFUSED_VALUE)

    def _refused(
        self,
        code: int,
        nonce: int,
        fee_cap_wei: int,
        tip_wei: int,
        value_wei: int,
        slots: bytes,
        blob_fee_cap_wei: int,
    ) -> BarewireError:
        caps = self.caps
        said = {
            lib.BW_REFUSED_NONCE: f"nonce {nonce} is not between 0 and 2^64 - 2 (EIP-2681)",
            lib.BW_REFUSED_FEE_CAP: f"fee cap {fee_cap_wei} wei: the template allows "
            f"0 to {caps.fee_cap_wei}",
            lib.BW_REFUSED_TIP: f"tip {tip_wei} wei: the template allows "
            f"0 to {caps.tip_wei if self.type >= 2 else 0}",
            lib.BW_REFUSED_TIP_ABOVE: f"tip {tip_wei} wei is above the fee cap {fee_cap_wei} wei",
            lib.BW_REFUSED_BLOB_FEE: f"blob fee cap {blob_fee_cap_wei} wei: the template allows "
            f"0 to {caps.blob_fee_cap_wei if self.type == 3 else 0}",
            lib.BW_REFUSED_VALUE: f"value {value_wei} wei: the template allows "
            f"0 to {caps.value_wei}",
            lib.BW_REFUSED_SLOTS: f"{len(slots)} bytes were given for slots of "
            f"{self._native.slots_len}: {[f'{p.name}:{p.width}' for p in self.calldata.places]}",
        }
        if code in said:
            return BarewireError(f"{said[code]}; nothing was signed")
        return refusal(code)
