"""What ``barewire run --config FILE`` reads.

    [core]
    cpu = 1                                  # pin the hot thread here
    fifo = 50                                # SCHED_FIFO of that priority; by default not

                                             # or several cores, each with a part of the path:
    # [[core]]                               #   a process each, and a ring in shared memory
    # name = "rx"                            #   between them
    # cpu = 1
    # stages = ["receive", "feed"]
    # [[core]]
    # name = "hit"
    # cpu = 2
    # stages = ["decode", "trigger"]

    [chain]
    id = 1
    fork = "osaka"

    [[source]]
    name = "site"
    via = "afxdp:eth1"                       # or "kernel"; or several: ["afxdp:eth1", "kernel"]
    lines = ["239.1.1.1:9000@eth1", "239.1.1.2:9000@eth1"]   # a line by eth2: a port there too
    retransmit = "10.0.0.1:9100"             # who answers for what both lines lost
    publishers = ["10.0.0.1"]                # who may send it; without them, anyone
    trusted = true                           # its transactions may fire unchecked

    [[source]]
    name = "node"
    url = "wss://node.example/ws"            # or ws://, ipc://PATH
    subscribe = "bodies"                     # or "hashes", "bloxroute"
    via = "afxdp:eth1"
    fallback = "kernel"                      # without it: an error where via cannot be had

    [[destination]]
    name = "gateway"
    address = "10.0.0.1:7000"

    [[trigger]]                              # see barewire.mempool.triggers
    name = "router"
    to = ["0x7a250d5630b4cf539739df2c5dacb4c659f2488d"]
    shot = "backrun"

    [[shot]]
    name = "backrun"
    destination = "gateway"
    payload = "backrun.hex"
    expires_after_ms = 60_000
    keep_armed = true                        # again and again, until it fires
    max_fee = "0.02 ether"

    [senders]
    workers = 2                              # processes that find out who signed what is new
    cpus = [4, 5]                            # a core for each; by default the scheduler's choice

    [fire]
    unjournalled = true                      # there is no journal yet: say that you know; without
                                             #   it nothing leaves, a strategy's sends neither
    max_per_second = 10
    max_total = 100
    max_total_value = "5 ether"
    max_fee = "0.05 ether"

    [strategy]
    load = "mine.py:Backrun"                 # or "package.module:Class", or an entry point's name
    options = { depth = 3 }                  # handed to it as they are
    limit_ms = 100                           # a call that takes longer is a stall: sending stops
    timer_ms = 1000                          # between two calls of on_timer, where it has one

    [metrics]
    stall_ms = 1.0                           # a longer turn of the loop counts as a stall

    [recorder]
    megabytes = 64                           # of the flight recorder, a core; 0: none

Every value is checked when it is read; an error names the key, the value and what is allowed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

import msgspec
from msgspec import Meta

from appliance.config_sources import (
    Address,
    Name,
    Source,
    Url,
    Via,
    port_mistakes,
    source_mistakes,
)
from appliance.metrics.files import FOLDER
from appliance.places import Place
from barewire import config
from barewire.config import UNREAD, Unread, entries, told
from barewire.errors import ConfigError, shown
from barewire.mempool.quantities import amount_of
from barewire.mempool.triggers import Trigger

__all__ = [
    "Address",
    "Amount",
    "Chain",
    "Config",
    "Core",
    "Destination",
    "Fire",
    "Metrics",
    "Recorder",
    "Senders",
    "Shot",
    "Source",
    "Stage",
    "Strategy",
    "Url",
    "Via",
    "check",
    "load",
    "mistakes",
]

_Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_Cpu = Annotated[int, Meta(ge=0, le=8191)]  # as many as Linux numbers
_DAY_S = 86_400


class Amount:
    """An amount of ether, written ``"1.5 ether"``, ``"30 gwei"`` or ``"7 wei"``."""

    allowed: ClassVar[str] = "an amount, such as '1.5 ether', '30 gwei' or '7 wei'"

    def __init__(self, wei: int) -> None:
        self.wei = wei

    @classmethod
    def parse(cls, text: str) -> Amount:
        """Reads an amount with its unit; raises ValueError that says what is wrong."""
        try:
            return cls(amount_of("amount", text))
        except ConfigError:
            raise ValueError("not an amount") from None

    def __str__(self) -> str:
        return f"{self.wei} wei"


Stage = Literal["receive", "feed", "decode", "trigger"]


class Core(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A hot thread and the stages of the path that it runs.

    Without `cpu` it is not pinned; with `fifo`, 1 to 99, it runs under SCHED_FIFO. `name` names
    its process, metrics and flight recorder.
    """

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.]{1,15}\Z")] = "hot"
    cpu: _Cpu | None = None
    stages: list[Stage] = msgspec.field(default_factory=lambda: list(get_args(Stage)))
    fifo: Annotated[int, Meta(ge=1, le=99)] | None = None
    lock_memory: bool = True


class Chain(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Whose transactions they are, and by which fork's rules they are judged."""

    id: Annotated[int, Meta(ge=1, le=2**63 - 1)] = 1
    fork: Literal["london", "shanghai", "cancun", "prague", "osaka"] = "osaka"


class Destination(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Where shots and a strategy's answers may go."""

    name: Name
    address: Place


class Shot(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Bytes that leave when a trigger that names this shot matches, once.

    `value` and `max_fee` are what they move and the most they pay for gas, for the caps. Where the
    payload is a signed transaction that says more, that counts.

    A payload is a signed transaction of the configured chain, or `payload_kind` says that it is not
    one: ``--check`` judges it by the decoder's rules.

    With `keep_armed` its expiry is moved on as long as the loop runs and it has not fired, so that
    `expires_after_ms` is how long it outlives a loop that does not get round to it.
    """

    name: Name
    destination: Name
    payload: str
    expires_after_ms: Annotated[int, Meta(ge=1, le=366 * _DAY_S * 1000)]
    value: Amount = Amount(0)
    max_fee: Amount = Amount(0)
    group: Name | None = None
    keep_armed: bool = False
    payload_kind: Literal["transaction", "bytes"] = "transaction"


class Fire(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Whether anything may leave, and what holds for all of it: shots, and a strategy's sends.

    The caps are checked by native code before anything leaves. Their defaults let a mistake cost
    little; whoever needs more says so.
    """

    unjournalled: bool = False
    max_per_second: Annotated[int, Meta(ge=1, le=65536)] = 10
    max_total: _Count = 1000
    max_total_value: Amount = Amount(10**18)
    max_fee: Amount = Amount(10**17)


class Strategy(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A user's class that is handed the matches (see appliance.strategy.load for `load`)."""

    load: Annotated[str, Meta(pattern=r"^([^:]+:)?[A-Za-z_][A-Za-z0-9_.-]*\Z")]
    options: dict[str, Any] = {}
    limit_ms: Annotated[float, Meta(ge=0.01, le=60_000)] = 100
    timer_ms: Annotated[float, Meta(ge=1, le=_DAY_S * 1000)] = 1000
    memory_mb: Annotated[int, Meta(ge=1, le=1 << 20)] = 256


class Senders(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Processes that find out who signed what is new; `cpus`: the core of each, or of none."""

    workers: Annotated[int, Meta(ge=0, le=16)] = 0
    cpus: list[_Cpu] = []


class Metrics(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Where counters and flight recorders lie, and from when on a turn is a stall."""

    folder: str = str(FOLDER)
    stall_ms: Annotated[float, Meta(ge=0.001, le=60_000)] = 1.0


class Recorder(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """How much the flight recorder keeps, in each core."""

    megabytes: Literal[0, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096] = 64


class Config(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The whole file."""

    source: Annotated[list[Source], Meta(min_length=1, max_length=16)]
    core: Core | list[Core] = Core()
    chain: Chain = Chain()
    destination: list[Destination] = []
    trigger: list[Trigger] = []
    shot: list[Shot] = []
    fire: Fire = Fire()
    strategy: Strategy | None = None
    senders: Senders = Senders()
    metrics: Metrics = Metrics()
    recorder: Recorder = Recorder()
    statistics_every_s: Annotated[float, Meta(ge=0.1, le=_DAY_S)] = 1.0

    @property
    def datagrams(self) -> list[Source]:
        """The sources that are MoldUDP64 feeds; their numbers are their places here."""
        return [source for source in self.source if not source.is_stream]

    @property
    def streams(self) -> list[Source]:
        """The sources that are byte streams; their numbers follow those of `datagrams`."""
        return [source for source in self.source if source.is_stream]

    @property
    def cores(self) -> list[Core]:
        """The cores in the order of the path."""
        return [self.core] if isinstance(self.core, Core) else self.core


def load(path: Path) -> Config:
    """Reads and checks the file at `path`.

    Raises:
        ConfigError: what is wrong, at which key, and what is allowed there.
    """
    loaded = config.load(path, Config)
    check(loaded, str(path))
    return loaded


def check(loaded: Config, where: str) -> None:
    """Raises the first of :func:`mistakes`."""
    for mistake in mistakes(loaded, where):
        raise mistake


def mistakes(loaded: Config, where: str) -> Iterator[ConfigError]:
    """What one value alone cannot tell: names that must be unique, or must exist, and the like.

    Of one that was salvaged (`barewire.config.salvage`) what its right values tell.
    """
    for kind in ("core", "source", "destination", "trigger", "shot"):
        listed = loaded.cores if kind == "core" else getattr(loaded, kind)
        yield from told(_unique(f"{where}: {kind}", listed))
    yield from told(_path(loaded, where))
    for index, source in entries(loaded.source):
        yield from told(source_mistakes(f"{where}: source[{index}]", source))
    yield from told(_ports(loaded, where))
    yield from _places(loaded, where)
    destinations = [entry.name for _, entry in entries(loaded.destination)]
    for index, shot in entries(loaded.shot):
        key = f"{where}: shot[{index}].destination"
        yield from told(_known(key, shot.destination, destinations))
    shots = [entry.name for _, entry in entries(loaded.shot)]
    for index, trigger in entries(loaded.trigger):
        # A strategy may arm shots that the file does not hold.
        if trigger.shot is not None and loaded.strategy is None:
            yield from told(_known(f"{where}: trigger[{index}].shot", trigger.shot, shots))
    yield from told(_workers(loaded, where))
    yield from told(_spinning(loaded, where))
    yield from told(_unjournalled(loaded, where))


def _unique(key: str, listed: Sequence[Any]) -> Iterator[ConfigError]:
    names: set[str] = set()
    for index, entry in entries(listed):
        if entry.name is UNREAD:
            continue
        if entry.name in names:
            yield ConfigError(
                f"{key}[{index}].name = {shown(entry.name)}: used twice",
                hint="names are unique, so that counters can tell them apart",
            )
        names.add(entry.name)


def _path(loaded: Config, where: str) -> Iterator[ConfigError]:
    path = [stage for core in loaded.cores for stage in core.stages]
    if any(stage is UNREAD for stage in path):
        raise Unread
    if path != list(get_args(Stage)) or not all(core.stages for core in loaded.cores):
        yield ConfigError(
            f"{where}: core.stages: together the cores run {', '.join(path) or 'nothing'}",
            hint=f"each of {', '.join(get_args(Stage))} once, in this order; at least one a core",
        )


def _ports(loaded: Config, where: str) -> Iterator[ConfigError]:
    if len(loaded.cores) > 1 and not loaded.datagrams:
        yield ConfigError(
            f"{where}: core: {len(loaded.cores)} cores, and all sources are streams",
            hint="streams are read by the core that has the stage trigger, so the others would "
            "have nothing to do: configure one",
        )
    yield from port_mistakes(loaded.source, [core.name for core in loaded.cores], where)


def _workers(loaded: Config, where: str) -> Iterator[ConfigError]:
    cpus = loaded.senders.cpus
    if cpus and len(cpus) != loaded.senders.workers:
        yield ConfigError(
            f"{where}: senders.cpus = {shown(cpus)}: {loaded.senders.workers} workers",
            hint="a core for each worker, or none",
        )


def _spinning(loaded: Config, where: str) -> Iterator[ConfigError]:
    pinned = [
        (f"core {str(index) if core.name is UNREAD else repr(core.name)}", core.cpu)
        for index, core in entries(loaded.cores)
        if core.cpu is not None and core.cpu is not UNREAD
    ]
    if isinstance(loaded.senders, Senders):
        pinned += [("senders.cpus", cpu) for _, cpu in entries(loaded.senders.cpus)]
    spinning: dict[int, str] = {}
    for who, cpu in pinned:
        if cpu in spinning:
            yield ConfigError(
                f"{where}: {who}: cpu = {cpu}: it is that of {spinning[cpu]}",
                hint="each spins: two on one core hold each other up for milliseconds",
            )
        spinning.setdefault(cpu, who)


def _unjournalled(loaded: Config, where: str) -> Iterator[ConfigError]:
    fires = loaded.shot or any(trigger.shot for trigger in loaded.trigger)
    if fires and not loaded.fire.unjournalled:
        yield ConfigError(
            f"{where}: fire.unjournalled = false: shots are configured, and there is no journal",
            hint="what is sent is recorded nowhere; set it to true if you accept that",
        )


def _places(loaded: Config, where: str) -> Iterator[ConfigError]:
    lines: dict[str, str] = {}
    for index, source in entries(loaded.source):
        for number, line in entries(source.lines):
            key = f"{where}: source[{index}].lines[{number}] = {str(line)!r}"
            if str(line) in lines:
                yield ConfigError(
                    f"{key}: {lines[str(line)]} is the same",
                    hint="copies of one feed come to different addresses or ports",
                )
            lines.setdefault(str(line), f"source[{index}].lines[{number}]")
            yield from _port(key, line)
            if source.via is UNREAD or source.via.is_kernel:
                continue
            if ip_address(line.address).is_unspecified:
                yield ConfigError(
                    f"{key}: a port takes the frames of one address",
                    hint="name the interface's own address, or a group",
                )
        if isinstance(source.retransmit, Place):
            yield from _port(f"{where}: source[{index}].retransmit", source.retransmit)
    for index, destination in entries(loaded.destination):
        if isinstance(destination.address, Place):
            yield from _port(f"{where}: destination[{index}].address", destination.address)


def _port(key: str, place: Place) -> Iterator[ConfigError]:
    if not place.port:
        yield ConfigError(f"{key}: port 0 is none", hint="1 to 65535")


def _known(key: str, name: str, names: list[str]) -> Iterator[ConfigError]:
    if name not in names:
        yield ConfigError(
            f"{key} = {name!r}: there is none of that name",
            hint=f"allowed: {', '.join(names) or 'none is configured'}",
        )
