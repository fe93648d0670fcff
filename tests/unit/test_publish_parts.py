"""What `barewire publish` is made of: places, faults, files."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from appliance.envelope_files import read_envelopes
from appliance.faults import Faults, FaultyLine
from appliance.places import Place
from barewire import BarewireError
from barewire.feeds.envelope import to_messages
from barewire.feeds.mold_publisher import MoldPublisher

ENVELOPES = [b"\x02" + bytes(range(n)) for n in (1, 50, 200)]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("192.0.2.1:9000", Place("192.0.2.1", 9000)),
        ("239.1.1.1:9000@eth1", Place("239.1.1.1", 9000, "eth1")),
        ("[2001:db8:0::1]:1", Place("2001:db8::1", 1)),
        ("[ff02::1]:65535@eth1.7", Place("ff02::1", 65535, "eth1.7")),
    ],
)
def test_places(text, place):
    assert Place.parse(text) == place
    assert Place.parse(str(place)) == place


@pytest.mark.parametrize(
    "text",
    [
        *("", "192.0.2.1", "192.0.2.1:", "host:1", "2001:db8::1:1", "[192.0.2.1]:1"),
        *("1.2.3.4:65536", "[::ffff:192.0.2.1]:9000", "[fe80::1%eth1]:9000"),
    ],
)
def test_what_is_no_place(text):
    with pytest.raises(ValueError):
        Place.parse(text)
    with pytest.raises(BarewireError) as error:
        Place.argument(text)
    assert "239.1.1.1:9000@eth1" in error.value.hint


def carry_all(faults: Faults, number: int = 0) -> tuple[FaultyLine, list[bytes]]:
    line = FaultyLine(faults, number)
    out = [d for i in range(5000) for d in line.carry([b"%d" % i])]
    return line, out + line.flush()


def test_faults_are_counted_and_the_same_every_time():
    faults = Faults(loss=0.1, duplication=0.1, reordering=0.1, seed=7)
    line, out = carry_all(faults)
    assert carry_all(faults)[1] == out
    assert carry_all(faults, number=1)[1] != out
    assert 350 < line.lost < 650
    assert 350 < line.duplicated < 550
    assert 350 < line.reordered < 550
    times = Counter(out)
    assert 5000 - len(times) == line.lost
    assert sum(n == 2 for n in times.values()) == line.duplicated


def test_reordering_is_small():
    line, out = carry_all(Faults(reordering=0.2, seed=1))
    assert sorted(out, key=int) == [b"%d" % i for i in range(5000)]
    assert out != sorted(out, key=int)
    # Late by a few places, and by a few more when others were late before it.
    assert max(abs(i - int(d)) for i, d in enumerate(out)) < 12
    assert line.flush() == []


def test_no_faults_cost_nothing():
    batch = [b"x"]
    assert FaultyLine(Faults(), 0).carry(batch) is batch
    with pytest.raises(BarewireError, match="loss of 2"):
        Faults(loss=2)


@pytest.mark.parametrize(
    "content",
    [
        "\n".join(e.hex() for e in ENVELOPES),
        "# three\n\n" + "".join(f" 0x{e.hex().upper()} \r\n" for e in ENVELOPES),
        "".join(json.dumps("0x" + e.hex()) + "\n" for e in ENVELOPES),
        "".join(json.dumps({"hash": "0x1", "raw": "0x" + e.hex()}) + "\n\n" for e in ENVELOPES),
        "".join(json.dumps({"rawTransaction": e.hex()}) + "\n" for e in ENVELOPES),
        b"".join(len(e).to_bytes(4, "big") + e for e in ENVELOPES),
    ],
)
def test_files_are_told_apart(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert read_envelopes(path) == ENVELOPES


@pytest.mark.parametrize(
    ("content", "kind", "said"),
    [
        (b"", "auto", "no transaction in it"),
        (b"# nothing\n", "auto", "no transaction in it, read as hex"),
        (b"02\n02f\n", "auto", "file:2: '02f' is not hexadecimal"),
        (b"02\n0x\n", "auto", "file:2: an empty transaction"),
        (b"{}\n", "auto", "file:1: no raw transaction"),
        (b'"02"\n{\n', "auto", "file:2: not JSON"),
        (b"02", "binary", "at byte 0"),
        (b"\0\0\0\x01\x02\0\0\0\x09abc", "auto", "at byte 5 a transaction of 9 bytes"),
        (b"\0\0\0\0", "auto", "of 0 bytes"),
    ],
)
def test_bad_files_say_where(tmp_path, content, kind, said):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(BarewireError) as error:
        read_envelopes(path, kind)
    assert said in error.value.message


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(BarewireError, match="No such file"):
        read_envelopes(tmp_path / "none")


def test_a_capture_of_a_feed_and_of_raw_transactions(tmp_path):
    """Written by scapy; both lines in it, a fragment, heartbeats, and what is neither."""
    from scapy.layers.inet import IP, TCP, UDP
    from scapy.layers.l2 import Ether
    from scapy.packet import Raw
    from scapy.utils import wrpcap

    long = b"\x02" + bytes(5000)
    publisher = MoldPublisher("CAPTURE")
    feed = publisher.pack(
        m for e in [*ENVELOPES, long] for m in to_messages(e, publisher.max_message, 9)
    )
    feed.append(publisher.heartbeat())
    payloads = [d for datagram in feed for d in (datagram, datagram)]
    payloads += [b"\x02raw transaction", b"\xf8legacy", b"", b"\x7fELF", b"\x05other"]
    frames = [Ether() / IP(dst="239.1.1.1") / UDP(dport=9000) / Raw(p) for p in payloads]
    frames.append(Ether() / IP() / TCP() / Raw(b"\x02not UDP"))
    path = tmp_path / "in.pcap"
    wrpcap(str(path), frames)
    wanted = [*ENVELOPES, long, b"\x02raw transaction", b"\xf8legacy"]
    assert read_envelopes(path) == wanted
    wrpcap(str(path), [])
    with pytest.raises(BarewireError, match="read as pcap"):
        read_envelopes(path)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"raw":"\xff\xfe"}', "not JSON: .*can't decode byte 0xff"),
        (b"[" * 65_000, "not JSON: nested deeper than 2,500 levels"),
        (b'{"a":' * 65_000, "not JSON: nested deeper than 2,500 levels"),
        (b'{"raw":"0x02zz"}', "'0x02zz' is not hexadecimal"),
        (b'{"raw":"\\ud800"}', "not JSON|not hexadecimal"),
        (b'{"raw":' + b"9" * 5000 + b"}", "not JSON|no raw transaction"),
    ],
)
def test_lines_that_are_meant_to_hurt_are_named(tmp_path, line, said):
    path = tmp_path / "t.jsonl"
    path.write_bytes(b'"0x02c0"\n' + line + b"\n")
    with pytest.raises(BarewireError, match=f"t.jsonl:2: ({said})"):
        read_envelopes(path, "jsonl")
