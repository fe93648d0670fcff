"""Streams read natively: what is handed over, what is told, whose turn it is."""

from __future__ import annotations

import json
import random
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from barewire._native import ffi
from barewire.errors import BarewireError
from barewire.feeds.arbitration import Arbiter
from barewire.feeds.inlet import Inlet, What
from barewire.feeds.txfeed import BURST, Other, TxFeed
from barewire.mempool.decoder import Decoder, Rules
from barewire.mempool.dedup import Dedup
from barewire.mempool.trigger_table import TriggerTable
from barewire.mempool.triggers import Trigger
from barewire.pump import Pump
from dpdk_bindings import StreamState, open_stream
from tests.transactions import make
from tests.unit.txjson_texts import notification, spelled

ANSWER = b'{"jsonrpc":"2.0","id":1,"result":"0x10"}'


def some(count: int, seed: int = 1) -> list[bytes]:
    rng = random.Random(seed)
    return [json.dumps(notification(spelled(2, make(rng, 2)))).encode() for _ in range(count)]


class Lines:
    """An inlet over kernel sockets, and the other ends of its lines."""

    def __init__(self, stack: ExitStack, count: int, pump: Pump | None = None) -> None:
        self.endpoint = stack.enter_context(open_stream("kernel"))
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        buffers = [bytearray(1 << 18) for _ in range(count)]
        self.inlet = Inlet([self.endpoint.ref], buffers, pump)
        self.feeds, self.peers, self.connections = [], [], []
        for number in range(count):
            connection = self.endpoint.connect(*listener.getsockname())
            self.peers.append(stack.enter_context(listener.accept()[0]))
            while connection.state is StreamState.CONNECTING:
                self.endpoint.poll()
            self.connections.append(connection)
            self.feeds.append(TxFeed(Decoder(Rules.preset("prague", 1)), source=number))
            self.inlet.connect(number, endpoint=0, stream=connection.address)
            self.inlet.lend_to(number, self.feeds[number].native)

    def run(self) -> tuple[int, int, int]:
        """What came, of which line, and how much."""
        what = self.inlet.run(time.monotonic_ns() + 5_000_000_000)
        return what, self.inlet.native.at, self.inlet.native.count


@contextmanager
def lines(count: int, pump: Pump | None = None) -> Iterator[Lines]:
    with ExitStack() as stack:
        yield Lines(stack, count, pump)


def test_lines_that_have_something_at_once_take_turns_in_being_first() -> None:
    with lines(2) as these:
        first = []
        for text in some(6):
            assert these.inlet.run(0) == What.TIME  # nothing: each circle begins elsewhere
            for peer in these.peers:
                peer.sendall(text)
            first.append(these.run()[1])
            assert {first[-1], these.run()[1]} == {0, 1}
        assert sorted(first) == [0, 0, 0, 1, 1, 1]


def test_records_and_then_what_is_none() -> None:
    with lines(1) as these:
        these.peers[0].sendall(b"".join(some(3)) + ANSWER + b"".join(some(2, 2)))
        assert these.run() == (What.RECORDS, 0, 3)
        assert {these.inlet.records[i].source for i in range(3)} == {0}
        assert these.run()[:2] == (What.EVENT, 0)
        [feed] = these.feeds
        assert feed.tell(these.inlet.native.event) == Other(ANSWER)
        # Whoever was told reads on.
        records: Any = ffi.new("struct bw_tx[]", BURST)
        messages: Any = ffi.new("struct bw_message[]", BURST)
        assert feed.read_into(messages, records, BURST) == 2
        assert not feed.more
        assert these.inlet.run(0) == What.TIME


def test_more_than_one_call_takes() -> None:
    with lines(1) as these:
        these.peers[0].sendall(b"".join(some(BURST + 6)))
        taken = 0
        while taken < BURST + 6:
            what, _, count = these.run()
            assert what == What.RECORDS
            taken += count
        assert these.inlet.run(0) == What.TIME


def test_lines_take_turns_and_their_end_is_told() -> None:
    with lines(3) as these:
        for peer in these.peers:
            peer.sendall(some(1)[0])
        time.sleep(0.05)
        assert [these.run() for _ in range(3)] == [(What.RECORDS, at, 1) for at in range(3)]
        these.peers[1].close()
        assert these.run()[:2] == (What.READABLE, 1)
        assert these.connections[1].recv_into(bytearray(9)) == -1
        assert these.connections[1].state is StreamState.ENDED
        these.inlet.disconnect(1)
        these.connections[1].close()
        assert these.inlet.run(0) == What.TIME


def test_a_line_with_much_to_say_holds_up_nobody() -> None:
    """One has one long message after another; what the other says is read in between."""
    with lines(2) as these:
        batch = b"[" + b",".join(some(BURST * 20)) + b"]"
        these.peers[0].sendall(batch[: len(batch) // 2])
        came: list[int] = []
        for part in (batch[len(batch) // 2 :], batch):
            these.peers[0].sendall(part)
            while these.run()[1] != 0:
                pass
            these.peers[1].sendall(some(1, 2)[0])
            for _ in range(6):
                came.append(these.run()[1])
        assert came.count(1) == 2
        assert came.count(0) == 10


def test_a_line_that_the_caller_reads_is_left_alone() -> None:
    with lines(2) as these:
        these.inlet.pause(0, True)
        for peer in these.peers:
            peer.sendall(some(1)[0])
        time.sleep(0.05)
        assert these.run() == (What.RECORDS, 1, 1)
        assert these.inlet.run(0) == What.TIME
        these.inlet.pause(0, False)
        assert these.run() == (What.RECORDS, 0, 1)


def test_bytes_that_are_not_the_feeds() -> None:
    with lines(1) as these:
        these.inlet.lend_to(0, ffi.NULL)
        these.peers[0].sendall(b"encrypted")
        while these.run()[0] != What.READABLE or not these.connections[0].recv_into(bytearray(9)):
            pass
        these.inlet.lend_to(0, these.feeds[0].native)
        these.peers[0].sendall(some(1)[0])
        assert these.run() == (What.RECORDS, 0, 1)


def test_through_a_pump_to_matches() -> None:
    dedup = Dedup(entries=1 << 12)
    triggers = TriggerTable([Trigger("any")])
    pump = Pump(
        decoder=Decoder(Rules.preset("prague", 1)),
        triggers=triggers,
        dedup=dedup,
        arbiter=Arbiter(["one", "two"], dedup),
        offers=True,
    )
    with lines(2, pump) as these:
        told = some(BURST + 30)
        for peer in these.peers:
            peer.sendall(b"".join(told))
        found = []
        end = time.monotonic() + 30
        while pump.stats()["transactions"] < 2 * len(told):
            if these.inlet.run(0) == What.FOUND:
                found += [match.tx.nonce for match in pump.matches(these.inlet.native.count)]
            assert time.monotonic() < end
        assert len(found) == len(told)
        assert pump.stats()["duplicates"] == len(told)
        pump.close()


def test_how_many() -> None:
    with pytest.raises(BarewireError, match="17 lines"):
        Inlet([], [bytearray(9)] * 17)
