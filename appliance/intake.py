"""One core's endpoints: where datagrams come in, and by what shots and answers leave.

A core without the stage "receive" has none of its own: what it sends goes through an outbox to the
core that has them (appliance.joints).
"""

from __future__ import annotations

import contextlib
from typing import Any

from appliance.config import Config, Core, Source
from appliance.desk import Out
from appliance.joints import Joints
from appliance.places import Place
from appliance.ports import Ports, channels_of
from barewire.feeds.moldudp64 import RETRANSMISSION, MoldConfig, MoldReceiver
from barewire.pump import Feed
from dpdk_bindings.datagram import Channel, DatagramEndpoint, open_datagram
from dpdk_bindings.ring import Outbox

__all__ = ["Intake"]


class Intake:
    """Opened in order, closed in reverse.

    Args:
        config: the whole appliance.
        core: whose intake it is.
        joints: what joins it to other cores.
        ports: opens the endpoints.

    Attributes:
        feeds: of the pump, one for each source of datagrams; none without "receive" and "feed".
        endpoints: of those feeds, in their order; one of its own where all sources are streams.
        out: by what everything leaves.
        peers: numbers of "destinations" by name, and of who answers "retransmissions" by source;
            and the "longest" payload that each destination took at start.
        chosen: what was chosen at start, by source.
    """

    def __init__(self, config: Config, core: Core, joints: Joints, ports: Ports) -> None:
        self._config = config
        self._stages = set(core.stages)
        self._joints = joints
        self._ports = ports
        self._exit = contextlib.ExitStack()
        self._outboxes: list[Outbox] = []  # kept: the pump borrows them
        self.endpoints: list[DatagramEndpoint] = []
        self.peers: dict[str, dict[str, int]] = {
            "destinations": {},
            "retransmissions": {},
            "longest": {},
        }
        self.chosen: dict[str, dict[str, Any]] = {}
        try:
            self.feeds = self._open_feeds()
            self.out = self._open_out()
        except BaseException:
            self.close()
            raise

    def _open_feeds(self) -> list[Feed]:
        if not self._stages & {"receive", "feed"}:
            return []
        feeds = []
        for number, source in enumerate(self._config.datagrams):
            peer, endpoint = None, None
            if "receive" in self._stages:
                endpoint, peer = self._open_endpoint(source)
            elif source.retransmit is not None:
                assert self._joints.outbox is not None
                outbox = Outbox(self._joints.outbox, number)
                self._outboxes.append(outbox)
                endpoint = outbox.ref
                peer = self._joints.peers["retransmissions"][source.name]
            receiver = None
            if "feed" in self._stages:
                receiver = MoldReceiver(MoldConfig(lines=len(source.lines), ask=peer is not None))
            lines = [RETRANSMISSION] if source.retransmit is not None else []
            lines += range(len(source.lines))
            heard = [publisher.text for publisher in source.publishers]
            if heard and source.retransmit is not None:
                heard.append(source.retransmit.address)
            feeds.append(Feed(source.name, endpoint, receiver, lines, peer, source.trusted, heard))
        return feeds

    def _open_endpoint(self, source: Source) -> tuple[Any, int | None]:
        """Opens the endpoint of one source: its lines, and where retransmissions come to."""
        channels = channels_of(source)
        endpoint = self._ports.open(source, lambda via: open_datagram(via, channels=channels))
        self._exit.callback(endpoint.close)
        self.endpoints.append(endpoint)
        self.chosen[source.name] = endpoint.describe() | {"trusted": source.trusted}
        peer = None
        if source.retransmit is not None:
            peer = _add_peer(endpoint, source.retransmit)
            self.peers["retransmissions"][source.name] = peer
        return endpoint.ref, peer

    def _open_out(self) -> Out:
        if "receive" not in self._stages:
            self.peers = self._joints.peers
            assert self._joints.outbox is not None
            return Outbox(self._joints.outbox, 0)
        if not self.endpoints:  # all sources are streams
            out = open_datagram("kernel", channels=[Channel("0.0.0.0", 0)])  # noqa: S104
            self._exit.callback(out.close)
            self.endpoints.append(out)
        out = self.endpoints[0]
        for destination in self._config.destination:
            peer = _add_peer(out, destination.address)
            self.peers["destinations"][destination.name] = peer
            self.peers["longest"][destination.name] = out.max_payload(peer)
        return out

    def cut_off(self) -> str:
        """Why nothing can come in by any endpoint any more, or an empty string."""
        if self.endpoints and all(endpoint.gone for endpoint in self.endpoints):
            return ", ".join(endpoint.trouble for endpoint in self.endpoints)
        return ""

    def close(self) -> None:
        """Closes the endpoints."""
        self._exit.close()


def _add_peer(endpoint: DatagramEndpoint, place: Place) -> int:
    return endpoint.add_peer(place.address, place.port, interface=place.interface)
