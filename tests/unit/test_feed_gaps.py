"""What a node, a provider or a link leaves out is asked for again, or counted by its cause."""

from __future__ import annotations

import itertools
import json
import time

import pytest

from barewire.errors import BarewireError
from barewire.feeds.bodies import AT_ONCE, MOST, PAUSES_NS, Bodies
from barewire.feeds.jsonrpc import PendingTransactions, Phase, Timing
from barewire.mempool.decoder import Decoder, Rules
from tests.unit.test_jsonrpc_feed import SECOND, Node, hole, session, transaction
from tests.unit.txjson_texts import notification

NO = {"error": {"code": -32601, "message": "no such method"}}


class Provider(Node):
    """A node that answers what it is asked as `result` says, and a clock."""

    def __init__(self, live, result) -> None:
        super().__init__(live)
        self.result = result
        self.now = 0
        self.batches: list[int] = []
        self.methods: list[str] = []
        self.subscribe()

    def _answer(self, request):
        if isinstance(request, list):
            self.batches.append(len(request))
        else:
            self.methods.append(request["method"])
        answer = self.result(request)
        if answer is None or isinstance(request, list):
            return answer
        return {"jsonrpc": "2.0", "id": request["id"]} | answer

    def serve(self, seconds: float, *, step: float = 0.25) -> list[bytes]:
        """Lets time pass; gives what came."""
        came = []
        for _ in range(round(seconds / step)):
            self.now += int(step * SECOND)
            self.session.tick(self.now)
            while asked := self.asked():
                for request in asked:
                    if (said := self._answer(request)) is not None:
                        came += self.say(said)
            if self.session.phase is Phase.FAILED:
                break
        return came


def told(transactions):
    """Answers about heads and bodies."""

    def result(request):
        if request["method"] == "eth_blockNumber":
            return {"result": "0x1"}
        return {"result": transactions.get(request["params"][0])}

    return result


KNOWN = {tx["hash"]: (tx, raw) for tx, raw in map(transaction, range(130))}
RAW = {raw for _, raw in KNOWN.values()}
SPELLED = {tx_hash: tx for tx_hash, (tx, _) in KNOWN.items()}


@pytest.mark.parametrize("limit", [0, 1, 20])
def test_a_batch_that_is_refused_as_a_whole_is_asked_for_in_smaller_ones(limit):
    """Of 0: this provider takes no batch, and single requests only."""
    one = told(SPELLED)

    def result(request):
        if not isinstance(request, list):
            return one(request)
        if len(request) > limit:
            said = f"batch limit {limit} exceeded: {len(request)} requests given"
            return {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": said}}
        return [{"id": call["id"]} | one(call) for call in request]

    live = session(style="hashes")
    node = Provider(live, result)
    came = node.say(*(notification(tx_hash) for tx_hash in KNOWN))
    came += node.serve(2)
    assert set(came) == RAW
    assert len(came) == len(RAW)
    counts = live.stats()
    assert [counts[name] for name in ("vanished", "denied", "unanswered")] == [0, 0, 0]
    assert counts["batch"] == {0: 1, 1: 1, 20: 15}[limit]
    node.batches.clear()
    node.say(*(notification(transaction(n)[0]["hash"]) for n in range(200, 240)))
    node.serve(0.5)
    assert max(node.batches, default=1) <= max(limit, 1)  # it is remembered


@pytest.mark.parametrize(("nulls", "cause"), [(1, None), (len(PAUSES_NS), None), (99, "vanished")])
def test_a_null_at_first_is_not_final(nulls, cause):
    tx, raw = transaction(1)
    asked = []

    def result(request):
        if isinstance(request, list):
            return [{"id": call["id"]} | result(call) for call in request]
        if request["method"] == "eth_blockNumber":
            return {"result": "0x1"}
        asked.append(request)
        return {"result": None if len(asked) <= nulls else tx}

    live = session(style="hashes")
    node = Provider(live, result)
    node.say(notification(tx["hash"]))
    assert node.serve(6) == ([] if cause else [raw])
    counts = live.stats()
    missing = {name: counts[name] for name in ("vanished", "denied", "unanswered")}
    assert missing == {name: int(name == cause) for name in missing}
    assert len(asked) == min(nulls, len(PAUSES_NS)) + 1


def test_a_body_that_another_source_brings_meanwhile_is_not_asked_for_again():
    known = []
    live = session(style="hashes", heard=lambda *told: bool(known) and known.append(told) is None)
    node = Provider(live, lambda request: {"result": None} if request else None)
    tx, _ = transaction(1)
    node.say(notification(tx["hash"]))
    node.now = 0
    node.serve(0.25)
    known.append(())
    node.methods.clear()
    node.serve(6)
    assert "eth_getTransactionByHash" not in node.methods
    assert live.stats()["known"] == 1


def break_and_return(live, node, at: int, result) -> Provider:
    live.end("reset")
    live.connect(at)
    return Provider(live, result)


def heads(number: int, **answers):
    """A node at that height; `answers` by method, and blocks without transactions."""

    def result(request):
        method = request["method"]
        if method in answers:
            answer = answers[method]
            return answer(request) if callable(answer) else answer
        if method == "eth_blockNumber":
            return {"result": hex(number)}
        if method == "eth_getBlockByNumber":
            return {"result": {"transactions": []}}
        return NO

    return result


def test_a_second_break_between_two_answers_leaves_the_first_hole_open():
    live = session()
    node = Provider(live, heads(100))
    node.serve(1)
    mined = {n: [f"0x{n:064x}"] for n in range(101, 121)}
    block = lambda request: {"result": {"transactions": mined[int(request["params"][0], 16)]}}  # noqa: E731
    pool_only = heads(0, txpool_content={"result": {}}, eth_blockNumber=lambda _: None)
    node = break_and_return(live, node, SECOND, pool_only)
    node.serve(1)
    assert "txpool_content" in node.methods
    node = break_and_return(
        live,
        node,
        2 * SECOND,
        heads(120, txpool_content={"result": {}}, eth_getBlockByNumber=block),
    )
    node.serve(1)
    assert live.hole.take_mined() == [bytes.fromhex(f"{n:064x}") for n in range(101, 121)]
    assert live.stats()["hole"] == hole(holes=2)


def test_a_pool_that_never_answers_is_counted_and_the_pending_block_read():
    live = session()
    node = Provider(live, heads(1))
    tx, raw = transaction(1)
    pending = {"result": {"transactions": [tx]}}
    node = break_and_return(
        live,
        node,
        0,
        heads(1, txpool_content=lambda _: None, eth_getBlockByNumber=pending),
    )
    assert node.serve(9) == []
    assert live.stats()["hole"] == hole(holes=1)
    assert node.serve(3) == [raw]
    assert live.stats()["hole"] == hole(holes=1, filled=1, pools_unread=1)
    assert live.phase is Phase.LIVE


def test_when_nothing_of_a_hole_is_answered_that_is_counted():
    live = session()
    node = Provider(live, heads(1))
    node.serve(1)
    silent = {name: lambda _: None for name in ("txpool_content", "eth_getBlockByNumber")}
    node = break_and_return(live, node, 0, heads(3, **silent))
    node.serve(60)
    assert live.stats()["hole"] == hole(holes=1, unfillable=1, blocks_unseen=2)
    assert live.phase is Phase.LIVE


MIB = 1 << 20


def test_a_pool_longer_than_a_message_is_left_alone_until_it_is_shorter():
    live = session(max_message=MIB)
    node = Provider(live, heads(1))
    tx, raw = transaction(1)
    long = {"result": {"pending": {"0xa": {"0": {"x": "y" * MIB}}}}}
    pending = {"result": {"transactions": [tx]}}
    node = break_and_return(
        live, node, 0, heads(1, txpool_content=long, eth_getBlockByNumber=pending)
    )
    node.serve(1)
    assert live.why == "failed: 1009 message too big"
    for size, expected in ((2000, "eth_getBlockByNumber"), (2, "txpool_content")):
        status = {"result": {"pending": hex(size), "queued": "0x0"}}
        pool = {"result": {"pending": {"0xa": {"0": tx}}}}
        node = break_and_return(
            live,
            node,
            0,
            heads(1, txpool_status=status, txpool_content=pool, eth_getBlockByNumber=pending),
        )
        assert node.serve(1) == [raw]
        assert live.phase is Phase.LIVE
        assert [m for m in node.methods if m in ("txpool_content", "eth_getBlockByNumber")] == [
            expected
        ]
    assert live.stats()["hole"] == hole(holes=3, filled=2, pools_unread=1)


def test_a_pending_block_that_is_too_long_as_well():
    live = session(max_message=MIB)
    node = Provider(live, heads(1))
    long = {"result": {"transactions": ["y" * MIB]}}
    for why in ("failed: 1009 message too big", "failed: 1009 message too big", ""):
        node = break_and_return(
            live, node, 0, heads(1, txpool_content=long, eth_getBlockByNumber=long)
        )
        node.serve(1)
        assert live.why == why
    assert live.stats()["hole"] == hole(holes=3, unfillable=1)


def test_a_pool_that_links_break_under_is_left_alone_once():
    live = session()
    node = Provider(live, heads(1))
    asked = []
    for _ in range(5):
        node = break_and_return(live, node, 0, heads(1, txpool_content=lambda _: None))
        node.serve(1)
        asked.append("txpool_content" in node.methods)
    assert asked == [True, True, False, True, True]


def test_a_pool_over_a_nodes_socket_that_is_too_long():
    live = PendingTransactions(
        "ipc:///run/node.ipc", Decoder(Rules.preset("prague", 0)), max_message=MIB
    )
    tx, raw = transaction(1)
    pending = {"transactions": [tx]}

    def serve(pool) -> list[bytes]:
        came, now = [], 0
        for _ in range(8):
            now += SECOND // 4
            live.tick(now)
            for text in live.data_to_send().decode().replace("}{", "}\n{").splitlines():
                request = json.loads(text)
                result = {
                    "eth_subscribe": "0x1",
                    "eth_chainId": "0x1",
                    "eth_blockNumber": "0x1",
                    "txpool_content": pool,
                    "eth_getBlockByNumber": pending,
                }[request["method"]]
                answer = json.dumps({"id": request["id"], "result": result}).encode()
                came += [tx.raw for tx in live.receive(answer)]
        return came

    serve({})
    live.end("reset")
    live.connect(0)
    assert serve({"pending": {"0xa": {"0": {"x": "y" * MIB}}}}) == [raw]
    assert live.stats()["hole"] == hole(holes=1, filled=1, pools_unread=1)


def test_a_pool_that_was_being_read_when_the_link_broke_is_read_to_its_end():
    live = session()
    node = Provider(live, heads(1))
    pool = {"pending": {"0xa": {str(n): tx for n, tx in enumerate(SPELLED.values())}}}
    live.end("reset")
    live.connect(0)
    node = Node(live)
    node.subscribe()
    live.tick(0)
    [asked] = [one for one in node.asked() if one["method"] == "txpool_content"]
    node.server.send_text(json.dumps({"id": asked["id"], "result": pool}).encode())
    stream = live.receive(b"".join(node.server.data_to_send()))
    next(stream)  # of many
    live.end("reset")
    live.connect(0)
    assert Node(live).origins == ["pool"] * len(RAW)


def test_a_node_of_another_chain_is_not_listened_to():
    live = PendingTransactions("ws://node", Decoder(Rules.preset("prague", 31337)))
    node = Node(live)
    node.chain_id = "0x1"
    node.subscribe()
    node.asked()
    assert live.why == "the node is of chain 1, not 31337"


def test_a_node_begun_anew_as_another_chain_is_found_out_without_a_configured_one():
    live = session()
    node = Provider(live, heads(1))
    node.serve(1)
    live.end("reset")
    live.connect(0)
    node = Node(live)
    node.chain_id = "0x7a69"
    node.subscribe()
    node.asked()
    assert live.why == "the node is of chain 31337, not 1"


def test_a_chain_id_that_is_not_told_is_no_reason_to_hang_up():
    live = PendingTransactions("ws://node", Decoder(Rules.preset("prague", 31337)))
    node = Node(live)
    node.chain_id = None
    node.subscribe()
    node.asked()
    assert live.phase is Phase.LIVE


def test_pings_are_no_sign_of_the_nodes_life():
    """They are a proxy's, before a node that hangs."""
    live = session(timing=Timing(answer_ns=10 * SECOND, ask_every_ns=5 * SECOND))
    node = Provider(live, lambda _: None)
    for _ in range(80):
        node.server.send_ping(b"x" * 125)
        node.flush()
        node.serve(0.25)
        if live.phase is Phase.FAILED:
            break
    assert live.why == "no sign of life within 10 s"
    assert 10 * SECOND < node.now < 16 * SECOND


def test_pings_that_come_in_pieces_are_none_either():
    live = session(timing=Timing(answer_ns=10 * SECOND, ask_every_ns=5 * SECOND))
    node = Provider(live, lambda _: None)
    node.serve(0.25)
    pings = itertools.cycle(b"\x89\x7d" + b"x" * 125)
    for _ in range(80):  # each time a byte more of one that is not whole
        list(live.receive(bytes(itertools.islice(pings, 128))))
        node.serve(0.25)
        if live.phase is Phase.FAILED:
            break
    assert live.why == "no sign of life within 10 s"
    assert 10 * SECOND < node.now < 16 * SECOND


def test_a_subscription_that_went_mute_is_ended_and_then_given_more_time():
    """The node answers, its chain grows, and it announces nothing."""
    live = session()
    lasted = []
    for _ in range(3):
        head = iter(range(100, 10_000))
        node = Provider(live, heads(0, eth_blockNumber=lambda _, n=head: {"result": hex(next(n))}))
        node.say(notification(transaction(1)[0]) if not lasted else {"id": 5, "result": "0x1"})
        node.serve(300)
        assert live.why.startswith("mute: nothing announced for ")
        lasted.append(node.now // SECOND)
        live.connect(0)
    assert 30 <= lasted[0] <= 40
    assert 60 <= lasted[1] <= 70
    assert 120 <= lasted[2] <= 130


def test_a_chain_that_stands_still_makes_nobody_mute():
    live = session()
    node = Provider(live, heads(100))
    node.serve(120)
    assert live.phase is Phase.LIVE


def test_a_chains_own_transactions_are_neither_refused_nor_missing():
    """Deposits of an OP-stack chain, which nobody signed."""
    deposit = {
        "type": "0x7e",
        "hash": "0x" + "ab" * 32,
        "sourceHash": "0x" + "00" * 32,
        "from": "0x" + "de" * 20,
        "to": "0x" + "42" * 20,
        "value": "0x0",
        "gas": "0xf4240",
        "input": "0x440a5e20",
        "nonce": "0x1",
    }
    live = session()
    node = Provider(live, heads(100))
    node.serve(1)
    known = [transaction(n) for n in range(3)]

    def block(request):
        where, full = request["params"]
        txs = [deposit] + ([tx for tx, _ in known] if where == "pending" else [])
        return {"result": {"transactions": txs if full else [tx["hash"] for tx in txs]}}

    node = break_and_return(live, node, 0, heads(105, eth_getBlockByNumber=block))
    assert node.serve(2) == [raw for _, raw in known]
    assert live.hole.take_mined() == []
    assert live.stats()["hole"] == hole(holes=1, filled=3, pools_unread=1)


def test_several_in_one_notification():
    live = session()
    node = Provider(live, heads(1))
    assert node.say(notification(list(SPELLED.values()))) == [raw for _, raw in KNOWN.values()]
    assert live.stats()["unclear"] == 0
    hashes = session(style="hashes")
    node = Provider(hashes, heads(1))
    node.say(notification(list(SPELLED)))
    assert hashes.stats()["announced"] == len(SPELLED)


def test_the_number_of_a_question_as_a_string():
    live = session()
    node = Node(live)
    [request] = node.asked()
    node.say({"id": str(request["id"]), "result": "0x1"})
    assert live.phase is Phase.LIVE


def test_the_hash_of_a_body_says_since_when_it_is_known():
    live = session(style="hashes")
    node = Node(live)
    node.subscribe()
    tx, _ = transaction(1)
    node.server.send_text(json.dumps(notification(tx["hash"])).encode())
    assert list(live.receive(b"".join(node.server.data_to_send()), 100, 1)) == []
    [[request]] = [one if isinstance(one, list) else [one] for one in node.asked()]
    node.server.send_text(json.dumps({"id": request["id"], "result": tx}).encode())
    [came] = live.receive(b"".join(node.server.data_to_send()), 900, 1)
    assert (came.origin, came.known_ns, came.arrival_ns) == ("announced", 100, 900)


def test_bodies_that_never_come_cost_as_much_as_asking_for_them():
    """However many are waited for, and though each is asked for alone."""
    bodies = Bodies(batch=1, answer_ns=SECOND, heard=None)
    for number in range(MOST + 5):
        bodies.announced(number.to_bytes(32, "big"), 0, 0)
    assert bodies.counts.unanswered == 5
    now = number = 0
    began = time.thread_time()
    for tries in range(1, 5):
        while bodies.due:
            batches = bodies.take_due(number)
            assert len(batches) == AT_ONCE
            number = batches[-1][-1][0]
        assert bodies.counts.asked_again == (tries - 1) * MOST
        for _ in range(4):
            now += 2 * SECOND
            bodies.tick(now)
    assert time.thread_time() - began < 5  # half a minute where each looks at all the others
    assert bodies.counts.unanswered == MOST + 5
    assert not (bodies.due)
    assert not (bodies.expected)
    assert not bodies.batch_refused()


@pytest.mark.parametrize("result", [None, False, "", {}, []])
def test_a_subscription_without_a_name_is_none(result):
    live = session()
    node = Node(live)
    [request] = node.asked()
    node.say({"jsonrpc": "2.0", "id": request["id"], "result": result})
    assert live.phase is Phase.FAILED
    assert live.why.startswith("the subscription was refused: ")


def broken_between(before: int, after: int) -> PendingTransactions:
    """A session whose node told of these two heads, with a break between."""

    def block(request):
        number = request["params"][0]
        return {"result": {"transactions": [f"0x{int(number, 16):064x}"] if "0x" in number else []}}

    live = session()
    node = Provider(live, heads(before))
    node.serve(1)
    break_and_return(live, node, SECOND, heads(after, eth_getBlockByNumber=block)).serve(8)
    return live


def test_a_head_that_no_chain_grows_to_is_not_believed():
    live = broken_between(100, (1 << 64) - 1)
    assert live.stats()["hole"]["blocks_unseen"] == 0
    later = break_and_return(live, None, 20 * SECOND, heads(110))
    later.serve(8)
    assert later.methods.count("eth_getBlockByNumber") == 11  # of 101 to 110, and the pending one


@pytest.mark.parametrize(("head", "blocks"), [(5, 5), (900, 64)])
def test_the_blocks_of_a_chain_begun_anew_are_looked_through(head, blocks):
    live = broken_between(10_000, head)
    assert live.stats()["hole"]["blocks_unseen"] == 0
    assert len(live.hole.take_mined()) == blocks


def test_bloxroute_is_not_behind_a_nodes_socket():
    with pytest.raises(BarewireError, match="newTxs"):
        PendingTransactions("ipc:/node", Decoder(Rules.preset("prague", 0)), style="bloxroute")


@pytest.mark.parametrize(
    ("pool", "unread"),
    [
        ({"pending": [{"0": "x" * 300}]}, 1),  # of another form
        ({"pending": "x" * 300}, 1),
        (json.loads("[" * 90 + "]" * 90), 1),
        ({"pending": {}, "queued": {}, "baseFee": {}}, 0),
        ({}, 0),
    ],
)
def test_what_is_answered_for_a_pool_and_is_none_is_no_pool(pool, unread):
    live = session()
    node = Provider(live, heads(1))
    tx, raw = transaction(1)
    block = {"result": {"transactions": [tx]}}
    node = break_and_return(
        live, node, 0, heads(1, txpool_content={"result": pool}, eth_getBlockByNumber=block)
    )
    assert node.serve(13) == [raw] * unread
    assert live.stats()["hole"] == hole(holes=1, pools_unread=unread, filled=unread)


def test_another_block_than_was_asked_for_is_not_looked_through():
    """And what stands in one twice was mined once."""

    def block(request):
        number = request["params"][0]
        asked.append(number)
        late = len(asked) < 3
        return {
            "result": {"number": "0x64" if late else number, "transactions": [f"0x{7:064x}"] * 3}
        }

    asked = []
    live = session()
    node = Provider(live, heads(100))
    node.serve(1)
    result = heads(101, txpool_content={"result": {}}, eth_getBlockByNumber=block)
    break_and_return(live, node, SECOND, result).serve(20)
    assert asked == ["0x65"] * 3
    assert live.hole.take_mined() == [(7).to_bytes(32, "big")]
    assert live.stats()["hole"] == hole(holes=1)
