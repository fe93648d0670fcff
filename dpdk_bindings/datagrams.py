"""A burst of datagrams, borrowed from the endpoint that received them.

The payloads stay where the kernel or the NIC put them until the burst is released; from then on
the burst raises :class:`~dpdk_bindings.errors.Released` instead of showing what came later into
the same memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from types import TracebackType
from typing import TYPE_CHECKING, Any

from dpdk_bindings._native import ffi, lib
from dpdk_bindings.errors import Released

if TYPE_CHECKING:
    from dpdk_bindings.datagram import DatagramEndpoint

__all__ = ["CLOCKS", "Datagrams"]

CLOCKS = {
    lib.DPB_CLOCK_NONE: "none",
    lib.DPB_CLOCK_MONO: "mono",
    lib.DPB_CLOCK_PHC: "phc",
    lib.DPB_CLOCK_CAPTURE: "capture",
    lib.DPB_CLOCK_REAL: "real",
}
"""Names of ``enum dpb_clock``. Times of two clocks are never subtracted."""


class Datagrams:
    """What one ``recv()`` brought: a sequence of payloads, true when there is one.

    Iteration and ``burst[i]`` give copies (``bytes``), which outlive the burst. :meth:`view` gives
    the payload in place. ``descriptors`` hands the packed array to native code, which is the fast
    way to go over a burst. Release it once, by :meth:`release` or by ``with``.
    """

    __slots__ = ("_array", "_endpoint", "_n", "_views")

    def __init__(self, endpoint: DatagramEndpoint, array: Any, n: int) -> None:
        self._endpoint = endpoint
        self._array = array
        self._n = n
        self._views: list[memoryview] | None = None

    @property
    def descriptors(self) -> Any:
        """``struct dpb_datagram *`` to ``len(self)`` descriptors."""
        if self._array is None:
            raise Released("this burst was released")
        return self._array

    def __len__(self) -> int:
        if self._array is None:
            raise Released("this burst was released")
        return self._n

    def __getitem__(self, i: int) -> bytes:
        datagram = self._at(i)
        return bytes(ffi.buffer(datagram.data, datagram.len))

    def __iter__(self) -> Iterator[bytes]:
        for i in range(len(self)):
            yield self[i]

    def view(self, i: int) -> memoryview:
        """Payload `i` in place, read only; it raises once the burst is released.

        Slices taken of it are Python's own: they stay readable, and show whatever comes later.
        """
        datagram = self._at(i)
        view = self._endpoint.payload_view(ffi.addressof(datagram))
        if self._views is None:
            self._views = []
        self._views.append(view)
        return view

    def channel(self, i: int) -> int:
        """Number of the channel that datagram `i` came to."""
        return self._at(i).channel  # type: ignore[no-any-return]

    def source(self, i: int) -> tuple[str, int]:
        """Address and port of the sender of datagram `i`."""
        datagram = self._at(i)
        raw = bytes(ffi.buffer(datagram.source))
        address = IPv4Address(raw[:4]) if datagram.family == 4 else IPv6Address(raw)
        return str(address), datagram.source_port

    def arrival_ns(self, i: int) -> int:
        """Arrival time of datagram `i`, of the clock that :meth:`clock` names."""
        return self._at(i).arrival_ns  # type: ignore[no-any-return]

    def clock(self, i: int) -> str:
        """Name of the clock that the arrival of datagram `i` was read from."""
        return CLOCKS[self._at(i).clock]

    def release(self) -> None:
        """Gives every datagram back.

        Raises:
            Released: it was released before.
            BufferError: another object (a numpy array, say) still uses a :meth:`view`; nothing
                was released.
        """
        array = self._array
        if array is None:
            raise Released("this burst was released before")
        if not self._n:
            return
        if self._views is not None:
            for view in self._views:
                view.release()
        self._array = None
        self._endpoint.take_back(array, self._n)

    def __enter__(self) -> Datagrams:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._array is not None:
            self.release()

    def __del__(self) -> None:
        if self._array is not None and self._n:
            self._endpoint.leaked += self._n
            self.release()

    def _at(self, i: int) -> Any:
        if self._array is None:
            raise Released("this burst was released")
        if not -self._n <= i < self._n:
            raise IndexError(f"datagram {i} of a burst of {self._n}")
        return self._array[i if i >= 0 else i + self._n]
