"""Arbitrum's sequencer feed and Flashblocks, on bytes by hand and on published examples."""

import base64
import json
import random
import time
import tracemalloc
import zlib

import pytest
from websockets.server import ServerProtocol

from barewire.feeds.arbitrum import ArbitrumRelay, L2Error, signed_transactions
from barewire.feeds.flashblocks import Flashblocks
from barewire.feeds.left_out import LeftOut
from barewire.feeds.session import Phase
from barewire.mempool.decoder import Decoder, Rules
from tests.transactions import envelope, make
from tests.unit.test_websocket import raw as frame

SECOND = 1_000_000_000
# From Arbitrum's documentation, "How to read the sequencer feed".
DOCUMENTED = {
    "version": 1,
    "messages": [
        {
            "sequenceNumber": 25757171,
            "message": {
                "message": {
                    "header": {
                        "kind": 3,
                        "sender": "0xa4b000000000000000000073657175656e636572",
                        "blockNumber": 16238523,
                        "timestamp": 1671691403,
                        "requestId": None,
                        "baseFeeL1": None,
                    },
                    "l2Msg": "BAL40oKksUiElQL5AISg7rsAgxb6o5SZbYNoIF2DTixsqDpD2xII9GJLG4C4ZAhh6N0"
                    "AAAAAAAAAAAAAAAC7EQiq1R1VYgL3/oXgvD921hYRyAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
                    "AAAAAABAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAArAAaAkebuEnSAUvrWVBGTxA7W+ZMN"
                    "n5uyLlbOH7Nrs0bYOv6AOxQPqAo2UB0Z7vqlugjn+BUl0drDcWejBfDiPEC6jQA==",
                },
                "delayedMessagesRead": 354560,
            },
            "signature": None,
        }
    ],
}


def decoder(chain: int = 0) -> Decoder:
    return Decoder(Rules.preset("prague", chain, pool=False))


def connect(stream, headers=()):
    """Shakes hands; gives the request."""
    server = ServerProtocol()
    server.receive_data(stream.data_to_send())
    [request] = server.events_received()
    response = server.accept(request)
    for name, value in headers:
        response.headers[name] = value
    server.send_response(response)
    assert list(stream.receive(b"".join(server.data_to_send()))) == []
    return request


def hear(stream, *messages, opcode=1):
    data = b"".join(
        frame(opcode, m if isinstance(m, bytes) else json.dumps(m).encode()) for m in messages
    )
    return list(stream.receive(data, 5, 1))


def feed_message(sequence: int, l2: bytes, kind: int = 3, **more) -> dict:
    header = {"kind": kind, "sender": "0x" + "00" * 20, "blockNumber": 7, "timestamp": 8}
    incoming = {"header": header | {"baseFeeL1": 2**70}, "l2Msg": base64.b64encode(l2).decode()}
    metadata = {"message": incoming, "delayedMessagesRead": 1}
    return {"sequenceNumber": sequence, "message": metadata} | more


def broadcast(*messages) -> dict:
    return {"version": 1, "messages": list(messages)}


def batch(*parts: bytes) -> bytes:
    return b"\3" + b"".join(len(part).to_bytes(8, "big") + part for part in parts)


def signed(seed: int) -> bytes:
    return envelope(2, make(random.Random(seed), 2, 42161))


def relay(**options) -> ArbitrumRelay:
    return ArbitrumRelay("ws://relay.example:9642/feed", decoder(42161), **options)


def test_the_documented_example():
    stream = ArbitrumRelay("ws://relay.example:9642/feed", decoder(42161), source=2, trusted=True)
    request = connect(stream)
    assert "Arbitrum-Requested-Sequence-Number" not in request.headers
    assert request.headers["Arbitrum-Feed-Client-Version"] == "2"
    [message] = hear(stream, DOCUMENTED)
    assert (message.sequence, message.kind, message.l1_block) == (25757171, "l2-message", 16238523)
    assert message.timestamp_s == 1671691403
    [tx] = message.transactions
    assert tx.type == 2
    assert (tx.chain_id, tx.nonce, tx.source) == (42161, 72, 2)
    assert tx.selector.hex() == "0861e8dd"
    assert stream.next_sequence == 25757172


def test_batches_in_batches():
    envelopes = [signed(n) for n in range(6)]
    s = [b"\4" + raw for raw in envelopes]
    nested = batch(s[0], batch(s[1], batch(), batch(s[2])), b"\0" + bytes(160), s[3])
    assert signed_transactions(nested) == envelopes[:4]
    assert signed_transactions(nested + b"\0" * 5) == envelopes[:4]
    assert signed_transactions(nested + (999).to_bytes(8, "big") + s[4]) == envelopes[:4]
    assert signed_transactions(nested + b"\xff" * 8 + s[4]) == envelopes[:4]
    deep = s[0]
    for _ in range(16):
        deep = batch(deep)
    assert signed_transactions(deep) == envelopes[:1]
    with pytest.raises(L2Error, match="deeper"):
        signed_transactions(batch(deep))


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (b"", "empty"),
        (b"\6", "heartbeat"),
        (b"\2", "kind 2"),
        (b"\7", "kind 7"),
        (batch(b"\4x", b"\5"), "kind 5"),
        (batch(b""), "empty"),
        (bytes(256 * 1024 + 1), "256 KiB"),
    ],
)
def test_what_nitro_would_not_execute(message, why):
    with pytest.raises(L2Error, match=why):
        signed_transactions(message)
    stream = relay()
    connect(stream)
    [heard] = hear(stream, broadcast(feed_message(5, message)))
    assert heard.transactions == ()
    assert stream.counts.void == 1
    assert why in stream.counts.last_void


def test_kinds_and_refusals():
    stream = relay()
    connect(stream)
    good = signed(1)
    blob = envelope(3, make(random.Random(2), 3, 42161))
    other = envelope(2, make(random.Random(3), 2, 1))
    l2 = batch(b"\4" + good, b"\4" + blob, b"\4" + other, b"\4" + b"junk")
    heard = hear(
        stream,
        broadcast(
            feed_message(1, l2, blockHash="0x" + "ab" * 32, blockMetadata="AA=="),
            feed_message(2, b"\xff", kind=12),
            feed_message(3, b"", kind=13, batchGasCost=7),
            feed_message(4, b"", kind=99),
        ),
    )
    assert [(m.sequence, m.kind) for m in heard] == [
        (1, "l2-message"),
        (2, "eth-deposit"),
        (3, "batch-posting-report"),
        (4, "kind-99"),
    ]
    assert [tx.raw for tx in heard[0].transactions] == [good]
    assert heard[0].block_hash == bytes.fromhex("ab" * 32)
    assert (stream.counts.transactions, stream.counts.refused) == (1, 3)


def test_numbers_gaps_and_catching_up():
    stream = relay(start=100)
    request = connect(stream)
    assert request.headers["Arbitrum-Requested-Sequence-Number"] == "100"

    def say(*numbers):
        messages = [feed_message(n, b"\4" + signed(n)) for n in numbers]
        return [m.sequence for m in hear(stream, broadcast(*messages))]

    # The relay's cache begins earlier.
    assert say(98, 99, 100, 101) == [100, 101]
    assert say(101, 104, 105) == [104, 105]
    assert stream.behind
    assert (stream.counts.gaps, stream.counts.duplicates) == (2, 3)
    stream.end("reset")
    stream.connect()
    request = connect(stream)
    assert request.headers["Arbitrum-Requested-Sequence-Number"] == "102"
    assert say(102, 103, 104, 105, 106) == [102, 103, 106]
    assert not stream.behind
    assert say(110) == [110]
    stream.connect()
    connect(stream)
    # 107 and 108 are no longer kept.
    assert say(109, 110, 111) == [109, 111]
    counts = stream.counts
    assert (counts.gaps, counts.recovered, counts.lost) == (5, 3, 2)
    assert not stream.behind
    assert (
        hear(stream, {"version": 1, "confirmedSequenceNumberMessage": {"sequenceNumber": 9}}) == []
    )
    assert stream.confirmed == 9


def test_what_the_sequencer_takes_back_is_told_anew():
    stream = relay()
    connect(stream)

    def say(numbers, history):
        messages = [feed_message(n, b"\4" + signed(1000 * history + n)) for n in numbers]
        return [(m.sequence, m.reorganised) for m in hear(stream, broadcast(*messages))]

    assert say(range(10, 15), 0) == [(n, False) for n in range(10, 15)]
    assert say(range(10, 15), 0) == []  # the same again
    assert say(range(12, 15), 1) == [(12, True), (13, False), (14, False)]
    assert say([15], 1) == [(15, False)]
    assert say([13], 0) == [(13, True)]  # and back
    counts = stream.counts
    assert (counts.reorganisations, counts.duplicates, counts.messages) == (2, 5, 10)
    assert stream.next_sequence == 14


def test_a_gap_that_a_reorganisation_makes_void_is_not_asked_for():
    stream = relay()
    connect(stream)
    hear(stream, broadcast(*(feed_message(n, b"\4" + signed(n)) for n in (1, 2, 5))))
    assert stream.behind
    hear(stream, broadcast(feed_message(2, b"\4" + signed(99))))
    assert not stream.behind
    assert stream.wanted == 3


def test_a_chain_that_began_anew_below_what_was_heard():
    stream = relay()
    connect(stream)
    hear(stream, broadcast(feed_message(500, b"\4" + signed(1))))
    stream.end("reset")
    stream.connect()
    connect(stream)
    heard = hear(stream, broadcast(*(feed_message(n, b"\4" + signed(n)) for n in range(2))))
    assert [m.sequence for m in heard] == [0, 1]
    assert stream.counts.earlier == 2


def test_what_is_told_of_the_past_is_marked():
    stream = relay()
    connect(stream)

    def origins(*numbers):
        messages = [feed_message(n, b"\4" + signed(n)) for n in numbers]
        txs = [tx for m in hear(stream, broadcast(*messages)) for tx in m.transactions]
        late = {tx.known_ns for tx in txs if tx.origin == "resent"}
        assert late <= {8 * SECOND}  # the sequencer's time
        return [tx.origin for tx in txs]

    assert origins(1) == ["resent"]  # the first of a connection is what the relay keeps
    assert origins(2, 3) == ["resent"] * 2  # and what it sends in pieces
    assert origins(4) == ["announced"]
    assert origins(5, 6) == ["announced"] * 2
    assert origins(9) == ["announced"]
    assert origins(7) == ["resent"]
    stream.end("reset")
    stream.connect()
    connect(stream)
    assert origins(8, 9, 10) == ["resent"] * 2


def test_a_message_that_is_none_leaves_the_others_alone():
    stream = relay()
    connect(stream)
    bad = feed_message(2, b"")
    bad["message"]["message"]["l2Msg"] = None
    worse = feed_message(3, b"")
    worse["message"]["message"] = None
    worst = {"x": 1}
    messages = [feed_message(1, b"\4" + signed(1)), bad, worse, worst]
    messages.append(feed_message(4, b"\4" + signed(4)))
    assert [m.sequence for m in hear(stream, broadcast(*messages))] == [1, 2, 4]
    counts = stream.counts
    assert (counts.void, counts.malformed, counts.gaps, stream.unclear) == (1, 2, 0, 0)
    assert not stream.behind


@pytest.mark.parametrize(
    "header", [{"kind": 256}, {"kind": -1}, {"blockNumber": 2**64}, {"timestamp": 10**4000}]
)
def test_a_number_longer_than_it_can_be_makes_no_message(header):
    stream = relay()
    connect(stream)
    odd = feed_message(1, b"\4" + signed(1))
    odd["message"]["message"]["header"] |= header
    told = broadcast(odd, feed_message(2, b"\4" + signed(1)))
    told["confirmedSequenceNumberMessage"] = {"sequenceNumber": 10**4000}
    assert [m.sequence for m in hear(stream, told)] == [2]
    assert (stream.counts.malformed, stream.confirmed) == (1, None)


def test_a_number_that_is_too_far_ahead_is_not_believed():
    stream = relay()
    connect(stream)
    hear(stream, broadcast(feed_message(1, b"\4" + signed(1))))
    for number in (2**63, 2**64, 2_000_000):
        assert hear(stream, broadcast(feed_message(number, b"\4" + signed(1)))) == []
    assert (stream.counts.malformed, stream.counts.gaps) == (3, 0)
    assert [m.sequence for m in hear(stream, broadcast(feed_message(2, b"x")))] == [2]


def test_a_backlog_that_comes_slowly_is_waited_for():
    stream = relay()
    connect(stream)
    stream.tick(0)
    backlog = broadcast(*(feed_message(n, b"\4" + signed(n)) for n in range(200)))
    data = frame(1, json.dumps(backlog).encode())
    step = len(data) // 20 + 1
    heard = []
    for second in range(20):
        heard += stream.receive(data[second * step : (second + 1) * step])
        stream.tick(second * SECOND)
        assert stream.phase is Phase.LIVE
    assert len(heard) == 200
    for second in range(20, 40):  # and pings alone are none of its signs of life
        stream.receive(frame(9, b"x" * 125))
        list(stream.receive(frame(9, b"x" * 125)))
        stream.tick(second * SECOND)
    assert stream.why == "no sign of life within 10 s"


def test_a_jump_does_not_take_all_memory():
    stream = relay(start=1)
    connect(stream)
    [message] = hear(stream, broadcast(feed_message(2**64 - 1, b"\4" + signed(1))))
    assert message.sequence == 2**64 - 1
    assert stream.counts.gaps == 2**64 - 2
    assert stream.counts.lost == 2**64 - 2 - 100_000
    assert stream.wanted == 2**64 - 1 - 100_000


def test_one_jump_after_the_other_does_not_either():
    stream = relay(start=0)
    connect(stream)
    tracemalloc.start()
    for jump in range(100):
        assert hear(stream, broadcast(feed_message(jump * 100_000, b"\4" + signed(1))))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 1 << 20
    assert (stream.wanted, stream.counts.lost) == (98 * 100_000 + 1, 98 * 99_999)
    assert hear(stream, broadcast(feed_message(99 * 100_000 - 5, b"\4" + signed(1))))
    assert stream.counts.recovered == 1


def test_numbers_that_were_left_out_against_a_set():
    rng, missing, model, past = random.Random(5), LeftOut(), set(), 0
    for _ in range(2_000):
        number = rng.randrange(past + 2)
        match rng.randrange(6):
            case 0 | 1:
                first = past + rng.randrange(1, 3)
                past = first + rng.randrange(9)
                missing.add(first, past)
                model |= set(range(first, past))
            case 2 | 3 | 4:
                assert missing.remove(number) == (number in model)
                model.discard(number)
            case _ if rng.random() < 0.1:
                missing.drop_from(number)
                model = {kept for kept in model if kept < number}
            case _:
                number = past - rng.randrange(60)
                assert missing.drop_below(number) == sum(gone < number for gone in model)
                model = {kept for kept in model if kept >= number}
        assert bool(missing) == bool(model)
        assert not model or missing.least == min(model)


def test_what_is_taken_back_again_and_again_costs_what_it_took_to_tell():
    stream = relay()
    connect(stream)
    stream._place(0, 1)
    for number in range(1, 60_000):
        stream._place(number, 1)
    began = time.thread_time()
    for number in range(59_998, 59_498, -1):
        assert stream._place(number, 2) == "reorganised"
    assert time.thread_time() - began < 0.2  # 1 to 2 s where each walks through all of them
    assert stream._place(100, 1) == "duplicate"
    assert stream._place(100, 2) == "reorganised"


@pytest.mark.parametrize("text", [b'{"version":1,"messages":[%b1]}', b'{"x":[%b[]],"version":1}'])
def test_a_message_of_more_values_than_any_is_not_decoded(text):
    stream = relay()
    connect(stream)
    hear(stream, text % (b"1," * 9_000))
    assert (stream.unclear, stream.counts.malformed) == (1, 0)
    hear(stream, text % (b"1," * 3_000))
    assert stream.unclear == 1
    assert stream.counts.malformed == (3_001 if b"messages" in text else 0)


def test_a_relay_of_another_chain():
    stream = relay(chain_id=42161)
    connect(stream, [("Arbitrum-Chain-Id", "42170")])
    assert stream.why == "the relay is of chain 42170, not 42161"
    stream.connect()
    connect(stream, [("Arbitrum-Chain-Id", "42161")])
    assert stream.phase is Phase.LIVE


def test_what_is_not_of_this_feed():
    stream = relay()
    connect(stream)
    bad = [b"{", {"version": 2}, {"version": 1, "messages": [{"sequenceNumber": -1}]}, b'"x"']
    bad.append(broadcast(feed_message(1, b"x") | {"message": {"message": {"l2Msg": "*"}}}))
    bad.append(b'{"version":1,"x":' + b"[" * 5_000 + b"]" * 5_000 + b"}")
    assert hear(stream, *bad, {"version": 1}) == []
    assert (stream.unclear, stream.counts.malformed) == (4, 2)
    assert stream.phase is Phase.LIVE


def test_the_relays_own_compression():
    dictionary = b'{"version":1,"messages":[{"sequenceNumber":'
    stream = relay(dictionary=dictionary)
    request = stream.data_to_send()
    assert b"Sec-WebSocket-Extensions: Arbitrum-permessage-deflate" in request
    server = ServerProtocol()
    server.receive_data(request)
    [parsed] = server.events_received()
    response = server.accept(parsed)
    response.headers["Sec-WebSocket-Extensions"] = (
        "Arbitrum-permessage-deflate; server_no_context_takeover; client_no_context_takeover"
    )
    server.send_response(response)
    assert list(stream.receive(b"".join(server.data_to_send()))) == []
    for number in (1, 2):
        compressor = zlib.compressobj(wbits=-15, zdict=dictionary)
        message = json.dumps(broadcast(feed_message(number, b"\4" + signed(number)))).encode()
        packed = compressor.compress(message) + compressor.flush(zlib.Z_SYNC_FLUSH)
        [heard] = stream.receive(frame(1, packed[:-4], rsv=4))
        assert heard.sequence == number


def test_signs_of_life():
    stream = relay()
    connect(stream)
    stream.tick(0)
    assert stream.data_to_send()[0] == 0x89
    stream.tick(9 * SECOND)
    hear(stream, broadcast())
    stream.tick(10 * SECOND)
    stream.tick(21 * SECOND)
    assert stream.phase is Phase.FAILED
    assert stream.why == "no sign of life within 10 s"
    assert hear(stream, broadcast(feed_message(1, b"x"))) == []
    stream.connect()
    stream.tick(0)
    stream.tick(11 * SECOND)
    assert stream.why == "no handshake within 10 s"
    stream.connect()
    connect(stream)
    list(stream.receive(frame(8, (1001).to_bytes(2, "big"))))
    assert stream.why == "closed by the other side: 1001"


# Flashblocks.


def part(payload: str, index: int, *raws: bytes, number: int | None = None) -> dict:
    message: dict = {
        "payload_id": payload,
        "index": index,
        "diff": {
            "state_root": "0x" + "00" * 32,
            "block_hash": "0x" + "cd" * 32,
            "gas_used": hex(21000 * (index + 1)),
            "transactions": ["0x" + raw.hex() for raw in raws],
            "withdrawals": [],
        },
        "metadata": {"block_number": 1, "receipts": {}},
    }
    if number is not None:
        message["base"] = {
            "parent_hash": "0x" + "aa" * 32,
            "block_number": hex(number),
            "timestamp": "0x68a19ec7",
            "base_fee_per_gas": "0x5b777",
        }
    return message


def flashblocks(**options) -> Flashblocks:
    stream = Flashblocks("ws://boost.example/ws", decoder(8453), **options)
    connect(stream)
    return stream


def op(seed: int) -> bytes:
    return envelope(2, make(random.Random(seed), 2, 8453))


def test_the_parts_of_a_block():
    stream = flashblocks(source=4)
    deposit = b"\x7e" + bytes(50)
    heard = hear(
        stream,
        part("0x01", 0, deposit, number=100),
        part("0x01", 1, op(1), op(2)),
        part("0x01", 1, op(1), op(2)),
        part("0x01", 2, op(3), b"\x02junk"),
        part("0x01", 4),
        part("0x02", 0, deposit, number=101),
    )
    assert [(f.index, f.block_number, len(f.transactions)) for f in heard] == [
        (0, 100, 0),
        (1, 100, 2),
        (2, 100, 1),
        (4, 100, 0),
        (0, 101, 0),
    ]
    assert [tx.raw for tx in heard[1].transactions] == [op(1), op(2)]
    assert (heard[1].transactions[0].source, heard[1].transactions[0].arrival_ns) == (4, 5)
    assert (heard[0].base_fee_wei, heard[3].gas_used) == (0x5B777, 105000)
    counts = stream.counts
    assert (counts.blocks, counts.parts, counts.duplicates, counts.missing) == (2, 5, 1, 1)
    assert (counts.deposits, counts.refused, counts.transactions) == (2, 1, 3)


def test_beginning_in_the_middle_and_blocks_that_begin_again():
    stream = flashblocks()
    heard = hear(
        stream,
        part("0x01", 3, op(1)),
        part("0x02", 0, number=7),
        part("0x03", 0, number=7),
        part("0x03", 1, op(2)),
        part("0x04", 0, number=8),
    )
    assert [f.block_number for f in heard] == [None, 7, 7, 7, 8]
    assert [f.replaced for f in heard] == [False, False, True, True, False]
    assert (stream.counts.headless, stream.counts.replaced, stream.counts.missing) == (1, 1, 3)


def test_parts_that_come_late_and_again():
    """Behind the first part of the next block, as from a proxy with two upstreams."""
    order = [(100, 0), (100, 2), (101, 0), (100, 1), (100, 2), (100, 3), (101, 1), (101, 0)]
    stream = flashblocks()
    heard = hear(
        stream,
        *(
            part(f"0x{block:x}", index, op(10 * block + index), number=None if index else block)
            for block, index in order
        ),
    )
    assert [(f.block_number, f.index) for f in heard] == list(dict.fromkeys(order))
    assert {tx.origin for f in heard for tx in f.transactions} == {"block"}
    counts = stream.counts
    assert (counts.parts, counts.duplicates, counts.late, counts.missing) == (6, 2, 2, 0)
    assert (counts.blocks, counts.replaced, counts.headless) == (2, 0, 0)


def test_the_first_part_comes_late():
    stream = flashblocks()
    heard = hear(
        stream, part("0x01", 1, op(1)), part("0x02", 0, number=8), part("0x01", 0, number=7)
    )
    assert [(f.block_number, f.index, f.replaced) for f in heard] == [
        (None, 1, False),
        (8, 0, False),
        (7, 0, False),
    ]
    assert (stream.counts.headless, stream.counts.missing, stream.counts.late) == (0, 0, 1)


def test_what_comes_late_of_a_block_that_was_given_up():
    stream = flashblocks()
    heard = hear(
        stream,
        part("0x01", 0, number=7),
        part("0x02", 0, number=7),
        part("0x01", 1, op(1)),
        part("0x02", 1, op(2)),
    )
    assert [(f.payload_id, f.index) for f in heard] == [("0x01", 0), ("0x02", 0), ("0x02", 1)]
    assert (stream.counts.void, stream.counts.replaced, stream.counts.missing) == (1, 1, 0)


@pytest.mark.parametrize("index", [-3, 2**16, 2**40])
def test_an_index_that_is_none(index):
    stream = flashblocks()
    assert hear(stream, part("0x01", 0, number=7), part("0x01", index, op(1)))[1:] == []
    assert (stream.unclear, stream.counts.missing) == (1, 0)


def test_messages_that_are_compressed():
    stream = flashblocks()
    packed = zlib.compress(json.dumps(part("0x01", 0, number=1)).encode())
    assert hear(stream, packed, opcode=2) == []
    assert stream.counts.deflated == 1
    stream = flashblocks(decompress=zlib.decompress)
    [first] = hear(stream, packed, opcode=2)
    assert first.block_number == 1
    assert hear(stream, b"\x00garbage", opcode=2) == []
    assert stream.unclear == 1


def test_what_is_no_flashblock():
    stream = flashblocks()
    good = part("0x01", 0, number=1)
    bad = [
        b"{",
        {"payload_id": "0x1"},
        good | {"index": "0"},
        good | {"diff": {"transactions": ["0xzz"]}},
        good | {"diff": {"gas_used": "many"}},
        b'{"x":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
        good | {"base": good["base"] | {"block_number": "x"}},
    ]
    assert hear(stream, *bad) == []
    assert stream.unclear == 7
    assert stream.last_unclear.startswith(b'{"payload_id"')
    assert len(hear(stream, good)) == 1
