"""Names with several addresses: who is tried when, and what is remembered."""

from __future__ import annotations

import asyncio
import errno
import gc
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from barewire.rpc.addresses import Address
from barewire.rpc.faults import Fault, Trouble
from barewire.rpc.transports import dial
from barewire.rpc.transports.dial import Dialer
from barewire.rpc.transports.websocket import WebSocketChannel
from tests.stream_server import StreamServer

pytestmark = pytest.mark.asyncio


class Net:
    """Addresses that are there, refuse, or swallow what is sent to them; one real server behind."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, ways: dict[str, str]) -> None:
        self.ways = ways
        self.tried: list[str] = []
        self.given_up: list[str] = []
        self.port = 0
        monkeypatch.setattr(dial, "_connected", self.connected)
        monkeypatch.setattr(dial, "_NEXT_S", 0.01)

    async def connected(self, ip: str, port: int) -> socket.socket:
        self.tried.append(ip)
        if self.ways[ip] == "refuses":
            raise OSError(errno.ECONNREFUSED, "refused")
        if self.ways[ip] == "hole":
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self.given_up.append(ip)
        sock = socket.socket()
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        return sock

    async def resolve(self, _host: str, _port: int) -> list[str]:
        return list(self.ways)

    @asynccontextmanager
    async def dialer(self) -> AsyncIterator[Dialer]:
        server = StreamServer(self._leave)
        self.port = await server.listen()
        try:
            async with asyncio.timeout(20):
                yield Dialer(resolver=self.resolve, connect_timeout_s=10)
        finally:
            await server.close()

    async def _leave(self, _reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        pass

    async def dial(self, dialer: Dialer) -> str:
        self.tried.clear()
        address = Address(f"http://two.test:{self.port}")
        transport, _, ip = await dialer.tcp(asyncio.Protocol, address)
        transport.abort()
        return ip


async def test_an_address_that_leads_nowhere_holds_up_for_a_moment_and_only_once(monkeypatch):
    net = Net(monkeypatch, {"2001:db8::1": "hole", "192.0.2.1": "there"})
    async with net.dialer() as dialer:
        assert await net.dial(dialer) == "192.0.2.1"
        assert net.tried == ["2001:db8::1", "192.0.2.1"]
        assert net.given_up == ["2001:db8::1"]
        assert await net.dial(dialer) == "192.0.2.1"
        assert net.tried == ["192.0.2.1"]
        net.ways = {"2001:db8::1": "there", "192.0.2.1": "refuses"}
        assert await net.dial(dialer) == "2001:db8::1"
        assert await net.dial(dialer) == "2001:db8::1"
        assert net.tried == ["2001:db8::1"]


async def test_families_take_turns(monkeypatch):
    six = {f"2001:db8::{i}": "refuses" for i in range(3)}
    net = Net(monkeypatch, six | {"192.0.2.1": "refuses", "192.0.2.2": "there"})
    async with net.dialer() as dialer:
        assert await net.dial(dialer) == "192.0.2.2"
        assert net.tried == ["2001:db8::0", "192.0.2.1", "2001:db8::1", "192.0.2.2"]


async def test_where_none_is_there_it_says_so(monkeypatch):
    net = Net(monkeypatch, {"192.0.2.1": "refuses", "192.0.2.2": "refuses"})
    async with net.dialer() as dialer:
        with pytest.raises(Trouble, match="cannot connect: Connection refused") as caught:
            await net.dial(dialer)
        assert caught.value.untouched
        net.ways = {}
        with pytest.raises(Trouble, match="cannot resolve two"):
            await net.dial(dialer)
        net.ways = {"192.0.2.1": "hole", "192.0.2.2": "hole"}
        dialer.connect_timeout_s = 0.1
        with pytest.raises(Trouble, match="no connection within"):
            await net.dial(dialer)
        assert sorted(net.given_up) == ["192.0.2.1", "192.0.2.2"]


async def test_who_hangs_up_at_once_was_reached(monkeypatch):
    class Gone(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            cast(asyncio.Transport, transport).abort()

    net = Net(monkeypatch, {"192.0.2.1": "there"})
    async with net.dialer() as dialer:
        address = Address(f"http://two.test:{net.port}")
        transport, _, ip = await dialer.tcp(Gone, address)
        assert (transport.is_closing(), ip) == (True, "192.0.2.1")


async def test_what_was_lost_while_it_was_dialled_is_said_once(monkeypatch):
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))

    async def lost(factory, *_):
        factory().connection_lost(None)
        raise Trouble(Fault.TRANSPORT, "the dialling's own words")

    dialer = Dialer()
    monkeypatch.setattr(dialer, "tcp", lost)
    channel = WebSocketChannel(Address("ws://two.test"), cast(Any, None), dialer)
    for _ in range(2):
        with pytest.raises(Trouble, match="the dialling's own words"):
            await channel.open()
    gc.collect()
    assert told == []


async def test_a_link_local_address_is_reached_by_its_zone_and_named_without() -> None:
    index = socket.if_nametoindex("lo")
    address = Address("https://[fe80::1%25lo]:8545/x")
    assert (address.host, address.zone, address.authority) == ("fe80::1", "lo", "[fe80::1]:8545")
    assert await Dialer().addresses(address) == [f"fe80::1%{index}"]
    assert await Dialer().addresses(Address("http://[::1]:8545")) == ["::1"]
