"""Barewire under web3.py, in one line.

    w3 = await AsyncWeb3(BarewireProvider(["wss://one.example", "https://two.example"]))
    w3 = Web3(BarewireSyncProvider(["https://one.example", "https://two.example"]))

Middleware, batches and subscriptions work as with web3.py's own providers; which node answers, and
that another one does when it fails, is Barewire's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
import weakref
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar, cast

from barewire.errors import BarewireError
from barewire.interpreter import recursion_limit_kept
from barewire.rpc.client import RpcClient
from barewire.rpc.config import RpcConfig
from barewire.rpc.faults import RpcAnswerError
from barewire.rpc.loop_thread import LoopThread, closed
from barewire.rpc.subscriptions import Subscription

with recursion_limit_kept():
    from web3._utils.caching.caching_utils import (
        async_handle_recv_caching,
        async_handle_request_caching,
        async_handle_send_caching,
        generate_cache_key,
        handle_request_caching,
    )
    from web3.providers.base import JSONBaseProvider
    from web3.providers.persistent import PersistentConnectionProvider
    from web3.types import RPCEndpoint, RPCRequest, RPCResponse
from web3.utils import SimpleCache

__all__ = ["BarewireProvider", "BarewireSyncProvider"]

Source = RpcClient | RpcConfig | Sequence[str]
T = TypeVar("T")
_PUSHED = 100
"""Messages kept for web3; when it does not take them, the subscription counts what it drops."""


def _client(source: Source) -> RpcClient:
    if isinstance(source, RpcClient):
        return source
    if isinstance(source, RpcConfig):
        return RpcClient(source)
    return RpcClient.from_urls([source] if isinstance(source, str) else source)


def _plain(value: Any) -> Any:
    """`value` with web3's bytes and attribute dictionaries made JSON-ready."""
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, bytes | bytearray):
        return "0x" + value.hex()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(item) for item in value]
    return value


class BarewireProvider(PersistentConnectionProvider):
    """Many providers as one for `AsyncWeb3`.

    Attributes:
        client: the `RpcClient` underneath.
        route: the private route that it belongs to, or "".
        endpoint_uri: the redacted addresses, for people.
    """

    def __init__(
        self,
        source: Source,
        *,
        route: str = "",
        request_timeout: float | None = None,
        **kwargs: Any,
    ) -> None:
        """Takes URLs, an `RpcConfig`, or an `RpcClient`; `kwargs` are web3's own.

        With `route`, all that is asked goes to the providers of that private route alone. A call is
        given up after `request_timeout` seconds, or where it is None after the client's own time.
        """
        self._timeout_ms = int((request_timeout or 0) * 1000)
        if request_timeout is not None:
            kwargs["request_timeout"] = request_timeout
        super().__init__(**kwargs)
        # What is known of a call on the way must not be forgotten: its answer would lose its types.
        self._request_processor._request_information_cache = SimpleCache(sys.maxsize)  # noqa: SLF001
        self.route = route
        self.client = _client(source)
        self.endpoint_uri = ", ".join(p.name for p in self.client.pool.providers)
        self._connecting = asyncio.Lock()
        self._home: asyncio.AbstractEventLoop | None = None
        self._disconnected = False
        self._flying: dict[Any, asyncio.Task[Any]] = {}
        self._pushed: asyncio.Queue[RPCResponse] = asyncio.Queue(_PUSHED)
        self._streams: dict[str, tuple[Subscription, asyncio.Task[None]]] = {}

    def __str__(self) -> str:
        return f"Barewire: {self.endpoint_uri}"

    # Connecting

    async def _provider_specific_connect(self) -> None:
        self._disconnected = False
        await self._up()

    async def _up(self) -> None:
        loop = asyncio.get_running_loop()
        if self._home is not loop and (self._home is None or self._home.is_closed()):
            self._home = loop  # what waits on a loop that has ended waits for ever
            self._forget()
        async with self._connecting:
            if self._disconnected:
                raise closed("connect() opens it again")
            if not self.client.is_open:
                await self.client.connect()

    def _forget(self) -> None:
        self._connecting = asyncio.Lock()
        self._flying.clear()
        self._streams.clear()
        self._pushed = asyncio.Queue(_PUSHED)

    async def _provider_specific_disconnect(self) -> None:
        """Ends everything: calls on the way fail, and so do later ones until `connect`."""
        self._disconnected = True
        for subscription, pump in list(self._streams.values()):
            pump.cancel()
            await subscription.close()
        await self.client.close()
        await asyncio.gather(*self._flying.values(), return_exceptions=True)  # all have failed
        self._home = None
        self._forget()

    async def is_connected(self, show_traceback: bool = False) -> bool:
        """Whether at least one provider can be asked."""
        return self.client.is_open and any(p.connected for p in self.client.pool.providers)

    async def _provider_specific_socket_reader(self) -> RPCResponse:
        return await self._pushed.get()

    async def socket_send(self, request_data: bytes) -> None:
        """Not a thing here: requests are calls, not bytes on one socket."""
        raise NotImplementedError("BarewireProvider has many sockets; use make_request")

    async def socket_recv(self) -> RPCResponse:
        """The next subscription message."""
        return await self._pushed.get()

    # Requests

    async def _perform(self, request: RPCRequest) -> RPCResponse:
        if not self.client.is_open or self._disconnected:
            await self._up()
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": request["id"]}
        method, params = request["method"], _plain(request["params"])
        try:
            if method == "eth_subscribe":
                answer["result"] = await self._subscribe(params)
            elif method == "eth_unsubscribe":
                answer["result"] = await self._unsubscribe(params[0])
            else:
                answer["result"] = await self.client.request(
                    method, params, route=self.route, timeout_ms=self._timeout_ms
                )
        except RpcAnswerError as error:
            answer["error"] = error.error
        return cast(RPCResponse, answer)

    @async_handle_request_caching
    async def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        """Asks, and waits for the answer."""
        return await self._perform(self.form_request(method, params))

    @async_handle_send_caching
    async def send_request(self, method: RPCEndpoint, params: Any) -> RPCRequest:
        """Begins a request; `recv_for_request` waits for its answer."""
        request = self.form_request(method, params)
        self._begin(request["id"], self._perform(request))
        return request

    def _begin(self, number: Any, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._flying[number] = task
        task.add_done_callback(lambda done: self._landed(number, done))

    def _landed(self, number: Any, task: asyncio.Task[Any]) -> None:
        # web3's public `recv` takes answers from this cache, in the order in which they came.
        if not task.cancelled() and task.exception() is None and number in self._flying:
            key = generate_cache_key(number)
            self._request_processor._request_response_cache.cache(key, task.result())  # noqa: SLF001
            del self._flying[number]

    @async_handle_recv_caching  # type: ignore[arg-type]  # web3 types self as its base class
    async def recv_for_request(self, rpc_request: RPCRequest) -> RPCResponse:
        """The answer to a request that was begun."""
        number = rpc_request["id"]
        task = self._flying.get(number)
        if task is None:
            return await self._get_response_for_request_id(number)
        try:
            answer = await task
        except BaseException:  # nobody asks of what kind it would have been
            self._request_processor.pop_cached_request_information(generate_cache_key(number))
            raise
        finally:
            self._flying.pop(number, None)
        self._request_processor._request_response_cache.pop(generate_cache_key(number))  # noqa: SLF001
        return cast(RPCResponse, answer)

    # Batches

    async def send_batch_request(self, requests: list[tuple[RPCEndpoint, Any]]) -> list[RPCRequest]:
        """Begins many requests; they are gathered into batches where the providers take them."""
        formed = [self.form_request(method, params) for method, params in requests]
        for request in formed:
            self._begin(request["id"], self._perform(request))
        return formed

    async def recv_for_batch_request(self, _request_dicts: list[RPCRequest]) -> list[RPCResponse]:
        """The answers to a batch, in its order."""
        return [await self.recv_for_request(request) for request in _request_dicts]

    async def make_batch_request(
        self, requests: list[tuple[RPCEndpoint, Any]]
    ) -> list[RPCResponse]:
        """Asks many at once."""
        return await self.recv_for_batch_request(await self.send_batch_request(requests))

    # Subscriptions

    async def _subscribe(self, params: Sequence[Any]) -> str:
        subscription = await self.client.subscribe(params[0], *params[1:])
        pump = asyncio.create_task(self._pump(subscription))
        self._streams[subscription.id] = (subscription, pump)
        return subscription.id

    async def _unsubscribe(self, number: str) -> bool:
        subscription, pump = self._streams.pop(number, (None, None))
        if subscription is None or pump is None:
            return False
        pump.cancel()
        await subscription.close()
        return True

    async def _pump(self, subscription: Subscription) -> None:
        for _ in range(4):
            await asyncio.sleep(0)  # web3 registers the subscription once it has the answer
        async for item in subscription:
            message = {
                "jsonrpc": "2.0",
                "method": "eth_subscription",
                "params": {"subscription": subscription.id, "result": item},
            }
            await self._pushed.put(cast(RPCResponse, message))


class BarewireSyncProvider(JSONBaseProvider):
    """Many providers as one for the blocking `Web3`: the same client on a thread of its own.

    Attributes:
        client: the `RpcClient` underneath, which lives on that thread's loop.
        route: the private route that it belongs to, or "".
    """

    def __init__(
        self,
        source: Source,
        *,
        route: str = "",
        request_timeout: float | None = None,
        **kwargs: Any,
    ) -> None:
        """Takes URLs, an `RpcConfig`, or a fresh `RpcClient`; the rest as `BarewireProvider`."""
        super().__init__(**kwargs)
        self._timeout_ms = int((request_timeout or 0) * 1000)
        self.route = route
        self.client = _client(source)
        self._loop: LoopThread | None = None
        self._collected: weakref.finalize[[], Any] | None = None
        self._starting = threading.RLock()  # a signal's handler may close it inside any statement
        self._closed = False
        self._process = 0  # the first that used it

    def _run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        if self._forked():  # before the lock: in a forked child nobody may be left to release it
            raise BarewireError(
                "this provider was connected before the process forked",
                hint="make it in the process that uses it: its thread stayed in the parent",
            )
        with self._starting:
            if self._closed:
                raise closed()
            life = self._loop
            if life is None or life.over:
                if self._collected is not None:
                    self._collected.detach()
                life = self._loop = LoopThread(self.client)
                self._collected = weakref.finalize(self, life.end)
                self._collected.atexit = False  # there the life waits for itself
            if self._closed:
                life.end()  # type: ignore[unreachable]  # by a handler, inside what is above
        life.opened()
        return life.run(work)

    def _forked(self) -> bool:
        self._process = self._process or os.getpid()
        return self._process != os.getpid()

    def close(self) -> None:
        """Closes all connections and ends the thread, for good.

        Calls on the way fail, and so does every later one. Whoever else closes it waits as well;
        to close it again does nothing. In a forked child it closes nothing of the parent's.
        """
        if self._forked():
            self._closed = True
            return
        with self._starting:
            self._closed = True
            life = self._loop
        if life is not None:
            life.end()
            life.join()
            self._loop = None

    async def _answer(self, number: int, method: str, params: Any) -> RPCResponse:
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": number}
        try:
            answer["result"] = await self.client.request(
                method, _plain(params or []), route=self.route, timeout_ms=self._timeout_ms
            )
        except RpcAnswerError as error:
            answer["error"] = error.error
        return cast(RPCResponse, answer)

    @handle_request_caching
    def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        """Asks, and waits for the answer."""
        number = next(self.request_counter)
        return self._run(lambda: self._answer(number, method, params))

    def make_batch_request(self, requests: list[tuple[RPCEndpoint, Any]]) -> list[RPCResponse]:
        """Asks many at once."""

        async def work() -> list[RPCResponse]:
            numbered = [(next(self.request_counter), *request) for request in requests]
            return list(await asyncio.gather(*(self._answer(*one) for one in numbered)))

        return self._run(work)

    def is_connected(self, show_traceback: bool = False) -> bool:
        """Whether at least one provider can be asked."""
        with contextlib.suppress(Exception):
            self._run(lambda: self._answer(0, "web3_clientVersion", []))
            return True
        return False
