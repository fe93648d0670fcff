"""The side of a ring that reads."""

from __future__ import annotations

import os
from pickle import PickleBuffer
from typing import Any, Literal, Self

from dpdk_bindings._native import ffi, lib
from dpdk_bindings.ring.errors import RingError
from dpdk_bindings.ring.files import check, open_ring
from dpdk_bindings.ring.mapped import MappedRing

__all__ = ["Records", "RingConsumer"]


class Records:
    """The records of the last :meth:`RingConsumer.poll`, borrowed: see :meth:`payload`.

    The packed array itself is :attr:`array` (``struct dpb_record[]``) for native code; nothing
    here needs to touch its elements one by one.
    """

    __slots__ = ("array", "capacity", "count", "lent")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.array: Any = ffi.new("struct dpb_record[]", capacity)
        self.count = 0
        self.lent: list[tuple[memoryview, memoryview]] = []

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        """The `index`-th record (``struct dpb_record``): seq, filter, len, kind, user, times."""
        if not 0 <= index < self.count:
            raise IndexError(f"record {index} of {self.count}")
        return self.array[index]

    def payload(self, index: int) -> memoryview:
        """The payload where it lies. Released by the next poll(), acknowledge() or close().

        They are refused with BufferError while a slice of it lives.
        """
        record = self[index]
        lent = memoryview(ffi.buffer(record.data, record.len)).toreadonly()
        # Through a PickleBuffer, because a view of a view would not be counted in `lent`, and what
        # was sliced out of it would outlive the memory that it shows.
        view = memoryview(PickleBuffer(lent))
        self.lent.append((lent, view))
        return view

    def copy(self, index: int) -> bytes:
        """The payload as bytes of one's own."""
        record = self[index]
        return bytes(ffi.buffer(record.data, record.len))

    def checksum(self) -> int:
        """Sum of all payloads as little-endian 64-bit words, and of the lengths, modulo 2^64."""
        return int(lib.dpb_records_sum(self.array, self.count))

    def release(self) -> None:
        """Ends the loan: views handed out raise ValueError from here on.

        Raises:
            BufferError: what was made of one is still there; the loan goes on.
        """
        while self.lent:
            lent, view = self.lent[-1]
            try:
                view.release()
                lent.release()
            except BufferError:
                raise BufferError(
                    "what was made of a payload is alive; delete it, or copy: bytes(view)"
                ) from None
            self.lent.pop()
        self.count = 0


class RingConsumer(MappedRing):
    """One who reads. Belongs to one thread.

    Attributes:
        records: what the last :meth:`poll` gave.
        predecessor_pid: lossless: who sat in this seat before; 0 where the seat is new.
    """

    def __init__(self, handle: Any, where: str | int, burst: int, predecessor_pid: int) -> None:
        """Wraps a native handle; use :meth:`open`."""
        super().__init__(handle, where)
        self.records = Records(burst)
        self.predecessor_pid = predecessor_pid
        self._array = self.records.array
        self._burst = burst

    @classmethod
    def open(
        cls,
        where: str | int,
        *,
        seat: str = "",
        start: Literal["next", "oldest"] = "next",
        burst: int = 64,
    ) -> Self:
        """Attaches to a ring.

        Args:
            where: see the module, or the file descriptor of a memfd ring.
            seat: lossless rings: whose acknowledgements these are (1 to 39 bytes). A seat that
                exists and is empty is taken over behind its last acknowledged record.
            start: where a lossy consumer or a new seat begins.
            burst: records a :meth:`poll` gives at most.

        Raises:
            RingError: no ring, a damaged one, or a seat whose holder lives.
        """
        # A lossy ring is opened and mapped for reading alone.
        fd = open_ring(where, os.O_RDWR if seat else os.O_RDONLY)
        why = ffi.new("char[]", lib.DPB_RING_WHY)
        handle = ffi.new("struct dpb_ring_rx **")
        previous = ffi.new("int32_t *")
        begin = lib.DPB_RING_NEXT if start == "next" else lib.DPB_RING_OLDEST
        check(lib.dpb_ring_rx_open(fd, seat.encode(), begin, handle, previous, why), where, why)
        return cls(handle[0], where, burst, previous[0])

    def choose(self, mask: int, want: int) -> None:
        """From now on only records with ``filter & mask == want`` are given; 0, 0: all.

        The payload of the others is not touched.
        """
        self.handle.mask = mask
        self.handle.want = want

    def poll(self) -> int:
        """Takes what has been published, up to the burst, into :attr:`records`.

        Returns:
            How many; 0 when there is nothing new.

        Raises:
            RingError: the ring's memory holds what no producer writes.
            BufferError: a slice of a payload is still in use; nothing was taken.
        """
        records = self.records
        if records.lent:
            records.release()
        count = lib.dpb_ring_poll(self._handle, self._array, self._burst)
        if count < 0:
            records.count = 0
            raise RingError(
                f"ring {self._where}: damaged at record {self.next}",
                hint="what was acknowledged before is not affected",
            )
        records.count = count
        return count

    def acknowledge(self, through: int | None = None) -> None:
        """Lossless: needs nothing up to record `through` any more; None: all that was polled.

        Where :meth:`choose` passes over records this is also how they are given back: call it
        when poll() gave nothing, too.
        """
        if self.handle.seat < 0:
            raise RingError(f"ring {self._where}: lossy, and nothing on it is acknowledged")
        self.records.release()
        lib.dpb_ring_acknowledge(self._handle, (1 << 64) - 1 if through is None else through)

    def beat(self) -> None:
        """Says that this consumer lives; call it as housekeeping."""
        lib.dpb_ring_heartbeat(ffi.NULL, self.handle)

    @property
    def next(self) -> int:
        """Sequence number of the record that comes next."""
        return int(self.handle.next)

    @property
    def overruns(self) -> int:
        """Lossy: records that were overwritten before they were read."""
        return int(self.handle.overruns)

    @property
    def passed(self) -> int:
        """Records that :meth:`choose` passed over."""
        return int(self.handle.passed)

    @property
    def corrupt(self) -> int:
        """Lossy: records that made no sense."""
        return int(self.handle.corrupt)

    def close(self, *, leave: bool = False) -> None:
        """Detaches. A seat keeps its unacknowledged records for a successor unless `leave`.

        Raises:
            BufferError: a slice of a payload is still in use; nothing was closed.
        """
        if self._handle:
            self.records.release()
            lib.dpb_ring_rx_close(self._handle, leave)
            self._handle = ffi.NULL
