"""Names of hosts looked up beside a hot thread, which asks and does not wait.

    names = Names()
    number = names.ask("node.example")
    ...                                        # turn the loop
    if (found := names.answer(number)) is not None:
        found.addresses or found.trouble

The C library's resolver blocks for as long as a name server takes. So it runs in a process of its
own, ``python -m appliance.names FD``, with a thread for each question: a name server that does not
answer holds up nobody who asks another one.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time

import msgspec

from appliance.beside import start_beside
from appliance.core import die_with_parent

__all__ = ["Found", "Names"]

_ROOM = 1 << 16  # of one datagram between the two
_MOST_ADDRESSES = 64  # a name can have thousands, and nobody tries them all
_PATIENCE_NS = 10_000_000_000


class Found(msgspec.Struct, frozen=True):
    """An answer: the addresses of a host in the resolver's order, or why there is none."""

    number: int
    addresses: list[str] = []
    trouble: str = ""


class _Question(msgspec.Struct, frozen=True):
    number: int
    host: str


class Names:
    """Asks, and collects answers. None of its methods waits; all belong to one thread.

    Args:
        patience_ns: how long an answer is waited for.
    """

    def __init__(self, *, patience_ns: int = _PATIENCE_NS) -> None:
        self._patience_ns = patience_ns
        self._number = 0
        self._asked: dict[int, tuple[str, int]] = {}  # number -> host, and until when
        self._found: dict[int, Found] = {}
        self._start()

    def _start(self) -> None:
        self._talk, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._talk.setblocking(False)
        with theirs:
            self._process = start_beside(
                [sys.executable, "-P", "-m", "appliance.names", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
            )

    @property
    def pid(self) -> int:
        """Of the process that looks names up."""
        return self._process.pid

    def ask(self, host: str) -> int:
        """Asks for the addresses of `host`; gives the number of the question."""
        self._number += 1
        question = msgspec.json.encode(_Question(self._number, host))
        try:
            self._talk.send(question)
        except OSError:
            # It has died, or is hung. A new one takes this question; others that were asked fail.
            self._start_again()
            self._talk.send(question)
        self._asked[self._number] = host, time.monotonic_ns() + self._patience_ns
        return self._number

    def answer(self, number: int) -> Found | None:
        """The answer to that question, once; None: not yet."""
        self._collect()
        if number in self._asked and time.monotonic_ns() > self._asked[number][1]:
            host, _ = self._asked.pop(number)
            seconds = self._patience_ns / 1e9
            return Found(number, trouble=f"{host!r} was not found within {seconds:g} s")
        return self._found.pop(number, None)

    def _collect(self) -> None:
        while True:
            try:
                raw = self._talk.recv(_ROOM)
            except BlockingIOError:
                return
            except ConnectionResetError:
                raw = b""
            if not raw:
                if self._asked:
                    self._start_again()
                return
            found = msgspec.json.decode(raw, type=Found)
            if self._asked.pop(found.number, None) is not None:  # else it was given up
                self._found[found.number] = found

    def _start_again(self) -> None:
        self.close()
        for number, (host, _) in self._asked.items():
            trouble = f"{host!r} was not found: the process that looks names up ended"
            self._found[number] = Found(number, trouble=trouble)
        self._asked = {}
        self._start()

    def close(self) -> None:
        """Ends the process."""
        self._talk.close()
        self._process.kill()
        self._process.wait()


def look_up(question: _Question) -> Found:
    """Looks it up here and now."""
    try:
        # Of each address one entry, not one for each kind of socket.
        entries = socket.getaddrinfo(question.host, None, type=socket.SOCK_STREAM)
        addresses = dict.fromkeys(_in_numbers(*entry[4]) for entry in entries)
    except (OSError, UnicodeError) as error:
        said = getattr(error, "strerror", None) or str(error)
        return Found(question.number, trouble=f"{question.host!r} has no address: {said}")
    return Found(question.number, list(addresses)[:_MOST_ADDRESSES])


def _in_numbers(address: str | int, _port: int | bytes, *of_six: int) -> str:
    """With the interface of a link-local address, which Python gives apart, as a number."""
    zone = of_six[1] if of_six else 0
    return f"{address}%{socket.if_indextoname(zone)}" if zone else str(address)


def _main(fd: int) -> None:
    die_with_parent()
    talk = socket.socket(fileno=fd)

    def answer(question: _Question) -> None:
        with contextlib.suppress(OSError):  # nobody is there any more
            talk.send(msgspec.json.encode(look_up(question)))

    while raw := talk.recv(_ROOM):
        question = msgspec.json.decode(raw, type=_Question)
        threading.Thread(target=answer, args=(question,), daemon=True).start()


if __name__ == "__main__":
    _main(int(sys.argv[1]))
