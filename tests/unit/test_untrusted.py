"""JSON that is meant to hurt."""

from __future__ import annotations

import json
import subprocess
import sys

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barewire.errors import shown
from barewire.untrusted import (
    DEEPEST,
    LONGEST,
    bytes_of,
    decode_json,
    printable,
    quantity_of,
    too_deep,
)


@pytest.mark.parametrize("pair", [b"[]", b"{}"])
def test_the_bound_is_exact(pair):
    for depth, deep in ((DEEPEST, False), (DEEPEST + 1, True)):
        text = pair[:1] * depth + pair[1:] * depth
        assert too_deep(text) is deep
        assert too_deep(bytearray(text)) is deep
        assert too_deep(memoryview(text)) is deep


def test_long_is_not_deep():
    assert not too_deep(json.dumps([{"logs": [[1], [2]]}] * 50_000).encode())
    assert not too_deep(b'"' + b"x" * 100_000 + b'"')


@settings(max_examples=50, deadline=None)
@given(lead=st.integers(0, 200_000), depth=st.integers(DEEPEST - 5, DEEPEST + 5))
def test_wherever_it_lies(lead, depth):
    text = b"[" + b"[]," * lead + b"[" * (depth - 1) + b"]" * (depth - 1) + b"]"
    assert too_deep(text) is (depth > DEEPEST)


def test_a_deep_answer_does_not_take_the_process_with_it():
    """web3's dependencies raise the recursion limit beyond what the stack can hold."""
    script = """
import sys
sys.setrecursionlimit(100_000)
from barewire.rpc.faults import Trouble
from barewire.rpc.jsonrpc import decode
for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
    try:
        decode(b'{"id":1,"result":' + opening * 90_000 + b"1" + closing * 90_000 + b"}")
    except Trouble as trouble:
        print(trouble.message)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.count("nested deeper than 2,500 levels") == 2


@pytest.mark.parametrize("text", [b"", b"{", b'"\xff"', b"[" * 9_000 + b"]" * 9_000, b"NaN"])
def test_whatever_is_wrong_is_one_kind_of_error(text):
    with pytest.raises(msgspec.DecodeError):
        decode_json(msgspec.json.Decoder().decode, text)


def test_a_decoder_that_cannot_turn_so_many_digits_into_a_number_is_no_worse():
    with pytest.raises(msgspec.DecodeError):
        decode_json(json.loads, b"1" * 1_000_000)


FORGED = "\x1b]0;owned\x07\x1b[2J\n12:00:00  EVENT        all sources live"


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("rate limit", "rate limit"),
        ("  two\r\n  lines ", "two lines"),
        ("Grüße, 東京", "Grüße, 東京"),
        (FORGED, r"\x1b]0;owned\x07\x1b[2J 12:00:00 EVENT all sources live"),
        ("caf\udce9", r"caf\udce9"),
        (b"caf\xe9", r"caf\xe9"),
        ("\u202egnp.exe\u2028\x85\x9b", r"\u202egnp.exe\u2028\x85\x9b"),
        (ValueError("a\nb"), "a b"),
        (None, "None"),
        (-32000, "-32000"),
        (10**6000, "a number of 19932 bits"),
        ("x" * 400, "x" * (LONGEST - 1) + "…"),
    ],
    ids=range(12),
)
def test_words_of_others_are_one_harmless_line(said, line):
    assert printable(said) == line


def test_what_nests_without_end_has_words_too():
    said: object = []
    for _ in range(100_000):
        said = [said]
    assert len(printable(said)) <= LONGEST
    while isinstance(said, list) and said:  # not by recursion either
        said = said.pop()


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(), st.binary(), st.text(st.characters())), st.integers(1, 50))
def test_any_words_can_be_printed_and_stored(said, most):
    line = printable(said, most)
    assert len(line) <= most
    assert line.isprintable()
    assert json.loads(msgspec.json.encode(line)) == line


@pytest.mark.parametrize(
    ("said", "bits", "number"),
    [("0x0", 64, 0), ("0xff", 8, 255), ("0X0010", 64, 16), ("0x" + "f" * 64, 256, 2**256 - 1)],
)
def test_quantities(said, bits, number):
    assert quantity_of(said, bits) == number


@pytest.mark.parametrize(
    "said",
    [
        *("", "0x", "12", "0x1_0", " 0x1", "0x1\n", "-0x1", "0x\u0661", "0x" + "f" * 17),
        *("0x" + "0" * 65, "0x" + "f" * 1_000_000, 5, None, [], b"0x1", True),
    ],
)
def test_what_is_no_quantity(said):
    with pytest.raises(ValueError, match="quantity") as raised:
        quantity_of(said)
    assert len(str(raised.value)) < 200


def test_bytes_in_digits():
    assert bytes_of("0x") == b""
    assert bytes_of("0xAb01") == b"\xab\x01"
    assert bytes_of("0x" + "11" * 32, 32) == b"\x11" * 32
    for said in ("0x1", "11", "0xzz", "0x 11", "0x11\n", "0x\u0661\u0661", 7, None, b"0x11"):
        with pytest.raises(ValueError, match="not hexadecimal bytes"):
            bytes_of(said)
    with pytest.raises(ValueError, match="2 bytes, not 32"):
        bytes_of("0x1234", 32)


def test_numbers_that_python_refuses_to_write_are_shown():
    assert shown([10**5000]) == "[<a number of 16610 bits>]"
    assert "16610 bits" in printable({"a": -(10**5000)})
