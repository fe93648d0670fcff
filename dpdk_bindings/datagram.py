"""Datagram endpoints: UDP payloads in and out, the same over kernel sockets and over a Port.

    with open_datagram("kernel", channels=[Channel("10.0.0.1", 5000)]) as endpoint:
        peer = endpoint.add_peer("10.0.0.2", 6000)
        while not (burst := endpoint.recv()):
            pass
        with burst:
            endpoint.send(peer, burst[0])
        endpoint.flush()

An endpoint belongs to one thread and never blocks. Channels (where it receives) and peers (where
it sends) are numbered from 0 in the order they were given.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from dpdk_bindings._datagram import Datagrams, NativeEndpoint
from dpdk_bindings._native import ffi
from dpdk_bindings.errors import BindingsError
from dpdk_bindings.kernel_endpoint import KernelBackend
from dpdk_bindings.port import Port
from dpdk_bindings.sockets import Channel

if TYPE_CHECKING:
    from dpdk_bindings.port import Port

__all__ = ["Channel", "DatagramEndpoint", "Datagrams", "open_datagram"]


_REFUSALS = [
    name.removeprefix("tx_")
    for name, _ in ffi.typeof("struct dpb_endpoint_counters").fields
    if name.startswith("tx_") and name not in ("tx_datagrams", "tx_bytes", "tx_blocked")
]


class Backend(Protocol):
    """What differs between kernel sockets and a Port, out of the way of datagrams."""

    channels: list[Channel]  # with the ports that port 0 became
    ref: Any  # struct dpb_datagram_ref *

    @property
    def counters(self) -> Any:
        """``struct dpb_endpoint_counters *``, read only."""

    @property
    def gone(self) -> bool:
        """Whether nothing can ever come or leave here again."""

    @property
    def trouble(self) -> str:
        """What is wrong with the way in and out now, or an empty string."""

    def add_peer(self, address: str, port: int, interface: str | None, ttl: int | None) -> int:
        """Prepares a destination and returns its number."""

    def max_payload(self, peer: int) -> int:
        """The longest payload, in bytes, that can be sent to that peer now."""

    def peer_trouble(self, peer: int) -> str:
        """Why nothing can be sent to that peer now, or an empty string."""

    def housekeeping(self) -> None:
        """Follows what the kernel has said since the last call; never blocks."""

    def losses(self) -> dict[str, int]:
        """Counters that only this backend has, by cause."""

    def samples(self) -> dict[str, bytes]:
        """The last bad bytes of each cause seen."""

    def describe(self) -> dict[str, Any]:
        """What was chosen at open."""

    def close(self) -> None:
        """Closes what the kernel holds; the memory stays until the last burst is gone."""


class DatagramEndpoint(NativeEndpoint):
    """UDP payloads in, UDP payloads out. Made by :func:`open_datagram`.

    ``recv()``, ``send(peer, payload)`` and ``flush()`` are those of
    :class:`~dpdk_bindings._datagram.NativeEndpoint`, one native call each.
    """

    def __init__(self, backend: Backend, burst: int) -> None:
        # The backend is the owner of the memory: it lives as long as a burst does.
        super().__init__(int(ffi.cast("uintptr_t", backend.ref)), backend, burst)
        self._backend = backend

    @property
    def channels(self) -> Sequence[Channel]:
        """Where this endpoint receives, with the port that a port of 0 became."""
        return tuple(self._backend.channels)

    @property
    def ref(self) -> Any:
        """``struct dpb_datagram_ref *`` for native loops (dpdk_bindings/datagram.h).

        Valid until :meth:`close`; keep the endpoint alive while using it.
        """
        self._must_be_open()
        return self._backend.ref

    def add_peer(
        self,
        address: str,
        port: int,
        *,
        interface: str | None = None,
        ttl: int | None = None,
    ) -> int:
        """Prepares a destination; the number returned is what :meth:`send` wants.

        Args:
            address: unicast address or multicast group, IPv4 or IPv6.
            port: UDP port there.
            interface: for a group or a link-local address, where it is.
            ttl: TTL or hop limit; by default the kernel's for an address, 1 for a group.
        """
        self._must_be_open()
        number = self._backend.add_peer(address, port, interface, ttl)
        self._peers = number + 1
        return number

    def max_payload(self, peer: int) -> int:
        """The longest payload, in bytes, that can be sent to that peer now.

        Over a port, where nothing is fragmented, the route's MTU as it is now less the headers,
        and never more than fits a transmit slot, which was made for the MTU at open; 0 while there
        is no route. The buffers' size over kernel sockets.
        """
        self._must_be_open()
        return self._backend.max_payload(peer)

    def peer_trouble(self, peer: int) -> str:
        """Why nothing can be sent to that peer now, as :meth:`housekeeping` found; or empty.

        Kernel sockets do not tell: what they refuse is in :meth:`stats`, by cause.
        """
        self._must_be_open()
        return self._backend.peer_trouble(peer)

    @property
    def gone(self) -> bool:
        """Whether the interface was deleted: nothing comes or leaves here any more.

        Not even when there is one of that name again: open a new endpoint on it.
        """
        return self._backend.gone

    @property
    def trouble(self) -> str:
        """What :meth:`housekeeping` found wrong with the interface, or an empty string."""
        return self._backend.trouble

    def housekeeping(self) -> None:
        """Follows links, routes and neighbours. Call it a few times a second; never blocks.

        What the kernel refuses to tell is no error here: it is :meth:`peer_trouble`, counted in
        :meth:`stats`, and asked again.
        """
        self._must_be_open()
        self._backend.housekeeping()

    def stats(self) -> dict[str, int]:
        """Every counter by name; what was lost, by cause."""
        counters = self._backend.counters
        common = {name: getattr(counters, name) for name, _ in ffi.typeof(counters).item.fields}
        return common | {"leaked": self.leaked} | self._backend.losses()

    def refusals(self) -> dict[str, int]:
        """What could not be sent, by cause: those of :meth:`stats`, without their ``tx_``."""
        counters = self._backend.counters
        return {cause: getattr(counters, f"tx_{cause}") for cause in _REFUSALS}

    def samples(self) -> dict[str, bytes]:
        """The first bytes of the last frame or datagram rejected, for each cause seen."""
        return self._backend.samples()

    def describe(self) -> dict[str, Any]:
        """What was chosen at open: backend, clock, buffers."""
        return self._backend.describe()

    def close(self) -> None:
        """Closes the endpoint; bursts that are out stay readable until released."""
        if not self.closed:
            self._end()
            self._backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _must_be_open(self) -> None:
        if self.closed:
            raise BindingsError("this endpoint was closed")


def open_datagram(
    via: str | Port | Sequence[str | Port],
    *,
    channels: Sequence[Channel],
    burst: int = 64,
    rx_checksum: str = "auto",
    clock: str = "mono",
    buffers: int = 1024,
    payload_bytes: int = 9216,
    receive_buffer_bytes: int = 8 << 20,
) -> DatagramEndpoint:
    """Opens a datagram endpoint.

    Args:
        via: ``"kernel"`` for kernel sockets, on whatever interfaces the channels imply; or the
            address of a port (:func:`~dpdk_bindings.port.open_port`), which the endpoint opens,
            has to itself, and closes; or a port, like one of
            :class:`~dpdk_bindings.shared_port.SharedPort`, which it closes too. Or several of
            these, as where lines A and B come by two NICs: each channel is received by the port
            of the interface that it names or has the address of, and by ``"kernel"``, where that
            is among them, if there is none; peers are sent to by the interface that the route
            says.
        channels: where to receive; none for an endpoint that only sends.
        burst: most datagrams that one ``recv()`` brings.
        rx_checksum: of a port: ``"verify"`` UDP checksums, ``"trust"`` them, or ``"auto"``, which
            trusts a veth interface only (its other end is this host's memory, and Linux leaves
            checksums on it unfinished). Kernel sockets verify.
        clock: of kernel sockets: ``"mono"``, CLOCK_MONOTONIC read when datagrams are taken from
            the kernel, or ``"real"``, CLOCK_REALTIME stamped by the kernel when they came. A port
            has a clock of its own.
        buffers: of kernel sockets: the most datagrams that can be held at once.
        payload_bytes: of kernel sockets: longest payload received or sent.
        receive_buffer_bytes: of kernel sockets: the kernel's queue of each channel. Without
            CAP_NET_ADMIN limited by net.core.rmem_max; ``describe()`` says what was granted.

    Raises:
        BindingsError: with what was wrong and what to do.
    """

    def over_kernel(some: Sequence[Channel]) -> Backend:
        return KernelBackend(
            some,
            buffers=buffers,
            payload_bytes=payload_bytes,
            receive_buffer_bytes=receive_buffer_bytes,
            clock=clock,
        )

    def over_port(port: Port, some: Sequence[Channel]) -> Backend:
        from dpdk_bindings.port_endpoint import PortBackend

        return PortBackend(port, some, rx_checksum=rx_checksum)

    ways = [via] if isinstance(via, str | Port) else list(via)
    if ways == ["kernel"]:
        return DatagramEndpoint(over_kernel(channels), burst)
    # Kernel sockets must work where ports and netlink do not.
    from dpdk_bindings.joined_endpoint import joined
    from dpdk_bindings.port import opened_port

    if len(ways) == 1:
        return DatagramEndpoint(over_port(opened_port(ways[0], "datagram"), channels), burst)
    return DatagramEndpoint(joined(ways, channels, over_kernel, over_port), burst)
