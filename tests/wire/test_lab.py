"""The helper that other tests stand on."""

from __future__ import annotations

import os
import signal
import socket

import pytest

from appliance import lab
from tests.requires import requires_root


@pytest.fixture(autouse=True)
def _root() -> None:
    requires_root()


def _receive(port: int) -> bytes:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.bind(("::", port))
        sock.settimeout(30)
        return sock.recvfrom(100)[0]


@pytest.mark.parametrize("six", [False, True])
def test_ends_reach_each_other(six: bool) -> None:
    with lab.Pair(mtu=9000, queues=2) as pair:
        child = pair.b.start(_receive, 5000)
        with pair.a, socket.socket(socket.AF_INET6 if six else socket.AF_INET, 2) as sock:
            sock.settimeout(0.05)
            while not os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                sock.sendto(b"x" * 50, (pair.b.ip6 if six else pair.b.ip4, 5000))
                with pytest.raises((TimeoutError, ConnectionRefusedError)):
                    sock.recv(1)
        assert child.result() == b"x" * 50
        assert "numrxqueues 2" in pair.b.run("ip", "-d", "link", "show", "veth0")
    assert not (lab.RUN / pair.a.name).exists()
    assert not (lab.RUN / pair.b.name).exists()


def test_errors_of_the_child_come_back() -> None:
    def fail() -> None:
        raise ValueError("of the child")

    with lab.Pair() as pair, pytest.raises(RuntimeError, match="of the child"):
        pair.a.call(fail)


def test_what_a_killed_owner_left_is_swept() -> None:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        pair = lab.Pair()
        pair.__enter__()
        os.write(writer, pair.a.name.encode())
        signal.pause()
    name = os.read(reader, 100).decode()
    os.close(reader)
    os.close(writer)
    assert (lab.RUN / name).exists()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    lab.sweep()
    assert not (lab.RUN / name).exists()
