"""What one core's loop writes down while it runs: metrics, flight recorder, what its numbers mean.

They lie in one folder under a name that no other living loop has.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from appliance import flight
from appliance.config import Config, Core
from appliance.metrics import files
from barewire.errors import BarewireError
from dpdk_bindings.datagram import DatagramEndpoint
from dpdk_bindings.metrics import MetricsError

__all__ = ["Records"]


class Records:
    """Opened before anything else of a core, closed behind it.

    Attributes:
        folder: where they lie.
        name: of this loop there.
        metrics: where it writes what it does.
        recorder: the flight recorder, or None where it is off.
        chosen: what was chosen. warnings: what whoever starts it has to know.
    """

    def __init__(self, config: Config, core: Core) -> None:
        self._config = config
        self._core = core
        self._exit = contextlib.ExitStack()
        self.folder = Path(config.metrics.folder)
        self.warnings: list[str] = []
        try:
            with files.alone(self.folder):
                self._open()
        except (OSError, MetricsError) as error:
            self.close()
            raise BarewireError(
                f"no metrics can be written in {self.folder}: "
                f"{error.strerror if isinstance(error, OSError) else error}",
                hint="metrics.folder names another one, on a tmpfs and of the same user",
            ) from error
        except BaseException:
            self.close()
            raise
        megabytes = config.recorder.megabytes
        self.chosen = {"metrics": str(self.metrics.path), "recorder_mb": megabytes}

    def _open(self) -> None:
        self.name = files.free_name(self._core.name, self.folder)
        if self.name != self._core.name:
            self.warnings.append(
                f"another living loop is called {self._core.name!r} in {self.folder}: this one "
                f"writes its metrics as {self.name!r}"
            )
        stall_ms = self._config.metrics.stall_ms
        self.metrics = files.create(self.name, folder=self.folder, stall_ms=stall_ms)
        self._exit.callback(self.metrics.close)
        if self.name != self._core.name:
            # Nobody goes on with it: the next loop has the name without a number.
            self._exit.callback(flight.remove, self.folder, self.name)
        self.recorder = flight.create(self.folder, self.name, self._config.recorder.megabytes)
        if self.recorder is not None:
            self._exit.callback(self.recorder.close)

    def write_about(
        self,
        config: Config,
        endpoints: list[DatagramEndpoint],
        peers: dict[str, dict[str, int]],
        *,
        fires: bool,
        triggers: bytes | None,
    ) -> None:
        """Writes what the numbers in the flight recorder stand for.

        Args:
            config: as the loop was started.
            endpoints: of the sources of datagrams, if they are this core's.
            peers: see :attr:`appliance.intake.Intake.peers`.
            fires: whether shots may leave.
            triggers: as JSON, those that were read since; None: those of `config`.
        """
        if self.recorder is None:
            return
        strategy = config.strategy
        channels = [[(c.address, c.port) for c in endpoint.channels] for endpoint in endpoints]
        sources = [
            flight.Listed(
                source.name,
                channels[number] if number < len(channels) else [],
                source.trusted,
                source.is_stream,
            )
            for number, source in enumerate(config.datagrams + config.streams)
        ]
        places: dict[str, Any] = {
            f"0/{peers['destinations'][d.name]}": (d.address.address, d.address.port)
            for d in config.destination
        }
        for number, listed in enumerate(config.datagrams):
            if (asks := listed.retransmit) is not None:
                peer = peers["retransmissions"][listed.name]
                places[f"{number}/{peer}"] = asks.address, asks.port
        flight.write_about(
            self.folder,
            flight.About(
                loop=self.name,
                stages=list(self._core.stages),
                fork=config.chain.fork,
                chain_id=config.chain.id,
                sources=sources,
                peers=places,
                triggers=config.trigger if triggers is None else [],
                fires=fires,
                strategy=strategy.load if strategy else "",
            ),
            self.recorder,
            triggers,
        )

    def close(self) -> None:
        """Lets go of them; the flight recorder's file stays, unless the name has a number."""
        self._exit.close()
