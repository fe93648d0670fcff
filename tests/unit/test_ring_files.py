"""Rings as files: other people's leftovers are refused in words, never crashed on."""

import random
import struct
import tempfile
from pathlib import Path

import pytest

from dpdk_bindings.ring import RingConsumer, RingError, RingKind, RingProducer, remove_ring


@pytest.fixture
def path():
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="barewire-test-") as folder:
        yield Path(folder) / "some.ring"


def make(path, kind=RingKind.LOSSLESS, records=20):
    with RingProducer.create(str(path), kind=kind, depth=32, mtu=256) as ring:
        for i in range(records):
            ring.publish(bytes([i]) * (i * 13 % 256))


def attempts(path):
    for attach in (
        lambda: RingProducer.open(str(path)),
        lambda: RingConsumer.open(str(path), seat="x"),
    ):
        with pytest.raises(RingError) as refusal:
            attach()
        yield refusal.value


def test_a_ring_belongs_to_its_user_alone(path):
    make(path)
    assert path.stat().st_mode & 0o7777 == 0o600
    path.chmod(0o660)
    for error in attempts(path):
        assert "mode 0660: others may write to it" in error.message


@pytest.mark.parametrize("size", [0, 1, 511, 4096, 100_000])
@pytest.mark.parametrize("fill", [b"\0", b"\xff", b"dpbring\0"])
def test_garbage_is_no_ring(path, size, fill):
    path.write_bytes((fill * size)[:size])
    path.chmod(0o600)
    for error in attempts(path):
        assert str(path) in error.message


def test_each_field_of_the_geometry_is_checked(path):
    make(path)
    whole = path.read_bytes()
    # version, header, kind, depth, mtu, granule, payload_bytes, seats, slots, payload, total, check
    for offset, width in [(8, 4), (12, 4), (16, 4), (20, 4), (24, 4), (28, 4), (32, 8)] + [
        (at, 8) for at in (40, 48, 56, 64, 72)
    ]:
        for value in (0, 1, 3, 2**31, 2**width - 1, 2 ** (8 * width) - 1):
            damaged = bytearray(whole)
            damaged[offset : offset + width] = (value % 2 ** (8 * width)).to_bytes(width, "little")
            if bytes(damaged) == whole:
                continue
            path.write_bytes(damaged)
            assert all(str(path) in error.message for error in attempts(path))


def test_a_file_cut_short_or_grown_is_refused(path):
    make(path)
    whole = path.read_bytes()
    for changed in (whole[:-1], whole + b"\0", whole[:4096]):
        path.write_bytes(changed)
        assert all("its geometry makes" in error.message for error in attempts(path))


def test_a_ring_whose_records_are_damaged_has_no_new_producer(path):
    make(path)
    raw = bytearray(path.read_bytes())
    slots = struct.unpack_from("<Q", raw, 48)[0]
    struct.pack_into("<Q", raw, slots + 10 * 64, 77)  # record 10 says it is record 77
    path.write_bytes(raw)
    with pytest.raises(RingError, match="records 1 to 20 are owed to its consumers, and only 11"):
        RingProducer.open(str(path))
    with RingConsumer.open(str(path), seat="x", start="oldest", burst=9) as consumer:
        assert consumer.poll() == 9
        with pytest.raises(RingError, match="damaged at record 10"):
            consumer.poll()


def test_a_producer_may_die_when_it_has_given_up_every_record(path):
    options = {"kind": RingKind.LOSSY, "depth": 8, "mtu": 2048, "payload_bytes": 4096}
    with RingProducer.create(str(path), **options) as ring:
        ring.publish(b"a" * 64)
        ring.publish(b"b" * 2048)
    raw = bytearray(path.read_bytes())
    slots = struct.unpack_from("<Q", raw, 48)[0]
    for seq in (1, 2):  # the next large one wants the space of both: they are said to be gone
        struct.pack_into("<Q", raw, slots + seq * 64, seq + 1)
    path.write_bytes(raw)
    with (
        RingProducer.open(str(path)) as ring,
        RingConsumer.open(str(path), start="oldest") as consumer,
    ):
        assert consumer.poll() == 0
        assert ring.publish(b"c" * 2048) == 3
        assert consumer.poll() == 1
        assert consumer.records.copy(0) == b"c" * 2048
        assert consumer.overruns == consumer.corrupt == 0


@pytest.mark.parametrize("kind", list(RingKind))
def test_any_bytes_in_the_slots_crash_no_consumer(path, kind):
    rng = random.Random(5)
    make(path, kind)
    whole = path.read_bytes()
    for _ in range(300):
        raw = bytearray(whole)
        slots = struct.unpack_from("<Q", raw, 48)[0]
        for _ in range(rng.randrange(1, 20)):
            at = slots + rng.randrange(32) * 64 + rng.choice([0, 8, 16, 24, 28])
            struct.pack_into("<Q", raw, at, rng.choice([rng.getrandbits(64), rng.randrange(60)]))
        path.write_bytes(raw)
        with RingConsumer.open(str(path), seat="x", start="oldest") as consumer:
            try:
                for _ in range(10):
                    consumer.poll()
                    consumer.records.checksum()
            except RingError as error:
                assert "damaged" in error.message  # noqa: PT017


def test_a_ring_lies_in_memory():
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        with pytest.raises(RingError, match="on a disk"):
            RingProducer.create(f"{folder}/x.ring", kind=RingKind.LOSSY, depth=4, mtu=8)


def test_another_geometry_is_refused_and_the_same_is_continued(path):
    make(path, records=3)
    with pytest.raises(RingError, match="depth 32 instead of 64"):
        RingProducer.create(str(path), kind=RingKind.LOSSLESS, depth=64, mtu=256)
    with RingProducer.create(str(path), kind=RingKind.LOSSLESS, depth=32, mtu=256) as ring:
        assert ring.publish(b"") == 4
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    "options",
    [
        {"depth": 3},
        {"depth": 1},
        {"depth": 2**25},
        {"depth": 2**32},
        {"depth": -2},
        {"mtu": 2**31},
        {"mtu": 4096, "payload_bytes": 4096},
        {"payload_bytes": 5000},
    ],
)
def test_impossible_geometries_are_named(options):
    with pytest.raises(RingError):
        RingProducer.create(
            "memfd:t", **({"kind": RingKind.LOSSY, "depth": 4, "mtu": 16} | options)
        )


def test_names_say_where(path):
    for name in ("journal", "shm:", "shm:a/b", "shm:../x", "tcp:x", "", "/a\0b", "memfd:a\0b"):
        with pytest.raises(RingError, match="does not say where a ring is"):
            RingConsumer.open(name)
        with pytest.raises(RingError, match="does not say where a ring is"):
            RingProducer.create(name, kind=RingKind.LOSSY, depth=4, mtu=16)
    with pytest.raises(RingError, match="memfd:x: has no name to others"):
        RingConsumer.open("memfd:x")
    with pytest.raises(RingError, match=r"no file can be made in .*/none: No such file"):
        RingProducer.create(str(path.parent / "none/x"), kind=RingKind.LOSSY, depth=4, mtu=16)
    with pytest.raises(RingError, match="No such file") as error:
        RingConsumer.open(str(path))
    assert error.value.hint == "nobody created it yet"
    path.symlink_to("/dev/zero")
    with pytest.raises(RingError):
        RingConsumer.open(str(path))
    with pytest.raises(RingError, match="Is a directory"):
        remove_ring(str(path.parent))
    with pytest.raises(RingError, match="there is none"):
        remove_ring("shm:there-is-none-of-this-name")
