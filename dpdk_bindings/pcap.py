"""The capture backend of a port."""

from __future__ import annotations

import os
from typing import Any

from dpdk_bindings._c import address_of, fields, raised
from dpdk_bindings._native import ffi, lib
from dpdk_bindings.errors import BindingsError
from dpdk_bindings.port import FLOW_NONE, Port, PortAddress

__all__ = ["PcapPort"]


class PcapPort(Port):
    """Frames from one capture file, and sent frames into another.

    ``pcap:IN?out=OUT``; either may be left out. IN is pcap (microseconds or nanoseconds, either
    byte order) or pcapng of Ethernet frames; of a pcapng only what its flags do not mark as
    outbound is received. OUT is written as pcap with nanoseconds. Nothing is paced.

    Arrival times are of the capture's clock. Frames carry no flow number (:data:`FLOW_NONE`):
    whoever reads them takes all, or matches them itself.
    """

    @classmethod
    def check(cls, address: PortAddress) -> None:
        """Raises BindingsError where the address is wrong, whatever files there are."""
        address.refuse_others("out", "burst")
        address.number("burst", 64, 1, 4096)
        out = address.options.get("out", "")
        if not (address.target or out):
            raise BindingsError(
                f"port address {str(address)!r} names no file", hint='"pcap:IN", "pcap:?out=OUT"'
            )
        if out and os.path.realpath(out) == os.path.realpath(address.target):
            raise BindingsError(f"port address {str(address)!r} would overwrite what it reads")

    def __init__(self, address: PortAddress) -> None:
        self.check(address)
        self.address = address
        out = address.options.get("out", "")
        error: Any = ffi.new("struct dpb_error *")
        port = lib.dpb_pcap_open(_path(address.target), _path(out), error)
        if port == ffi.NULL:
            raise raised(error)
        self._port = ffi.gc(port, lib.dpb_pcap_free)
        burst = address.number("burst", 64, 1, 4096)
        super().__init__(address_of(lib.dpb_pcap_ops()), address_of(self._port), self._port, burst)

    @property
    def exhausted(self) -> bool:
        """Whether poll() has given every frame of the input."""
        return bool(lib.dpb_pcap_exhausted(self._port))

    def add_flow(
        self,
        address: str,
        port: int,
        *,
        protocol: str = "udp",
        remote: tuple[str, int] | None = None,
    ) -> int:
        """Gives :data:`FLOW_NONE`: every frame of the capture comes, whatever its flow."""
        return FLOW_NONE

    def remove_flow(self, number: int) -> None:
        """Raises BindingsError: a capture has no flows."""
        raise BindingsError(f"there is no flow {number} on {self.address}")

    def stats(self) -> dict[str, int]:
        """See :meth:`Port.stats`; the meaning of each is in native/pcap.h."""
        stats: Any = ffi.new("struct dpb_pcap_stats *")
        lib.dpb_pcap_stats(self._port, stats)
        return fields(stats) | {"leaked": self.leaked}

    def info(self) -> dict[str, Any]:
        """See :meth:`Port.info`."""
        return {"in": self.address.target, "out": self.address.options.get("out", "")}

    def close(self) -> None:
        """See :meth:`Port.close`; writes what is still buffered.

        Raises:
            OSError: it could not be written.
        """
        self._end()
        result = lib.dpb_pcap_close(self._port)
        if result < 0:
            raise OSError(-result, os.strerror(-result), self.address.options["out"])


def _path(name: str) -> Any:
    return ffi.new("char[]", os.fsencode(name)) if name else ffi.NULL
