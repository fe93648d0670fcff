"""Datagrams and the native part of an endpoint, written in C (python/datagram.c)."""

from collections.abc import Iterator
from types import TracebackType

from typing_extensions import Buffer, Self

from typing_extensions import Buffer

class Datagrams:
    """Payloads borrowed from an endpoint, until `release()`. The rules are those of a port's Burst.

    ``burst[i]`` is a read-only memoryview of payload `i`, without a copy. ``memoryview(burst)`` is
    the packed descriptors (``struct dpb_datagram``), 64 bytes a datagram.

    While any such view, or a slice of one, is alive, `release()` raises BufferError; after it,
    everything raises Released. A burst dropped without `release()` is counted as leaked and
    given back at the endpoint's next `recv()`. Used as a context manager it releases at the end.
    """

    def release(self) -> None:
        """Gives all datagrams back.

        Raises:
            BufferError: a view of this burst is alive.
            Released: it was released already.
        """

    def channel(self, index: int, /) -> int:
        """Number of the channel that datagram `index` came to."""

    def arrival_ns(self, index: int, /) -> int:
        """When datagram `index` arrived, in nanoseconds of `clock(index)`."""

    def clock(self, index: int, /) -> int:
        """Which clock that is: a value of ``enum dpb_clock`` (frame.h)."""

    def source(self, index: int, /) -> tuple[bytes, int]:
        """Sender of datagram `index`: address in network order (4 or 16 bytes) and port."""

    @property
    def address(self) -> int:
        """Where the descriptors are, for a native function called before release(); 0 if empty."""

    @property
    def released(self) -> bool:
        """Whether `release()` was called."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> memoryview: ...
    def __iter__(self) -> Iterator[memoryview]: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None: ...

class NativeEndpoint:
    """The part of an endpoint that is the same for every backend: its function table, from C.

    Args:
        ref: address of a ``struct dpb_datagram_ref``, read once.
        owner: an object that keeps alive what it points to.
        burst: the most datagrams that one `recv()` gives.
    """

    def __init__(self, ref: int, owner: object, burst: int = 64) -> None: ...
    def recv(self) -> Datagrams:
        """Datagrams that have arrived, possibly none. Never blocks.

        An empty burst need not be released.

        Raises:
            BindingsError: the endpoint was closed.
            OSError: the port below is gone.
        """

    def send(self, peer: int, payload: Buffer, /) -> bool:
        """Queues a copy of `payload` to peer number `peer`; `flush()` makes it leave.

        Returns:
            False if there was no room, no route yet, or too much for one datagram; ``stats()``
            says which.

        Raises:
            ValueError: no such peer, or an empty payload.
        """

    def flush(self) -> bool:
        """Sends what was queued; True if all of it left.

        What finds no room below stays queued for a later flush and is counted as tx_blocked. What
        is refused (the link went down, no route, too long) is dropped and counted by its cause: it
        never leaves.

        Raises:
            OSError: a capture cannot be written to.
        """

    def withdraw(self) -> int:
        """Takes back what was queued and has not left: it never leaves; returns how many.

        For what must leave at once or not at all, where :meth:`flush` has said False. With them
        are counted those that were refused since flush() last told of any.
        """

    def _end(self) -> None: ...
    _peers: int
    @property
    def leaked(self) -> int:
        """Datagrams of bursts that were dropped without release."""

    @property
    def closed(self) -> bool:
        """Whether the endpoint was closed."""
