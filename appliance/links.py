"""What came over each link, and what was lost there, from the counters of whoever serves it.

A link is an endpoint (all frames of a source), one line of a feed, or a ring between two cores.
*Dropped* arrived and was thrown away for a cause that the endpoint or the feed counts; *overruns*
were lost before anyone looked, because we were too slow; *refused* could not be sent.
"""

from __future__ import annotations

from typing import Any

from barewire.pump import Feed
from dpdk_bindings.datagram import DatagramEndpoint
from dpdk_bindings.metrics import MetricsWriter
from dpdk_bindings.ring import RingConsumer, RingProducer

__all__ = ["measure_endpoint", "measure_feed", "measure_rings", "overruns"]

# Names of DatagramEndpoint.stats(): kernel sockets' and ports'.
_OVERRUNS = (
    "rx_kernel_dropped",
    "port_kernel_rx_ring_full",
    "port_kernel_rx_dropped",
    "port_share_dropped",
)
_NOT_LOST = {"rx_datagrams", "rx_bytes", "rx_misreleased", "rx_starved", "rx_left_to_kernel"}
_REFUSED = (
    "tx_ring_full",
    "tx_link_down",
    "tx_unresolved",
    "tx_too_long",
    "tx_withdrawn",
    "tx_failed",
)


def overruns(stats: dict[str, int]) -> int:
    """What an endpoint's counters say was lost because nobody took it in time."""
    return sum(stats.get(key, 0) for key in _OVERRUNS)


def measure_endpoint(metrics: MetricsWriter, name: str, endpoint: DatagramEndpoint) -> None:
    """Writes down what `endpoint` counted so far."""
    stats = endpoint.stats()
    link = metrics.link(name)
    link.received, link.bytes = stats["rx_datagrams"], stats["rx_bytes"]
    link.overruns = overruns(stats)
    link.dropped = sum(
        value
        for key, value in stats.items()
        if key.startswith("rx_") and key not in _NOT_LOST and key not in _OVERRUNS
    )
    link.refused = sum(stats[key] for key in _REFUSED)


def measure_feed(metrics: MetricsWriter, feed: Feed) -> None:
    """Writes down what each line of `feed` brought."""
    assert feed.receiver is not None
    lines: dict[str, dict[str, Any]] = feed.receiver.stats()["lines"]
    for line, counters in lines.items():
        link = metrics.link(f"{feed.name}/{line}")
        link.received, link.dropped = counters["datagrams"], counters["refused"]


def measure_rings(
    metrics: MetricsWriter,
    before: RingConsumer | None,
    outbox: RingProducer | None,
) -> None:
    """Writes down what came from the core in front, and what found the outbox full.

    No source can have the names of these links: they hold a space.
    """
    if before is not None:
        link = metrics.link("ring in")
        link.overruns, link.dropped = before.overruns, before.corrupt
        link.received = before.next - 1 - before.overruns - before.corrupt
    if outbox is not None:
        link = metrics.link("ring out")
        link.refused = int(outbox.handle.refused)
