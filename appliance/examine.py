"""``barewire run --check``: what can be checked of a configuration without opening anything."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from appliance.config import Config, Shot, Source, Strategy, mistakes
from appliance.extras import feeds_needed
from appliance.firing import payload_of
from appliance.strategy import load
from barewire import config
from barewire.errors import BarewireError, ConfigError
from barewire.mempool.decoder import Decoder, Refusal, Rules
from barewire.mempool.triggers import Trigger, compile_triggers

__all__ = ["examine"]

T = TypeVar("T")


def examine(where: Path) -> Iterator[BarewireError]:
    """Every mistake in the file `where`: each value that is none, and what is in right entries.

    Only where all values are right, what they are together too.

    Raises:
        ConfigError: it cannot be read, or is not TOML.
    """
    data = config.read(where)
    wrong = list(config.mistakes(data, Config, where=str(where)))
    if not wrong:
        yield from _together(config.convert(data, Config, where=str(where)), where)
        return
    yield from wrong
    for trigger in _right(data.get("trigger"), Trigger, where):
        yield from _raised(_compiled, [trigger], {trigger.shot: 0} if trigger.shot else {})
    for shot in _right(data.get("shot"), Shot, where):
        yield from _raised(payload_of, shot, where)
    for strategy in _right([data.get("strategy")], Strategy, where):
        yield from _raised(load, strategy.load, str(where))


def _right(entries: object, kind: type[T], where: Path) -> Iterator[T]:
    """Those of `entries` that are a `kind`; what is wrong with the others is said already."""
    for entry in entries if isinstance(entries, list) else ():
        with contextlib.suppress(ConfigError):
            yield config.convert(entry, kind, where=str(where))


def _together(loaded: Config, where: Path) -> Iterator[BarewireError]:
    """Values together, triggers, payloads, files of streams, missing extras, the strategy."""
    yield from mistakes(loaded, str(where))
    named = dict.fromkeys(trigger.shot for trigger in loaded.trigger if trigger.shot is not None)
    shots = {name: number for number, name in enumerate(named)}
    alone = [_raised(_compiled, [trigger], shots) for trigger in loaded.trigger]
    wrong = [mistake for one in alone for mistake in one]
    yield from wrong or _raised(_compiled, loaded.trigger, shots)
    for shot in loaded.shot:
        yield from _raised(_payload, loaded, shot, where)
    missing = list(_raised(_feeds)) if loaded.streams else []
    yield from missing
    for source in loaded.streams if not missing else ():
        yield from _raised(_tls, source, where)
        yield from _raised(_headers, source, where)
    if loaded.strategy is not None:
        yield from _raised(load, loaded.strategy.load, str(where))


def _raised(check: Callable[..., object], *arguments: object) -> Iterator[BarewireError]:
    """What `check` of `arguments` raises, if it does."""
    try:
        check(*arguments)
    except BarewireError as error:
        yield error


def _compiled(triggers: list[Trigger], shots: dict[str, int]) -> None:
    compile_triggers(triggers, shots=shots)


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
