"""Keystore files (Web3 Secret Storage, version 3): written here, and read in a child process.

Decrypting one makes the key a Python object, which nobody can wipe. So the signing process starts
``python -m barewire.execution.keystore``, which decrypts, writes the 32 bytes into a pipe that
native code reads straight into locked memory, and is gone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any, BinaryIO

from eth_keyfile.keyfile import create_keyfile_json, decode_keyfile_json

__all__ = ["decrypt", "encrypt", "main", "open_decrypted"]

WRONG_PASSWORD, CORRUPT = 3, 4
SCRYPT_N = 262144


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
    child.stdin.write(password)
    child.stdin.close()
    return child


def decrypt(text: bytes, password: bytes) -> tuple[int, bytes]:
    """The key in the keystore `text`, or what is wrong with it: an exit status, and the bytes."""
    try:
        keystore: Any = json.loads(text)
        if not isinstance(keystore, dict) or keystore.get("version") != 3:
            return CORRUPT, b"not a keystore of version 3"
        if keystore["crypto"]["cipher"] != "aes-128-ctr":  # the only one there is
            return CORRUPT, f"cipher {keystore['crypto']['cipher']!r}".encode()
        secret = bytes(decode_keyfile_json(keystore, password))
    except ValueError as error:
        # eth-keyfile says ValueError("MAC mismatch") for both a wrong password and changed bytes.
        if "MAC mismatch" in str(error):
            return WRONG_PASSWORD, b""
        return CORRUPT, str(error).encode()
    except (KeyError, TypeError, AttributeError, NotImplementedError) as error:
        return CORRUPT, f"{type(error).__name__}: {error}".encode()
    if len(secret) != 32:
        return CORRUPT, f"{len(secret)} bytes inside, not 32".encode()
    return 0, secret


def main(words: list[str], password: BinaryIO) -> int:
    """The child: reads keystore and password, writes the key to stdout or the fault to stderr."""
    with os.fdopen(int(words[0]), "rb") as file:
        status, said = decrypt(file.read(), password.read())
    os.write(2 if status else 1, said)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], sys.stdin.buffer))
