"""Memberships in groups, renewed when the network has forgotten them.

Joining a group tells the switches once (IGMP, RFC 3376; MLD, RFC 3810); from then on only a
querier's question makes the kernel say it again, two minutes later or, where there is no querier,
never. A switch that was restarted, or another port of it, knows nothing; and of an interface that
was deleted and made anew the kernel itself has forgotten the group. Linux repeats its reports when
an interface is set up, not when its carrier comes back. So the group is left and joined again then:
that is the one way in which a socket can make the kernel report it.
"""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass

from dpdk_bindings.netlink import Announcements, Questions, attribute, attributes
from dpdk_bindings.sockets import Channel, interface_index, join, leave
from dpdk_bindings.tables import Tables

__all__ = ["Memberships"]

# linux/rtnetlink.h, linux/if.h, linux/if_link.h
_LINKS = 0x1  # RTMGRP_LINK
_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK = 16, 17, 18
_IFF_RUNNING = 0x40
_IFLA_IFNAME, _IFLA_CARRIER_UP_COUNT = 3, 47
_SO_BINDTOIFINDEX = 62
_MESSAGES_A_CALL = 16
_RETRY_NS = 1_000_000_000


@dataclass(slots=True)
class _Membership:
    socket: socket.socket
    channel: Channel
    index: int  # of the interface; 0: the kernel's choice
    chosen: int = 0  # that choice, when it was joined; 0: it had none, or did not say
    lost: bool = False  # to be joined again
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class _Link:
    index: int  # 0: deleted
    running: bool
    ups: int  # how often its carrier has come; 0: not told yet


_GONE = _Link(0, False, 0)


class Memberships:
    """The groups of one endpoint. They live as long as their sockets, which are the caller's.

    Attributes:
        renewed: how often a group was joined again.
        described: whether the kernel is listened to.
    """

    def __init__(self) -> None:
        self._all: list[_Membership] = []
        self._links: dict[str, _Link] = {}
        self._events: Announcements | None = None
        self._questions: Questions | None = None
        self._tables: Tables | None = None
        self._retry_at_ns = 0
        self.renewed = 0
        self.described = "none"

    def add(self, s: socket.socket, channel: Channel) -> None:
        """Follows the group of `channel`, which `s` has just joined."""
        if not self._all:
            self._listen()
        index = interface_index(channel.interface)
        self._all.append(_Membership(s, channel, index, self._choice(channel)))

    def _listen(self) -> None:
        try:
            self._events = Announcements(_LINKS)
        except OSError as error:  # a sandbox without netlink: kernel sockets work all the same
            self.described = f"not followed: {error.strerror}"
            return
        self._questions = Questions()
        self._tables = Tables()
        self.described = "followed"
        self._look([name for _, name in socket.if_nameindex()])

    def _choice(self, channel: Channel) -> int:
        """The interface by which the kernel joins a group that names none: that of its route."""
        if channel.interface is not None or self._tables is None:
            return 0
        try:
            return self._tables.route(channel.ip).link
        except OSError:
            return 0

    def _look(self, names: Iterable[str]) -> None:
        """Notes what these interfaces are now."""
        assert self._questions is not None
        anyone = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, 0, 0, 0)  # struct ifinfomsg
        for name in names:
            wanted = anyone + attribute(_IFLA_IFNAME, name.encode() + b"\0")
            try:
                self._note(_RTM_NEWLINK, self._questions.ask(_RTM_GETLINK, wanted))
            except OSError:
                self._gone(name)

    @property
    def trouble(self) -> str:
        """What is wrong with them now, or an empty string."""
        return "; ".join(one.trouble for one in self._all if one.trouble)

    def follow(self) -> None:
        """Reads what the kernel says of links, and joins again what was lost; never waits."""
        if self._events is None:
            return
        news = self._events.read(_MESSAGES_A_CALL)
        if news is None:  # some were lost: whatever they said, joining again mends it
            for one in self._all:
                one.lost = True
            self._look(list(self._links))
        for kind, body in news or ():
            self._note(kind, body)
        lost = [one for one in self._all if one.lost]
        if not lost:
            return
        now = time.monotonic_ns()
        if now >= self._retry_at_ns or any(not one.trouble for one in lost):
            self._retry_at_ns = now + _RETRY_NS
            for one in lost:
                self._renew(one)

    def close(self) -> None:
        """Closes what listens to the kernel."""
        if self._events is not None:
            self._events.close()
            self._events = None
        if self._questions is not None:
            self._questions.close()
            self._questions = None
        if self._tables is not None:
            self._tables.close()
            self._tables = None

    def _note(self, kind: int, body: bytes) -> None:
        """Notes what became of a link, and which groups were lost with its carrier."""
        if kind not in (_RTM_NEWLINK, _RTM_DELLINK) or len(body) < 16:
            return
        family, index, flags = struct.unpack_from("=BxxxiI", body)  # struct ifinfomsg
        told = attributes(body, 16)
        name = told.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace")
        if family != socket.AF_UNSPEC or not name:
            return
        before = self._links.get(name)
        if kind == _RTM_DELLINK:
            now = self._gone(name)
        else:
            ups = int.from_bytes(told.get(_IFLA_CARRIER_UP_COUNT, b""), "little")
            now = self._links[name] = _Link(index, bool(flags & _IFF_RUNNING), ups)
        if before is None or (now.index and not now.running):
            return
        flapped = before.ups and now.ups > before.ups  # between two messages
        if before.index != now.index or not before.running or flapped:
            for one in self._all:
                if self._is_by(one, name, now.index):
                    one.lost = True

    def _is_by(self, one: _Membership, name: str, index: int) -> bool:
        """Whether the link called `name`, which came or went, is the one that brings a group."""
        if one.channel.interface is not None:
            return one.channel.interface == name
        # Where the kernel said nothing it may be by any; and its choice may be another now.
        return one.chosen in (0, index) or self._choice(one.channel) != one.chosen

    def _gone(self, name: str) -> _Link:
        """Notes that there is no such link: only of ours, as hosts of containers name no end."""
        self._links.pop(name, None)
        if any(one.channel.interface == name for one in self._all):
            self._links[name] = _GONE
        return _GONE

    def _renew(self, one: _Membership) -> None:
        group, name = one.channel.ip, one.channel.interface
        known = self._links.get(name or "")
        index = known.index if known else 0
        if name and not index:
            one.trouble = f"interface {name} is gone, by which group {group} came"
            return
        try:
            _leave_if_there(one)
            if group.version == 6 and one.index != index:  # it was bound to the one that is gone
                one.socket.setsockopt(socket.SOL_SOCKET, _SO_BINDTOIFINDEX, index)
            join(one.socket, group, index)
        except OSError as error:
            one.trouble = f"group {group} cannot be joined again: {error.strerror}"
            return
        one.index, one.lost, one.trouble = index, False, ""
        one.chosen = self._choice(one.channel)
        self.renewed += 1


def _leave_if_there(one: _Membership) -> None:
    try:
        leave(one.socket, one.channel.ip, one.index)
    except OSError as error:
        # Forgotten with its interface; or left already, when joining again failed.
        if error.errno not in (errno.EADDRNOTAVAIL, errno.ENODEV):
            raise
