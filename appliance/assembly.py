"""From a configuration to one core of an appliance that is ready to turn.

Everything that can fail is done here, before the first packet: sockets and ports are opened
(appliance.intake), tables compiled, memory taken, the strategy made. What was chosen on the way
(backend, mode, clock, widths) is collected in :attr:`Appliance.chosen` and said once. A core opens
what its own stages need; one that has all of them needs nobody else.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from appliance.causes import Causes, Sample
from appliance.conductor import NEVER, Conductor
from appliance.config import Config, Core, Source
from appliance.desk import Desk
from appliance.extras import feeds_needed
from appliance.firing import NOTHING_LEAVES, UNJOURNALLED, Standing, open_book, signatures_needed
from appliance.heads import Heads
from appliance.intake import Intake
from appliance.joints import Joints
from appliance.ledger import Ledger
from appliance.links import measure_endpoint, measure_feed, measure_rings
from appliance.ports import Ports
from appliance.records import Records
from appliance.reload import Reload
from appliance.sender_pool import SenderPool
from appliance.strategy import make
from barewire import secp
from barewire.errors import BarewireError
from barewire.execution.shots import ShotBook
from barewire.feeds.arbitration import Arbiter
from barewire.mempool.decoder import Decoder, Rules
from barewire.mempool.dedup import Dedup
from barewire.mempool.senders import Senders
from barewire.mempool.trigger_table import TriggerTable
from barewire.pump import Pump, Rings

if TYPE_CHECKING:
    from appliance.streams import Streams
    from dpdk_bindings.datagram import DatagramEndpoint

__all__ = ["Appliance"]

NO_BLOCKS = (
    "the strategy has on_block, and no source tells of blocks: a node does (url = ws://, wss:// or "
    "ipc://); MoldUDP64 and bloXroute do not"
)
_GIVEN_UP = {
    "given_up_late": "found behind its expiry",
    "given_up_no_way": "no room, no next hop, or too long for the way there",
    "given_up_failed": "the way out failed",
}
"""What became of what another core had sent, by the pump's counter."""


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
    """

    def __init__(
        self, config: Config, where: Path, core: Core | None = None, joints: Joints | None = None
    ) -> None:
        self._config = config
        self._where = where
        self._core = core or config.cores[0]
        self._joints = joints or Joints()
        self._exit = contextlib.ExitStack()
        self._has = set(self._core.stages)
        self.chosen: dict[str, dict[str, Any]] = {}
        self.warnings: list[str] = []
        self.decoder: Decoder | None = None
        self.shots: ShotBook | None = None
        self.triggers: TriggerTable | None = None
        self.streams: Streams | None = None
        self._conductor: Conductor | None = None
        self._matches: dict[str, int] = {}  # by trigger
        self._heads: Heads | None = None
        self._standing: Standing | None = None
        self._said_of_shots = ""
        self.senders: Senders | None = None
        self._sender_pool: SenderPool | None = None
        self._memory_noted = False
        self._given_up = dict.fromkeys(_GIVEN_UP, 0)
        self._no_secp = False
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
        ports = Ports(
            (self._config.datagrams if "receive" in self._has else [])
            + (self._config.streams if "trigger" in self._has else [])
        )
        self._intake = Intake(self._config, self._core, self._joints, ports)
        self._exit.callback(self._intake.close)
        self.chosen |= self._intake.chosen
        arbiter = None
        dedup = None
        reads_streams = bool(self._config.streams) and "trigger" in self._has
        if "decode" in self._has or reads_streams:
            self.decoder = Decoder(Rules.preset(self._config.chain.fork, self._config.chain.id))
        if "trigger" in self._has:
            self._open_shots()
            numbers = self.shots.numbers if self.shots else None
            self.triggers = self._exit.enter_context(
                TriggerTable(self._config.trigger, shots=numbers)
            )
            dedup = Dedup()
            named = [source.name for source in self._config.datagrams + self._config.streams]
            arbiter = Arbiter(named, dedup)
            self._load_secp()
            self._open_senders()
        out = self._intake.out
        self._desk = Desk(out, self.peers["destinations"], self.shots, self.senders)
        if self._intake.endpoints:
            self._desk.max_payload = self._intake.endpoints[0].max_payload
        else:  # another core has them, and follows what its way takes; here it is as at start
            longest = {
                peer: self.peers["longest"][name]
                for name, peer in self.peers["destinations"].items()
            }
            self._desk.max_payload = longest.__getitem__
        recorder = self._records.recorder
        self.pump = Pump(
            self._intake.feeds,
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
                recorder=recorder.handle if recorder else None,
                metrics=self.metrics.handle,
            ),
            arbiter=arbiter,
            offers=reads_streams,
        )
        self._exit.callback(self.pump.close)
        self._desk.note = self.metrics.note
        self._desk.note_sent = lambda cause, peer, payload, left: self.pump.note_sent(
            cause, peer, payload, left=left
        )
        self._ledger = Ledger(
            self._records.folder / f"{self._records.name}.sources",
            arbiter,
            appliance=self._joints.appliance,
            tell=self.metrics.note,
        )
        self._exit.callback(self._ledger.close)
        causes = self._records.folder / f"{self._records.name}.causes"
        self._causes = Causes(causes, self.metrics.note)
        self._exit.callback(self._causes.close)
        if reads_streams:
            assert arbiter is not None
            self._open_streams(arbiter, ports)
        self.warnings += ports.warnings
        if "trigger" in self._has:
            self._arm_configured()
            self._open_strategy()
        self._write_about()

    def _open_records(self) -> None:
        self._records = Records(self._config, self._core)
        self._exit.callback(self._records.close)
        self.metrics = self._records.metrics
        self.warnings += self._records.warnings
        self.chosen["records"] = self._records.chosen
        self._reload = Reload(self._where, self._records.folder)
        self._exit.callback(self._reload.close)

    def _open_streams(self, arbiter: Arbiter, ports: Ports) -> None:
        assert self.decoder is not None
        self.streams = _streams()(
            self._config.streams,
            first=len(self._config.datagrams),
            where=self._where,
            ports=ports,
            decoder=self.decoder,
            arbiter=arbiter,
            pump=self.pump,
        )
        self._exit.callback(self.streams.close)
        self.chosen |= self.streams.chosen
        self.warnings += self.streams.warnings

    def _load_secp(self) -> None:
        """Finds libsecp256k1, which is an error only where something needs it."""
        why = signatures_needed(self._config)
        try:
            library = secp.load()
        except BarewireError as error:
            if why:
                raise BarewireError(f"{why}: {error.message}", hint=error.hint) from error
            self.chosen["signatures"] = {"library": "none, and nothing here needs one"}
            self._no_secp = True
            return
        self.chosen["signatures"] = {"library": library.path, "version": library.version}

    def _open_shots(self) -> None:
        self.shots = open_book(self._config)
        if self.shots is not None:
            self._exit.enter_context(self.shots)
            self.warnings.append(UNJOURNALLED)

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

    def _arm_configured(self) -> None:
        if self.shots is not None:
            self._standing = Standing(
                self._config.shot, self._where, self._desk, self.shots, self._say_of_shots
            )

    def _say_of_shots(self, said: str) -> None:
        self._said_of_shots = said
        self.metrics.note(said)

    def _open_strategy(self) -> None:
        wanted = self._config.strategy
        if wanted is None:
            return
        shots = self.shots
        if shots is None and self._config.destination:
            self.warnings.append(NOTHING_LEAVES)
        conductor = Conductor(
            make(wanted.load, str(self._where), self._desk, wanted.options),
            halt=shots.halt if shots else lambda: None,
            metrics=self.metrics,
            limit_ms=wanted.limit_ms,
            timer_ms=wanted.timer_ms,
        )
        self._conductor = conductor
        if conductor.follows_blocks:
            self._heads = Heads(conductor.hand_block)
            if self.streams is None or not self.streams.follow_blocks(self._heads):
                self.warnings.append(NO_BLOCKS)
        self._desk.cause = lambda: conductor.cause

    def _write_about(self, triggers: bytes | None = None) -> None:
        self._records.write_about(
            self._config,
            self._intake.endpoints,
            self.peers,
            fires=self.shots is not None,
            triggers=triggers,
        )

    @property
    def peers(self) -> dict[str, dict[str, int]]:
        """See :attr:`appliance.intake.Intake.peers`."""
        return self._intake.peers

    @property
    def cut_off(self) -> str:
        """Why nothing can come in any more, or empty."""
        return self._intake.cut_off()

    # What the loop does.

    @property
    def timer_due_mono_ns(self) -> int:
        """When :meth:`tick` is to be called."""
        return self._conductor.timer_due_mono_ns if self._conductor is not None else NEVER

    def start_timer(self, now_mono_ns: int) -> None:
        """The strategy's timer begins now."""
        if self._conductor is not None:
            self._conductor.start_timer(now_mono_ns)

    def tick(self, now_mono_ns: int) -> None:
        """Calls the strategy's timer."""
        if self._conductor is not None:
            self._conductor.tick(now_mono_ns)

    def conducting(self) -> contextlib.AbstractContextManager[object]:
        """While inside, calls of the strategy that take too long are broken off."""
        return self._conductor or contextlib.nullcontext()

    def hand_over(self, found: int) -> None:
        """Gives the matches of the last turn to the strategy."""
        if self._conductor is not None:
            self._conductor.hand_over(self.pump.matches(found))
        # Behind the strategy, which does not wait for it.
        for trigger in self.pump.found_triggers(found):
            self._matches[trigger] = self._matches.get(trigger, 0) + 1

    def run(self, until_mono_ns: int) -> int:
        """Turns until there are matches, or until that time; returns how many matches."""
        if self.streams is None:
            return self.pump.run(until_mono_ns)
        return self.streams.run(until_mono_ns)

    def housekeeping(self) -> None:
        """What has to happen beside the packets; a few times a second, never blocking."""
        if self.streams is not None:
            self.streams.housekeeping(time.monotonic_ns())
        for endpoint in self._intake.endpoints:
            endpoint.housekeeping()
        if self.triggers is not None:
            self.triggers.reclaim()
            self._take_triggers()
        if self._standing is not None:
            self._standing.tend(time.monotonic_ns())
        if self._sender_pool is not None:
            self._sender_pool.check()
        self._joints.beat()
        if self._records.recorder is not None:
            self._records.recorder.beat()

    def reload(self) -> None:
        """Starts to read the triggers again, where this core has them; see `appliance.reload`."""
        if self.triggers is not None:
            self._reload.begin(self.shots.numbers if self.shots else {})

    def _take_triggers(self) -> None:
        compiled = self._reload.poll()
        if compiled is None:
            return
        assert self.triggers is not None
        if compiled.signatures and self._no_secp:
            self._reload.said = f"triggers stay as they are: {compiled.signatures}: no libsecp256k1"
            return
        try:
            self.triggers.replace_serialised(compiled.blob, compiled.names)
        except BarewireError as error:
            self._reload.said = f"triggers stay as they are: {error.message}"
            return
        try:
            self._write_about(compiled.text)
        except OSError as error:  # they are in use all the same
            self.metrics.note(f"flight recorder: {error.filename}: {error.strerror}")

    def measure(self) -> None:
        """Writes down what is too dear to be written at once: links and memory."""
        for source, endpoint in zip(self._config.datagrams, self._intake.endpoints, strict=False):
            measure_endpoint(self.metrics, source.name, endpoint)
        for feed in self.pump.feeds:
            if feed.receiver is not None:
                measure_feed(self.metrics, feed)
        measure_rings(self.metrics, self._joints.before, self._joints.outbox)
        stats = self.stats()
        self._tell_given_up(stats["pump"])
        self._ledger.write(stats["streams"], stats["sources"], time.monotonic_ns())
        if self.streams is not None:
            endpoints = self.streams.endpoints.items()
            stats["stream_ports"] = {way: endpoint.stats() for way, endpoint in endpoints}
        stats["matches"] = self._matches
        self._causes.write(stats, self._samples(), time.time_ns())
        grown = self.metrics.look_at_memory()
        strategy = self._config.strategy
        if strategy and grown > strategy.memory_mb << 20 and not self._memory_noted:
            self._memory_noted = True
            self.metrics.note(
                f"strategy: memory grew by more than {strategy.memory_mb} MiB: it keeps objects, "
                "and nothing is collected while the loop runs"
            )

    def _tell_given_up(self, pump: dict[str, int]) -> None:
        """Says what other cores were told has left, and did not."""
        for cause, why in _GIVEN_UP.items():
            if pump[cause] > self._given_up[cause]:
                self._given_up[cause] = pump[cause]
                self.metrics.note(f"handed over by another core, and not sent: {why}")

    def stop(self) -> None:
        """Lets the strategy finish, after the last packet."""
        if self._conductor is not None:
            with self._conductor:
                self._conductor.stop()

    def stats(self) -> dict[str, Any]:
        """Every counter, by part."""
        conductor = self._conductor
        return {
            "pump": self.pump.stats(),
            "sources": self._source_stats(),
            "destinations": self._destination_stats(),
            "streams": self.streams.stats() if self.streams else {},
            "reassembly": self.pump.reassembly_stats(),
            "triggers": self.pump.match_stats() if self.triggers else {},
            "reload": self._reload.said,
            "expired": self._said_of_shots,
            "refused": {name: entry.count for name, entry in self.decoder.refusals().items()}
            if self.decoder
            else {},
            "shots": self.shots.counts() if self.shots else {},
            "sends": self._sends(),
            "senders": self.senders.stats() if self.senders else {},
            "strategy": {
                "errors": conductor.errors,
                "stalled": int(conductor.stalled),
                "last_error": conductor.last_error,
                "blocks": self._heads.stats() if self._heads else {},
            }
            if conductor
            else {},
        }

    def _samples(self) -> Iterator[Sample]:
        """The last bad bytes of each cause, of every part that keeps them."""
        if self.decoder is not None:
            for name, refusal in self.decoder.refusals().items():
                kept = refusal.sample.hex()
                yield Sample("refused", "", name, refusal.count, refusal.sample_bytes, kept)
        for source, endpoint in zip(self._config.datagrams, self._intake.endpoints, strict=False):
            yield from _kept("sources", source.name, "endpoint/", endpoint)
        for feed in self.pump.feeds:
            if feed.receiver is not None:
                yield from _kept("sources", feed.name, "refused/", feed.receiver)
        for name, part in self.pump.reassemblers.items():
            yield from _kept("reassembly", name, "refused/", part)
        if self.streams is not None:
            for name, reader in self.streams.readers.items():
                yield from _kept("streams", name, "refused/", reader)
            for way, stream in self.streams.endpoints.items():
                yield from _kept("stream_ports", way, "", stream)

    def _sends(self) -> dict[str, int]:
        """What the strategy sent without a shot, and what was refused of it, by cause."""
        left = self.shots.send_counts()["fired"] if self.shots else 0
        return {"left": left, **self._desk.refused}

    def _source_stats(self) -> dict[str, Any]:
        stats: dict[str, Any] = {feed.name: {} for feed in self.pump.feeds}
        for feed in self.pump.feeds:
            if feed.receiver is not None:
                stats[feed.name] |= feed.receiver.stats()
        for source, endpoint in zip(self._config.datagrams, self._intake.endpoints, strict=False):
            stats[source.name]["endpoint"] = endpoint.stats()
            stats[source.name]["trouble"] = endpoint.trouble or self._cannot_ask(source, endpoint)
        return stats

    def _cannot_ask(self, source: Source, endpoint: DatagramEndpoint) -> str:
        """Why a source's losses cannot be asked for again, or empty."""
        peer = self.peers["retransmissions"].get(source.name)
        trouble = "" if peer is None else endpoint.peer_trouble(peer)
        return trouble and f"no retransmission: {trouble}"

    def _destination_stats(self) -> dict[str, Any]:
        """Why nothing can be sent to a destination; of the core that has the endpoints."""
        if not self._intake.endpoints:
            return {}
        trouble = self._intake.endpoints[0].peer_trouble
        return {
            name: {"trouble": trouble(peer)} for name, peer in self.peers["destinations"].items()
        }


def _streams() -> type[Streams]:
    with feeds_needed():
        from appliance.streams import Streams
    return Streams


class _Keeps(Protocol):
    """What keeps samples."""

    def stats(self) -> dict[str, Any]:
        """Counters; of what was refused under ``refused``, or among them."""
        ...

    def samples(self) -> dict[str, bytes]:
        """The last bad bytes, by cause."""
        ...


def _kept(part: str, of: str, below: str, what: _Keeps) -> Iterator[Sample]:
    stats = what.stats()
    counts = stats["refused"] if below == "refused/" else stats
    for cause, kept in what.samples().items():
        yield Sample(part, of, below + cause, counts[cause], len(kept), kept.hex())
