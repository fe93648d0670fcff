"""Tables with every kind of condition, under calldata that meets them and in wrappers."""

from __future__ import annotations

from collections.abc import Iterator

from barewire.mempool.triggers import Range, Trigger, Word, compile_triggers
from barewire.mempool.wrappers import STANDARD
from tests.unit.test_triggers import WRAPPED, address, call, probe, sample_blob

ONE = "0x" + "01" * 20


def seeds() -> Iterator[bytes]:
    data = probe(7)
    yield _input(0, data, sample_blob())
    yield _input(0, data, compile_triggers([], wrappers=[]))
    for conditions in (
        {"to": [ONE]},
        {"selector": ["probe(uint256)"]},
        {"to": [ONE], "selector": ["probe(uint256)"], "words": [Word(index=0, equals=[6, 7])]},
        {"words": [Word(offset=1, mask=0xFF, min=0, max=9)], "inside": True},
        {"value_wei": Range(min=1), "tip_wei": Range(max=1), "fee_cap_wei": Range(), "type_": [0]},
        {"origin": ["announced", "pool"], "type_": [0]},
        {"gas": Range(min=1), "chain_id": [1, 10], "sender": ["0x" + "03" * 20]},
    ):
        trigger = Trigger("t", **conditions)
        yield _input(0x00, data, compile_triggers([trigger], wrappers=[]))
        yield _input(0x23, data, compile_triggers([trigger], wrappers=[]))
    # enough of one key to be filed by words, and by sender
    for conditions in (
        [{"words": [Word(index=0, equals=i)]} for i in range(12)],
        [{"sender": [address(i)], "inside": True} for i in range(12)],
        [{"words": [Word(index=0, equals=7)], "sender": [address(i)]} for i in range(70)],
    ):
        many = [Trigger(str(i), **each) for i, each in enumerate(conditions)]
        yield _input(2, data, compile_triggers(many, wrappers=STANDARD[:1]))
    inside = [Trigger("t", selector=["probe(uint256)"], inside=True)]
    plain = [wrapper for wrapper in STANDARD if wrapper.command_set is None]
    for calldata, _ in WRAPPED.values():
        yield _input(0, calldata, compile_triggers(inside, wrappers=plain))
    commands = call("execute(bytes,bytes[])", b"\x04\x21", [bytes(96), bytes(64)])
    yield _input(0, commands, compile_triggers(inside))


def _input(flags: int, calldata: bytes, blob: bytes) -> bytes:
    return bytes([flags]) + len(calldata).to_bytes(2, "little") + calldata + blob
