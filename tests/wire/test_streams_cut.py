"""Streams where the path is cut over several cores: read by the one that has the trigger."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time

import pytest

from appliance import ledger
from appliance.demo.traffic import build
from barewire.feeds.envelope import to_messages
from barewire.keccak import keccak256
from tests.wire.rig import PAYLOAD, Rig, lossy
from tests.wire.test_one_interface import TOLD, TOLD_HASHES, node, pair

__all__ = ["pair"]

STAGES = ("receive", "feed", "decode", "trigger")


def sources_of(rig: Rig) -> tuple[int, dict, str]:
    """``barewire sources``: exit status, the rows by name, and what people see."""
    words = [sys.executable, "-m", "appliance", "sources", "--folder", str(rig.records)]
    environment = os.environ | {"PYTHONSAFEPATH": "1", "COLUMNS": "160"}
    asked = [
        subprocess.run([*words, *more], capture_output=True, text=True, env=environment)
        for more in (["-o", "json"], [])
    ]
    [content] = json.loads(asked[0].stdout).values()
    return asked[0].returncode, {row["source"]: row for row in content["sources"]}, asked[1].stdout


def first_of(rig: Rig) -> dict[str, int]:
    """What each source brought first, as the core that compares them has written it down."""
    rows = [row for core in ledger.read(rig.records).values() for row in core["sources"]]
    return {row["source"]: row["first"] for row in rows if "first" in row}


SLOW = [pytest.param(cut, marks=pytest.mark.slow) for cut in (1, 3, (1, 2, 3))]


@pytest.mark.parametrize("cut", [2, *SLOW], ids=str)
def test_a_stream_and_a_feed_on_several_cores(pair, tmp_path, cut):
    cuts = [0, *(cut if isinstance(cut, tuple) else (cut,)), 4]
    parts = [STAGES[a:b] for a, b in itertools.pairwise(cuts)]
    cores = "".join(f'[[core]]\nname = "c{n}"\nstages = {list(p)}\n' for n, p in enumerate(parts))
    payload = tmp_path / "shot.hex"
    payload.write_text(PAYLOAD.hex())
    fire = (
        f'[[shot]]\nname = "s"\ndestination = "gateway"\npayload = "{payload}"\n'
        "expires_after_ms = 60000\n[fire]\nunjournalled = true\n"
    )
    envelopes = build(400, 13, lambda _: None)
    messages = [m for n, raw in enumerate(envelopes) for m in to_messages(raw, 1450, n)]
    with node(pair, 2) as (told, url):
        source = f'[[source]]\nname = "node"\nurl = "{url}"\ntrusted = true\n'
        trigger = '[[trigger]]\nname = "all"\nshot = "s"\n'
        extra = source + fire + cores
        with Rig(pair, tmp_path, triggers=trigger, extra=extra) as rig:
            until = time.monotonic() + 30
            while told.told < len(TOLD) or not rig.replies:
                assert time.monotonic() < until
                rig.settle(0.05)
            assert rig.replies == [PAYLOAD]  # fired by the stream, sent by another core
            rig.publish(messages, faults={0: lossy(0.2, 1), 1: lossy(0.2, 2)})
            rig.arrive()
            until = time.monotonic() + 30
            while first_of(rig) != {"site": len(envelopes), "node": len(TOLD)}:
                assert time.monotonic() < until  # it is written down once a second
                rig.settle(0.1)
            code, rows, seen = sources_of(rig)
            stopped = rig.stop()
    assert stopped.replies == [PAYLOAD]
    assert len(stopped.hashes) == len(set(stopped.hashes))
    assert set(stopped.hashes) == TOLD_HASHES | {keccak256(raw).hex() for raw in envelopes}
    assert stopped.summary["streams"]["node"]["transactions"] == len(TOLD)
    assert stopped.summary["pump"]["not_handed_on"] == 0
    # Every core has written what it knows of the sources.
    assert code == 0, rows
    assert rows["site"]["state"] == "active"
    assert rows["site"]["first"] == len(envelopes)
    assert rows["site"]["missing"] == {"messages_lost": 0, "datagrams_overrun": 0}
    assert rows["node"]["state"] == "live"
    assert rows["node"]["first"] == len(TOLD)
    # The fake node has no pool, and its first connection broke.
    assert rows["node"]["missing"]["breaks_unread"] == 1
    assert "node: breaks of which nothing could be read" in seen
