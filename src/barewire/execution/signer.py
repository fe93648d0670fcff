"""Who signs: one interface, and the two signers whose key is in this process.

What they do with a key, and what stands between it and a thief, is written down in
docs/threat-model.md and in native/presign.h.
"""

from __future__ import annotations

import errno
import os
import time
import warnings
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

from barewire._native import ffi, lib
from barewire.errors import BarewireError
from barewire.execution.keys import Key, Uncopied
from barewire.execution.snapshot import Platform, detect, watch_generation
from barewire.keccak import keccak256
from barewire.secp import recover

__all__ = [
    "LocalSigner",
    "PresignedSigner",
    "Rfc6979Signer",
    "Signature",
    "Signer",
    "SignerCounts",
    "refusal",
]

_SELF_TEST = keccak256(b"barewire: the signer's self-test")


class Signature(NamedTuple):
    """An ECDSA signature over secp256k1 with a low s (EIP-2).

    Attributes:
        r: 32 bytes, big-endian.
        s: 32 bytes, big-endian, at most half the group order.
        y_parity: 0 or 1.
    """

    r: bytes
    s: bytes
    y_parity: int


class SignerCounts(NamedTuple):
    """What a signer did, and what it holds.

    Attributes:
        presigned: hashes signed with a presignature.
        rfc6979: hashes signed by RFC 6979; for a PresignedSigner, because its pool was empty.
        level: presignatures ready now.
        made: presignatures made since the start.
        dropped: presignatures wiped unused.
        generations: announcements that this virtual machine was restored or cloned.
        locked_bytes: memory locked for key and pool.
    """

    presigned: int
    rfc6979: int
    level: int
    made: int
    dropped: int
    generations: int
    locked_bytes: int


class Signer(Protocol):
    """What templates and requests ask of whoever holds the key."""

    @property
    def address(self) -> bytes:
        """The 20-byte address that the signatures recover to."""

    @property
    def native(self) -> Any:
        """The C signer, or NULL where the key is not in this process."""

    def sign_hash(self, digest: bytes) -> Signature:
        """Signs a 32-byte hash."""

    def sign_payload(self, payload: bytes) -> Signature:
        """Signs an unsigned transaction: the bytes whose Keccak-256 EIP-2718 or EIP-155 signs."""


def refusal(code: int) -> BarewireError:
    """Why the native signer did not sign, in words."""
    if code == lib.BW_SIGN_FORKED:
        return BarewireError(
            "this process was forked from the one that holds the key, and has none",
            hint="make the signer in the process that signs, after any fork",
        )
    return BarewireError(f"the key cannot sign (code {code})")


class LocalSigner(Uncopied):
    """A signer whose key is in this process; a context manager that wipes it at the end.

    One that is dropped without being closed is wiped too, with a ResourceWarning.

    Attributes:
        native: the C signer, for native code that signs (barewire.execution.template).
    """

    native: Any = ffi.NULL

    def __init__(self, key: Key, capacity: int, core: int, generation_fd: int) -> None:
        why = ffi.new("int *")
        self.address = key.address
        self.native = lib.bw_signer_new(key.native, capacity, core, generation_fd, why)
        if not self.native:
            raise _not_made(why[0], capacity, core)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if self.native:
            said = f"{type(self).__name__} of 0x{self.address.hex()} was dropped, not closed"
            warnings.warn(said, ResourceWarning, source=self, stacklevel=2)
            self.close()

    def sign_hash(self, digest: bytes) -> Signature:
        """Signs a 32-byte hash.

        Raises:
            ValueError: `digest` is not 32 bytes.
            BarewireError: the signer is closed, or this process was forked from the key's.
        """
        if len(digest) != 32:
            raise ValueError(f"a hash to sign is 32 bytes, not {len(digest)}")
        rs = ffi.new("uint8_t[64]")
        parity = lib.bw_signer_sign(self._open(), digest, rs)
        if parity < 0:
            raise refusal(parity)
        return Signature(bytes(rs[0:32]), bytes(rs[32:64]), parity)

    def sign_payload(self, payload: bytes) -> Signature:
        """Signs the Keccak-256 of `payload`."""
        return self.sign_hash(keccak256(payload))

    def counts(self) -> SignerCounts:
        """What was done so far, and what is held."""
        counts = ffi.new("struct bw_signer_counts *")
        lib.bw_signer_counts(self._open(), counts)
        return SignerCounts(*(getattr(counts, name) for name in SignerCounts._fields))

    def close(self) -> None:
        """Wipes the key, and stops and wipes the pool. What was prepared with it stops working.

        Not while another thread signs with it.
        """
        if self.native:
            lib.bw_signer_free(self.native)
            self.native = ffi.NULL

    def _open(self) -> Any:
        if not self.native:
            raise BarewireError("the signer is closed")
        return self.native


def _not_made(why: int, capacity: int, core: int) -> BarewireError:
    if why == errno.EOWNERDEAD:
        return refusal(lib.BW_SIGN_FORKED)
    if why in (errno.ENOMEM, errno.EPERM, errno.EAGAIN):
        return BarewireError(
            f"no locked memory for a key and {capacity} presignatures: {os.strerror(why)}",
            hint="raise RLIMIT_MEMLOCK (LimitMEMLOCK= in the unit), or ask for a smaller pool",
        )
    return BarewireError(
        f"no signer with {capacity} presignatures on core {core}: {os.strerror(why)}"
    )


class Rfc6979Signer(LocalSigner):
    """Signs with the deterministic nonce of RFC 6979, about 20 us a signature. No thread, no pool.

    Args:
        key: copied; may be closed afterwards.
    """

    def __init__(self, key: Key) -> None:
        super().__init__(key, 0, -1, -1)


class PresignedSigner(LocalSigner):
    """Signs with signatures that were computed before the message existed.

    A native thread keeps `capacity` of them ready (about 130 bytes each, locked). When there is
    none, it signs by RFC 6979 and counts that in ``counts().rfc6979``.

    Args:
        key: copied; may be closed afterwards.
        capacity: presignatures kept ready, at least 2.
        core: the CPU that the thread runs on, a housekeeping one; None leaves it to the kernel.
        accept_snapshot_risk: presign on a virtual machine too. Restoring a snapshot of one brings
            back presignatures that were used since, and two signatures with one nonce give away
            the key. Where the hypervisor announces a restore, the pool is dropped at once, but a
            hash signed before the announcement arrives is not protected.
        platform: what is known about the machine (for tests).

    Raises:
        BarewireError: a virtual machine without `accept_snapshot_risk`; no locked memory; a core
            that is not there; or the first presignature does not verify.
    """

    def __init__(
        self,
        key: Key,
        *,
        capacity: int = 4096,
        core: int | None = None,
        accept_snapshot_risk: bool = False,
        platform: Platform | None = None,
    ) -> None:
        if not 2 <= capacity < 2**32:
            raise BarewireError(f"a pool of {capacity} presignatures", hint="between 2 and 2^32-1")
        if core is not None and core < 0:
            raise BarewireError(f"no core {core} for presigning", hint="0 or more, or None")
        self.platform = platform or detect()
        if self.platform.virtual and not accept_snapshot_risk:
            raise BarewireError(
                "presigning is off: this is a virtual machine, and restoring a snapshot of it "
                "would repeat nonces and give the key away"
                + ("" if self.platform.generation_id else " (it has no generation id to tell)"),
                hint="accept_snapshot_risk=True if nobody ever restores one; else Rfc6979Signer",
            )
        self._events = watch_generation() if self.platform.generation_id else None
        try:
            super().__init__(
                key,
                capacity,
                -1 if core is None else core,
                self._events.fileno() if self._events else -1,
            )
        except BarewireError:
            if self._events:
                self._events.close()
            raise
        try:
            self._self_test()
        except BarewireError:
            self.close()
            raise

    def drop(self) -> None:
        """Wipes every presignature that is ready now; new ones are made."""
        lib.bw_signer_drop(self._open())

    def wait(self, level: int = 1, *, timeout_s: float = 5.0) -> None:
        """Waits until `level` presignatures are ready.

        Raises:
            BarewireError: they were not after `timeout_s`.
        """
        until = time.monotonic() + timeout_s
        while (ready := self.counts().level) < level:
            if time.monotonic() > until:
                raise BarewireError(f"{ready} of {level} presignatures after {timeout_s:g} s")
            time.sleep(0.0005)

    def close(self) -> None:
        """Stops the thread, wipes key and pool."""
        super().close()
        if self._events:
            self._events.close()

    def _self_test(self) -> None:
        self.wait(1)
        signed = self.sign_hash(_SELF_TEST)
        if recover(_SELF_TEST, *signed) != self.address:
            raise BarewireError(
                "the first presignature did not verify: this machine computes wrong"
            )
