"""Standard output never holds a hot loop up: a full pipe, a reader that left, a full disk."""

from __future__ import annotations

import os
import threading
import time

import pytest

from appliance.outlet import Outlet


@pytest.fixture
def pipe():
    reader, writer = os.pipe()
    yield reader, writer
    for fd in (reader, writer):
        try:
            os.close(fd)
        except OSError:
            assert fd == reader  # a test closed it


def _everything(reader: int) -> bytes:
    os.set_blocking(reader, False)
    got = b""
    try:
        while chunk := os.read(reader, 65536):
            got += chunk
    except BlockingIOError:
        pass
    return got


def test_lines_arrive_in_order(pipe):
    outlet = Outlet(pipe[1])
    for number in range(100):
        outlet.write(f"line {number}")
    assert _everything(pipe[0]).decode().splitlines() == [f"line {n}" for n in range(100)]
    assert outlet.lost == 0


def test_a_line_longer_than_the_pipe_takes_at_once_arrives_whole(pipe):
    outlet = Outlet(pipe[1])
    line = "x" * 300_000
    outlet.write(line)  # more than a pipe holds; a blocking write would hang here
    got = _everything(pipe[0])
    while len(got) < len(line) + 1:
        outlet.pump()
        got += _everything(pipe[0])
    assert got.decode() == line + "\n"


def test_nobody_reads(pipe):
    """Every write returns; whole lines are lost, and those that came are whole."""
    outlet = Outlet(pipe[1])
    lines = [f"{number:>999}" for number in range(3000)]
    for line in lines:
        outlet.write(line)
    assert outlet.lost > 0
    reader = threading.Thread(target=lambda: time.sleep(0.05))
    reader.start()
    outlet.finish(0.01)  # gives up
    reader.join()
    got = _everything(pipe[0]).decode().split("\n")[:-1]
    assert got == lines[: len(got)]
    assert outlet.lost == len(lines) - len(got)


def test_the_reader_left(pipe):
    outlet = Outlet(pipe[1])
    outlet.write("heard")
    os.close(pipe[0])
    outlet.write("not heard")
    outlet.write("neither")
    assert outlet.lost == 2
    assert "pipe" in outlet.broken.lower()


def test_a_full_disk():
    fd = os.open("/dev/full", os.O_WRONLY)
    try:
        outlet = Outlet(fd)
        outlet.write("x")
        assert outlet.lost == 1
        assert "space" in outlet.broken
    finally:
        os.close(fd)


def test_a_descriptor_that_is_closed():
    reader, writer = os.pipe()
    os.close(reader)
    os.close(writer)
    outlet = Outlet(writer)
    outlet.write("x")
    assert outlet.lost == 1
    assert outlet.broken
