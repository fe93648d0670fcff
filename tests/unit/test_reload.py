"""Triggers read again in a process of their own."""

from __future__ import annotations

import time
from pathlib import Path

from appliance.reload import Compiled, Reload
from barewire.mempool.trigger_table import TriggerTable

GOOD = """
[[source]]
name = "site"
lines = ["127.0.0.1:19001"]

[[trigger]]
name = "NAME"
"""


def finished(reload: Reload) -> Compiled | None:
    before, until = reload.said, time.monotonic() + 60
    while (compiled := reload.poll()) is None and reload.said == before:
        assert time.monotonic() < until, reload.said
        time.sleep(0.01)
    return compiled


def test_asked_again_while_it_reads_it_reads_again(tmp_path):
    """What it reads may be the file as it was before it was written anew."""
    where = tmp_path / "appliance.toml"
    where.write_text(GOOD.replace("NAME", "first"))
    reload = Reload(where, tmp_path)
    reload.begin({})
    where.write_text(GOOD.replace("NAME", "second"))
    reload.begin({})
    reload.begin({})
    assert finished(reload) is not None
    second = finished(reload)
    assert second is not None
    assert second.names == ["second"]
    with TriggerTable() as table:
        table.replace_serialised(second.blob, second.names)
        assert table.names == tuple(second.names)
    assert reload.poll() is None
    assert list(tmp_path.iterdir()) == [where]


def test_a_file_that_is_wrong_is_told_and_changes_nothing(tmp_path):
    where = tmp_path / "appliance.toml"
    where.write_text(GOOD.replace("NAME", "one") + "to = []\n")
    reload = Reload(where, Path(tmp_path))
    reload.begin({})
    assert finished(reload) is None
    assert reload.said.startswith("triggers stay as they are: ")
    assert "trigger[0].to = []" in reload.said
