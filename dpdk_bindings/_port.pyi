"""Port and Burst, written in C (python/port.c): the fast path of a port, and frame ownership."""

from collections.abc import Iterator
from types import TracebackType

from typing_extensions import Buffer, Self

class Burst:
    """Frames borrowed from a Port, until `release()`.

    ``burst[i]`` is a read-only memoryview of frame `i`, from the first byte of its Ethernet header,
    without a copy. ``memoryview(burst)`` and ``numpy.frombuffer(burst, dtype=frame_dtype())`` are
    the packed descriptors (``struct dpb_frame``), 32 bytes a frame.

    While any such view, or a slice of one, is alive, `release()` raises BufferError; after it,
    everything raises Released. A burst dropped without `release()` is counted as leaked and
    given back at the port's next `poll()`. Used as a context manager it releases at the end.
    """

    def release(self) -> None:
        """Gives all frames back.

        Raises:
            BufferError: a view of this burst is alive.
            Released: it was released already.
        """

    def arrival_ns(self, index: int, /) -> int:
        """When frame `index` arrived, in nanoseconds of `clock(index)`."""

    def clock(self, index: int, /) -> int:
        """Which clock that is: a value of ``enum dpb_clock``."""

    def flow(self, index: int, /) -> int:
        """The number of the flow it matched, or `FLOW_NONE`."""

    def queue(self, index: int, /) -> int:
        """The receive queue it came on."""

    def flags(self, index: int, /) -> int:
        """A sum of the ``DPB_FRAME_`` flags of frame.h."""

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

class NativePort:
    """The part of a port that is the same for every backend: its function table, called from C.

    Args:
        ops: address of the backend's ``struct dpb_port_ops``.
        port: address of the backend's port, the first argument of every function in it.
        owner: an object that keeps that port's memory; held as long as a frame is borrowed.
        burst: the most frames that one `poll()` gives.
    """

    def __init__(self, ops: int, port: int, owner: object, burst: int = 64) -> None: ...
    def poll(self) -> Burst:
        """Frames that have arrived, possibly none. Never blocks.

        An empty burst need not be released.
        """

    def send(self, frame: Buffer, /) -> bool:
        """Copies a whole Ethernet frame into the transmit ring; `flush()` makes it leave.

        Returns:
            False if there was no room, or it is longer than the port sends (counted).
        """

    def flush(self) -> bool:
        """Sends what was queued; True if all of it left.

        What finds no room stays queued, and is tried again by the next `poll()` or `flush()`. What
        is queued when the link is found down, or thrown away by the driver, never leaves
        (``tx_withdrawn``, ``tx_dropped``).

        Raises:
            OSError: a capture cannot be written to.
        """

    def ref(self) -> tuple[int, int]:
        """The addresses of ``struct dpb_port_ref``: function table and port, for native loops."""

    def _end(self) -> None: ...
    @property
    def leaked(self) -> int:
        """Frames of bursts that were dropped without release."""

    @property
    def closed(self) -> bool:
        """Whether the port was closed."""
