"""From a configuration to one core of an appliance that is ready to turn.

Everything that can fail is done here, before the first packet: sockets and ports are opened,
tables compiled, memory taken, the strategy made. What was chosen on the way (backend, mode,
clock, widths) is collected in :attr:`Appliance.chosen` and said once. A core opens what its own
stages need; one that has all of them needs nobody else.
"""

from __future__ import annotations

import contextlib
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from appliance import flight
from appliance.conductor import Conductor
from appliance.config import Config, Core, Shot, Source
from appliance.desk import Desk, Out
from appliance.joints import Joints
from appliance.ledger import Ledger
from appliance.links import measure_endpoint, measure_feed, measure_rings
from appliance.metrics import files
from appliance.places import Place
from appliance.reload import Reload
from appliance.sender_pool import SenderPool
from appliance.strategy import load, make
from barewire import secp
from barewire.errors import BarewireError, ConfigError
from barewire.execution.shots import PAYLOAD_BYTES, Caps, ShotBook
from barewire.feeds.arbitration import Arbiter
from barewire.feeds.moldudp64 import RETRANSMISSION, MoldConfig, MoldReceiver
from barewire.mempool.decoder import Decoder, Rules
from barewire.mempool.dedup import Dedup
from barewire.mempool.senders import Senders
from barewire.mempool.trigger_table import TriggerTable
from barewire.mempool.triggers import compile_triggers
from barewire.pump import Feed, Pump, Rings
from dpdk_bindings.datagram import Channel, DatagramEndpoint, open_datagram
from dpdk_bindings.metrics import MetricsError
from dpdk_bindings.port import Port, open_port
from dpdk_bindings.ring import Outbox
from dpdk_bindings.shared_port import SharedPort

if TYPE_CHECKING:
    from appliance.streams import Streams

__all__ = ["Appliance", "examine"]


def examine(config: Config, where: Path) -> None:
    """Checks what can be checked without opening anything: triggers, payloads, the strategy.

    Raises:
        ConfigError: what is wrong, and with which of them.
    """
    named = dict.fromkeys(trigger.shot for trigger in config.trigger if trigger.shot is not None)
    compile_triggers(config.trigger, shots={name: number for number, name in enumerate(named)})
    for shot in config.shot:
        _payload(shot, where)
    if config.strategy is not None:
        load(config.strategy.load, str(where))


class Appliance:
    """One core's part, opened in order and closed in reverse. Use it by ``with``.

    Args:
        config: the whole appliance.
        where: its file, which paths in it are relative to.
        core: the core to open; by default the only one.
        joints: what joins it to the others.

    Attributes:
        pump: its section of the hot path.
        metrics: where its loop writes what it does.
        chosen: what was chosen at start, by part.
        warnings: what whoever starts it has to know.
        cut_off: why nothing can come in any more, or empty.
        peers: with the stage "receive": numbers of "destinations" by name, and of who answers
            "retransmissions" by source.
    """

    def __init__(
        self, config: Config, where: Path, core: Core | None = None, joints: Joints | None = None
    ) -> None:
        self._config = config
        self._where = where
        self._core = core or config.cores[0]
        self._joints = joints or Joints()
        self._exit = contextlib.ExitStack()
        self._endpoints: list[DatagramEndpoint] = []
        self._shared: dict[str, SharedPort] = {}
        self._outboxes: list[Outbox] = []  # kept: the pump borrows them
        self._has = set(self._core.stages)
        self.peers: dict[str, dict[str, int]] = {"destinations": {}, "retransmissions": {}}
        self.chosen: dict[str, dict[str, Any]] = {}
        self.warnings: list[str] = []
        self.decoder: Decoder | None = None
        self.shots: ShotBook | None = None
        self.triggers: TriggerTable | None = None
        self.streams: Streams | None = None
        self._ledger: Ledger | None = None
        self._conductor: Conductor | None = None
        self.senders: Senders | None = None
        self._sender_pool: SenderPool | None = None
        self._memory_noted = False
        self.cut_off = ""
        try:
            self._open()
        except BaseException:
            self._exit.close()
            raise

    def __enter__(self) -> Appliance:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._exit.close()

    def _open(self) -> None:
        self._exit.callback(self._joints.close)
        self._open_records()
        feeds = self._open_feeds()
        out = self._open_out()
        arbiter = None
        dedup = None
        if "decode" in self._has:
            self.decoder = Decoder(Rules.preset(self._config.chain.fork, self._config.chain.id))
        if "trigger" in self._has:
            self.shots = self._open_shots()
            numbers = self.shots.numbers if self.shots else None
            self.triggers = self._exit.enter_context(
                TriggerTable(self._config.trigger, shots=numbers)
            )
            dedup = Dedup()
            named = [source.name for source in self._config.datagrams + self._config.streams]
            arbiter = Arbiter(named, dedup)
            library = secp.load()
            self.chosen["signatures"] = {"library": library.path, "version": library.version}
            self._open_senders()
        self._desk = Desk(out, self.peers["destinations"], self.shots, self.senders)
        if self._endpoints:
            self._desk.max_payload = self._endpoints[0].max_payload
        self.pump = Pump(
            feeds,
            decoder=self.decoder,
            triggers=self.triggers,
            dedup=dedup,
            shots=self.shots,
            out=out.ref,
            senders=self.senders,
            stages=(self._core.stages[0], self._core.stages[-1]),
            rings=Rings(
                before=self._joints.before.handle if self._joints.before else None,
                after=self._joints.after.handle if self._joints.after else None,
                outboxes=[ring.handle for ring in self._joints.outboxes],
                recorder=self._recorder.handle if self._recorder else None,
                metrics=self.metrics.handle,
            ),
            arbiter=arbiter,
            offers=bool(self._config.streams),
        )
        self._exit.callback(self.pump.close)
        self._desk.note_sent = lambda cause, peer, payload, left: self.pump.note_sent(
            cause, peer, payload, left=left
        )
        if arbiter is not None:
            self._ledger = Ledger(self._folder / f"{self._name}.sources", arbiter)
            self._exit.callback(self._ledger.close)
        if self._config.streams:
            assert self.decoder is not None
            assert arbiter is not None
            self.streams = _streams()(
                self._config.streams,
                first=len(feeds),
                where=self._where,
                decoder=self.decoder,
                arbiter=arbiter,
                pump=self.pump,
            )
            self._exit.callback(self.streams.close)
            self.chosen |= self.streams.chosen
            self.warnings += self.streams.warnings
        if "trigger" in self._has:
            for shot in self._config.shot:
                self._arm_configured(shot)
            self._open_strategy()
        self._write_about()

    def _open_records(self) -> None:
        """Metrics and flight recorder, under a name that no other living loop has."""
        folder = Path(self._config.metrics.folder)
        name = files.free_name(self._core.name, folder)
        if name != self._core.name:
            self.warnings.append(
                f"another living loop is called {self._core.name!r} in {folder}: this one writes "
                f"its metrics as {name!r}"
            )
        try:
            self.metrics = files.create(name, folder=folder, stall_ms=self._config.metrics.stall_ms)
        except (OSError, MetricsError) as error:
            raise BarewireError(
                f"no metrics can be written in {folder}: {error}",
                hint="metrics.folder names another one, on a tmpfs and of the same user",
            ) from error
        self._exit.callback(self.metrics.close)
        megabytes = self._config.recorder.megabytes
        self._recorder = flight.create(folder, name, megabytes)
        if self._recorder is not None:
            self._exit.callback(self._recorder.close)
        self._folder, self._name = folder, name
        self._reload = Reload(self._where, folder)
        self._exit.callback(self._reload.close)
        self.chosen["records"] = {"metrics": str(self.metrics.path), "recorder_mb": megabytes}

    def _open_feeds(self) -> list[Feed]:
        if not self._has & {"receive", "feed"}:
            return []
        feeds = []
        for number, source in enumerate(self._config.datagrams):
            peer, endpoint = None, None
            if "receive" in self._has:
                endpoint, peer = self._open_endpoint(source)
            elif source.retransmit is not None:
                assert self._joints.outbox is not None
                outbox = Outbox(self._joints.outbox, number)
                self._outboxes.append(outbox)
                endpoint = outbox.ref
                peer = self._joints.peers["retransmissions"][source.name]
            receiver = None
            if "feed" in self._has:
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
        channels: list[Channel] = []
        if source.retransmit is not None:
            # First, because an endpoint sends to a unicast peer from its first channel: the
            # answer then comes to an address of its own.
            channels.append(Channel(_address_towards(source.retransmit), 0))
        channels += [Channel(line.address, line.port, line.interface) for line in source.lines]
        endpoint = open_datagram(self._way_in(source.via.text), channels=channels)
        self._exit.callback(endpoint.close)
        self._endpoints.append(endpoint)
        self.chosen[source.name] = endpoint.describe() | {"trusted": source.trusted}
        peer = None
        if source.retransmit is not None:
            peer = _add_peer(endpoint, source.retransmit)
            self.peers["retransmissions"][source.name] = peer
        return endpoint.ref, peer

    def _way_in(self, via: str) -> str | Port:
        """`via`, or a member of a port that several sources share."""
        if via == "kernel" or [source.via.text for source in self._config.source].count(via) == 1:
            return via
        if via not in self._shared:
            self._shared[via] = SharedPort(open_port(via))
        return self._shared[via].member()

    def _open_out(self) -> Out:
        if "receive" not in self._has:
            self.peers = self._joints.peers
            assert self._joints.outbox is not None
            return Outbox(self._joints.outbox, 0)
        if not self._endpoints:  # all sources are streams
            out = open_datagram("kernel", channels=[Channel("0.0.0.0", 0)])  # noqa: S104
            self._exit.callback(out.close)
            self._endpoints.append(out)
        out = self._endpoints[0]
        for destination in self._config.destination:
            peer = _add_peer(out, destination.address)
            self.peers["destinations"][destination.name] = peer
        return out

    def _open_senders(self) -> None:
        wanted = self._config.senders
        if not wanted.workers:
            return
        self.senders = Senders()
        self._sender_pool = self._exit.enter_context(
            SenderPool(
                self.senders,
                workers=wanted.workers,
                cpus=wanted.cpus,
                tell=self.metrics.note,
            )
        )
        self.chosen["senders"] = {"workers": wanted.workers, "pids": self._sender_pool.pids}

    def _open_shots(self) -> ShotBook | None:
        """The book of shots, with a number for each that a trigger names; None: nothing fires."""
        fire = self._config.fire
        if not fire.unjournalled:
            return None
        self.warnings.append(
            "firing is unjournalled: what is sent is recorded nowhere, and after a crash nobody can"
            " tell what left"
        )
        caps = Caps(
            per_second=fire.max_per_second,
            total=fire.max_total,
            total_value_wei=fire.max_total_value.wei,
            max_fee_wei=fire.max_fee.wei,
        )
        book = self._exit.enter_context(ShotBook(caps, unjournalled=True))
        for trigger in self._config.trigger:
            if trigger.shot is not None:
                book.declare(trigger.shot)
        return book

    def _arm_configured(self, shot: Shot) -> None:
        payload = _payload(shot, self._where)
        self._desk.arm(
            shot.name,
            shot.destination,
            payload,
            expires_after_ms=shot.expires_after_ms,
            value_wei=shot.value.wei,
            max_fee_wei=shot.max_fee.wei,
            group=shot.group,
        )

    def _open_strategy(self) -> None:
        wanted = self._config.strategy
        if wanted is None:
            return
        shots = self.shots
        conductor = Conductor(
            make(wanted.load, str(self._where), self._desk, wanted.options),
            halt=shots.halt if shots else lambda: None,
            metrics=self.metrics,
            limit_ms=wanted.limit_ms,
        )
        self._conductor = conductor
        self._desk.halted = lambda: conductor.halted
        self._desk.cause = lambda: conductor.cause

    def _write_about(self) -> None:
        strategy = self._config.strategy
        sources = [
            flight.Listed(
                source.name,
                [(c.address, c.port) for c in endpoint.channels],
                source.trusted,
            )
            for source, endpoint in zip(self._config.datagrams, self._endpoints, strict=False)
        ] or [flight.Listed(source.name, [], source.trusted) for source in self._config.source]
        peers = {
            f"0/{self.peers['destinations'][d.name]}": (d.address.address, d.address.port)
            for d in self._config.destination
        }
        for number, listed in enumerate(self._config.datagrams):
            if (asks := listed.retransmit) is not None:
                peer = self.peers["retransmissions"][listed.name]
                peers[f"{number}/{peer}"] = asks.address, asks.port
        about = flight.About(
            loop=self._name,
            stages=list(self._core.stages),
            fork=self._config.chain.fork,
            chain_id=self._config.chain.id,
            sources=sources,
            peers=peers,
            triggers=self._config.trigger,
            fires=self.shots is not None,
            strategy=strategy.load if strategy else "",
        )
        if self._recorder is not None:
            flight.write_about(self._folder, about)

    # What the loop does.

    def conducting(self) -> contextlib.AbstractContextManager[object]:
        """While inside, calls of the strategy that take too long are broken off."""
        return self._conductor or contextlib.nullcontext()

    def hand_over(self, found: int) -> None:
        """Gives the matches of the last turn to the strategy."""
        if self._conductor is not None:
            self._conductor.hand_over(self.pump.matches(found))

    def run(self, until_mono_ns: int) -> int:
        """Turns until there are matches, or until that time; returns how many matches."""
        if self.streams is None:
            return self.pump.run(until_mono_ns)
        return self.streams.run(until_mono_ns)

    def housekeeping(self) -> None:
        """What has to happen beside the packets; a few times a second, never blocking."""
        if self.streams is not None:
            self.streams.housekeeping(time.monotonic_ns())
        for endpoint in self._endpoints:
            endpoint.housekeeping()
        if self._endpoints and all(endpoint.gone for endpoint in self._endpoints):
            self.cut_off = ", ".join(endpoint.trouble for endpoint in self._endpoints)
        if self.triggers is not None:
            self.triggers.reclaim()
            self._take_triggers()
        if self._sender_pool is not None:
            self._sender_pool.check()
        self._joints.beat()
        if self._recorder is not None:
            self._recorder.beat()

    def reload(self) -> None:
        """Starts to read the triggers again, where this core has them; see `appliance.reload`."""
        if self.triggers is not None:
            self._reload.begin(self.shots.numbers if self.shots else {})

    def _take_triggers(self) -> None:
        compiled = self._reload.poll()
        if compiled is None:
            return
        assert self.triggers is not None
        names = [trigger.name for trigger in compiled.triggers]
        try:
            self.triggers.replace_serialised(compiled.blob, names)
        except BarewireError as error:
            self._reload.said = f"triggers stay as they are: {error.message}"
            return
        self._config = msgspec.structs.replace(self._config, trigger=compiled.triggers)
        self._write_about()

    def measure(self) -> None:
        """Writes down what is too dear to be written at once: links and memory."""
        for source, endpoint in zip(self._config.datagrams, self._endpoints, strict=False):
            measure_endpoint(self.metrics, source.name, endpoint)
        for feed in self.pump.feeds:
            if feed.receiver is not None:
                measure_feed(self.metrics, feed)
        measure_rings(self.metrics, self._joints.before, self._joints.outbox)
        if self._ledger is not None:
            self._ledger.write(self.streams, self._mold_stats(), time.monotonic_ns())
        grown = self.metrics.look_at_memory()
        strategy = self._config.strategy
        if strategy and grown > strategy.memory_mb << 20 and not self._memory_noted:
            self._memory_noted = True
            self.metrics.note(
                f"strategy: memory grew by more than {strategy.memory_mb} MiB: it keeps objects, "
                "and nothing is collected while the loop runs"
            )

    def stop(self) -> None:
        """Lets the strategy finish, after the last packet."""
        if self._conductor is not None:
            self._conductor.stop()

    def stats(self) -> dict[str, Any]:
        """Every counter, by part."""
        conductor = self._conductor
        return {
            "pump": self.pump.stats(),
            "sources": self._source_stats(),
            "streams": self.streams.stats() if self.streams else {},
            "reassembly": self.pump.reassembly_stats(),
            "triggers": self.pump.match_stats() if self.triggers else {},
            "reload": self._reload.said,
            "refused": {name: entry.count for name, entry in self.decoder.refusals().items()}
            if self.decoder
            else {},
            "shots": self.shots.counts() if self.shots else {},
            "senders": self.senders.stats() if self.senders else {},
            "strategy": {
                "errors": conductor.errors,
                "stalled": int(conductor.stalled),
                "last_error": conductor.last_error,
            }
            if conductor
            else {},
        }

    def _mold_stats(self) -> dict[str, dict[str, Any]]:
        return {
            feed.name: feed.receiver.stats()
            for feed in self.pump.feeds
            if feed.receiver is not None
        }

    def _source_stats(self) -> dict[str, Any]:
        stats: dict[str, Any] = {feed.name: {} for feed in self.pump.feeds}
        for feed in self.pump.feeds:
            if feed.receiver is not None:
                stats[feed.name] |= feed.receiver.stats()
        for source, endpoint in zip(self._config.datagrams, self._endpoints, strict=False):
            stats[source.name]["endpoint"] = endpoint.stats()
            stats[source.name]["trouble"] = endpoint.trouble
        return stats


def _streams() -> type[Streams]:
    """Imported only where there are some: a feed of datagrams must not need websockets."""
    try:
        from appliance.streams import Streams
    except ModuleNotFoundError as error:
        raise BarewireError(
            f"a source is a stream, and there is no {error.name}",
            hint="pip install 'barewire[feeds]'",
        ) from error
    return Streams


def _payload(shot: Shot, where: Path) -> bytes:
    path = where.parent / shot.payload
    try:
        payload = bytes.fromhex(path.read_text(encoding="ascii").strip().removeprefix("0x"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{where}: shot {shot.name!r}: payload {path}: {error}",
            hint="a file of hexadecimal digits, relative to the configuration",
        ) from error
    if not 0 < len(payload) <= PAYLOAD_BYTES:
        raise ConfigError(
            f"{where}: shot {shot.name!r}: payload {path}: {len(payload)} bytes",
            hint=f"1 to {PAYLOAD_BYTES} bytes, what a datagram carries",
        )
    return payload


def _add_peer(endpoint: DatagramEndpoint, place: Place) -> int:
    return endpoint.add_peer(place.address, place.port, interface=place.interface)


def _address_towards(remote: Place) -> str:
    """The address of ours that the kernel would send from to reach `remote`."""
    family = socket.AF_INET6 if ":" in remote.address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((remote.address, remote.port))
        except OSError as error:
            raise ConfigError(
                f"no route to {remote}: {error.strerror}", hint="see `ip route get`"
            ) from error
        return str(probe.getsockname()[0])
