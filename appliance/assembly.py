"""From a configuration to an appliance that is ready to turn.

Everything that can fail is done here, before the first packet: sockets and ports are opened,
tables compiled, memory taken, the strategy made. What was chosen on the way (backend, mode,
clock, widths) is collected in :attr:`Appliance.chosen` and said once.
"""

from __future__ import annotations

import contextlib
import socket
import time
import traceback
from pathlib import Path
from typing import Any

from appliance.config import Config, Shot, Source
from appliance.places import Place
from appliance.strategy import Strategy, load
from barewire import secp
from barewire.errors import BarewireError, ConfigError
from barewire.execution.shots import Caps, ShotBook
from barewire.feeds.moldudp64 import RETRANSMISSION, MoldConfig, MoldReceiver
from barewire.mempool.decoder import Decoder, Rules
from barewire.mempool.dedup import Dedup
from barewire.mempool.trigger_table import TriggerTable
from barewire.mempool.triggers import compile_triggers
from barewire.pump import Feed, Pump
from dpdk_bindings.datagram import Channel, DatagramEndpoint, open_datagram

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
    """One appliance, opened in order and closed in reverse. Use it by ``with``.

    Attributes:
        pump: the hot path.
        chosen: what was chosen at start, by part.
        warnings: what whoever starts it has to know.
        strategy_errors: exceptions that the strategy raised.
        last_strategy_error: the last of them, with its place.
    """

    def __init__(self, config: Config, where: Path) -> None:
        self._config = config
        self._where = where
        self._exit = contextlib.ExitStack()
        self._endpoints: list[DatagramEndpoint] = []
        self._peers: dict[str, int] = {}
        self._armed: dict[str, int] = {}
        self.chosen: dict[str, dict[str, Any]] = {}
        self.warnings: list[str] = []
        self.strategy_errors = 0
        self.last_strategy_error = ""
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
        config = self._config
        feeds = [self._open_source(source) for source in config.source]
        self._out = self._endpoints[0]
        for destination in config.destination:
            self._peers[destination.name] = _add_peer(self._out, destination.address)
        self.decoder = Decoder(Rules.preset(config.chain.fork, config.chain.id))
        self.shots = self._open_shots()
        self.triggers = self._exit.enter_context(
            TriggerTable(config.trigger, shots=self.shots.numbers if self.shots else None)
        )
        self.chosen["signatures"] = {"library": secp.load()}
        self._strategy = self._open_strategy()
        self.pump = Pump(
            feeds,
            decoder=self.decoder,
            triggers=self.triggers,
            dedup=Dedup(),
            shots=self.shots,
            out=self._out.ref,
        )
        self._exit.callback(self.pump.close)
        for shot in config.shot:
            self._arm_configured(shot)

    def _open_source(self, source: Source) -> Feed:
        """Opens the endpoint of one source: its lines, and where retransmissions come to."""
        channels: list[Channel] = []
        lines: list[int] = []
        if source.retransmit is not None:
            # First, because an endpoint sends to a unicast peer from its first channel: the
            # answer then comes to an address of its own.
            channels.append(Channel(_address_towards(source.retransmit), 0))
            lines.append(RETRANSMISSION)
        for number, line in enumerate(source.lines):
            channels.append(Channel(line.address, line.port, line.interface))
            lines.append(number)
        endpoint = open_datagram(source.via.text, channels=channels)
        self._exit.callback(endpoint.close)
        self._endpoints.append(endpoint)
        self.chosen[source.name] = endpoint.describe() | {"trusted": source.trusted}
        peer = None
        if source.retransmit is not None:
            peer = _add_peer(endpoint, source.retransmit)
        receiver = MoldReceiver(MoldConfig(lines=len(source.lines), ask=peer is not None))
        return Feed(source.name, endpoint.ref, receiver, lines, peer, source.trusted)

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
        self.arm(
            shot.name,
            shot.destination,
            payload,
            expires_after_ms=shot.expires_after_ms,
            value_wei=shot.value.wei,
            max_fee_wei=shot.max_fee.wei,
            group=shot.group,
        )

    def _open_strategy(self) -> Strategy | None:
        if self._config.strategy is None:
            return None
        made = load(self._config.strategy.load, str(self._where))
        return made(self, self._config.strategy.options)

    # What a strategy may do (appliance.strategy.Actions).

    def send(self, destination: str, payload: bytes) -> bool:
        """Sends `payload` to the destination of that name at once; False if it did not leave."""
        if self.halted:
            return False
        if not self._out.send(self._peer(destination), payload):
            return False
        return self._out.flush() > 0

    def arm(
        self,
        shot: str,
        destination: str,
        payload: bytes,
        *,
        expires_after_ms: int,
        value_wei: int = 0,
        max_fee_wei: int = 0,
        group: str | None = None,
        cookie: int = 0,
    ) -> None:
        """Arms a shot.

        Raises:
            BarewireError: nothing may fire here, it is armed, its group has fired, or a cap
                forbids it.
        """
        if self.shots is None:
            raise BarewireError(
                f"shot {shot!r}: nothing may fire: fire.unjournalled is false",
                hint="there is no journal yet; set it to true if you accept that",
            )
        self.shots.arm(
            shot,
            payload,
            peers=[self._peer(destination)],
            expires_mono_ns=self.now_mono_ns() + expires_after_ms * 1_000_000,
            value_wei=value_wei,
            max_fee_wei=max_fee_wei,
            group=group,
            cookie=cookie,
        )

    def now_mono_ns(self) -> int:
        """CLOCK_MONOTONIC."""
        return time.monotonic_ns()

    # What the loop does.

    @property
    def halted(self) -> bool:
        """Whether sending has stopped, after the strategy raised."""
        return self.strategy_errors > 0

    def hand_over(self, found: int) -> None:
        """Gives the matches of the last turn to the strategy.

        What it raises is counted, kept, and stops sending; receiving goes on.
        """
        if self._strategy is None:
            return
        for match in self.pump.matches(found):
            try:
                self._strategy.on_match(match)
            except Exception:  # noqa: BLE001  any error of a user's code must not stop the loop
                self.strategy_errors += 1
                self.last_strategy_error = traceback.format_exc()
                if self.shots is not None:
                    self.shots.halt()

    def housekeeping(self) -> None:
        """What has to happen beside the packets; a few times a second, never blocking."""
        for endpoint in self._endpoints:
            endpoint.housekeeping()
        self.triggers.reclaim()

    def stop(self) -> None:
        """Lets the strategy finish, after the last packet."""
        on_stop = getattr(self._strategy, "on_stop", None)
        if on_stop is not None:
            on_stop()

    def stats(self) -> dict[str, Any]:
        """Every counter, by part."""
        sources = {}
        for source, feed, endpoint in zip(
            self._config.source, self.pump.feeds, self._endpoints, strict=True
        ):
            sources[source.name] = feed.receiver.stats() | {"endpoint": endpoint.stats()}
        refusals = {name: entry.count for name, entry in self.decoder.refusals().items()}
        return {
            "pump": self.pump.stats(),
            "sources": sources,
            "reassembly": self.pump.reassembly_stats(),
            "triggers": self.pump.match_stats(),
            "refused": refusals,
            "shots": self.shots.counts() if self.shots else {},
            "strategy": {"errors": self.strategy_errors, "last_error": self.last_strategy_error},
        }

    def _peer(self, destination: str) -> int:
        try:
            return self._peers[destination]
        except KeyError:
            raise BarewireError(
                f"there is no destination {destination!r}",
                hint=f"configured: {', '.join(self._peers) or 'none'}",
            ) from None


def _payload(shot: Shot, where: Path) -> bytes:
    path = where.parent / shot.payload
    try:
        payload = bytes.fromhex(path.read_text(encoding="ascii").strip().removeprefix("0x"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{where}: shot {shot.name!r}: payload {path}: {error}",
            hint="a file of hexadecimal digits, relative to the configuration",
        ) from error
    if not payload:
        raise ConfigError(f"{where}: shot {shot.name!r}: payload {path}: the file is empty")
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
