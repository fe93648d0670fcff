"""Metrics as Prometheus reads them.

The text format is that of https://prometheus.io/docs/instrumenting/exposition_formats/ (0.0.4);
names, base units and suffixes follow its naming practices, and ``promtool check metrics`` accepts
them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from appliance.causes import Known
from appliance.metrics.places import METRICS, Counter, Histogram
from dpdk_bindings.metrics import MetricsReader

__all__ = ["CONTENT_TYPE", "exposition"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Upper bounds of the buckets: six to a decade, 100 ns to 10 s.
BOUNDS_NS = [
    step * 10**power // 10 for power in range(2, 10) for step in (10, 15, 20, 30, 50, 70)
] + [10**10]


def _label(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


class _Text:
    """Collects samples metric by metric, as the format wants them, whatever loop they are of."""

    def __init__(self) -> None:
        self._samples: dict[str, list[str]] = {}

    def add(self, metric: str, value: float, suffix: str = "", /, **labels: str) -> None:
        inside = ",".join(f'{key}="{_label(label)}"' for key, label in labels.items())
        name = f"{metric}{suffix}{{{inside}}}" if labels else f"{metric}{suffix}"
        self._samples.setdefault(metric, []).append(f"{name} {value!r}")

    def __str__(self) -> str:
        lines: list[str] = []
        for metric, samples in self._samples.items():
            kind, text = METRICS[metric]
            lines += [f"# HELP {metric} {text}", f"# TYPE {metric} {kind}", *samples]
        return "\n".join([*lines, ""])


def exposition(
    readers: Iterable[MetricsReader],
    unreadable: int = 0,
    causes: Mapping[str, Known] | None = None,
) -> str:
    """All metrics of all loops, as text.

    Args:
        readers: of the loops.
        unreadable: how many files could not be read.
        causes: what else each loop counts, by its name (appliance.causes).
    """
    text = _Text()
    text.add("barewire_metrics_unreadable", unreadable)
    for reader in readers:
        loop = reader.name
        _loop(text, reader, loop)
        for counter, value in zip(Counter, reader.counters(), strict=True):
            text.add(f"barewire_{counter.name.lower()}_total", value, loop=loop)
        for histogram in Histogram:
            metric = f"barewire_{histogram.name.lower()}"
            counts, total, sum_ns = reader.cumulative(histogram, BOUNDS_NS)
            for bound, count in zip(BOUNDS_NS, counts, strict=True):
                text.add(metric, count, "_bucket", loop=loop, le=f"{bound / 1e9:.9g}")
            text.add(metric, total, "_bucket", loop=loop, le="+Inf")
            text.add(metric, sum_ns / 1e9, "_sum", loop=loop)
            text.add(metric, total, "_count", loop=loop)
        for link in reader.links():
            for name in ("received", "dropped", "overruns", "refused"):
                metric = f"barewire_link_{name}_total"
                text.add(metric, getattr(link, name), loop=loop, link=link.name)
            text.add("barewire_link_received_bytes_total", link.bytes, loop=loop, link=link.name)
        for one in (causes or {}).get(loop, Known()).counted:
            labels = {"part": one.part, "of": one.of, "cause": one.cause}
            text.add("barewire_counted", one.value, loop=loop, **labels)
        for error in reader.errors():
            text.add("barewire_errors_total", error.count, loop=loop, error=error.text)
        text.add("barewire_errors_lost_total", reader.errors_lost, loop=loop)
    return str(text)


def _loop(text: _Text, reader: MetricsReader, loop: str) -> None:
    duty = reader.duty()
    if reader.alive:  # what one that died has left is still told
        text.add("barewire_loop_info", 1, loop=loop, process=str(reader.pid))
    text.add("barewire_loop_start_time_seconds", reader.opened_real_ns / 1e9, loop=loop)
    text.add("barewire_loop_heartbeat_age_seconds", reader.heartbeat_age_ns / 1e9, loop=loop)
    text.add("barewire_loop_memory_bytes", reader.memory_bytes, loop=loop)
    text.add("barewire_loop_memory_growth_bytes", reader.memory_growth_bytes, loop=loop)
    for kind, spent_ns in duty.spent_ns.items():
        text.add("barewire_loop_time_seconds_total", spent_ns / 1e9, loop=loop, kind=kind)
    for kind, turns in duty.turns.items():
        text.add("barewire_loop_turns_total", turns, loop=loop, kind=kind)
    for cause, stalls in duty.stalls.items():
        text.add("barewire_loop_stalls_total", stalls, loop=loop, cause=cause)
    for cause, longest_ns in duty.longest_ns.items():
        text.add("barewire_loop_longest_stall_seconds", longest_ns / 1e9, loop=loop, cause=cause)
