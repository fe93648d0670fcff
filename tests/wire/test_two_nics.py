"""Lines A and B by two NICs: each line is received by the interface that brings it, or refused."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Iterator

import pytest

from appliance.config import Source, Via
from appliance.lab import INTERFACE, Namespace, Pair
from appliance.places import Place
from appliance.ports import Ports, channels_of
from barewire.feeds.envelope import to_messages
from barewire.keccak import keccak256
from dpdk_bindings import BindingsError, Channel, DatagramEndpoint, open_datagram
from tests.requires import requires_root
from tests.transactions import envelope, make
from tests.wire.rig import Rig, dead, lossy

OTHER = "veth1"
VIA = f"afxdp:{INTERFACE}"
NEAR = {INTERFACE: "10.55.0.2", OTHER: "10.56.0.2"}


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """A pair of two cables, and at the near end a macvlan of the second and a service address."""
    requires_root()
    with Pair() as made:
        a, b = made.a, made.b
        made.b.run(
            *("ip", "link", "add", OTHER, "type", "veth", "peer", "name", OTHER, "netns", a.name)
        )
        for end, number in ((a, 1), (b, 2)):
            end.run("ip", "addr", "add", f"10.56.0.{number}/24", "brd", "+", "dev", OTHER)
            end.run("ip", "link", "set", OTHER, "up")
            end.run("ethtool", "-K", OTHER, "tx", "off", "tso", "off", "gso", "off")
            end.run("ip", "-6", "route", "replace", "ff00::/8", "dev", OTHER, "table", "local")
        b.run("ip", "link", "add", "upon0", "link", OTHER, "type", "macvlan", "mode", "bridge")
        b.run("ip", "addr", "add", "10.57.0.2/24", "dev", "upon0")
        b.run("ip", "link", "set", "upon0", "up")
        a.run("ip", "addr", "add", "10.57.0.1/24", "dev", OTHER)
        b.run("ip", "addr", "add", "10.99.0.1/32", "dev", "lo")
        a.run("ip", "route", "add", "10.99.0.1/32", "via", "10.56.0.2")
        until = time.monotonic() + 30
        while a.run("ip", "addr", "show", "tentative") + b.run("ip", "addr", "show", "tentative"):
            assert time.monotonic() < until  # addresses that nobody may use yet (RFC 4862)
            time.sleep(0.05)
        yield made


def feed(*lines: str, via: str | list[str] = VIA, retransmit: str | None = None) -> Source:
    return Source(
        name="feed",
        via=Via.parse(via),
        lines=[Place.parse(line) for line in lines],
        retransmit=Place.parse(retransmit) if retransmit else None,
    )


def opened(pair: Pair, source: Source) -> DatagramEndpoint:
    with pair.b:
        return Ports([source]).open(
            source, lambda ways: open_datagram(ways, channels=channels_of(source))
        )


def send(end: Namespace, to: Place, by: str, payload: bytes) -> None:
    v6 = ":" in to.address
    with end, socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        out.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, by.encode())
        out.sendto(payload, (to.address, to.port))


def heard(endpoint: DatagramEndpoint, count: int, seconds: float = 30) -> list[tuple[int, bytes]]:
    got: list[tuple[int, bytes]] = []
    end = time.monotonic() + seconds
    while len(got) < count:
        assert time.monotonic() < end, (got, endpoint.stats())
        with endpoint.recv() as burst:
            got += [(burst.channel(i), bytes(burst[i])) for i in range(len(burst))]
    return got


@pytest.mark.parametrize(
    ("line", "by"),
    [
        ("239.77.0.1:9001", INTERFACE),
        (f"239.77.0.1:9001@{OTHER}", OTHER),
        ("10.56.0.2:9001", OTHER),
        ("10.56.0.255:9001", OTHER),
        ("239.77.0.1:9001@upon0", OTHER),
        ("10.57.0.2:9001", OTHER),
        ("[ff02::77]:9001", INTERFACE),
        (f"[ff05::77]:9001@{OTHER}", OTHER),
        ("232.1.1.1:9001", INTERFACE),
    ],
)
def test_a_line_is_received_by_the_interface_that_brings_it(pair: Pair, line: str, by: str) -> None:
    with opened(pair, feed(line)) as endpoint:
        send(pair.a, Place.parse(line), by, b"heard")
        assert heard(endpoint, 1) == [(0, b"heard")]
        assert endpoint.stats()["port_rx_frames"] == 1  # past the kernel
    assert "xdp" not in pair.b.run("ip", "link")


def test_a_service_address_is_received_by_the_first_interface_named(pair: Pair) -> None:
    """It is on loopback, and which interface brings it is a matter of routing elsewhere."""
    with opened(pair, feed("10.99.0.1:9001", via=f"afxdp:{OTHER}")) as endpoint:
        send(pair.a, Place("10.99.0.1", 9001), OTHER, b"served")
        assert heard(endpoint, 1) == [(0, b"served")]


def test_one_group_is_two_lines_by_two_interfaces(pair: Pair) -> None:
    lines = [f"239.77.0.1:9001@{INTERFACE}", f"239.77.0.1:9001@{OTHER}"]
    for via in (VIA, [VIA, f"afxdp:{OTHER}?mode=drv"], [VIA, "kernel"], "kernel"):
        with opened(pair, feed(*lines, via=via)) as endpoint:
            for n, by in enumerate((OTHER, INTERFACE, OTHER)):
                send(pair.a, Place("239.77.0.1", 9001), by, b"%d" % n)
            assert sorted(heard(endpoint, 3)) == [(0, b"1"), (1, b"0"), (1, b"2")]


def test_a_source_by_two_interfaces_shares_them_with_others(pair: Pair) -> None:
    """One source is written with a port's options; the other's line comes by the same port."""
    first = feed("10.55.0.2:9001", f"239.77.0.2:9002@{OTHER}")
    second = Source(
        name="second",
        via=Via(f"afxdp:{OTHER}?ring=64"),
        lines=[Place("10.56.0.2", 9003)],
    )
    with pair.b:
        ports = Ports([first, second])
        one, two = (
            ports.open(
                source, lambda ways, its=source: open_datagram(ways, channels=channels_of(its))
            )
            for source in (first, second)
        )
    with one, two:
        assert [about["backend"] for about in one.describe()["members"]] == [
            VIA,
            f"afxdp:{OTHER}?ring=64",
        ]
        send(pair.a, Place("10.56.0.2", 9003), OTHER, b"second")
        send(pair.a, Place("239.77.0.2", 9002), OTHER, b"first, B")
        send(pair.a, Place("10.55.0.2", 9001), INTERFACE, b"first, A")
        assert heard(two, 1) == [(0, b"second")]
        assert sorted(heard(one, 2)) == [(0, b"first, A"), (1, b"first, B")]


@pytest.mark.parametrize(
    "remote", ["10.56.0.1:9100", "10.55.0.1:9100", "link-local"], ids=["other", "same", "fe80"]
)
def test_who_retransmits_is_asked_and_answers_by_its_own_interface(pair: Pair, remote: str) -> None:
    if remote == "link-local":
        said = pair.a.run("ip", "-6", "-br", "addr", "show", "dev", INTERFACE, "scope", "link")
        remote = f"[{said.split()[2].split('/')[0]}]:9100@{INTERFACE}"
    place = Place.parse(remote)
    family = socket.AF_INET6 if ":" in place.address else socket.AF_INET
    with (
        opened(pair, feed(f"239.77.0.1:9001@{INTERFACE}", retransmit=remote)) as endpoint,
        pair.a,
        socket.socket(family, socket.SOCK_DGRAM) as server,
    ):
        scope = (0, socket.if_nametoindex(place.interface)) if place.interface else ()
        server.bind((place.address, 9100, *scope))
        server.settimeout(0.05)
        peer = endpoint.add_peer(place.address, 9100, interface=place.interface)
        end = time.monotonic() + 30
        while True:  # until the next hop is known
            endpoint.housekeeping()
            assert time.monotonic() < end, endpoint.describe()
            if endpoint.send(peer, b"what was lost?"):
                endpoint.flush()
                break
        server.settimeout(30)
        asked, whom = server.recvfrom(100)
        server.sendto(b"this", whom)
        assert (asked, heard(endpoint, 1)) == (b"what was lost?", [(0, b"this")])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("127.0.0.1:9001", ["loopback", "kernel"]),
        ("[::1]:9001", ["loopback", "kernel"]),
        ("0.0.0.0:9001", ["one address"]),
        ("10.58.0.1:9001", ["no interface here has this address"]),
        ("239.77.0.1:9001@nosuch", ["'nosuch' does not exist here", OTHER]),
    ],
)
def test_what_no_interface_brings_is_refused(pair: Pair, line: str, words: list[str]) -> None:
    with pytest.raises(BindingsError) as refused:
        opened(pair, feed(line))
    for word in words:
        assert word in f"{refused.value.message} {refused.value.hint}"
    assert "xdp" not in pair.b.run("ip", "link")


def test_an_endpoint_refuses_what_its_ports_do_not_bring(pair: Pair) -> None:
    elsewhere = Channel("10.57.0.2", 9001)
    for ways in (VIA, [VIA, f"afxdp:{OTHER}"]):
        channel = elsewhere if ways == VIA else Channel("127.0.0.1", 9001)
        with pair.b, pytest.raises(BindingsError, match="cannot receive on") as refused:
            open_datagram(ways, channels=[channel])
        assert (f"come by interface {OTHER}" in str(refused.value)) == (ways == VIA)
    with pair.b, pytest.raises(BindingsError, match="has a port of this process already"):
        open_datagram([VIA, f"{VIA}?mode=drv"], channels=[])
    with pair.b, pytest.raises(BindingsError, match="joined with nothing"):
        open_datagram(["kernel", "kernel"], channels=[])
    assert "xdp" not in pair.b.run("ip", "link")


def test_lines_by_two_interfaces_are_one_sequence(pair: Pair, tmp_path) -> None:
    """Each loses what the other brings; then one cable is dead, and the other goes on."""
    envelopes = [envelope(2, make(random.Random(n), 2, 1)) for n in range(100)]
    messages = [m for n, raw in enumerate(envelopes) for m in to_messages(raw, 1450, n)]
    with Rig(pair, tmp_path, interfaces=[INTERFACE, OTHER], retransmit=False) as rig:
        for position, message in enumerate(messages[:-20]):
            rig.publish([message], faults={position % 2: dead})
        pair.a.run("ip", "link", "set", OTHER, "down")
        try:
            rig.hear(f"interface {OTHER} has no carrier")
            rig.publish(messages[-20:], faults={0: lossy(0, 1)})
            rig.arrive()
        finally:
            pair.a.run("ip", "link", "set", OTHER, "up")
        stopped = rig.stop()
    assert set(stopped.hashes) == {keccak256(raw).hex() for raw in envelopes}
    assert stopped.feed["lost"] == 0
    assert all(line["first"] for line in stopped.feed["lines"].values())
