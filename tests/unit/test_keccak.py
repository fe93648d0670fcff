"""Keccak-256 against an independent implementation and the constants of the yellow paper."""

import sha3

from barewire import keccak256


def test_published_values():
    assert keccak256(b"").hex() == (
        "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"
    )
    assert keccak256(b"\x80").hex() == (
        "56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421"
    )


def test_every_length_equals_pysha3():
    material = bytes(range(251)) * 4
    for length in range(1001):
        assert keccak256(material[:length]) == sha3.keccak_256(material[:length]).digest()
