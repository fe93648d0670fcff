"""Show what the running loops count and measure.

Reads shared memory only: the loops do not notice. `--serve` answers Prometheus until stopped; its
metrics are described in docs/metrics.md.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from rich.table import Table

from appliance import causes
from appliance.metrics.endpoint import server
from appliance.metrics.exposition import exposition
from appliance.metrics.files import FOLDER, UNREADABLE, open_all
from appliance.metrics.places import METRICS, Counter, Histogram
from appliance.output import add_output_argument, complain, console, print_json
from dpdk_bindings.metrics import MetricsReader

_QUANTILES = {"p50": 0.5, "p99": 0.99, "p999": 0.999}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``barewire metrics``."""
    add_output_argument(parser)
    parser.add_argument(
        "--folder", type=Path, default=FOLDER, help=f"where the loops' metrics lie ({FOLDER})"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--prometheus", action="store_true", help="print them as Prometheus reads")
    how.add_argument("--serve", metavar="HOST:PORT", help="answer Prometheus at /metrics")


def run(args: argparse.Namespace) -> int:
    """Shows, prints or serves."""
    if args.serve:
        with server(args.serve, args.folder) as endpoint:
            host, port = str(endpoint.server_address[0]), endpoint.server_address[1]
            console.out(f"serving http://{f'[{host}]' if ':' in host else host}:{port}/metrics")
            endpoint.serve_forever()
        return 0
    with open_all(args.folder) as (readers, refused):
        known = causes.read(args.folder)
        if args.prometheus:
            console.out(exposition(readers, len(refused), known), end="")
        elif args.output == "json":
            print_json([_as_dict(reader, known) for reader in readers])
        else:
            for reader in readers:
                _show(_as_dict(reader, known))
    for wrong in refused:
        complain(wrong, UNREADABLE)
    return 1 if refused else 0


def _as_dict(reader: MetricsReader, known: dict[str, causes.Known]) -> dict[str, Any]:
    histograms = {}
    for histogram in Histogram:
        values = reader.values(histogram, tuple(_QUANTILES.values()))
        histograms[histogram.name.lower().removesuffix("_seconds")] = {
            "count": values.count,
            **{
                f"{name}_ns": value
                for name, value in zip(_QUANTILES, values.quantiles_ns, strict=True)
            },
            "max_ns": values.max_ns,
        }
    return {
        "loop": reader.name,
        "pid": reader.pid,
        "opened_real_ns": reader.opened_real_ns,
        "alive": reader.alive,
        "heartbeat_age_ns": reader.heartbeat_age_ns,
        "memory_bytes": reader.memory_bytes,
        "memory_growth_bytes": reader.memory_growth_bytes,
        "counters": {
            counter.name.lower(): value
            for counter, value in zip(Counter, reader.counters(), strict=True)
        },
        "histograms": histograms,
        "duty": reader.duty(),
        "links": reader.links(),
        "counted": known.get(reader.name, causes.Known()).counted,
        "errors": reader.errors(),
        "errors_lost": reader.errors_lost,
    }


def _show(loop: dict[str, Any]) -> None:
    age_ms = loop["heartbeat_age_ns"] / 1e6
    state = "" if loop["alive"] else " [bold red](gone)[/]"
    console.print(
        f"[bold]{loop['loop']}[/]  process {loop['pid']}{state}, last beat {age_ms:,.0f} ms ago, "
        f"{loop['memory_bytes'] / 2**20:,.0f} MiB resident "
        f"({loop['memory_growth_bytes'] / 2**20:+,.1f} since it began)"
    )
    counters = Table(box=None, pad_edge=False)
    counters.add_column("counter")
    counters.add_column("", justify="right")
    counters.add_column("", style="dim")
    for name, value in loop["counters"].items():
        counters.add_row(name, f"{value:,}", METRICS[f"barewire_{name}_total"][1])
    console.print(counters)
    times = Table(box=None, pad_edge=False)
    times.add_column("microseconds")
    for column in (*_QUANTILES, "max", "n"):
        times.add_column(column, justify="right")
    for name, values in loop["histograms"].items():
        figures = [values[f"{column}_ns"] / 1000 for column in (*_QUANTILES, "max")]
        times.add_row(name, *(f"{figure:,.3f}" for figure in figures), f"{values['count']:,}")
    console.print(times)
    duty = loop["duty"]
    whole = sum(duty.spent_ns.values()) or 1
    console.print(
        "time  " + "  ".join(f"{k} {100 * v / whole:.2f} %" for k, v in duty.spent_ns.items())
    )
    for cause, stalls in duty.stalls.items():
        if stalls:
            console.print(
                f"stalls over {duty.stall_ns / 1e6:g} ms, {cause}: {stalls:,}, "
                f"longest {duty.longest_ns[cause] / 1e6:,.3f} ms"
            )
    for link in loop["links"]:
        console.print(
            f"link {link.name}: {link.received:,} received, {link.dropped:,} dropped, "
            f"{link.overruns:,} overrun, {link.refused:,} refused"
        )
    for one in loop["counted"]:
        if one.value:
            what = " ".join(filter(None, (one.part, one.of, one.cause)))
            console.print(f"counted {what}: {one.value:,}", markup=False)
    for error in loop["errors"]:
        first, last = (_clock(t) for t in (error.first_real_ns, error.last_real_ns))
        console.print(
            f"error, {error.count:,} times from {first} to {last}: {error.text}", markup=False
        )


def _clock(real_ns: int) -> str:
    return time.strftime("%F %T", time.localtime(real_ns / 1e9))
