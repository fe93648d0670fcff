"""Two network namespaces joined by a veth pair: the demo's stage, and that of tests and benchmarks.

    with Pair(queues=2, mtu=9000) as pair:
        with pair.a:                                  # this thread is now inside namespace a
            sock = socket.socket(...)                 # and the socket stays there
        child = pair.b.start(serve, pair.b.ip4)       # a forked process inside namespace b
        ...
        print(child.result(timeout=5))

Names carry the pid of their owner. What a killed owner left behind is swept by the next Pair, and
by an atexit hook where the owner could still run one.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import ctypes
import fcntl
import itertools
import os
import pickle
import re
import select
import signal
import socket
import struct
import subprocess
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

CLONE_NEWNET = 0x40000000
PREFIX = "bwns"
RUN = Path("/run/netns")
INTERFACE = "veth0"

_SIOCETHTOOL = 0x8946  # linux/sockios.h
_IFREQ_BYTES = 40  # linux/if.h
# linux/ethtool.h: ETHTOOL_STXCSUM, ETHTOOL_STSO, ETHTOOL_SGSO, ETHTOOL_SGRO
_ETHTOOL_OFF = (0x17, 0x1F, 0x24, 0x2C)

_libc = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count()


def _setns(fd: int) -> None:
    if _libc.setns(fd, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def sh(*command: str) -> str:
    """Runs a command and gives its output; its own words are in the error."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def _switch_offloads_off() -> None:
    """As ``ethtool -K veth0 tx off tso off gso off gro off``, in the namespace of this thread."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for command in _ETHTOOL_OFF:
            value = array.array("I", [command, 0])  # struct ethtool_value, which lives until then
            request = struct.pack("16sP", INTERFACE.encode(), value.buffer_info()[0])
            fcntl.ioctl(any_socket, _SIOCETHTOOL, request.ljust(_IFREQ_BYTES, b"\0"))


def sweep() -> None:
    """Deletes the namespaces (with them the veth pairs) of owners that are no more."""
    for path in RUN.glob(f"{PREFIX}-*"):
        match = re.fullmatch(rf"{PREFIX}-(\d+)-\d+\w", path.name)
        if match and not Path(f"/proc/{match[1]}").exists():
            with contextlib.suppress(RuntimeError):  # another sweep was quicker
                sh("ip", "netns", "del", path.name)


class Child:
    """A forked process inside a namespace, and what its function returns or raises."""

    def __init__(self, pid: int, pipe: int) -> None:
        self.pid = pid
        self._pipe = pipe
        self._reaped = False

    def result(self, timeout: float = 10.0) -> Any:
        """Waits for the function's return value; its exception is raised here, with its trace."""
        data = b""
        deadline = time.monotonic() + timeout
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._pipe], [], [], left)[0]:
                self.kill()
                raise TimeoutError(f"child {self.pid} gave no result in {timeout} s")
            chunk = os.read(self._pipe, 65536)
            if not chunk:
                break
            data += chunk
        self._reap()
        if not data:
            raise RuntimeError(f"child {self.pid} died without a result")
        ok, value = pickle.loads(data)  # noqa: S301 - from our own child
        if not ok:
            raise RuntimeError(f"in the child:\n{value}")
        return value

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Sends a signal; after SIGKILL also waits for the process to be gone."""
        if self._reaped:
            return
        os.kill(self.pid, number)
        if number == signal.SIGKILL:
            self._reap()

    def _reap(self) -> None:
        if not self._reaped:
            os.waitpid(self.pid, 0)
            os.close(self._pipe)
            self._reaped = True


class Namespace:
    """A named network namespace with one veth interface. ``with namespace:`` enters it."""

    def __init__(self, name: str, ip4: str, ip6: str, mac: str) -> None:
        self.name = name
        self.interface = INTERFACE
        self.ip4 = ip4
        self.ip6 = ip6
        self.mac = mac
        self._entered = threading.local()
        self._children: list[Child] = []

    def __enter__(self) -> Namespace:
        back = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._entered.__dict__.setdefault("stack", []).append(back)
        self._enter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        back = self._entered.stack.pop()
        _setns(back)
        os.close(back)

    def _enter(self) -> None:
        fd = os.open(RUN / self.name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(fd)
        finally:
            os.close(fd)

    @property
    def inside(self) -> tuple[str, ...]:
        """The words in front of a command that is to run inside.

        By nsenter, because ``ip netns exec`` mounts a sysfs of its own, which a chroot forbids.
        """
        return "nsenter", f"--net={RUN / self.name}"

    def run(self, *command: str) -> str:
        """Runs a command inside and gives its output."""
        return sh(*self.inside, *command)

    def popen(self, *command: str, **how: Any) -> subprocess.Popen[Any]:
        """Starts a command inside; the pid is the command's own."""
        return subprocess.Popen([*self.inside, *command], **how)

    def start(self, function: Callable[..., Any], *args: Any) -> Child:
        """Calls `function` in a forked child inside; its result must be picklable."""
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.close(reader)
                self._enter()
                try:
                    answer = pickle.dumps((True, function(*args)))
                    code = 0
                except BaseException:  # noqa: BLE001 - carried to the parent
                    answer = pickle.dumps((False, traceback.format_exc()))
                with os.fdopen(writer, "wb") as out:
                    out.write(answer)
            finally:
                os._exit(code)
        os.close(writer)
        child = Child(pid, reader)
        self._children.append(child)
        return child

    def call(self, function: Callable[..., Any], *args: Any, timeout: float = 10.0) -> Any:
        """`start` and `result` in one."""
        return self.start(function, *args).result(timeout)

    def stop_children(self) -> None:
        """Kills what was started inside and has not ended."""
        for child in self._children:
            child.kill()


class Pair:
    """Namespaces `a` and `b`, 10.55.0.1 / fd55::1 and 10.55.0.2 / fd55::2 on ``veth0`` of each.

    Args:
        queues: receive and transmit queues of each end.
        mtu: of both ends.
        offloads: False turns checksum and segmentation offload off on both ends, so that frames on
            this wire look as they do on a real one (veth leaves checksums to nobody otherwise).
    """

    def __init__(self, *, queues: int = 1, mtu: int = 1500, offloads: bool = False) -> None:
        self.queues = queues
        self.mtu = mtu
        self.offloads = offloads
        number = next(_numbers)
        base = f"{PREFIX}-{os.getpid()}-{number}"
        self.a = Namespace(f"{base}a", "10.55.0.1", "fd55::1", "02:00:00:00:55:01")
        self.b = Namespace(f"{base}b", "10.55.0.2", "fd55::2", "02:00:00:00:55:02")
        self._owner = os.getpid()

    def __enter__(self) -> Pair:
        sweep()
        atexit.register(self.close)
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _build(self) -> None:
        a, b = self.a, self.b
        for end in (a, b):
            sh("ip", "netns", "add", end.name)
        many = ("numrxqueues", str(self.queues), "numtxqueues", str(self.queues))
        sh(
            *("ip", "link", "add", INTERFACE, "netns", a.name, *many, "type", "veth"),
            *("peer", "name", INTERFACE, "netns", b.name, *many),
        )
        for end in (a, b):
            end.run("ip", "link", "set", INTERFACE, "address", end.mac, "mtu", str(self.mtu))
            end.run("ip", "addr", "add", f"{end.ip4}/24", "dev", INTERFACE)
            end.run("ip", "addr", "add", f"{end.ip6}/64", "dev", INTERFACE, "nodad")
            end.run("ip", "link", "set", "lo", "up")
            end.run("ip", "link", "set", INTERFACE, "up")
            # The kernel adds this route about a second later, and IPv6 is deaf until then.
            multicast = ("multicast", "ff00::/8", "dev", INTERFACE, "table", "local")
            end.run("ip", "-6", "route", "replace", *multicast)
            if not self.offloads:
                with end:
                    _switch_offloads_off()

    def close(self) -> None:
        """Deletes both namespaces; safe to call twice, and from a forked child (does nothing)."""
        if os.getpid() != self._owner:
            return
        atexit.unregister(self.close)
        for end in (self.a, self.b):
            end.stop_children()
            if (RUN / end.name).exists():
                sh("ip", "netns", "del", end.name)
