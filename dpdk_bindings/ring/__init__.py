"""Rings in shared memory: one producer, any number of consumers, in any processes.

A *lossy* ring carries what is worth nothing late: its producer never waits, and a consumer that was
too slow counts what it missed. A *lossless* ring carries what must not be dropped: it keeps a
record until every seat has acknowledged it, and refuses new ones when it is full. What exactly
is promised, to whom, and why it holds stands at the head of ``include/dpdk_bindings/ring.h``; a
native loop uses the inline functions there on the handles that :attr:`RingProducer.handle` and
:attr:`RingConsumer.handle` give.

Where a ring lives is written as

========================  ====================================================================
``shm:journal``           ``/dev/shm/dpb-journal.ring``; survives the processes, not a reboot
``huge:journal``          the same in the first mounted hugetlbfs
``/run/x/journal.ring``   any path on a tmpfs or hugetlbfs; a ring never lies on a disk
``memfd:journal``         no name in any file system; others attach by its file descriptor
========================  ====================================================================
"""

from __future__ import annotations

from dpdk_bindings.ring.consumer import Records, RingConsumer
from dpdk_bindings.ring.errors import RingError, RingFull
from dpdk_bindings.ring.files import remove_ring
from dpdk_bindings.ring.mapped import ProducerStatus, RingKind, RingState, Seat, look
from dpdk_bindings.ring.outbox import Outbox
from dpdk_bindings.ring.producer import RingProducer

__all__ = [
    "Outbox",
    "ProducerStatus",
    "Records",
    "RingConsumer",
    "RingError",
    "RingFull",
    "RingKind",
    "RingProducer",
    "RingState",
    "Seat",
    "look",
    "remove_ring",
]
