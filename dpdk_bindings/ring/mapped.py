"""What producers and consumers share: a mapped ring, and who is alive on it."""

from __future__ import annotations

import enum
import os
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from dpdk_bindings._native import ffi, lib
from dpdk_bindings.ring.errors import RingError
from dpdk_bindings.ring.files import check, open_ring, text

__all__ = ["MappedRing", "ProducerStatus", "RingKind", "RingState", "Seat", "look"]


class RingKind(enum.IntEnum):
    """What happens when a consumer does not keep up."""

    LOSSY = lib.DPB_RING_LOSSY
    LOSSLESS = lib.DPB_RING_LOSSLESS


class RingState(enum.IntEnum):
    """What a producer says of itself."""

    BOOT = lib.DPB_RING_BOOT
    RUN = lib.DPB_RING_RUN
    HALT = lib.DPB_RING_HALT
    FAIL = lib.DPB_RING_FAIL

    @classmethod
    def of(cls, word: int) -> RingState | None:
        """The state that `word` stands for; None where it is none of them."""
        return cls(word) if word in tuple(cls) else None


@dataclass(frozen=True)
class ProducerStatus:
    """A ring's producer, seen from outside.

    Attributes:
        state: what it last said; None before the first producer.
        alive: whether the kernel still sees it holding its lock.
        pid: of the last producer, in its own process namespace.
        epoch: how many producers the ring has had; grows when one was replaced.
        heartbeat_age_ns: CLOCK_MONOTONIC since it last beat.
        head: sequence number of the newest record; 0 before the first.
        oldest: sequence number of the oldest record still to be had.
        refused: records refused because a lossless ring was full.
    """

    state: RingState | None
    alive: bool
    pid: int
    epoch: int
    heartbeat_age_ns: int
    head: int
    oldest: int
    refused: int

    @property
    def died(self) -> bool:
        """Whether it went without saying so."""
        return not self.alive and self.state in (RingState.BOOT, RingState.RUN)


@dataclass(frozen=True)
class Seat:
    """One consumer's place on a lossless ring.

    Attributes:
        name: the seat's name.
        acked: the last record it acknowledged; what comes after is kept for it.
        behind: published records it has not acknowledged.
        alive: whether someone sits in it now. Where not, its records are still kept.
        pid: of who sits or last sat in it.
        heartbeat_age_ns: CLOCK_MONOTONIC since it last beat.
    """

    name: str
    acked: int
    behind: int
    alive: bool
    pid: int
    heartbeat_age_ns: int


def _age_ns(then: int) -> int:
    return time.monotonic_ns() - then


def _producer(raw: Any) -> ProducerStatus:
    return ProducerStatus(
        state=RingState.of(raw.state),
        alive=bool(raw.alive),
        pid=raw.pid,
        epoch=raw.epoch,
        heartbeat_age_ns=_age_ns(raw.heartbeat_mono_ns),
        head=raw.head,
        oldest=raw.oldest,
        refused=raw.refused,
    )


def _seat(raw: Any, head: int) -> Seat:
    return Seat(
        name=text(raw.name),
        acked=raw.acked,
        behind=max(0, head - raw.acked),
        alive=bool(raw.alive),
        pid=raw.pid,
        heartbeat_age_ns=_age_ns(raw.heartbeat_mono_ns),
    )


def look(where: str | int) -> tuple[ProducerStatus, list[Seat]]:
    """The producer and the seats of a ring, without taking part in it.

    Raises:
        RingError: no ring, or a damaged one.
    """
    why = ffi.new("char[]", lib.DPB_RING_WHY)
    status: Any = ffi.new("struct dpb_ring_status *")
    seats: Any = ffi.new("struct dpb_ring_seat_status[]", lib.DPB_RING_SEATS)
    count = lib.dpb_ring_look(open_ring(where, os.O_RDONLY), status, seats, why)
    check(count, where, why)
    return _producer(status), [_seat(seats[i], status.head) for i in range(count)]


class MappedRing:
    """What producers and consumers share: a handle, its name, and how it ends."""

    def __init__(self, handle: Any, where: str | int) -> None:
        self._handle = handle
        self._where = where

    @property
    def handle(self) -> Any:
        """The native handle, for a loop in C; valid until :meth:`close`."""
        if not self._handle:
            raise RingError(f"ring {self._where}: closed")
        return self._handle

    @property
    def fd(self) -> int:
        """The file descriptor; hand it to another process to attach to a memfd ring."""
        return int(self.handle.ring.fd)

    @property
    def kind(self) -> RingKind:
        """Lossy or lossless."""
        return RingKind(self.handle.ring.geometry.kind)

    @property
    def depth(self) -> int:
        """Records it holds at most."""
        return int(self.handle.ring.geometry.depth)

    @property
    def mtu(self) -> int:
        """Payload bytes of one record at most."""
        return int(self.handle.ring.geometry.mtu)

    @property
    def payload_bytes(self) -> int:
        """Payload bytes of all records at most."""
        return int(self.handle.ring.geometry.payload_bytes)

    def producer_status(self) -> ProducerStatus:
        """Who produces, and whether it lives (one system call)."""
        raw: Any = ffi.new("struct dpb_ring_status *")
        lib.dpb_ring_status(ffi.addressof(self.handle, "ring"), raw)
        return _producer(raw)

    def seats(self) -> list[Seat]:
        """The seats of a lossless ring that are taken (one system call each)."""
        return [seat for _, seat in self.numbered_seats()]

    def numbered_seats(self) -> list[tuple[int, Seat]]:
        """:meth:`seats`, each with its place in the ring's table."""
        raw: Any = ffi.new("struct dpb_ring_seat_status[]", lib.DPB_RING_SEATS)
        count = lib.dpb_ring_seats(ffi.addressof(self.handle, "ring"), raw)
        head = int(self.handle.ring.header.head)
        return [(raw[i].seat, _seat(raw[i], head)) for i in range(count)]

    def close(self) -> None:
        """Detaches from the ring."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
