"""Ports: whole Ethernet frames in and out, by AF_XDP or from a capture.

    with open_port("afxdp:eth1?queues=0-3&mode=auto") as port:
        port.add_flow("10.0.0.1", 5000)
        while True:
            with port.poll() as burst:
                for i in range(len(burst)):
                    use(burst[i])       # a memoryview, valid until the burst is released

A port belongs to one thread and never blocks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from dpdk_bindings._native import ffi, lib
from dpdk_bindings._port import Burst, NativePort
from dpdk_bindings.errors import BindingsError

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = ["FLOW_NONE", "Burst", "Port", "PortAddress", "check_port", "frame_dtype", "open_port"]

FLOW_NONE: int = lib.DPB_FLOW_NONE
"""The flow of a frame whose port does not tell flows apart: match it yourself."""


class Port(NativePort):
    """What every backend offers, beside the fast path of :class:`NativePort`."""

    address: PortAddress

    def add_flow(
        self,
        address: str,
        port: int,
        *,
        protocol: str = "udp",
        remote: tuple[str, int] | None = None,
    ) -> int:
        """Asks for the frames of a flow, and gives the number that they will carry.

        Args:
            address: destination address of the frames, IPv4 or IPv6; a multicast group is one.
            port: destination port.
            protocol: ``"udp"`` or ``"tcp"``.
            remote: for TCP, the address and port of the other side.

        Returns:
            the flow's number; :data:`FLOW_NONE` from a port that gives every frame it has.

        Raises:
            BindingsError: not an address, there already, or too many.
        """
        raise NotImplementedError

    def remove_flow(self, number: int) -> None:
        """Gives a flow back to the kernel.

        Raises:
            BindingsError: there is no such flow.
        """
        raise NotImplementedError

    @property
    def trouble(self) -> str:
        """What :meth:`housekeeping` found wrong, or an empty string."""
        return ""

    def housekeeping(self) -> None:
        """Mends what others changed. Call it a few times a second; never waits for anything."""

    def stats(self) -> dict[str, int]:
        """Every counter by name, the kernel's own (``kernel_...``) and ``leaked`` included."""
        raise NotImplementedError

    def info(self) -> dict[str, Any]:
        """What was chosen when the port was opened, and why."""
        raise NotImplementedError

    def close(self) -> None:
        """Leaves the interface or file as it was found. Safe twice.

        Bursts that are still out stay readable, and their release is no error.
        """
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@dataclass(frozen=True)
class PortAddress:
    """A port's address, taken apart: ``backend:target?name=value&...``."""

    backend: str
    target: str
    options: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> PortAddress:
        """Takes `text` apart.

        Raises:
            BindingsError: it is not of that form.
        """
        backend, colon, rest = text.partition(":")
        if not colon:
            raise BindingsError(
                f"port address {text!r} names no backend",
                hint='write it like "afxdp:eth1?queues=0-3&mode=auto" or "pcap:in.pcap"',
            )
        target, _, query = rest.partition("?")
        options: dict[str, str] = {}
        for name, value in parse_qsl(query, keep_blank_values=True):
            if name in options:
                raise BindingsError(f"port address {text!r} gives {name!r} twice")
            options[name] = value
        return cls(backend, target, options)

    def __str__(self) -> str:
        query = "&".join(f"{name}={value}" for name, value in self.options.items())
        return f"{self.backend}:{self.target}" + (f"?{query}" if query else "")

    def refuse_others(self, *known: str) -> None:
        """Raises BindingsError for an option that is not `known`."""
        for name, value in self.options.items():
            if name not in known:
                raise BindingsError(
                    f"port address {str(self)!r}: unknown option {name}={value}",
                    hint=f"{self.backend} knows: {', '.join(known)}",
                )

    def choice(self, name: str, *allowed: str) -> str:
        """The value of an option that must be one of `allowed`; the first is the default."""
        value = self.options.get(name, allowed[0])
        if value not in allowed:
            raise BindingsError(
                f"port address {str(self)!r}: {name}={value}",
                hint=f"{name} is one of {', '.join(allowed)}",
            )
        return value

    def number(self, name: str, default: int, lowest: int, highest: int) -> int:
        """The value of an option that must be a whole number within bounds."""
        text = self.options.get(name, str(default))
        if not (text.isascii() and text.isdigit() and lowest <= int(text) <= highest):
            raise BindingsError(
                f"port address {str(self)!r}: {name}={text}",
                hint=f"{name} is a whole number from {lowest} to {highest}",
            )
        return int(text)


def open_port(address: str) -> Port:
    """Opens a port by its address.

    - ``afxdp:INTERFACE?queues=0-3,7&mode=auto&ring=1024&busy_poll=off&burst=64``, see
      :class:`~dpdk_bindings.afxdp.AfXdpPort`
    - ``pcap:IN?out=OUT``, see :class:`~dpdk_bindings.pcap.PcapPort`

    Raises:
        BindingsError: with what was wrong and what to do.
    """
    parsed = PortAddress.parse(address)
    port: Port = _backend(parsed)(parsed)
    return port


def opened_port(via: str | Port, kind: str) -> Port:
    """The port of an endpoint's `via`: itself, or the one of that address.

    Raises:
        BindingsError: not the address of a port, or it cannot be opened.
    """
    if isinstance(via, Port):
        return via
    if ":" not in via:
        raise BindingsError(
            f"{kind} backend {via!r} is not known",
            hint='there are "kernel" and ports, like "afxdp:eth1"',
        )
    return open_port(via)


def check_port(address: str) -> None:
    """Checks a port's address without opening anything.

    Raises:
        BindingsError: with what is wrong; whether there is such an interface or file is not seen.
    """
    parsed = PortAddress.parse(address)
    _backend(parsed).check(parsed)


def _backend(address: PortAddress) -> Any:
    from dpdk_bindings.afxdp import AfXdpPort
    from dpdk_bindings.pcap import PcapPort

    backends = {"afxdp": AfXdpPort, "pcap": PcapPort}
    if address.backend not in backends:
        raise BindingsError(
            f"port address {str(address)!r}: no backend {address.backend!r}",
            hint=f"there are: {', '.join(backends)}",
        )
    return backends[address.backend]


def frame_dtype() -> dict[str, list[Any]]:
    """The layout of a descriptor as ``numpy.dtype`` takes it, read from the C declaration.

    ``numpy.frombuffer(burst, dtype=numpy.dtype(frame_dtype()))`` is then an array of all frames of
    a burst. The two bit fields share the last byte: ``clock_flags & 15`` is the clock, ``>> 4`` the
    flags. Delete the array before the burst is released.
    """
    layout: dict[str, list[Any]] = {"names": [], "formats": [], "offsets": []}
    for name, member in ffi.typeof("struct dpb_frame").fields:
        if member.bitshift > 0:
            continue  # described with its neighbour
        layout["names"].append("clock_flags" if member.bitshift == 0 else name)
        layout["formats"].append(f"u{ffi.sizeof(member.type)}")
        layout["offsets"].append(member.offset)
    return layout
