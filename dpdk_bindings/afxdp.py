"""The AF_XDP backend of a port."""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import time
from typing import Any, NamedTuple

from dpdk_bindings import xdp_holder
from dpdk_bindings._c import address_of, fields, raised
from dpdk_bindings._native import ffi, lib
from dpdk_bindings.errors import BindingsError
from dpdk_bindings.port import Port, PortAddress

__all__ = ["AfXdpPort"]

_MODES = {
    "auto": lib.DPB_AFXDP_AUTO,
    "skb": lib.DPB_AFXDP_SKB,
    "drv": lib.DPB_AFXDP_DRV,
    "zerocopy": lib.DPB_AFXDP_ZEROCOPY,
}
_PROTOCOLS = {"tcp": 6, "udp": 17}
_LONGEST_QUEUE_LIST = 256
_ATTACH_PATIENCE_S = 10.0  # a kernel worker clears away; on a loaded machine it has to wait
_LOOK_EVERY_S = 1.0
_LONGEST_PAUSE_S = 60.0
_TOLD_S = 10.0  # how long it is told that the program had to be attached again
_WENT_OVER = 2  # dpb_afxdp_look_after()


class AfXdpPort(Port):
    """An interface's receive queues, by AF_XDP, without taking the interface from the kernel.

    Only frames of the flows given to :meth:`add_flow` come here. Everything else - other protocols,
    fragments, IP options - reaches the kernel as before.

    Options of the address:
        queues: receive queues to serve, like ``0-3,7``; all of the interface by default. Frames of
            our flows on other queues go to the kernel (``passed_unbound_queue``).
        mode: ``auto``, or one of ``zerocopy``, ``drv``, ``skb`` to insist.
        ring: entries of each receive and transmit ring, a power of two (1024). A larger one
            bears longer pauses of the reader, a smaller one stays in the caches and is quicker.
            Memory: (2 x queues + 1) x ring chunks of 2 KiB, or of 4 KiB with zero-copy or an MTU
            above 1,758 bytes.
        busy_poll: ``on`` asks the kernel to run the driver from poll(); needs CAP_NET_ADMIN.
        burst: the most frames that one poll() gives (64).
    """

    @classmethod
    def check(cls, address: PortAddress) -> None:
        """Raises BindingsError where the address is wrong, whatever interfaces there are."""
        _settings(address)

    def __init__(self, address: PortAddress) -> None:
        self.address = address
        chosen = _settings(address)
        interface = ffi.new("char[]", address.target.encode())
        numbers = ffi.new("uint16_t[]", chosen.queues)
        options = ffi.new(
            "struct dpb_afxdp_options *",
            {
                "interface": interface,
                "mode": _MODES[chosen.mode],
                "ring": chosen.ring,
                "queues": numbers,
                "queue_count": len(chosen.queues),
                "busy_poll": chosen.busy_poll,
            },
        )
        self._port = ffi.gc(_open_patiently(options, address), lib.dpb_afxdp_free)
        self._attachment = _Attachment(address.target)
        super().__init__(
            address_of(lib.dpb_afxdp_ops()),
            address_of(self._port),
            self._port,
            chosen.burst,
        )

    def add_flow(
        self,
        address: str,
        port: int,
        *,
        protocol: str = "udp",
        remote: tuple[str, int] | None = None,
    ) -> int:
        """See :meth:`Port.add_flow`."""
        error: Any = ffi.new("struct dpb_error *")
        number: int = lib.dpb_afxdp_add_flow(
            self._port, _flow(address, port, protocol, remote), error
        )
        if number == -errno.EEXIST:
            raise BindingsError(
                f"flow {protocol} {address}:{port} is taken by this port already",
                hint="one endpoint an address and port",
            )
        if number < 0:
            raise raised(error)
        return number

    def remove_flow(self, number: int) -> None:
        """See :meth:`Port.remove_flow`."""
        if lib.dpb_afxdp_remove_flow(self._port, number) < 0:
            raise BindingsError(f"there is no flow {number} on {self.address}")

    @property
    def trouble(self) -> str:
        """See :attr:`Port.trouble`."""
        return self._attachment.trouble

    def housekeeping(self) -> None:
        """Sees to it that the program stays attached, whoever takes it off."""
        self._attachment.look_after(self._port, time.monotonic())

    def stats(self) -> dict[str, int]:
        """See :meth:`Port.stats`; the meaning of each is in native/afxdp.h."""
        stats: Any = ffi.new("struct dpb_afxdp_stats *")
        lib.dpb_afxdp_stats(self._port, stats)
        return fields(stats) | {"leaked": self.leaked}

    def info(self) -> dict[str, Any]:
        """See :meth:`Port.info`."""
        info: Any = ffi.new("struct dpb_afxdp_info *")
        lib.dpb_afxdp_info(self._port, info)
        answer = fields(info)
        modes = {number: name for name, number in _MODES.items()}
        flags = ("several_buffers", "asks_driver_time", "busy_poll")
        return answer | {"mode": modes[info.mode]} | {name: bool(answer[name]) for name in flags}

    def close(self) -> None:
        """See :meth:`Port.close`."""
        self._end()
        lib.dpb_afxdp_close(self._port)


class _Attachment:
    """Puts the program back on its interface where somebody else took it off.

    And to the driver's hook of a veth, where that is what makes the other end cut datagrams.

    The kernel tells nobody of that, and frames of our flows reach the kernel from then on: so it is
    asked, once a second. Who takes the program off again and again, or has put another one there,
    is not fought: each time that it fails, or does not hold for a minute, the next time comes twice
    as late, up to a minute.
    """

    def __init__(self, interface: str) -> None:
        self._interface = interface
        self._look_at = 0.0
        self._pause_s = _LOOK_EVERY_S
        self._mended_at = float("-inf")
        self.trouble = ""

    def look_after(self, port: Any, now: float) -> None:
        """Looks, if it is time to; `now` is of a monotonic clock, in seconds."""
        if now < self._look_at:
            return
        error: Any = ffi.new("struct dpb_error *")
        found = lib.dpb_afxdp_look_after(port, error)
        self._look_at = now + _LOOK_EVERY_S
        if found == 0:
            if self.trouble and now > self._mended_at + _TOLD_S:
                self.trouble = ""
            if now > self._mended_at + _LONGEST_PAUSE_S:
                self._pause_s = _LOOK_EVERY_S
            return
        if found == _WENT_OVER:
            self._mended_at = now
            self.trouble = (
                f"a sender beyond interface {self._interface} merges datagrams (UDP_SEGMENT): they "
                "went to the kernel, and are cut from now on, by mode drv"
            )
            return
        if found == -errno.ENODEV:  # whoever follows links says that the interface is gone
            return
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        self._look_at = now + self._pause_s
        taken_off = f"our XDP program was taken off interface {self._interface} by somebody else"
        if found > 0:
            self._mended_at = now
            self.trouble = f"{taken_off}, and is attached again"
            return
        busy = found in (-errno.EBUSY, -errno.EEXIST)
        why = "another is there now (`bpftool net` shows it)" if busy else raised(error).message
        self.trouble = f"{taken_off}, and cannot be attached again: {why}"


def _open_patiently(options: Any, address: PortAddress) -> Any:
    """Opens; waits while a predecessor that is already dead is being cleared away."""
    error: Any = ffi.new("struct dpb_error *")
    deadline = time.monotonic() + _ATTACH_PATIENCE_S
    while True:
        port = lib.dpb_afxdp_open(options, error)
        if port != ffi.NULL:
            return port
        if error.code not in (errno.EBUSY, errno.EEXIST):
            raise raised(error)
        holder = xdp_holder.find(address.target)
        if holder is not None and os.getpid() in holder.processes:
            raise BindingsError(
                f"interface {address.target!r} has a port of this process already",
                hint="several endpoints can share it: dpdk_bindings.SharedPort",
            )
        if holder is not None and not holder.is_dead_ours:
            raise BindingsError(
                f"interface {address.target!r} carries an XDP program already: {holder}",
                hint=f"stop its owner, or detach it: `ip link set {address.target} xdp off` "
                "(a program attached by a link goes away with its owner only)",
            )
        if time.monotonic() > deadline:
            raise raised(error)
        time.sleep(0.005)


class _Settings(NamedTuple):
    mode: str
    ring: int
    queues: list[int]
    busy_poll: bool
    burst: int


def _settings(address: PortAddress) -> _Settings:
    address.refuse_others("queues", "mode", "ring", "busy_poll", "burst")
    if not re.fullmatch(r"[^\s/\0]{1,15}", address.target):
        raise BindingsError(
            f'port address {str(address)!r}: interface "{address.target}" is not a name',
            hint="1 to 15 characters; `ip link` lists the interfaces",
        )
    ring = address.number("ring", 1024, 64, 32768)
    if ring & (ring - 1):
        raise BindingsError(
            f"port address {str(address)!r}: ring={ring}", hint="ring is a power of two"
        )
    return _Settings(
        mode=address.choice("mode", *_MODES),
        ring=ring,
        queues=_queues(address),
        busy_poll=address.choice("busy_poll", "off", "on") == "on",
        burst=address.number("burst", 64, 1, 4096),
    )


def _queues(address: PortAddress) -> list[int]:
    text = address.options.get("queues")
    if text is None:
        return []
    queues: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last or len(queues) + last - first >= _LONGEST_QUEUE_LIST:
            raise BindingsError(
                f"port address {str(address)!r}: queues={text}",
                hint=f"write them like 0-3,7 (at most {_LONGEST_QUEUE_LIST})",
            )
        queues += range(first, last + 1)
    if len(set(queues)) != len(queues):
        raise BindingsError(f"port address {str(address)!r}: queues={text} names one twice")
    return queues


def _flow(address: str, port: int, protocol: str, remote: tuple[str, int] | None) -> Any:
    if protocol not in _PROTOCOLS:
        raise BindingsError(f"flow protocol {protocol!r}", hint="it is udp or tcp")
    if (protocol == "tcp") != (remote is not None):
        raise BindingsError(
            f"flow {protocol} {address}:{port}: remote={remote!r}",
            hint="a TCP flow is one connection and needs the remote side; a UDP flow has none",
        )
    local = _address(address)
    flow: Any = ffi.new("struct dpb_flow *")
    flow.family = local.version
    flow.protocol = _PROTOCOLS[protocol]
    flow.local_port = _network_order(port)
    ffi.memmove(flow.local, local.packed, len(local.packed))
    if remote is not None:
        other = _address(remote[0])
        if other.version != local.version:
            raise BindingsError(f"flow between {address} and {remote[0]}: two address families")
        flow.remote_port = _network_order(remote[1])
        ffi.memmove(flow.remote, other.packed, len(other.packed))
    return flow


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError as error:
        raise BindingsError(f"{text!r} is not an IPv4 or IPv6 address") from error


def _network_order(port: int) -> int:
    if not 0 < port < 65536:
        raise BindingsError(f"port {port}", hint="a port is a whole number from 1 to 65535")
    return int.from_bytes(port.to_bytes(2, "big"), "little")
