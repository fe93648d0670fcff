"""The native reader of transactions in JSON against envelopes, json and msgspec."""

import json
import random
import re

import msgspec
import pytest

from barewire._native import ffi, lib
from barewire.errors import BarewireError
from barewire.feeds.txfeed import LONG_BYTES, WORK_BYTES, Announced, Other, TxFeed
from barewire.mempool.decoder import Decoder, Rules
from barewire.mempool.record import Transaction
from tests.transactions import envelope, make, wrapped
from tests.unit.txjson_texts import clutter, clutter_word, notification, oddly, spelled

HASH = "0x" + "ab" * 32
FEW = (WORK_BYTES, 64, 7, 1)
"""Bytes that one call may walk through: all, or so few that it stops anywhere in a text."""
ACROSS = 16
"""What it may walk through beyond that, to the end of a word or an escape."""


def feed(**options) -> TxFeed:
    return TxFeed(Decoder(Rules.preset("prague", 0)), **options)


def read(text, *, form="stream", using=None):
    reader = using or feed()
    reader.lend_text(text.encode() if isinstance(text, str) else text, 7, 1, form=form)
    return list(reader.read())


def refused(text, *, form="stream") -> dict[str, int]:
    reader = feed()
    assert not read(text, form=form, using=reader)
    [cause] = reader.stats()["refused"]
    assert reader.samples()[cause] in (text.encode() if isinstance(text, str) else text)
    return cause


@pytest.mark.parametrize("kind", range(5))
def test_every_type_is_rebuilt_byte_by_byte(kind):
    rng = random.Random(kind)
    readers = [feed(source=3, trusted=True, work=work) for work in FEW]
    for number in range(300):
        reader = readers[number % 16 if number % 16 < len(FEW) else 0]
        fields = make(rng, kind)
        message = notification(spelled(kind, fields))
        message["clutter"] = message["params"]["clutter"] = clutter(rng)
        message["params"]["result"][clutter_word(rng)] = clutter(rng)
        [tx] = read(oddly(rng, message), using=reader)
        assert tx.raw == envelope(kind, fields)
        assert tx.hash.hex() == message["params"]["result"]["hash"][2:]
        assert (tx.source, tx.arrival_ns, tx.arrival_clock) == (3, 7, 1)
        assert tx.nonce == fields["nonce"]
        assert tx.access_list == tuple((a, tuple(k)) for a, k in fields.get("access", ()))
    assert [reader.stats()["refused"] for reader in readers] == [{}] * len(FEW)


def test_what_bloxroute_sends():
    rng = random.Random(1)
    for kind in range(5):
        fields = make(rng, kind)
        tx, raw = spelled(kind, fields), envelope(kind, fields)
        announced = tx.pop("hash")
        whole = {"txHash": announced, "txContents": tx, "localRegion": True, "time": "2026-11-21"}
        if not fields["to"]:
            tx["to"] = rng.choice(["", "0x"])
        for result in (
            whole,
            {"txHash": announced, "rawTx": "0x" + raw.hex()},
            whole | {"rawTx": "0x" + raw.hex()},
        ):
            message = notification(result) | {"id": None, "method": "subscribe"}
            [got] = read(oddly(rng, message))
            assert got.raw == raw
        [alone] = read(json.dumps(notification({"txHash": announced})))
        assert alone == Announced(bytes.fromhex(announced[2:]))


def test_a_blob_transaction_in_its_wrapper():
    rng = random.Random(2)
    fields = make(rng, 3)
    raw = wrapped(rng, fields, 0)
    result = {"txHash": spelled(3, fields)["hash"], "rawTx": "0x" + raw.hex()}
    [tx] = read(json.dumps(notification(result)))
    assert (tx.raw, tx.wrapper_version) == (raw, 0)


def test_batches_of_answers_in_any_order():
    rng = random.Random(3)
    batch, expected = [], []
    for number in range(150):
        if number % 10 == 7:
            answer = {"jsonrpc": "2.0", "id": number, "result": None}
            expected.append(answer)
            batch.append(json.dumps(answer))
        else:
            fields = make(rng, number % 5)
            answer = {"jsonrpc": "2.0", "id": number, "result": spelled(number % 5, fields)}
            expected.append(envelope(number % 5, fields))
            batch.append(oddly(rng, answer))
    got = read("[" + ",".join(batch) + "]")
    assert [i.raw if isinstance(i, Transaction) else json.loads(i.text) for i in got] == expected


@pytest.mark.parametrize(
    "text",
    [
        '{"jsonrpc":"2.0","id":1,"result":"0x9ce59a13059e417087c02d3236a0b1cc"}',
        '{"jsonrpc":"2.0","id":1,"result":"' + HASH + '"}',
        '{"id":1,"error":{"code":-32601,"message":"no such method"}}',
        '{"id":1,"result":{"hash":"' + HASH + '","nonce":"0x0000000000000000"}}',
        '{"method":"eth_subscription","params":{"result":{"hash":"' + HASH + '","number":"0x1"}}}',
        '{"method":"eth_subscription","params":{"result":"0x12"}}',
        '{"method":"eth_subscription","params":{"result":["' + HASH + '"]}}',
        '{"method":"eth_subscription","params":["' + HASH + '"]}',
        "{}",
        "17",
        "null",
        '"text"',
    ],
)
def test_other_messages_are_handed_on(text):
    assert read(" " + text + "\n") == [Other(text.encode())]


def test_what_a_long_answer_holds_is_handed_on_beside_it():
    long = b'{"a":"' + bytes(range(0x30, 0x3A)) * (LONG_BYTES // 10) + b'"}'
    text = b'{"result":7,"id":5, "re\\u0073ult" : %b ,"jsonrpc":"2.0"}' % long
    reader = feed()
    reader.lend_text(b"[" + text + b',{"id":6,"result":0}]')
    got = [(item.text, item.result and bytes(item.result)) for item in reader.read()]
    assert got == [
        (b'{"result":7,"id":5, "re\\u0073ult" : null ,"jsonrpc":"2.0"}', long),
        (b'{"id":6,"result":0}', None),
    ]
    for whole in (b'{"id":5,"error":%b}' % long, b'{"params":{"result":%b}}' % long, long):
        assert read(whole) == [Other(b"")]


def test_announced_hashes():
    assert read(json.dumps(notification(HASH))) == [Announced(bytes.fromhex("ab" * 32))]
    assert read("[]") == []


def mutations(rng: random.Random, text: str):
    """Texts near `text`, most of them no JSON."""
    raw = bytearray(text.encode())
    at = rng.randrange(len(raw) + 1)
    draw = rng.randrange(6)
    if draw == 0:
        raw[at:] = b""
    elif draw == 1:
        raw[at : at + rng.randrange(1, 4)] = b""
    elif draw == 2:
        extra = [b"x", b",", b"}", b"]", b"0", b"-", b"\\", b'"', b"\x01", b"\xff", b"\xc3\xa4"]
        raw[at:at] = rng.choice([*extra, b"\\u12", b"1e", b"\xed\xa0\x80", b"\x7f", b"nul"])
    elif draw == 3 and at < len(raw):
        raw[at] = rng.getrandbits(8)
    elif draw == 4:
        raw += rng.choice([b" ", b"\n\t", b"\0", b"{}", b",", b"]"])
    else:
        raw[at:at] = raw[at : at + rng.randrange(8)]
    return bytes(raw)


def in_turn(text: bytes) -> list:
    """The values in a text, one behind the other."""
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        at = re.search(r"trailing characters \(byte (\d+)\)", str(error))
        if at is None:
            raise
        ends = int(at[1]) - 1  # msgspec tells where it stands behind what is too much
        return in_turn(text[:ends]) + in_turn(text[ends:])
    return [json.loads(text)]


def test_texts_are_refused_exactly_where_msgspec_refuses_them():
    rng = random.Random(4)
    good = bad = 0
    for number in range(6000):
        value = {clutter_word(rng): clutter(rng) for _ in range(3)}
        text = mutations(rng, oddly(rng, value))
        try:
            expected = in_turn(text)
            good += 1
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            # RFC 8259's grammar objects to neither.
            if "surrogate" in str(error) or "out of range" in str(error):
                continue
            expected = None
            bad += 1
        reader = feed(work=FEW[number % 16 if number % 16 < len(FEW) else 0])
        items = read(text, using=reader)
        refusals = reader.stats()["refused"]
        if expected is None:
            assert set(refusals) <= {"syntax", "utf8"}, text
            assert len(refusals) == 1, text
        else:
            assert not refusals, text
            if not any(isinstance(value, list) for value in expected):
                assert [json.loads(item.text) for item in items] == expected
    assert good > 500
    assert bad > 500


def test_of_members_that_come_twice_the_last_counts():
    rng = random.Random(5)
    fields = make(rng, 2)
    tx = json.dumps(spelled(2, fields))
    text = '{"method":"x","params":{"result":%s,"result":%s}}'
    twice = '{"nonce":"0x77","hash":"' + HASH + '","accessList":"no",' + tx[1:]
    for message in (text % ("null", tx), text % ('{"hash":1}', tx), text % ('"x"', twice)):
        assert json.loads(message)["params"]["result"] == json.loads(tx)
        [got] = read(message)
        assert got.raw == envelope(2, fields)


def test_a_wrong_field_is_found_out_by_the_hash():
    rng = random.Random(6)
    tx = spelled(2, make(rng, 2))
    for name, value in {
        "nonce": hex(int(tx["nonce"], 16) ^ 1),
        "value": hex(int(tx["value"], 16) ^ 1),
        "to": "0x" + "22" * 20,
        "hash": HASH,
        "input": tx["input"] + "00",
    }.items():
        bad = tx | {name: value, "gas": hex(10**7)} if name == "input" else tx | {name: value}
        assert refused(json.dumps(notification(bad))) == "hash"


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"nonce": None}, "missing"),
        ({"nonce": 5}, "kind"),
        ({"nonce": "5"}, "hex"),
        ({"nonce": "0xg"}, "hex"),
        ({"nonce": "0x" + "1" * 65}, "width"),
        ({"input": "0x123"}, "hex"),
        ({"input": "0xzz"}, "hex"),
        ({"to": "0x11"}, "width"),
        ({"to": 5}, "kind"),
        ({"hash": "0xab"}, "width"),
        ({"hash": "0x" + "zz" * 32}, "hex"),
        ({"type": "0x7e"}, "type"),
        ({"type": "0x64"}, "type"),
        ({"accessList": {}}, "kind"),
        ({"accessList": [1]}, "kind"),
        ({"accessList": [{}]}, "missing"),
        ({"accessList": [{"address": "0x11", "storageKeys": []}]}, "width"),
        ({"accessList": [{"address": "0x" + "11" * 20, "storageKeys": ["0x1"]}]}, "hex"),
        ({"r": "0x0"}, "transaction"),
        ({"yParity": "0x2"}, "transaction"),
        ({"gas": "0x1"}, "transaction"),
    ],
)
def test_fields_that_make_no_transaction(change, cause):
    tx = spelled(2, make(random.Random(7), 2)) | change
    assert refused(json.dumps(tx), form="bare") == cause
    assert refused(json.dumps(notification(tx))) == cause


def test_spellings_that_differ_between_nodes():
    rng = random.Random(8)
    for kind in (0, 2):
        fields = make(rng, kind)
        tx = spelled(kind, fields)
        tx["r"] = f"0x{fields['r']:064x}"
        tx["value"] = hex(fields["value"]).upper()
        tx["data"] = tx.pop("input")
        if kind == 0:
            del tx["type"]
        else:
            del tx["yParity"]
            if not fields["access"]:
                del tx["accessList"]
        [got] = read(json.dumps(tx), form="bare")
        assert got.raw == envelope(kind, fields)


def test_texts_that_are_too_deep_or_too_long():
    assert refused('{"a":' * 65 + "1" + "}" * 65) == "deep"
    [other] = read('{"a":' * 64 + "1" + "}" * 64)
    assert isinstance(other, Other)
    small = feed(max_text=100)
    assert read('{"a":"' + "x" * 100 + '"}', using=small) == []
    assert small.stats()["refused"] == {"room": 1}
    with pytest.raises(BarewireError, match="max_text"):
        feed(max_text=0)


def test_values_of_an_ipc_socket_in_pieces_of_any_size():
    rng = random.Random(9)
    texts, expected = [], []
    for number in range(200):
        if number % 9 == 5:
            texts.append(json.dumps({"id": number, "result": 'brace } quote \\" bracket ]'}))
            expected.append(texts[-1].encode())
            continue
        kind = number % 5
        fields = make(rng, kind)
        texts.append(oddly(rng, notification(spelled(kind, fields))))
        expected.append(envelope(kind, fields))
    data = "".join(texts).encode()
    reader, got = feed(max_text=65536), []
    while data:
        size = rng.choice([1, 5, 100, 1000, 30000])
        piece, data = data[:size], data[size:]
        reader.lend(piece)
        got += [i.raw if isinstance(i, Transaction) else i.text for i in reader.read()]
    assert got == expected


def test_an_ipc_value_that_is_too_long_is_skipped():
    reader, got = feed(max_text=300), []
    long = json.dumps({"id": 1, "result": "x" * 1000})
    short = '{"id":2}'
    data = (short + long + short + long + short).encode()
    for at in range(0, len(data), 77):
        reader.lend(data[at : at + 77])
        got += list(reader.read())
    assert got == [Other(short.encode())] * 3
    assert reader.stats()["refused"] == {"room": 2}


def some_transactions(count: int, seed: int = 1) -> tuple[list, list[bytes]]:
    rng = random.Random(seed)
    fields = [make(rng, n % 5) for n in range(count)]
    return (
        [spelled(n % 5, each) for n, each in enumerate(fields)],
        [envelope(n % 5, each) for n, each in enumerate(fields)],
    )


def test_a_pool_is_read_entry_by_entry():
    objects, raws = some_transactions(90)
    wrong = [5, None, "0x1", [], {}, {"hash": HASH}, objects[3] | {"nonce": "0x777"}]
    pool = {
        "baseFee": "0x7",
        "pending": {"0xa": {str(n): each for n, each in enumerate(objects[:50])}, "0xb": {}},
        "odd": [1, {"2": objects[0]}],
        "queued": {"0xc": {str(n): each for n, each in enumerate(objects[50:])}, "0xd": 7}
        | {"0xe": {str(n): each for n, each in enumerate(wrong)}},
    }
    for indent in (None, 1):
        reader = feed()
        got = read(json.dumps(pool, indent=indent), form="pool", using=reader)
        assert [tx.raw for tx in got] == raws
        assert [tx.origin for tx in got] == ["pool"] * 50 + ["queued"] * 40
        assert reader.entries == 90 + 1 + len(wrong)
        assert sum(reader.stats()["refused"].values()) == 1 + len(wrong)


def test_a_block_is_read_transaction_by_transaction():
    objects, raws = some_transactions(20)
    block = {"number": "0x1", "uncles": [objects[0]], "transactions": [*objects, HASH, 1, []]}
    reader = feed()
    got = read(json.dumps(block | {"withdrawals": [{}]}), form="block", using=reader)
    assert [tx.raw for tx in got] == raws
    assert {tx.origin for tx in got} == {"block"}
    assert reader.entries == 23
    assert reader.stats()["refused"] == {"kind": 3}


@pytest.mark.parametrize("form", ["pool", "block"])
@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("null", "kind"),
        ("[]", "kind"),
        ("", "syntax"),
        ('{"pending": {"0xa": {', "syntax"),
        ("{} {}", "syntax"),
        ('{"x": ' + "[" * 70 + "]" * 70 + "}", "deep"),
    ],
)
def test_what_is_no_pool_and_no_block(form, text, cause):
    reader = feed()
    assert read(text, form=form, using=reader) == []
    causes = reader.stats()["refused"]
    assert causes == {cause: 1}


def test_a_pool_cut_anywhere_gives_what_stands_before():
    objects, raws = some_transactions(3)
    text = json.dumps({"pending": {"0xa": dict(enumerate(objects))}, "queued": {}}).encode()
    for end in range(0, len(text), 7):
        got = [tx.raw for tx in read(text[:end], form="pool")]
        assert got == raws[: len(got)]


def test_more_values_than_any_message_needs_are_refused():
    """They cost whoever looks at them, and no transaction and no list of hashes has so many."""
    fine = {"id": 1, "result": [HASH] * 200_000}
    assert len(read(json.dumps(fine))) == 1
    many = b"1," * 500_000 + b"1"
    for text in (b'{"id":1,"result":[%b]}' % many, b'{"a":{"b":[%b]}}' % many):
        assert refused(text) == "values"
    assert refused(b'{"pending":{"a":[%b]}}' % many, form="pool") == "values"
    escapes = b'"' + b"\\n" * 500_000 + b'"'
    for text in (b'{"id":1,"result":%b}' % escapes, b'{"id":1,%b:0}' % escapes):
        assert refused(text) == "values"


def test_what_is_no_object_ends_a_batch():
    assert refused(b"[%b1]" % (b"1," * 1_000)) == "kind"
    answer = b'{"id":1,"result":null}'
    assert read(b"[" + answer + b"," + answer + b",7," + answer + b"]") == [Other(answer)] * 2


def test_what_one_call_does_is_bounded():
    """However little comes of it: bad transactions, empty messages."""
    [tx], _ = some_transactions(1)
    bad = json.dumps(notification(tx | {"nonce": "0x777"})).encode()
    reader = feed()
    reader.lend_text(b"[" + b",".join([bad] * 4_000) + b"]")
    messages, records = ffi.new("struct bw_message[]", 64), ffi.new("struct bw_tx[]", 64)
    calls = 1
    while not reader.read_into(messages, records, 64) and reader.more:
        calls += 1
    assert calls > len(bad) * 4_000 / (300 << 10)
    assert reader.stats()["refused"]["hash"] == 4_000


LONG = 4 << 20


@pytest.mark.parametrize(
    ("form", "begins", "again", "ends", "cause"),
    [
        (
            "stream",
            b'{"id":1,"result":{"pending":{"0xa":{',
            b'"1":{"gas":"0x%048d"},' % 1,
            b'"2":{}}}}}',
            "",
        ),
        ("stream", b'{"id":1,"result":[', b'["0123456789abcdef0123456789abcdef"],', b"{}]}", ""),
        ("stream", b'{"id":1,"result":"', b"0123456789abcdef", b'"}', ""),
        ("stream", b'{"id":1,"result":"', "é€𝄞".encode(), b'"}', ""),
        ("stream", b'{"id":1,"', "a näme".encode(), b'":0}', ""),
        (
            "stream",
            b'{"id":1,"result":"',
            b"a text, and then \\u20ac, and then some more \\n",
            b'"}',
            "",
        ),
        ("stream", b'{"id":1,"result":', b"1234567890", b"}", ""),
        ("stream", b'{"id":1,"result":0.', b"1234567890", b"}", ""),
        ("stream", b'{"id":1,"result":1e', b"1234567890", b"}", ""),
        ("stream", b'{"id":1,"result":', b" \n\t\r", b"1}", ""),
        ("stream", b'{"id":1}', b" \n\t\r", b"", ""),
        ("stream", b'"', b"0123456789abcdef", b"", "syntax"),
        ("stream", b'"', b"\xc3\xa9\xe2\x82", b'"', "utf8"),
        ("bare", b'{"input":"0x', b"0123456789abcdef", b'"}', ""),
        ("pool", b'{"baseFee":"', b"0123456789abcdef", b'"}', ""),
        ("pool", b'{"pending":{"0xa":{"1":[', b'"0123456789abcdef",', b"0]}}}", "kind"),
        ("block", b'{"uncles":[', b'["0123456789abcdef0123456789abcdef"],', b"0]}", ""),
    ],
)
def test_one_call_walks_through_so_many_bytes_of_a_text_however_long(
    form, begins, again, ends, cause
):
    text = begins + again * (LONG // len(again)) + ends
    reader = feed()
    reader.lend_text(text, form=form)
    messages, records = ffi.new("struct bw_message[]", 64), ffi.new("struct bw_tx[]", 64)
    calls = others = 0
    reader.more = True
    while reader.more:
        before = reader.walked_bytes
        assert reader.read_into(messages, records, 64) == 0
        assert reader.walked_bytes - before <= WORK_BYTES + ACROSS
        calls += 1
        others += isinstance(reader.event, Other)
    assert calls >= len(text) / (WORK_BYTES + ACROSS)
    assert reader.walked_bytes == len(text)
    assert reader.stats()["refused"] == ({cause: 1} if cause else {})
    assert others == (form in ("stream", "bare") and not cause)


def seen(text: bytes, form: str, work: int) -> tuple:
    """All that a reader says of a text."""
    reader = feed(work=work)
    items = [
        (item.raw, item.origin) if isinstance(item, Transaction) else item
        for item in read(text, form=form, using=reader)
    ]
    return items, reader.stats(), reader.samples(), reader.entries, reader.walked_bytes


def test_where_a_call_stops_changes_nothing():
    rng = random.Random(10)
    objects, _ = some_transactions(5)
    texts = []
    for number in range(40):
        tx = objects[number % 5]
        table = {"0xa": {"1": tx, "2": clutter(rng)}, "0xb": clutter(rng)}
        texts += [
            (oddly(rng, notification(tx) | {"clutter": clutter(rng)}), "stream"),
            (oddly(rng, [{"id": 1, "result": tx}, {"id": 2, "error": clutter(rng)}]), "stream"),
            (oddly(rng, notification({"txHash": tx["hash"], "txContents": tx})), "stream"),
            (oddly(rng, {"pending": table, "x": clutter(rng), "queued": table}), "pool"),
            (oddly(rng, {"transactions": [tx, clutter(rng)], "x": clutter(rng)}), "block"),
        ]
    refused = transactions = 0
    for number, (text, form) in enumerate(texts):
        raw = mutations(rng, text) if number % 3 else text.encode()
        at_once = seen(raw, form, WORK_BYTES)
        refused += bool(at_once[1]["refused"])
        transactions += at_once[1]["transactions"]
        for work in FEW[1:] if number % 4 == 0 else FEW[1:3]:
            assert seen(raw, form, work) == at_once, (raw, form, work)
    assert refused > 30
    assert transactions > 60


def test_no_envelope_is_made_of_what_is_longer_than_any_transaction():
    rng = random.Random(11)
    limit = lib.BW_JSON_OBJECT
    for length, cause in ((limit // 4, None), (limit // 2, "long")):
        fields = make(rng, 0) | {"to": bytes(20), "data": bytes(length), "gas": 2**40}
        reader = TxFeed(Decoder(Rules.preset("prague", 0, max_size=limit)))
        got = read(json.dumps(spelled(0, fields)), form="bare", using=reader)
        if cause is None:
            assert [tx.raw for tx in got] == [envelope(0, fields)]
        else:
            assert got == []
            assert reader.stats()["refused"] == {cause: 1}


@pytest.mark.parametrize("kind", range(5))
def test_what_some_nodes_leave_out_is_put_in(kind):
    """No type (Besu 5615), no chain id (geth 26030); the hash tells whether it was that."""
    rng = random.Random(kind)
    chain = 31337
    for _ in range(50):
        fields = make(rng, kind, chain)
        tx, raw = spelled(kind, fields), envelope(kind, fields)
        for without in ({"type"}, {"chainId"}, {"type", "chainId"}):
            less = {name: value for name, value in tx.items() if name not in without}
            reader = TxFeed(Decoder(Rules.preset("prague", chain)))
            assert [one.raw for one in read(json.dumps(notification(less)), using=reader)] == [raw]
            if kind and "chainId" in without:
                other = TxFeed(Decoder(Rules.preset("prague", chain + 1)))
                assert read(json.dumps(notification(less)), using=other) == []
                assert refused(json.dumps(notification(less))) == "missing"


def test_several_values_in_one_message_and_a_mark_before_them():
    known = [make(random.Random(seed), 2) for seed in range(4)]
    texts = [json.dumps(notification(spelled(2, fields))) for fields in known]
    raws = [envelope(2, fields) for fields in known]
    reader = feed()
    assert [tx.raw for tx in read("\n".join(texts), using=reader)] == raws
    batches = f"[{texts[0]},{texts[1]}] [{texts[2]}]{texts[3]}\r\n"
    assert [tx.raw for tx in read(batches, using=reader)] == raws
    assert [tx.raw for tx in read("\ufeff" + texts[0], using=reader)] == raws[:1]
    assert reader.stats()["refused"] == {}
    assert [tx.raw for tx in read(texts[0] + "}", using=reader)] == raws[:1]
    assert reader.stats()["refused"] == {"syntax": 1}
