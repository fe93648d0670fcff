"""``demo --live``: a real node in one namespace, the appliance in the other, three lines between.

A stream of real swaps on real Uniswap V2 contracts; the appliance hears of each by WebSocket over
AF_XDP, by WebSocket over kernel sockets, and from the site's publisher by MoldUDP64, matches it
once, and says which line won and by how much.
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
from appliance.lab import Pair
from appliance.output import console, print_json
from barewire.errors import BarewireError

__all__ = ["Live", "play_live"]

_ROOT = Path(__file__).resolve().parents[2]
_LINE_PORT = 9300
_PATIENCE_S = 60.0


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
        show("three lines to the same swaps", seen["sources"])
        console.print(
            f"{seen['swaps']:,} swaps sent, {seen['matched']:,} matched, each once; "
            f"{seen['duplicates']:,} copies from the slower lines; "
            f"winner: [bold]{seen['winner']}[/bold]"
        )
    return 0 if seen["matched"] == seen["swaps"] else 1


def _perform(show_: Live, pair: Pair, folder: Path) -> dict[str, Any]:
    job = Job(
        root=str(_ROOT),
        address=pair.a.ip4,
        line=(pair.b.ip4, _LINE_PORT),
        swaps=show_.swaps,
        rate=show_.rate,
        folder=str(folder),
    )
    job_file, config = folder / "job.json", folder / "appliance.toml"
    job_file.write_bytes(msgspec.json.encode(job))
    records = folder / "records"
    records.mkdir()
    with contextlib.ExitStack() as stack:
        far = _start(stack, pair.a.name, "appliance.demo.live_far", str(job_file))
        if not show_.as_json:
            console.print("starting a node and deploying Uniswap V2 on it ...")
        router = _said(far, "ready")
        config.write_text(_configuration(pair, router["ready"], records))
        run = ("appliance", "run", "--config", str(config), "-o", "json")
        near = _start(stack, pair.b.name, *run)
        _until(near, _all_live)
        assert far.stdin is not None
        far.stdin.write("go\n")
        far.stdin.flush()
        if not show_.as_json:
            console.print(f"{show_.swaps:,} swaps, {show_.rate:g} a second ...")
        done = _said(far, "done")
        _until(near, lambda said: _matched(said) >= done["done"], patience_s=3)
        time.sleep(0.5)  # so that the ledger is up to date
        sources = msgspec.json.decode((records / "live.sources").read_bytes())
        near.send_signal(signal.SIGTERM)
        summary = _until(near, lambda said: said["type"] == "summary")
    rows = sources["sources"]
    return {
        "swaps": done["done"],
        "published": done["published"],
        "matched": summary["pump"]["matched"],
        "duplicates": summary["pump"]["duplicates"],
        "winner": max(rows, key=lambda row: int(row["first"]))["source"],
        "sources": sources,
    }


def _configuration(pair: Pair, router: str, records: Path) -> str:
    node = f"ws://{pair.a.ip4}:{NODE_PORT}"
    return f"""statistics_every_s = 0.2
core = {{ name = "live" }}
chain = {{ id = {CHAIN}, fork = "osaka" }}
metrics = {{ folder = "{records}" }}

[[source]]
name = "mold"
url = "mold://{pair.b.ip4}:{_LINE_PORT}"
via = "afxdp:{pair.b.interface}"

[[source]]
name = "ws-afxdp"
url = "{node}"
via = "afxdp:{pair.b.interface}"

[[source]]
name = "ws-kernel"
url = "{node}"

[[trigger]]
name = "swap"
to = ["{router}"]
"""


def _start(stack: contextlib.ExitStack, namespace: str, *words: str) -> subprocess.Popen[str]:
    command = ["nsenter", f"--net=/run/netns/{namespace}", sys.executable, "-m", *words]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    stack.callback(_end, process)
    return process


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.communicate(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


def _said(process: subprocess.Popen[str], key: str) -> dict[str, Any]:
    said: dict[str, Any] = _until(process, lambda said: key in said)
    return said


def _until(process: subprocess.Popen[str], wanted: Any, *, patience_s: float = _PATIENCE_S) -> Any:
    """The first line of JSON that is wanted; the last one where patience ends before."""
    until = time.monotonic() + patience_s
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
                break
    return said


def _all_live(said: dict[str, Any]) -> bool:
    streams = said.get("streams", {})
    if said.get("type") != "statistics":
        return False
    heard = said["sources"]["mold"]["state"] == "active"
    return heard and all(stream["state"] == "live" for stream in streams.values())


def _matched(said: dict[str, Any]) -> int:
    return int(said["pump"]["matched"]) if said.get("type") == "statistics" else 0
