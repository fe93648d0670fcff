"""Private keys: where they may come from, and a handle to one in locked memory.

A key is read from a keystore file (version 3) or from a systemd credential. A file that holds the
bare key is refused unless forced. Files must belong to this user or root and be closed to others.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self, SupportsIndex

from barewire import secp
from barewire._native import ffi, lib
from barewire.errors import BarewireError
from barewire.execution import keystore

__all__ = ["Key", "Uncopied", "is_keystore", "load_credential", "load_key", "read_password"]


class Uncopied:
    """What owns native memory: a copy would go on using it when the first one has freed it."""

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        name = type(self).__name__
        raise TypeError(f"a {name} is neither copied nor pickled: it owns native memory")


class Key(Uncopied):
    """A private key in locked memory that is wiped on fork and kept out of core dumps.

    Made by :func:`load_key`, :func:`load_credential`, :meth:`generate` or :meth:`from_bytes`. The
    key itself comes out again only as a keystore. A context manager that wipes it at the end; one
    that is dropped is wiped too.

    Attributes:
        address: the 20 bytes of its address.
    """

    _native: Any = ffi.NULL

    def __init__(self, native: Any, why: int, what: str) -> None:
        if not native:
            raise _unusable(why, what)
        self._native = native
        address = ffi.new("uint8_t[20]")
        lib.bw_key_address(native, address)
        self.address = bytes(address)

    @classmethod
    def generate(cls) -> Self:
        """A new key, drawn from the kernel's random numbers inside locked memory."""
        secp.load()
        why = ffi.new("int *")
        return cls(lib.bw_key_generate(why), why[0], "a new key")

    @classmethod
    def from_bytes(cls, secret: bytes | bytearray) -> Self:
        """The key in these 32 bytes, of which Python keeps its own copy: for tests and tools."""
        if len(secret) != 32:
            raise BarewireError(f"a private key is 32 bytes, not {len(secret)}")
        secp.load()
        why = ffi.new("int *")
        return cls(lib.bw_key_new(ffi.from_buffer(secret), why), why[0], "these bytes")

    @classmethod
    def from_fd(cls, fd: int, what: str) -> Self:
        """The key read from `fd` straight into locked memory; `what` names it in errors."""
        secp.load()
        why = ffi.new("int *")
        return cls(lib.bw_key_read(fd, why), why[0], what)

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
        self.close()

    def __repr__(self) -> str:
        return f"Key(address=0x{self.address.hex()})"

    def encrypted(self, password: bytes, *, scrypt_n: int = keystore.SCRYPT_N) -> bytes:
        """The key as the JSON text of a keystore under `password`.

        For a process that ends soon: while it encrypts, Python holds copies that cannot be wiped.
        """
        secret = bytearray(32)
        lib.bw_key_reveal(self.native, ffi.from_buffer(secret, require_writable=True))
        try:
            return keystore.encrypt(bytes(secret), password, scrypt_n=scrypt_n)
        finally:
            secret[:] = bytes(32)

    def close(self) -> None:
        """Wipes the key. Signers made from it have a copy of their own."""
        if self._native:
            lib.bw_key_free(self._native)
            self._native = ffi.NULL

    @property
    def native(self) -> Any:
        """The C key, for signers.

        Raises:
            BarewireError: the key is closed.
        """
        if not self._native:
            raise BarewireError("the key is closed")
        return self._native


def _unusable(why: int, what: str) -> BarewireError:
    if why == 0:
        return BarewireError(f"{what}: not a private key (zero, or not below the group order)")
    if why == errno.EBADMSG:
        return BarewireError(f"{what}: neither 32 bytes nor 64 hexadecimal digits")
    return BarewireError(
        f"no locked memory for {what}: {os.strerror(why)}",
        hint="raise RLIMIT_MEMLOCK (LimitMEMLOCK= in the unit)",
    )


def _open_private(path: Path, forbidden: int) -> int:
    """A descriptor of `path`, if it is ours (or root's) and none of `forbidden` is in its mode."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK  # a FIFO is not waited for
    try:
        fd = os.open(path, flags)
    except OSError as error:
        raise BarewireError(f"{path}: {error.strerror}") from error
    about = os.fstat(fd)
    mode = stat.S_IMODE(about.st_mode)
    complaint = ("", "")
    if not stat.S_ISREG(about.st_mode):
        complaint = f"{path} is not a regular file", ""
    elif about.st_uid not in (0, os.geteuid()):
        complaint = f"{path} belongs to user {about.st_uid}", "a secret is yours or root's"
    elif mode & forbidden:
        complaint = f"{path} has mode {mode:04o}: others may use it", f"chmod 600 {path}"
    if complaint[0]:
        os.close(fd)
        raise BarewireError(complaint[0], hint=complaint[1])
    return fd


def read_password(path: Path) -> bytes:
    """The first line of a file with mode 0600, without its line end."""
    with os.fdopen(_open_private(path, 0o077), "rb") as file:
        return file.read().partition(b"\n")[0].removesuffix(b"\r")


def is_keystore(path: Path) -> bool:
    """Whether the file, which must be as :func:`load_key` wants it, looks like a keystore."""
    fd = _open_private(path, 0o077)
    try:
        return keystore.looks_like_one(os.pread(fd, 64, 0))
    finally:
        os.close(fd)


def _from_keystore(fd: int, path: Path, password: bytes) -> Key:
    with keystore.open_decrypted(fd, password) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        try:
            key = Key.from_fd(child.stdout.fileno(), str(path))
        except BarewireError:
            said = child.stderr.read().decode(errors="replace").strip()
            status = child.wait()
            if status == keystore.WRONG_PASSWORD:
                raise BarewireError(
                    f"{path}: wrong password, or the file was changed",
                    hint="the keystore's checksum does not match what this password decrypts",
                ) from None
            if status == keystore.CORRUPT:
                raise BarewireError(f"{path}: corrupt keystore: {said}") from None
            if status:
                last = said.splitlines()[-1] if said else f"exit status {status}"
                raise BarewireError(f"{path}: could not be decrypted: {last}") from None
            raise
    return key


def _read(fd: int, path: Path, password: bytes | None, *, bare: bool) -> Key:
    """The key in the open file, which holds a keystore or (if `bare`) the key itself."""
    if not keystore.looks_like_one(os.pread(fd, 64, 0)):
        if bare:
            return Key.from_fd(fd, str(path))
        raise BarewireError(
            f"{path} is not a keystore; a bare key in a file is refused",
            hint=f"barewire keys import --from {path} KEYSTORE, or force it (--force-raw)",
        )
    if password is None:
        raise BarewireError(f"{path} is a keystore, and no password was given")
    return _from_keystore(fd, path, password)


def load_key(path: Path, *, password: bytes | None = None, force_raw: bool = False) -> Key:
    """Reads a key from a keystore file, or, if forced, from one that holds the bare key.

    Args:
        path: a file with mode 0600 or less.
        password: of the keystore.
        force_raw: accept 32 raw bytes or 64 hexadecimal digits.

    Raises:
        BarewireError: permissions too wide, a corrupt keystore, a wrong password, a bare key that
            was not forced, or no locked memory.
    """
    fd = _open_private(path, 0o077)
    try:
        return _read(fd, path, password, bare=force_raw)
    finally:
        os.close(fd)


def load_credential(name: str, *, password: bytes | None = None) -> Key:
    """Reads a key from the systemd credential `name` (``LoadCredentialEncrypted=``).

    systemd keeps it in memory that is not swapped and lets only the unit read it, so the bare key
    is accepted here. (systemd.exec(5): the directory is named by ``$CREDENTIALS_DIRECTORY``. Access
    for the unit's user is an access list there, which shows as group bits.)
    """
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        raise BarewireError(
            f"no systemd credentials, so none named {name!r}",
            hint="LoadCredentialEncrypted= in the unit; $CREDENTIALS_DIRECTORY is not set",
        )
    if "/" in name or name in ("", ".", ".."):
        raise BarewireError(f"{name!r} is not the name of a credential")
    path = Path(folder) / name
    fd = _open_private(path, 0o027)
    try:
        return _read(fd, path, password, bare=True)
    finally:
        os.close(fd)
