"""The ports of one process: an interface has one, and every endpoint that wants it shares it.

A feed's lines may come by several interfaces. Each is received by the port of the interface that
it names, or has the address of (dpdk_bindings.carriers). Where the source's `via` has none there,
it is the port that another source has on that interface, or else one with the options of the first
of `via`: lines A and B on two NICs need nothing but their interfaces' names.

A source that names a ``fallback`` is opened by that where its `via` cannot be had, and it is said;
without one, that is an error.
"""

from __future__ import annotations

import contextlib
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from appliance.config import Source, Via
from appliance.places import Place
from barewire.errors import ConfigError
from dpdk_bindings.datagram import Channel
from dpdk_bindings.errors import BindingsError
from dpdk_bindings.port import Port, PortAddress, open_port
from dpdk_bindings.shared_port import SharedPort
from dpdk_bindings.sockets import interface_index

if TYPE_CHECKING:
    from dpdk_bindings.carriers import Carriers

__all__ = ["Ports", "channels_of"]

T = TypeVar("T")


class Ports:
    """Opens endpoints by what their sources want.

    Args:
        sources: all that this process opens, so that it is known who shares what. Each source of
            datagrams has an endpoint of its own; all streams of one `via` have one together.

    Attributes:
        warnings: what was not to be had, and what is used instead.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self._named = {
            PortAddress.parse(way).target: way
            for source in sources
            for via in _wanted(source)
            for way in via.ways
            if _is_afxdp(way)
        }
        self._carriers: Carriers | None = None
        self._endpoints: Counter[str] = Counter()
        streams: set[str] = set()
        for source in sources:
            for via in _wanted(source):
                if source.is_stream:
                    streams.update(via.ways)
                    continue
                with contextlib.suppress(BindingsError):  # said when it is opened
                    self._endpoints.update(self._ways(source, via))
        self._endpoints.update(streams)
        self._shared: dict[str, SharedPort] = {}
        self.warnings: list[str] = []

    def open(
        self,
        source: Source,
        opener: Callable[[Any], T],
        opened: dict[str, T] | None = None,
    ) -> T:
        """Opens what `source` wants.

        Args:
            source: whose `via` and `fallback` count.
            opener: is given "kernel", the address of a port, or a shared port, which it closes; or
                a list of these.
            opened: what there is already, by its way, and need not be opened again; what is opened
                is added. None: each source has its own.

        Raises:
            BindingsError: it cannot be had, nor can the fallback, if there is one.
        """
        opened = {} if opened is None else opened
        *better, last = _wanted(source)
        for via in better:
            try:
                return self._open(source, via, opener, opened)
            except (BindingsError, OSError) as error:
                hint = f"; {error.hint}" if isinstance(error, BindingsError) and error.hint else ""
                self.warnings.append(
                    f"source {source.name}: {via} cannot be had ({error}{hint}): its fallback "
                    f"{last} is used"
                )
        return self._open(source, last, opener, opened)

    def _open(
        self, source: Source, via: Via, opener: Callable[[Any], T], opened: dict[str, T]
    ) -> T:
        ways = self._ways(source, via)
        key = " ".join(ways)
        if key not in opened:
            opened[key] = self._opened(ways, opener)
        return opened[key]

    def _opened(self, ways: Sequence[str], opener: Callable[[Any], T]) -> T:
        with contextlib.ExitStack() as undo:
            handed: list[str | Port] = []
            for way in ways:
                if way == "kernel" or self._endpoints[way] < 2:
                    handed.append(way)
                    continue
                shared = self._shared.get(way)
                if shared is None or shared.port.closed:  # its only member could not be opened
                    shared = self._shared[way] = SharedPort(open_port(way))
                member = shared.member()
                undo.callback(member.close)
                handed.append(member)
            made = opener(handed[0] if len(handed) == 1 else handed)
            undo.pop_all()
            return made

    def _ways(self, source: Source, via: Via) -> list[str]:
        """`via`, and a port of each other interface that a channel of `source` comes by."""
        ways = list(via.ways)
        ports = {PortAddress.parse(way).target: way for way in ways if _is_afxdp(way)}
        if source.is_stream or not ports or "kernel" in ways or not _are_there(ports):
            return ways
        if self._carriers is None:
            from dpdk_bindings.carriers import Carriers

            self._carriers = Carriers()
        first = PortAddress.parse(ways[0])
        for channel in channels_of(source):
            carrier = self._carriers.carrier(channel, list(ports))
            if carrier in ports or channel.ip.is_loopback:  # that one opening refuses
                continue
            way = self._named.get(carrier) or str(
                PortAddress(first.backend, carrier, first.options)
            )
            ports[carrier] = way
            ways.append(way)
        return ways


def _is_afxdp(way: str) -> bool:
    return way.startswith("afxdp:")


def _are_there(interfaces: dict[str, str]) -> bool:
    """Whether all of them exist: that one does not, opening its port says."""
    try:
        return all(interface_index(name) for name in interfaces)
    except BindingsError:
        return False


def _wanted(source: Source) -> list[Via]:
    return [source.via] + ([source.fallback] if source.fallback else [])


def channels_of(source: Source) -> list[Channel]:
    """Where a feed's endpoint receives: who retransmits answers to the first, if anybody does.

    Raises:
        ConfigError: there is no route to who retransmits.
    """
    channels: list[Channel] = []
    if source.retransmit is not None:
        # First, because an endpoint sends to a unicast peer from its first channel: the
        # answer then comes to an address of its own.
        remote = source.retransmit
        channels.append(Channel(_address_towards(remote), 0, remote.interface))
    return channels + [Channel(line.address, line.port, line.interface) for line in source.lines]


def _address_towards(remote: Place) -> str:
    """The address of ours that the kernel would send from to reach `remote`."""
    family = socket.AF_INET6 if ":" in remote.address else socket.AF_INET
    name: tuple[str, int] | tuple[str, int, int, int] = remote.address, remote.port
    if family == socket.AF_INET6:
        name = (*name[:2], 0, interface_index(remote.interface))
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(name)
        except OSError as error:
            raise ConfigError(
                f"no route to {remote}: {error.strerror}", hint="see `ip route get`"
            ) from error
        return str(probe.getsockname()[0])
