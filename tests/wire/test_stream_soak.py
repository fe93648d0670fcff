"""The soak: three streams, 500 transactions a second, a fault every few seconds, for 20 minutes.

    BAREWIRE_SOAK_S=300 ./run test --slow soak tests/wire/test_stream_soak.py -s

Every transaction is announced on all three lines, and at most one line at a time is hurt on purpose
(the link, which also loses and reorders a little, hurts all): so each is delivered whole by two at
least, and must be reported, once. The appliance's memory must not grow.
"""

from __future__ import annotations

import itertools
import os
import random
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from tests.node import Node, Peer, framed
from tests.requires import requires_lwip, requires_root
from tests.running import Run
from tests.transactions import make
from tests.unit.certificates import Authority
from tests.unit.txjson_texts import spelled
from tests.wire.relay import BadWire
from tests.wire.test_stream_faults import CHAIN, live

SECONDS = float(os.environ.get("BAREWIRE_SOAK_S", "1200"))
PER_SECOND = 500
BATCH = 10
FAULT_EVERY_S = 4.0
GROWTH_KB = 4096
"""What the median of resident memory may grow by from the second quarter to the last, whatever the
length: answers of megabytes come and go."""


class Source(threading.Thread):
    """Announces on all nodes, at a steady pace."""

    def __init__(self, nodes: list[Node]) -> None:
        super().__init__()
        self.told: list[bytes] = []
        self.stop = False
        self._nodes = nodes

    def run(self) -> None:
        rng = random.Random(7)
        due = time.monotonic()
        while not self.stop:
            batch = [spelled(2, make(rng, 2, CHAIN)) for _ in range(BATCH)]
            for node in self._nodes:
                node.announce(batch)
            self.told += [bytes.fromhex(tx["hash"][2:]) for tx in batch]
            due += BATCH / PER_SECOND
            time.sleep(max(0.0, due - time.monotonic()))


def garbage(peer: Peer) -> None:
    peer.sock.sendall(b"\x83" + bytes(100))


def cut_in_a_frame(peer: Peer) -> None:
    peer.sock.sendall(framed(b'{"jsonrpc":"2.0","method":"eth_subscription"')[:-9])
    peer.end()


def too_long(peer: Peer) -> None:
    peer.sock.sendall(b"\x81\x7f" + (100 << 20).to_bytes(8, "big"))


FAULTS: list[Callable[[Peer], None]] = [Peer.reset, Peer.end, garbage, cut_in_a_frame, too_long]


def resident_kb(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0])


def configured(folder: Path, sources: dict[str, str]) -> str:
    return "\n".join(
        [
            "statistics_every_s = 1",
            'core = { lock_memory = false, name = "soak" }',
            f"chain = {{ id = {CHAIN}, fork = 'osaka' }}",
            "recorder = { megabytes = 0 }",
            '[[trigger]]\nname = "any"',
            '[strategy]\nload = "tests.wire.strategies:Hashes"',
            f'options = {{ log = "{folder / "seen"}" }}',
            *(f'[[source]]\nname = "{name}"\n{rest}' for name, rest in sources.items()),
        ]
    )


def soak(folder: Path, seconds: float, fault_every_s: float) -> dict[str, Any]:
    with ExitStack() as stack:
        wire = stack.enter_context(BadWire(loss=0.002, reorder=0.002, duplicate=0.002, seed=5))
        authority = Authority(folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*authority.issue(wire.b.ip4))
        names = {"kernel": "kernel", "afxdp": "afxdp:veth0", "afxdp-tls": "afxdp:veth0"}
        nodes = {
            name: stack.enter_context(
                Node(wire.b, context=context if name.endswith("tls") else None)
            )
            for name in names
        }
        sources = {
            name: f'via = "{via}"\nurl = "{nodes[name].url}"\n'
            + (f'ca_file = "{authority.ca}"\n' if nodes[name].context else "")
            for name, via in names.items()
        }
        run = stack.enter_context(Run(folder, configured(folder, sources), wire.a))
        run.until(live(*names), 30)
        source = Source(list(nodes.values()))
        source.start()
        try:
            memory, done = _hurt(run, nodes, wire, seconds, fault_every_s)
        finally:
            source.stop = True
            source.join()
        said = run.until(lambda said: said["pump"]["matched"] == len(source.told), 30)
        summary = run.stop()
    seen = (folder / "seen").read_bytes()
    return {
        "told": source.told,
        "seen": [seen[at : at + 32] for at in range(0, len(seen), 32)],
        "memory_kb": memory,
        "faults": done,
        "streams": summary["streams"],
        "pump": said["pump"],
        "per_second": len(source.told) / seconds,
    }


def _hurt(
    run: Run, nodes: dict[str, Node], wire: BadWire, seconds: float, fault_every_s: float
) -> tuple[list[int], dict[str, int]]:
    """A fault every few seconds; what memory was used, once a second, and what was done."""
    begun = time.monotonic()
    turns = itertools.cycle(itertools.product([*FAULTS, None], nodes))
    memory: list[int] = []
    done = dict.fromkeys(nodes, 0)
    next_at = begun + fault_every_s
    while (now := time.monotonic()) - begun < seconds:
        said = run.until(lambda said: True, 30)
        memory.append(resident_kb(run.process.pid))
        # Two lines at least are well at any time: the last fault is over, and its line reads again.
        if now < next_at or not live(*nodes)(said) or not all(n.followers for n in nodes.values()):
            continue
        fault, name = next(turns)
        if fault is None:
            wire.a.run("ip", "link", "set", "veth0", "down")
            time.sleep(0.2)
            wire.a.run("ip", "link", "set", "veth0", "up")
        else:
            nodes[name].interrupt(fault)
            done[name] += 1
        next_at = now + fault_every_s
    run.until(live(*nodes), 60)
    return memory, done


def judge(found: dict[str, Any]) -> None:
    told, seen, memory = found["told"], found["seen"], found["memory_kb"]
    streams = found["streams"]
    tenths = [memory[i * (len(memory) - 1) // 10] for i in range(11)]
    print(
        f"\n{len(told):,} transactions at {found['per_second']:.0f}/s, {len(seen):,} reported, "
        f"{len(set(told) - set(seen))} missing; {sum(found['faults'].values())} faults; "
        f"resident kB at every tenth of the time: {tenths}"
    )
    for name, stream in streams.items():
        print(f"  {name}: {stream['transactions']:,}, {stream['hole']}, {stream['ended']}")
    assert set(told) - set(seen) == set()
    assert sorted(seen) == sorted(told)
    for name, stream in streams.items():
        assert stream["refused"] == {}
        assert stream["failures"] >= found["faults"][name]


def judge_memory(memory: list[int]) -> None:
    quarter = len(memory) // 4
    assert median(memory[-quarter:]) - median(memory[quarter : 2 * quarter]) <= GROWTH_KB


def test_a_short_one(tmp_path: Path) -> None:
    requires_root()
    requires_lwip()
    found = soak(tmp_path, 2, 0.5)
    judge(found)
    memory = found["memory_kb"]  # too short to tell
    assert max(memory) - memory[0] <= 64 * GROWTH_KB


@pytest.mark.soak
def test_nothing_is_lost_and_memory_is_flat(tmp_path: Path) -> None:
    requires_root()
    requires_lwip()
    found = soak(tmp_path, SECONDS, FAULT_EVERY_S)
    judge(found)
    judge_memory(found["memory_kb"])
