"""Calldata with slots, against eth-abi."""

from __future__ import annotations

import random
from typing import Any

import pytest
from eth_abi.abi import encode

from barewire.errors import BarewireError
from barewire.execution.calldata import Calldata, Place, Slot, encode_call
from barewire.keccak import keccak256

TYPES: dict[str, Any] = {
    "uint256": lambda rng: rng.getrandbits(256),
    "uint24": lambda rng: rng.getrandbits(24),
    "uint8": lambda rng: rng.getrandbits(8),
    "int256": lambda rng: rng.getrandbits(256) - 2**255,
    "int24": lambda rng: rng.getrandbits(24) - 2**23,
    "address": lambda rng: rng.randbytes(20),
    "bool": lambda rng: rng.random() < 0.5,
    "bytes32": lambda rng: rng.randbytes(32),
    "bytes4": lambda rng: rng.randbytes(4),
    "bytes": lambda rng: rng.randbytes(43),
}


def filled(data: Calldata, values: dict[str, Any]) -> bytes:
    """What a template does with the slots' bytes."""
    out, packed = bytearray(data.data), data.pack(**values)
    for place in data.places:
        out[place.offset : place.offset + place.width] = packed[: place.width]
        packed = packed[place.width :]
    assert not packed
    return bytes(out)


def selector(signature: str) -> bytes:
    return keccak256(signature.encode())[:4]


def test_any_argument_can_be_a_slot():
    rng = random.Random(3)
    for _ in range(150):
        kinds = [rng.choice(list(TYPES)) for _ in range(rng.randrange(1, 6))]
        values = [TYPES[kind](rng) for kind in kinds]
        slots = {f"s{i}": i for i in range(len(kinds)) if rng.random() < 0.7}
        arguments = list(values)
        for name, i in slots.items():
            arguments[i] = Slot(name, 43 if kinds[i] == "bytes" else 0)
        data = encode_call(f"f({','.join(kinds)})", arguments)
        expected = selector(f"f({','.join(kinds)})") + encode(kinds, values)
        assert filled(data, {name: values[i] for name, i in slots.items()}) == expected


def test_slots_inside_tuples_and_arrays():
    abi = {
        "name": "exactInputSingle",
        "inputs": [
            {
                "type": "tuple[]",
                "components": [
                    {"type": "address", "name": "token"},
                    {"type": "uint24"},
                    {"type": "tuple", "components": [{"type": "uint256"}, {"type": "bool"}]},
                ],
            },
            {"type": "string"},
        ],
    }
    one, two = (b"\1" * 20, 500, (7, True)), (b"\2" * 20, 3000, (2**255, False))
    data = encode_call(
        abi,
        [
            [
                (Slot("t"), 500, (Slot("a"), True)),
                (b"\2" * 20, Slot("fee"), (Slot("b"), Slot("x"))),
            ],
            "hi",
        ],
    )
    types = ["(address,uint24,(uint256,bool))[]", "string"]
    expected = selector(f"exactInputSingle({','.join(types)})") + encode(types, [[one, two], "hi"])
    assert filled(data, {"t": b"\1" * 20, "a": 7, "fee": 3000, "b": 2**255, "x": False}) == expected


def test_calldata_inside_calldata():
    inner = encode_call("approve(address,uint256)", [Slot("spender"), Slot("amount")])
    outer = encode_call(
        "run((address,bytes)[],uint8)",
        [[(b"\5" * 20, inner), (b"\6" * 20, Calldata(b""))], Slot("mode")],
    )
    call = selector("approve(address,uint256)") + encode(["address", "uint256"], [b"\7" * 20, 9])
    expected = selector("run((address,bytes)[],uint8)") + encode(
        ["(address,bytes)[]", "uint8"], [[(b"\5" * 20, call), (b"\6" * 20, b"")], 3]
    )
    assert filled(outer, {"spender": b"\7" * 20, "amount": 9, "mode": 3}) == expected


def test_without_arguments():
    assert encode_call("deposit()", []).data == selector("deposit()")


def test_addresses_and_bytes_may_be_text():
    data = encode_call("f(address,bytes4)", [Slot("who"), Slot("what")])
    who = "0x" + "ab" * 20
    assert data.pack(who=who, what="0x01020304") == bytes.fromhex(who[2:]) + b"\1\2\3\4"


@pytest.mark.parametrize(
    ("function", "arguments", "said"),
    [
        ("f(uint257)", [1], "integer size out of bounds"),
        ("f(foo)", [1], "foo"),
        ("f(foo)", [Slot("x")], "foo"),
        ("f(uint256", [1], "uint256"),
        ("f(uint256)", [], "0 items when 1"),
        ("f(uint256)", [1, 2], "2 items when 1"),
        ("f(uint256)", [-1], "f\\(uint256\\)"),
        ("f(uint8)", [256], "f\\(uint8\\)"),
        ("f(string)", [Slot("x")], "no fixed width"),
        ("f(bytes)", [Slot("x")], "no fixed width"),
        ("f(uint256[])", [Slot("x")], "x: an argument of type uint256"),
        ("f((uint256,bool))", [Slot("x")], "x: an argument of type"),
        ("f(bytes4)", [Slot("x", 5)], "bytes4 is not 5 bytes wide"),
        ("f(uint256,uint256)", [Slot("x"), Slot("x")], "two slots are named x"),
        ("f(uint256)", [Calldata(b"1234")], "calldata was given for an argument of type uint256"),
        ("f(fixed128x18)", [Slot("x")], "no fixed width"),
    ],
)
def test_what_cannot_be_encoded_is_said(function, arguments, said):
    with pytest.raises(BarewireError, match=said):
        encode_call(function, arguments)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"n": 2**24, "who": bytes(20), "b": True},
            "slot n: 16777216 is not a value of type uint24",
        ),
        ({"n": -1, "who": bytes(20), "b": True}, "slot n"),
        ({"n": b"\1", "who": bytes(20), "b": True}, "slot n"),
        ({"n": 1, "who": bytes(19), "b": True}, "slot who \\(address\\) takes 20 bytes, not 19"),
        ({"n": 1, "who": "0xzz", "b": True}, "slot who"),
        ({"n": 1, "who": 5, "b": True}, "slot who"),
        ({"n": 1, "who": bytes(20), "b": 1}, "slot b: 1 is not a value of type bool"),
        ({"n": 1, "who": bytes(20)}, "slots: b"),
        ({"n": 1, "who": bytes(20), "b": True, "z": 1}, "no z"),
    ],
)
def test_values_that_do_not_fit_are_said(values, said):
    data = encode_call("f(uint24,address,bool)", [Slot("n"), Slot("who"), Slot("b")])
    with pytest.raises(BarewireError, match=said):
        data.pack(**values)


def test_places_that_overlap_are_refused():
    with pytest.raises(BarewireError, match="slots a and b overlap"):
        Calldata(bytes(40), (Place("b", 11, 8, "bytes"), Place("a", 4, 8, "bytes")))
    assert Calldata(bytes(40), (Place("b", 12, 8, "bytes"), Place("a", 4, 8, "bytes")))


@pytest.mark.parametrize(
    ("length", "place"),
    [
        (10, Place("x", 3, 8, "bytes")),
        (10, Place("x", -1, 2, "bytes")),
        (10, Place("x", 0, 0, "b")),
        (1, Place("x", 0, 1, "bytes")),
    ],
)
def test_places_outside_are_refused(length, place):
    with pytest.raises(BarewireError):
        Calldata(bytes(length), (place,))
