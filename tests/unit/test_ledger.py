"""What cores write about the sources, put together by appliance, and shown."""

from __future__ import annotations

import json
import time

import pytest

from appliance import ledger
from appliance.causes import Causes
from appliance.cli import main
from appliance.ledger import Ledger
from barewire.feeds.arbitration import Arbiter
from barewire.mempool.dedup import Dedup

MOLD = {"state": "active", "sessions": 1, "gaps": 2, "lost": 7, "refused": {"short": 3}}
STREAM = {
    "state": "live",
    "why": "",
    "connections": 2,
    "missed": 4,
    "unanswered": 5,
    "vanished": 6,
    "denied": 7,
    "refused": {"hash": 1},
    "hole": {
        "holes": 1,
        "filled": 9,
        "pool_refused": 1,
        "pools_unread": 8,
        "unfillable": 2,
        "blocks_unseen": 3,
    },
}


def opened(tmp_path, name, *, compares=False, appliance=1):
    arbiter = Arbiter(["site", "node"], Dedup()) if compares else None
    said: list[str] = []
    made = Ledger(tmp_path / f"{name}.sources", arbiter, appliance=appliance, tell=said.append)
    return made, arbiter, said


def write_cut(tmp_path) -> list[Ledger]:
    """A path that is cut twice: endpoints, receivers, comparison."""
    now = time.monotonic_ns()
    rx, _, _ = opened(tmp_path, "rx")
    feed, _, _ = opened(tmp_path, "feed")
    hit, arbiter, _ = opened(tmp_path, "hit", compares=True)
    arbiter.take(0, bytes(32), now, 1, now_mono_ns=now)
    rx.write({}, {"site": {"endpoint": {"rx_kernel_dropped": 11, "port_share_dropped": 2}}}, now)
    feed.write({}, {"site": MOLD}, now)
    hit.write({"node": STREAM}, {}, now)
    return [rx, feed, hit]


def test_what_several_cores_know_is_put_together(tmp_path):
    write_cut(tmp_path)
    other, _, _ = opened(tmp_path, "other", compares=True, appliance=2)
    other.write({}, {"site": MOLD | {"endpoint": {}}}, 5)
    seen = ledger.read(tmp_path)
    assert list(seen) == ["hit", "other"]
    rows = {row["source"]: row for row in seen["hit"]["sources"]}
    assert rows["site"]["first"] == 1
    assert rows["site"]["state"] == "active"
    assert rows["site"]["missing"] == {"datagrams_overrun": 13, "messages_lost": 7}
    assert rows["node"]["missing"] == {
        "pools_unread": 8,
        "breaks_unread": 2,
        "blocks_unread": 3,
        "mined_unseen": 4,
        "pool_refused": 1,
        "bodies_late": 5,
        "bodies_gone": 6,
        "bodies_denied": 7,
    }
    assert seen["other"]["at_mono_ns"] == 5
    [row] = [row for row in seen["other"]["sources"] if row["source"] == "site"]
    assert row["missing"] == {"datagrams_overrun": 0, "messages_lost": 7}
    # Every cause has words, and no words are without a cause.
    assert {cause for row in rows.values() for cause in row["missing"]} == set(ledger.MISSING)


def test_shown_by_cause_and_never_added_up(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    write_cut(tmp_path)
    assert main(["sources", "--folder", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "messages that neither a line nor a retransmission brought: 7" in said
    assert "blocks mined in a break and not looked through: 3" in said
    assert "active" in said


@pytest.mark.parametrize("gone", ["rx", "feed", "hit"])
def test_a_core_that_is_gone(tmp_path, capsys, gone):
    """Its file goes with it; what the others know is still shown."""
    ledgers = dict(zip(("rx", "feed", "hit"), write_cut(tmp_path), strict=True))
    ledgers[gone].close()
    status = main(["sources", "--folder", str(tmp_path), "-o", "json"])
    [content] = json.loads(capsys.readouterr().out).values()
    assert "site" in {row["source"] for row in content["sources"]}
    assert status == (0 if gone == "rx" else 1)
    assert main(["sources", "--folder", str(tmp_path)]) == status


def test_one_that_no_longer_writes_is_told(tmp_path, capsys):
    now = time.monotonic_ns()
    write_cut(tmp_path)
    feed, _, _ = opened(tmp_path, "feed")
    feed.write({}, {"site": MOLD}, now - 11 * 10**9)
    assert main(["sources", "--folder", str(tmp_path)]) == 1
    assert "has not written for a while" in capsys.readouterr().out


def test_no_folder_to_write_in_ends_nothing(tmp_path):
    lost, _, said = opened(tmp_path / "nowhere", "hit", compares=True)
    lost.write({}, {}, 1)
    assert said == [f"{tmp_path}/nowhere/hit.sources: No such file or directory"]


@pytest.mark.parametrize("kind", ["sources", "causes"])
def test_a_folder_that_is_none_any_more_is_told_and_stops_nothing(tmp_path, kind):
    (folder := tmp_path / "folder").write_bytes(b"")  # what unlink() meets there is an error too
    path = folder / f"hot.{kind}"
    said: list[str] = []
    if kind == "sources":
        Ledger(path, None, appliance=1, tell=said.append).write({}, {}, 1)
    else:
        Causes(path, said.append).write({}, [], 1)
    assert said == [f"{path}: Not a directory"]
