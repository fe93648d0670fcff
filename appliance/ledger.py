"""What is known of every source, in a file that ``barewire sources`` reads.

Written about once a second beside the loop's metrics, in one step, so that a reader never sees half
of it and the loop never waits for a reader.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from barewire.feeds.arbitration import QUANTILES, Arbiter
from dpdk_bindings.metrics import Values

if TYPE_CHECKING:
    from appliance.streams import Streams

__all__ = ["Ledger"]


class Ledger:
    """The file of one loop.

    Args:
        path: where; removed on :meth:`close`.
        arbiter: knows who was first.
        tell: hears what went wrong. It must not stop the loop that there is no room, or that
            somebody removed the folder (systemd-logind does, when a user logs out: RemoveIPC).
    """

    def __init__(self, path: Path, arbiter: Arbiter, tell: Callable[[str], None]) -> None:
        self._path = path
        self._tell = tell
        self._arbiter = arbiter
        self._before: dict[str, int] = {}
        self._before_ns = 0

    def write(
        self, streams: Streams | None, molds: dict[str, dict[str, Any]], now_mono_ns: int
    ) -> None:
        """Writes what is known now.

        Args:
            streams: the byte streams, if there are any.
            molds: counters of the MoldUDP64 receivers, by source.
            now_mono_ns: a clock reading.
        """
        states = streams.stats() if streams else {}
        elapsed_s = max((now_mono_ns - self._before_ns) / 1e9, 1e-9)
        rows = []
        for report in self._arbiter.report():
            brought = report.first + report.behind
            rate = (brought - self._before.get(report.name, 0)) / elapsed_s
            self._before[report.name] = brought
            row: dict[str, Any] = {
                "source": report.name,
                "rate": round(rate, 1) if self._before_ns else 0.0,
                "first": report.first,
                "behind": report.behind,
                "repeated": report.repeated,
                "filled": report.filled,
                "unlike_clocks": report.unlike_clocks,
                "quiet_ms": round((now_mono_ns - report.last_mono_ns) / 1e6)
                if report.last_mono_ns
                else None,
                "lead": _microseconds(report.lead),
                "lag": _microseconds(report.lag),
            }
            if report.name in states:
                row |= _of_stream(states[report.name])
            elif report.name in molds:
                row |= _of_mold(molds[report.name])
            rows.append(row)
        self._before_ns = now_mono_ns
        unfinished = self._path.with_suffix(".sources~")
        content = {"at_mono_ns": now_mono_ns, "missed": self._arbiter.missed, "sources": rows}
        try:
            unfinished.write_bytes(msgspec.json.encode(content))
            unfinished.rename(self._path)
        except OSError as error:
            self._tell(f"{self._path}: {error.strerror}")

    def close(self) -> None:
        """Removes the file."""
        self._path.unlink(missing_ok=True)


def _of_stream(stats: dict[str, Any]) -> dict[str, Any]:
    hole = stats["hole"]
    return {
        "kind": "stream",
        "state": stats["state"],
        "why": stats["why"],
        "connections": stats["connections"],
        "gaps": hole["holes"],
        "unfilled": hole["unfillable"] + hole["blocks_unseen"] + stats["unanswered"],
        "refused": sum(stats["refused"].values()),
    }


def _of_mold(stats: dict[str, Any]) -> dict[str, Any]:
    return {
        "kind": "moldudp64",
        "state": stats["state"],
        "why": "",
        "connections": stats["sessions"],
        "gaps": stats["gaps"],
        "unfilled": stats["lost"],
        "refused": sum(stats["refused"].values()),
    }


def _microseconds(values: Values) -> dict[str, Any]:
    named = {
        f"p{quantile * 100:g}".replace(".", "") + "_us": round(ns / 1000, 2)
        for quantile, ns in zip(QUANTILES, values.quantiles_ns, strict=True)
    }
    return {"n": values.count} | named | {"max_us": round(values.max_ns / 1000, 2)}
