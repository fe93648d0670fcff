"""Routes, neighbours and links as the kernel has them, and as they change."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from itertools import pairwise
from typing import Any

import pytest

from appliance.lab import Namespace, Pair
from dpdk_bindings.errors import BindingsError
from dpdk_bindings.routing import Destination, Router
from dpdk_bindings.tables import Tables
from tests.requires import requires_root
from tests.wire.frames import ICMP, IP, UDP, Ether, Raw, raw_socket


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    requires_root()
    with Pair() as made:
        made.b.run("ip", "addr", "add", "10.55.0.3/24", "dev", "veth0")
        yield made


@pytest.fixture
def fresh() -> Iterator[Pair]:
    """A pair of its own, for tests that take addresses away."""
    requires_root()
    with Pair() as made:
        for end in (made.a, made.b):  # its addresses are used at once
            end.run("sysctl", "-qw", "net.ipv6.conf.veth0.accept_dad=0")
        yield made


@pytest.fixture
def router(pair: Pair) -> Iterator[Router]:
    with pair.a:
        made = Router("veth0")
    yield made
    made.close()


def until(router: Router, number: int, true: Callable[[Destination], bool]) -> Destination:
    """Polls until the destination is as wanted: the kernel takes its time with some things."""
    end = time.monotonic() + 30
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
        end = time.monotonic() + 30  # the kernel tells of a carrier up to a second late
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


def test_a_change_reaches_every_destination_in_one_turn(pair: Pair, router: Router) -> None:
    for mac, last in (("02:00:00:00:55:fd", 253), ("02:00:00:00:55:fe", 254)):
        pair.a.run("ip", "neigh", "replace", f"10.55.0.{last}", "lladdr", mac, "dev", "veth0")
    pair.a.run("ip", "route", "add", "10.88.0.0/24", "via", "10.55.0.253")
    try:
        numbers = [router.add(ip_address(f"10.88.0.{i}"), None) for i in range(1, 33)]
        while router.poll():
            pass
        assert {router[number].next_hop for number in numbers} == {ip_address("10.55.0.253")}
        pair.a.run("ip", "route", "replace", "10.88.0.0/24", "via", "10.55.0.254")
        assert router.poll() == set(numbers)
        assert {router[number].dest_mac for number in numbers} == {b"\x02\0\0\0\x55\xfe"}
    finally:
        pair.a.run("ip", "route", "del", "10.88.0.0/24")


def test_one_address_is_one_destination(router: Router) -> None:
    first = router.add(ip_address("10.55.0.2"), None)
    assert router.add(ip_address("10.55.0.2"), None) == first
    assert router.add(ip_address("10.55.0.2"), ip_address("10.55.0.1")) == first + 1


@pytest.mark.parametrize("foreign", [30, 3000], ids=["read", "overrun"])
def test_foreign_changes_do_not_hide_ours(pair: Pair, router: Router, foreign: int) -> None:
    """A BGP speaker's thousands: more than the socket holds, or a turn may read."""
    pair.a.run("ip", "neigh", "replace", "10.55.0.251", "lladdr", "02:0:0:0:55:fb", "dev", "veth0")
    pair.a.run("ip", "route", "add", "10.87.0.0/24", "via", "10.55.0.2")
    number = router.add(ip_address("10.87.0.1"), None)
    while router.poll():
        pass
    batch = "".join(
        f"route add 10.{100 + i // 250}.{i % 250}.0/24 via 10.55.0.2\n" for i in range(foreign)
    )
    batch += "route replace 10.87.0.0/24 via 10.55.0.251\n"
    subprocess.run(["ip", "-n", pair.a.name, "-batch", "-"], input=batch, text=True, check=True)
    assert router.poll() == {number}
    assert router[number].next_hop == ip_address("10.55.0.251")
    assert (router.overruns > 0) == (foreign > 64)
    assert router.poll() == set()
    pair.a.run("ip", "route", "flush", "proto", "boot")


def test_a_link_that_went_while_announcements_were_lost_is_seen(pair: Pair, router: Router) -> None:
    number = router.add(ip_address("239.1.2.3"), None)
    pair.a.run("ip", "link", "set", "veth0", "mtu", "1400")
    batch = "".join(f"route add 10.100.{i}.0/24 via 10.55.0.2\n" for i in range(250))
    subprocess.run(["ip", "-n", pair.a.name, "-batch", "-"], input=batch, text=True, check=True)
    pair.a.run("ip", "link", "set", "veth0", "down")
    router.poll()
    assert (router.trouble, router[number].mtu) == ("interface veth0 is down", 0)
    pair.a.run("ip", "link", "set", "veth0", "up", "mtu", "1500")
    pair.a.run("ip", "-6", "addr", "replace", f"{pair.a.ip6}/64", "dev", "veth0", "nodad")
    until(router, number, lambda d: d.mtu == 1500 and not router.trouble)


@pytest.mark.parametrize(
    ("do", "undo"),
    [
        (
            ["rule", "add", "to", "10.86.0.1", "lookup", "77"],
            ["rule", "del", "to", "10.86.0.1", "lookup", "77"],
        ),
        (
            ["nexthop", "replace", "id", "7", "via", "10.55.0.3", "dev", "veth0"],
            ["nexthop", "replace", "id", "7", "via", "10.55.0.2", "dev", "veth0"],
        ),
    ],
    ids=["rule", "next-hop object"],
)
def test_what_moves_a_route_without_changing_it(
    pair: Pair, router: Router, do: list[str], undo: list[str]
) -> None:
    pair.a.run("ip", "nexthop", "replace", "id", "7", "via", "10.55.0.2", "dev", "veth0")
    pair.a.run("ip", "route", "replace", "10.86.0.0/24", "nhid", "7")
    pair.a.run("ip", "route", "replace", "10.86.0.0/24", "via", "10.55.0.3", "table", "77")
    number = router.add(ip_address("10.86.0.1"), None)
    while router.poll():
        pass
    assert router[number].next_hop == ip_address("10.55.0.2")
    pair.a.run("ip", *do)
    assert router.poll() == {number}
    assert router[number].next_hop == ip_address("10.55.0.3")
    pair.a.run("ip", *undo)
    assert router.poll() == {number}
    assert router[number].next_hop == ip_address("10.55.0.2")


@pytest.mark.parametrize(
    ("gone", "back"),
    [
        ("ip link set veth0 mtu 1200", "ip link set veth0 mtu 1500"),
        ("sysctl -qw net.ipv6.conf.veth0.disable_ipv6=1",) * 2,
    ],
    ids=["mtu", "disable_ipv6"],
)
def test_ipv6_goes_from_the_interface_and_comes_back(fresh: Pair, gone: str, back: str) -> None:
    """An IPv4 route by an IPv6 next hop (RFC 8950) stays, and its neighbour cannot be asked for."""
    fresh.a.run("ip", "route", "replace", "10.85.0.0/24", "via", "inet6", "fd55::2", "dev", "veth0")
    with fresh.a:
        router = Router("veth0")
    four = router.add(ip_address("10.85.0.1"), None)
    six = router.add(ip_address("fd55::2"), None)
    until(router, four, lambda d: d.ready)
    until(router, six, lambda d: d.ready)
    fresh.a.run(*gone.split())
    try:
        until(router, four, lambda d: not d.ready)
        assert until(router, six, lambda d: not d.ready).trouble.startswith("no route (")
        assert router.refused["route"] > 0
    finally:
        fresh.a.run(*back.replace("=1", "=0").split())
        fresh.a.run("ip", "-6", "addr", "replace", f"{fresh.a.ip6}/64", "dev", "veth0", "nodad")
        fresh.a.run(
            "ip", "route", "replace", "10.85.0.0/24", "via", "inet6", "fd55::2", "dev", "veth0"
        )
    until(router, four, lambda d: d.ready)
    until(router, six, lambda d: d.ready)
    router.close()


@pytest.mark.parametrize("question", ["route", "link", "neighbour", "use"])
@pytest.mark.parametrize("code", [errno.ENOBUFS, errno.ENODEV, errno.EINVAL, 0])
def test_a_question_that_the_kernel_refuses_is_a_trouble_and_asked_again(
    pair: Pair, router: Router, monkeypatch: pytest.MonkeyPatch, question: str, code: int
) -> None:
    number = router.add(ip_address("10.55.0.2"), None)
    until(router, number, lambda d: d.ready)
    refusing = True
    asked = getattr(Tables, question)

    def refuse(*question: Any, **how: Any) -> Any:
        if refusing:
            raise OSError(code, os.strerror(code)) if code else ValueError("not an address")
        return asked(*question, **how)

    monkeypatch.setattr(Tables, question, refuse)
    pair.a.run("ip", "neigh", "flush", "dev", "veth0")
    if question == "link" and code == errno.ENODEV:
        return  # that is an interface that was deleted: it does not come back
    pair.a.run("ip", "addr", "add", "10.55.0.77/24", "dev", "veth0")
    router._links.clear()
    lost = until(router, number, lambda d: not d.ready)
    assert lost.trouble
    counted = {"use": "neighbour"}.get(question, question)
    assert router.refused[counted] > 0
    refusing = False
    until(router, number, lambda d: d.ready)
    pair.a.run("ip", "addr", "del", "10.55.0.77/24", "dev", "veth0")


def test_what_is_in_trouble_is_asked_again_with_pauses(
    pair: Pair, router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = router.add(ip_address("10.55.0.2"), None)
    until(router, number, lambda d: d.ready)
    while router.poll():
        pass
    asked = []

    def refuse(*_question: Any, **_how: Any) -> Any:
        asked.append(now_ns)
        raise OSError(errno.ENOBUFS, "no room")

    now_ns = time.monotonic_ns()
    monkeypatch.setattr(time, "monotonic_ns", lambda: now_ns)
    monkeypatch.setattr(Tables, "route", refuse)
    router._ask_for([number])
    for _ in range(1000):
        router.poll()
        now_ns += 10_000_000
    pauses = [(b - a) / 1e9 for a, b in pairwise(asked)][1:]
    assert pauses == sorted(pauses)
    assert pauses[0] <= 0.3
    assert pauses[-1] == 1.0
    assert 10 <= len(pauses) <= 15


@pytest.mark.parametrize("inner", ["udp", "echo-reply"])
@pytest.mark.parametrize("given", [0, 1300])
def test_an_mtu_that_somebody_tells_by_icmp_is_not_believed(
    fresh: Pair, inner: str, given: int
) -> None:
    """RFC 1191 has no way to tell who says it; what the route was given counts."""
    near, far = fresh.b, fresh.a
    if given:
        near.run("ip", "route", "add", f"{far.ip4}/32", "dev", "veth0", "mtu", str(given))
    with near, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind((near.ip4, 5000))
        router = Router("veth0")
        number = router.add(ip_address(far.ip4), None)
        cited = IP(src=near.ip4, dst=far.ip4, flags="DF") / (
            UDP(sport=5000, dport=6000) if inner == "udp" else ICMP(type=0)
        )
        lie = ICMP(type=3, code=4, nexthopmtu=68) / cited / Raw(bytes(8))
        with raw_socket(far) as out:
            ether = Ether(dst=near.mac, src=far.mac)
            out.send(bytes(ether / IP(src="203.0.113.9", dst=near.ip4) / lie))
        end = time.monotonic() + 8
        while "mtu lock 552" not in near.run("ip", "route", "get", far.ip4):
            assert time.monotonic() < end
            time.sleep(0.01)
        again = router.add(ip_address(far.ip4), ip_address(near.ip4))
        assert {router[number].mtu, router[again].mtu} == {given or 1500}
        router.close()
