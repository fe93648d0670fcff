"""The pump over real datagrams while its triggers are replaced: no packet lost, none held against
two tables."""

from __future__ import annotations

import random
import threading
import time

import pytest

from appliance.mainnet_block import encode_transaction, load_block
from barewire import secp
from barewire.feeds.envelope import to_messages
from barewire.feeds.mold_publisher import MoldPublisher
from barewire.feeds.moldudp64 import MoldConfig, MoldReceiver
from barewire.mempool.decoder import Decoder, Rules
from barewire.mempool.dedup import Dedup
from barewire.mempool.trigger_table import TriggerTable
from barewire.mempool.triggers import Trigger
from barewire.pump import Feed, Pump
from dpdk_bindings.datagram import Channel, open_datagram
from tests.transactions import envelope, make
from tests.unit.test_senders import Lane, joined, nobody

TARGETS = [bytes([n]) * 20 for n in range(1, 8)]
COUNT = 4000
IN_FLIGHT = 100  # datagrams: what a default socket buffer holds many times over


def transactions() -> list[bytes]:
    rng = random.Random(5)
    return [
        envelope(2, make(rng, 2) | {"to": rng.choice(TARGETS), "nonce": n}) for n in range(COUNT)
    ]


def generation(tag: int) -> list[Trigger]:
    """A trigger for each target, behind others in every other generation."""
    others = [Trigger(f"{tag}-more-{n}", to=[f"0x{n:040x}"], tag=tag) for n in range(tag % 2 * 500)]
    return others + [Trigger(f"{tag}-{to.hex()}", to=["0x" + to.hex()], tag=tag) for to in TARGETS]


def test_triggers_replaced_under_way_lose_no_packet():
    raws = transactions()
    rules = Rules.preset("osaka", 1, max_gas=2**64 - 1)
    decoder = Decoder(rules)
    with (
        open_datagram("kernel", channels=[Channel("127.0.0.1", 0)]) as endpoint,
        open_datagram("kernel", channels=[Channel("127.0.0.1", 0)]) as sender,
        TriggerTable(generation(0)) as table,
    ):
        receiver = MoldReceiver(MoldConfig(lines=1, ask=False))
        pump = Pump(
            [Feed("f", endpoint.ref, receiver, [0])],
            decoder=decoder,
            triggers=table,
            dedup=Dedup(),
        )
        peer = sender.add_peer("127.0.0.1", endpoint.channels[0].port)
        publisher = MoldPublisher("REPLACE001")
        datagrams = [
            datagram
            for n, raw in enumerate(raws)
            for datagram in publisher.pack(to_messages(raw, publisher.max_message, n))
        ]

        replaced, done = [0], threading.Event()

        def replace() -> None:
            while not done.is_set():
                table.replace(generation(replaced[0] + 1))
                replaced[0] += 1
                table.reclaim()

        owner = threading.Thread(target=replace)
        owner.start()
        found: list[tuple[int, int]] = []  # nonce and tag
        names: list[bool] = []  # whether it is that generation's trigger of this target
        sent, until = 0, time.monotonic() + 60
        try:
            while pump.stats()["messages"] < sum(len(d) > 0 for d in datagrams):
                assert time.monotonic() < until, pump.stats()
                while sent < len(datagrams) and sent - pump.stats()["datagrams"] < IN_FLIGHT:
                    assert sender.send(peer, datagrams[sent])
                    sent += 1
                sender.flush()
                count = pump.turn()
                time.sleep(0)  # lets the other thread replace before the names are asked for
                for match in pump.matches(count):
                    found.append((match.tx.nonce, match.tag))
                    names.append(match.trigger == f"{match.tag}-{match.tx.to.hex()}")
        finally:
            done.set()
            owner.join()
            pump.close()

        assert [nonce for nonce, _ in found] == list(range(COUNT))  # each once, in order
        assert all(names)
        tags = [tag for _, tag in found]
        assert tags == sorted(tags)
        assert len(set(tags)) > 5, f"{replaced[0]} tables"
        assert decoder.refusals() == {}
        assert pump.stats()["matched"] == pump.stats()["transactions"] == COUNT


BLOCK = load_block()["transactions"]
RAW = [encode_transaction(fields) for fields in BLOCK]
WHO = [bytes.fromhex(fields["from"][2:]) for fields in BLOCK]


class Rig:
    """A pump of two sources on loopback, and who publishes to them."""

    def __init__(self, triggers: list[Trigger], senders=None) -> None:
        self.ends = [open_datagram("kernel", channels=[Channel("127.0.0.1", 0)]) for _ in range(3)]
        self.table = TriggerTable(triggers)
        self.pump = Pump(
            [
                Feed(str(n), end.ref, MoldReceiver(MoldConfig(lines=1, ask=False)), [0])
                for n, end in enumerate(self.ends[:2])
            ],
            decoder=Decoder(Rules.preset("london", 1)),
            triggers=self.table,
            dedup=Dedup(),
            senders=senders,
        )
        self.peers = [
            self.ends[2].add_peer("127.0.0.1", end.channels[0].port) for end in self.ends[:2]
        ]
        self.publishers = [MoldPublisher(f"SENDERS00{n}") for n in range(2)]

    def feed(self, raws: list[bytes], source: int = 0) -> list[tuple[str, bytes | None]]:
        """Publishes and pumps until all has come; trigger and sender of each match."""
        publisher, found = self.publishers[source], []
        room = publisher.max_message
        messages = [m for n, raw in enumerate(raws) for m in to_messages(raw, room, n)]
        wanted = self.pump.stats()["messages"] + len(messages)
        for datagram in publisher.pack(messages):
            assert self.ends[2].send(self.peers[source], datagram)
        self.ends[2].flush()
        until = time.monotonic() + 20
        while self.pump.stats()["messages"] < wanted:
            assert time.monotonic() < until
            found += [(m.trigger, m.tx.sender) for m in self.pump.matches(self.pump.turn())]
        return found

    def close(self) -> None:
        self.pump.close()
        self.table.close()
        for end in self.ends:
            end.close()


@pytest.fixture
def lane():
    lane = Lane()
    yield lane
    lane.close()


def test_whoever_is_new_is_asked_for_once(lane):
    senders = joined(lane)
    short = [n for n, raw in enumerate(RAW) if len(raw) < 1200][:60]
    raws, who = [RAW[n] for n in short], [WHO[n] for n in short]
    rig = Rig([Trigger("all")], senders)
    try:
        assert rig.feed(raws) == [("all", None)] * 60
        assert rig.feed(raws, source=1) == []  # duplicates
        assert senders.stats()["queued"] == 60
        assert lane.work() == 60
        rig.pump.turn()  # collects
        assert senders.stats()["recovered"] == 60
        decoder = Decoder(Rules.preset("london", 1))
        assert [senders.lookup(decoder.decode(raw).hash) for raw in raws] == who
        assert rig.pump.stats()["recovered_senders"] == 0
    finally:
        rig.close()


def test_what_workers_found_out_is_not_recovered_again(lane):
    """A trigger that wants a sender: from the cache where it is known, else recovered and kept."""
    senders = joined(lane)
    bad = nobody(RAW[3])
    wanted = [Trigger("his", sender=["0x" + WHO[n].hex() for n in (0, 3)])]
    decoder = Decoder(Rules.preset("london", 1))
    senders.submit(decoder.decode_burst([RAW[0], bad]), now_mono_ns=1)
    lane.work()
    senders.collect(now_mono_ns=2)
    rig = Rig(wanted, senders)
    try:
        assert rig.feed([RAW[0], bad]) == [("his", WHO[0])]
        assert rig.pump.stats()["recovered_senders"] == 0
        assert rig.feed([RAW[3]]) == [("his", WHO[3])]
        assert rig.pump.stats()["recovered_senders"] == 1
        assert senders.lookup(decoder.decode(RAW[3]).hash) == WHO[3]
        assert senders.stats()["waiting"] == 0  # nothing was left to ask
    finally:
        rig.close()


def test_without_workers_the_pump_recovers_by_itself():
    secp.load()
    rig = Rig([Trigger("his", sender=["0x" + WHO[0].hex()])])
    try:
        assert rig.feed([RAW[0], RAW[3], nobody(RAW[3])]) == [("his", WHO[0])]
        assert rig.pump.stats()["recovered_senders"] == 3
        assert rig.pump.stats()["bad_signatures"] == 1
    finally:
        rig.close()
