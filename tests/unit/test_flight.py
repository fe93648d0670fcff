"""Flight recorders: what their numbers stand for, and what is no record."""

import json
import random
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from scapy.utils import rdpcap

from appliance import config, flight
from appliance.captured import write_capture
from appliance.captures import read_timed
from appliance.cli import main
from appliance.flight_reader import Datagram, Trace, read_records, real_ns
from appliance.ledger import Ledger
from appliance.mainnet_block import load_block_transactions
from appliance.metrics.files import alone, create
from appliance.records import Records
from appliance.reload import Reload
from appliance.strategy_kit import replay
from appliance.why import lines, story
from barewire._native import ffi, lib
from barewire.errors import BarewireError
from barewire.keccak import keccak256
from barewire.mempool.decoder import Decoder, Rules
from barewire.mempool.record import ORIGINS
from barewire.mempool.triggers import parse_triggers
from dpdk_bindings._native import ffi as rings_ffi
from dpdk_bindings._native import lib as rings_lib
from dpdk_bindings.ring import RingConsumer
from tests.transactions import envelope, make


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="barewire-test-") as name:
        yield Path(name)


def about(*triggers):
    return flight.About(
        *("hot", ["decode"], "prague", 1),
        sources=[flight.Listed("site", [("192.0.2.1", 9)])],
        triggers=parse_triggers([{"name": name} for name in triggers]),
    )


def trace(ring, hash_, trigger, *, origin=0):
    raw = ffi.new("struct bw_trace *")
    raw.origin = origin
    raw.hash, raw.matches, raw.raw_len = hash_, 1, 0
    raw.match[0].trigger, raw.match[0].outcome = trigger, -1
    ring.publish(bytes(ffi.buffer(raw)), kind=lib.BW_RECORD_TRACE)


def met(folder):
    return [record.matches[0].trigger for record in read_records(folder)]


def test_each_record_is_told_by_the_numbers_of_its_time(folder):
    """The triggers were read again, and a successor has others still."""
    with flight.create(folder, "hot", 4) as ring:
        assert list(read_records(folder)) == []  # it is about to start
        flight.write_about(folder, about("a", "b"), ring)
        trace(ring, b"1" * 32, 1)
        flight.write_about(folder, about("b", "c"), ring)
        flight.write_about(folder, about("b", "c", "d"), ring)  # and nothing in between
        trace(ring, b"2" * 32, 1)
    with flight.create(folder, "hot", 4) as ring:
        flight.write_about(folder, about("z"), ring)
        trace(ring, b"3" * 32, 0)
        trace(ring, b"4" * 32, 1)
        assert met(folder) == ["b", "c", "z", "#1"]
        (seen,) = story(b"2" * 32, folder)["sightings"]
        assert [one["trigger"] for one in seen["triggers"] if one["matched"]] == ["c"]
        for _ in range(5000):  # nothing is left of the former ones
            trace(ring, b"5" * 32, 0)
        flight.write_about(folder, about("last"), ring)
        assert len(list(folder.glob("hot.about.*"))) == 2
        assert set(met(folder)) == {"z"}
    assert flight.create(folder, "hot", 0) is None
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("number", range(lib.BW_ORIGINS + 1))
def test_how_it_came_is_told(folder, number):
    """Also by a number that only a later version writes."""
    with flight.create(folder, "hot", 4) as ring:
        flight.write_about(folder, about("a"), ring)
        trace(ring, b"1" * 32, 0, origin=number)
        told = story(b"1" * 32, folder)
    words = ("seen on site", "sent again", "the pool of site", "behind a gap", "a block of site")
    origin, said = (
        (ORIGINS[number], words[number]) if number < len(ORIGINS) else (f"#{number}", "seen on")
    )
    assert told["sightings"][0]["origin"] == origin
    assert said in " ".join(lines(told))


def test_of_very_many_triggers_those_are_told_that_have_to_do_with_it(folder):
    envelope = load_block_transactions()[0]
    to = f"0x{Decoder(Rules.preset('prague', 1)).decode(envelope).to.hex()}"
    triggers = [{"name": str(n), "to": [f"0x{n:040x}"]} for n in range(20_000)]
    triggers[77] = {"name": "dear", "to": [to.upper().replace("X", "x")], "gas": {"min": 2**40}}
    raw = ffi.new("struct bw_trace *")
    raw.hash, raw.matches, raw.raw_len = b"1" * 32, 1, len(envelope)
    raw.match[0].trigger, raw.match[0].outcome = 19_000, -1
    with flight.create(folder, "hot", 4) as ring:
        about = flight.About("hot", ["decode"], "prague", 1, triggers=parse_triggers(triggers))
        flight.write_about(folder, about, ring)
        ring.publish(bytes(ffi.buffer(raw)) + envelope, kind=lib.BW_RECORD_TRACE)
        told = story(b"1" * 32, folder)
    (seen,) = told["sightings"]
    assert [(one["trigger"], one["matched"]) for one in seen["triggers"]] == [
        ("19000", True),
        ("dear", False),
    ]
    assert seen["triggers"][1]["why"].startswith("gas: it is ")
    assert "  and 19,998 other triggers: not matched" in lines(told)


def test_what_no_recorder_writes_is_passed_over(folder, tmp_path):
    rng = random.Random(3)
    with flight.create(folder, "hot", 4) as ring:
        flight.write_about(folder, about("a"), ring)
        for _ in range(2000):
            size = rng.choice([0, 1, 71, 72, 200, 456, 600])
            ring.publish(rng.randbytes(size), kind=rng.randrange(5))
        trace(ring, b"1" * 32, 0)
        records = list(read_records(folder))
    assert any(isinstance(one, Trace) for one in records)
    datagrams = [one for one in records if isinstance(one, Datagram)]
    capture = tmp_path / "x.pcap"
    assert write_capture(capture, datagrams).frames == len(datagrams) > 0
    assert main(["record", "--to", str(capture), "--folder", str(folder)]) == 0
    assert main(["why", "31" * 32, "--folder", str(folder)]) == 0
    assert list(lines(story(b"1" * 32, folder)))


def test_a_file_that_is_none_is_named(folder):
    with flight.create(folder, "hot", 4) as ring:
        flight.write_about(folder, about("a"), ring)
    (path,) = folder.glob("*.about.*")
    path.write_bytes(b"{")
    with pytest.raises(BarewireError, match=f"{path}: "):
        list(read_records(folder))
    (folder / "hot.flight").write_bytes(b"x" * 5000)
    with flight.create(folder, "hot", 4) as ring:  # its successor begins anew
        flight.write_about(folder, about("a"), ring)
        assert list(read_records(folder)) == []


def test_all_times_are_by_one_reading_of_the_clocks(folder):
    """Two readings are apart by what lies between them: microseconds, or a time slice."""
    with flight.create(folder, "hot", 4) as ring:
        flight.write_about(folder, about("a"), ring)
        for _ in range(500):
            trace(ring, b"1" * 32, 0)
        consumer = RingConsumer.open(ring.fd, start="oldest", burst=500)
        consumer.poll()
        published = [consumer.records[i].publish_mono_ns for i in range(500)]
        consumer.close()
        shown = [real_ns(record) for record in read_records(folder)]
    assert len({real - mono for real, mono in zip(shown, published, strict=True)}) == 1
    assert abs(shown[-1] - time.time_ns()) < 60e9


def test_streams_are_sources_too(folder):
    """Their numbers follow those of the datagrams, whatever their order in the file."""
    path = folder / "a.toml"
    path.write_text(
        f'[metrics]\nfolder = "{folder}"\n[recorder]\nmegabytes = 4\n'
        '[[source]]\nname = "node"\nurl = "ws://127.0.0.1:1"\n'
        '[[source]]\nname = "site"\nlines = ["127.0.0.1:9"]\n'
    )
    loaded = config.load(path)
    records = Records(loaded, loaded.cores[0])
    channel = SimpleNamespace(address="127.0.0.1", port=9)
    records.write_about(
        loaded,
        [SimpleNamespace(channels=[channel])],
        {"destinations": {}, "retransmissions": {}},
        fires=False,
        triggers=None,
    )
    records.close()
    ((_, written),) = flight.read_about(folder)["hot"]
    assert [(one.name, one.channels, one.stream) for one in written.sources] == [
        ("site", [("127.0.0.1", 9)], False),
        ("node", [], True),
    ]


def put(ring, payload, kind, *, source, at_ns):
    held = rings_ffi.from_buffer(payload)
    record = {"data": held, "len": len(payload), "kind": kind, "source": source}
    record |= {"origin_ns": at_ns, "clock": rings_lib.DPB_CLOCK_MONO}
    ring.publish_burst(rings_ffi.new("struct dpb_record[]", [record]), 1)


def put_datagram(ring, payload, *, out, at_ns):
    raw = ffi.new("struct bw_recorded *")
    raw.out, raw.family, raw.len, raw.port = out, 4, len(payload), 7
    put(ring, bytes(ffi.buffer(raw)) + payload, lib.BW_RECORD_DATAGRAM, source=0, at_ns=at_ns)


def put_streamed(ring, tx, *, origin, at_ns, kept=None):
    raw = ffi.new("struct bw_trace *")
    raw.hash, raw.raw_len, raw.origin = keccak256(tx), len(tx), ORIGINS.index(origin)
    put(ring, bytes(ffi.buffer(raw)) + tx[:kept], lib.BW_RECORD_TRACE, source=1, at_ns=at_ns)


def test_a_capture_tells_directions_and_what_streams_brought(folder, tmp_path, capsys):
    """Read back by scapy and by us; a replay takes what came, and nothing that was sent."""
    rng = random.Random(3)
    site, own, other, pooled = (envelope(2, make(rng, 2)) for _ in range(4))
    long = envelope(2, make(rng, 2) | {"data": rng.randbytes(90_000), "gas": 10**7})
    with flight.create(folder, "hot", 4) as ring:
        told = about("a")
        told.sources.append(flight.Listed("node", [], stream=True))
        flight.write_about(folder, told, ring)
        now = time.monotonic_ns()
        put_streamed(ring, long, origin="announced", at_ns=now + 4)
        put_datagram(ring, site, out=False, at_ns=now + 1)
        put_datagram(ring, own, out=True, at_ns=now + 2)
        put_streamed(ring, other, origin="announced", at_ns=now + 3)
        put_streamed(ring, pooled, origin="pool", at_ns=now + 5)
        put_streamed(ring, site, origin="announced", at_ns=now + 6, kept=50)
    capture = str(tmp_path / "x.pcapng")
    assert main(["record", "--to", capture, "--folder", str(folder), "-o", "json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["sent"], said["streamed"], said["cut_short"]) == (1, 3, 1)

    packets = rdpcap(capture)
    assert len(packets) == said["frames"] == 6  # the long one takes two
    assert [packet.direction for packet in packets] == [1, 2, 1, 1, 1, 1]
    assert packets[0][Raw].load == site
    assert packets[1][Raw].load == own
    assert packets[2].sniffed_on == "hot/node"
    assert other in packets[2][Raw].load
    assert packets[-1].comments == [b"origin: pool"]
    for packet in packets:
        again = packet.copy()
        del again[IP].chksum, again[UDP].chksum
        assert bytes(Ether(bytes(again))) == bytes(packet)

    arrived = read_timed(Path(capture))
    assert [(one.envelope, one.origin) for one in arrived] == [
        (site, "announced"),
        (other, "announced"),
        (long, "announced"),
        (pooled, "pool"),
    ]
    assert [one.at_ns - arrived[0].at_ns for one in arrived] == [0, 2, 3, 4]

    class Counts:
        def __init__(self, actions, options):
            self.seen = []

        def on_match(self, match):
            self.seen.append((match.tx.raw, match.tx.origin))

    seen = replay(
        Counts, capture, triggers=[{"name": "all", "origin": list(ORIGINS)}], fork="osaka"
    )
    assert seen.strategy.seen == [(one.envelope, one.origin) for one in arrived]


@pytest.mark.parametrize("last", ["0", "-1", "nan", "inf"])
def test_a_time_that_is_none(folder, tmp_path, capsys, last):
    to = str(tmp_path / "x")
    assert main(["record", "--to", to, "--last", last, "--folder", str(folder)]) == 2
    assert f"--last {last} is no time" in capsys.readouterr().err


def test_a_full_disk_is_said(folder, capsys):
    with flight.create(folder, "hot", 4) as ring:
        flight.write_about(folder, about("a"), ring)
    assert main(["record", "--to", "/dev/full", "--folder", str(folder)]) == 1
    assert "/dev/full: No space left" in capsys.readouterr().err


def test_a_folder_that_somebody_removed_stops_nothing(folder, tmp_path):
    """systemd-logind does that to a user's when he logs out."""
    with alone(folder / "gone"):
        loop = create("hot", folder=folder / "gone")
    loop.path.unlink()
    loop.path.parent.rmdir()
    told = []
    arbiter = SimpleNamespace(report=list, missed=0)
    ledger = Ledger(folder / "gone" / "hot.sources", arbiter, appliance=1, tell=told.append)
    ledger.write({}, {}, 1)
    assert told == [f"{folder}/gone/hot.sources: No such file or directory"]
    reload = Reload(tmp_path / "a.toml", folder / "gone")
    reload.begin({})
    assert reload.said == f"triggers stay as they are: {folder}/gone: No such file or directory"
    assert reload.poll() is None
    reload.close()
    loop.close()
