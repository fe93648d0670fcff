"""``barewire run --check``: what can be checked of a configuration without opening anything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from msgspec.structs import replace

from appliance.config import Config, Shot, Source, Strategy, Url, mistakes
from appliance.extras import feeds_needed
from appliance.firing import payload_of
from appliance.strategy import load
from barewire import config
from barewire.config import entries, raised, told
from barewire.errors import BarewireError
from barewire.mempool.decoder import Decoder, Refusal, Rules
from barewire.mempool.trigger_table import TriggerTable
from barewire.mempool.triggers import Trigger, trigger_mistakes

__all__ = ["examine"]


def examine(where: Path) -> Iterator[BarewireError]:
    """Every mistake in the file `where`: each wrong value, and what the right ones are together.

    Raises:
        ConfigError: it cannot be read, or is not TOML.
    """
    data = config.read(where)
    yield from config.mistakes(data, Config, where=str(where))
    loaded: Config = config.salvage(data, Config)
    yield from mistakes(loaded, str(where))
    yield from told(_triggers(loaded))
    for _, shot in entries(loaded.shot):
        yield from told(raised(BarewireError, _payload, loaded, shot, where))
    yield from told(_streams(loaded, where))
    if isinstance(loaded.strategy, Strategy):
        yield from told(raised(BarewireError, load, loaded.strategy.load, str(where)))


def _triggers(loaded: Config) -> Iterator[BarewireError]:
    listed = [trigger for _, trigger in entries(loaded.trigger)]
    shots = {trigger.shot: 0 for trigger in listed if isinstance(trigger.shot, str)}
    wrong = [mistake for trigger in listed for mistake in trigger_mistakes(trigger, shots)]
    yield from wrong
    if not wrong and len({trigger.name for trigger in listed}) == len(loaded.trigger):
        yield from raised(BarewireError, _compiled, listed, shots)  # what they are together


def _compiled(triggers: list[Trigger], shots: dict[str, int]) -> None:
    TriggerTable(triggers, shots=shots).close()


def _streams(loaded: Config, where: Path) -> Iterator[BarewireError]:
    read = [source for _, source in entries(loaded.source) if isinstance(source.url, Url)]
    streams = [source for source in read if source.is_stream]
    if missing := list(raised(BarewireError, _feeds)) if streams else []:
        yield from missing
        return
    for source in streams:
        # The files of each end apart: a mistake in one does not hide the other's.
        yield from told(
            raised(
                BarewireError, _tls, replace(source, certificate_file=None, key_file=None), where
            )
        )
        if source.certificate_file is not None:
            yield from told(raised(BarewireError, _tls, replace(source, ca_file=None), where))
        yield from told(raised(BarewireError, _headers, source, where))


def _feeds() -> None:
    with feeds_needed():
        import appliance.stream_files  # noqa: F401 - whether it can be


def _tls(source: Source, where: Path) -> None:
    from appliance.stream_files import tls_of

    tls_of(source, where, dry=True)


def _headers(source: Source, where: Path) -> None:
    from appliance.stream_files import headers_of

    headers_of(source, where)


def _payload(loaded: Config, shot: Shot, where: Path) -> None:
    payload = payload_of(shot, where)
    if shot.payload_kind != "transaction":
        return
    judged = Decoder(Rules.preset(loaded.chain.fork, loaded.chain.id)).decode(payload)
    if isinstance(judged, Refusal):
        what = (
            f"a transaction of another chain than {loaded.chain.id}"
            if judged.verdict == "chain_id"
            else f"no transaction that {loaded.chain.fork} takes ({judged.verdict})"
        )
        raise BarewireError(
            f"{where}: shot {shot.name!r}: payload {shot.payload}: {what}",
            hint='docs/transaction-validity.md; payload_kind = "bytes" where it is meant so',
        )
