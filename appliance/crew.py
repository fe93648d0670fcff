"""Several cores: a process each, and a foreman that is not hot.

The foreman creates the rings, starts a process for each core, tells the others the numbers of the
peers when the first has opened its endpoints, and lets all go at once. Then it sleeps: it passes
signals on, puts their statistics together for the report, and when one of them dies it stops the
rest and says which. If the foreman dies, the kernel kills them.

They talk over a socket pair each, one JSON object a datagram. A hot core never waits for it: what
finds no room is left out.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from appliance.assembly import Appliance
from appliance.config import Config, Core
from appliance.core import Hot, die_with_parent
from appliance.joints import Joints, RingFds, create_rings
from appliance.loop import Loop
from appliance.output import complain
from appliance.report import Reporter
from appliance.signals import Signals, held
from barewire.errors import BarewireError, OutageError
from dpdk_bindings.errors import BindingsError

__all__ = ["cut_off", "hot_core", "run_crew"]

_ROOM = 1 << 20  # of one datagram between a core and the foreman
_STOP_S = 5.0
_LOOK_S = 0.1  # between two looks of the foreman at what was asked of it


@contextlib.contextmanager
def hot_core(
    config: Config, where: Path, core: Core, joints: Joints | None = None
) -> Iterator[tuple[Appliance, dict[str, Any], list[str]]]:
    """One core, hot and open: its part of the appliance, what was chosen, what to warn of."""
    with Hot(core) as hot:
        hot.settle()
        with Appliance(config, where, core, joints) as appliance:
            hot.harden()
            chosen = {f"core_{core.name}": hot.chosen} | appliance.chosen
            yield appliance, chosen, hot.warnings + appliance.warnings


def cut_off(appliance: Appliance) -> int:
    """Says why an appliance that nothing can reach any more has stopped; the exit status for it."""
    if not appliance.cut_off:
        return 0
    complain(f"stopped: {appliance.cut_off}", "start it again when the interface is back")
    return 1


def run_crew(config: Config, where: Path, reporter: Reporter, signals: Signals) -> int:
    """Runs all cores until a signal asks for a stop; 0 after a clean one, else the worst of theirs.

    Raises:
        BarewireError: a core could not open its part, or died.
    """
    fds = create_rings(config.cores)
    members: list[_Member] = []
    try:
        for index in range(len(config.cores)):
            members.append(_Member(config, where, index, fds, members))
        _conduct(config, members, reporter, signals)
        return max(member.end() for member in members)
    finally:
        for member in members:
            member.end()
        fds.close()


def _conduct(config: Config, members: list[_Member], reporter: Reporter, signals: Signals) -> None:
    first = members[0].hear()
    for member in members[1:]:
        member.say({"peers": first["peers"]})
    opened = [first, *(member.hear() for member in members[1:])]
    reporter.start(
        {part: what for one in opened for part, what in one["chosen"].items()},
        list(dict.fromkeys(warning for one in opened for warning in one["warnings"])),
    )
    began = time.monotonic()
    for member in reversed(members):  # who takes is there before who gives
        member.say({"go": True})
    every_s = config.statistics_every_s
    next_report = began + every_s
    with selectors.DefaultSelector() as ready:
        for member in members:
            ready.register(member.talk, selectors.EVENT_READ, member)
        while not all(member.final for member in members):
            _pass_on(signals, members)
            _kill_the_late(members)
            for key, _ in ready.select(min(max(0.01, next_report - time.monotonic()), _LOOK_S)):
                member = key.data
                said = member.hear()
                member.stats = said["stats"]
                if said["final"]:
                    member.final = True
                    ready.unregister(member.talk)
                    for other in members:
                        other.stop()
            if time.monotonic() >= next_report:
                next_report += every_s
                if all(member.stats for member in members):
                    reporter.statistics(_together(members))
    reporter.summary(_together(members), time.monotonic() - began)


def _pass_on(signals: Signals, members: list[_Member]) -> None:
    for member in members if signals.stop else ():
        member.stop()
    if signals.reload:
        signals.reload = False
        for member in members:
            member.reload()


def _kill_the_late(members: list[_Member]) -> None:
    for member in members:
        if member.late:
            raise OutageError(
                f"core {member.name!r} did not stop within {_STOP_S:g} s, and was killed",
                hint="it was stopped by a signal, or does not come back from a strategy or a port",
            )


class _Member:
    """The foreman's view of one core's process."""

    def __init__(
        self, config: Config, where: Path, index: int, fds: RingFds, others: list[_Member]
    ) -> None:
        self.name = config.cores[index].name
        self.talk, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self.talk, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ROOM)
        self.stats: dict[str, Any] = {}
        self.final = False
        self.asked_at = 0.0  # when it was asked to stop; 0: it was not
        self.status = 0
        # A signal that comes before the child has its own handlers would find ours in it.
        with held():
            self.pid = os.fork()
            if self.pid == 0:
                self.talk.close()
                for other in others:
                    other.talk.close()
                status = 1
                try:
                    status = _work(config, where, index, fds, theirs)
                except BaseException:  # noqa: BLE001  or it would unwind into the foreman's ends
                    traceback.print_exc()
                os._exit(status)
        theirs.close()

    def say(self, what: dict[str, Any]) -> None:
        """Tells the core something; one that is dead is noticed when it is heard."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.talk.send(msgspec.json.encode(what))

    def hear(self) -> dict[str, Any]:
        """What the core says next.

        Raises:
            BarewireError: it says that it cannot go on, or has died.
        """
        try:
            raw = self.talk.recv(_ROOM)
        except ConnectionResetError:
            raw = b""
        if not raw:
            _, status = os.waitpid(self.pid, 0)
            self.pid = 0
            code = os.waitstatus_to_exitcode(status)
            how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
            raise OutageError(
                f"core {self.name!r} died: {how}", hint="its own words, if any, are above"
            )
        said: dict[str, Any] = msgspec.json.decode(raw)
        if "error" in said:
            raise BarewireError(said["error"], hint=said["hint"])
        return said

    def stop(self) -> None:
        """Asks the core to stop, once."""
        if self.pid and not self.asked_at:
            self.asked_at = time.monotonic()
            os.kill(self.pid, signal.SIGTERM)

    def reload(self) -> None:
        """Has the core read its triggers again."""
        if self.pid:
            os.kill(self.pid, signal.SIGHUP)

    @property
    def late(self) -> bool:
        """It was asked to stop, and has had its time."""
        return bool(self.asked_at) and not self.final and time.monotonic() > self.asked_at + _STOP_S

    def end(self) -> int:
        """Sees to it that the process is gone; its exit status, 1 if a signal ended it."""
        self.stop()
        with contextlib.suppress(OSError):  # closed, or it is gone
            self.talk.shutdown(socket.SHUT_WR)  # if it waits for a word of ours, none will come
        deadline = self.asked_at + _STOP_S
        while self.pid:
            gone, status = os.waitpid(self.pid, os.WNOHANG)
            if gone:
                self.pid = 0
                code = os.waitstatus_to_exitcode(status)
                self.status = code if code >= 0 else 1
                break
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(0.005)
        self.talk.close()
        return self.status


def _work(config: Config, where: Path, index: int, fds: RingFds, talk: socket.socket) -> int:
    """One core's process, from start to end; returns its exit status."""
    die_with_parent()
    try:
        with Signals() as signals:
            return _turn(config, where, index, fds, talk, signals)
    except (BarewireError, BindingsError) as error:
        talk.send(msgspec.json.encode({"error": error.message, "hint": error.hint}))
        return 2
    except EOFError:  # the foreman is gone
        return 1


def _turn(
    config: Config,
    where: Path,
    index: int,
    fds: RingFds,
    talk: socket.socket,
    signals: Signals,
) -> int:
    core = config.cores[index]
    peers = _hear(talk)["peers"] if index else {}
    with hot_core(config, where, core, Joints.of(index, fds, peers)) as opened:
        appliance, chosen, warnings = opened

        def say(final: bool = False) -> None:
            said = {"stats": appliance.stats(), "final": final}
            flags = 0 if final else socket.MSG_DONTWAIT
            with contextlib.suppress(BlockingIOError):
                talk.send(msgspec.json.encode(said), flags)

        loop = Loop(appliance, signals, every_s=config.statistics_every_s, report=say)
        talk.send(
            msgspec.json.encode({"chosen": chosen, "warnings": warnings, "peers": appliance.peers})
        )
        _hear(talk)
        loop.run()
        appliance.stop()
        appliance.measure()
        say(final=True)
        return cut_off(appliance)


def _hear(talk: socket.socket) -> dict[str, Any]:
    raw = talk.recv(_ROOM)
    if not raw:
        raise EOFError
    said: dict[str, Any] = msgspec.json.decode(raw)
    return said


def _together(members: list[_Member]) -> dict[str, Any]:
    """Their statistics as one: what several count is added up."""
    whole: dict[str, Any] = {}
    for member in members:
        _add(whole, member.stats)
    return whole


def _add(to: dict[str, Any], more: dict[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, dict):
            _add(to.setdefault(key, {}), value)
        elif isinstance(value, int) and not isinstance(value, bool):
            to[key] = to.get(key, 0) + value
        else:
            to[key] = value
