"""Triggers against a reference that knows nothing of hashes: every condition of every trigger, in
plain Python, over calls that eth-abi encoded."""

import json
import random
import sys
import threading
from dataclasses import replace
from types import SimpleNamespace

import eth_abi
import msgspec
import pytest
import sha3
from hypothesis import given
from hypothesis import strategies as st

from barewire import ConfigError
from barewire._native import ffi, lib
from barewire.mempool.abi import parse_function
from barewire.mempool.trigger_table import TriggerTable, load_native
from barewire.mempool.triggers import (
    CHAIN,
    Range,
    Trigger,
    Word,
    compile_triggers,
    parse_triggers,
    read_triggers,
)
from barewire.mempool.wrappers import STANDARD, UNIVERSAL_ROUTER, CommandSet, Wrapper
from tests.examples import examples


def selector(signature: str) -> bytes:
    return sha3.keccak_256(signature.encode()).digest()[:4]


def address(number: int) -> str:
    return f"0x{number:040x}"


def transaction(
    to=1, data=b"", value=0, tip=0, cap=0, gas=21000, chain=1, kind=2, sender=None
) -> SimpleNamespace:
    return SimpleNamespace(**locals())


class Burst:
    """What `TriggerTable.match` needs of a decoded burst, made of `transaction`s."""

    def __init__(self, txs):
        self.records = ffi.new("struct bw_tx[]", len(txs))
        self.native_messages = ffi.new("struct bw_message[]", len(txs))
        # Exactly as long as the calldata, so that a sanitizer would see a read past its end.
        self.held = [ffi.new("uint8_t[]", tx.data or b"\0") for tx in txs]
        for record, message, data, tx in zip(
            self.records, self.native_messages, self.held, txs, strict=True
        ):
            message.data = data
            record.raw_len = len(data)
            record.data_len = len(tx.data)
            if len(tx.data) >= 4:
                record.flags |= lib.BW_TX_HAS_SELECTOR
                record.selector = int.from_bytes(tx.data[:4], "big")
            if tx.to is None:
                record.flags |= lib.BW_TX_CREATE
            else:
                record.to = tx.to.to_bytes(20, "big")
            if tx.sender is not None:
                record.flags |= lib.BW_TX_SENDER
                record.sender = tx.sender.to_bytes(20, "big")
            for field, number in (
                (record.value_wei, tx.value),
                (record.tip_wei, tx.tip),
                (record.fee_cap_wei, tx.cap),
            ):
                for i in range(4):
                    field[i] = number >> 64 * i & (2**64 - 1)
            record.gas, record.chain_id, record.type = tx.gas, tx.chain, tx.kind

    def __len__(self):
        return len(self.records)


def within(number, bounds):
    if bounds is None:
        return True
    low = bounds.min if bounds.min is not None else 0
    high = bounds.max if bounds.max is not None else 2**256
    return low <= number <= high


def word_holds(word, arguments):
    at = word.offset if word.index is None else 32 * word.index
    if at + 32 > len(arguments):
        return False
    found = int.from_bytes(arguments[at : at + 32], "big")
    if word.mask is not None:
        found &= word.mask
    if word.equals is not None:
        return found in word.equals
    return within(found, word)


def expected(trigger, tx, target=None, data=None, value=None):
    """True, False, or "sender" where all holds but the sender is not known."""
    target = tx.to if target is None else target
    data = tx.data if data is None else data
    value = tx.value if value is None else value
    head, arguments = (data[:4], data[4:]) if len(data) >= 4 else (None, data)
    holds = (
        (not trigger.to or (target is not None and address(target) in trigger.to))
        and (not trigger.selector or (head is not None and "0x" + head.hex() in trigger.selector))
        and within(value, trigger.value_wei)
        and within(tx.tip, trigger.tip_wei)
        and within(tx.cap, trigger.fee_cap_wei)
        and within(tx.gas, trigger.gas)
        and (not trigger.chain_id or tx.chain in trigger.chain_id)
        and (not trigger.type_ or tx.kind in trigger.type_)
        and all(word_holds(word, arguments) for word in trigger.words)
    )
    if not holds or not trigger.sender:
        return holds
    return "sender" if tx.sender is None else address(tx.sender) in trigger.sender


few = st.integers(0, 3)
ranges = st.none() | st.tuples(few, few).map(lambda b: Range(min=min(b), max=max(b)))
targets = st.lists(few.map(address), max_size=2)
words = st.builds(
    lambda at, mask, values, bounds: (
        Word(offset=at, mask=mask, equals=sorted({v & (mask or v) for v in values}))
        if values
        else Word(offset=at, mask=mask, min=0, max=bounds & (mask if mask is not None else bounds))
    ),
    st.sampled_from([0, 32, 33, 64]),
    st.sampled_from([None, 3, 1]),
    st.lists(few, max_size=3),
    few,
)
triggers = st.lists(
    st.builds(
        dict,
        to=targets,
        selector=st.lists(few.map(lambda n: f"0x{n:08x}"), max_size=2),
        value_wei=ranges,
        tip_wei=ranges,
        fee_cap_wei=ranges,
        gas=ranges,
        chain_id=st.lists(few, max_size=2),
        type_=st.lists(few, max_size=2),
        words=st.lists(words, max_size=3),
        sender=targets,
    ),
    max_size=40,
)
calldata = st.one_of(
    st.binary(max_size=5),
    st.builds(
        lambda head, args, tail: (
            head.to_bytes(4, "big") + eth_abi.encode(["uint256[3]"], [args]) + tail
        ),
        few,
        st.lists(few, min_size=3, max_size=3),
        st.binary(max_size=2),
    ),
)
transactions = st.lists(
    st.builds(
        transaction,
        to=st.none() | few,
        data=calldata,
        value=few,
        tip=few,
        cap=few,
        gas=few,
        chain=few,
        kind=few,
        sender=st.none() | few,
    ),
    min_size=1,
    max_size=40,
)


@examples(60, 2000)
@given(triggers=triggers, txs=transactions)
def test_equals_the_reference(triggers, txs):
    named = [Trigger(name=str(i), **conditions) for i, conditions in enumerate(triggers)]
    with TriggerTable(named) as table:
        found = table.match(Burst(txs), limit=40 * 40)
        overflow = table.stats.overflow
    assert found == sorted(found, key=lambda match: match.index)
    for index, tx in enumerate(txs):
        told = {m.trigger: m.needs_sender for m in found if m.index == index}
        assert len(told) == sum(m.index == index for m in found), "reported twice"
        wanted = {t.name: expected(t, tx) for t in named}
        sure = {name for name, holds in wanted.items() if holds is True}
        if overflow and len(told) == lib.BW_MATCHES_PER_TX:
            assert {name for name, needs in told.items() if not needs} <= sure
            continue
        assert {name for name, needs in told.items() if not needs} == sure
        if any(holds == "sender" for holds in wanted.values()):
            assert any(told.values())
        if tx.sender is not None:
            assert not any(told.values())


def test_more_matches_than_are_reported_are_counted():
    with TriggerTable([Trigger(name=str(i)) for i in range(20)]) as table:
        assert len(table.match(Burst([transaction(), transaction()]))) == 32
        assert table.stats.overflow == 8
        assert len(table.match(Burst([transaction()] * 2), limit=17)) == 17


WORD = 2**255 + 12345
SHAPES = {
    "target": (
        lambda i: {"to": [address(i)]},
        lambda i: transaction(to=i, data=bytes(4)),
    ),
    "selector": (
        lambda i: {"selector": [f"0x{i:08x}"]},
        lambda i: transaction(data=i.to_bytes(4, "big")),
    ),
    "word": (
        lambda i: {"to": [address(9)], "words": [Word(index=1, equals=WORD + i)]},
        lambda i: transaction(to=9, data=bytes(36) + (WORD + i).to_bytes(32, "big")),
    ),
    "masked word": (
        lambda i: {"to": [address(9)], "words": [Word(offset=3, mask=0xFFFFFF00, equals=i << 8)]},
        lambda i: transaction(to=9, data=bytes(7) + b"\xff" * 28 + i.to_bytes(3, "big") + b"\7"),
    ),
    "two words that repeat": (
        lambda i: {"words": [Word(index=0, equals=i // 300), Word(index=1, equals=i % 300)]},
        lambda i: transaction(data=bytes(4) + eth_abi.encode(["uint256"] * 2, [i // 300, i % 300])),
    ),
    "sender": (
        lambda i: {"to": [address(9)], "sender": [address(i)]},
        lambda i: transaction(to=9, sender=i, data=bytes(4)),
    ),
    "one word, many senders": (
        lambda i: {"words": [Word(index=0, equals=7)], "sender": [address(i)]},
        lambda i: transaction(sender=i, data=bytes(4) + (7).to_bytes(32, "big")),
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_thousands_that_an_exact_value_tells_apart(shape):
    conditions, met_by = SHAPES[shape]
    count = 20_000
    numbers = [0, 1, 4711, count - 1, count]
    with TriggerTable([Trigger(name=str(i), **conditions(i)) for i in range(count)]) as table:
        found = table.match(Burst([met_by(i) for i in numbers]))
    assert [(m.index, m.trigger, m.needs_sender) for m in found] == [
        (index, str(i), False) for index, i in enumerate(numbers) if i < count
    ]


def test_one_trigger_of_thousands_of_targets_and_senders():
    everyone = [address(i) for i in range(0, 20_000, 2)]
    with TriggerTable([Trigger("t", to=everyone, sender=everyone)]) as table:
        found = table.match(
            Burst([transaction(to=a, sender=b) for a, b in [(4, 8), (5, 8), (4, 7), (19_998, 0)]])
        )
    assert [m.index for m in found] == [0, 3]


def test_what_nothing_tells_apart_is_bounded_and_named():
    same = [Trigger(f"t{i}", to=[address(1)], value_wei=Range(min=i)) for i in range(CHAIN + 1)]
    with TriggerTable(same[:CHAIN]) as table, pytest.raises(ConfigError) as caught:
        table.replace(same)
    assert caught.value.message.startswith(f"trigger 't{CHAIN}': too many triggers of one target")
    assert caught.value.hint == f"allowed: at most {CHAIN}"
    apart = [Trigger(str(i), words=[Word(index=i, equals=1)]) for i in range(CHAIN + 10)]
    with TriggerTable() as table, pytest.raises(ConfigError, match="in too many different places"):
        table.replace(apart)
    with TriggerTable() as table, pytest.raises(ConfigError, match="the same calldata words"):
        table.replace(
            [Trigger(str(i), words=[Word(index=0, equals=1)], gas=Range(min=i)) for i in range(99)]
        )


def test_refused_records_and_creations():
    burst = Burst([transaction(to=0, data=bytes(4)), transaction(to=None, data=bytes(4))])
    with TriggerTable([Trigger("zero", to=[address(0)]), Trigger("any")]) as table:
        assert {(m.index, m.trigger) for m in table.match(burst)} == {
            (0, "zero"),
            (0, "any"),
            (1, "any"),
        }
        burst.records[0].raw_len = 0
        assert {m.index for m in table.match(burst)} == {1}


# ---- wrappers ----

PROBE = selector("probe(uint256)")


def probe(number: int) -> bytes:
    return PROBE + number.to_bytes(32, "big")


def call(signature: str, *arguments) -> bytes:
    types = signature[signature.index("(") :]
    return selector(signature) + eth_abi.encode([types], [arguments])[32 * _dynamic(types) :]


def _dynamic(types: str) -> int:
    # eth-abi wraps a dynamic tuple into an offset; a call's arguments stand without it
    return 1 if "[]" in types or "bytes" in types.replace("bytes32", "") else 0


OP6 = "(address,uint256,bytes,bytes,uint256,uint256,uint256,uint256,uint256,bytes,bytes)"
OP7 = "(address,uint256,bytes,bytes,bytes32,uint256,bytes32,bytes,bytes)"
A, B = address(100), address(101)
# name: (calldata, [(target, value, calldata of the inner call)]); the outer call goes to 1 with 5
WRAPPED = {
    "multicall": (call("multicall(bytes[])", [probe(1), b"", probe(2)]), [(1, 5, 1), (1, 5, 2)]),
    "multicall deadline": (call("multicall(uint256,bytes[])", 9, [probe(1)]), [(1, 5, 1)]),
    "multicall blockhash": (
        call("multicall(bytes32,bytes[])", bytes(32), [probe(1)]),
        [(1, 5, 1)],
    ),
    "aggregate": (
        call("aggregate((address,bytes)[])", [(A, probe(1)), (B, probe(2))]),
        [(100, 0, 1), (101, 0, 2)],
    ),
    "tryAggregate": (
        call("tryAggregate(bool,(address,bytes)[])", True, [(A, probe(1))]),
        [(100, 0, 1)],
    ),
    "tryBlockAndAggregate": (
        call("tryBlockAndAggregate(bool,(address,bytes)[])", True, [(A, probe(1))]),
        [(100, 0, 1)],
    ),
    "blockAndAggregate": (
        call("blockAndAggregate((address,bytes)[])", [(A, probe(1))]),
        [(100, 0, 1)],
    ),
    "aggregate3": (
        call("aggregate3((address,bool,bytes)[])", [(A, True, probe(1)), (B, False, probe(2))]),
        [(100, 0, 1), (101, 0, 2)],
    ),
    "aggregate3Value": (
        call("aggregate3Value((address,bool,uint256,bytes)[])", [(A, True, 2**200, probe(1))]),
        [(100, 2**200, 1)],
    ),
    "handleOps 0.6": (
        call(
            f"handleOps({OP6}[],address)",
            [
                (A, 1, b"a", probe(1), 0, 0, 0, 0, 0, b"b", b"c"),
                (B, 1, b"", probe(2), *[0] * 5, b"", b""),
            ],
            B,
        ),
        [(100, 0, 1), (101, 0, 2)],
    ),
    "handleOps 0.7, an account's execute inside": (
        call(
            f"handleOps({OP7}[],address)",
            [
                (
                    A,
                    1,
                    b"",
                    call("execute(address,uint256,bytes)", B, 3, probe(1)),
                    bytes(32),
                    0,
                    bytes(32),
                    b"",
                    b"",
                )
            ],
            B,
        ),
        [(101, 3, 1)],
    ),
    "executeBatch": (
        call("executeBatch(address[],bytes[])", [A, B], [b"", probe(1)]),
        [(101, 0, 1)],
    ),
    "executeBatch with values": (
        call("executeBatch(address[],uint256[],bytes[])", [A, B], [1, 2], [b"", probe(1)]),
        [(101, 2, 1)],
    ),
    "executeBatch without values": (
        call("executeBatch(address[],uint256[],bytes[])", [A], [], [probe(1)]),
        [(100, 0, 1)],
    ),
    "executeBatch of tuples": (
        call("executeBatch((address,uint256,bytes)[])", [(A, 7, probe(1))]),
        [(100, 7, 1)],
    ),
    "execTransaction": (
        call(
            "execTransaction(address,uint256,bytes,uint8,uint256,uint256,uint256,address,address,bytes)",
            *(A, 4, probe(1), 0, 0, 0, 0, A, A, b"sig"),
        ),
        [(100, 4, 1)],
    ),
    "multiSend": (
        call(
            "multiSend(bytes)",
            b"".join(
                b"\0"
                + bytes.fromhex(to[2:])
                + v.to_bytes(32, "big")
                + (36).to_bytes(32, "big")
                + data
                for to, v, data in ((A, 6, probe(1)), (B, 0, probe(2)))
            ),
        ),
        [(100, 6, 1), (101, 0, 2)],
    ),
    "multicall in a multicall in a Multicall3": (
        call(
            "aggregate3((address,bool,bytes)[])",
            [(A, True, call("multicall(bytes[])", [call("multicall(bytes[])", [probe(1)])]))],
        ),
        [(100, 0, 1)],
    ),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_inside_wrappers(name):
    data, inner = WRAPPED[name]
    for target, value, number in inner:
        exact = {
            "to": [address(target)],
            "selector": ["probe(uint256)"],
            "value_wei": Range(min=value, max=value),
            "words": [Word(index=0, equals=number)],
        }
        both = [
            Trigger("inside", inside=True, **exact),
            Trigger("outside", **exact),
            Trigger("other value", inside=True, **exact | {"value_wei": Range(min=value + 1)}),
        ]
        with TriggerTable(both) as table:
            found = table.match(Burst([transaction(to=1, value=5, data=data)]))
            assert [m.trigger for m in found] == ["inside"]
            assert found[0].inner
            assert not table.stats.wrapper_bad
            # cut anywhere, it may find less, never more, and never reads past the end
            for cut in range(len(data)):
                found = table.match(Burst([transaction(to=1, value=5, data=data[:cut])]))
                assert {m.trigger for m in found} <= {"inside"}


def test_every_standard_wrapper_is_tried():
    tried = {data[:4] for data, _ in WRAPPED.values()}
    commands = {parse_function(w.signature).selector for w in STANDARD if w.commands is not None}
    declared = {parse_function(w.signature).selector for w in STANDARD}
    inner = {selector("execute(address,uint256,bytes)")}
    assert declared - commands == tried | inner


@pytest.mark.parametrize("deadline", [True, False])
def test_universal_router_commands(deadline):
    swap = eth_abi.encode(
        ["address", "uint256", "uint256", "bytes", "bool"], [A, 10, 9, b"\1" * 43, True]
    )
    sweep = eth_abi.encode(["address", "address", "uint256"], [A, B, 77])
    plan = eth_abi.encode(["bytes", "bytes[]"], [b"\x84", [sweep]])
    inputs = [b"unknown", swap, plan]
    data = (
        call("execute(bytes,bytes[],uint256)", b"\x3e\x80\x21", inputs, 1)
        if deadline
        else call("execute(bytes,bytes[])", b"\x3e\x80\x21", inputs)
    )
    found = []
    with TriggerTable(
        [
            Trigger(
                "swap",
                to=[address(1)],
                selector=["V3_SWAP_EXACT_IN(address,uint256,uint256,bytes,bool)"],
                words=[Word(index=1, min=10), Word(index=2, max=9)],
                inside=True,
            ),
            Trigger(
                "sweep",
                selector=["SWEEP(address,address,uint256)"],
                words=[Word(index=2, equals=77)],
                inside=True,
            ),
        ]
    ) as table:
        found = table.match(Burst([transaction(to=1, data=data)]))
        assert [(m.trigger, m.inner) for m in found] == [("swap", 1), ("sweep", 3)]
        assert table.stats.inner_calls == 3


def test_a_wrapper_of_the_users_own():
    mine = Wrapper(
        "relay(uint256 fee, (address to, uint256 amount, bytes data)[] batch)",
        "batch.data",
        "batch.to",
        "batch.amount",
    )
    data = call("relay(uint256,(address,uint256,bytes)[])", 5, [(A, 3, probe(1))])
    trigger = Trigger("t", to=[A], value_wei=Range(min=3), inside=True)
    with TriggerTable([trigger], wrappers=[mine]) as table:
        assert [m.trigger for m in table.match(Burst([transaction(data=data)]))] == ["t"]
    with TriggerTable([trigger]) as table:
        assert not table.match(Burst([transaction(data=data)]))


def test_chain_0_is_of_transactions_that_name_none():
    plain = {"to": 5, "cap": 0}
    for chain, protected, ids, found in (
        (0, False, [0], True),
        (0, True, [0], False),  # EIP-155 with chain 0, or a typed one that says 0
        (1, True, [0], False),
        (1, True, [0, 1], True),
        (0, False, [1], False),
    ):
        burst = Burst([transaction(**plain, chain=chain)])
        if protected:
            burst.records[0].flags |= lib.BW_TX_PROTECTED
        with TriggerTable([Trigger("t", chain_id=ids)]) as table:
            assert bool(table.match(burst)) is found


def test_a_wrapper_for_one_target_goes_before_the_other():
    """Routers share a selector and differ in what stands behind it."""
    one = Wrapper("relay(address to, bytes data, bytes more)", "data", "to", None)
    limited = replace(one, data="more", targets=(address(7), address(8)))
    data = call("relay(address,bytes,bytes)", A, probe(1), probe(2))
    first, second = (
        Trigger(f"{n}", to=[A], words=[Word(index=0, equals=n)], inside=True) for n in (1, 2)
    )
    with TriggerTable([first, second], wrappers=[limited, one]) as table:
        for to, found in ((6, "1"), (7, "2"), (8, "2"), (9, "1")):
            burst = Burst([transaction(to=to, data=data)])
            assert [m.trigger for m in table.match(burst)] == [found]
    with TriggerTable([first, second], wrappers=[limited]) as table:
        assert not table.match(Burst([transaction(to=6, data=data)]))
        assert table.match(Burst([transaction(to=7, data=data)]))
    with pytest.raises(ConfigError, match=r"targets\[0\] = '0x7': not an address"):
        compile_triggers([], wrappers=[replace(limited, targets=("0x7",))])
    with pytest.raises(ConfigError, match="its selector is that of"):
        compile_triggers([], wrappers=[limited, limited])


@pytest.mark.parametrize(
    ("wrapper", "words"),
    [
        (Wrapper("f(bytes[] data)", "dat"), "'dat' is not an argument of f; there are: data"),
        (Wrapper("f(uint256 data)", "data"), "'data' is uint256, not bytes"),
        (Wrapper("f(uint256[] c)", "c.data"), "'c' is uint256[], not an array of tuples"),
        (Wrapper("f(bytes d, uint256 t)", "d", "t"), "'t' is uint256, not address"),
        (Wrapper("f(bytes c, bytes[] i)", "i", commands="c"), "commands need a command_set"),
        (
            Wrapper("f(bytes[] c, bytes[] i)", "i", commands="c", command_set=UNIVERSAL_ROUTER),
            "'c' is bytes[], not bytes",
        ),
        (Wrapper("f(bites d)", "d"), "'bites' is not an ABI type"),
        (Wrapper("f((uint8 x, (bytes d) y)[] c)", "c.y.d"), "'c.y.d' lies inside a dynamic tuple"),
        (
            Wrapper("f((bytes d, (bytes z, address t) y)[] c)", "c.d", "c.y.t"),
            "'c.y.t' lies inside a dynamic tuple",
        ),
        (Wrapper("f(uint256[70000] a, bytes d)", "d"), "'d' of f lies beyond word 65,534"),
    ],
)
def test_a_wrapper_declared_wrongly(wrapper, words):
    with pytest.raises(ConfigError) as caught:
        compile_triggers([], wrappers=[wrapper])
    assert words in caught.value.message
    assert wrapper.signature in caught.value.message


@pytest.mark.parametrize(
    ("mask", "commands", "words"),
    [
        (0xFFF, {1: "g(uint256 a)"}, "mask = 0xfff"),
        (0xFF, {256: "g(uint256 a)"}, "command 0x100: no command byte has it"),
        (0xFF, {-1: "g(uint256 a)"}, "command -0x1: no command byte has it"),
        (0x3F, {0x81: "g(uint256 a)"}, "command 0x81: no command byte has it"),
        (0xFF, {1: "g(uint256 a"}, "command 0x1: 'g(uint256 a' ends too early"),
    ],
)
def test_a_command_set_declared_wrongly(mask, commands, words):
    wrapper = Wrapper(
        "f(bytes c, bytes[] i)", "i", commands="c", command_set=CommandSet("mine", mask, commands)
    )
    with pytest.raises(ConfigError, match="command set mine: ") as caught:
        compile_triggers([], wrappers=[wrapper])
    assert words in caught.value.message


def test_two_wrappers_of_one_selector_are_named():
    again = Wrapper("multicall(bytes[] mine)", "mine")
    with pytest.raises(ConfigError) as caught:
        compile_triggers([], wrappers=[*STANDARD, again])
    assert caught.value.message == (
        "wrapper multicall(bytes[] mine): its selector is that of multicall(bytes[] data)"
    )


def test_depth_and_number_of_inner_calls_are_bounded():
    data = probe(1)
    for _ in range(lib.BW_CALL_DEPTH + 1):
        data = call("multicall(bytes[])", [data])
    with TriggerTable([Trigger("t", selector=["probe(uint256)"], inside=True)]) as table:
        assert not table.match(Burst([transaction(data=data)]))
        assert table.stats.wrapper_bound == 1
        assert table.stats.inner_calls == lib.BW_CALL_DEPTH
    many = call("multicall(bytes[])", [b"\0\0\0\0"] * lib.BW_CALLS + [probe(1)])
    with TriggerTable([Trigger("t", selector=["probe(uint256)"], inside=True)]) as table:
        assert not table.match(Burst([transaction(data=many)]))
        assert (table.stats.inner_calls, table.stats.wrapper_bound) == (lib.BW_CALLS, 1)


def test_broken_wrappers_are_counted():
    good = call("multicall(bytes[])", [probe(1), probe(2)])
    # the second element's offset points beyond the calldata
    bad = good[: 4 + 96] + b"\xff" * 32 + good[4 + 128 :]
    with TriggerTable([Trigger("t", words=[Word(index=0, equals=[1, 2])], inside=True)]) as table:
        assert len(table.match(Burst([transaction(data=bad)]))) == 1
        assert (table.stats.wrapper_bad, table.stats.inner_calls) == (1, 1)


# ---- declaring ----


def test_toml_and_json(tmp_path):
    toml = tmp_path / "triggers.toml"
    toml.write_text(
        """
        [[trigger]]
        name = "a"
        to = ["0x7a250d5630B4cF539739dF2C5dAcb4c659F2488D"]
        selector = ["0x38ed1739", "transfer(address,uint256)"]
        value_wei = { min = 1, max = "1.5 ether" }
        tip_wei = { min = "2 gwei" }
        type = [2]
        words = [{ index = 0, equals = ["0x10", 3] }]
        inside = true
        """
    )
    (trigger,) = read_triggers(toml)
    assert trigger.value_wei == Range(min=1, max="1.5 ether")
    assert trigger.type_ == [2]
    as_json = tmp_path / "triggers.json"
    as_json.write_text(
        json.dumps(
            [
                {
                    "name": "a",
                    "to": ["0x7A250D5630B4CF539739DF2C5DACB4C659F2488D"],
                    "selector": ["0xa9059cbb", "0x38ed1739"],
                    "value_wei": {"min": "0x1", "max": 1500000000000000000},
                    "tip_wei": {"min": 2000000000},
                    "type": [2],
                    "words": [{"offset": 0, "equals": [3, 16, 3]}],
                    "inside": True,
                }
            ]
        )
    )
    assert compile_triggers(read_triggers(as_json)) == compile_triggers([trigger])


@pytest.mark.parametrize(
    ("conditions", "message", "hint"),
    [
        ({"to": ["0x12"]}, "to[0] = '0x12': not an address", "40 hexadecimal digits"),
        ({"sender": [address(1), "x"]}, "sender[1] = 'x'", "40 hexadecimal digits"),
        ({"selector": ["0x38ed17"]}, "selector[0] = '0x38ed17'", "four bytes like 0x38ed1739"),
        ({"selector": ["f(uint7)"]}, "'uint7' is not an ABI type", "a signature like"),
        ({"value_wei": {"min": -1}}, "value_wei.min = -1", "0 to 2^256 - 1"),
        ({"value_wei": {"max": "1 eth"}}, "value_wei.max = '1 eth'", "1.5 ether"),
        ({"value_wei": {"max": "0.1 wei"}}, "value_wei.max = '0.1 wei'", "1.5 ether"),
        ({"value_wei": {"max": "1_"}}, "value_wei.max = '1_'", "1.5 ether"),
        ({"value_wei": {"max": "1__0 wei"}}, "value_wei.max = '1__0 wei'", "1.5 ether"),
        ({"value_wei": {"max": "\u0661"}}, "value_wei.max = '\u0661'", "1.5 ether"),
        ({"value_wei": {"max": "9" * 5000}}, "value_wei.max = '999", "1.5 ether"),
        ({"value_wei": {"max": f"0.{'1' * 5000} ether"}}, "value_wei.max = '0.1", "1.5 ether"),
        ({"selector": ["0x 1 2 3 4"]}, "selector[0] = '0x 1 2 3 4'", "four bytes like"),
        ({"selector": [f"f(uint[{'9' * 5000}])"]}, "is too long an array", "a signature like"),
        ({"tip_wei": {"min": 2, "max": 1}}, "tip_wei.min = 2", "at most max, which is 1"),
        ({"gas": {"max": 2**64}}, f"gas.max = {2**64}", "0 to 18446744073709551615"),
        ({"type_": [8]}, "type[0] = 8", "from 0 to 7"),
        ({"chain_id": [-1]}, "chain_id[0] = -1", "0 to 2^64 - 1"),
        ({"tag": 2**32}, f"tag = {2**32}", "0 to 2^32 - 1"),
        ({"shot": "no"}, "shot = 'no': no such shot", "allowed: yes"),
        ({"words": [{"equals": 1}]}, "words[0]: index = None, offset = None", "index"),
        ({"words": [{"index": -1, "equals": 1}]}, "words[0].index = -1", "within the calldata"),
        ({"words": [{"index": 0, "equals": 1, "max": 2}]}, "both equals and a range", "equals, or"),
        ({"words": [{"index": 0, "equals": []}]}, "words[0].equals = []", "at least one"),
        ({"words": [{"index": 0, "equals": 4, "mask": 3}]}, "words[0] = '0x4'", "mask 0x3"),
    ],
)
def test_errors_name_trigger_key_value_and_what_is_allowed(conditions, message, hint):
    def struct(kind, value):
        return kind(**value) if isinstance(value, dict) else value

    for key in ("value_wei", "tip_wei", "gas"):
        if key in conditions:
            conditions = conditions | {key: struct(Range, conditions[key])}
    if "words" in conditions:
        conditions = conditions | {"words": [struct(Word, word) for word in conditions["words"]]}
    with pytest.raises(ConfigError) as caught:
        compile_triggers([Trigger("mine", **conditions)], shots={"yes": 0})
    assert "trigger 'mine'" in caught.value.message
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_names_are_unique_and_keys_known():
    with pytest.raises(ConfigError, match="another one has this name"):
        compile_triggers([Trigger("a"), Trigger("a")])
    with pytest.raises(ConfigError, match=r"trigger\[0\].selectors") as caught:
        parse_triggers([{"name": "a", "selectors": []}])
    assert "did you mean selector?" in caught.value.hint
    with pytest.raises(ConfigError, match=r"triggers = .*: no such key") as caught:
        parse_triggers({"triggers": [{"name": "a"}]})
    assert "did you mean trigger?" in caught.value.hint


@pytest.mark.parametrize("key", ["to", "selector", "chain_id", "type", "words", "sender"])
def test_an_empty_list_is_not_taken_for_anything(key):
    with pytest.raises(ConfigError, match=rf"trigger\[0\].{key} = \[\]: expected"):
        parse_triggers([{"name": "a", key: []}])


def test_triggers_survive_being_written_and_read():
    for trigger in [Trigger("a"), Trigger("b", to=[address(1)], words=[Word(index=0)], tag=3)]:
        written = msgspec.json.encode(trigger)
        assert msgspec.json.decode(written, type=Trigger) == trigger


@pytest.mark.parametrize("limit", [1_000, 100_000])  # web3's libraries raise it that far
@pytest.mark.parametrize("kind", ["toml", "json"])
def test_a_file_that_nests_without_end(tmp_path, kind, limit):
    path = tmp_path / f"deep.{kind}"
    path.write_text(("" if kind == "json" else "a = ") + "[" * 100_000)
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(limit)
    try:
        with pytest.raises(ConfigError, match="without end"):
            read_triggers(path)
    finally:
        sys.setrecursionlimit(before)


# ---- the serialised form ----


def sample_blob() -> bytes:
    return compile_triggers(
        [
            Trigger(
                "all",
                to=[address(1), address(2)],
                selector=["0x01020304", "0x05060708"],
                value_wei=Range(min=1, max=2),
                tip_wei=Range(min=1),
                fee_cap_wei=Range(max=2),
                gas=Range(min=1),
                chain_id=[1, 10],
                type_=[2],
                words=[Word(index=0, equals=[1, 2]), Word(index=1, min=3, mask=0xFF)],
                sender=[address(3), address(4)],
                inside=True,
            ),
            Trigger("none"),
        ]
    )


def test_a_blob_that_is_cut_or_longer_is_refused():
    blob = sample_blob()
    load_native(blob)
    for length in range(len(blob)):
        with pytest.raises(ConfigError):
            load_native(blob[:length])
    with pytest.raises(ConfigError, match="length"):
        load_native(blob + b"\0")


def test_flipped_bits_never_crash_and_matching_goes_on():
    blob = bytearray(sample_blob())
    rng = random.Random(7)
    burst = Burst([transaction(to=1, data=bytes.fromhex("01020304") + bytes(64), value=1)])
    out = ffi.new("struct bw_match[]", 16)
    stats = ffi.new("struct bw_match_stats *")
    refused = 0
    for _ in range(3000):
        at = rng.choice([rng.randrange(32), rng.randrange(len(blob))])
        before = blob[at]
        blob[at] ^= 1 << rng.randrange(8)
        try:
            table = load_native(bytes(blob))
            lib.bw_triggers_match(table, burst.native_messages, burst.records, 1, out, 16, stats)
        except ConfigError:
            refused += 1
        blob[at] = before
    assert refused > 500


# ---- replacement ----


@pytest.fixture
def quick_switches():
    """Threads of Python hand over every 0.1 ms instead of 5, which each call of C waits for."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("quick_switches")
def test_replaced_under_way_every_burst_sees_one_table():
    burst = Burst([transaction(to=i % 7, data=bytes(4)) for i in range(64)])

    def generation(tag: int) -> list[Trigger]:
        return [Trigger(f"{tag}-{i}", to=[address(i)], tag=tag) for i in range(7)]

    done = threading.Event()
    seen: list[set[int]] = []
    wrong: list[object] = []

    with TriggerTable(generation(0)) as table:

        def loop() -> None:
            while not done.is_set():
                found = table.match(burst)
                tags = {match.tag for match in found}
                names = {match.trigger.split("-")[0] for match in found}
                if len(found) != 64 or len(tags) != 1 or names != {str(*tags)}:
                    wrong.append((len(found), tags, names))
                seen.append(tags)

        thread = threading.Thread(target=loop)
        thread.start()
        for tag in range(1, 80):
            table.replace(generation(tag))
        done.set()
        thread.join()
        assert not wrong
        assert len(seen) > 10
        assert table.reclaim() == 0
        assert {m.tag for m in table.match(burst)} == {79}


def test_a_refused_replacement_keeps_the_current_table():
    with TriggerTable([Trigger("a")]) as table:
        with pytest.raises(ConfigError):
            table.replace([Trigger("b", to=["nobody"])])
        assert table.names == ("a",)
        assert [m.trigger for m in table.match(Burst([transaction()]))] == ["a"]
