"""Captures as ports, and who owns a frame. The oracle for the format is scapy."""

from __future__ import annotations

import gc
import itertools
import os
import struct
import time
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from scapy.utils import EDecimal, PcapNgWriter, PcapWriter, rdpcap

from dpdk_bindings import (
    FLOW_NONE,
    BindingsError,
    Released,
    frame_dtype,
    open_datagram,
    open_port,
)
from dpdk_bindings._native import ffi, lib

START_NS = 1_700_000_000_123_456_789


def arrival_ns(i: int, nano: bool) -> int:
    ns = START_NS + i * 1_000_000_001
    return ns if nano else ns // 1000 * 1000


def write(path: Path, frames: list[bytes], *, nano: bool = True, endian: str = "<") -> None:
    with PcapWriter(str(path), nano=nano, endianness=endian) as out:
        for i, frame in enumerate(frames):
            packet = Ether(frame)
            packet.time = EDecimal(arrival_ns(i, nano)) / 10**9
            out.write(packet)


def some(count: int) -> list[bytes]:
    return [
        bytes(Ether(dst="02:00:00:00:00:01", src="02:00:00:00:00:02") / Raw(bytes([i % 256]) * i))
        for i in range(1, count + 1)
    ]


@pytest.mark.parametrize("endian", "<>")
@pytest.mark.parametrize("nano", [False, True])
def test_reads_what_scapy_wrote(tmp_path: Path, nano: bool, endian: str) -> None:
    frames = some(150)
    write(tmp_path / "in.pcap", frames, nano=nano, endian=endian)
    got = []
    with open_port(f"pcap:{tmp_path}/in.pcap?burst=64") as port:
        while burst := port.poll():
            with burst:
                for i, view in enumerate(burst):
                    got.append((bytes(view), burst.arrival_ns(i)))
                    assert burst.clock(i) == lib.DPB_CLOCK_CAPTURE
                    assert burst.flow(i) == FLOW_NONE
                del view
        assert port.stats()["rx_frames"] == 150
        assert port.stats()["rx_held"] == 0
    assert [frame for frame, _ in got] == frames
    assert [ns for _, ns in got] == [arrival_ns(i, nano) for i in range(150)]


def test_scapy_reads_what_was_written(tmp_path: Path) -> None:
    frames = some(1000)
    out = tmp_path / "out.pcap"
    with open_port(f"pcap:?out={out}") as port:
        for frame in frames:
            assert port.send(frame)
        assert not port.send(bytes(262145))
        assert port.stats()["tx_too_long"] == 1
    packets = rdpcap(str(out))
    assert [bytes(packet) for packet in packets] == frames
    assert all(a.time <= b.time for a, b in itertools.pairwise(packets))
    assert abs(float(packets[0].time) - time.time()) < 60


def test_copies_one_capture_to_another(tmp_path: Path) -> None:
    frames = some(200)
    write(tmp_path / "in.pcap", frames)
    with open_port(f"pcap:{tmp_path}/in.pcap?out={tmp_path}/out.pcap") as port:
        while burst := port.poll():
            with burst:
                assert all(port.send(view) for view in burst)
        port.flush()
        assert [bytes(p) for p in rdpcap(f"{tmp_path}/out.pcap")] == frames


def test_says_what_a_file_is_when_it_is_no_capture(tmp_path: Path) -> None:
    for content in (b"", b"\xd4\xc3", b"not a capture at all, but long enough"):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(BindingsError, match="is no pcap or pcapng file"):
            open_port(f"pcap:{tmp_path}/x")
    (tmp_path / "cooked").write_bytes(struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 113))
    with pytest.raises(BindingsError, match="link type 113"):
        open_port(f"pcap:{tmp_path}/cooked")
    with pytest.raises(BindingsError, match="No such file"):
        open_port(f"pcap:{tmp_path}/missing")
    with pytest.raises(BindingsError, match="overwrite"):
        open_port(f"pcap:{tmp_path}/x?out={tmp_path}/x")


def test_reads_the_pcapng_that_scapy_wrote(tmp_path: Path) -> None:
    frames = some(150)
    path = tmp_path / "in.pcapng"
    with PcapNgWriter(str(path)) as out:
        for i, frame in enumerate(frames):
            packet = Ether(frame)
            packet.time = EDecimal(arrival_ns(i, False)) / 10**9
            packet.direction = i % 3  # 0: not told, 1: inbound, 2: outbound
            packet.comments = [b"x" * (i % 9)]
            out.write(packet)
    with open_port(f"pcap:{path}") as port:
        got = []
        while burst := port.poll():
            with burst:
                got += [(bytes(view), burst.arrival_ns(i)) for i, view in enumerate(burst)]
        stats = port.stats()
    assert got == [(f, arrival_ns(i, False)) for i, f in enumerate(frames) if i % 3 != 2]
    assert (stats["rx_outbound"], stats["rx_bad_record"]) == (50, 0)


def block(endian: str, kind: int, body: bytes) -> bytes:
    length = struct.pack(endian + "I", len(body) + 12)
    return struct.pack(endian + "I", kind) + length + body + length


def option(endian: str, code: int, value: bytes) -> bytes:
    return struct.pack(endian + "HH", code, len(value)) + value + bytes(-len(value) % 4)


def section(endian: str) -> bytes:
    return block(endian, 0x0A0D0D0A, struct.pack(endian + "IHHq", 0x1A2B3C4D, 1, 0, -1))


def interface(endian: str, link_type: int = 1, longest: int = 0, **options: bytes) -> bytes:
    codes = {"resolution": 9, "offset": 14}
    written = b"".join(option(endian, codes[name], value) for name, value in options.items())
    head = struct.pack(endian + "HHI", link_type, 0, longest)
    return block(endian, 1, head + written + (bytes(4) if options else b""))


def packet(endian: str, number: int, units: int, frame: bytes, options: bytes = b"") -> bytes:
    head = struct.pack(
        endian + "IIIII", number, units >> 32, units & 0xFFFFFFFF, len(frame), len(frame) + 1
    )
    return block(endian, 6, head + frame + bytes(-len(frame) % 4) + options)


@pytest.mark.parametrize("endian", "<>")
def test_sections_interfaces_and_blocks_of_all_kinds(tmp_path: Path, endian: str) -> None:
    """By the draft's own tables; no writer that is at hand makes most of these."""
    other = "<>"[endian == "<"]
    offset = struct.pack(endian + "q", 1_000_000_000)
    sent = option(endian, 2, struct.pack(endian + "I", 2 | 0x100))
    resolutions = [b"\x06", b"\x09", b"\x00", b"\x0c", bytes([0x80 | 20]), b"\x7f"]
    content = section(endian) + block(endian, 4, b"names, perhaps  ")
    content += b"".join(interface(endian, resolution=one) for one in resolutions)
    content += interface(endian, 113) + interface(endian, offset=offset)
    content += b"".join(packet(endian, n, 3 << 33 | 5, b"abc") for n in range(8))
    content += packet(endian, 0, 1, b"sent by us", sent) + packet(endian, 0, 2, b"")
    content += section(other) + interface(other, longest=4)
    content += block(other, 3, struct.pack(other + "I", 6) + b"simp")
    content += packet(other, 0, 7, b"other section")
    content += block(other, 2, struct.pack(other + "HHIIII", 0, 9, 0, 8, 3, 3) + b"old\0")
    (tmp_path / "x").write_bytes(content)
    units = 3 << 33 | 5
    with open_port(f"pcap:{tmp_path}/x") as port:
        with port.poll() as burst:
            got = [(bytes(view), burst.arrival_ns(i)) for i, view in enumerate(burst)]
        stats = port.stats()
    expected = [units * 1000, units, units * 10**9 % 2**64, units // 1000, units * 10**9 >> 20, 0]
    assert got == [
        *((b"abc", ns) for ns in expected),
        (b"abc", units * 1000 + 10**18),
        (b"", 2000),
        (b"simp", 0),
        (b"other section", 7000),
        (b"old", 8000),
    ]
    counted = ("rx_outbound", "rx_other_link", "rx_bad_record", "rx_cut_short")
    assert [stats[name] for name in counted] == [1, 1, 0, len(got) - 1]


@pytest.mark.parametrize(
    "broken",
    [
        block("<", 6, struct.pack("<IIIII", 0, 0, 0, 9, 9) + bytes(8)),
        block("<", 6, struct.pack("<IIIII", 1, 0, 0, 0, 0)),
        block("<", 6, struct.pack("<IIIII", 0, 0, 0, 2**32 - 1, 0)),
        block("<", 6, bytes(16)),
        block("<", 3, b""),
        block("<", 3, struct.pack("<I", 5)),
        block("<", 1, bytes(4)),
        block("<", 7, b"")[:-4] + bytes(4),
        struct.pack("<III", 7, 13, 13) + bytes(4),
        struct.pack("<III", 7, 8, 8),
        section("<")[:20],
        section("<")[:8] + bytes(20),
        b"\6\0\0\0",
    ],
)
def test_a_block_that_cannot_be_ends_the_input(tmp_path: Path, broken: bytes) -> None:
    good = packet("<", 0, 1, b"good")
    (tmp_path / "x").write_bytes(section("<") + interface("<") + good + broken + good)
    with open_port(f"pcap:{tmp_path}/x") as port:
        with port.poll() as burst:
            assert [bytes(view) for view in burst] == [b"good"]
        assert port.stats()["rx_bad_record"] == 1
        assert port.exhausted


@pytest.mark.parametrize("cut", [1, 15, 16, 17, 40])
def test_a_file_that_ends_inside_a_record(tmp_path: Path, cut: int) -> None:
    frames = some(3)
    write(tmp_path / "in.pcap", frames)
    whole = (tmp_path / "in.pcap").read_bytes()
    (tmp_path / "in.pcap").write_bytes(whole[:-cut])
    with open_port(f"pcap:{tmp_path}/in.pcap") as port:
        burst = port.poll()
        left = 2 if cut < 33 else 1
        assert [bytes(view) for view in burst] == frames[:left]
        burst.release()
        assert not port.poll()
        stats = port.stats()
        assert (stats["rx_frames"], stats["rx_bad_record"]) == (left, 1)


@given(st.binary(max_size=300), st.sampled_from([0xA1B2C3D4, 0xA1B23C4D]), st.sampled_from("<>"))
@settings(max_examples=200)
def test_any_bytes_behind_a_header(
    tmp_path_factory: pytest.TempPathFactory, rest: bytes, magic: int, endian: str
) -> None:
    path = tmp_path_factory.mktemp("any") / "in.pcap"
    path.write_bytes(struct.pack(endian + "IHHIIII", magic, 2, 4, 0, 0, 65535, 1) + rest)
    with open_port(f"pcap:{path}") as port:
        total = 0
        while burst := port.poll():
            with burst:
                total += sum(len(bytes(burst[i])) + 16 for i in range(len(burst)))
        assert total <= len(rest)
        assert (total == len(rest)) != bool(port.stats()["rx_bad_record"])


@pytest.fixture
def port(tmp_path: Path) -> Any:
    write(tmp_path / "in.pcap", some(100))
    with open_port(f"pcap:{tmp_path}/in.pcap?burst=10") as port:
        yield port


def test_use_after_release_raises(port: Any) -> None:
    burst = port.poll()
    burst.release()
    assert burst.released
    for use in (
        lambda: burst[0],
        lambda: len(burst),
        lambda: burst.arrival_ns(0),
        lambda: burst.flow(0),
        lambda: burst.address,
        lambda: memoryview(burst),
        lambda: bytes(burst),
        lambda: burst.__enter__(),
        lambda: list(burst),
    ):
        with pytest.raises(Released):
            use()


def test_a_second_release_raises(port: Any) -> None:
    burst = port.poll()
    burst.release()
    with pytest.raises(Released):
        burst.release()
    assert port.stats()["rx_released_twice"] == 0


@pytest.mark.parametrize(
    "view",
    [
        lambda burst: burst[3],
        lambda burst: burst[3][2:5],
        lambda burst: memoryview(burst[3])[1:],
        lambda burst: memoryview(burst),
        lambda burst: numpy.frombuffer(burst[0], dtype="u1")[4:],
    ],
)
def test_release_waits_for_views_and_their_slices(port: Any, view: Any) -> None:
    burst = port.poll()
    kept = view(burst)
    before = bytes(kept)
    with pytest.raises(BufferError, match="1 views of this burst"):
        burst.release()
    assert bytes(kept) == before
    del kept
    burst.release()
    assert port.stats()["rx_held"] == 0


def test_a_dropped_burst_is_counted_and_given_back(port: Any) -> None:
    burst = port.poll()
    view = burst[0][4:]
    del burst
    gc.collect()
    assert port.stats()["rx_held"] == 10
    assert port.stats()["leaked"] == 0  # a view still needs it
    del view
    assert port.stats()["leaked"] == 10
    port.poll().release()
    assert port.stats()["rx_held"] == 0
    assert port.leaked == 10


def test_an_exception_in_the_with_block_is_not_hidden(port: Any) -> None:
    burst = port.poll()
    view = burst[0]
    with pytest.raises(KeyError), burst:
        raise KeyError
    assert not burst.released
    del view
    burst.release()


def test_frames_outlive_the_port(port: Any) -> None:
    burst = port.poll()
    view = burst[0]
    expected = bytes(view)
    port.close()
    port.close()
    del port
    gc.collect()
    assert bytes(view) == expected
    del view
    burst.release()


def test_a_closed_port_says_so(port: Any) -> None:
    port.close()
    for use in (port.poll, port.flush, port.ref, lambda: port.send(b"x" * 60)):
        with pytest.raises(BindingsError, match="closed"):
            use()
    assert port.stats()["rx_frames"] == 0


def test_an_empty_burst_needs_no_care(port: Any) -> None:
    while burst := port.poll():
        burst.release()
    assert port.exhausted
    empty = port.poll()
    assert len(empty) == 0
    assert bytes(empty) == b""
    empty.release()
    empty.release()
    with empty, pytest.raises(IndexError):
        empty[0]


def test_descriptors_are_an_array(port: Any) -> None:
    dtype = numpy.dtype(frame_dtype())
    assert dtype.itemsize <= ffi.sizeof("struct dpb_frame") == 32
    with port.poll() as burst:
        table = numpy.frombuffer(burst, dtype=dtype)
        assert table["len"].tolist() == [len(view) for view in burst]
        assert table["arrival_ns"].tolist() == [burst.arrival_ns(i) for i in range(10)]
        assert (table["clock_flags"] & 15).tolist() == [lib.DPB_CLOCK_CAPTURE] * 10
        native = ffi.cast("struct dpb_frame *", burst.address)
        assert [native[i].len for i in range(10)] == table["len"].tolist()
        assert bytes(burst[-1]) == bytes(burst[9])
        with pytest.raises(TypeError):
            burst[0][0] = 1
        with pytest.raises(IndexError):
            burst[10]
        del table


def test_a_burst_cannot_be_made_up() -> None:
    from dpdk_bindings import Burst

    with pytest.raises(TypeError):
        Burst()


@pytest.mark.parametrize(
    ("address", "message", "hint"),
    [
        ("eth0", "names no backend", "afxdp:eth1"),
        ("dpkd:eth0", "no backend 'dpkd'", "afxdp, pcap"),
        ("pcap:", "names no file", "pcap:IN"),
        ("pcap:a?snaplen=3", "unknown option snaplen=3", "out, burst"),
        ("pcap:a?out=b&out=c", "gives 'out' twice", ""),
        ("afxdp:eth0?mode=native", "mode=native", "auto, skb, drv, zerocopy"),
        ("afxdp:eth0?ring=1000", "ring=1000", "power of two"),
        ("afxdp:eth0?ring=-1", "ring=-1", "from 64 to 32768"),
        ("afxdp:eth0?queues=3-1", "queues=3-1", "0-3,7"),
        ("afxdp:eth0?queues=1,1", "names one twice", ""),
        ("afxdp:eth0?queues=", "queues=", "0-3,7"),
        ("afxdp:no-such-interface?", "interface", ""),
        ("afxdp:nosuch0", 'interface "nosuch0": No such device', "ip link"),
        ("afxdp:", 'interface ""', "ip link"),
    ],
)
def test_addresses_that_are_wrong_say_how(address: str, message: str, hint: str) -> None:
    with pytest.raises(BindingsError) as caught:
        open_port(address)
    assert message in caught.value.message
    assert hint in caught.value.hint


def member_poll(member: Any) -> list[int]:
    frames = ffi.new("struct dpb_frame[64]")
    n = member.ops.poll(member.port, frames, 64)
    got = [frames[i].len for i in range(n)]
    member.ops.release(member.port, frames, n)
    return got


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    """Its pages are gone, and touching one would be the end of the process."""
    path = tmp_path / "in.pcap"
    write(path, some(1200))
    with open_port(f"pcap:{path}") as port:
        port.poll().release()
        os.truncate(path, 24)
        assert not port.poll()
        assert port.exhausted
        assert port.stats()["rx_bad_record"] == 1


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(BindingsError, match="no regular file"):
        open_port(f"pcap:{tmp_path}/fifo")


def test_members_of_a_shared_port_get_their_own(tmp_path: Path) -> None:
    frames = some(1200)
    write(tmp_path / "in.pcap", frames)
    port = open_port(f"pcap:{tmp_path}/in.pcap?out={tmp_path}/out.pcap")
    ops, native = port.ref()
    ref = ffi.new("struct dpb_port_ref *", {"ops": ffi.cast("void *", ops)})
    ref.port = ffi.cast("void *", native)
    share = lib.dpb_share_new(ref)
    first, second = lib.dpb_share_add(share), lib.dpb_share_add(share)
    assert lib.dpb_share_assign(share, FLOW_NONE, 7) < 0
    assert lib.dpb_share_assign(share, FLOW_NONE, second) == 0
    one, two = lib.dpb_share_member(share, first), lib.dpb_share_member(share, second)
    while not port.exhausted:  # the first finds nothing of its own, and fills the second's queue
        assert member_poll(one) == []
    stats = ffi.new("struct dpb_share_stats *")
    lib.dpb_share_stats(share, second, stats)
    assert (stats.waiting, stats.dropped) == (1024, 1200 - 1024)
    got = []
    while burst := member_poll(two):
        got += burst
    assert got == [len(frame) for frame in frames[:1024]]
    assert port.stats()["rx_held"] == 0
    room = one.ops.reserve(one.port, 60)
    ffi.memmove(room, b"x" * 60, 60)
    assert one.ops.commit(one.port, 60) == 0
    assert one.ops.flush(one.port) == 0
    lib.dpb_share_free(share)
    port.close()
    assert port.stats()["tx_frames"] == 1


def test_who_sends_by_a_port_that_is_closed_is_told_why(tmp_path):
    port = open_port(f"pcap:?out={tmp_path}/out.pcap")
    with open_datagram(port, channels=[]) as endpoint:
        peer = endpoint.add_peer("10.0.0.1", 9)
        assert endpoint.send(peer, b"x")
        assert endpoint.flush()
        port.close()
        assert not endpoint.send(peer, b"x")
        assert endpoint.stats()["tx_link_down"] == 1
        assert endpoint.stats()["tx_ring_full"] == 0
