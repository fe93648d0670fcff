"""Sessions of pending transactions, on a clock of the test's own and bytes by hand."""

import json
import random

import pytest
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import Opcode
from websockets.server import ServerProtocol

from barewire._native import ffi
from barewire.feeds import jsonrpc
from barewire.feeds.blocks import Block
from barewire.feeds.jsonrpc import PendingTransactions, Phase, Timing
from barewire.feeds.txfeed import WORK_BYTES
from barewire.mempool.decoder import Decoder, Rules
from tests.transactions import envelope, make
from tests.unit.txjson_texts import notification, spelled

SECOND = 1_000_000_000


def transaction(seed: int, kind: int = 2) -> tuple[dict, bytes]:
    """Its JSON, and its bytes."""
    fields = make(random.Random(seed), kind)
    return spelled(kind, fields), envelope(kind, fields)


class Node:
    """The other side of a session over WebSocket."""

    def __init__(self, session: PendingTransactions) -> None:
        self.session = session
        self.server = ServerProtocol(max_size=None)
        self.server.receive_data(session.data_to_send())
        [request] = self.server.events_received()
        self.headers = request.headers
        self.server.send_response(self.server.accept(request))
        self.origins: list[str] = []
        self.chain_id = "0x1"
        self.flush()

    def asked(self) -> list:
        """Requests that came since the last call; a batch is a list of its own."""
        data = self.session.data_to_send()
        if data:
            self.server.receive_data(data)
        frames = self.server.events_received()
        asked = [json.loads(f.data) for f in frames if f.opcode is Opcode.TEXT]
        for request in asked[:]:
            if isinstance(request, dict) and request["method"] == "eth_chainId":
                asked.remove(request)
                self.say({"id": request["id"], "result": self.chain_id})
        return asked

    def say(self, *messages) -> list[bytes]:
        """Sends JSON; gives the envelopes of the transactions that it made."""
        for message in messages:
            self.server.send_text(json.dumps(message).encode())
        return self.flush()

    def flush(self) -> list[bytes]:
        came = list(self.session.receive(b"".join(self.server.data_to_send())))
        self.origins += [tx.origin for tx in came]
        return [tx.raw for tx in came]

    def subscribe(self, name: str = "0x1") -> dict:
        [request] = self.asked()
        assert self.say({"jsonrpc": "2.0", "id": request["id"], "result": name}) == []
        assert self.session.phase is Phase.LIVE
        return request


def session(**options) -> PendingTransactions:
    return PendingTransactions("ws://node.example", Decoder(Rules.preset("prague", 0)), **options)


def test_bodies():
    live = session(headers={"Authorization": "secret"})
    assert live.phase is Phase.CONNECTING
    node = Node(live)
    assert node.headers["Authorization"] == "secret"
    assert live.phase is Phase.SUBSCRIBING
    request = node.subscribe()
    assert (request["method"], request["params"]) == (
        "eth_subscribe",
        ["newPendingTransactions", True],
    )
    known = [transaction(n, n % 5) for n in range(200)]
    assert node.say(*(notification(tx) for tx, _ in known)) == [raw for _, raw in known]
    node.server.send_ping(b"still there?")
    node.flush()
    node.server.receive_data(live.data_to_send())
    pong = node.server.events_received()[-1]
    assert (pong.opcode, bytes(pong.data)) == (Opcode.PONG, b"still there?")


def test_transactions_behind_the_subscription_in_one_piece():
    live = session()
    node = Node(live)
    [request] = node.asked()
    tx, raw = transaction(1)
    assert node.say({"id": request["id"], "result": "0x1"}, notification(tx)) == [raw]


def test_hashes_are_fetched_in_batches_and_only_once():
    live = session(style="hashes", heard=lambda tx_hash, *_: tx_hash == bytes(32))
    node = Node(live)
    assert node.subscribe()["params"] == ["newPendingTransactions"]
    known = {tx["hash"]: (tx, raw) for tx, raw in map(transaction, range(150))}
    announced = [*known, *list(known)[:10], "0x" + "00" * 32]
    assert node.say(*(notification(tx_hash) for tx_hash in announced)) == []
    batches = node.asked()
    assert [len(batch) for batch in batches] == [100, 50]
    answers = []
    for batch in batches:
        for request in batch:
            assert request["method"] == "eth_getTransactionByHash"
            tx, _ = known[request["params"][0]]
            answers.append({"jsonrpc": "2.0", "id": request["id"], "result": tx})
    gone, refused, late = answers.pop(), answers.pop(), answers.pop()
    nothing = {gone["result"]["hash"]: None, refused["result"]["hash"]: {"code": 1}}
    answers += [{"id": gone["id"], "result": None}, {"id": refused["id"], "error": {"code": 1}}]
    random.Random(0).shuffle(answers)
    assert len(node.say(answers[:80], answers[80:])) == 147
    for second in range(1, 40):  # what did not come is asked for again, three times
        live.tick(second * SECOND)
        for request in node.asked():
            for one in request if isinstance(request, list) else [request]:
                if one["method"] == "eth_blockNumber":
                    node.say({"id": one["id"], "result": "0x1"})
                elif one["params"][0] in nothing:
                    error = nothing[one["params"][0]]
                    node.say({"id": one["id"]} | ({"error": error} if error else {"result": None}))
    counts = live.stats()
    assert (counts["fetched"], counts["asked_again"], counts["known"]) == (150, 9, 1)
    assert (counts["vanished"], counts["denied"], counts["unanswered"]) == (1, 1, 1)
    assert counts["errors"] == 4
    assert node.say([late]) == [known[late["result"]["hash"]][1]]


def test_hashes_announced_just_before_a_break_are_counted():
    """Some asked for, some not yet."""
    live = session(style="hashes")
    node = Node(live)
    node.subscribe()
    node.say(*(notification(transaction(n)[0]["hash"]) for n in range(3)))
    for n in range(3, 8):
        node.server.send_text(json.dumps(notification(transaction(n)[0]["hash"])).encode())
    node.server.send_close(1001, "going away")
    assert list(live.receive(b"".join(node.server.data_to_send()))) == []
    assert live.why == "closed by the other side: 1001 going away"
    assert (live.stats()["fetched"], live.stats()["unanswered"]) == (3, 8)


def test_bloxroute():
    live = session(style="bloxroute")
    node = Node(live)
    request = node.subscribe("3dea1a7e-5a3d-4c1d-9e9a-0f1f9a1c2e11")
    assert (request["method"], request["params"][0]) == ("subscribe", "newTxs")
    tx, raw = transaction(2)
    assert node.say(notification({"txHash": tx["hash"], "rawTx": "0x" + raw.hex()})) == [raw]
    live.tick(SECOND)
    node.server.receive_data(live.data_to_send())
    [ping] = node.server.events_received()
    assert ping.opcode is Opcode.PING
    node.flush()
    live.tick(20 * SECOND)
    assert live.phase is Phase.LIVE


def test_over_ipc_without_frames():
    live = PendingTransactions("ipc:///run/node.ipc", Decoder(Rules.preset("prague", 0)))
    request = json.loads(live.data_to_send())
    known = [transaction(n, n % 5) for n in range(70)]
    data = json.dumps({"id": request["id"], "result": "0x7"}).encode()
    data += b"".join(json.dumps(notification(tx)).encode() for tx, _ in known)
    got = [tx.raw for at in range(0, len(data), 1000) for tx in live.receive(data[at : at + 1000])]
    assert got == [raw for _, raw in known]


def test_signs_of_life():
    live = session(timing=Timing(answer_ns=10 * SECOND, ask_every_ns=5 * SECOND))
    node = Node(live)
    node.subscribe()
    for n in range(4):
        live.tick(n * 5 * SECOND)
        [request] = node.asked()
        assert request["method"] == "eth_blockNumber"
        if n < 3:
            node.say({"id": request["id"], "result": hex(n)})
    live.tick(25 * SECOND)
    assert live.phase is Phase.LIVE
    live.tick(26 * SECOND)
    assert live.phase is Phase.FAILED
    assert live.why == "no sign of life within 10 s"
    assert node.say(notification(transaction(1)[0])) == []


def test_an_answer_behind_a_long_message_is_waited_for():
    live = session(timing=Timing(answer_ns=10 * SECOND, ask_every_ns=5 * SECOND))
    node = Node(live)
    node.subscribe()
    live.tick(0)
    assert [request["method"] for request in node.asked()] == ["eth_blockNumber"]
    for n in range(1, 20):
        node.say(notification(transaction(n)[0]))
        live.tick(n * 5 * SECOND)
        assert live.phase is Phase.LIVE
    live.tick(106 * SECOND)
    assert live.why == "no sign of life within 10 s"


def test_a_handshake_that_stalls():
    live = session()
    live.tick(5)
    live.tick(5 + 11 * SECOND)
    assert live.why == "not subscribed within 10 s"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ({"error": {"code": -32601, "message": "no such method"}}, "the subscription was refused"),
        ({}, "the subscription was refused"),
    ],
)
def test_a_subscription_that_is_refused(answer, why):
    live = session()
    node = Node(live)
    [request] = node.asked()
    node.say(answer | {"id": request["id"]})
    assert live.phase is Phase.FAILED
    assert live.why.startswith(why)


def test_closed_by_the_other_side_or_failed():
    live = session()
    node = Node(live)
    node.subscribe()
    node.server.send_close(1001, "restart")
    node.flush()
    assert live.why == "closed by the other side: 1001 restart"
    live.connect(0)
    live.data_to_send()
    assert list(live.receive(b"HTTP/1.1 503 Busy\r\n\r\n")) == []
    assert "503" in live.why
    live.connect(0)
    node = Node(live)
    node.subscribe()
    assert list(live.receive(b"\xff\xff")) == []
    assert live.why == "failed: 1002 invalid opcode"
    live.connect(0)
    live.end("connection reset by peer")
    assert live.why == "connection reset by peer"
    assert live.stats()["failures"] == 4


def answered(node: Node, answers: dict) -> list:
    """Answers what the session asks until it asks no more; gives what was asked and what came."""
    asked, came = [], []
    while requests := node.asked():
        for request in requests:
            key = (request["method"], str(request["params"][0]) if request["params"] else "")
            asked.append(key)
            came += node.say({"id": request["id"]} | answers[key])
    return [asked, came]


def test_after_a_reconnect_the_pool_fills_the_hole():
    live = session()
    node = Node(live)
    node.subscribe()
    live.tick(0)
    assert answered(node, {("eth_blockNumber", ""): {"result": "0x64"}})[1] == []
    assert live.hole.stats()["holes"] == 0
    live.end("reset")
    live.connect(SECOND)
    node = Node(live)
    node.subscribe()
    pending = [transaction(n, n % 5) for n in range(130)]
    queued = [transaction(n) for n in range(130, 140)]
    pool = {
        "pending": {"0xa": {str(n): tx for n, (tx, _) in enumerate(pending)}},
        "queued": {"0xb": {str(n): tx for n, (tx, _) in enumerate(queued)}},
    }
    live.tick(SECOND)
    asked, came = answered(
        node,
        {
            ("txpool_content", ""): {"result": pool},
            ("eth_blockNumber", ""): {"result": "0x66"},
            ("eth_getBlockByNumber", "0x65"): {"result": {"transactions": ["0x" + "01" * 32]}},
            ("eth_getBlockByNumber", "0x66"): {"result": {"transactions": []}},
        },
    )
    assert len(asked) == 4
    assert came == [raw for _, raw in pending + queued]
    assert node.origins == ["pool"] * len(pending) + ["queued"] * len(queued)
    assert live.filling is False
    assert live.hole.take_mined() == [bytes([1]) * 32]
    assert live.hole.take_mined() == []
    stats = live.stats()
    assert stats["hole"] == hole(holes=1, filled=140)
    assert stats["connections"] == 2
    assert stats["transactions"] == 140
    assert not live.hole.waiting


def test_what_cannot_be_filled_is_counted():
    live = session()
    node = Node(live)
    node.subscribe()
    live.tick(0)
    answered(node, {("eth_blockNumber", ""): {"result": "0x64"}})
    live.end("reset")
    live.connect(SECOND)
    node = Node(live)
    node.subscribe()
    live.tick(SECOND)
    no = {"error": {"code": -32601, "message": "no such method"}}
    asked, came = answered(
        node,
        {("txpool_content", ""): no, ("eth_blockNumber", ""): {"result": hex(100 + 80)}}
        | {("eth_getBlockByNumber", hex(n)): {"result": None} for n in range(101, 181)}
        | {("eth_getBlockByNumber", "pending"): no},
    )
    assert came == []
    assert asked.count(("eth_getBlockByNumber", "pending")) == 1
    stats = live.stats()["hole"]
    assert stats == hole(holes=1, unfillable=1, blocks_unseen=16)
    for second in range(6, 660, 5):  # a block that is not known is asked for with the next heads
        live.tick(second * SECOND)
        answered(
            node,
            {("eth_blockNumber", ""): {"result": hex(100 + 80)}}
            | {("eth_getBlockByNumber", hex(n)): {"result": None} for n in range(101, 181)},
        )
    assert live.stats()["hole"] == hole(holes=1, unfillable=1, blocks_unseen=80)


def test_what_lies_in_a_pool_is_counted_and_the_rest_still_filled():
    """Bad entries between good ones: what comes behind them is from the pool all the same."""
    live = session()
    Node(live).subscribe()
    live.end("reset")
    live.connect(SECOND)
    node = Node(live)
    node.subscribe()
    live.tick(SECOND)
    known = [transaction(n) for n in range(90)]
    entries: list = [tx for tx, _ in known]
    entries[10] = known[10][0] | {"nonce": "0x777"}  # not what its hash says
    entries[11] = 5
    entries[40] = {"hash": "0x" + "22" * 32}
    entries[80] = {}
    pool = {"pending": {"0xa": {str(n): entry for n, entry in enumerate(entries)}}}
    [asked] = [request for request in node.asked() if request["method"] == "txpool_content"]
    was_filling = []
    node.server.send_text(json.dumps({"id": asked["id"], "result": pool}).encode())
    tx, raw = transaction(200)
    node.server.send_text(json.dumps(notification(tx)).encode())
    came = []
    for seen in live.receive(b"".join(node.server.data_to_send())):
        came.append(seen.raw)
        was_filling.append(live.filling)
    good = [raw for n, (_, raw) in enumerate(known) if n not in (10, 11, 40, 80)]
    assert came == [raw, *good]
    assert was_filling == [False] + [True] * len(good)
    assert live.stats()["hole"] == hole(holes=1, filled=86, pool_refused=4)
    assert live.filling is False


@pytest.mark.parametrize(
    "said",
    [
        ["0x1234"],
        ["0x" + "zz" * 32],
        ["0x" + "11" * 33],
        [5],
        [None],
        [{}],
        "0x11",
        7,
        ["0x" + "11" * 32, ""],
    ],
)
def test_what_a_block_lists_instead_of_hashes_is_not_taken_for_them(said):
    live = session()
    node = Node(live)
    node.subscribe()
    live.tick(0)
    answered(node, {("eth_blockNumber", ""): {"result": "0x64"}})
    live.end("reset")
    live.connect(SECOND)
    node = Node(live)
    node.subscribe()
    live.tick(SECOND)
    _, came = answered(
        node,
        {
            ("txpool_content", ""): {"result": {}},
            ("eth_blockNumber", ""): {"result": "0x65"},
            ("eth_getBlockByNumber", "0x65"): {"result": {"transactions": said}},
        },
    )
    assert came == []
    assert live.hole.take_mined() == []
    assert live.stats()["hole"] == hole(holes=1, blocks_unseen=1)


def test_questions_about_blocks_that_a_break_leaves_open_are_asked_again():
    live = session()
    node = Node(live)
    node.subscribe()
    live.tick(0)
    answered(node, {("eth_blockNumber", ""): {"result": "0x64"}})
    live.end("reset")
    live.connect(SECOND)
    node = Node(live)
    node.subscribe()
    live.tick(SECOND)
    by_method = {request["method"]: request for request in node.asked()}
    node.say({"id": by_method["txpool_content"]["id"], "result": {}})
    node.say({"id": by_method["eth_blockNumber"]["id"], "result": "0x69"})
    [first] = node.asked()  # one after the other
    assert first["params"] == ["0x65", True]
    node.say({"id": first["id"], "result": {"transactions": ["0x" + "11" * 32]}})
    [second] = node.asked()
    assert second["params"] == ["0x66", False]  # this chain has no transactions of its own
    live.end("reset")
    live.connect(2 * SECOND)
    node = Node(live)
    node.subscribe()
    live.tick(2 * SECOND)
    asked, _ = answered(
        node,
        {("txpool_content", ""): {"result": {}}, ("eth_blockNumber", ""): {"result": "0x6a"}}
        | {
            ("eth_getBlockByNumber", hex(n)): {"result": {"transactions": [f"0x{n:064x}"]}}
            for n in range(0x66, 0x6B)
        },
    )
    assert [where for method, where in asked if method == "eth_getBlockByNumber"] == [
        hex(n) for n in range(0x66, 0x6B)
    ]
    assert len(live.hole.take_mined()) == 6
    assert live.stats()["hole"] == hole(holes=2)


def hole(**counted: int) -> dict[str, int]:
    """Statistics of holes: zero but for what is `counted`."""
    names = ("holes", "filled", "pool_refused", "pools_unread", "unfillable", "blocks_unseen")
    return dict.fromkeys(names, 0) | counted


def test_a_long_answer_is_not_decoded_in_python(monkeypatch):
    live = session()
    node = Node(live)
    node.subscribe()
    live.end("cut")
    live.connect(0)
    node = Node(live)
    node.subscribe()
    live.tick(0)
    asked = {request["method"]: request["id"] for request in node.asked()}
    longest, decode = 0, jsonrpc._answer.decode

    class Watched:
        @staticmethod
        def decode(text):
            nonlocal longest
            longest = max(longest, len(text))
            return decode(text)

    monkeypatch.setattr(jsonrpc, "_answer", Watched)
    txs = [transaction(n, n % 5) for n in range(5)]
    filler = {f"0x{n:040x}": {"0": "x" * 1000} for n in range(3000)}  # no transactions
    pool = filler | {"0xabc": {str(n): tx for n, (tx, _) in enumerate(txs)}}
    assert node.say({"id": asked["txpool_content"], "result": {"pending": pool}}) == [
        raw for _, raw in txs
    ]
    assert live.stats()["hole"]["pool_refused"] == 3000
    # Others of such a length are answers to nothing that was asked.
    node.say({"id": asked["eth_blockNumber"], "result": filler}, notification(filler))
    node.say({"id": 99, "error": filler}, {"id": 98, "result": filler})
    assert live.stats()["unclear"] == 4
    assert 0 < longest < 10_000
    assert live.phase is Phase.LIVE


def test_one_turn_walks_through_so_much_of_a_long_pool_and_a_break_in_it_asks_again():
    """It is walked through as an answer, kept, and walked through as a pool, a step a turn."""
    live = session()
    txs = [transaction(n, n % 5) for n in range(5)]
    pool = {f"0x{n:040x}": {"0": "x" * 1000} for n in range(5000)}  # no transactions
    pool["0xabc"] = {str(n): tx for n, (tx, _) in enumerate(txs)}
    messages, records = ffi.new("struct bw_message[]", 64), ffi.new("struct bw_tx[]", 64)
    for second, breaks in ((1, True), (2, False)):
        live.end("reset")
        live.connect(second * SECOND)
        node = Node(live)
        node.subscribe()
        live.tick(second * SECOND)
        [asked] = [
            request["id"] for request in node.asked() if request["method"] == "txpool_content"
        ]
        node.server.send_text(json.dumps({"id": asked, "result": {"pending": pool}}).encode())
        data = b"".join(node.server.data_to_send())
        live.lend(data, 0, 0)
        came, turns, live.more = 0, 0, True
        while live.more and not (breaks and turns > len(data) / WORK_BYTES + 5):
            before = live.feed.walked_bytes
            came += live.read_into(messages, records)
            assert live.feed.walked_bytes - before < 2 * WORK_BYTES
            turns += 1
        assert live.more is breaks  # in the middle of being kept
        assert came == (0 if breaks else len(txs))
        assert live.hole.waiting is breaks
    assert turns > 2.5 * len(data) / (2 * WORK_BYTES)
    assert live.stats()["hole"] == hole(holes=2, filled=5, pool_refused=5000)


def test_a_long_deflated_message_takes_turns():
    live = session(deflate=True)
    server = ServerProtocol(extensions=[ServerPerMessageDeflateFactory()], max_size=None)
    server.receive_data(live.data_to_send())
    [request] = server.events_received()
    server.send_response(server.accept(request))
    (before, first), (after, last) = transaction(1), transaction(2)
    server.send_text(json.dumps(notification(before)).encode())
    server.send_text(json.dumps({"id": 99, "result": "0" * (3 << 20)}).encode())
    server.send_text(json.dumps(notification(after)).encode())
    data = b"".join(server.data_to_send())
    messages, records = ffi.new("struct bw_message[64]"), ffi.new("struct bw_tx[64]")
    live.lend(data, 1, 1)
    came, turns = [], 0
    while (count := live.read_into(messages, records, 64)) or live.more:
        came += [bytes(ffi.buffer(messages[i].data, messages[i].len)) for i in range(count)]
        turns += not count
    assert came == [first, last]
    assert turns >= 10
    assert live.stats()["unclear"] == 1
    # What was seen to in part is forgotten with its connection.
    server.send_text(json.dumps({"id": 99, "result": "0" * (3 << 20)}).encode())
    live.lend(b"".join(server.data_to_send()), 1, 1)
    assert live.read_into(messages, records, 64) == 0
    assert live.more
    live.end("cut")
    live.connect(0)
    assert live.read_into(messages, records, 64) == 0
    assert not live.more


def test_the_pending_block_where_the_pool_is_closed():
    live = session()
    Node(live).subscribe()
    live.end("reset")
    live.connect(0)
    node = Node(live)
    node.subscribe()
    live.tick(0)
    tx, raw = transaction(1)
    no = {"error": {"code": -32601, "message": "no such method"}}
    _, came = answered(
        node,
        {
            ("txpool_content", ""): no,
            ("eth_blockNumber", ""): {"result": "0x1"},
            ("eth_getBlockByNumber", "pending"): {"result": {"transactions": [tx]}},
        },
    )
    assert came == [raw]
    assert node.origins == ["block"]


def test_what_is_unclear_is_counted():
    live = session()
    node = Node(live)
    node.subscribe()
    head = {"hash": "0x" + "ab" * 32, "number": "0x1"}
    node.say(notification(head), {"id": 99, "result": "0x1"}, {"id": [], "x": 1}, [1, "text"])
    node.server.send_text(b"{not json")
    node.flush()
    stats = live.stats()
    assert stats["unclear"] == 3
    assert stats["refused"] == {"kind": 1, "syntax": 1}
    assert live.phase is Phase.LIVE


def test_deflated_bodies():
    live = session(deflate=True)
    server = ServerProtocol(extensions=[ServerPerMessageDeflateFactory()])
    server.receive_data(live.data_to_send())
    [request] = server.events_received()
    server.send_response(server.accept(request))
    known = [transaction(n, n % 5) for n in range(30)]
    for tx, _ in known:
        server.send_text(json.dumps(notification(tx)).encode())
    data = b"".join(server.data_to_send())
    assert [tx.raw for tx in live.receive(data)] == [raw for _, raw in known]


def told_of(height: int, /, **changes) -> dict:
    """A notification of newHeads, with what a node says beside what is read."""
    header = {
        "number": hex(height),
        "hash": f"0x{height:064x}",
        "parentHash": f"0x{height - 1:064x}",
        "timestamp": hex(1_700_000_000 + 12 * height),
        "baseFeePerGas": hex(7 + height),
        "nonce": "0x0000000000000000",
        "gasLimit": "0x1c9c380",
    }
    return notification(header | changes) | {"method": "eth_subscription"}


@pytest.mark.parametrize("style", ["bodies", "hashes"])
def test_blocks_are_told_of_between_transactions(style):
    blocks = []
    live = session(style=style)
    live.on_block = blocks.append
    node = Node(live)
    node.subscribe()
    [request] = node.asked()
    assert (request["method"], request["params"]) == ("eth_subscribe", ["newHeads"])
    node.say({"id": request["id"], "result": "0x2"})
    tx, raw = transaction(1)
    assert node.say(told_of(5), notification(tx), told_of(6, baseFeePerGas=None)) == [raw]
    assert blocks == [
        Block(5, (5).to_bytes(32), (4).to_bytes(32), 1_700_000_060, 12),
        Block(6, (6).to_bytes(32), (5).to_bytes(32), 1_700_000_072, None),
    ]
    for wrong in ({"hash": "0x12"}, {"number": 7}, {"timestamp": "0x" + "f" * 17}, {"number": ""}):
        node.say(told_of(7, **wrong))
    node.say({"method": "eth_subscription", "params": {"result": [1]}})
    assert (live.counts.blocks, live.counts.unclear, len(blocks)) == (2, 5, 2)
    assert live.stats()["refused"] == dict.fromkeys(live.stats()["refused"], 0)


def test_nobody_who_does_not_want_blocks_is_subscribed_to_them():
    live = session()
    node = Node(live)
    node.subscribe()
    assert node.asked() == []


def test_a_subscription_to_blocks_that_goes_mute_is_found_out():
    live = session()
    live.on_block = lambda _: None
    node = Node(live)
    node.subscribe()
    [request] = node.asked()
    node.say({"id": request["id"], "result": "0x2"})

    def ask(head: int, at: int) -> None:
        live.tick(at * SECOND)
        for request in node.asked():
            if request["method"] == "eth_blockNumber":
                node.say({"id": request["id"], "result": hex(head)})

    for at in range(0, 60, 6):  # a chain that stands still, then one that is told of late
        ask(10, at)
    for at in range(60, 120, 6):
        ask(at, at)
        node.say(told_of(at), notification(transaction(at)[0]))
    ask(120, 120)
    ask(126, 126)
    assert live.phase is Phase.LIVE
    ask(132, 132)
    assert live.phase is Phase.FAILED
    assert live.why == "told of no block up to 132, though it has them"
