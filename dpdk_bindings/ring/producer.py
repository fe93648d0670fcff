"""The side of a ring that publishes."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import Any, Self

from dpdk_bindings._native import ffi, lib
from dpdk_bindings.ring.errors import RingError, RingFull
from dpdk_bindings.ring.files import check, granule, open_ring, ring_path
from dpdk_bindings.ring.mapped import MappedRing, RingKind, RingState, Seat

__all__ = ["RingProducer"]

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class RingProducer(MappedRing):
    """The one who publishes. Belongs to one thread."""

    def __init__(self, handle: Any, where: str | int, predecessor: RingState | None) -> None:
        """Wraps a native handle; use :meth:`create` or :meth:`open`."""
        super().__init__(handle, where)
        #: What the last producer left: RUN or BOOT says that it died; None: this is the first.
        self.predecessor = predecessor

    @classmethod
    def create(
        cls,
        where: str,
        *,
        kind: RingKind,
        depth: int,
        mtu: int,
        payload_bytes: int | None = None,
    ) -> Self:
        """Creates a ring, mode 0600, and becomes its producer.

        A ring of this geometry that is there already is gone on with, and what it holds is kept.

        Args:
            where: see the module.
            kind: lossy or lossless.
            depth: records it holds at most; a power of two.
            mtu: payload bytes of one record at most.
            payload_bytes: payload bytes of all records at most; a power of two, twice the mtu or
                more. Unless given: 256 bytes a record, and four records of `mtu`.

        Raises:
            RingError: a ring of another geometry is there; it has a living producer; no memory.
        """
        if payload_bytes is None:
            payload_bytes = 1 << (max(depth * 256, mtu * 4, 4096) - 1).bit_length()
        wanted = {"kind": int(kind), "depth": depth, "mtu": mtu, "payload_bytes": payload_bytes}
        path = ring_path(where)
        if path is None:
            fd = os.memfd_create(f"dpb-{where[6:]}.ring", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            try:
                os.fchmod(fd, 0o600)
                cls._format(fd, where, wanted)
                fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
                return cls.open(fd)
            finally:
                os.close(fd)
        try:
            fd = os.open(path.parent, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise RingError(
                f"ring {where}: no file can be made in {path.parent}: {error.strerror}",
                hint="name an existing folder of a tmpfs or hugetlbfs that you may write to",
            ) from error
        try:
            cls._format(fd, where, wanted)
            # Appears whole or not at all. (With a src_dir_fd os.link() follows the symbolic link.)
            os.link(f"/proc/self/fd/{fd}", path, src_dir_fd=fd, follow_symlinks=True)
        except FileExistsError:
            there = cls._geometry(where)
            if there != wanted:
                differs = ", ".join(
                    f"{key} {there[key]} instead of {wanted[key]}"
                    for key in wanted
                    if there[key] != wanted[key]
                )
                raise RingError(
                    f"ring {where}: there is one already, with {differs}",
                    hint="if nobody needs what is in it: remove_ring()",
                ) from None
        finally:
            os.close(fd)
        return cls.open(where)

    @staticmethod
    def _format(fd: int, where: str, wanted: dict[str, int]) -> None:
        why = ffi.new("char[]", lib.DPB_RING_WHY)
        try:
            geometry: Any = ffi.new("struct dpb_ring_geometry *", wanted)
        except OverflowError as error:
            raise RingError(f"ring {where}: {error}") from error
        geometry.granule = granule(fd, where)
        check(lib.dpb_ring_format(fd, geometry, why), where, why)

    @staticmethod
    def _geometry(where: str) -> dict[str, int]:
        fd = open_ring(where, os.O_RDONLY)
        try:
            why = ffi.new("char[]", lib.DPB_RING_WHY)
            found: Any = ffi.new("struct dpb_ring_geometry *")
            check(lib.dpb_ring_inspect(fd, found, why), where, why)
        finally:
            os.close(fd)
        return {
            "kind": found.kind,
            "depth": found.depth,
            "mtu": found.mtu,
            "payload_bytes": found.payload_bytes,
        }

    @classmethod
    def open(cls, where: str | int) -> Self:
        """Becomes the producer of a ring that is there, behind its last whole record.

        Raises:
            RingError: no ring, a damaged one, or one whose producer lives.
        """
        why = ffi.new("char[]", lib.DPB_RING_WHY)
        handle = ffi.new("struct dpb_ring_tx **")
        previous = ffi.new("uint32_t *")
        fd = open_ring(where, os.O_RDWR)
        check(lib.dpb_ring_tx_open(fd, handle, previous, why), where, why)
        return cls(handle[0], where, RingState.of(previous[0]))

    def say(self, state: RingState) -> None:
        """Tells the consumers: RUN once publishing, FAIL where this producer gives up."""
        lib.dpb_ring_tx_state(self.handle, state)

    def beat(self) -> None:
        """Says that this producer lives; call it as housekeeping."""
        lib.dpb_ring_heartbeat(self.handle, ffi.NULL)

    def publish(self, payload: bytes, *, filter_word: int = 0, kind: int = 0, user: int = 0) -> int:
        """Publishes one record.

        Args:
            payload: at most :attr:`mtu` bytes (any contiguous buffer).
            filter_word: 64 bits that a consumer may choose by.
            kind: 16 bits, the producer's record type.
            user: 64 bits, the producer's own.

        Returns:
            Its sequence number: from here on a lossless ring keeps it until every seat has
            acknowledged it, whoever dies.

        Raises:
            RingFull: a lossless ring has no room. Nothing was published.
            ValueError: the payload is longer than the ring's mtu.
        """
        data = payload if type(payload) is bytes else ffi.from_buffer(payload)
        seq = lib.dpb_ring_publish(self._handle, data, len(data), filter_word, kind, user)
        if seq > 0:
            return seq
        if seq == -errno.EAGAIN:
            raise self._full()
        raise self._too_long(len(data))

    def publish_burst(self, records: Any, count: int) -> int:
        """Publishes ``records[0:count]``, a packed array of ``struct dpb_record``, in one call.

        Returns:
            How many were published: on a lossless ring those that found room, the first ones.

        Raises:
            ValueError: the first payload is longer than the ring's mtu.
        """
        done = lib.dpb_ring_publish_burst(self._handle, records, count)
        if done < 0:
            raise self._too_long(records[0].len)
        return done

    def _too_long(self, length: int) -> ValueError:
        return ValueError(f"{length} bytes of payload, and the ring's mtu is {self.mtu}")

    def _full(self) -> RingFull:
        seats = sorted(self.seats(), key=lambda seat: seat.acked)
        if not seats:
            return RingFull(f"ring {self._where}: full, and nobody reads it")
        slowest = seats[0]
        fate = "lives" if slowest.alive else "is gone"
        return RingFull(
            f'ring {self._where}: full; seat "{slowest.name}" is {slowest.behind} records behind, '
            f"and process {slowest.pid} {fate}",
            hint="" if slowest.alive else "start its successor, or evict() the seat",
        )

    def dead_seats(self) -> list[Seat]:
        """Seats whose consumer is gone; their records are kept until a successor or evict()."""
        return [seat for seat in self.seats() if not seat.alive]

    def evict(self, name: str) -> None:
        """Frees the seat of a consumer that is gone, and the records kept for it alone.

        Raises:
            RingError: no seat has this name, or its consumer lives.
        """
        for index, seat in self.numbered_seats():
            if seat.name == name:
                result = lib.dpb_ring_evict(self.handle, index, name.encode())
                if result == -errno.EBUSY:
                    raise RingError(
                        f'ring {self._where}: seat "{name}" is taken, by process {seat.pid}, '
                        "which lives",
                        hint="only the seats of the dead can be evicted",
                    )
                if result == 0:
                    return
        raise RingError(f'ring {self._where}: no seat is called "{name}"')

    def close(self, state: RingState = RingState.HALT) -> None:
        """Leaves in good order. The ring and what is in it stay."""
        if self._handle:
            lib.dpb_ring_tx_close(self._handle, state)
            self._handle = ffi.NULL
