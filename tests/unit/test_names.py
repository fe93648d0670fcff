"""Names looked up beside a hot thread: answers, none in time, a process that died."""

import os
import signal
import socket
import time

import msgspec
import pytest

from appliance.names import Found, Names, _Question, look_up


@pytest.fixture
def names():
    made = Names(patience_ns=5_000_000_000)
    yield made
    made.close()


def wait(names: Names, number: int, seconds: float = 10) -> Found:
    until = time.monotonic() + seconds
    while (found := names.answer(number)) is None:
        assert time.monotonic() < until
        time.sleep(0.01)
    return found


def test_an_address_and_none(names):
    there, not_there = names.ask("localhost"), names.ask("no-such-host.invalid")
    found = wait(names, there)
    assert set(found.addresses) <= {"127.0.0.1", "::1"}
    assert found.addresses
    assert found.trouble == ""
    found = wait(names, not_there)
    assert found.addresses == []
    assert found.trouble.startswith("'no-such-host.invalid' has no address: ")
    assert names.answer(there) is None  # given once


@pytest.mark.parametrize("host", ["", "a" * 70 + ".example", "\u00e4" * 300, "x\0y"])
def test_what_is_no_name(names, host):
    assert wait(names, names.ask(host)).addresses in ([], ["127.0.0.1"], ["::1", "127.0.0.1"])


def test_a_name_of_thousands_of_addresses(monkeypatch):
    """64 KiB of DNS hold so many, and the answer has to fit what it is told in."""
    many = [(0, 0, 0, "", (f"2001:db8:{n:x}::ffff:{n:x}", 0, 0, 0)) for n in range(4_000)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: many)
    found = look_up(_Question(1, "many.example"))
    assert found.addresses[:2] == ["2001:db8:0::ffff:0", "2001:db8:1::ffff:1"]
    assert len(msgspec.json.encode(found)) < 1 << 16


def test_a_link_local_address_comes_with_its_interface(monkeypatch):
    index = socket.if_nametoindex("lo")
    there = [(0, 0, 0, "", ("fe80::1", 0, 0, index)), (0, 0, 0, "", ("192.0.2.1", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: there)
    assert look_up(_Question(1, "near.example")).addresses == ["fe80::1%lo", "192.0.2.1"]


def test_an_interface_that_is_gone_by_then_is_told(monkeypatch):
    there = [(0, 0, 0, "", ("fe80::1", 0, 0, 1 << 30))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: there)
    found = look_up(_Question(1, "near.example"))
    assert (found.addresses, found.trouble[:14]) == ([], "'near.example'")


def test_nobody_answers_in_time():
    names = Names(patience_ns=50_000_000)
    os.kill(names.pid, signal.SIGSTOP)
    try:
        found = wait(names, names.ask("localhost"))
        assert found.trouble == "'localhost' was not found within 0.05 s"
    finally:
        names.close()


def test_a_process_that_died_is_started_again(names):
    first = names.pid
    os.kill(first, signal.SIGSTOP)
    lost = names.ask("localhost")
    os.kill(first, signal.SIGKILL)
    assert "process that looks names up ended" in wait(names, lost).trouble
    assert names.pid != first
    assert wait(names, names.ask("localhost")).addresses
    os.kill(names.pid, signal.SIGKILL)
    os.waitid(os.P_PID, names.pid, os.WEXITED | os.WNOWAIT)
    assert wait(names, names.ask("localhost")).addresses  # noticed when it is asked


def test_asking_does_not_wait(names):
    os.kill(names.pid, signal.SIGSTOP)
    began = time.monotonic()
    numbers = [names.ask(f"host-{n}.invalid") for n in range(20)]
    assert all(names.answer(number) is None for number in numbers)
    assert time.monotonic() - began < 5
    os.kill(names.pid, signal.SIGCONT)
    assert all(wait(names, number).trouble for number in numbers)
