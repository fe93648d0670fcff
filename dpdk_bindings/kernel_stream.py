"""The stream endpoint's backend over kernel sockets; native/stream_kernel.h moves the bytes."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import time
from typing import Any

from dpdk_bindings._c import address_of
from dpdk_bindings._native import ffi, lib
from dpdk_bindings.errors import BindingsError
from dpdk_bindings.sockets import interface_index, parse_address

__all__ = ["IDLE_S", "PROBES", "PROBE_S", "UNACKNOWLEDGED_MS", "KernelStreams"]

# The words of stream.h, kept by both backends.
IDLE_S = 10
PROBE_S = 5
PROBES = 4
UNACKNOWLEDGED_MS = 30_000

# What connect() may say at once, on loopback, that otherwise comes later.
_THE_NETWORKS_WORD = (0, errno.EINPROGRESS, errno.ECONNREFUSED, errno.ECONNRESET)
_SO_BUSY_POLL = 46  # asm-generic/socket.h
_BUSY_POLL_US = 50
_TCP_QUICKACK = 12  # linux/tcp.h


class KernelStreams:
    """Spinning kernel sockets; no privileges."""

    def __init__(self) -> None:
        self._native: Any = lib.dpb_stream_kernel_open()
        if not self._native:
            raise BindingsError(
                f"opening a stream endpoint: {os.strerror(ffi.errno)}",
                hint="`ulimit -n` is how many files a process may have open",
            )
        self._native = ffi.gc(self._native, lib.dpb_stream_kernel_close)
        self.ref: Any = ffi.new("struct dpb_stream_ref *")
        lib.dpb_stream_kernel_ref(self._native, self.ref)
        self._sockets: dict[int, socket.socket] = {}
        self._opened = 0
        self._busy_poll: bool | None = None

    def connect(
        self,
        address: str,
        port: int,
        source: str | None,
        interface: str | None,
        timeout_ms: int,
        tls: bool,
    ) -> int:
        """See :class:`~dpdk_bindings.stream.Backend`."""
        ip = parse_address(address)
        scope = interface_index(interface)
        where = (address, port) if ip.version == 4 else (address, port, 0, scope)
        family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
        s = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            self._set_up(s)
            if source is not None:
                _bind(s, source)
            stream = self._start(s, where, timeout_ms)
        except BaseException:
            s.close()
            raise
        self._opened += 1
        self._sockets[stream] = s
        return stream

    def _start(self, s: socket.socket, where: tuple[Any, ...], timeout_ms: int) -> int:
        deadline_mono_ns = time.monotonic_ns() + timeout_ms * 1_000_000
        code = s.connect_ex(where)
        if code in _THE_NETWORKS_WORD:
            word = 0 if code == errno.EINPROGRESS else code
            stream = lib.dpb_stream_kernel_add(self._native, s.fileno(), word, deadline_mono_ns)
            if stream:
                return address_of(stream)
            code = ffi.errno
        raise BindingsError(
            f"cannot connect to {where[0]} port {where[1]}: {os.strerror(code)}",
            hint=f"`ip route get {where[0]}` shows what the kernel would do",
        )

    def _set_up(self, s: socket.socket) -> None:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        s.setsockopt(socket.IPPROTO_TCP, _TCP_QUICKACK, 1)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, IDLE_S)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, PROBE_S)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS)
        try:
            s.setsockopt(socket.SOL_SOCKET, _SO_BUSY_POLL, _BUSY_POLL_US)
            self._busy_poll = True
        except PermissionError:  # more than net.core.busy_read needs CAP_NET_ADMIN
            self._busy_poll = False

    def close_stream(self, stream: int, abort: bool) -> None:
        """See :class:`~dpdk_bindings.stream.Backend`."""
        s = self._sockets.pop(stream)
        lib.dpb_stream_kernel_drop(self._native, ffi.cast("struct dpb_stream *", stream))
        if abort:
            with contextlib.suppress(OSError):  # the connection is no more
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.close()

    def local(self, stream: int) -> tuple[str, int]:
        """See :class:`~dpdk_bindings.stream.Backend`."""
        address, port = self._sockets[stream].getsockname()[:2]
        return address, port

    def explain(self, stream: int) -> str:
        """The error number says what the kernel knows."""
        return ""

    def housekeeping(self) -> None:
        """Nothing: the kernel follows its own routes."""

    def descriptors(self) -> list[int]:
        """The sockets."""
        return [s.fileno() for s in self._sockets.values()]

    def stats(self) -> dict[str, int]:
        """Connections tried since the endpoint was opened, and those there are now."""
        return {"opened": self._opened, "connections": len(self._sockets)}

    def samples(self) -> dict[str, bytes]:
        """None: the kernel keeps bad frames to itself."""
        return {}

    def describe(self) -> dict[str, Any]:
        """Whether the kernel granted busy polling (None: not asked yet)."""
        return {"backend": "kernel", "clock": "mono", "busy_poll": self._busy_poll}

    def close(self) -> None:
        """Closes the sockets that are left."""
        for stream in list(self._sockets):
            self.close_stream(stream, abort=False)


def _bind(s: socket.socket, source: str) -> None:
    try:
        s.bind((str(parse_address(source)), 0))
    except OSError as error:
        raise BindingsError(
            f"cannot connect from {source}: {error.strerror}",
            hint="`ip address` shows the addresses there are",
        ) from error
