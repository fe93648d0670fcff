"""Netlink messages: questions to the kernel's tables, and what it announces of them by itself.

Sources: RFC 3549; linux/netlink.h, linux/rtnetlink.h. A question is one system call and its answer
another, 10 us together; nothing here waits. Network namespace: the one in which an object was made.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator

__all__ = ["Announcements", "Questions", "attribute", "attributes", "blocks"]

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_REQUEST, _NLM_F_DUMP_INTR, _NLM_F_DUMP = 0x01, 0x10, 0x300
_SOL_NETLINK, _NETLINK_CAP_ACK = 270, 10  # linux/socket.h, linux/netlink.h
_ROOM_BYTES = 1 << 16
_OLD_ANSWERS = 16
_DUMPS = 16
_DISCARDED_A_CALL = 1024


def blocks(data: bytes | memoryview, header: str, size: int) -> Iterator[tuple[int, bytes]]:
    """Messages or attributes in `data`: a length that counts itself, a type, a body, padding."""
    at, end = 0, len(data)
    while end - at >= size:
        length, kind = struct.unpack_from(header, data, at)
        if not size <= length <= end - at:
            return
        yield kind, bytes(data[at + size : at + length])
        at += (length + 3) & ~3


def attributes(body: bytes, header_bytes: int = 0) -> dict[int, bytes]:
    """The attributes (struct rtattr) behind a message's own header, by type."""
    return {kind & 0x3FFF: value for kind, value in blocks(body[header_bytes:], "=HH", 4)}


def attribute(kind: int, value: bytes) -> bytes:
    """An attribute (struct rtattr), padded."""
    return struct.pack("=HH", len(value) + 4, kind) + value + bytes(-len(value) % 4)


class Questions:
    """Asks the kernel, one question at a time. Close it."""

    def __init__(self) -> None:
        self._socket = _open()
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)  # refusals without an echo
        self._room = memoryview(bytearray(_ROOM_BYTES))
        self._sequence = 0

    def ask(self, kind: int, body: bytes, *, flags: int = 0) -> bytes:
        """The body of the answer; with NLM_F_ACK in `flags`, of an acknowledgement: nothing.

        The kernel answers before send() returns.

        Raises:
            OSError: it refused, or gave no answer that is one.
        """
        sequence = self._send(kind, body, flags)
        for _ in range(_OLD_ANSWERS):
            got = self._socket.recv_into(self._room)
            if got < _HEADER.size:
                break
            length, answer, _, of, _ = _HEADER.unpack_from(self._room)
            if of != sequence:
                continue  # a late answer to a question that was given up
            if not _HEADER.size <= length <= got:
                break
            found = bytes(self._room[_HEADER.size : length])
            if answer != _NLMSG_ERROR:
                return found
            _raise_refusal(found)
            return b""
        raise _cut_off()

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """The bodies of a whole table, of one moment.

        Raises:
            OSError: the kernel refused, gave no answer that is one, or changes the table faster
                than it can be read.
        """
        for _ in range(_DUMPS):
            if (found := self._dumped(kind, body)) is not None:
                return found
        raise OSError(errno.EAGAIN, "the kernel's table changes while it is read")

    def _dumped(self, kind: int, body: bytes) -> list[bytes] | None:
        """One try; None: the table changed meanwhile.

        The kernel writes the next part when one is read: the socket is never found empty.
        """
        sequence = self._send(kind, body, _NLM_F_DUMP)
        found: list[bytes] = []
        changed = 0
        while True:
            got, at = self._socket.recv_into(self._room), 0
            while at + _HEADER.size <= got:
                length, answer, flags, of, _ = _HEADER.unpack_from(self._room, at)
                if not _HEADER.size <= length <= got - at:
                    break
                inside = bytes(self._room[at + _HEADER.size : at + length])
                at += (length + 3) & ~3
                if of != sequence:
                    continue
                changed |= flags & _NLM_F_DUMP_INTR
                if answer in (_NLMSG_ERROR, _NLMSG_DONE):
                    _raise_refusal(inside)
                    return None if changed else found
                found.append(inside)
            if at < got or not got:
                raise _cut_off()

    def _send(self, kind: int, body: bytes, flags: int) -> int:
        """Sends a question; its number."""
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        head = (_HEADER.size + len(body), kind, _NLM_F_REQUEST | flags, self._sequence, 0)
        self._socket.send(_HEADER.pack(*head) + body)
        return self._sequence

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()


class Announcements:
    """What the kernel tells of changes. Close it.

    Args:
        groups: bit mask of RTMGRP_... (linux/rtnetlink.h).

    Attributes:
        lost: how often announcements were lost, or too many to be read.
    """

    def __init__(self, groups: int) -> None:
        self._socket = _open(groups)
        self._room = memoryview(bytearray(_ROOM_BYTES))
        self.lost = 0

    def read(self, most: int) -> list[tuple[int, bytes]] | None:
        """Those that wait, as type and body, each once; None: look at everything anew.

        None where the socket ran over, or where more than `most` wait: whoever changes routes by
        the thousand is not read message by message. What waits is then thrown away. So what is
        read may be older than what the tables say now: it tells where to look, not what is there.
        """
        found: list[tuple[int, bytes]] = []
        for _ in range(most):
            try:
                size = self._socket.recv_into(self._room)
            except BlockingIOError:
                return found
            except OSError:  # ENOBUFS: it ran over
                break
            before = len(found)
            found += blocks(self._room[:size], "=IH", _HEADER.size)
            if len(found) == before:
                break  # cut off
        self.lost += 1
        self._discard()
        return None

    def _discard(self) -> None:
        """Empties the socket, which holds some hundreds of messages."""
        for _ in range(_DISCARDED_A_CALL):
            try:
                self._socket.recv_into(self._room, 1)
            except BlockingIOError:
                return
            except OSError:  # it ran over once more
                continue

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()


def _raise_refusal(body: bytes) -> None:
    """Raises what an error or the end of a dump says, unless that is that all is well."""
    if code := -struct.unpack_from("=i", body)[0]:
        raise OSError(code, os.strerror(code))


def _cut_off() -> OSError:
    return OSError(errno.EBADMSG, "the kernel's answer was cut off")


def _open(groups: int = 0) -> socket.socket:
    kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    s = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
    try:
        s.bind((0, groups))
    except BaseException:
        s.close()
        raise
    return s
