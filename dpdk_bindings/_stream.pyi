"""The native part of stream endpoints and connections, written in C (python/stream.c)."""

from typing_extensions import Buffer

class NativeStream:
    """One connection by its function table. Belongs to its endpoint's thread.

    Args:
        ref: address of the endpoint's ``struct dpb_stream_ref``, read once.
        stream: address of the ``struct dpb_stream``.
        owner: an object that keeps alive what both point to.
    """

    def __init__(self, ref: int, stream: int, owner: object) -> None: ...
    def recv_into(self, buffer: Buffer, offset: int = 0, /) -> int:
        """Puts bytes that have come into `buffer`, from `offset` on. Never blocks.

        Returns:
            how many; 0: none now; -1: no more will come, and `state` says why. What came before
            the end or the failure is given out first.

        Raises:
            BindingsError: the connection was closed here.
            ValueError: no room behind the offset.
        """

    def send(self, data: Buffer, offset: int = 0, /) -> int:
        """Takes bytes of `data`, from `offset` on, and sends them now.

        Returns:
            how many it took: fewer than there are, or 0, where there is no more room (the peer
            does not read, or the connection is still being made); -1: the connection has failed.

        Raises:
            BindingsError: the connection was closed here, or its sending side was.
        """

    def shutdown(self) -> bool:
        """Ends this side behind what `send()` took (FIN); receiving goes on. False: not connected."""

    def _end(self) -> None: ...
    @property
    def readable(self) -> int:
        """0: recv_into() has nothing; else it may have bytes, or news of the state."""

    @property
    def arrival_ns(self) -> int:
        """When the last byte given out came, in nanoseconds of `clock`."""

    @property
    def clock(self) -> int:
        """Which clock that is: a value of ``enum dpb_clock`` (frame.h)."""

    @property
    def rx_bytes(self) -> int:
        """Bytes given out."""

    @property
    def tx_bytes(self) -> int:
        """Bytes taken for sending."""

    @property
    def error(self) -> int:
        """The errno of a connection that failed; else 0."""

    @property
    def closed(self) -> bool:
        """Whether it was closed here."""

    @property
    def address(self) -> int:
        """Address of the ``struct dpb_stream``, for native loops; valid until closed."""

    @property
    def _state(self) -> int: ...

class NativeStreams:
    """An endpoint by its function table.

    Args:
        ref: address of a ``struct dpb_stream_ref``, read once.
        owner: an object that keeps alive what it points to.
    """

    def __init__(self, ref: int, owner: object) -> None: ...
    def poll(self) -> int:
        """One turn: frames, timers, connections being made. Never blocks.

        Returns:
            how many connections are readable.

        Raises:
            BindingsError: the endpoint was closed.
            OSError: the port below is gone.
        """

    def _end(self) -> None: ...
    @property
    def closed(self) -> bool:
        """Whether the endpoint was closed."""
