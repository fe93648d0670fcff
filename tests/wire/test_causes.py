"""Whatever is counted is seen from outside, by cause, and the last bad bytes with it."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from appliance import causes
from appliance.lab import Pair
from appliance.metrics.exposition import exposition
from appliance.metrics.files import open_all
from barewire.feeds.envelope import to_messages
from dpdk_bindings._native import ffi
from tests.requires import requires_root
from tests.transactions import envelope, make
from tests.wire.rig import Rig

TRIGGERS = '[[trigger]]\nname = "all"\n[[trigger]]\nname = "none"\nto = ["0x' + "11" * 20 + '"]\n'


@pytest.fixture(scope="module")
def pair():
    requires_root()
    with Pair() as made:
        yield made


def told(folder: Path, *words: str) -> Any:
    command = [sys.executable, "-m", "appliance", *words, "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout


def test_every_counter_of_the_statistics_is_in_metrics_and_prometheus(pair, tmp_path):
    """A stranger's datagrams, a transaction that is none, a frame that is broken; and matches."""
    good = [envelope(2, make(random.Random(n), 2, 1)) for n in range(20)]
    bad = b"\x02\xc0"
    publishers = f'publishers = ["{pair.a.ip4}"]'
    with Rig(pair, tmp_path, via=f'afxdp:veth0"\n{publishers}\n#"', triggers=TRIGGERS) as rig:
        rig.publish([m for n, raw in enumerate([*good, bad]) for m in to_messages(raw, 1450, n)])
        with pair.a, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            pair.a.run("ip", "addr", "add", "10.55.0.77/24", "dev", "veth0")
            stranger.bind(("10.55.0.77", 0))
            stranger.setsockopt(
                socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(pair.a.ip4)
            )
            stranger.sendto(b"listen to me", ("239.77.0.1", 9001))
        end = time.monotonic() + 20
        while True:
            rig.settle(0.2)
            known = causes.read(rig.records).get("hot", causes.Known())
            have = {(one.part, one.of, one.cause): one.value for one in known.counted}
            if have.get(("pump", "", "strangers")) and have.get(("matches", "", "all")) == 20:
                break
            assert time.monotonic() < end, have
        assert sum(value for (part, _, _), value in have.items() if part == "refused") == 1
        with open_all(rig.records) as (readers, _):
            text = exposition(readers, 0, causes.read(rig.records))
        shown = json.loads(told(rig.records, "metrics", "-o", "json"))[0]["counted"]
        samples = json.loads(told(rig.records, "samples", "-o", "json"))["hot"]
        words = told(rig.records, "samples") + told(rig.records, "metrics")
        summary = rig.stop().summary
    # Every number of the summary, and every field of the native structs behind it.
    # The loop's longest pause is the greatest value of a histogram there.
    parts = {part: what for part, what in summary.items() if part not in ("loop", "seconds")}
    assert {(one.part, one.of, one.cause) for one in causes.counted(parts)} <= have.keys()
    native = {
        "struct dpb_afxdp_stats": "endpoint/port_",
        "struct dpb_endpoint_counters": "endpoint/",
    }
    for struct, below in native.items():
        for name, _ in ffi.typeof(struct).fields:
            assert ("sources", "site", below + name) in have
    for part, of, cause in have:
        line = f'barewire_counted{{loop="hot",part="{part}",of="{of}",cause="{cause}"}} '
        assert line in text
    assert {(one["part"], one["of"], one["cause"]) for one in shown} >= have.keys()
    (refused,) = (one for one in samples if one["part"] == "refused")
    assert (refused["count"], refused["sample_hex"]) == (1, bad.hex())
    assert abs(refused["seen_real_ns"] - time.time_ns()) < 60e9
    assert bad.hex() in words
    assert "counted matches all: 20" in words


def test_samples_are_dated_when_their_count_grows(tmp_path):
    written = causes.Causes(tmp_path / "hot.causes", pytest.fail)
    for now, count in ((1, 3), (2, 3), (3, 4), (4, 4)):
        sample = causes.Sample("refused", "", "gas", count, 2, "02c0")
        written.write({"pump": {"datagrams": now}}, [sample], now)
        known = causes.read(tmp_path)["hot"]
        assert known.samples[0].seen_real_ns == (1 if count == 3 else 3)
        assert known.counted == [causes.Counted("pump", "", "datagrams", now)]
    written.close()
    assert causes.read(tmp_path) == {}
