"""Rings under load whose ends are killed: nothing torn, nothing lost, and the survivor is told."""

import mmap
import random
import shutil
import struct
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

import dpdk_bindings
from dpdk_bindings.ring import RingConsumer, RingKind, RingProducer, look
from tests.requires import requires

HERE = Path(__file__).parent
NATIVE = Path(dpdk_bindings.__file__).parent / "native"
BOARD = (
    *("returned", "consumed", "started", "torn", "gaps"),
    *("producer_died", "consumer_died", "watched", "missed"),
)
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g")


def build(folder, *options):
    requires(shutil.which("cc") is not None, "a C compiler")
    worker = folder / "ring_worker"
    include = dpdk_bindings.include_dir()
    subprocess.run(
        [
            *("cc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter"),
            *(f"-I{include}", f"-I{include / 'dpdk_bindings'}", f"-I{NATIVE}", *options),
            *(HERE / "ring_worker.c", NATIVE / "ring_file.c", "-o", worker),
        ],
        check=True,
    )
    return worker


class Stage:
    """A ring, its board, and the processes at its ends."""

    def __init__(self, worker, folder, kind, payload_bytes=1 << 17):
        self.worker = worker
        self.ring = folder / "under-fire.ring"
        self.board = folder / "board"
        self.board.write_bytes(bytes(4096))
        with self.board.open("r+b") as board:
            self.view = mmap.mmap(board.fileno(), 4096)
        RingProducer.create(
            str(self.ring), kind=kind, depth=256, mtu=2048, payload_bytes=payload_bytes
        ).close()
        self.running = {}

    def read(self, name):
        return struct.unpack_from("<Q", self.view, 8 * BOARD.index(name))[0]

    def start(self, who, role):
        before = self.read("started")
        self.running[who] = subprocess.Popen([self.worker, role, self.ring, self.board])
        self.wait(lambda: self.read("started") > before, f"{who} does not start")

    def kill(self, who):
        victim = self.running.pop(who)
        assert victim.poll() is None, f"{who} ended by itself: {victim.returncode}"
        victim.kill()
        victim.wait()

    def finish(self, who):
        process = self.running.pop(who)
        process.terminate()
        assert process.wait(30) == 0, who

    def wait(self, until, otherwise):
        deadline = time.monotonic() + 20
        while not until():
            assert time.monotonic() < deadline, otherwise
            for who, process in self.running.items():
                assert process.poll() is None, f"{who} ended by itself: {process.returncode}"
            time.sleep(0.0005)

    def close(self):
        for process in self.running.values():
            process.kill()
            process.wait()
        self.view.close()


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="barewire-test-") as name:
        yield Path(name)


def lossless(worker, folder, kills):
    rng = random.Random(kills)
    stage = Stage(worker, folder, RingKind.LOSSLESS)
    # The seat before the first record, so that the journal is owed all of them.
    RingConsumer.open(str(stage.ring), seat="journal").close()
    try:
        stage.start("producer", "produce")
        stage.start("consumer", "journal")
        died = epoch = 0
        for _ in range(kills):
            time.sleep(rng.random() * 0.02)
            if rng.random() < 0.5:
                epoch = look(str(stage.ring))[0].epoch
                stage.kill("producer")
                stage.wait(
                    lambda epoch=epoch: stage.read("producer_died") == epoch,
                    "the consumer was not told that its producer died",
                )
                stage.start("producer", "produce")
            else:
                died = stage.read("consumer_died")
                stage.kill("consumer")
                stage.wait(
                    lambda died=died: stage.read("consumer_died") == died + 1,
                    "the producer was not told that its consumer died",
                )
                stage.start("consumer", "journal")
        stage.finish("producer")
        stage.finish("consumer")
        assert stage.read("torn") == stage.read("gaps") == 0
        assert stage.read("consumed") == stage.read("returned") > 0
    finally:
        stage.close()


def lossy(worker, folder, kills, payload_bytes=1 << 17):
    rng = random.Random(kills)
    stage = Stage(worker, folder, RingKind.LOSSY, payload_bytes)
    watchers = ["one", "two"]
    try:
        stage.start("producer", "produce")
        for who in watchers:
            stage.start(who, "watch")
        for _ in range(kills):
            time.sleep(rng.random() * 0.02)
            victim = rng.choice(["producer", *watchers])
            if victim == "producer":
                epoch = look(str(stage.ring))[0].epoch
                stage.kill(victim)
                assert look(str(stage.ring))[0].died
                stage.wait(
                    lambda epoch=epoch: stage.read("producer_died") == epoch,
                    "no consumer was told that its producer died",
                )
                stage.start(victim, "produce")
            else:
                before = stage.read("returned")
                stage.kill(victim)
                stage.wait(
                    lambda before=before: stage.read("returned") > before,
                    "the producer of a lossy ring waited for a dead consumer",
                )
                stage.start(victim, "watch")
        for who in ("producer", *watchers):
            stage.finish(who)
        assert stage.read("torn") == stage.read("gaps") == 0
        assert stage.read("watched") > 0
    finally:
        stage.close()


def tight(worker, folder, kills):
    """A record may want the space of all others, the newest included."""
    lossy(worker, folder, kills, payload_bytes=4096)


SCENES = pytest.mark.parametrize("scene", [lossless, lossy, tight])


@SCENES
def test_ten_kills(scene, tmp_path, folder):
    scene(build(tmp_path), folder, 10)


@pytest.mark.slow
@SCENES
@pytest.mark.parametrize("options", [(), SANITIZE], ids=["plain", "sanitized"])
def test_a_hundred_kills(scene, options, tmp_path, folder):
    scene(build(tmp_path, *options), folder, 100)
