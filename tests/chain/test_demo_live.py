"""``demo --live``: a real node, three lines, every swap matched once."""

import json
import os
import subprocess
import sys

import pytest

from tests.requires import requires_root


@pytest.mark.slow
def test_every_swap_is_matched_once_and_each_line_brought_it():
    requires_root()
    done = subprocess.run(
        [sys.executable, "-m", "appliance", "demo", "--live", "--messages", "60", "-o", "json"],
        capture_output=True,
        text=True,
        timeout=90,
        env=os.environ | {"PYTHONSAFEPATH": "1"},
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["swaps"] == seen["matched"] == seen["published"] == 60
    assert seen["duplicates"] == 120
    rows = {row["source"]: row for row in seen["sources"]["sources"]}
    assert set(rows) == {"mold", "ws-afxdp", "ws-kernel"}
    for row in rows.values():
        assert row["first"] + row["behind"] == 60
        assert row["state"] in ("live", "active")
        assert row["unlike_clocks"] == 0
    assert sum(row["first"] for row in rows.values()) == 60
    assert sum(row["earliest"] for row in rows.values()) == 60
    assert seen["winner"] == max(rows, key=lambda name: rows[name]["earliest"])
    one, other = seen["rounds"]  # whom the node tells first is not the same in both
    assert one["subscribed"] == other["subscribed"][::-1]
    assert one["swaps"] == other["swaps"] == one["matched"] == other["matched"] == 30
    for round_ in (one, other):
        assert round_["publisher"]["lateness_p50_us"] > 0
        assert {row["source"] for row in round_["sources"]["sources"]} == set(rows)
