"""``barewire run --check``: what can be checked of a configuration without opening anything."""

from __future__ import annotations

from pathlib import Path

from appliance.config import Config
from appliance.extras import feeds_needed
from appliance.firing import payload_of
from appliance.strategy import load
from barewire.mempool.triggers import compile_triggers

__all__ = ["examine"]


def examine(config: Config, where: Path) -> None:
    """Checks triggers, payloads, the files that streams need, the strategy.

    Raises:
        ConfigError: what is wrong, and with which of them.
    """
    named = dict.fromkeys(trigger.shot for trigger in config.trigger if trigger.shot is not None)
    compile_triggers(config.trigger, shots={name: number for number, name in enumerate(named)})
    for shot in config.shot:
        payload_of(shot, where)
    if config.streams:
        _examine_streams(config, where)
    if config.strategy is not None:
        load(config.strategy.load, str(where))


def _examine_streams(config: Config, where: Path) -> None:
    with feeds_needed():
        from appliance.stream_files import headers_of, tls_of
    for source in config.streams:
        tls_of(source, where, dry=True)
        headers_of(source, where)
