"""What is known of every source, in files that ``barewire sources`` reads.

Written about once a second beside the loop's metrics, in one step, so that a reader never sees half
of it and the loop never waits for a reader. Where the path is cut, each core writes what it knows,
and :func:`read` puts together what belongs to one appliance.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from appliance.links import overruns
from appliance.loop_file import LoopFile
from barewire.feeds.arbitration import QUANTILES, Arbiter
from dpdk_bindings.metrics import Values

__all__ = ["MISSING", "Ledger", "read"]

MISSING = {
    "pools_unread": "breaks of which the pending block alone could be read, not the pool",
    "breaks_unread": "breaks of which nothing could be read: no pool there, or it is closed",
    "blocks_unread": "blocks mined in a break and not looked through",
    "mined_unseen": "transactions mined in a break that no source brought, at most",
    "pool_refused": "entries of a pool that are not what they say",
    "bodies_late": "announced hashes whose transaction did not come in time, or not as announced",
    "bodies_gone": "announced hashes whose transaction was gone when it was asked for",
    "bodies_denied": "announced hashes whose transaction was not told",
    "messages_lost": "messages that neither a line nor a retransmission brought",
    "datagrams_overrun": "datagrams lost because they were not taken in time",
}
"""What a source did not bring, by cause; each has a unit of its own, so they are never added up."""


class Ledger:
    """The file of one loop.

    Args:
        path: where; removed on :meth:`close`.
        arbiter: knows who was first; None on cores that do not have it.
        appliance: a number that all its cores have in common.
        tell: hears what went wrong; see `LoopFile`.
    """

    def __init__(
        self, path: Path, arbiter: Arbiter | None, *, appliance: int, tell: Callable[[str], None]
    ) -> None:
        self._file = LoopFile(path, tell)
        self._arbiter = arbiter
        self._appliance = appliance
        self._before: dict[str, int] = {}
        self._before_ns = 0

    def write(
        self,
        streams: dict[str, dict[str, Any]],
        datagrams: dict[str, dict[str, Any]],
        now_mono_ns: int,
    ) -> None:
        """Writes what is known now.

        Args:
            streams: counters of the byte streams, by source.
            datagrams: of the other sources: what their receiver counted, and their ``endpoint``.
            now_mono_ns: a clock reading.
        """
        rows = {name: _of_stream(stats) for name, stats in streams.items()}
        rows |= {name: _of_datagrams(stats) for name, stats in datagrams.items()}
        if self._arbiter is not None:
            for name, compared in self._compared(self._arbiter, now_mono_ns).items():
                rows[name] = compared | rows.get(name, {})
        content = {
            "at_mono_ns": now_mono_ns,
            "appliance": self._appliance,
            "compares": self._arbiter is not None,
            "sources": [{"source": name} | row for name, row in rows.items()],
        }
        self._file.write(msgspec.json.encode(content))

    def _compared(self, arbiter: Arbiter, now_mono_ns: int) -> dict[str, dict[str, Any]]:
        elapsed_s = max((now_mono_ns - self._before_ns) / 1e9, 1e-9)
        rows = {}
        for report in arbiter.report():
            brought = report.first + report.behind
            rate = (brought - self._before.get(report.name, 0)) / elapsed_s
            self._before[report.name] = brought
            rows[report.name] = {
                "rate": round(rate, 1) if self._before_ns else 0.0,
                "first": report.first,
                "earliest": report.earliest,
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
        self._before_ns = now_mono_ns
        return rows

    def close(self) -> None:
        """Removes the file; that it cannot be is told, and is no reason not to end."""
        self._file.close()


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """The sources of every appliance in `folder`, by the name of the loop that compares them."""
    parts: dict[int, list[tuple[str, dict[str, Any]]]] = {}
    for path in sorted(folder.glob("*.sources")):
        try:
            content = msgspec.json.decode(path.read_bytes())
        except FileNotFoundError:
            continue  # its loop has just ended
        parts.setdefault(content["appliance"], []).append((path.stem, content))
    whole = {}
    for of_one in parts.values():
        of_one.sort(key=lambda part: not part[1]["compares"])
        name, first = of_one[0]
        rows: dict[str, dict[str, Any]] = {}
        for _, content in of_one:
            for row in content["sources"]:
                known = rows.setdefault(row["source"], {"missing": {}})
                missing = known["missing"] | row.get("missing", {})
                rows[row["source"]] = known | row | {"missing": missing}
        at_mono_ns = min(content["at_mono_ns"] for _, content in of_one)
        whole[name] = first | {"at_mono_ns": at_mono_ns, "sources": list(rows.values())}
    return whole


def _of_stream(stats: dict[str, Any]) -> dict[str, Any]:
    hole = stats["hole"]
    return {
        "kind": "stream",
        "state": stats["state"],
        "why": stats["why"],
        "connections": stats["connections"],
        "gaps": hole["holes"],
        "missing": {
            "pools_unread": hole["pools_unread"],
            "breaks_unread": hole["unfillable"],
            "blocks_unread": hole["blocks_unseen"],
            "mined_unseen": stats["missed"],
            "pool_refused": hole["pool_refused"],
            "bodies_late": stats["unanswered"],
            "bodies_gone": stats["vanished"],
            "bodies_denied": stats["denied"],
        },
        "refused": sum(stats["refused"].values()),
    }


def _of_datagrams(stats: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"kind": "moldudp64", "missing": {}}
    if "endpoint" in stats:
        row["missing"]["datagrams_overrun"] = overruns(stats["endpoint"])
    if "lost" in stats:
        row |= {
            "state": stats["state"],
            "why": stats.get("trouble", ""),
            "connections": stats["sessions"],
            "gaps": stats["gaps"],
            "refused": sum(stats["refused"].values()),
        }
        row["missing"]["messages_lost"] = stats["lost"]
    return row


def _microseconds(values: Values) -> dict[str, Any]:
    named = {
        f"p{quantile * 100:g}".replace(".", "") + "_us": round(ns / 1000, 2)
        for quantile, ns in zip(QUANTILES, values.quantiles_ns, strict=True)
    }
    return {"n": values.count} | named | {"max_us": round(values.max_ns / 1000, 2)}
