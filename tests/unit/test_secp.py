"""The libsecp256k1 that is found at start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import coincurve
import pytest
from eth_keys import keys

from barewire import secp
from barewire._native import ffi, lib
from barewire.errors import BarewireError

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


def sign(digest: bytes, key: bytes) -> tuple[int, bytes]:
    rs = ffi.new("uint8_t[64]")
    parity = lib.bw_secp_sign(digest, key, rs)
    return parity, bytes(rs)


def test_it_says_which_library_it_uses():
    library = secp.load()
    assert Path(library.path).is_file()
    assert "secp256k1" in Path(library.path).name
    assert library.version
    assert secp.load() == library


def test_recovers_what_an_independent_library_signed():
    secp.load()
    for _ in range(200):
        key, digest = os.urandom(32), os.urandom(32)
        signed = coincurve.PrivateKey(key).sign_recoverable(digest, hasher=None)
        expected = keys.PrivateKey(key).public_key.to_canonical_address()
        assert secp.recover(digest, signed[:32], signed[32:64], signed[64]) == expected


def test_signs_as_rfc_6979_says():
    secp.load()
    for _ in range(100):
        key, digest = os.urandom(32), os.urandom(32)
        parity, rs = sign(digest, key)
        signed = coincurve.PrivateKey(key).sign_recoverable(digest, hasher=None)
        assert rs + bytes([parity]) == signed


def test_address_of_a_key():
    secp.load()
    out = ffi.new("uint8_t[20]")
    for key in (1, 2, ORDER - 1):
        raw = key.to_bytes(32, "big")
        assert lib.bw_secp_address(raw, out) == 1
        assert bytes(out) == keys.PrivateKey(raw).public_key.to_canonical_address()


@pytest.mark.parametrize("key", [0, ORDER, 2**256 - 1])
def test_what_is_no_key_is_refused(key):
    secp.load()
    raw = key.to_bytes(32, "big")
    assert lib.bw_secp_address(raw, ffi.new("uint8_t[20]")) == 0
    assert sign(bytes(32), raw)[0] == -2


def test_what_nobody_signed_is_nobodys():
    key, digest = os.urandom(32), os.urandom(32)
    signed = coincurve.PrivateKey(key).sign_recoverable(digest, hasher=None)
    r, s, parity = signed[:32], signed[32:64], signed[64]
    zero, order = bytes(32), ORDER.to_bytes(32, "big")
    assert secp.recover(digest, zero, s, parity) is None
    assert secp.recover(digest, r, zero, parity) is None
    assert secp.recover(digest, order, s, parity) is None
    assert secp.recover(digest, r, order, parity) is None
    assert secp.recover(digest, r, s, 2) is None
    assert secp.recover(digest, r, s, -1) is None
    with pytest.raises(ValueError, match="32 bytes"):
        secp.recover(digest, r[1:], s, parity)


def in_a_fresh_process(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


def test_nothing_works_before_a_library_is_loaded():
    code = (
        "from barewire._native import ffi, lib; o = ffi.new('uint8_t[64]'); "
        "print(lib.bw_secp_recover(bytes(32), bytes(64), 0, o), lib.bw_secp_address(bytes(32), o),"
        " lib.bw_secp_sign(bytes(32), bytes(32), o), lib.bw_secp_path() == ffi.NULL)"
    )
    assert in_a_fresh_process(code) == "-1 -1 -1 True"


def test_the_wheel_is_found_where_the_system_has_none():
    code = (
        "from barewire import secp; secp._SYSTEM = ['libsecp256k1.so.none']; "
        "print(secp.load().version); print(secp.recover(bytes(32), bytes(32), bytes(32), 0))"
    )
    version, nobody = in_a_fresh_process(code).splitlines()
    assert version.startswith("coincurve ")
    assert nobody == "None"


def test_a_library_of_something_else_is_refused_in_words():
    code = (
        "from barewire import secp\n"
        "from barewire.errors import BarewireError\n"
        "try: secp.load('libm.so.6')\n"
        "except BarewireError as e: print(e.message, '|', e.hint)"
    )
    said = in_a_fresh_process(code)
    assert "libm.so.6 has no secp256k1" in said
    assert "libsecp256k1-1" in said


def test_a_second_library_is_not_loaded_in_silence():
    secp.load()
    with pytest.raises(BarewireError, match="already in use"):
        secp.load("/usr/lib/other/libsecp256k1.so.1")
