"""Streams from servers and links that misbehave, through a whole appliance, end to end.

What must hold of each fault: it is counted and explained, the connection is made anew where that
can help, the process goes on, the other sources are not disturbed, and the appliance reports what
was told to it in whole and nothing else.
"""

from __future__ import annotations

import json
import random
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from appliance.lab import Pair
from tests.node import Conduct, Node, Peer, follow, framed, head, said
from tests.requires import requires_lwip, requires_root
from tests.running import Run
from tests.transactions import make
from tests.unit.certificates import Authority
from tests.unit.txjson_texts import notification, spelled

CHAIN = 31337
Tx = dict[str, Any]


@pytest.fixture(params=["kernel", "afxdp:veth0"])
def via(request: pytest.FixtureRequest) -> str:
    requires_root()
    if request.param != "kernel":
        requires_lwip()
    via: str = request.param
    return via


@pytest.fixture
def make_some() -> Callable[[int], list[Tx]]:
    rng = random.Random(11)
    return lambda count: [spelled(2, make(rng, 2, CHAIN)) for _ in range(count)]


@pytest.fixture
def pair() -> Iterator[Pair]:
    with Pair() as made:
        yield made


def configured(folder: Path, via: str, sources: dict[str, str]) -> str:
    """A configuration that writes down the hash of every transaction."""
    return "\n".join(
        [
            "statistics_every_s = 0.2",
            'core = { lock_memory = false, name = "faults" }',
            f"chain = {{ id = {CHAIN}, fork = 'osaka' }}",
            "recorder = { megabytes = 0 }",
            '[[trigger]]\nname = "any"',
            '[strategy]\nload = "tests.wire.strategies:Recorder"',
            f'options = {{ log = "{folder / "seen.json"}" }}',
            *(
                f'[[source]]\nname = "{name}"\nvia = "{via}"\n{rest}'
                for name, rest in sources.items()
            ),
        ]
    )


def seen(folder: Path) -> list[str]:
    return sorted(match["hash"] for match in json.loads((folder / "seen.json").read_text()))


def hashes(*of: list[Tx]) -> list[str]:
    return sorted(tx["hash"][2:] for txs in of for tx in txs)


def live(*names: str) -> Callable[[dict[str, Any]], bool]:
    return lambda said: all(said["streams"][name]["state"] == "live" for name in names)


# ---- how servers misbehave; each begins by announcing `own`, three transactions, if it can ----


def _told(peer: Peer, own: list[Tx]) -> None:
    peer.subscribed()
    for tx in own:
        peer.sock.sendall(said(tx))


def never_answers(peer: Peer, own: list[Tx]) -> None:
    peer.hold()


def falls_silent(peer: Peer, own: list[Tx]) -> None:
    """It answers no question any more, though its kernel takes them."""
    _told(peer, own)
    peer.hold()


def resets(peer: Peer, own: list[Tx]) -> None:
    _told(peer, own)
    peer.take()  # the first question comes when what was told has been read
    peer.reset()


def ends_in_a_frame(peer: Peer, own: list[Tx]) -> None:
    """And goes on listening."""
    _told(peer, own[:2])
    peer.sock.sendall(said(own[2])[:-1])
    peer.sock.shutdown(socket.SHUT_WR)
    peer.hold()


def in_one_byte_segments(peer: Peer, own: list[Tx]) -> None:
    peer.subscribed()
    for tx in own:
        for byte in said(tx):
            peer.sock.sendall(bytes([byte]))
    follow(peer)


def garbage(peer: Peer, own: list[Tx]) -> None:
    _told(peer, own)
    peer.sock.sendall(b"\x83" + random.Random(1).randbytes(1 << 20))
    peer.hold()


def another_protocol(peer: Peer, own: list[Tx]) -> None:
    peer.sock.sendall(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
    peer.hold()


def a_hundred_megabytes(peer: Peer, own: list[Tx]) -> None:
    _told(peer, own)
    peer.sock.sendall(head(100 << 20))
    for _ in range(100):
        peer.sock.sendall(bytes(1 << 20))
    peer.hold()


def a_hundred_megabytes_in_pieces(peer: Peer, own: list[Tx]) -> None:
    _told(peer, own)
    for number in range(100):
        peer.sock.sendall(framed(b"[" * (1 << 20), 0 if number else 1, last=False))
    peer.hold()


def refuses(peer: Peer, own: list[Tx]) -> None:
    peer.node.refusing = 1
    _told(peer, [])
    peer.hold()


def lies(peer: Peer, own: list[Tx]) -> None:
    """In many ways, and then tells the truth."""
    _told(peer, own)
    first = own[0]
    for lie in (
        first | {"value": hex(int(first["value"], 16) ^ 1)},
        first | {"hash": "0x" + "ab" * 32},
        first | {"input": "0x0"},
        {name: first[name] for name in first if name != "r"},
        first | {"type": "0x7f"},
    ):
        peer.sock.sendall(said(lie))
    text = json.dumps(notification(own[1])).encode()
    for bad in (text[:-9], b"[" * 5000, b'{"\xff":1}', bytes(300), b"}"):
        peer.sock.sendall(framed(bad))
    follow(peer)


def stalls_in_tls(peer: Peer, own: list[Tx]) -> None:
    peer.hold()


def is_cut_off_under_tls(peer: Peer, own: list[Tx]) -> None:
    _told(peer, own)
    peer.take()
    socket.socket.shutdown(peer.sock, socket.SHUT_WR)  # no close_notify
    time.sleep(1)


Conducts = dict[str, tuple[Callable[[Peer, list[Tx]], None], int, str]]

MISBEHAVIOUR: Conducts = {
    "mute": (never_answers, 0, "not subscribed within 10 s"),
    "silent": (falls_silent, 3, "no sign of life within 10 s"),
    "reset": (resets, 3, "Connection reset by peer"),
    "half-closed": (ends_in_a_frame, 2, "the other side ended the connection"),
    "bytes": (in_one_byte_segments, 3, ""),
    "garbage": (garbage, 3, "failed: 1002"),
    "ssh": (another_protocol, 0, "handshake: "),
    "huge": (a_hundred_megabytes, 3, "failed: 1009"),
    "pieces": (a_hundred_megabytes_in_pieces, 3, "failed: 1009"),
    "refused": (refuses, 0, "the subscription was refused"),
    "liar": (lies, 3, ""),
    "stalled": (stalls_in_tls, 0, "did not finish the TLS handshake"),
    "cut-off": (is_cut_off_under_tls, 3, "without TLS's close_notify"),
}
"""By name: what it does, how many of its own it tells before, and how its end is explained."""

# The others are found out after ten seconds; tests/unit plays those on a clock of its own.
SOON = {
    name: how for name, how in MISBEHAVIOUR.items() if name not in ("mute", "silent", "stalled")
}


def _conduct(play: Callable[[Peer, list[Tx]], None], own: list[Tx]) -> Conduct:
    return lambda peer: play(peer, own)


@pytest.mark.parametrize(
    "kinds", [SOON, pytest.param(MISBEHAVIOUR, marks=pytest.mark.slow)], ids=["soon", "all"]
)
def test_servers_that_misbehave(
    via: str, kinds: Conducts, tmp_path: Path, make_some: Callable[[int], list[Tx]]
) -> None:
    with ExitStack() as stack:
        pair = stack.enter_context(Pair())
        authority = Authority(tmp_path)
        contexts = {}
        for name, issued in (
            ("good", authority.issue(pair.b.ip4)),
            ("expired", authority.issue(pair.b.ip4, expired=True)),
            ("stranger", authority.issue("node.example")),
        ):
            contexts[name] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            contexts[name].load_cert_chain(*issued)
        nodes: dict[str, Node] = {"good": Node(pair.b)}
        told = []
        for name, (play, count, _) in kinds.items():
            own = make_some(3)
            told += own[:count]
            context = contexts["good"] if name in ("stalled", "cut-off") else None
            nodes[name] = Node(pair.b, [_conduct(play, own)], context=context)
        untrusted = {
            "expired": "the certificate of 10.55.0.2 is refused: certificate has expired",
            "stranger": "the certificate of 10.55.0.2 is refused: IP address mismatch",
        }
        for name in untrusted:
            nodes[name] = Node(pair.b, context=contexts[name])
        for node in nodes.values():
            stack.enter_context(node)
        secured = f'ca_file = "{authority.ca}"\n'
        sources = {
            name: f'url = "{node.url}"\n{secured if node.context else ""}'
            for name, node in nodes.items()
        }
        run = stack.enter_context(Run(tmp_path, configured(tmp_path, via, sources), pair.a))
        good = [name for name in nodes if name not in untrusted]
        ended = [name for name in kinds if kinds[name][2]]
        # Each has had its fault, and is back.
        run.until(lambda said: all(said["streams"][name]["failures"] for name in ended), 30)
        run.until(live(*good), 30)
        later = make_some(20)
        for node in nodes.values():
            node.announce(later)
        run.until(lambda said: said["pump"]["matched"] == len(told) + len(later))
        run.until(lambda said: all(said["streams"][name]["transactions"] >= 20 for name in good))
        _, rows = run.sources()
        summary = run.stop()

    assert seen(tmp_path) == hashes(told, later)
    streams = summary["streams"]
    for name, (_, count, why) in kinds.items():
        stream = streams[name]
        assert stream["transactions"] == count + len(later), name
        assert stream["failures"] == (1 if why else 0), (name, stream["ended"])
        if why:
            [[reason, times]] = stream["ended"].items()
            assert why in reason, name
            assert times == 1
            assert any(event.startswith(f"{name}: ") and why in event for event in run.events)
    for name, why in untrusted.items():
        assert nodes[name].connections >= 2  # it is tried again, in case it is put right
        assert streams[name]["transactions"] == 0
        assert all(why in reason for reason in streams[name]["ended"]), streams[name]["ended"]
        assert why in rows[name]["why"]
    assert streams["good"]["failures"] == 0
    assert sum(streams["liar"]["refused"].values()) == 10, streams["liar"]["refused"]
    assert summary["pump"]["refused"] == 0
