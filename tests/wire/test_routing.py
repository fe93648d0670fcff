"""Routes, neighbours and links as the kernel has them, and as they change."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address

import pytest

from appliance.lab import Namespace, Pair
from dpdk_bindings.errors import BindingsError
from dpdk_bindings.routing import Destination, Router
from tests.requires import requires_root


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    requires_root()
    with Pair() as made:
        made.b.run("ip", "addr", "add", "10.55.0.3/24", "dev", "veth0")
        yield made


@pytest.fixture
def router(pair: Pair) -> Iterator[Router]:
    with pair.a:
        made = Router("veth0")
    yield made
    made.close()


def until(router: Router, number: int, true: Callable[[Destination], bool]) -> Destination:
    """Polls until the destination is as wanted: the kernel takes its time with some things."""
    end = time.monotonic() + 8
    while not true(router[number]):
        router.poll()
        if time.monotonic() > end:
            raise AssertionError(f"still {router[number].describe()}")
        time.sleep(0.001)
    return router[number]


def say_hello(end: Namespace, to: str) -> None:
    """A datagram of the kernel's own, so that it announces its MAC address."""
    with end, socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, 2) as s:
        s.sendto(b"", (to, 9))


@pytest.mark.parametrize(("near", "far"), [("10.55.0.1", "10.55.0.2"), ("fd55::1", "fd55::2")])
def test_an_unknown_neighbour_is_resolved_and_followed(
    pair: Pair, router: Router, near: str, far: str
) -> None:
    version = "-6" if ":" in far else "-4"
    pair.a.run("ip", version, "neigh", "flush", "dev", "veth0")
    number = router.add(ip_address(far), None)
    assert not router[number].ready
    found = until(router, number, lambda d: d.ready)
    assert (found.source, found.next_hop) == (ip_address(near), ip_address(far))
    assert (found.source_mac.hex(":"), found.mtu) == (pair.a.mac, 1500)
    assert found.dest_mac is not None
    assert found.dest_mac.hex(":") == pair.b.mac

    other = "02:00:00:00:55:99"
    pair.b.run("ip", "link", "set", "veth0", "address", other)
    try:
        say_hello(pair.b, near)
        until(router, number, lambda d: d.dest_mac == bytes.fromhex(other.replace(":", "")))
    finally:
        pair.b.run("ip", "link", "set", "veth0", "address", pair.b.mac)
        say_hello(pair.b, near)
    until(router, number, lambda d: d.dest_mac == found.dest_mac)


def test_a_neighbour_that_goes_away_is_not_sent_to(pair: Pair, router: Router) -> None:
    number = router.add(ip_address("10.55.0.3"), None)
    until(router, number, lambda d: d.ready)
    pair.b.run("ip", "addr", "del", "10.55.0.3/24", "dev", "veth0")
    pair.a.run("ip", "neigh", "del", "10.55.0.3", "dev", "veth0")
    try:
        lost = until(router, number, lambda d: not d.ready)
        assert "10.55.0.3 has not told its MAC address" in lost.trouble
    finally:
        pair.b.run("ip", "addr", "add", "10.55.0.3/24", "dev", "veth0")
    until(router, number, lambda d: d.ready)


def test_a_gateway_and_its_change_are_followed(pair: Pair, router: Router) -> None:
    pair.a.run("ip", "route", "add", "10.99.0.0/16", "via", "10.55.0.3", "mtu", "1300")
    number = router.add(ip_address("10.99.1.1"), None)
    first = until(router, number, lambda d: d.ready)
    assert (first.next_hop, first.mtu) == (ip_address("10.55.0.3"), 1300)
    pair.a.run("ip", "route", "replace", "10.99.0.0/16", "via", "10.55.0.2")
    second = until(router, number, lambda d: d.next_hop == ip_address("10.55.0.2") and d.ready)
    assert second.mtu == 1500
    pair.a.run("ip", "route", "del", "10.99.0.0/16")
    gone = until(router, number, lambda d: not d.ready)
    assert "no route" in gone.trouble


def test_the_links_mtu_and_address_are_followed(pair: Pair, router: Router) -> None:
    number = router.add(ip_address("239.1.2.3"), None)
    assert router[number].ready  # a group needs no neighbour
    assert router[number].dest_mac == bytes.fromhex("01005e010203")
    pair.a.run("ip", "link", "set", "veth0", "mtu", "1400", "address", "02:00:00:00:55:aa")
    try:
        until(router, number, lambda d: d.mtu == 1400 and d.source_mac[-1] == 0xAA)
    finally:
        pair.a.run("ip", "link", "set", "veth0", "mtu", "1500", "address", pair.a.mac)
    until(router, number, lambda d: d.mtu == 1500)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("10.123.0.1", "no route"),
        ("10.55.0.1", "calls the address local"),
        ("127.0.0.1", "calls the address local"),
        ("10.55.0.255", "calls the address broadcast"),
    ],
)
def test_what_cannot_be_reached_is_explained(router: Router, address: str, why: str) -> None:
    with pytest.raises(BindingsError, match=why) as caught:
        router.add(ip_address(address), None)
    assert f"ip route get {address}" in caught.value.hint


def test_a_wanted_source_is_used(pair: Pair, router: Router) -> None:
    pair.a.run("ip", "addr", "add", "10.55.0.9/24", "dev", "veth0")
    number = router.add(ip_address("10.55.0.2"), ip_address("10.55.0.9"))
    assert router[number].source == ip_address("10.55.0.9")


def test_an_interface_that_is_not_there_is_named(pair: Pair) -> None:
    with pair.a, pytest.raises(BindingsError, match="'nope' does not exist") as caught:
        Router("nope")
    assert "veth0" in caught.value.hint


def test_the_interfaces_own_troubles_are_told(pair: Pair, router: Router) -> None:
    def becomes(trouble: str) -> bool:
        end = time.monotonic() + 5  # the kernel tells of a carrier up to a second late
        while router.trouble != trouble and time.monotonic() < end:
            router.poll()
        return router.trouble == trouble

    assert (router.gone, router.trouble) == (False, "")
    pair.a.run("ip", "link", "set", "veth0", "down")
    assert becomes("interface veth0 is down")
    pair.a.run("ip", "link", "set", "veth0", "up")
    assert becomes("")
    pair.b.run("ip", "link", "set", "veth0", "down")
    assert becomes("interface veth0 has no carrier")
    pair.b.run("ip", "link", "set", "veth0", "up")
    assert becomes("")
    assert not router.gone


def test_a_deleted_interface_is_gone_for_good() -> None:
    requires_root()
    with Pair() as pair, pair.a:
        router = Router("veth0")
        pair.a.run("ip", "link", "del", "veth0")
        pair.a.run("ip", "link", "add", "veth0", "type", "veth", "peer", "name", "other")
        pair.a.run("ip", "link", "set", "veth0", "up")
        router.poll()
        assert router.gone
        assert router.trouble == "interface veth0 is gone"
        router.close()
