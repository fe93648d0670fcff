"""Sets the demo's stage, starts both sides, watches them, and tells what was seen."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from appliance.demo.far_end import GATEWAY_PORT, RETRANSMIT_PORT, Job, Result
from appliance.demo.sides import Side, start
from appliance.demo.traffic import WATCHED
from appliance.lab import Pair
from appliance.mainnet_block import BLOCK_NUMBER, has_block
from appliance.output import complain, console, print_json
from appliance.picture import histogram, percentile
from barewire.errors import BarewireError

__all__ = ["Show", "play"]

_MOST_SHOTS = 4096
_GROUPS = ["239.77.0.1:9001", "239.77.0.2:9002"]
_LOOPBACK = ["127.0.0.1:19001", "127.0.0.1:19002"]


_LABELS = {
    "lost_on_purpose": "lost on purpose, line A and B",
    "recovered_by_other_line": "recovered by the other line",
    "not_armed_again": "not fired, the shot was not armed again yet",
    "fired_and_back": "fired and back at the sender",
}
"""Of the figures whose names do not say it all to who reads the table."""


@dataclass(frozen=True, slots=True)
class Show:
    """What is played. `loss` is a share of one; `via` None takes AF_XDP where it can."""

    messages: int
    rate: float
    loss: float
    seed: int
    via: str | None
    as_json: bool


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the two sides stand: how to start a command there, and their addresses."""

    far: tuple[str, ...]
    near: tuple[str, ...]
    far_address: str
    lines: list[str]
    via: str


def play(show: Show) -> int:
    """Plays the demo from start to end; 0 if nothing was lost, 1 if something was.

    Raises:
        BarewireError: one of the two sides could not start, or died.
    """
    if not has_block() and not show.as_json:
        console.print(
            f"Mainnet block {BLOCK_NUMBER:,} is not here (./run demo installs it): only signed "
            "transactions made for the demo are published."
        )
    for number in (signal.SIGTERM, signal.SIGHUP):  # a lost terminal leaves nothing behind either
        signal.signal(number, lambda *_, number=number: sys.exit(128 + number))
    # In memory, since it holds the flight recorder's file too.
    with (
        _place(show) as place,
        tempfile.TemporaryDirectory(prefix="barewire-demo-", dir="/dev/shm") as folder,
    ):
        watched = _perform(show, place, Path(folder))
    if show.as_json:
        print_json(watched)
    else:
        _tell(watched)
    return 0 if watched["lost"] == 0 else 1


@contextlib.contextmanager
def _place(show: Show) -> Iterator[_Place]:
    """Two namespaces where we may; loopback and kernel sockets, said aloud, where we may not."""
    with contextlib.ExitStack() as stack:
        try:
            if os.geteuid() != 0:
                raise PermissionError(
                    "not root (CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_NET_RAW, CAP_BPF)"
                )
            pair = stack.enter_context(Pair())
        except (OSError, RuntimeError) as error:
            why = str(error)
            if isinstance(error, FileNotFoundError):
                why = f"there is no command {error.filename!r}"
            if show.via == "afxdp":
                raise BarewireError(
                    f"--via afxdp needs root and network namespaces: {why}",
                    hint="sudo ./run demo",
                ) from error
            said = f"no network namespaces and no AF_XDP: {why}"
            complain(said, "the demo runs over kernel sockets on loopback instead")
            yield _Place((), (), "127.0.0.1", _LOOPBACK, "kernel")
            return
        via = "kernel" if show.via == "kernel" else f"afxdp:{pair.b.interface}"
        yield _Place(
            pair.a.inside,
            pair.b.inside,
            pair.a.ip4,
            [f"{group}@{pair.b.interface}" for group in _GROUPS],
            via,
        )


def _perform(show: Show, place: _Place, folder: Path) -> dict[str, Any]:
    """Runs both sides to the end and puts together what each of them saw."""
    cores = sorted(os.sched_getaffinity(0))
    far_cpu, near_cpu = (cores[0], cores[1]) if len(cores) > 1 else (None, None)
    log, result_file, job_file = folder / "fired.json", folder / "result.json", folder / "job.json"
    config = folder / "appliance.toml"
    # Both sides sign them before they begin. A tenth of the traffic matches, and more of the block.
    shots = min(show.messages // 2, _MOST_SHOTS)
    config.write_text(_configuration(place, near_cpu, folder, log, shots))
    job = Job(
        address=place.far_address,
        lines=place.lines,
        messages=show.messages,
        rate=show.rate,
        loss=show.loss,
        seed=show.seed,
        shots=shots,
        cpu=far_cpu,
    )
    job_file.write_bytes(msgspec.json.encode(job))
    python = (sys.executable, "-m")
    with contextlib.ExitStack() as stack:
        near = start(
            stack, (*place.near, *python, "appliance", "run", "--config", str(config), "-o", "json")
        )
        started = _next_line(near, "the appliance")
        if not show.as_json:
            console.print(_chosen(started))
        far = start(
            stack, (*place.far, *python, "appliance.demo.far_end", str(job_file), str(result_file))
        )
        _watch(far, near, show)
        near.send_signal(signal.SIGTERM)
        summary = _last_line(near)
    result = msgspec.json.decode(result_file.read_bytes(), type=Result)
    caused: dict[str, int] = msgspec.json.decode(log.read_bytes())
    return _figures(result, caused, summary)


def _configuration(place: _Place, cpu: int | None, folder: Path, log: Path, shots: int) -> str:
    """The appliance's configuration, as a user would write it."""
    lines = ", ".join(f'"{line}"' for line in place.lines)
    core = f"[core]\ncpu = {cpu}\n" if cpu is not None else ""
    triggers = "".join(
        f'[[trigger]]\nname = "{name}"\nto = ["{to}"]\nshot = "{name}"\n'
        for name, to in WATCHED.items()
    )
    return f"""statistics_every_s = 0.2
{core}
[chain]
id = 1
fork = "osaka"

[[source]]
name = "site"
via = "{place.via}"
lines = [{lines}]
retransmit = "{place.far_address}:{RETRANSMIT_PORT}"
trusted = true

[[destination]]
name = "gateway"
address = "{place.far_address}:{GATEWAY_PORT}"

{triggers}
[fire]
unjournalled = true
max_per_second = 10000
max_total = 100000

[strategy]
load = "appliance.demo.strategy:KeepArmed"
options = {{ triggers = {list(WATCHED)}, shots = {shots}, log = "{log}" }}

[metrics]
folder = "{folder}"
"""


def _next_line(process: Side, who: str) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise BarewireError(f"{who} did not start", hint="its own words are above")
    decoded: dict[str, Any] = msgspec.json.decode(line)
    return decoded


def _last_line(process: Side) -> dict[str, Any]:
    assert process.stdout is not None
    lines = process.stdout.read().splitlines()
    if process.wait() != 0 or not lines:
        raise BarewireError("the appliance died", hint="its own words are above")
    decoded: dict[str, Any] = msgspec.json.decode(lines[-1])
    return decoded


def _watch(far: Side, near: Side, show: Show) -> None:
    """Shows progress until the far end is done; both are read, so that neither blocks on a pipe.

    The far end need not linger for requests once the appliance has all of it and every reply is
    back.
    """
    assert far.stdout is not None
    assert near.stdout is not None
    columns = TextColumn("{task.description:<11}"), BarColumn(), MofNCompleteColumn()
    with (
        selectors.DefaultSelector() as ready,
        Progress(
            *columns, TextColumn("{task.fields[note]}"), console=console, disable=show.as_json
        ) as bar,
    ):
        ready.register(far.stdout, selectors.EVENT_READ)
        ready.register(near.stdout, selectors.EVENT_READ)
        task = bar.add_task("preparing", total=show.messages, note="")
        delivered = fired = 0
        while True:
            for key, _ in ready.select():
                stream: Any = key.fileobj
                line = stream.readline()
                if stream is near.stdout:
                    if not line:
                        raise BarewireError("the appliance died", hint="its own words are above")
                    seen = msgspec.json.decode(line)
                    if seen["type"] == "statistics":
                        delivered = seen["sources"]["site"]["delivered"]
                        fired = seen["pump"]["fired"]
                elif not line:
                    if far.wait() != 0:
                        raise BarewireError("the publisher died", hint="its own words are above")
                    return
                else:
                    said = msgspec.json.decode(line)
                    note = f"fired and back: {said['replies']:,}" if said["replies"] else ""
                    bar.update(task, description=said["phase"], completed=said["done"], note=note)
                    if delivered == said["done"] == show.messages and fired == said["replies"]:
                        far.send_signal(signal.SIGTERM)


def _chosen(started: dict[str, Any]) -> str:
    lines = [
        f"{part}: " + "  ".join(f"{key}={value}" for key, value in what.items())
        for part, what in started["chosen"].items()
    ]
    return "\n".join(lines + started["warnings"])


def _figures(result: Result, caused: dict[str, int], summary: dict[str, Any]) -> dict[str, Any]:
    """Joins the two views: what the sender saw, and which transaction fired which shot."""
    feed = summary["sources"]["site"]
    took = sorted(
        result.replies_mono_ns[payload] - result.intended_mono_ns[cause]
        for cause, payload in caused.items()
        if payload in result.replies_mono_ns
    )
    lines = feed["lines"]
    published = result.published
    return {
        "messages_sent": published.messages,
        "transactions_sent": published.transactions,
        "lost_on_purpose": [line.lost_on_purpose for line in published.lines],
        "messages_received": feed["delivered"],
        "recovered_by_other_line": lines["B"]["first"],
        "recovered_by_retransmission": feed["retransmitted"],
        "duplicates": sum(line["duplicate"] for line in lines.values()),
        "transactions_decoded": summary["pump"]["transactions"],
        "matched": summary["pump"]["matched"],
        "fired": summary["pump"]["fired"],
        "not_armed_again": summary["shots"].get("already_fired", 0),
        "fired_and_back": len(took),
        "lost": published.messages - feed["delivered"],
        "wire_to_wire_ns": took,
    }


def _tell(watched: dict[str, Any]) -> None:
    """The table and the picture."""
    table = Table(show_header=False, box=None)
    table.add_column()
    table.add_column(justify="right")
    for name, value in watched.items():
        if name != "wire_to_wire_ns":
            text = " ".join(f"{v:,}" for v in value) if isinstance(value, list) else f"{value:,}"
            table.add_row(
                _LABELS.get(name, name.replace("_", " ")),
                text,
                style="bold red" if name == "lost" and value else None,
            )
    console.print(table)
    took: list[int] = watched["wire_to_wire_ns"]
    if not took:
        return
    shares = ((50, "p50"), (99, "p99"), (99.9, "p99.9"), (100, "max"))
    figures = "   ".join(f"{name} {percentile(took, share) / 1000:,.1f}" for share, name in shares)
    console.print(
        f"\nwire to wire, from the intended send to the reply in the sender's hand, {len(took):,} "
        f"samples (us):\n  {figures}\n"
    )
    for line in histogram(took):
        console.print(line)
    console.print(
        "\nBoth ends and the wire share this machine; a veth pair shows neither a NIC's latency "
        "nor its jitter. What had to be recovered is in the tail."
    )
