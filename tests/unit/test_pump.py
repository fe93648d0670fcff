"""The pump over real datagrams while its triggers are replaced: no packet lost, none held against
two tables."""

from __future__ import annotations

import random
import threading
import time

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

TARGETS = [bytes([n]) * 20 for n in range(1, 8)]
COUNT = 4000
IN_FLIGHT = 100  # datagrams: what a default socket buffer holds many times over


def transactions() -> list[bytes]:
    rng = random.Random(5)
    return [
        envelope(2, make(rng, 2) | {"to": rng.choice(TARGETS), "nonce": n}) for n in range(COUNT)
    ]


def generation(tag: int) -> list[Trigger]:
    """A trigger for each target, and more of other targets in every other generation."""
    others = [Trigger(f"{tag}-more-{n}", to=[f"0x{n:040x}"], tag=tag) for n in range(tag % 2 * 500)]
    return [Trigger(f"{tag}-{to.hex()}", to=["0x" + to.hex()], tag=tag) for to in TARGETS] + others


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
        sent, until = 0, time.monotonic() + 60
        try:
            while pump.stats()["messages"] < sum(len(d) > 0 for d in datagrams):
                assert time.monotonic() < until, pump.stats()
                while sent < len(datagrams) and sent - pump.stats()["datagrams"] < IN_FLIGHT:
                    assert sender.send(peer, datagrams[sent])
                    sent += 1
                sender.flush()
                count = pump.turn()
                found += [(match.tx.nonce, match.tag) for match in pump.matches(count)]
        finally:
            done.set()
            owner.join()
            pump.close()

        assert [nonce for nonce, _ in found] == list(range(COUNT))  # each once, in order
        tags = [tag for _, tag in found]
        assert tags == sorted(tags)
        assert len(set(tags)) > 5, f"{replaced[0]} tables"
        assert decoder.refusals() == {}
        assert pump.stats()["matched"] == pump.stats()["transactions"] == COUNT
