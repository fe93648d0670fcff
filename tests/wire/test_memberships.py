"""Groups are reported again when the carrier comes back, and joined again on a new interface."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from appliance.lab import Pair
from dpdk_bindings import Channel, DatagramEndpoint, open_datagram
from dpdk_bindings.memberships import Memberships
from dpdk_bindings.sockets import bind_channel
from tests.requires import requires_root

GROUPS = ["239.77.0.1", "ff15::77", "ff02::77"]


@pytest.fixture
def pair() -> Iterator[Pair]:
    requires_root()
    with Pair() as made:
        yield made


@contextlib.contextmanager
def listening(pair: Pair) -> Iterator[socket.socket]:
    """What a snooping switch would hear: all frames that come to the far end."""
    with pair.a:
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        tap.bind((pair.a.interface, 3))
    with tap:
        yield tap


def reported(tap: socket.socket, group: str) -> bool:
    """Whether an IGMP or MLD report of `group` is among the frames that have come."""
    family = socket.AF_INET6 if ":" in group else socket.AF_INET
    packed = socket.inet_pton(family, group)
    while select.select([tap], [], [], 0)[0]:
        frame = tap.recv(2000)
        igmp = frame[12:14] == b"\x08\0" and frame[23] == 2  # RFC 3376, 4
        mld = frame[12:14] == b"\x86\xdd" and frame[54:56] == b"\x3a\0"  # RFC 3810, 5: router alert
        if (igmp or mld) and packed in frame[34:]:
            return True
    return False


def until(endpoint: DatagramEndpoint, true: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end, (endpoint.trouble, endpoint.stats())
        endpoint.housekeeping()
        time.sleep(0.01)


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("via", ["kernel", "afxdp:veth0"])
def test_a_group_is_reported_again_when_the_carrier_comes_back(
    pair: Pair, via: str, group: str
) -> None:
    with pair.b:
        endpoint = open_datagram(via, channels=[Channel(group, 9001, pair.b.interface)])
    with endpoint:
        pair.a.run("ip", "link", "set", pair.a.interface, "down")
        until(endpoint, lambda: via == "kernel" or "no carrier" in endpoint.trouble)
        assert endpoint.stats()["memberships_renewed"] == 0
        pair.a.run("ip", "link", "set", pair.a.interface, "up")
        with listening(pair) as tap:
            until(endpoint, lambda: reported(tap, group))
        until(endpoint, lambda: endpoint.stats()["memberships_renewed"] == 1)
        assert endpoint.trouble == ""


def test_a_group_is_joined_again_on_an_interface_that_was_made_anew(pair: Pair) -> None:
    """Kernel sockets only: a port is gone with its interface, and says so."""
    _make(pair)
    with pair.b:
        endpoint = open_datagram("kernel", channels=[Channel(g, 9001, "made0") for g in GROUPS])
    with endpoint:
        for renewed in (3, 6):
            pair.b.run("ip", "link", "del", "made0")
            until(endpoint, lambda: "interface made0 is gone" in endpoint.trouble)
            _make(pair)
            until(endpoint, lambda n=renewed: endpoint.stats()["memberships_renewed"] >= n)
            until(endpoint, lambda: endpoint.trouble == "")
            got: set[int] = set()
            until(endpoint, lambda got=got: _heard(pair, endpoint, got) == {0, 1, 2})


def test_a_group_that_names_no_interface_is_joined_again_for_its_own(pair: Pair) -> None:
    """The kernel chose one by the route: what becomes of others is nothing to the group."""
    pair.b.run("ip", "route", "add", "239.0.0.0/8", "dev", pair.b.interface)
    _make(pair)
    with pair.b:
        groups = Memberships()
        channel = Channel(GROUPS[0], 9001)
        s = bind_channel(channel)
        groups.add(s, channel)
    with s, contextlib.closing(groups):

        def flapped(far: str, near: str) -> int:
            """How often it was joined again, once the flap of the cable was heard of."""
            for state in ("down", "up"):
                pair.a.run("ip", "link", "set", far, state)
                end = time.monotonic() + 30
                while groups._links[near].running != (state == "up"):
                    groups.follow()
                    assert time.monotonic() < end
            groups.follow()
            return groups.renewed

        assert flapped("made1", "made0") == 0
        assert flapped(pair.a.interface, pair.b.interface) == 1
        pair.b.run("ip", "route", "replace", "239.0.0.0/8", "dev", "made0")
        assert flapped("made1", "made0") == 2  # the kernel would choose another by now
        assert flapped(pair.a.interface, pair.b.interface) == 2


def test_links_of_others_that_come_and_go_are_not_kept(pair: Pair) -> None:
    """A host of containers has a new name for each; ours is remembered while it is gone."""
    _make(pair)
    with pair.b:
        made = Channel(GROUPS[0], 9001, "made0")
        endpoint = open_datagram("kernel", channels=[made])
        groups, s = Memberships(), bind_channel(made)
        groups.add(s, made)
    with endpoint, s:
        before = set(groups._links)
        for number in range(3):
            pair.b.run("ip", "link", "add", f"cont{number}", "type", "veth", "peer", "name", "far")
            until(endpoint, lambda n=number: groups.follow() or f"cont{n}" in groups._links)
            pair.b.run("ip", "link", "del", f"cont{number}")
        pair.b.run("ip", "link", "del", "made0")
        until(endpoint, lambda: groups.follow() or "made0 is gone" in groups.trouble)
        assert set(groups._links) == before
        groups.close()


def _make(pair: Pair) -> None:
    """Another cable between the two."""
    cable = ("made0", "type", "veth", "peer", "name", "made1", "netns", pair.a.name)
    pair.b.run("ip", "link", "add", *cable)
    for end, name, number in ((pair.b, "made0", 2), (pair.a, "made1", 1)):
        end.run("ip", "addr", "add", f"10.58.0.{number}/24", "dev", name)
        end.run("ip", "link", "set", name, "up")
        end.run("ip", "-6", "route", "replace", "ff00::/8", "dev", name, "table", "local")


def _heard(pair: Pair, endpoint: DatagramEndpoint, got: set[int]) -> set[int]:
    for group in GROUPS:
        v6 = ":" in group
        with pair.a, socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, 2) as out:
            out.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"made1")
            with contextlib.suppress(OSError):  # an IPv6 address is not ours at once
                out.sendto(b"x", (group, 9001))
    with endpoint.recv() as burst:
        got.update(burst.channel(i) for i in range(len(burst)))
    return got
