"""JSON that is meant to hurt."""

from __future__ import annotations

import json
import subprocess
import sys

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barewire.untrusted import DEEPEST, decode_json, too_deep


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
