"""Several calls in one, and templates that are kept."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from eth_abi.abi import decode

from barewire.errors import BarewireError
from barewire.execution.cache import TemplateCache
from barewire.execution.calldata import Slot, encode_call
from barewire.execution.keys import Key
from barewire.execution.multicall import Call, intrinsic_gas, multicall
from barewire.execution.signer import Rfc6979Signer
from barewire.execution.template import Caps, Template
from barewire.keccak import keccak256


def test_calls_are_carried_as_they_are():
    approve = encode_call("approve(address,uint256)", [b"\1" * 20, Slot("allowance")])
    swap = encode_call("swap(uint256)", [Slot("amount")])
    whole = multicall([Call(b"\2" * 20, approve, True), Call(b"\3" * 20, swap)])
    raw = bytearray(whole.data.data)
    for place, value in zip(whole.data.places, (7, 8), strict=True):
        raw[place.offset : place.offset + 32] = place.pack(value)
    assert raw[:4] == keccak256(b"aggregate3((address,bool,bytes)[])")[:4]
    (calls,) = decode(["(address,bool,bytes)[]"], bytes(raw[4:]))
    assert [(call[0], call[1]) for call in calls] == [
        ("0x" + "02" * 20, True),
        ("0x" + "03" * 20, False),
    ]
    assert calls[0][2] == encode_call("approve(address,uint256)", [b"\1" * 20, 7]).data
    assert calls[1][2] == encode_call("swap(uint256)", [8]).data
    assert whole.round_trips_saved == 1
    alone = intrinsic_gas(approve.data) + intrinsic_gas(swap.data)
    assert whole.intrinsic_gas_saved == alone - intrinsic_gas(whole.data.data)
    assert 15_000 < whole.intrinsic_gas_saved < 21_000


def test_calls_that_pay():
    pay = encode_call("deposit()", [])
    whole = multicall([Call(b"\2" * 20, pay, value_wei=5), Call(b"\2" * 20, pay, value_wei=6)])
    assert whole.value_wei == 11
    (calls,) = decode(["(address,bool,uint256,bytes)[]"], whole.data.data[4:])
    assert [call[2] for call in calls] == [5, 6]


def test_what_is_refused():
    with pytest.raises(BarewireError, match="no calls"):
        multicall([])
    call = encode_call("f(uint256)", [Slot("x")])
    with pytest.raises(BarewireError, match="two slots are named x"):
        multicall([Call(bytes(20), call), Call(bytes(20), call)])


@pytest.fixture
def template() -> Iterator[Template]:
    with Key.from_bytes(b"\1" * 32) as key, Rfc6979Signer(key) as signer:
        yield Template(signer, type=2, chain_id=1, to=bytes(20), gas=21000, caps=Caps(1))


def test_a_template_is_kept_for_its_lifetime(template):
    cache = TemplateCache(capacity=2, lifetime_ns=100)
    assert cache.hit_rate == 0.0
    assert cache.get("a", 0) is None
    cache.put("a", template, 0)
    assert cache.get("a", 100) is template
    assert cache.get("a", 101) is None
    assert (cache.hits, cache.misses, cache.expired) == (1, 2, 1)
    assert cache.hit_rate == pytest.approx(1 / 3)
    assert len(cache) == 0


def test_the_least_used_goes_first(template):
    cache = TemplateCache(capacity=2, lifetime_ns=100)
    for key in ("a", "b"):
        cache.put(key, template, 0)
    assert cache.get("a", 1)
    cache.put("c", template, 1)
    assert cache.evicted == 1
    assert cache.get("b", 1) is None
    assert cache.get("a", 1)
    cache.drop("a")
    cache.drop("a")
    assert cache.get("a", 1) is None


def test_made_when_missing(template):
    cache = TemplateCache(capacity=2, lifetime_ns=100)
    made = []

    def make() -> Template:
        made.append(1)
        return template

    for now in (0, 50, 150):
        assert cache.get_or_make("a", now, make) is template
    assert len(made) == 2


@pytest.mark.parametrize(("capacity", "lifetime_ns"), [(0, 1), (1, 0)])
def test_a_cache_of_nothing_is_refused(capacity, lifetime_ns):
    with pytest.raises(BarewireError):
        TemplateCache(capacity, lifetime_ns)
