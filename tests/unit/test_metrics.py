"""Metrics: what a loop writes down is what anyone reads, and what Prometheus understands."""

import json
import os
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.causes import Causes
from appliance.cli import main
from appliance.ledger import Ledger
from appliance.metrics import generate
from appliance.metrics.endpoint import server
from appliance.metrics.exposition import BOUNDS_NS, exposition
from appliance.metrics.files import alone, create, free_name, open_all
from appliance.metrics.places import SCHEMA, Counter, Histogram
from barewire.errors import BarewireError, OutageError
from dpdk_bindings.metrics import DUTY_KINDS, MetricsError, MetricsReader, MetricsWriter
from tests.requires import requires

IDLE, BUSY, HOUSEKEEPING, CALLBACK = range(4)


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="barewire-test-") as name:
        yield Path(name)


@pytest.fixture
def loop(folder):
    writer = create("rx0", folder=folder)
    yield writer
    writer.close()


def read(folder):
    """The only loop's reader, open until the test's process ends."""
    (path,) = folder.glob("*.metrics")
    return MetricsReader(path, schema=SCHEMA, counters=len(Counter), histograms=len(Histogram))


def test_generated_files_are_fresh():
    assert generate.main(write=False) == []


def test_counters_and_links(loop, folder):
    loop.count(Counter.DATAGRAMS_RECEIVED)
    loop.count(Counter.DATAGRAMS_RECEIVED, 41)
    loop.link("eth1 q0").received += 7
    loop.link("line A").dropped += 2
    assert loop.link("eth1 q0").received == 7
    reader = read(folder)
    assert reader.counters()[Counter.DATAGRAMS_RECEIVED] == 42
    assert sum(reader.counters()) == 42
    assert [(link.name, link.received, link.dropped) for link in reader.links()] == [
        ("eth1 q0", 7, 0),
        ("line A", 0, 2),
    ]
    for i in range(190):
        loop.link(f"{'of one long name':<80}{i}").received = i
    assert [link.received for link in reader.links()[2:]] == list(range(190))
    with pytest.raises(MetricsError, match="no place for link one too many"):
        loop.link("one too many")


@given(st.lists(st.integers(0, 2**36 - 1), min_size=1, max_size=200), st.floats(0, 1))
def test_quantiles_are_within_one_percent_of_numpys(values, quantile):
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="barewire-test-") as name:
        loop = create("h", folder=Path(name))
        for value in values:
            loop.observe(Histogram.TURN_SECONDS, value)
        seen = read(Path(name)).values(Histogram.TURN_SECONDS, (quantile,))
        loop.close()
    true = np.quantile(np.array(values, dtype=object), quantile, method="inverted_cdf")
    assert true <= seen.quantiles_ns[0] <= true + true / 128
    assert (seen.count, seen.sum_ns, seen.max_ns) == (len(values), sum(values), max(values))


def test_values_beyond_the_range_count_and_their_maximum_is_exact(loop, folder):
    for value in (0, 2**36, 2**63, 2**64 - 1):
        loop.observe(Histogram.TURN_SECONDS, value)
    seen = read(folder).values(Histogram.TURN_SECONDS, (0, 1))
    assert (seen.count, seen.max_ns, seen.quantiles_ns) == (4, 2**64 - 1, (0, 2**64 - 1))


def test_prometheus_buckets_count_what_numpy_counts(loop, folder):
    rng = random.Random(2)
    values = [int(10 ** rng.uniform(1, 10.5)) for _ in range(3000)]
    for value in values:
        loop.observe(Histogram.RING_SECONDS, value)
    counts, total, sum_ns = read(folder).cumulative(Histogram.RING_SECONDS, BOUNDS_NS)
    assert (total, sum_ns) == (3000, sum(values))
    for bound, count in zip(BOUNDS_NS, counts, strict=True):
        inside = np.array(values)
        # A bucket that straddles the bound is counted with it.
        assert (inside <= bound).sum() <= count <= (inside <= bound * (1 + 1 / 128)).sum()


def test_time_goes_to_what_it_was_spent_on(loop, folder):
    now = 10**9
    loop.turn(IDLE, now)
    for kind, ns in [(IDLE, 100), (BUSY, 2000), (HOUSEKEEPING, 30), (IDLE, 50)]:
        now += ns
        loop.turn(kind, now)
    duty = read(folder).duty()
    assert duty.spent_ns == {"idle": 150, "busy": 2000, "housekeeping": 30, "callback": 0}
    assert duty.turns == {"idle": 2, "busy": 1, "housekeeping": 1, "callback": 0}
    assert sum(duty.stalls.values()) == 0


@pytest.mark.parametrize("kind", [IDLE, BUSY, HOUSEKEEPING])
def test_a_stall_that_ran_is_the_fault_of_what_it_did(loop, folder, kind):
    # The clock of this test is the thread's CPU time: it ran all along.
    loop.housekeep()
    start = loop.handle.duty.mark_mono_ns
    loop.turn(kind, start)
    before = loop.handle.duty.mark_cpu_ns
    while (ran := time.thread_time_ns() - before) < 5_000_000:
        pass
    loop.turn(kind, start + ran)
    duty = read(folder).duty()
    assert {cause: n for cause, n in duty.stalls.items() if n} == {DUTY_KINDS[kind]: 1}
    assert duty.longest_ns[DUTY_KINDS[kind]] == ran


def test_a_core_stopped_by_a_signal_was_descheduled(folder):
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from appliance.metrics.files import create\n"
        "loop = create('stopped', folder=Path(sys.argv[1]), stall_ms=40)\n"
        "end = time.monotonic() + 30\n"
        "while time.monotonic() < end:\n"
        "    loop.housekeep()\n"
        "    for _ in range(100):\n"
        "        loop.turn(1, time.monotonic_ns())\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)])
    try:
        deadline = time.monotonic() + 20
        while not list(folder.glob("*.metrics")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        reader = read(folder)
        time.sleep(0.05)
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.05)
        process.send_signal(signal.SIGCONT)
        while not reader.duty().stalls["descheduled"]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert reader.duty().longest_ns["descheduled"] >= 40_000_000
    finally:
        process.kill()
        process.wait()


def test_each_error_once(loop, folder):
    for _ in range(3):
        loop.note("bad frame")
        loop.note("no next hop: " + "x" * 500)
    first, second = read(folder).errors()
    assert (first.text, first.count) == ("bad frame", 3)
    assert second.text == ("no next hop: " + "x" * 500)[:215]
    assert 0 < first.first_real_ns <= first.last_real_ns <= time.time_ns()
    for i in range(70):
        loop.note(f"error {i}")
    reader = read(folder)
    assert len(reader.errors()) == 64
    assert reader.errors_lost == 8


def test_other_files_are_refused(loop, folder):
    def attempt(path, schema=SCHEMA):
        return MetricsReader(path, schema=schema, counters=len(Counter), histograms=len(Histogram))

    with pytest.raises(MetricsError, match="written by another version"):
        attempt(loop.path, schema=SCHEMA ^ 1)
    whole = loop.path.read_bytes()
    other = folder / "other.metrics"
    for content, wrong in [
        (b"", "no metrics"),
        (b"x" * 4096, "no metrics"),
        (whole[:-1], "damaged"),
        (whole + b"x", "damaged"),
    ]:
        other.write_bytes(content)
        with pytest.raises(MetricsError, match=wrong):
            attempt(other)
    with open_all(folder) as (readers, (refused,)):
        assert [reader.name for reader in readers] == ["rx0"]
        assert refused.startswith(f"{other}: damaged")
    loop.close()
    with pytest.raises(OutageError, match=str(other)), open_all(folder):
        pass
    other.unlink()
    os.mkfifo(other)
    with pytest.raises(MetricsError, match="no metrics"):
        attempt(other)
    with pytest.raises(MetricsError, match="No such file"):
        attempt(folder / "absent")


@pytest.mark.parametrize("name", ["\udcff", "a\0b"])
def test_what_could_not_be_made_leaves_nothing(folder, name):
    with pytest.raises((UnicodeEncodeError, ValueError, MetricsError)):
        create(name, folder=folder)
    with pytest.raises((UnicodeEncodeError, MetricsError)):
        MetricsWriter(folder / "x.metrics", "\ud800", schema=1, counters=1, histograms=1)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("kind", ["causes", "sources"])
def test_a_file_that_cannot_be_removed_does_not_stop_the_end(folder, kind):
    path = folder / f"x.{kind}"
    path.mkdir()
    told: list[str] = []
    if kind == "causes":
        Causes(path, told.append).close()
    else:
        Ledger(path, None, appliance=1, tell=told.append).close()
    assert len(told) == 1


def test_a_writer_takes_its_file_with_it(folder):
    loop = MetricsWriter(folder / "a.metrics", "a", schema=1, counters=1, histograms=1)
    assert loop.path.stat().st_mode & 0o777 == 0o600
    reader = MetricsReader(loop.path, schema=1, counters=1, histograms=1)
    loop.count(0, 5)
    loop.close()
    loop.close()
    for use in (lambda: loop.count(0), lambda: loop.note("x"), loop.housekeep):
        with pytest.raises(TypeError):
            use()
    assert list(folder.iterdir()) == []
    assert reader.counters() == [5]
    reader.close()


def fill(loop):
    rng = random.Random(1)
    for _ in range(500):
        loop.observe(Histogram.WIRE_TO_WIRE_SECONDS, int(rng.lognormvariate(9, 0.4)))
    loop.count(Counter.SHOTS_FIRED, 500)
    loop.link('a "quoted" \\ link').received = 3
    loop.note("an error\nof two lines")
    loop.turn(IDLE, 10**9)
    loop.turn(BUSY, 2 * 10**9)
    loop.housekeep()


def test_promtool_accepts_the_names(loop, folder):
    requires(shutil.which("promtool") is not None, "promtool (Debian package prometheus)")
    fill(loop)
    other = create("rx1", folder=folder)
    with open_all(folder) as (readers, _):
        text = exposition(readers, unreadable=1)
    other.close()
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_command_shows_them(loop, folder, capsys):
    fill(loop)
    assert main(["metrics", "--folder", str(folder), "-o", "json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert shown["loop"] == "rx0"
    assert shown["pid"] == os.getpid()
    assert shown["counters"]["shots_fired"] == 500
    assert shown["histograms"]["wire_to_wire"]["count"] == 500
    assert shown["duty"]["spent_ns"]["busy"] == 10**9
    assert shown["errors"][0]["text"] == "an error\nof two lines"
    assert main(["metrics", "--folder", str(folder)]) == 0
    assert "wire_to_wire" in capsys.readouterr().out
    assert main(["metrics", "--folder", str(folder), "--prometheus"]) == 0
    assert 'barewire_shots_fired_total{loop="rx0"} 500\n' in capsys.readouterr().out
    (folder / "left.metrics").write_bytes(b"of another version")
    assert main(["metrics", "--folder", str(folder)]) == 1
    said = capsys.readouterr()
    assert "wire_to_wire" in said.out
    assert "left.metrics: no metrics" in said.err
    assert main(["metrics", "--folder", str(folder / "none")]) == 1
    assert "no loop has metrics" in capsys.readouterr().err


@pytest.fixture
def endpoint(folder):
    with server("127.0.0.1:0", folder) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield listening.server_address[1]
        listening.shutdown()
        thread.join()


def get(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return answer.read().decode()


def test_the_endpoint_serves_whoever_runs(endpoint, folder):
    with pytest.raises(urllib.error.HTTPError, match="503"):
        get(endpoint, "/metrics")
    loop = create("late", folder=folder)
    (folder / "left.metrics").write_bytes(b"of another version")
    for _ in range(3):
        shown = get(endpoint, "/metrics")
        assert 'barewire_loop_info{loop="late"' in shown
        assert "barewire_metrics_unreadable 1\n" in shown
    maps = Path("/proc/self/maps").read_text()
    assert maps.count(str(folder)) == maps.count(str(loop.path)) == 1  # the writer's
    loop.close()
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(endpoint, "/")


WRITES_AND_DIES = """
import os, pathlib, sys
from appliance.metrics.files import create
create("rx", folder=pathlib.Path(sys.argv[1])).count(0, 5)
os._exit(0)
"""


def test_one_that_died_is_told_of_but_does_not_run(folder):
    subprocess.run([sys.executable, "-c", WRITES_AND_DIES, folder], check=True)
    with open_all(folder) as (readers, _):
        text = exposition(readers)
    assert 'barewire_datagrams_received_total{loop="rx"} 5\n' in text
    assert "barewire_loop_info" not in text


def test_who_hangs_up_is_let_go_in_silence(endpoint, loop, capfd):
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", endpoint)) as rude:
            rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            rude.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
    assert "barewire_loop_info" in get(endpoint, "/metrics")
    assert capfd.readouterr().err == ""


def test_who_never_asks_is_let_go(folder, monkeypatch):
    monkeypatch.setattr("appliance.metrics.endpoint._PATIENCE_S", 0.1)
    with server("127.0.0.1:0", folder) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        with socket.create_connection(listening.server_address, timeout=20) as silent:
            assert silent.recv(1) == b""
        listening.shutdown()
        thread.join()


def test_the_endpoint_on_ipv6(folder, loop):
    with server("[::1]:0", folder) as listening:
        assert listening.server_address[0] == "::1"


def test_a_folder_that_others_may_write_to_is_refused(folder):
    folder.chmod(0o777)
    with pytest.raises(BarewireError, match="mode 0777: others may write to it"), alone(folder):
        create("rx", folder=folder)
    assert list(folder.iterdir()) == []


def test_a_folder_of_somebody_else_is_refused(folder, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(BarewireError, match="and this process is uid 12345"), alone(folder):
        create("rx", folder=folder)


def test_who_lives_is_asked_of_the_kernel_not_of_process_ids(folder):
    """A container that is started again gives its process the id that the dead one had."""
    code = (
        "import sys, time; from pathlib import Path\n"
        "from appliance.metrics.files import create\n"
        "create('hot', folder=Path(sys.argv[1])); print(flush=True); time.sleep(60)"
    )
    words = ["unshare", "-p", "-f", "--mount-proc", "--kill-child", sys.executable, "-c", code]
    for _ in range(2):
        with subprocess.Popen([*words, str(folder)], stdout=subprocess.PIPE) as inside:
            assert inside.stdout is not None
            inside.stdout.readline()
            with open_all(folder) as ((reader,), _):
                # Process 1 is there in every namespace, and is another one in each.
                assert reader.pid == 1
                assert reader.alive
                assert free_name("hot", folder) == "hot-2"
                inside.kill()
                inside.wait()
                until = time.monotonic() + 20
                while reader.alive:
                    assert time.monotonic() < until
                    time.sleep(0.01)
        assert free_name("hot", folder) == "hot"


def test_names_are_numbered_and_what_numbered_ones_left_is_removed(folder):
    first = create("hot", folder=folder)
    second = create(free_name("hot", folder), folder=folder)
    (folder / "hot-3.flight").write_bytes(b"left by one that was killed")
    (folder / "hot-3.about.1").write_bytes(b"")
    (folder / "hot-3x.flight").write_bytes(b"another loop's")
    assert free_name("hot", folder) == "hot-3"
    assert sorted(path.name for path in folder.iterdir()) == [
        "hot-2.metrics",
        "hot-3x.flight",
        "hot.metrics",
    ]
    first.close()
    assert free_name("hot", folder) == "hot"
    assert second.path.exists()
    second.close()


def test_an_address_that_cannot_be_used_is_named(folder):
    for address in ("nowhere", "9464", "127.0.0.1:x", "127.0.0.1:99999", "192.0.2.1:80"):
        with pytest.raises(BarewireError, match=f"cannot be served on {address}") as refused:
            server(address, folder)
        assert not {"Errno", "literal"} & set(re.findall(r"\w+", refused.value.message))


@pytest.mark.slow
def test_debians_prometheus_answers_a_p99(loop, folder, endpoint, tmp_path):
    requires(shutil.which("prometheus") is not None, "prometheus (Debian package prometheus)")
    config = tmp_path / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 1s}\n"
        "scrape_configs:\n"
        "  - job_name: barewire\n"
        f"    static_configs: [{{targets: ['127.0.0.1:{endpoint}']}}]\n"
    )
    with server("127.0.0.1:0", folder) as free:  # a port that nobody has
        port = free.server_address[1]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={tmp_path / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    query = (
        "/api/v1/query?query=histogram_quantile(0.99,"
        "rate(barewire_wire_to_wire_seconds_bucket%5B30s%5D))"
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            loop.observe(Histogram.WIRE_TO_WIRE_SECONDS, 9_000)
            time.sleep(0.01)
            try:
                result = json.loads(get(port, query))["data"]["result"]
            except (urllib.error.URLError, ConnectionError):
                continue
            if result and result[0]["value"][1] != "NaN":
                break
        assert result[0]["metric"]["loop"] == "rx0"
        assert 7e-6 <= float(result[0]["value"][1]) <= 10e-6
    finally:
        process.kill()
        process.wait()
