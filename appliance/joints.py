"""What joins one core of an appliance to the others: rings, and the numbers of the peers."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from appliance.config import Core
from dpdk_bindings.ring import RingConsumer, RingKind, RingProducer

__all__ = ["Joints", "RingFds", "create_rings"]

_MTU = (1 << 20) + 4096  # the longest envelope, and what goes in front of it
_DEPTH, _BYTES = 8192, 8 << 20
_OUTBOX_MTU = 65507
_SEAT = "sender"


def _drawn() -> int:
    """Not a process id: those of two process namespaces may be the same."""
    return secrets.randbits(53)  # what JSON's readers keep whole


@dataclass(frozen=True, slots=True)
class RingFds:
    """File descriptors of the rings of one appliance, which its processes inherit.

    Attributes:
        between: one lossy ring for each core but the last, to the next core.
        outboxes: one lossless ring for each core but the first, to the first.
        appliance: as :attr:`Joints.appliance`.
    """

    between: list[int]
    outboxes: list[int]
    appliance: int = field(default_factory=_drawn)

    def close(self) -> None:
        """Lets them go; who has a ring open keeps it."""
        for fd in self.between + self.outboxes:
            os.close(fd)


def create_rings(cores: Sequence[Core]) -> RingFds:
    """The rings that `cores` meet at; nobody is at either end of them yet."""
    between = [
        _left(
            RingProducer.create(
                f"memfd:{left.name}-{right.name}",
                kind=RingKind.LOSSY,
                depth=_DEPTH,
                mtu=_MTU,
                payload_bytes=_BYTES,
            )
        )
        for left, right in pairwise(cores)
    ]
    outboxes = []
    for core in cores[1:]:
        ring = RingProducer.create(
            f"memfd:{core.name}-outbox", kind=RingKind.LOSSLESS, depth=1024, mtu=_OUTBOX_MTU
        )
        RingConsumer.open(ring.fd, seat=_SEAT).close()  # from now on the ring keeps what is sent
        outboxes.append(_left(ring))
    return RingFds(between, outboxes)


def _left(ring: RingProducer) -> int:
    fd = os.dup(ring.fd)
    ring.close()
    return fd


@dataclass(frozen=True, slots=True)
class Joints:
    """One core's ends. Without cores beside it there are none.

    Attributes:
        before: from the core in front.
        after: to the core behind.
        outboxes: what other cores want sent, where this one has the endpoints.
        outbox: by which this one sends, where it has not.
        peers: numbers of destinations, and of who retransmits for each source, among the peers of
            the first core's endpoints; as :attr:`appliance.intake.Intake.peers` of that one.
        appliance: a number that all its cores have in common, and no other appliance.
    """

    before: RingConsumer | None = None
    after: RingProducer | None = None
    outboxes: Sequence[RingConsumer] = ()
    outbox: RingProducer | None = None
    peers: dict[str, dict[str, int]] = field(default_factory=dict)
    appliance: int = field(default_factory=_drawn)

    @classmethod
    def of(cls, index: int, fds: RingFds, peers: dict[str, dict[str, int]]) -> Joints:
        """The ends of core number `index`."""
        return cls(
            before=RingConsumer.open(fds.between[index - 1]) if index else None,
            after=RingProducer.open(fds.between[index]) if index < len(fds.between) else None,
            outboxes=[] if index else [RingConsumer.open(fd, seat=_SEAT) for fd in fds.outboxes],
            outbox=RingProducer.open(fds.outboxes[index - 1]) if index else None,
            peers=peers,
            appliance=fds.appliance,
        )

    def beat(self) -> None:
        """Says on every ring that we live."""
        for producer in (self.after, self.outbox):
            if producer is not None:
                producer.beat()
        for consumer in self.outboxes:
            consumer.beat()

    def close(self) -> None:
        """Leaves the rings."""
        for end in (self.before, self.after, self.outbox, *self.outboxes):
            if end is not None:
                end.close()
