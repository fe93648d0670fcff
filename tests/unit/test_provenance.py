"""How a transaction came: told in its record whichever way it took, asked for by triggers, and what
was not announced fires nothing that did not ask for it."""

from __future__ import annotations

import time

import pytest

from barewire import ConfigError
from barewire._native import lib
from barewire.execution.shots import ShotBook
from barewire.feeds.envelope import to_messages
from barewire.feeds.mold_publisher import MoldPublisher
from barewire.feeds.moldudp64 import RETRANSMISSION, MoldConfig, MoldReceiver
from barewire.mempool.decoder import Decoder
from barewire.mempool.explain import why_not
from barewire.mempool.record import ORIGINS
from barewire.mempool.trigger_table import TriggerTable
from barewire.mempool.triggers import Trigger, parse_triggers
from barewire.pump import Feed
from dpdk_bindings.datagram import Channel, open_datagram
from tests.unit.test_pump_offer import RAW, RULES, Offered, Section
from tests.unit.test_shots import ROOMY, Endpoint, arm

LATER = 10**12


@pytest.mark.parametrize("origin", ORIGINS)
def test_a_shot_fires_on_what_was_announced_unless_its_trigger_asks_for_more(origin):
    endpoint = Endpoint()
    with ShotBook(ROOMY, unjournalled=True) as book:
        for name in ("careful", "asked"):
            arm(
                book,
                name,
                payload=name.encode(),
                expires_mono_ns=time.monotonic_ns() + LATER,
                group=None,
            )
        triggers = [
            Trigger("careful", shot="careful"),
            Trigger("asked", shot="asked", origin=["resent", "queued", "block"]),
            Trigger("told"),
            Trigger("pools", origin=["pool", "queued"]),
        ]
        with Section(
            triggers=triggers, numbers=book.numbers, shots=book, out=endpoint.ref
        ) as section:
            offered = Offered([0], origin=origin)
            section.offer(offered)
            found = list(section.pump.matches(section.pump.turn()))
            assert {match.tx.origin for match in found} == {origin}
            outcomes = {match.trigger: match.outcome for match in found}
            stats = section.pump.stats()
    expected = {"careful": "fired" if origin == "announced" else "not_announced", "told": None}
    if origin in ("resent", "queued", "block"):
        expected["asked"] = "fired"
    if origin in ("pool", "queued"):
        expected["pools"] = None
    assert outcomes == expected
    sent = [name.encode() for name, outcome in outcomes.items() if outcome == "fired"]
    assert [payload for _, payload in endpoint.sent] == sent
    counted = {
        "resent": stats["resent"],
        "pool": stats["from_pools"],
        "queued": stats["queued"],
        "block": stats["from_blocks"],
    }
    assert counted == {name: int(name == origin) for name in ORIGINS if name != "announced"}


def test_datagrams_say_how_their_publisher_came_by_it_and_retransmissions_are_known():
    with (
        open_datagram(
            "kernel", channels=[Channel("127.0.0.1", 0), Channel("127.0.0.1", 0)]
        ) as endpoint,
        open_datagram("kernel", channels=[Channel("127.0.0.1", 0)]) as sender,
    ):
        receiver = MoldReceiver(MoldConfig(lines=1, ask=True, give_up_ns=LATER))
        feeds = [Feed("f", endpoint.ref, receiver, [0, RETRANSMISSION])]
        line, answers = (sender.add_peer("127.0.0.1", endpoint.channels[i].port) for i in range(2))
        publisher = MoldPublisher("ORIGIN0001")
        how = ("announced", "pool", "announced", "queued", "announced")
        datagrams = [  # of each transaction; long ones come in pieces
            publisher.pack(to_messages(RAW[number], publisher.max_message, number, origin=origin))
            for number, origin in enumerate(how)
        ]
        with Section("receive", feeds=feeds) as section:
            came = {}

            def after(peer: int, *numbers: int) -> None:
                for number in numbers:
                    for datagram in datagrams[number]:
                        assert sender.send(peer, datagram)
                sender.flush()
                wanted, until = len(came) + len(numbers), time.monotonic() + 10
                while len(came) < wanted:
                    assert time.monotonic() < until
                    for match in section.pump.matches(section.pump.turn()):
                        tx = match.tx
                        came[tx.raw] = (tx.origin, tx.known_ns, tx.known_clock, tx.arrival_ns)

            after(line, 0, 4)  # three are missing, ...
            between = time.monotonic_ns()
            after(answers, 1, 2, 3)  # ... and asked for
            told = [came[RAW[number]] for number in range(5)]
            assert [origin for origin, *_ in told] == [
                *("announced", "pool", "resent", "queued", "announced")
            ]
            for number in (0, 4):
                assert told[number][1] == told[number][3]
            for number in (1, 2, 3):  # known when they were found missing
                _, known_ns, clock, _ = told[number]
                assert clock == lib.DPB_CLOCK_MONO
                assert known_ns < between


def test_an_origin_that_is_none():
    with pytest.raises(ConfigError) as caught:
        parse_triggers([{"name": "a", "origin": ["gossip"]}])
    assert "gossip" in str(caught.value)
    with pytest.raises(ConfigError):
        parse_triggers([{"name": "a", "origin": []}])


@pytest.mark.parametrize("origin", ORIGINS)
def test_the_table_and_the_words_agree(origin):
    decoder = Decoder(RULES)
    burst = decoder.decode_burst(RAW[:1], origin=origin)
    trigger = Trigger("t", origin=["announced", "pool"], chain_id=[1])
    with TriggerTable([trigger]) as table:
        met = bool(table.match(burst))
    assert met == (origin in trigger.origin)
    said = why_not(trigger, RAW[0], decoder, origin=origin)
    if met:
        assert said == "it meets the trigger as it is now"
    else:
        assert said == f"origin: it is {origin}, not one of 2: announced, pool"
