"""The signer as a stage of its own, so that the key is not in the process that parses the network.

Two ways to reach the same keeper (barewire.execution.external): a Unix socket, for anyone on the
host who may open it, and a pair of lossless rings, for one process at ring speed. Both are stages:
``poll()`` does what there is to do and says whether there was anything.
"""

from __future__ import annotations

import os
import selectors
import socket
import struct
import time
from pathlib import Path

from barewire.errors import BarewireError
from barewire.execution.external import LONGEST, REFUSAL, Keeper
from dpdk_bindings.ring import (
    RingConsumer,
    RingError,
    RingFull,
    RingKind,
    RingProducer,
    RingState,
)

__all__ = ["RingExchange", "RingKeeper", "SocketExchange", "SocketKeeper"]

_LONGEST_ANSWER = 1 + REFUSAL
#: Connections at once. Those that are there stay, so that nobody's leak hangs up on the trader.
_CONNECTIONS = 64


class SocketKeeper:
    """Answers a keeper's messages on a Unix socket that keeps their boundaries (SOCK_SEQPACKET).

    Args:
        keeper: who answers.
        path: of the socket, made with mode 0600. What a dead process left there is replaced.
        user_ids: who may ask, as the kernel knows them (SO_PEERCRED); by default this user alone.
        wait_s: how long a poll waits; 0 on a core that other stages share.

    Attributes:
        turned_away: connections of other users, and beyond 64 at once.
    """

    def __init__(
        self,
        keeper: Keeper,
        path: Path,
        *,
        user_ids: frozenset[int] | None = None,
        wait_s: float = 0.0,
    ) -> None:
        self._keeper = keeper
        self._wait_s = wait_s
        self._path = path
        self._user_ids = user_ids if user_ids is not None else frozenset({os.geteuid()})
        self.turned_away = 0
        self._listener = _listen(path)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)

    def poll(self) -> int:
        """Answers what was asked, waiting up to `wait_s` for it; returns how many messages."""
        answered = 0
        for ready, _ in self._selector.select(self._wait_s):
            if ready.fileobj is self._listener:
                self._accept()
            else:
                assert isinstance(ready.fileobj, socket.socket)
                answered += self._serve(ready.fileobj)
        return answered

    def close(self) -> None:
        """Hangs up on everyone and removes the socket."""
        for key in list(self._selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._selector.close()
        self._path.unlink(missing_ok=True)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return  # it is gone again, or no descriptor is free: asked again at the next poll
        size = struct.calcsize("3i")
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        _pid, user, _group = struct.unpack("3i", credentials)
        full = len(self._selector.get_map()) > _CONNECTIONS  # the listener is one of them
        if full or user not in self._user_ids:
            self.turned_away += 1
            connection.close()
            return
        connection.setblocking(False)
        self._selector.register(connection, selectors.EVENT_READ)

    def _serve(self, connection: socket.socket) -> int:
        try:
            message, _, flags, _ = connection.recvmsg(LONGEST)
            if message and not flags & socket.MSG_TRUNC:
                connection.send(self._keeper.answer(message))
                return 1
        except OSError:
            pass  # it went away, or does not read its answers: hung up on below
        self._selector.unregister(connection)
        connection.close()
        return 0


def _is_answered(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        return probe.connect_ex(str(path)) == 0


def _listen(path: Path) -> socket.socket:
    if path.is_socket():
        if _is_answered(path):
            raise BarewireError(f"{path}: another signer listens there")
        path.unlink()  # left by one that died
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
        listener.listen()
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise BarewireError(f"{path}: {error.strerror}") from error
    finally:
        os.umask(before)
    return listener


class SocketExchange:
    """The side that asks: an exchange for ExternalSigner over a :class:`SocketKeeper`'s socket.

    Args:
        path: of the socket.
        timeout_s: how long to wait for each answer.

    Raises:
        BarewireError: nobody listens there.
    """

    def __init__(self, path: Path, *, timeout_s: float = 1.0) -> None:
        self._path = path
        self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._connection.settimeout(timeout_s)
        try:
            self._connection.connect(str(path))
        except OSError as error:
            self.close()
            raise BarewireError(
                f"no signer at {path}: {error.strerror}", hint="barewire signer --listen PATH"
            ) from error

    def __call__(self, message: bytes) -> bytes:
        """Asks, and returns the answer.

        Raises:
            BarewireError: none came. The connection is closed then: an answer that came late
                would be taken for the next one's.
        """
        try:
            self._connection.send(message)
            answer = self._connection.recv(LONGEST)
        except OSError as error:
            self.close()
            raise BarewireError(f"the signer at {self._path} does not answer: {error}") from error
        if not answer:
            self.close()
            raise BarewireError(f"the signer at {self._path} hung up")
        return answer

    def close(self) -> None:
        """Hangs up."""
        self._connection.close()


def _opened(where: str, until_mono_s: float) -> RingConsumer:
    """The other side's ring, waiting for it until `until_mono_s` (time.monotonic)."""
    while True:
        try:
            return RingConsumer.open(where, seat="signing", start="oldest", burst=1)
        except RingError as error:
            if time.monotonic() > until_mono_s:
                raise BarewireError(error.message, hint=error.hint) from error
        time.sleep(0.001)


class RingKeeper:
    """Answers a keeper's messages from one lossless ring on another.

    A question is acknowledged only when its answer is published: what a keeper that died did not
    answer is answered by its successor.

    Args:
        keeper: who answers.
        name: of the pair of rings in /dev/shm, the same on both sides.
        timeout_s: how long to wait for the side that asks.
    """

    def __init__(self, keeper: Keeper, name: str, *, timeout_s: float = 10.0) -> None:
        self._keeper = keeper
        #: The answer, to the question of this number, that found no room yet.
        self._waiting: tuple[int, bytes] | None = None
        self._answers = RingProducer.create(
            f"shm:{name}-answers", kind=RingKind.LOSSLESS, depth=64, mtu=_LONGEST_ANSWER
        )
        try:
            self._asks = _opened(f"shm:{name}-asks", time.monotonic() + timeout_s)
        except BarewireError:
            self._answers.close(RingState.FAIL)
            raise
        self._answers.say(RingState.RUN)

    def poll(self) -> int:
        """Answers at most one question; 0 if there is none, or no room for the answer yet."""
        if self._waiting is None:
            if not self._asks.poll():
                return 0
            message = self._asks.records.copy(0)
            answer = self._keeper.answer(message)
            self._waiting = int(self._asks.records[0].seq), answer
        number, answer = self._waiting
        try:
            self._answers.publish(answer, user=number)
        except RingFull:
            return 0
        self._asks.acknowledge()
        self._waiting = None
        return 1

    def close(self) -> None:
        """Leaves both rings in good order."""
        self._asks.close()
        self._answers.close()


class RingExchange:
    """The side that asks: an exchange for ExternalSigner over the rings of a :class:`RingKeeper`.

    Spins while it waits for an answer.

    Args:
        name: of the pair of rings in /dev/shm, the same on both sides.
        timeout_s: how long to wait for the keeper, and then for each of its answers.
    """

    def __init__(self, name: str, *, timeout_s: float = 10.0) -> None:
        self._name, self._timeout_s = name, timeout_s
        self._asks = RingProducer.create(
            f"shm:{name}-asks", kind=RingKind.LOSSLESS, depth=64, mtu=LONGEST
        )
        try:
            self._answers = _opened(f"shm:{name}-answers", time.monotonic() + timeout_s)
        except BarewireError:
            self._asks.close(RingState.FAIL)
            raise
        self._asks.say(RingState.RUN)

    def __call__(self, message: bytes) -> bytes:
        """Asks, and returns the answer.

        Raises:
            BarewireError: none came in time, or there is no room to ask.
        """
        try:
            number = self._asks.publish(message)
        except (RingFull, ValueError) as error:
            raise BarewireError(f"cannot ask the signer {self._name}: {error}") from error
        until = time.monotonic() + self._timeout_s
        while time.monotonic() < until:
            if not self._answers.poll():
                continue
            mine = self._answers.records[0].user == number
            answer = self._answers.records.copy(0)
            self._answers.acknowledge()
            if mine:  # and not one that came too late for who asked
                return answer
        raise BarewireError(f"the signer {self._name} did not answer in {self._timeout_s:g} s")

    def close(self) -> None:
        """Leaves both rings in good order."""
        self._asks.close()
        self._answers.close()
