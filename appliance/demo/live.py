"""``demo --live``: a real node in one namespace, the appliance in the other, three lines between.

A stream of real swaps on real Uniswap V2 contracts; the appliance hears of each by WebSocket over
AF_XDP, by WebSocket over kernel sockets, and from the site's publisher by MoldUDP64, matches it
once, and says which line brought it first and by how much.

The node tells its subscribers one after the other, in an order of its own. So that the one in which
they subscribed does not decide, there are two rounds, with an appliance and a publisher of their
own: in the second one the three subscribe in the opposite order.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from appliance.commands.sources import show
from appliance.demo.live_far import CHAIN, NODE_PORT, Job
from appliance.demo.sides import Side, start
from appliance.lab import Pair
from appliance.output import console, print_json
from barewire.errors import BarewireError

__all__ = ["Live", "play_live"]

_ROOT = Path(__file__).resolve().parents[2]
_LINE_PORT = 9300
_PATIENCE_S = 60.0
_PUBLISHED, _BY_AFXDP, _BY_KERNEL = "mold", "ws-afxdp", "ws-kernel"
_ORDERS = (_PUBLISHED, _BY_AFXDP, _BY_KERNEL), (_BY_KERNEL, _BY_AFXDP, _PUBLISHED)
_SUMMED = ("first", "earliest", "behind", "repeated", "filled", "unlike_clocks", "gaps", "refused")
_UNLIKE = """
Who is earliest is whom the node told first, nearly always: it tells one subscriber after another.
A copy has arrived when it is at the interface (over AF_XDP), or when it is read (by the kernel).
mold has one stop more: the site's publisher, a subscriber too, needed {took} us (p50) to send
on what it was told. It serves many machines at once; who hears the node itself is mostly earlier.
"""
_BUSY = """
The machine was busy before this began (load average {load:.1f}, {cores} cores): these times are
mostly those for which somebody waited for a core. While the loop did, what waited in a kernel
socket had not arrived yet, by this count, and what waited in AF_XDP's ring had.
"""


@dataclass(frozen=True, slots=True)
class Live:
    """What is played: so many swaps, so many a second."""

    swaps: int
    rate: float
    as_json: bool


def play_live(show_: Live) -> int:
    """Plays it from start to end; 0 if every swap was matched once.

    Raises:
        BarewireError: it is not to be had here, or one side died.
    """
    if os.geteuid() != 0:
        raise BarewireError("demo --live needs root (network namespaces)", hint="sudo ./run demo")
    if not (_ROOT / "tests/chain/anvil.py").exists():
        raise BarewireError(
            "demo --live uses the node and the contracts of the chain tests, which are not here",
            hint="run it in the repository: ./run demo --live",
        )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.path.insert(0, str(_ROOT))
    packages: Any = importlib.import_module("tests.chain.anvil")
    for folder in (packages.HERE, packages.HERE / "uniswap"):
        packages.npm_packages(folder)  # here, as the namespaces reach nobody
    # Rings lie on a tmpfs.
    with Pair() as pair, tempfile.TemporaryDirectory(prefix="bw-live-", dir="/dev/shm") as place:
        seen = _perform(show_, pair, Path(place))
    if show_.as_json:
        print_json(seen)
    else:
        _tell(seen)
    return 0 if seen["matched"] == seen["swaps"] else 1


def _tell(seen: dict[str, Any]) -> None:
    for number, round_ in enumerate(seen["rounds"], start=1):
        show(f"round {number}: subscribed {', '.join(round_['subscribed'])}", round_["sources"])
    brought = ", ".join(
        f"{row['source']} {row['earliest']:,}" for row in seen["sources"]["sources"]
    )
    took = " / ".join(f"{round_['publisher']['lateness_p50_us']:,}" for round_ in seen["rounds"])
    console.print(
        f"{seen['swaps']:,} swaps sent, {seen['matched']:,} matched, each once; "
        f"{seen['duplicates']:,} copies from the slower lines\n"
        f"earliest in both rounds: {brought}; winner: [bold]{seen['winner']}[/bold]"
    )
    console.print(_UNLIKE.format(took=took).rstrip())
    load, cores = seen["load_average"], len(os.sched_getaffinity(0))
    if load > cores / 2:
        console.print(_BUSY.format(load=load, cores=cores).rstrip())


@dataclass(frozen=True, slots=True)
class _Stage:
    """Where both sides are, and which cores they have."""

    pair: Pair
    folder: Path
    far_cpus: set[int]
    near_cpu: int | None

    @property
    def ipc(self) -> str:
        return f"{self.folder}/node.ipc"

    def start_far(self, stack: contextlib.ExitStack, *words: str, **how: Any) -> Side:
        """Starts a process beside the node."""
        command = (*self.pair.a.inside, sys.executable, "-m", *words)
        return start(stack, command, cpus=self.far_cpus, stdin=subprocess.PIPE, **how)

    def start_near(self, stack: contextlib.ExitStack, *words: str) -> Side:
        """Starts a process on the appliance's side."""
        command = (*self.pair.b.inside, sys.executable, "-m", *words)
        return start(stack, command, cpus=() if self.near_cpu is None else {self.near_cpu})


def _perform(show_: Live, pair: Pair, folder: Path) -> dict[str, Any]:
    cores = sorted(os.sched_getaffinity(0))
    # The loop spins: who shares a core with it would be late, and so would the loop.
    stage = _Stage(pair, folder, set(cores[:-1] or cores), cores[-1] if len(cores) > 1 else None)
    job = Job(root=str(_ROOT), address=pair.a.ip4, ipc=stage.ipc, rate=show_.rate)
    job_file = folder / "job.json"
    job_file.write_bytes(msgspec.json.encode(job))
    load = os.getloadavg()[0]  # of the last minute, before us
    rounds = []
    with contextlib.ExitStack() as stack:
        far = stage.start_far(stack, "appliance.demo.live_far", str(job_file))
        if not show_.as_json:
            console.print("starting a node and deploying Uniswap V2 on it ...")
        router = _said(far, "ready")["ready"]
        done = 0
        for number, order in enumerate(_ORDERS):
            swaps = (show_.swaps + 1) // 2 if number == 0 else show_.swaps - done
            if not swaps:
                break  # there is one in all
            if not show_.as_json:
                console.print(f"round {number + 1}: {swaps:,} swaps, {show_.rate:g} a second ...")
            rounds.append(_round(stage, far, router, order, swaps, swaps / show_.rate))
            done += swaps
    rows = _sum([round_["sources"]["sources"] for round_ in rounds])
    return {
        "swaps": done,
        "published": sum(round_["publisher"]["transactions"] for round_ in rounds),
        "matched": sum(round_["matched"] for round_ in rounds),
        "duplicates": sum(round_["duplicates"] for round_ in rounds),
        "winner": max(rows, key=lambda row: int(row["earliest"]))["source"],
        "sources": rounds[-1]["sources"] | {"sources": rows},
        "rounds": rounds,
        "load_average": load,
    }


def _round(
    stage: _Stage,
    far: Side,
    router: str,
    order: tuple[str, ...],
    swaps: int,
    lasts_s: float,
) -> dict[str, Any]:
    """One appliance and one publisher, from start to end; they subscribe in `order`."""
    folder = Path(tempfile.mkdtemp(dir=stage.folder))
    config = folder / "appliance.toml"
    config.write_text(_configuration(stage, router, folder, order))
    with contextlib.ExitStack() as stack:
        publisher = None
        if order[0] == _PUBLISHED:
            publisher = _start_publisher(stage, stack)
        run = ("appliance", "run", "--config", str(config), "-o", "json")
        near = stage.start_near(stack, *run)
        _until(near, _streams_live)
        if publisher is None:
            publisher = _start_publisher(stage, stack)
        _until(near, _all_live)
        assert far.stdin is not None
        far.stdin.write(f"{swaps}\n")
        far.stdin.flush()
        _said(far, "done", lasts_s)
        _until(near, lambda said: _brought(said) >= swaps * len(order), enough_s=3)
        time.sleep(0.5)  # so that the ledger is up to date
        sources = msgspec.json.decode((folder / "live.sources").read_bytes())
        near.send_signal(signal.SIGTERM)
        summary = _until(near, lambda said: said["type"] == "summary")
        publisher.send_signal(signal.SIGINT)
        assert publisher.stdout is not None
        published = msgspec.json.decode(publisher.stdout.read())
    return {
        "subscribed": order,
        "swaps": swaps,
        "matched": summary["pump"]["matched"],
        "duplicates": summary["pump"]["duplicates"],
        "sources": sources,
        "publisher": published,
    }


def _start_publisher(stage: _Stage, stack: contextlib.ExitStack) -> Side:
    """What a site does for its machines: hears a node, and publishes what it hears."""
    line = f"{stage.pair.b.ip4}:{_LINE_PORT}"
    words = ("appliance", "publish", f"ipc://{stage.ipc}", "--line-a", line, "-o", "json")
    publisher = stage.start_far(stack, *words, stderr=subprocess.PIPE)
    assert publisher.stderr is not None
    for said in publisher.stderr:
        if said == "node: live\n":
            return publisher
        sys.stderr.write(said)
    raise BarewireError("the demo's publisher died; its words are above")


def _sum(rounds: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Each source over all rounds. Quantiles are the largest of a round: no less than of all."""
    rows = {row["source"]: row for row in rounds[0]}
    for row in (row for rows_of_one in rounds[1:] for row in rows_of_one):
        before = rows[row["source"]]
        rows[row["source"]] = row | {name: before[name] + row[name] for name in _SUMMED}
        for which in ("lead", "lag"):
            of_all = {name: max(before[which][name], value) for name, value in row[which].items()}
            of_all["n"] = before[which]["n"] + row[which]["n"]
            rows[row["source"]][which] = of_all
        missing = {name: before["missing"][name] + n for name, n in row["missing"].items()}
        rows[row["source"]]["missing"] = missing
    return list(rows.values())


def _configuration(stage: _Stage, router: str, records: Path, order: tuple[str, ...]) -> str:
    """The appliance's configuration; its streams connect in the order in which they are here."""
    near = stage.pair.b
    node = f"ws://{stage.pair.a.ip4}:{NODE_PORT}"
    xdp = f"afxdp:{near.interface}"
    told = {
        _PUBLISHED: f'url = "mold://{near.ip4}:{_LINE_PORT}"\nvia = "{xdp}"\n',
        _BY_AFXDP: f'url = "{node}"\nvia = "{xdp}"\n',
        _BY_KERNEL: f'url = "{node}"\n',
    }
    sources = "\n".join(f'[[source]]\nname = "{name}"\n{told[name]}' for name in order)
    cpu = "" if stage.near_cpu is None else f", cpu = {stage.near_cpu}"
    return f"""statistics_every_s = 0.2
core = {{ name = "live"{cpu} }}
chain = {{ id = {CHAIN}, fork = "osaka" }}
metrics = {{ folder = "{records}" }}

{sources}
[[trigger]]
name = "swap"
to = ["{router}"]
"""


def _said(process: Side, key: str, lasts_s: float = 0) -> dict[str, Any]:
    said: dict[str, Any] = _until(process, lambda said: key in said, lasts_s=lasts_s)
    return said


def _until(process: Side, wanted: Any, *, lasts_s: float = 0, enough_s: float | None = None) -> Any:
    """The first line of JSON that is wanted; after `enough_s`, if that is given, the last one.

    `lasts_s` is how long it takes by itself, beside what a busy machine adds.
    """
    until = time.monotonic() + (enough_s or lasts_s + _PATIENCE_S)
    said: dict[str, Any] = {}
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while time.monotonic() < until:
            if not selector.select(until - time.monotonic()):
                break
            line = process.stdout.readline()
            if not line:
                raise BarewireError("one side of the demo died; its words are above")
            said = json.loads(line)
            if said.get("type") != "start" and wanted(said):
                return said
    if enough_s is None:
        raise BarewireError(
            f"one side of the demo did not get there within {lasts_s + _PATIENCE_S:g} s",
            hint="is the machine that busy? It said last: " + json.dumps(said)[:500],
        )
    return said


def _streams_live(said: dict[str, Any]) -> bool:
    return said["type"] == "statistics" and all(
        stream["state"] == "live" for stream in said["streams"].values()
    )


def _all_live(said: dict[str, Any]) -> bool:
    return _streams_live(said) and said["sources"][_PUBLISHED]["state"] == "active"


def _brought(said: dict[str, Any]) -> int:
    """Copies of transactions, of all lines together."""
    return int(said["pump"]["transactions"]) if said["type"] == "statistics" else 0
