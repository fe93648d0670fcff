"""The plain loop: the hot path without the appliance around it, for ``bench wire``.

    python -m bench.wire_loop VIA ADDRESS PORT PEER PEER_PORT REPLY

The same native parts, put together by hand and turned by the shortest loop that Python has: no
core, no metrics, no flight recorder, no housekeeping, no strategy that could be anybody's. What
``barewire run`` takes longer is what all of that costs.
"""

from __future__ import annotations

import gc
import sys
import time
from pathlib import Path

from barewire.execution.shots import Caps, ShotBook
from barewire.feeds.moldudp64 import MoldConfig, MoldReceiver
from barewire.mempool.decoder import Decoder, Rules
from barewire.mempool.dedup import Dedup
from barewire.mempool.trigger_table import TriggerTable
from barewire.mempool.triggers import Trigger
from barewire.pump import Feed, Pump
from bench.harness import pin
from bench.wire_peers import HERE_CORE
from bench.wire_traffic import WATCHED
from dpdk_bindings import Channel, open_datagram

_FOR_EVER_NS = 10**18
_ALL = 10**30  # more wei than all shots can spend: value and fee are read from the bytes themselves
_CAPS = Caps(per_second=65536, total=10**9, total_value_wei=_ALL, max_fee_wei=_ALL)


def main() -> None:
    via, address, port, peer, peer_port, reply_file = sys.argv[1:]
    reply = Path(reply_file).read_bytes()
    pin(HERE_CORE)
    endpoint = open_datagram(via, channels=[Channel(address, int(port))])
    sender = endpoint.add_peer(peer, int(peer_port))
    book = ShotBook(_CAPS, unjournalled=True)
    book.declare("answer")
    triggers = TriggerTable([Trigger("router", to=[WATCHED], shot="answer")], shots=book.numbers)
    pump = Pump(
        [Feed("site", endpoint.ref, MoldReceiver(MoldConfig(lines=1, ask=False)), [0], None, True)],
        decoder=Decoder(Rules.preset("prague", 1)),
        triggers=triggers,
        dedup=Dedup(),
        shots=book,
        out=endpoint.ref,
    )

    def arm() -> None:
        book.arm(
            "answer",
            reply,
            peers=[sender],
            expires_mono_ns=time.monotonic_ns() + _FOR_EVER_NS,
            value_wei=0,
            max_fee_wei=0,
        )

    arm()
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:  # until the peer's next hop is known
        endpoint.housekeeping()
    gc.freeze()
    gc.disable()
    turn, matches = pump.turn, pump.matches
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        if found := turn():
            for match in matches(found):
                if match.outcome == "fired":
                    arm()


if __name__ == "__main__":
    main()
