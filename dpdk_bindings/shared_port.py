"""One port for several endpoints: an interface has one XDP program, and a process may want more.

    shared = SharedPort(open_port("afxdp:eth1"))
    feed = open_datagram(shared.member(), channels=[Channel("239.1.1.1", 26400)])
    node = open_stream(shared.member())

Each member is a port that carries only its own flows; native/share.h says how. Whoever polls takes
the others' frames along, so a member that is not polled loses its own frames and nobody else's.
"""

from __future__ import annotations

import errno
from typing import Any

from dpdk_bindings._c import address_of, fields
from dpdk_bindings._native import ffi, lib
from dpdk_bindings.errors import BindingsError
from dpdk_bindings.port import Port

__all__ = ["SharedPort"]


class SharedPort:
    """Splits `port`, which is closed with the last of its members. All belong to one thread."""

    def __init__(self, port: Port, *, burst: int = 64) -> None:
        self.port = port
        self._burst = burst
        below: Any = ffi.new("struct dpb_port_ref *")
        ops, native = port.ref()
        below.ops, below.port = ffi.cast("void *", ops), ffi.cast("void *", native)

        def free(share: Any, _until_then: Port = port) -> None:
            lib.dpb_share_free(share)  # gives frames back to the port, which must still be

        self._share: Any = ffi.gc(lib.dpb_share_new(below), free)
        if not self._share:
            raise MemoryError("sharing a port")
        self._members: set[_Member] = set()

    def member(self) -> Port:
        """A port that carries only the flows added to it; closing it leaves the others alone."""
        number = lib.dpb_share_add(self._share)
        if number == -errno.ENOSPC:
            raise BindingsError(f"a port is shared by at most {lib.DPB_SHARE_MEMBERS} endpoints")
        member = _Member(self, self._share, number, self._burst)
        self._members.add(member)
        return member

    def left(self, member: _Member) -> None:
        """A member was closed; with the last one the port is."""
        self._members.discard(member)
        if not self._members:
            self.port.close()

    def __repr__(self) -> str:
        return f"<SharedPort {self.port.address}, {len(self._members)} members>"


class _Member(Port):
    def __init__(self, shared: SharedPort, share: Any, number: int, burst: int) -> None:
        ref = lib.dpb_share_member(share, number)
        super().__init__(address_of(ref.ops), address_of(ref.port), share, burst)
        self.address = shared.port.address
        self._shared, self._share, self._number = shared, share, number
        self._flows: set[int] = set()

    def add_flow(
        self,
        address: str,
        port: int,
        *,
        protocol: str = "udp",
        remote: tuple[str, int] | None = None,
    ) -> int:
        """See :meth:`Port.add_flow`."""
        flow = self._shared.port.add_flow(address, port, protocol=protocol, remote=remote)
        lib.dpb_share_assign(self._share, flow, self._number)
        self._flows.add(flow)
        return flow

    def remove_flow(self, number: int) -> None:
        """See :meth:`Port.remove_flow`."""
        if number not in self._flows:
            raise BindingsError(f"there is no flow {number} of this endpoint on {self.address}")
        self._flows.discard(number)
        lib.dpb_share_assign(self._share, number, -1)
        self._shared.port.remove_flow(number)

    @property
    def trouble(self) -> str:
        """See :attr:`Port.trouble`."""
        return self._shared.port.trouble

    def housekeeping(self) -> None:
        """See :meth:`Port.housekeeping`; the shared port's, whichever member asks."""
        self._shared.port.housekeeping()

    def stats(self) -> dict[str, int]:
        """The shared port's counters, and what waits or was dropped for this member."""
        stats: Any = ffi.new("struct dpb_share_stats *")
        lib.dpb_share_stats(self._share, self._number, stats)
        own = {f"share_{name}": value for name, value in fields(stats).items()}
        return self._shared.port.stats() | {"leaked": self.leaked} | own

    def info(self) -> dict[str, Any]:
        """See :meth:`Port.info`."""
        return self._shared.port.info()

    def close(self) -> None:
        """Gives this member's flows back to the kernel; closes the port if it was the last."""
        if self.closed:
            return
        self._end()
        for flow in self._flows.copy():
            self.remove_flow(flow)
        lib.dpb_share_leave(self._share, self._number)
        self._shared.left(self)
