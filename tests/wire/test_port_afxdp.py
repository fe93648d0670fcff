"""The AF_XDP port on a veth pair: what it takes, what it leaves alone, what it counts."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from scapy.layers.inet import fragment

from appliance.lab import Namespace, Pair
from dpdk_bindings import BindingsError, Channel, Port, open_datagram, open_port
from dpdk_bindings._native import ffi, lib
from dpdk_bindings.afxdp import AfXdpPort
from tests.requires import requires, requires_root
from tests.wire.bpf_links import detach
from tests.wire.frames import IP, TCP, UDP, Ether, IPv6, Raw, raw_socket, udp

MODES = ("skb", "drv")


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    requires_root()
    with Pair(queues=2) as pair:
        yield pair


@contextlib.contextmanager
def opened(end: Namespace, options: str = "mode=skb") -> Iterator[Port]:
    with end:
        port = open_port(f"afxdp:{end.interface}?{options}")
    with port:
        yield port


def kernel_udp(end: Namespace, port: int = 5000, *, six: bool = False) -> socket.socket:
    with end:
        sock = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((end.ip6 if six else end.ip4, port))
    sock.settimeout(30)
    return sock


def gather(port: Port, count: int, seconds: float = 30) -> list[tuple[bytes, int, int]]:
    """Frames as (bytes, flow, queue); raises when `count` have not come in time."""
    got: list[tuple[bytes, int, int]] = []
    deadline = time.monotonic() + seconds
    while len(got) < count:
        with port.poll() as burst:
            for i in range(len(burst)):
                before = burst.arrival_ns(i)
                assert burst.clock(i) == lib.DPB_CLOCK_MONO
                assert 0 < before <= time.monotonic_ns()
                got.append((bytes(burst[i]), burst.flow(i), burst.queue(i)))
        if time.monotonic() > deadline:
            raise AssertionError(f"{len(got)} of {count} frames came: {port.stats()}")
    return got


def nothing(port: Port, seconds: float = 0.1) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert len(port.poll()) == 0


@pytest.mark.parametrize("six", [False, True], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("tags", [(), (7,)], ids=["plain", "tagged"])
@pytest.mark.parametrize("mode", MODES)
def test_takes_its_flow(pair: Pair, mode: str, tags: tuple[int, ...], six: bool) -> None:
    with opened(pair.b, f"mode={mode}") as port, raw_socket(pair.a) as out:
        other = port.add_flow(pair.b.ip6 if six else pair.b.ip4, 4999)
        number = port.add_flow(pair.b.ip6 if six else pair.b.ip4, 5000)
        assert number != other
        frame = udp(pair, b"for us", six=six, tags=tags)
        out.send(frame)
        assert [(got, flow) for got, flow, _ in gather(port, 1)] == [(frame, number)]
        stats = port.stats()
        assert (stats["rx_frames"], stats["rx_bytes"]) == (1, len(frame))
        assert (stats["rx_held"], stats["rx_unstamped"]) == (0, 0)


@pytest.mark.parametrize(
    ("mode", "offload", "payloads"),
    [
        ("auto", "on", [1200]),
        ("auto", "off", [400] * 3),
        ("skb", "on", [1200]),
        ("drv", "on", [400] * 3),
    ],
)
def test_what_a_sender_merges_on_veth_is_named(
    pair: Pair, mode: str, offload: str, payloads: list[int]
) -> None:
    """By UDP_SEGMENT (udp(7)): the remedies help, and are named where they are needed."""
    pair.a.run("ethtool", "-K", "veth0", "tx", "on", "tx-udp-segmentation", offload)
    try:
        with opened(pair.b, f"mode={mode}") as port, pair.a:
            port.add_flow(pair.b.ip4, 5000)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
                out.setsockopt(socket.SOL_UDP, 103, 400)  # linux/udp.h: UDP_SEGMENT
                out.sendto(bytes(1200), (pair.b.ip4, 5000))
            got = gather(port, len(payloads))
            why = port.info()["why"]
    finally:
        pair.a.run("ethtool", "-K", "veth0", "tx", "off")
    assert [len(frame) - 42 for frame, _, _ in got] == payloads
    assert ("mode=drv" in why and "tx-udp-segmentation off" in why) == (mode != "drv")


@pytest.mark.parametrize(("mode", "goes_over"), [("auto", True), ("skb", False)])
def test_what_a_sender_merges_beyond_the_mtu_is_counted_and_cut_from_then_on(
    pair: Pair, mode: str, goes_over: bool
) -> None:
    """Six datagrams in one packet: to the kernel, each counted. Then whole, by mode drv."""
    pair.a.run("ethtool", "-K", "veth0", "tx", "on", "tx-udp-segmentation", "on")
    try:
        with pair.b:
            endpoint = open_datagram(
                f"afxdp:veth0?mode={mode}", channels=[Channel(pair.b.ip4, 5000)]
            )
        with endpoint, pair.a:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
                out.setsockopt(socket.SOL_UDP, 103, 1400)  # linux/udp.h: UDP_SEGMENT
                out.sendto(bytes(6 * 1400), (pair.b.ip4, 5000))
                stats = endpoint.stats()
                assert (stats["port_passed_merged"], stats["rx_left_to_kernel"]) == (1, 6)
                assert stats["rx_datagrams"] == stats["port_kernel_rx_dropped"] == 0
                with pair.b:
                    endpoint.housekeeping()
                assert ("merges datagrams" in endpoint.trouble) == goes_over
                assert endpoint.describe()["mode"] == ("drv" if goes_over else "skb")
                out.sendto(bytes(6 * 1400), (pair.b.ip4, 5000))
                got: list[int] = []
                deadline = time.monotonic() + 30
                while len(got) < 6 * goes_over:
                    with endpoint.recv() as burst:
                        got += [len(burst[i]) for i in range(len(burst))]
                    assert time.monotonic() < deadline
                assert got == [1400] * 6 * goes_over
                assert endpoint.stats()["port_passed_merged"] == 2 - goes_over
        assert "tx-udp-segmentation: on" in pair.a.run("ethtool", "-k", "veth0")
    finally:
        pair.a.run("ethtool", "-K", "veth0", "tx", "off")


_TAKES_ONE = """
import sys, time
from dpdk_bindings import open_port
with open_port(sys.argv[1]) as port:
    port.add_flow(sys.argv[2], 5000)
    opened = time.monotonic_ns()
    print("ready", flush=True)
    while not (burst := port.poll()):
        pass
    print(opened, burst.arrival_ns(0), time.monotonic_ns())
    burst.release()
"""


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("ahead_s", [100_000, -1])
def test_arrival_times_are_of_the_time_namespace(pair: Pair, mode: str, ahead_s: int) -> None:
    """bpf_ktime_get_ns() reads the host's clock, whatever namespace the program's owner is in."""
    enter = ("unshare", "--time", "--monotonic", str(ahead_s))
    have = subprocess.run([*enter, "true"], capture_output=True)
    requires(have.returncode == 0, f"time namespaces: {have.stderr.decode().strip()}")
    way = f"afxdp:{pair.b.interface}?mode={mode}"
    with (
        pair.b.popen(
            *(*enter, sys.executable, "-c", _TAKES_ONE, way, pair.b.ip4),
            stdout=subprocess.PIPE,
        ) as child,
        raw_socket(pair.a) as out,
    ):
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
            out.send(udp(pair, b"x"))
            opened, arrived, now = map(int, child.stdout.readline().split())
        finally:
            child.kill()
    assert opened <= arrived <= now


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "types",
    [(0x88A8,), (0x8100, 0x8100), (0x88A8, 0x8100), (0x8100, 0x88A8), (0x9100,), (0x9100, 0x8100)],
    ids=["802.1ad", "nested", "QinQ", "odd", "9100", "9100+Q"],
)
def test_tags_that_are_not_parsed_are_left_to_the_kernel(
    pair: Pair, mode: str, types: tuple[int, ...]
) -> None:
    """Counted where they are tags to IEEE 802.1Q; 0x9100 never was, though switches had it."""
    frame = udp(pair, b"x")
    tags = b"".join(number.to_bytes(2, "big") + b"\0\7" for number in types)
    tagged = frame[:12] + tags + frame[12:]
    with (
        opened(pair.b, f"mode={mode}") as port,
        raw_socket(pair.a) as out,
        raw_socket(pair.b, 3) as tap,  # ETH_P_ALL
    ):
        port.add_flow(pair.b.ip4, 5000)
        out.send(tagged)
        end = time.monotonic() + 30
        while frame[14:] not in tap.recv(2000):  # the kernel may take the tag off for it
            assert time.monotonic() < end
        nothing(port)
        assert port.stats()["passed_tags"] == (types[0] != 0x9100)


@pytest.mark.parametrize("mode", MODES)
def test_leaves_the_rest_to_the_kernel(pair: Pair, mode: str) -> None:
    """Other ports, other addresses, fragments and options of the flow itself reach a socket."""
    with (
        opened(pair.b, f"mode={mode}") as port,
        raw_socket(pair.a) as out,
        kernel_udp(pair.b) as same,
        kernel_udp(pair.b, 5001) as other,
        kernel_udp(pair.b, six=True) as six,
    ):
        port.add_flow(pair.b.ip4, 5000)
        out.send(udp(pair, b"another port", port=5001))
        assert other.recv(100) == b"another port"
        out.send(udp(pair, b"another family", six=True))
        assert six.recv(100) == b"another family"

        ether = Ether(dst=pair.b.mac, src=pair.a.mac)
        whole = IP(src=pair.a.ip4, dst=pair.b.ip4) / UDP(sport=4000, dport=5000) / Raw(b"f" * 2000)
        for piece in fragment(whole, 1000):
            out.send(bytes(ether / piece))
        assert same.recv(4000) == b"f" * 2000
        header = IP(src=pair.a.ip4, dst=pair.b.ip4, options=b"\x01\x01\x01\x00")
        out.send(bytes(ether / header / UDP(sport=4000, dport=5000) / Raw(b"options")))
        assert same.recv(100) == b"options"
        stats = port.stats()
        assert stats["rx_frames"] == 0
        assert (stats["passed_fragments"], stats["passed_options"]) == (3, 1)


def test_frames_too_short_for_headers_are_left_alone(pair: Pair) -> None:
    with opened(pair.b) as port, raw_socket(pair.a) as out:
        port.add_flow(pair.b.ip4, 5000)
        port.add_flow(pair.b.ip6, 5000)
        for six in (False, True):
            frame = udp(pair, b"", six=six)
            for cut in range(14, 54 if six else 34):
                out.send(frame[:cut])
        nothing(port)
        out.send(udp(pair, b"still well"))
        gather(port, 1)


@pytest.mark.parametrize("mode", MODES)
def test_kernel_tcp_is_undisturbed(pair: Pair, mode: str) -> None:
    def serve(ready: int) -> int:
        with socket.create_server((pair.b.ip4, 8000)) as server:
            os.write(ready, b"!")
            connection, _ = server.accept()
            total = 0
            with connection:
                while chunk := connection.recv(65536):
                    total += len(chunk)
                connection.sendall(b"%d" % total)
            return total

    reader, writer = os.pipe()
    with opened(pair.b, f"mode={mode}") as port:
        port.add_flow(pair.b.ip4, 5000)
        child = pair.b.start(serve, writer)
        os.read(reader, 1)
        with pair.a, socket.create_connection((pair.b.ip4, 8000), timeout=5) as client:
            client.sendall(b"t" * 3_000_000)
            client.shutdown(socket.SHUT_WR)
            assert client.recv(100) == b"3000000"
        assert child.result() == 3_000_000
        assert port.stats()["rx_frames"] == 0
    os.close(reader)
    os.close(writer)


def test_takes_one_tcp_connection_only(pair: Pair) -> None:
    with opened(pair.b) as port, raw_socket(pair.a) as out:
        number = port.add_flow(pair.b.ip4, 80, protocol="tcp", remote=(pair.a.ip4, 1234))
        ether = Ether(dst=pair.b.mac, src=pair.a.mac)
        for sport, dport in ((1235, 80), (1234, 81), (1234, 80)):
            ip = IP(src=pair.a.ip4, dst=pair.b.ip4)
            out.send(bytes(ether / ip / TCP(sport=sport, dport=dport, flags="A")))
        (frame, flow, _queue), *more = gather(port, 1)
        assert (Ether(frame)[TCP].sport, flow, more) == (1234, number, [])
        six = port.add_flow(pair.b.ip6, 80, protocol="tcp", remote=(pair.a.ip6, 1234))
        ip6 = IPv6(src=pair.a.ip6, dst=pair.b.ip6)
        out.send(bytes(ether / ip6 / TCP(sport=1234, dport=80, flags="A")))
        assert gather(port, 1)[0][1] == six
        nothing(port)


def test_flows_come_and_go_while_running(pair: Pair) -> None:
    with opened(pair.b) as port, raw_socket(pair.a) as out, kernel_udp(pair.b) as kernel:
        out.send(udp(pair, b"before"))
        assert kernel.recv(100) == b"before"
        number = port.add_flow(pair.b.ip4, 5000)
        with pytest.raises(BindingsError, match="taken by this port already"):
            port.add_flow(pair.b.ip4, 5000)
        out.send(udp(pair, b"while"))
        gather(port, 1)
        port.remove_flow(number)
        out.send(udp(pair, b"after"))
        assert kernel.recv(100) == b"after"
        with pytest.raises(BindingsError, match="no flow"):
            port.remove_flow(number)
        assert port.add_flow("239.1.2.3", 5000) == number  # numbers are used again
        for wrong in (("10.0.0", 1), ("10.0.0.1", 0), ("10.0.0.1", 65536)):
            with pytest.raises(BindingsError):
                port.add_flow(*wrong)
        with pytest.raises(BindingsError, match="remote"):
            port.add_flow("10.0.0.1", 1, protocol="tcp")


@pytest.mark.parametrize("mode", MODES)
def test_every_queue_is_served(pair: Pair, mode: str) -> None:
    """Many senders spread over both queues of the wire; none is lost on the way."""
    with opened(pair.b, f"mode={mode}") as port, pair.a:
        port.add_flow(pair.b.ip4, 5000)
        assert port.info()["queues"] == 2
        for number in range(64):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
                out.sendto(bytes([number]), (pair.b.ip4, 5000))
        got = gather(port, 64)
        assert sorted(frame[42] for frame, _, _ in got) == list(range(64))
        queues = {queue for _, _, queue in got}
        assert queues == ({0, 1} if mode == "drv" else {0})  # veth's generic hook knows one queue


def test_a_queue_that_is_not_served_is_counted(pair: Pair) -> None:
    with opened(pair.b, "mode=drv&queues=1") as port, pair.a, kernel_udp(pair.b) as kernel:
        port.add_flow(pair.b.ip4, 5000)
        for _ in range(64):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
                out.sendto(b"x", (pair.b.ip4, 5000))
        time.sleep(0.1)
        passed = port.stats()["passed_unbound_queue"]
        assert 0 < passed < 64
        assert {queue for _, _, queue in gather(port, 64 - passed)} == {1}
        for _ in range(passed):
            kernel.recv(10)
    with pair.b, pytest.raises(BindingsError, match="it has queues 0 to 1"):
        open_port("afxdp:veth0?queues=0-2")


@pytest.mark.parametrize("mode", MODES)
def test_long_frames_are_one_piece(mode: str) -> None:
    requires_root()
    with Pair(mtu=9000) as pair, opened(pair.b, f"mode={mode}") as port, raw_socket(pair.a) as out:
        port.add_flow(pair.b.ip4, 5000)
        assert port.info()["several_buffers"]
        whole = udp(pair, os.urandom(8972))
        for _ in range(3000):  # more than the linearising buffers, and than the ring
            out.send(whole)
            assert gather(port, 1)[0][0] == whole
        assert port.stats()["rx_linearised"] == 3000
        held = port.poll()
        out.send(whole)
        while not held:
            held = port.poll()
        assert held.flags(0) == lib.DPB_FRAME_LINEARISED
        held.release()

        with raw_socket(pair.a, 0x88B5) as back:
            for size in (60, 4096, 4097, 8192, 8193, 9014):
                frame = bytes.fromhex(f"{pair.a.mac}{pair.b.mac}88b5".replace(":", ""))
                frame += os.urandom(size - 14)
                assert port.send(frame)
                port.flush()
                assert back.recv(10000) == frame
            assert not port.send(bytes(9019))
        stats = port.stats()
        assert (stats["tx_frames"], stats["tx_too_long"], stats["tx_pending"]) == (6, 1, 0)


def test_running_out_of_long_buffers_is_counted() -> None:
    requires_root()
    with Pair(mtu=9000) as pair, opened(pair.b) as port, raw_socket(pair.a) as out:
        port.add_flow(pair.b.ip4, 5000)
        frame = udp(pair, bytes(8000))
        held = []
        for _ in range(1100):
            out.send(frame)
            if burst := port.poll():
                held.append(burst)
        stats = port.stats()
        assert stats["rx_held"] == 1024
        assert stats["rx_no_linear_buffer"] == 1100 - 1024
        for burst in held:
            burst.release()
        out.send(frame)
        gather(port, 1)


def test_sends_without_any_flow(pair: Pair) -> None:
    with opened(pair.b) as port, kernel_udp(pair.a) as kernel:
        ether = Ether(dst=pair.a.mac, src=pair.b.mac)
        frame = bytes(ether / IP(src=pair.b.ip4, dst=pair.a.ip4) / UDP(sport=1, dport=5000))
        for _ in range(5000):  # more than twice round the ring
            assert port.send(frame)
            port.flush()
            kernel.recv(10)
        stats = port.stats()
        assert (stats["tx_frames"], stats["tx_ring_full"], stats["tx_pending"]) == (5000, 0, 0)


def test_a_full_transmit_ring_refuses_and_counts(pair: Pair) -> None:
    with opened(pair.b, "ring=64") as port, raw_socket(pair.a, 0x88B5) as back:
        frame = bytes.fromhex(f"{pair.a.mac}{pair.b.mac}88b5".replace(":", "")) + bytes(50)
        assert [port.send(frame) for _ in range(65)] == [True] * 64 + [False]
        assert port.stats()["tx_ring_full"] == 1
        port.flush()
        for _ in range(64):
            assert back.recv(100) == frame
        assert port.send(frame)


def test_a_slow_reader_is_told_what_it_lost(pair: Pair) -> None:
    with opened(pair.b, "ring=64") as port, raw_socket(pair.a) as out:
        port.add_flow(pair.b.ip4, 5000)
        for number in range(100):
            out.send(udp(pair, b"%03d" % number))
        got = [frame[42:45] for frame, _, _ in gather(port, 64)]
        assert got == [b"%03d" % number for number in range(64)]  # the newest are lost
        assert port.stats()["kernel_rx_ring_full"] == 36

        held = []
        for number in range(200):  # nothing is given back: 128 buffers, then none
            out.send(udp(pair, b"%03d" % number))
            if burst := port.poll():
                held.append(burst)
        stats = port.stats()
        assert stats["rx_held"] == 128
        assert stats["kernel_rx_fill_ring_empty"] + stats["kernel_rx_dropped"] >= 72
        for burst in held:
            burst.release()
        out.send(udp(pair, b"well again"))
        gather(port, 1)


def test_frames_dropped_without_release_come_back(pair: Pair) -> None:
    with opened(pair.b, "ring=64") as port, raw_socket(pair.a) as out:
        port.add_flow(pair.b.ip4, 5000)
        for _ in range(300):
            out.send(udp(pair, b"x"))
            while not port.poll():
                pass
        port.poll()
        stats = port.stats()
        assert (stats["rx_frames"], stats["leaked"], stats["rx_held"]) == (300, 300, 0)
        assert stats["kernel_rx_fill_ring_empty"] == 0


def test_a_frame_released_twice_in_c_is_ignored(pair: Pair) -> None:
    from dpdk_bindings._native import ffi

    with opened(pair.b, "ring=64") as port, raw_socket(pair.a) as out:
        port.add_flow(pair.b.ip4, 5000)
        ops = ffi.cast("struct dpb_port_ops *", port.ref()[0])
        native = ffi.cast("void *", port.ref()[1])
        frames: Any = ffi.new("struct dpb_frame[4]")
        out.send(udp(pair, b"x"))
        while ops.poll(native, frames, 4) == 0:
            pass
        ops.release(native, frames, 1)
        ops.release(native, frames, 1)
        frames[1].handle = 0xFFFFFFFFFFFFFFFF
        frames[2].handle = 0x1_0000_0000
        frames[3].handle = 0x1_8000_0000
        ops.release(native, frames + 1, 3)
        stats = port.stats()
        assert (stats["rx_released_twice"], stats["rx_held"]) == (4, 0)
        for number in range(400):  # and no buffer is in a ring twice
            out.send(udp(pair, b"%03d" % number))
            assert gather(port, 1)[0][0][42:45] == b"%03d" % number


def test_bursts_outlive_the_port(pair: Pair) -> None:
    with raw_socket(pair.a) as out:
        with opened(pair.b) as port:
            port.add_flow(pair.b.ip4, 5000)
            out.send(udp(pair, b"remains"))
            while not (burst := port.poll()):
                pass
            view = burst[0]
        assert bytes(view[42:49]) == b"remains"
        assert port.stats()["rx_frames"] == 1
        del view
        burst.release()
        with pytest.raises(BindingsError, match="closed"):
            port.poll()


def xdp_of(end: Namespace) -> str:
    return end.run("ip", "-d", "link", "show", end.interface)


@pytest.mark.parametrize("mode", MODES)
def test_close_leaves_the_interface_as_it_was(pair: Pair, mode: str) -> None:
    def looks() -> str:
        return pair.b.run("ethtool", "-k", "veth0") + xdp_of(pair.b)

    before = looks()
    with opened(pair.b, f"mode={mode}") as port:
        assert f"prog/xdp id {port.info()['program_id']}" in xdp_of(pair.b)
    assert looks() == before
    for _ in range(20):  # and at once again
        with opened(pair.b, f"mode={mode}"):
            pass
    assert looks() == before


@pytest.mark.parametrize("mode", MODES)
def test_refuses_to_displace_another_port(pair: Pair, mode: str) -> None:
    def hold(ready: int) -> None:
        with open_port(f"afxdp:veth0?mode={mode}"):
            os.write(ready, b"!")
            signal.pause()

    reader, writer = os.pipe()
    child = pair.b.start(hold, writer)
    try:
        os.read(reader, 1)
        for wanted in MODES:
            with pair.b, pytest.raises(BindingsError) as caught:
                open_port(f"afxdp:veth0?mode={wanted}")
            assert '"bw_flows"' in caught.value.message
            assert f"held by process {child.pid}" in caught.value.message
            assert "stop its owner" in caught.value.hint
    finally:
        child.kill()
        os.close(reader)
        os.close(writer)


def foreign_program(end: Namespace) -> int:
    """Attaches a program that passes everything, as `ip link set xdp` does. Gives its number."""
    import ctypes
    import struct

    from pyroute2 import IPRoute

    code = struct.pack("<BBhi", 0xB7, 0, 0, 2) + struct.pack("<BBhi", 0x95, 0, 0, 0)
    buffer, licence = ctypes.create_string_buffer(code), ctypes.create_string_buffer(b"GPL")
    attr = struct.pack(
        "<IIQQIIQII", 6, 2, ctypes.addressof(buffer), ctypes.addressof(licence), 0, 0, 0, 0, 0
    )
    attr += b"somebody".ljust(16, b"\0") + bytes(48)
    load = ctypes.create_string_buffer(attr)
    fd = ctypes.CDLL(None, use_errno=True).syscall(321, 5, load, len(attr))
    assert fd >= 0, os.strerror(ctypes.get_errno())
    with end, IPRoute() as route:
        index = route.link_lookup(ifname="veth0")[0]
        route.link("set", index=index, xdp_fd=fd)
    os.close(fd)
    number: int = int(xdp_of(end).split("prog/xdp id ")[1].split()[0])
    return number


def test_refuses_to_displace_a_foreign_program(pair: Pair) -> None:
    number = foreign_program(pair.b)
    try:
        for mode in ("auto", *MODES):
            with pair.b, pytest.raises(BindingsError) as caught:
                open_port(f"afxdp:veth0?mode={mode}")
            assert f'program "somebody", id {number}, held by no process' in caught.value.message
            assert "ip link set veth0 xdp off" in caught.value.hint
        assert f"id {number}" in xdp_of(pair.b)
    finally:
        pair.b.run("ip", "link", "set", "veth0", "xdp", "off")
    with opened(pair.b):
        pass


@pytest.mark.parametrize("mode", MODES)
def test_a_program_that_somebody_takes_off_is_put_back(pair: Pair, mode: str) -> None:
    with (
        opened(pair.b, f"mode={mode}") as port,
        raw_socket(pair.a) as out,
        kernel_udp(pair.b) as kernel,
    ):
        port.add_flow(pair.b.ip4, 5000)
        assert detach(port.info()["program_id"]) == 1
        out.send(udp(pair, b"to the kernel"))
        assert kernel.recv(100) == b"to the kernel"
        with pair.b:
            port.housekeeping()
        assert port.trouble.endswith("is attached again")
        assert port.stats()["program_taken_off"] == 1
        out.send(udp(pair, b"ours"))
        gather(port, 1)
    assert "xdp" not in xdp_of(pair.b)


def test_who_takes_the_program_off_again_is_not_fought(pair: Pair) -> None:
    """On a simulated clock: it is put back later each time, and at last it is calm again."""
    with opened(pair.b) as port, pair.b:
        assert isinstance(port, AfXdpPort)
        attachment = port._attachment
        looked: list[float] = []
        now = 0.0
        while len(looked) < 4:
            detach(port.info()["program_id"])
            before = port.stats()["program_taken_off"]
            attachment.look_after(port._port, now)
            if port.stats()["program_taken_off"] > before:
                looked.append(now)
            now += 0.5
        pauses = [b - a for a, b in itertools.pairwise(looked)]
        assert pauses == [2.0, 4.0, 8.0]
        assert attachment.trouble
        attachment.look_after(port._port, now + 100)
        assert attachment.trouble == ""


def test_another_program_in_its_place_is_told_and_left_alone(pair: Pair) -> None:
    with opened(pair.b) as port, pair.b:
        assert isinstance(port, AfXdpPort)
        attachment = port._attachment
        assert detach(port.info()["program_id"]) == 1
        number = foreign_program(pair.b)
        try:
            for second in range(0, 300, 5):
                attachment.look_after(port._port, float(second))
            assert "cannot be attached again: another is there" in attachment.trouble
            assert f"id {number}" in xdp_of(pair.b)
        finally:
            pair.b.run("ip", "link", "set", "veth0", "xdp", "off")
        attachment.look_after(port._port, 1000.0)
        assert attachment.trouble.endswith("is attached again")
        assert port.stats()["program_taken_off"] == 1


@pytest.mark.parametrize("mode", MODES)
def test_a_killed_owner_leaves_nothing(pair: Pair, mode: str) -> None:
    def run(ready: int) -> None:
        port = open_port(f"afxdp:veth0?mode={mode}")
        port.add_flow(pair.b.ip4, 5000)
        os.write(ready, b"!")
        while True:
            with contextlib.suppress(BindingsError):
                port.poll().release()

    reader, writer = os.pipe()
    with raw_socket(pair.a) as out, kernel_udp(pair.b) as kernel:
        for _ in range(3):
            child = pair.b.start(run, writer)
            os.read(reader, 1)
            out.send(udp(pair, b"taken"))
            time.sleep(0.02)
            child.kill()
            killed = time.monotonic()
            kernel.settimeout(0.05)
            while True:  # the interface works for the kernel again ...
                out.send(udp(pair, b"passed"))
                with contextlib.suppress(TimeoutError):
                    assert kernel.recv(100) == b"passed"
                    break
            assert time.monotonic() - killed < 20
            with opened(pair.b, f"mode={mode}") as port:  # ... and a new start succeeds
                port.add_flow(pair.b.ip4, 5000)
                out.send(udp(pair, b"taken again"))
                gather(port, 1)
            assert time.monotonic() - killed < 40
    os.close(reader)
    os.close(writer)


def test_zero_copy_that_the_driver_has_not_is_an_error(pair: Pair) -> None:
    with pair.b, pytest.raises(BindingsError) as caught:
        open_port("afxdp:veth0?mode=zerocopy")
    assert 'driver "veth" does not offer this mode' in caught.value.hint
    with opened(pair.b, "mode=auto") as port:
        assert (port.info()["mode"], port.info()["driver"]) == ("skb", "veth")
        assert port.info()["why"]


@pytest.mark.parametrize("mtu", [68, 1500, 1758, 1759, 3054, 3055, 3806, 3807, 9000])
def test_no_chunk_cuts_a_frame_that_is_taken_in_one_piece(mtu: int) -> None:
    """Behind the headroom; of a zero-copy chunk igb, igc and others see whole KiB only."""
    headroom = 256 + 16  # XDP_PACKET_HEADROOM and the program's stamp
    shape: Any = ffi.new("struct dpb_afxdp_shape *")
    for mode in (lib.DPB_AFXDP_SKB, lib.DPB_AFXDP_DRV, lib.DPB_AFXDP_ZEROCOPY):
        lib.dpb_afxdp_shape_of(mode, mtu, shape)
        room = (1 << shape.chunk_shift) - headroom
        if mode == lib.DPB_AFXDP_ZEROCOPY:
            room = room // 1024 * 1024
        assert shape.frame_bytes == mtu + 18
        assert bool(shape.several_buffers) == (shape.frame_bytes > room)
        assert shape.chunk_shift == (
            11 if mode != lib.DPB_AFXDP_ZEROCOPY and mtu + 18 <= 2048 - headroom else 12
        )


def test_a_mode_that_is_not_to_be_had_leaves_the_next_one_its_own_chunks(pair: Pair) -> None:
    """A tap has no zero-copy, which was tried on 4 KiB chunks, and does have native mode."""
    pair.b.run("ip", "tuntap", "add", "tap0", "mode", "tap")
    try:
        with pair.b, open_port("afxdp:tap0?mode=auto&ring=64") as port:
            about = port.info()
    finally:
        pair.b.run("ip", "link", "del", "tap0")
    assert (about["mode"], about["driver"]) == ("drv", "tun"), about
    assert "zerocopy" in about["why"]
    assert (about["chunk_bytes"], about["chunks"]) == (2048, 2 * 64 + 64)


def test_busy_polling_works(pair: Pair) -> None:
    with opened(pair.b, "busy_poll=on") as port, raw_socket(pair.a) as out:
        port.add_flow(pair.b.ip4, 5000)
        out.send(udp(pair, b"x"))
        gather(port, 1)


def test_a_missing_capability_is_named(pair: Pair) -> None:
    def without(numbers: tuple[int, ...]) -> tuple[str, str]:
        import ctypes

        libc = ctypes.CDLL(None)
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)
        data = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice 32 bits
        assert libc.capget(header, data) == 0
        for number in numbers:
            for word in (0, 1):
                data[number // 32 * 3 + word] &= ~(1 << number % 32)
        assert libc.capset(header, data) == 0
        try:
            open_port("afxdp:veth0?ring=2048")
        except BindingsError as error:
            return error.message, error.hint
        return "it worked", ""

    sys_admin, net_admin, net_raw, ipc_lock, bpf, perfmon = 21, 12, 13, 14, 39, 38
    for lacks, name in (
        ((net_raw,), "CAP_NET_RAW"),
        ((bpf, sys_admin), "CAP_BPF"),
        ((net_admin, sys_admin), "CAP_NET_ADMIN"),
        ((ipc_lock,), "CAP_IPC_LOCK"),
    ):
        message, hint = pair.b.call(without, lacks)
        assert name in hint, (lacks, message, hint)
    assert pair.b.call(without, (perfmon,)) == ("it worked", "")


def test_receives_while_another_thread_runs(pair: Pair) -> None:
    """Bursts dropped in another thread are given back by the port's own."""
    with opened(pair.b, "ring=64") as port, raw_socket(pair.a) as out:
        port.add_flow(pair.b.ip4, 5000)
        frame = udp(pair, b"x")
        bins: list[Any] = []
        stop = threading.Event()

        def drop() -> None:
            while not stop.is_set():
                with contextlib.suppress(IndexError):
                    bins.pop()

        thread = threading.Thread(target=drop)
        thread.start()
        got = 0
        try:
            while got < 2000:
                out.send(frame)
                if burst := port.poll():
                    got += len(burst)
                    bins.append(burst)
                del burst
        finally:
            stop.set()
            thread.join()
        bins.clear()
        port.poll()
        assert port.stats()["rx_held"] == 0
        assert port.leaked == got
