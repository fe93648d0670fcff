"""The feeds against a real node: what they deliver is what web3.py says is in its pool."""

import json
import random
import select
import socket
import threading
import time
from urllib.parse import urlsplit

import pytest
from eth_account import Account
from web3 import Web3

from barewire.feeds.jsonrpc import PendingTransactions, Phase
from barewire.mempool.decoder import Decoder, Rules
from tests.chain.anvil import Anvil

CHAIN = 31337
KEYS = [Account.from_key(hash_) for hash_ in (bytes([n]) * 32 for n in range(1, 9))]


class Line:
    """A session on a blocking socket, read in a thread of its own."""

    def __init__(self, url: str, **options) -> None:
        self.session = PendingTransactions(url, Decoder(Rules.preset("prague", CHAIN)), **options)
        self.got: list = []
        self.filled: list = []
        self._stop = False
        self._break = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self.wait(lambda: self.session.phase is Phase.LIVE)

    def wait(self, condition, seconds: float = 60) -> None:
        until = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < until, (len(self.got), self.session.stats())
            time.sleep(0.01)

    def cut(self) -> None:
        """Ends the connection; the next one begins half a second later."""
        self._break = True
        self.wait(lambda: self.session.phase is Phase.FAILED)

    def is_back(self) -> bool:
        """Whether the next one has begun."""
        return not self._break

    def close(self) -> None:
        self._stop = True
        self._thread.join(10)

    def _connect(self) -> socket.socket:
        parts = urlsplit(self.session.url)
        if parts.scheme == "ipc":
            s = socket.socket(socket.AF_UNIX)
            s.connect(parts.path)
            return s
        return socket.create_connection((parts.hostname, parts.port))

    def _run(self) -> None:
        while not self._stop:
            with self._connect() as s:
                self._talk(s)
            if not self._stop:
                time.sleep(0.5)
                self.session.connect(time.monotonic_ns())
                self._break = False

    def _talk(self, s: socket.socket) -> None:
        session = self.session
        while not self._stop and not self._break and session.phase is not Phase.FAILED:
            session.tick(time.monotonic_ns())
            if data := session.data_to_send():
                s.sendall(data)
            if not select.select([s], [], [], 0.02)[0]:
                continue
            if not (data := s.recv(65536)):
                break
            for tx in session.receive(data, time.monotonic_ns(), 1):
                (self.filled if session.filling else self.got).append(tx)
        session.end("cut" if self._break else "the end")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def signed(count: int, seed: int = 0) -> list[bytes]:
    """Transactions of every type that the node mines without blobs, of a few accounts."""
    rng = random.Random(seed)
    nonces = dict.fromkeys(range(len(KEYS)), 0)
    out = []
    for number in range(count):
        who = number % len(KEYS)
        kind = rng.choice([0, 1, 2, 2, 2, 4])
        tx: dict = {
            "chainId": CHAIN,
            "nonce": nonces[who],
            "gas": 500_000,
            "to": Web3.to_checksum_address(rng.randbytes(20)),
            "value": rng.getrandbits(20),
            "data": rng.randbytes(rng.choice([0, 4, 68, 260])),
        }
        if kind < 2:
            tx["gasPrice"] = 3 * 10**9 + rng.getrandbits(20)
        else:
            tx |= {"maxFeePerGas": 3 * 10**9, "maxPriorityFeePerGas": rng.getrandbits(30)}
        if kind in (1, 2, 4):
            tx["accessList"] = [
                {"address": "0x" + "11" * 20, "storageKeys": ["0x" + "22" * 32] * rng.randrange(3)}
            ] * rng.randrange(3)
        if kind == 1:
            tx["type"] = 1
        if kind == 4:
            delegate = {"chainId": CHAIN, "address": "0x" + "33" * 20, "nonce": 10**6}
            tx["authorizationList"] = [KEYS[0].sign_authorization(delegate)]
        nonces[who] += 1
        out.append(bytes(KEYS[who].sign_transaction(tx).raw_transaction))
    return out


def send(node: Anvil, raws: list[bytes]) -> None:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=60)
    for at in range(0, len(raws), 50):
        batch = [
            {
                "jsonrpc": "2.0",
                "id": n,
                "method": "eth_sendRawTransaction",
                "params": ["0x" + raw.hex()],
            }
            for n, raw in enumerate(raws[at : at + 50])
        ]
        connection.request("POST", "/", json.dumps(batch), {"Content-Type": "application/json"})
        answers = json.loads(connection.getresponse().read())
        assert all("result" in answer for answer in answers), answers[0]
    connection.close()


@pytest.fixture(scope="module")
def node():
    with Anvil("--no-mining", "--hardfork", "prague", "--gas-limit", "30000000000") as node:
        for key in KEYS:
            node.rpc("anvil_setBalance", key.address, hex(10**24))
        yield node


def compare(w3: Web3, tx) -> None:
    """Every field of a record against web3.py's view of the transaction of that hash."""
    theirs = w3.eth.get_transaction(tx.hash)
    assert theirs["type"] == tx.type
    assert theirs["nonce"] == tx.nonce
    assert theirs["gas"] == tx.gas
    assert theirs["value"] == tx.value_wei
    assert bytes(theirs["input"]) == tx.data
    assert theirs["chainId"] == tx.chain_id
    assert bytes.fromhex(theirs["to"][2:]) == tx.to
    assert int.from_bytes(theirs["r"], "big") == tx.r
    assert int.from_bytes(theirs["s"], "big") == tx.s
    if tx.type >= 2:
        assert theirs["maxFeePerGas"] == tx.fee_cap_wei
        assert theirs["maxPriorityFeePerGas"] == tx.tip_wei
    else:
        assert theirs["gasPrice"] == tx.fee_cap_wei
    entries = theirs.get("accessList", [])
    assert (
        tuple(
            (
                bytes.fromhex(e["address"][2:]),
                tuple(Web3.to_bytes(hexstr=k) for k in e["storageKeys"]),
            )
            for e in entries
        )
        == tx.access_list
    )
    for mine, other in zip(tx.authorizations, theirs.get("authorizationList", []), strict=True):
        assert mine.nonce == other["nonce"]
        assert mine.chain_id == other["chainId"]
        assert mine.address == bytes.fromhex(other["address"][2:])


def run(node: Anvil, raws: list[bytes], sample: int) -> None:
    """Sends, with a cut in the middle; nothing may be missing, and nothing else may come."""
    w3 = Web3(Web3.HTTPProvider(node.http))
    half = len(raws) // 2
    hole = max(1, len(raws) // 20)
    with (
        Line(node.ws, source=0) as bodies,
        Line(node.ws, source=1, style="hashes") as hashes,
        Line(f"ipc://{node.ipc}", source=2) as ipc,
    ):
        lines = (bodies, hashes, ipc)
        send(node, raws[:half])
        for line in lines:
            line.wait(lambda line=line: len(line.got) == half)
        bodies.cut()
        send(node, raws[half : half + hole])
        bodies.wait(bodies.is_back)
        bodies.wait(lambda: bodies.session.phase is Phase.LIVE)
        bodies.wait(lambda: len(bodies.filled) >= half + hole)
        send(node, raws[half + hole :])
        for line in (hashes, ipc):
            line.wait(lambda line=line: len(line.got) == len(raws), 60)
        bodies.wait(lambda: len(bodies.got) == len(raws) - hole, 60)
    assert sorted(tx.raw for tx in hashes.got) == sorted(raws)
    assert sorted(tx.raw for tx in ipc.got) == sorted(raws)
    assert {tx.raw for tx in bodies.got + bodies.filled} == set(raws)
    assert {tx.raw for tx in bodies.filled} == set(raws[: half + hole])
    for line in lines:
        stats = line.session.stats()
        assert stats["refused"] == {}, line.session.feed.samples()
        assert stats["errors"] == stats["unanswered"] == stats["vanished"] == 0
    step = max(1, len(raws) // sample)
    for tx in hashes.got[::step] + bodies.filled[::step]:
        compare(w3, tx)
    assert {tx.type for tx in ipc.got} == {0, 1, 2, 4}


def test_the_same_transactions_as_the_node_has(node):
    run(node, signed(240), sample=240)


@pytest.mark.slow
def test_ten_thousand_of_them():
    with Anvil("--no-mining", "--hardfork", "prague", "--gas-limit", "30000000000") as node:
        for key in KEYS:
            node.rpc("anvil_setBalance", key.address, hex(10**24))
        run(node, signed(10_000), sample=10_000)
