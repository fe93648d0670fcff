"""Opening and closing: beside calling threads, on other loops, after a fork, at the exit."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
import threading
import time

import pytest
from web3 import AsyncWeb3, Web3

from barewire.errors import BarewireError
from barewire.rpc import health, web3_provider
from barewire.rpc.client import RpcClient
from barewire.rpc.faults import AllProvidersFailed
from barewire.rpc.loop_thread import LoopThread
from barewire.rpc.web3_provider import BarewireProvider, BarewireSyncProvider
from tests.unit.rpc_node import ScriptedNode, Serving, result


def until(happened) -> None:
    end = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.005)


def life_threads() -> int:
    return sum(thread.name == "barewire-rpc" for thread in threading.enumerate())


# The blocking provider


def ask_until_it_fails(w3: Web3, started: threading.Barrier, ended: list[BaseException]) -> None:
    try:
        assert w3.eth.gas_price == 7
        started.wait(20)
        while True:
            assert w3.eth.gas_price == 7
    except Exception as error:
        ended.append(error)


def test_close_beside_calling_threads_returns_and_stays_closed():
    with Serving() as node:
        for _ in range(5):
            provider = BarewireSyncProvider([node.url])
            w3 = Web3(provider)
            started = threading.Barrier(7)
            ended: list[BaseException] = []
            asked = (w3, started, ended)
            threads = [threading.Thread(target=ask_until_it_fails, args=asked) for _ in range(6)]
            for thread in threads:
                thread.start()
            started.wait(20)
            closers = [threading.Thread(target=provider.close) for _ in range(3)]
            for thread in closers:
                thread.start()
            for thread in closers + threads:
                thread.join(20)
                assert not thread.is_alive()
            assert len(ended) == 6
            assert all(isinstance(error, BarewireError) for error in ended)
            with pytest.raises(BarewireError, match="closed"):
                provider.make_request("eth_gasPrice", [])
            assert not provider.is_connected()
            provider.close()
        until(lambda: not life_threads())


def test_a_call_on_the_way_when_it_is_closed_fails_and_says_what_may_have_happened():
    with Serving(lambda asked: b"") as node:
        provider = BarewireSyncProvider([node.url])
        errors = {}

        def call(method):
            try:
                provider.make_request(method, [{}])
            except AllProvidersFailed as error:
                errors[method] = str(error)

        methods = ["eth_call", "eth_sendTransaction"]
        threads = [threading.Thread(target=call, args=(method,)) for method in methods]
        for thread in threads:
            thread.start()
        until(lambda: set(methods) <= set(node.seen))
        provider.close()
        for thread in threads:
            thread.join(20)
        assert "closed before an answer came)" in errors["eth_call"]
        assert "may have been carried out" in errors["eth_sendTransaction"]


def test_close_while_it_connects_ends_the_connecting():
    silent = Serving()
    silent.node.chain_id = 0  # says nothing when it is asked who it is
    silent.node.say = lambda asked: b""
    with silent as node:
        provider = BarewireSyncProvider([node.url])
        errors: list[str] = []

        def call():
            try:
                provider.make_request("eth_gasPrice", [])
            except BarewireError as error:
                errors.append(error.message)

        thread = threading.Thread(target=call)
        thread.start()
        until(lambda: "eth_chainId" in node.seen)
        provider.close()
        thread.join(20)
        assert errors == ["this provider was closed"]
        until(lambda: not life_threads())


def test_a_provider_that_is_dropped_ends_its_thread():
    with Serving() as node:
        provider = BarewireSyncProvider([node.url])
        provider.make_request("eth_gasPrice", [])
        assert life_threads() == 1
        del provider  # web3.py's own caches would hold it
        gc.collect()
        until(lambda: not life_threads())
        until(lambda: not node.connections)


def test_a_blocking_call_on_its_own_thread_is_refused_and_close_there_does_not_hang():
    with Serving() as node:
        provider = BarewireSyncProvider([node.url])

        async def on_the_thread():
            with pytest.raises(BarewireError, match="on the thread that would have to answer"):
                provider.make_request("eth_gasPrice", [])
            provider.close()
            return True

        assert Web3(provider).eth.gas_price == 7
        assert provider._run(on_the_thread)
        until(lambda: not life_threads())


def test_the_interpreter_exits_in_order_with_a_provider_open():
    code = """
import os, sys, threading
from web3 import Web3
from barewire.rpc.web3_provider import BarewireSyncProvider
w3 = Web3(BarewireSyncProvider([sys.argv[1]]))
print(w3.eth.gas_price)
child = os.fork()  # whose exit ends no thread of the parent's, nor waits for one
if not child:
    sys.exit(0)
print(os.waitpid(child, 0)[1])
threading.Thread(target=lambda: w3.eth.call({}), daemon=True).start()
"""
    with Serving(lambda a: b"" if a["method"] == "eth_call" else result(a, "0x7")) as node:
        ran = subprocess.run(
            [sys.executable, "-c", code, node.url.replace("127.0.0.1", "localhost")],
            capture_output=True,
            text=True,
            timeout=60,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            check=False,
        )
    assert (ran.returncode, ran.stdout.split()) == (0, ["7", "0"])
    assert "Fatal" not in ran.stderr


def test_closing_in_a_forked_child_leaves_the_parents_connections_alone():
    with Serving() as node:
        provider = BarewireSyncProvider([node.url])
        w3 = Web3(provider)
        assert w3.eth.gas_price == 7
        child = os.fork()
        if child == 0:
            provider.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        connections = node.connections
        assert w3.eth.gas_price == 7
        assert node.connections == connections
        provider.close()


def test_a_forked_child_does_not_wait_for_a_thread_that_is_not_there():
    with Serving() as node:
        life = LoopThread(RpcClient.from_urls([node.url]))
        child = os.fork()
        if child == 0:
            refused = 0
            try:
                for wait in (life.opened, lambda: life.run(life._client.connect)):
                    with pytest.raises(BarewireError, match="forked"):
                        wait()
                    refused += 1
            finally:
                os._exit(refused)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
        life.opened()
        life.end()
        life.join()


def test_a_signals_handler_may_close_it_while_it_starts(monkeypatch):
    def starts(client):
        provider.close()  # as a handler would, in the thread that starts it
        return LoopThread(client)

    monkeypatch.setattr(web3_provider, "LoopThread", starts)
    with Serving() as node:
        provider = BarewireSyncProvider([node.url])
        with pytest.raises(BarewireError, match="this provider was closed"):
            Web3(provider).eth.get_block_number()
        until(lambda: not life_threads())


# Event loops


async def silent_client(node: ScriptedNode) -> tuple[RpcClient, asyncio.Task]:
    client = RpcClient.from_urls([node.url])
    await client.connect()
    call = asyncio.create_task(client.request("eth_call", [{}]))
    while "eth_call" not in node.seen:
        await asyncio.sleep(0.005)
    return client, call


@pytest.mark.asyncio
async def test_whoever_closes_a_second_time_waits_for_the_first():
    async with ScriptedNode(lambda asked: b"") as node, asyncio.timeout(20):
        client, call = await silent_client(node)
        await asyncio.gather(client.close(), client.close())
        with pytest.raises(AllProvidersFailed, match="closed before an answer came"):
            await call
        await client.close()
        with pytest.raises(BarewireError, match="not connected"):
            await client.request("eth_blockNumber")


@pytest.mark.asyncio
async def test_who_is_looked_at_while_the_client_closes_is_no_error_of_ours():
    told = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    async with ScriptedNode() as node, asyncio.timeout(20):
        client = RpcClient.from_urls([node.url])
        await client.connect()
        client._health._looked_ns = 0
        client._health.look_now()
        assert client._health._looking
        await client.close()
        gc.collect()
    assert told == []


@pytest.mark.asyncio
async def test_a_deadline_holds_where_every_turn_of_the_loop_is_late():
    async with ScriptedNode(lambda asked: b"") as node, asyncio.timeout(60):
        client = RpcClient.from_urls([node.url])
        await client.connect()
        call = asyncio.create_task(client.request("eth_sendTransaction", [{}], timeout_ms=50))
        turns = 0
        while not call.done() and turns < 100:
            turns += 1
            await asyncio.sleep(0)
            time.sleep(0.01)  # long computation of somebody else, turn after turn
        with pytest.raises(AllProvidersFailed, match="no answer within"):
            await call
        assert turns < 100
        await client.close()


@pytest.mark.asyncio
async def test_it_connects_once_and_again_after_it_was_closed():
    async with ScriptedNode() as node, asyncio.timeout(20):
        client = RpcClient.from_urls([node.url])
        await client.connect()
        with pytest.raises(BarewireError, match="connected already"):
            await client.connect()
        closing = asyncio.create_task(client.close())
        await asyncio.sleep(0)
        await client.connect()  # while it closes
        await closing
        assert await client.request("eth_call", [{}]) == "0x"
        await client.close()


@pytest.mark.asyncio
async def test_closing_while_it_connects():
    async with ScriptedNode(lambda asked: b"", chain_id=0) as node, asyncio.timeout(20):
        client = RpcClient.from_urls([node.url])
        connecting = asyncio.create_task(client.connect())
        while "eth_chainId" not in node.seen:
            await asyncio.sleep(0.005)
        await client.close()
        with pytest.raises(BarewireError, match="closed while it connected"):
            await connecting
        assert not client.is_open
        while node.connections:
            await asyncio.sleep(0.005)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # unclosed indeed
def test_a_loop_that_ended_without_closing_does_not_bind_the_next():
    with Serving() as node:
        client = RpcClient.from_urls([node.url])
        w3 = AsyncWeb3(BarewireProvider([node.url]))

        async def leave_open():
            await client.connect()
            call = asyncio.create_task(client.request("eth_gasPrice", fresh=True))
            await asyncio.sleep(0)  # it is on its way when the loop ends
            assert await w3.eth.gas_price == 7
            return call

        for _ in range(3):
            asyncio.run(leave_open())

        async def orderly():
            assert await w3.eth.gas_price == 7
            await w3.provider.disconnect()
            await client.close()

        asyncio.run(orderly())
        assert not client.is_open
    gc.collect()


def test_another_loop_is_told_so_while_the_first_runs():
    with Serving() as node:
        client = RpcClient.from_urls([node.url])
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        asyncio.run_coroutine_threadsafe(client.connect(), loop).result(20)
        for work in (client.connect, client.close, lambda: client.request("eth_gasPrice")):
            with pytest.raises(BarewireError, match="on another event loop"):
                asyncio.run(work())
        asyncio.run_coroutine_threadsafe(client.close(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.mark.asyncio
async def test_disconnecting_web3_fails_what_is_on_the_way_and_later_calls_do_not_reopen():
    async with ScriptedNode(lambda asked: b"") as node, asyncio.timeout(20):
        w3 = AsyncWeb3(BarewireProvider([node.url]))
        await w3.provider.connect()
        call = asyncio.create_task(w3.eth.call({}))
        while "eth_call" not in node.seen:
            await asyncio.sleep(0.005)
        await w3.provider.disconnect()
        with pytest.raises(AllProvidersFailed):
            await call
        with pytest.raises(BarewireError, match="closed"):
            await w3.eth.gas_price
        assert not await w3.provider.is_connected()


@pytest.mark.asyncio
async def test_a_connection_that_comes_while_the_client_closes_is_not_asked_who_it_is():
    async with ScriptedNode() as node, asyncio.timeout(20):
        client = RpcClient.from_urls([node.url])
        await client.connect()
        link = client.links[0]
        closing = asyncio.create_task(client.close())
        await asyncio.sleep(0)
        before = asyncio.all_tasks()
        client.link_up(link, link.http)
        assert asyncio.all_tasks() == before
        await closing
        client.link_up(link, link.http)
        assert not client._health._vetting


@pytest.mark.asyncio
async def test_connecting_does_not_wait_for_the_worst(monkeypatch):
    monkeypatch.setattr(health, "_PROBE_MS", 60_000)  # of the mute one, longer than the test
    async with ScriptedNode() as good, ScriptedNode(lambda a: b"", chain_id=0) as mute:
        async with asyncio.timeout(20):
            async with RpcClient.from_urls([mute.url, good.url, good.url]) as client:
                assert [p.connected for p in client.pool.providers] == [False, True, True]
                mute.chain_id = 1  # it is there after all: used from then on
                mute.say = lambda asked: result(asked, json.dumps("0x"))
                while not client.pool.providers[0].connected:
                    await client._health._look_after(client.links[0])
                assert not client._opening[0].done()
