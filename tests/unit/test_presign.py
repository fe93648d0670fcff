"""The arithmetic of presignatures, with nonces that the test chooses."""

from __future__ import annotations

import ctypes
import hashlib
import hmac
import os
import subprocess
from pathlib import Path

import pytest
from eth_account import Account
from eth_keys import keys

from barewire import secp

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
NATIVE = Path(__file__).resolve().parents[2] / "src/barewire/native"
EMPTY = -4


def rfc6979_nonce(key: bytes, digest: bytes) -> bytes:
    """Section 3.2 of RFC 6979 for HMAC-SHA256 and this group, as far as the first candidate."""

    def mac(secret: bytes, message: bytes) -> bytes:
        return hmac.new(secret, message, hashlib.sha256).digest()

    reduced = (int.from_bytes(digest, "big") % ORDER).to_bytes(32, "big")
    v, k = b"\1" * 32, bytes(32)
    for separator in (b"\0", b"\1"):
        k = mac(k, v + separator + key + reduced)
        v = mac(k, v)
    return mac(k, v)


@pytest.fixture(scope="module")
def forced(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """presign.c and what it needs, with a door for nonces."""
    built = tmp_path_factory.mktemp("presign") / "forced.so"
    sources = [NATIVE / f"{name}.c" for name in ("presign", "secp", "vault")]
    sources += NATIVE.glob("keccak*.c")
    command = ["cc", "-std=gnu11", "-O2", "-shared", "-fPIC", f"-I{NATIVE}", "-o", str(built)]
    here = Path(__file__).parent / "native/forced.c"
    subprocess.run([*command, str(here), *map(str, sources), "-ldl", "-lpthread"], check=True)
    library = ctypes.CDLL(str(built))
    path = secp.load().path
    assert library.bw_secp_load(path.encode()) == 0
    return library


def sign(
    library: ctypes.CDLL, key: bytes, nonces: list[bytes], index: int, digest: bytes
) -> tuple[int, bytes]:
    rs = ctypes.create_string_buffer(64)
    parity = library.forced_sign(key, b"".join(nonces), len(nonces), index, digest, rs)
    return parity, rs.raw


def test_equal_to_eth_accounts_signature_with_the_same_nonce(forced):
    for _ in range(200):
        key, digest = os.urandom(32), os.urandom(32)
        parity, rs = sign(forced, key, [rfc6979_nonce(key, digest)], 0, digest)
        theirs = Account.unsafe_sign_hash(digest, key)
        assert rs == theirs.r.to_bytes(32, "big") + theirs.s.to_bytes(32, "big")
        assert parity + 27 == theirs.v


@pytest.mark.parametrize("n", [1, 2, 3, 63, 64])
def test_each_of_a_batch_belongs_to_its_nonce(forced, n):
    key = os.urandom(32)
    address = keys.PrivateKey(key).public_key.to_canonical_address()
    nonces = [os.urandom(32) for _ in range(n)]
    for index in {0, n // 2, n - 1}:
        digest = os.urandom(32)
        parity, rs = sign(forced, key, nonces, index, digest)
        point = keys.PrivateKey(nonces[index]).public_key.to_bytes()[:32]
        assert rs[:32] == point
        assert int.from_bytes(rs[32:], "big") <= ORDER // 2
        assert secp.recover(digest, rs[:32], rs[32:], parity) == address


@pytest.mark.parametrize("key", [1, 2, ORDER - 1])
@pytest.mark.parametrize("nonce", [1, 2, ORDER - 1, ORDER - 2])
@pytest.mark.parametrize("digest", [0, 1, ORDER - 1])
def test_edges_of_the_group(forced, key, nonce, digest):
    raw = [number.to_bytes(32, "big") for number in (key, nonce, digest)]
    r = int.from_bytes(keys.PrivateKey(raw[1]).public_key.to_bytes()[:32], "big")
    s = pow(nonce, -1, ORDER) * (digest + r * key) % ORDER
    parity, rs = sign(forced, raw[0], [raw[1]], 0, raw[2])
    assert int.from_bytes(rs[32:], "big") == min(s, ORDER - s)
    address = keys.PrivateKey(raw[0]).public_key.to_canonical_address()
    assert secp.recover(raw[2], rs[:32], rs[32:], parity) == address


@pytest.mark.parametrize("digest", [ORDER, 2**256 - 1])
def test_a_hash_beyond_the_order_uses_the_entry_up_and_is_not_signed(forced, digest):
    parity, _ = sign(forced, b"\7" * 32, [b"\x09" * 32], 0, digest.to_bytes(32, "big"))
    assert parity == EMPTY


def test_a_signature_that_would_be_zero_is_none(forced):
    """z = -r d makes s zero: nobody can choose that, and it must not be sent."""
    key, nonce = b"\7" * 32, b"\x09" * 32
    r = int.from_bytes(keys.PrivateKey(nonce).public_key.to_bytes()[:32], "big")
    digest = -r * int.from_bytes(key, "big") % ORDER
    assert sign(forced, key, [nonce], 0, digest.to_bytes(32, "big"))[0] == EMPTY
