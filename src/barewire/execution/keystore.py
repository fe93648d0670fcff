"""Keystore files (Web3 Secret Storage, version 3): written here, and read in a child process.

Decrypting one makes the key a Python object, which nobody can wipe. So the signing process starts
``python -m barewire.execution.keystore``, which decrypts, writes the 32 bytes into a pipe that
native code reads straight into locked memory, and is gone. It hardens itself as the signing process
does (barewire.execution.harden) and is told the password only when it has said so.
"""

from __future__ import annotations

import codecs
import json
import logging
import os
import subprocess
import sys
from typing import Any, BinaryIO

from barewire.execution.harden import harden, lock_memory, traced_by
from barewire.interpreter import recursion_limit_kept
from barewire.untrusted import DEEPEST, too_deep

with recursion_limit_kept():
    from eth_keyfile.keyfile import create_keyfile_json, decode_keyfile_json, normalize_keys
    from eth_keys.datatypes import PrivateKey
    from eth_utils.exceptions import ValidationError

__all__ = ["decrypt", "encrypt", "looks_like_one", "main", "open_decrypted", "parsed"]

WRONG_PASSWORD, CORRUPT, TRACED = 3, 4, 5
SCRYPT_N = 262144
_READY = b"hardened "
_LOG = logging.getLogger(__name__)

# What opening a file may cost, whoever wrote it: 1 GiB is four times what is usual. The p of
# scrypt times its r are hashed one by one beside that, in Python; 8 to 48 of them are usual.
_FILE_BYTES, _SCRYPT_BYTES, _SCRYPT_WIDTH, _PBKDF2_ROUNDS = 65536, 1 << 30, 1024, 10_000_000


def encrypt(secret: bytes, password: bytes, *, scrypt_n: int = SCRYPT_N) -> bytes:
    """The keystore file of `secret` (32 bytes) under `password`, as JSON text."""
    return json.dumps(
        create_keyfile_json(secret, password, version=3, kdf="scrypt", iterations=scrypt_n)
    ).encode()


def open_decrypted(keystore_fd: int, password: bytes) -> subprocess.Popen[bytes]:
    """Starts the process that decrypts the file open at `keystore_fd`; its stdout is the key."""
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "barewire.execution.keystore", str(keystore_fd)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=[keystore_fd],
    )
    assert child.stdin is not None
    assert child.stdout is not None
    ready = _line(child.stdout.fileno())
    if ready.startswith(_READY):
        if unlocked := ready.removeprefix(_READY).decode(errors="replace").strip():
            _LOG.warning(
                "what decrypts a keystore could not keep its memory out of swap: %s", unlocked
            )
        child.stdin.write(password)
    child.stdin.close()
    return child


def _line(fd: int) -> bytes:
    """What comes up to a line's end and not a byte more: what follows is not for Python's eyes."""
    said = b""
    while len(said) < 512 and not said.endswith(b"\n") and (byte := os.read(fd, 1)):
        said += byte
    return said


def looks_like_one(head: bytes) -> bool:
    """Whether a file that begins with `head` (64 bytes, or all of it) is meant as a keystore.

    32 bytes are a bare key whatever they are: one of 256 begins with a brace. Programs of Windows
    put a byte-order mark before the brace, or write UTF-16; others put white space there.
    """
    if len(head) == 32:
        return False
    text = head.removeprefix(codecs.BOM_UTF8).lstrip()
    wide = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return (text.replace(b"\0", b"")[2:].lstrip() if wide else text).startswith(b"{")


def decrypt(text: bytes, password: bytes) -> tuple[int, bytes]:
    """The key in the keystore `text`, or what is wrong with it: an exit status, and the bytes."""
    try:
        return 0, _opened(text, password)
    except ValueError as error:
        # eth-keyfile says ValueError("MAC mismatch") for both a wrong password and changed bytes.
        if "MAC mismatch" in str(error):
            return WRONG_PASSWORD, b""
        return CORRUPT, _said(error)
    except (KeyError, TypeError, AttributeError, NotImplementedError) as error:
        return CORRUPT, f"{type(error).__name__}: ".encode() + _said(error)


def _said(error: Exception) -> bytes:
    return str(error).encode(errors="replace")[:300]


def parsed(text: bytes) -> dict[str, Any]:
    """The keystore of version 3 in `text`, its keys in lower case (geth once wrote "Crypto").

    UTF-8 with a byte-order mark or without, or UTF-16.

    Raises:
        ValueError: it is none.
    """
    if len(text) > _FILE_BYTES:
        raise ValueError(f"more than {_FILE_BYTES} bytes")
    if too_deep(text):
        raise ValueError(f"nested deeper than {DEEPEST:,} levels")
    try:
        keystore: Any = json.loads(text.lstrip())
        keystore = normalize_keys(keystore) if isinstance(keystore, dict) else {}
    except RecursionError:
        raise ValueError("nested deeper than this interpreter reads") from None
    if keystore.get("version") != 3:
        raise ValueError("not a keystore of version 3")
    return dict(keystore)


def _opened(text: bytes, password: bytes) -> bytes:
    keystore = parsed(text)
    _check(keystore["crypto"])
    secret = bytes(decode_keyfile_json(keystore, password))
    if not 0 < len(secret) <= 32:
        raise ValueError(f"{len(secret)} bytes inside, not 32")
    secret = secret.rjust(32, b"\0")  # geth before 1.5 left out zeros in front
    _check_address(secret, keystore.get("address"))
    return secret


def _check(crypto: Any) -> None:
    """Refuses what the checksum does not cover, and work beyond the limits."""
    if crypto["cipher"] != "aes-128-ctr":  # the only one there is
        raise ValueError(f"cipher {crypto['cipher']!r}")
    iv = bytes.fromhex(crypto["cipherparams"]["iv"].removeprefix("0x"))
    if len(iv) != 16:
        raise ValueError(f"iv of {len(iv)} bytes, not 16")
    params = crypto["kdfparams"]
    if _count(params, "dklen") != 32:
        raise ValueError(f"dklen {params['dklen']}, not 32")
    if crypto["kdf"] == "scrypt":
        width = _count(params, "r") * _count(params, "p")
        need = 128 * _count(params, "n") * width
        if need > _SCRYPT_BYTES:
            raise ValueError(f"128 n r p = {need} of scrypt, and the limit is {_SCRYPT_BYTES}")
        if width > _SCRYPT_WIDTH:
            raise ValueError(f"r p = {width} of scrypt, and the limit is {_SCRYPT_WIDTH}")
    elif crypto["kdf"] == "pbkdf2":
        if _count(params, "c") > _PBKDF2_ROUNDS:
            raise ValueError(f"c = {params['c']} of pbkdf2, and the limit is {_PBKDF2_ROUNDS}")
        if params["prf"] != "hmac-sha256":
            raise ValueError(f"prf {params['prf']!r}, not hmac-sha256")


def _count(params: Any, name: str) -> int:
    value = params[name]
    if type(value) is not int or value < 1:
        raise ValueError(f"{name} = {value!r}, not a number above 0")
    return value


def _check_address(secret: bytes, said: Any) -> None:
    """Refuses another key than the file says; the checksum does not cover the iv."""
    if not said:
        return
    try:
        address = PrivateKey(secret).public_key.to_canonical_address()
    except ValidationError:  # which shows the number
        raise ValueError("inside is no private key: zero, or not below the group order") from None
    if bytes.fromhex(said.removeprefix("0x")) != address:
        raise ValueError(f"the key inside is of 0x{address.hex()}, and address says {said!r}")


def main(words: list[str], password: BinaryIO) -> int:
    """The child: reads keystore and password, writes the key to stdout or the fault to stderr.

    Before the password a line: that it is hardened, and what it could not do of that.
    """
    harden()
    if tracer := traced_by():
        os.write(2, f"process {tracer} traces the one that would decrypt".encode())
        return TRACED
    os.write(1, _READY + lock_memory().encode() + b"\n")
    with os.fdopen(int(words[0]), "rb") as file:
        status, said = decrypt(file.read(_FILE_BYTES + 1), password.read())
    os.write(2 if status else 1, said)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], sys.stdin.buffer))
