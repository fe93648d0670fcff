"""The backend of a datagram endpoint that is several: native/endpoint_joined.h joins them.

Each member keeps its own port or sockets, its routes and its counters; here they are added up.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from dpdk_bindings._native import ffi, lib
from dpdk_bindings.carriers import Carriers, refusal
from dpdk_bindings.errors import BindingsError
from dpdk_bindings.port import Port, opened_port
from dpdk_bindings.sockets import Channel

if TYPE_CHECKING:
    from dpdk_bindings.datagram import Backend

__all__ = ["JoinedBackend", "joined"]


def joined(
    ways: Sequence[str | Port],
    channels: Sequence[Channel],
    over_kernel: Callable[[Sequence[Channel]], Backend],
    over_port: Callable[[Port, Sequence[Channel]], Backend],
) -> JoinedBackend:
    """Opens a backend for each of `ways`, with the channels that it brings, and joins them.

    Raises:
        BindingsError: one cannot be opened, or brings nothing that the others do not; or a
            channel that none of them brings.
    """
    with contextlib.ExitStack() as undo:
        ports: dict[str, Port] = {}
        for way in ways:
            if way == "kernel":
                continue
            port = opened_port(way, "datagram")
            undo.callback(port.close)
            interface = port.info().get("interface")
            if interface is None or interface in ports:
                raise BindingsError(
                    f"{port.address} cannot be joined with others",
                    hint="each way is the port of an interface of its own, or kernel",
                )
            ports[interface] = port
        if not ports:
            raise BindingsError("kernel sockets are joined with nothing", hint='use "kernel"')
        names = [*ports, *(["kernel"] if "kernel" in ways else [])]
        carriers = Carriers()
        brought_by = []
        for channel in channels:
            carrier = carriers.carrier(channel, list(ports))
            if carrier not in ports:
                if "kernel" not in names:
                    raise refusal(channel, names, carrier)
                carrier = "kernel"
            brought_by.append(names.index(carrier))
        members: list[Backend] = []
        for number, name in enumerate(names):
            its = [c for c, by in zip(channels, brought_by, strict=True) if by == number]
            member = over_kernel(its) if name == "kernel" else over_port(ports[name], its)
            undo.callback(member.close)
            members.append(member)
        whole = JoinedBackend(members, brought_by)
        undo.pop_all()
        return whole


class JoinedBackend:
    """Several backends as one.

    Args:
        members: closed with the whole.
        brought_by: of each channel, in order, its member, whose channels are in the same order.
    """

    def __init__(self, members: Sequence[Backend], brought_by: Sequence[int]) -> None:
        self._members = list(members)
        self._peers: list[tuple[int, int]] = []
        refs: Any = ffi.new("struct dpb_datagram_ref[]", [member.ref[0] for member in members])
        self._native: Any = ffi.gc(lib.dpb_joined_open(refs, len(members)), lib.dpb_joined_close)
        if not self._native:
            raise BindingsError(
                f"an endpoint joins at most {lib.DPB_JOINED_MEMBERS} interfaces, not {len(members)}"
            )
        self.ref: Any = ffi.new("struct dpb_datagram_ref *")
        lib.dpb_joined_ref(self._native, self.ref)
        self.channels: list[Channel] = []
        remaining = [iter(member.channels) for member in members]
        for member in brought_by:
            if not 0 <= member < len(remaining):
                raise BindingsError(f"there is no member {member} of {len(remaining)}")
            if lib.dpb_joined_add_channel(self._native, member) < 0:
                raise BindingsError(f"{len(self.channels)} channels are the most")
            self.channels.append(next(remaining[member]))

    @property
    def counters(self) -> Any:
        """The members' counters, added up."""
        whole: Any = ffi.new("struct dpb_endpoint_counters *")
        for name, _ in ffi.typeof("struct dpb_endpoint_counters").fields:
            setattr(whole, name, sum(getattr(member.counters, name) for member in self._members))
        return whole

    def add_peer(self, address: str, port: int, interface: str | None, ttl: int | None) -> int:
        """Adds the peer to the first member whose interface the route to it leaves by."""
        refusals: list[BindingsError] = []
        for number, member in enumerate(self._members):
            try:
                peer = member.add_peer(address, port, interface, ttl)
            except BindingsError as refusal:
                refusals.append(refusal)
                continue
            whole: int = lib.dpb_joined_add_peer(self._native, number, peer)
            if whole < 0:
                raise BindingsError("an endpoint takes no more peers")
            self._peers.append((number, peer))
            return whole
        raise BindingsError("; ".join(map(str, refusals)), hint=refusals[0].hint)

    def max_payload(self, peer: int) -> int:
        """What the way to that peer takes."""
        member, number = self._peers[peer]
        return self._members[member].max_payload(number)

    def peer_trouble(self, peer: int) -> str:
        """Why nothing can be sent to that peer now."""
        member, number = self._peers[peer]
        return self._members[member].peer_trouble(number)

    @property
    def gone(self) -> bool:
        """Whether nothing can come by any member any more."""
        return all(member.gone for member in self._members)

    @property
    def trouble(self) -> str:
        """What is wrong with any of them."""
        return "; ".join(member.trouble for member in self._members if member.trouble)

    def housekeeping(self) -> None:
        """Theirs."""
        for member in self._members:
            member.housekeeping()

    def losses(self) -> dict[str, int]:
        """The members' own counters, added up."""
        whole: dict[str, int] = {}
        for member in self._members:
            for name, value in member.losses().items():
                whole[name] = whole.get(name, 0) + value
        return whole

    def samples(self) -> dict[str, bytes]:
        """The last bad bytes of each cause, of any member."""
        return {name: kept for member in self._members for name, kept in member.samples().items()}

    def describe(self) -> dict[str, Any]:
        """Channels in the order of the whole, and what each member chose."""
        members = [member.describe() for member in self._members]
        return {
            "backend": " + ".join(str(about["backend"]) for about in members),
            "channels": [f"{c.address} {c.port}" for c in self.channels],
            "members": members,
        }

    def close(self) -> None:
        """Closes the members."""
        for member in self._members:
            member.close()
