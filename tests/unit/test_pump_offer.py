"""Records offered to the pump: matched, fired once, dropped where they came before; beside the
datagrams of its own and what another core hands it."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from barewire import BarewireError
from barewire._native import ffi, lib
from barewire.execution.shots import ShotBook
from barewire.feeds.arbitration import Arbiter
from barewire.feeds.envelope import to_messages
from barewire.feeds.mold_publisher import MoldPublisher
from barewire.feeds.moldudp64 import MoldConfig, MoldReceiver
from barewire.feeds.txfeed import TxFeed
from barewire.mempool.decoder import Decoder, Rules
from barewire.mempool.dedup import Dedup
from barewire.mempool.trigger_table import TriggerTable
from barewire.mempool.triggers import Trigger
from barewire.pump import Feed, Pump, Rings
from dpdk_bindings.datagram import Channel, open_datagram
from dpdk_bindings.ring import RingConsumer, RingKind, RingProducer
from tests.transactions import envelope, make
from tests.unit.test_shots import ROOMY, Endpoint, arm
from tests.unit.txjson_texts import notification, spelled

RNG = random.Random(3)
FIELDS = [make(RNG, 2, 1) for _ in range(64)]
RAW = [envelope(2, fields) for fields in FIELDS]
RULES = Rules.preset("prague", 1)
ALL = [Trigger("all")]


class Offered:
    """Records of a stream, as a session reads them; kept as the pump asks for."""

    def __init__(
        self, numbers, *, source: int = 0, trusted: bool = True, origin="announced"
    ) -> None:
        self._feed = TxFeed(Decoder(RULES), source=source, trusted=trusted)
        text = json.dumps([notification(spelled(2, FIELDS[n])) for n in numbers]).encode()
        self.messages = ffi.new("struct bw_message[]", 64)
        self.records = ffi.new("struct bw_tx[]", 64)
        now = time.monotonic_ns()
        self._feed.lend_text(text, now, lib.DPB_CLOCK_MONO, origin=origin)
        self.count = self._feed.read_into(self.messages, self.records, 64)
        assert self.count == len(numbers)


class Section:
    """A pump that takes offers, and what it needs to be the stages from `first` on."""

    def __init__(self, first: str = "trigger", triggers=ALL, **parts) -> None:
        self.table = TriggerTable(triggers, shots=parts.pop("numbers", None))
        self.dedup = Dedup()
        self.arbiter = Arbiter(["a", "b"], self.dedup)
        self.front = None
        rings = None
        if first != "receive":
            self.front = RingProducer.create(
                "memfd:offer-test", kind=RingKind.LOSSY, depth=256, mtu=4096, payload_bytes=1 << 20
            )
            self.behind = RingConsumer.open(self.front.fd)
            rings = Rings(before=self.behind.handle)
        self.pump = Pump(
            parts.pop("feeds", ()),
            decoder=Decoder(RULES),
            triggers=self.table,
            dedup=self.dedup,
            arbiter=self.arbiter,
            stages=(first, "trigger"),
            rings=rings,
            offers=True,
            **parts,
        )

    def offer(self, offered: Offered) -> None:
        self.pump.offer(offered.messages, offered.records, offered.count)

    def turn(self) -> list[bytes]:
        return [match.tx.raw for match in self.pump.matches(self.pump.turn())]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.pump.close()
        self.table.close()
        if self.front is not None:
            self.behind.close()
            self.front.close()


@pytest.mark.parametrize("first", ["receive", "feed", "decode", "trigger"])
def test_what_is_offered_is_matched_in_the_next_turn_and_once(first):
    with Section(first) as section:
        offered = Offered(range(10))
        section.offer(offered)
        assert section.turn() == RAW[:10]
        assert section.turn() == []  # an offer is of one turn
        again = Offered(range(5, 15), source=1)
        section.offer(again)
        assert section.turn() == RAW[10:15]
        stats = section.pump.stats()
        counted = [stats[name] for name in ("transactions", "duplicates", "matched", "refused")]
        assert counted == [20, 5, 15, 0]
        assert [(r.first, r.behind) for r in section.arbiter.report()] == [(10, 0), (5, 5)]


def test_the_same_twice_in_one_offer():
    with Section() as section:
        offered = Offered([1, 2, 1, 1, 3, 2])
        section.offer(offered)
        assert section.turn() == [RAW[1], RAW[2], RAW[3]]
        assert section.arbiter.report()[0].repeated == 3


def test_an_empty_offer_and_one_that_is_replaced():
    with Section() as section:
        one, other = Offered([0]), Offered([1])
        section.pump.offer(one.messages, one.records, 0)
        assert section.turn() == []
        section.offer(one)
        section.offer(other)  # there is one offer, the last
        assert section.turn() == [RAW[1]]
        assert section.pump.stats()["transactions"] == 1


def test_more_than_a_turn_has_room_for_is_cut():
    most = lib.BW_PUMP_MESSAGES - 64
    with Section() as section:
        offered = Offered(range(64))
        messages, records = ffi.new("struct bw_message[]", 256), ffi.new("struct bw_tx[]", 256)
        for i in range(256):
            messages[i], records[i] = offered.messages[i % 64], offered.records[i % 64]
        section.pump.offer(messages, records, 256)
        assert section.turn() == RAW
        assert section.pump.stats()["transactions"] == most


def test_what_came_from_a_pool_is_new_but_compared_with_nobody():
    with Section() as section:
        filled = Offered([0, 1], origin="pool")
        section.offer(filled)
        assert section.turn() == RAW[:2]
        live = Offered([0], source=1)
        section.offer(live)
        assert section.turn() == []
        first, second = section.arbiter.report()
        assert (first.filled, first.first, first.lead.count) == (2, 0, 0)
        assert (second.behind, second.lag.count) == (1, 0)


@contextmanager
def firing() -> Iterator[tuple[Section, Endpoint]]:
    """A section whose one trigger fires an armed shot, and where that goes."""
    endpoint = Endpoint()
    with ShotBook(ROOMY, unjournalled=True) as book:
        arm(book, payload=b"shot", expires_mono_ns=time.monotonic_ns() + 10**12)
        section = Section(
            triggers=[Trigger("all", shot="s")], numbers=book.numbers, shots=book, out=endpoint.ref
        )
        with section:
            yield section, endpoint


def test_a_shot_fires_when_what_was_queued_is_announced():
    with firing() as (section, endpoint):
        outcomes = []
        for origin in ("queued", "queued", "announced", "announced"):
            section.offer(kept := Offered([0], origin=origin))
            matches = section.pump.matches(section.pump.turn())
            outcomes += [(match.tx.origin, match.outcome) for match in matches]
            assert kept.count == 1
        assert outcomes == [("queued", "not_announced"), ("announced", "fired")]
        assert endpoint.sent == [(3, b"shot")]


def test_a_shot_is_fired_once_and_not_by_a_copy():
    with firing() as (section, endpoint):
        untrusted = Offered([0], source=1, trusted=False)
        section.offer(untrusted)
        section.turn()
        # Nobody's signature, as these were never signed: bait fires nothing.
        assert endpoint.sent == []
        copies, fresh = Offered([0]), Offered([1])
        section.offer(copies)
        section.turn()
        assert section.pump.stats()["asked_to_fire"] == 1  # a copy does not even ask
        section.offer(fresh)
        [match] = section.pump.matches(section.pump.turn())
        assert match.outcome == "fired"
        assert endpoint.sent == [(3, b"shot")]
        assert section.pump.stats()["sent"] == 1


def test_beside_datagrams_of_the_same_turn():
    """The offer comes first; what the datagrams bring again is dropped, and the other way round."""
    with (
        open_datagram("kernel", channels=[Channel("127.0.0.1", 0)]) as endpoint,
        open_datagram("kernel", channels=[Channel("127.0.0.1", 0)]) as sender,
    ):
        receiver = MoldReceiver(MoldConfig(lines=1, ask=False))
        feeds = [Feed("f", endpoint.ref, receiver, [0])]
        with Section("receive", feeds=feeds) as section:
            peer = sender.add_peer("127.0.0.1", endpoint.channels[0].port)
            publisher = MoldPublisher("OFFERS0001")
            for raw in RAW[:8]:
                for datagram in publisher.pack(to_messages(raw, publisher.max_message, 0)):
                    assert sender.send(peer, datagram)
            sender.flush()
            offered = Offered(range(4, 12), source=1)
            section.offer(offered)
            got, until = section.turn(), time.monotonic() + 10
            assert got[:8] == RAW[4:12]
            while section.pump.stats()["messages"] < 8:
                assert time.monotonic() < until
                got += section.turn()
            assert got[8:] == RAW[:4]
            assert section.pump.stats()["duplicates"] == 4
            known = Offered(range(4))
            section.offer(known)
            assert section.turn() == []


def test_only_where_the_trigger_is():
    with pytest.raises(BarewireError, match="no pump for the stages receive to decode"):
        Pump(decoder=Decoder(RULES), stages=("receive", "decode"), offers=True)
