"""A client on a thread and an event loop of its own, for callers that block.

One `LoopThread` is one life: it connects, is open, closes, and is over; it never opens again. Calls
may come from any number of threads. Each ends with its answer or with an error, also when the life
ends meanwhile. It ends when it is told to, when who made it was collected, or when the interpreter
exits: then the connections are closed first and the thread is waited for.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

from barewire.errors import BarewireError
from barewire.rpc.client import RpcClient

__all__ = ["LoopThread", "closed"]

T = TypeVar("T")
_EXIT_S = 2.0
"""How long the interpreter's exit waits for connections to be closed."""
_running: set[LoopThread] = set()


def closed(hint: str = "make another one") -> BarewireError:
    """What a call gets at a provider that was closed."""
    return BarewireError("this provider was closed", hint=hint)


class LoopThread:
    """One life of a client.

    Attributes:
        process: the process in which the thread runs; a forked child has a copy without a thread.
    """

    def __init__(self, client: RpcClient) -> None:
        """Begins to connect; see `opened`."""
        self.process = os.getpid()
        self._client = client
        self._lock = threading.RLock()  # a finalizer may run inside any statement, here too
        self._ending = False
        self._failure: BaseException | None = None
        self._opened: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._loop = _new_loop()
        self._life: asyncio.Task[None] = self._loop.create_task(self._live())
        self._thread = threading.Thread(target=self._main, name="barewire-rpc", daemon=True)
        _running.add(self)
        self._thread.start()

    @property
    def over(self) -> bool:
        """Whether it came to its end without having been open."""
        return self._opened.done() and self._opened.exception() is not None

    # On its own thread

    def _main(self) -> None:
        loop = self._loop
        asyncio.set_event_loop(loop)
        loop.run_until_complete(asyncio.wait([self._life]))
        error = None if self._life.cancelled() else self._life.exception()
        self._failure = error if self._opened.done() else None
        with self._lock:
            self._ending = True
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
        _running.discard(self)
        if not self._opened.done():
            self._opened.set_exception(error or closed())

    async def _live(self) -> None:
        await self._client.connect()
        self._opened.set_result(None)
        try:
            await asyncio.get_running_loop().create_future()  # until `end` cancels
        finally:
            await self._client.close()

    # On other threads

    def opened(self) -> None:
        """Waits until it is connected.

        Raises:
            BarewireError: why it could not be, or that it was ended meanwhile.
        """
        self._not_here()
        self._opened.result()

    def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What `work` comes to on the client's loop.

        Raises:
            BarewireError: it has ended, or did so meanwhile.
        """
        self._not_here()
        with self._lock:  # what is handed over before `end` is run before it
            if self._ending:
                raise closed()
            future = asyncio.run_coroutine_threadsafe(work(), self._loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise closed() from None
        except BaseException:
            future.cancel()  # the caller was interrupted: nobody waits for the answer
            raise

    def _not_here(self) -> None:
        if self.process != os.getpid():
            raise BarewireError(
                "the thread that would answer is in the process that this one was forked from",
                hint="make another one here",
            )
        if threading.current_thread() is self._thread:
            raise BarewireError(
                "a blocking call on the thread that would have to answer it",
                hint="ask `provider.client` there: it lives on that thread's loop",
            )

    def end(self) -> None:
        """Begins to end, whatever it does now; of no effect when repeated or in a forked child."""
        if self.process != os.getpid():
            return
        with self._lock:
            if not self._ending:
                self._ending = True
                self._loop.call_soon_threadsafe(self._life.cancel)

    def join(self, timeout_s: float | None = None) -> None:
        """Waits until it has ended; its own thread cannot, and does not.

        Raises:
            Exception: what went wrong while the client was closed.
        """
        if self.process != os.getpid() or threading.current_thread() is self._thread:
            return
        self._thread.join(timeout_s)
        if self._failure is not None:
            raise self._failure


@atexit.register
def _at_exit() -> None:
    lives = list(_running)
    for life in lives:
        life.end()
    for life in lives:
        life.join(_EXIT_S)


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return cast(asyncio.AbstractEventLoop, uvloop.new_event_loop())
