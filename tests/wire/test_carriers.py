"""By which interface a channel comes, where interfaces stand upon others of another namespace."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from appliance.lab import Pair
from dpdk_bindings import Channel
from dpdk_bindings.carriers import Carriers
from dpdk_bindings.tables import Tables
from tests.requires import requires_root

FAR, OTHER = 4242, 4243


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Interfaces as a container has them: the numbers of their parents are those of the host."""
    requires_root()
    with Pair() as made:
        a, b = made.a, made.b
        parent = ("type", "veth", "peer", "name", "par1")
        a.run("ip", "link", "add", "par0", "index", str(FAR), *parent)
        # The first has the number of its parent over there, and so has the second's parent here.
        for name, number in (("own0", FAR), ("own1", OTHER)):
            a.run(
                *("ip", "link", "add", name, "link", "par0", "index", str(number)),
                *("netns", b.name, "type", "macvlan", "mode", "bridge"),
            )
        b.run("ip", "addr", "add", "10.58.0.2/24", "dev", "own0")
        b.run("ip", "addr", "add", "10.59.0.2/24", "dev", "own1")
        yield made


def test_a_parent_in_another_namespace_is_none_here(pair: Pair) -> None:
    with pair.b:
        carriers, tables = Carriers(), Tables()
        try:
            own = Channel("10.58.0.2", 9001)
            assert carriers.carrier(own, [pair.b.interface]) == "own0"
            assert carriers.carrier(Channel("10.59.0.2", 9001), ["own0"]) == "own1"
            assert [tables.link(number).parent for number in (FAR, OTHER)] == [0, 0]
        finally:
            tables.close()


def test_all_interfaces_and_addresses_are_those_of_ip(pair: Pair) -> None:
    """Also where the kernel tells of them in several parts."""
    many = [f"addr add 10.60.{n // 200}.{n % 200 + 1}/16 brd + dev own0" for n in range(800)]
    with pair.b:
        subprocess.run(["ip", "-batch", "-"], input="\n".join(many), text=True, check=True)
        shown = json.loads(pair.b.run("ip", "-d", "-j", "addr"))
        tables = Tables()
        try:
            links, addresses = tables.links(), tables.addresses()
        finally:
            tables.close()
    assert {(index, link.name, link.kind, link.mtu) for index, link in links.items()} == {
        (one["ifindex"], one["ifname"], one.get("linkinfo", {}).get("info_kind", ""), one["mtu"])
        for one in shown
    }
    told = [
        (one["ifindex"], ip_address(address[key]))
        for one in shown
        for address in one["addr_info"]
        for key in ("local", "broadcast")
        if key in address
    ]
    assert len(told) > 1600
    assert sorted(addresses, key=str) == sorted(told, key=str)
