"""A pool's configuration: TOML in, transports out, and errors that a person can act on.

msgspec checks types; what it does not say (the allowed values, the nearest key) is said here.
"""

from __future__ import annotations

import contextlib
import difflib
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import msgspec

from barewire.config import UNREAD, Unread, entries, raised, refusals, salvage, told, toml
from barewire.errors import ConfigError, shown
from barewire.rpc.addresses import Address, redact, resolve_secrets, without_secrets
from barewire.rpc.chains import CHAINS, Chain, chain
from barewire.rpc.link import Judge, Link
from barewire.rpc.policy import Policy
from barewire.rpc.provider import Provider, Terms
from barewire.rpc.transports import (
    Dialer,
    Http1Channel,
    Http2Channel,
    IpcChannel,
    WebSocketChannel,
)

if TYPE_CHECKING:
    from barewire.rpc.transports.dial import Resolver

__all__ = ["ProviderConfig", "RpcConfig", "load", "mistakes"]

CacheMode = Literal["off", "final", "head"]
TierName = Literal["colocated", "regional", "public"]
_TINY = sys.float_info.min
_PRIORITY = {"colocated": 1, "regional": 2, "public": 4}


class ProviderConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One ``[[provider]]`` of the file; at least one of `ipc`, `ws`, `http` is given.

    Attributes:
        name: unique; what people read.
        http: ``http://`` or ``https://`` address.
        ws: ``ws://`` or ``wss://`` address; used first, with `http` behind it.
        ipc: path of a Unix socket; used before `ws`.
        http2: speak HTTP/2 to `http`.
        headers: sent with each request; may hold ``${env:...}`` and ``${file:...}``.
        ca_file: PEM file of the authorities to trust instead of the system's.
        connections: the most HTTP/1.1 connections.
        priority: 1 is best; 0 takes the tier's: 1 colocated, 2 regional, 4 public.
        weight, tier, requests_per_s, units_per_s, methods, archive, private,
        batch_items, batch_bytes, price: see `Terms`.
    """

    name: str
    http: str = ""
    ws: str = ""
    ipc: str = ""
    http2: bool = False
    headers: dict[str, str] = {}
    ca_file: str = ""
    connections: int = 100
    priority: int = 0
    weight: float = 1.0
    tier: TierName = "regional"
    requests_per_s: float = 0.0
    units_per_s: float = 0.0
    methods: list[str] = []
    archive: bool = True
    private: str = ""
    batch_items: int = 100
    batch_bytes: int = 1_000_000
    price: float = 1.0

    def __repr__(self) -> str:
        shown = [redact(address) for address in (self.ipc, self.ws, self.http) if address]
        return f"ProviderConfig({self.name!r}: {', '.join(shown)})"

    @classmethod
    def from_url(cls, url: str, index: int = 0) -> ProviderConfig:
        """A provider with one address and defaults for the rest, named after its host."""
        whole = resolve_secrets(url, "the address")
        scheme, separator, _ = whole.partition("://")
        if not separator:
            if ":" in url and "/" not in url:
                bare = url.rpartition("@")[2]  # what is before it is a password, perhaps
                raise ConfigError(
                    f"{bare!r} has no scheme", hint=f"http://{bare}, ws://{bare}, or an IPC path"
                )
            return cls(name=f"{index}-{Path(url).name}", ipc=url)
        name = f"{index}-{Address(whole).authority}"
        if scheme in ("ws", "wss"):
            return cls(name=name, ws=url)
        return cls(name=name, http=url)

    def mistakes(self) -> Iterator[ConfigError]:
        """What the types allow and sense does not."""
        where = f"provider {self.name!r}"
        yield from told(self._without_address(where))
        for key in ("http", "ws"):
            yield from told(raised(ConfigError, self._check_scheme, key, getattr(self, key)))
        yield from told(_beyond(where + ": priority", self.priority, 0, "1 is best; 0: the tier's"))
        for key in ("weight", "price", "connections", "batch_items", "batch_bytes"):
            hint = f"{key} is greater than 0"
            yield from told(_beyond(f"{where}: {key}", getattr(self, key), _TINY, hint))
        for key in ("requests_per_s", "units_per_s"):
            hint = f"{key} is 0, which is no limit, or more"
            yield from told(_beyond(f"{where}: {key}", getattr(self, key), 0, hint))

    def _without_address(self, where: str) -> Iterator[ConfigError]:
        if not (self.http or self.ws or self.ipc):
            yield ConfigError(f"{where} has no address", hint="give one of http, ws, ipc")

    def unfilled(self) -> Iterator[ConfigError]:
        """What of ``${env:...}`` and ``${file:...}`` cannot be filled in now, and is needed."""
        for key in ("http",) if self.ipc else ("http", "ws"):
            yield from raised(ConfigError, self._address, key, getattr(self, key))
        for key, value in self.headers.items():
            yield from raised(ConfigError, self._header, key, value)

    def _check_scheme(self, key: str, value: str) -> None:
        if not value or value.startswith("${"):  # then it is seen once it is filled in
            return
        if value.partition("://")[0] not in (key, key + "s"):
            raise ConfigError(
                f"provider {self.name!r}: {key} = {redact(value)!r} is not allowed",
                hint=f"{key} begins with {key}:// or {key}s://",
            )

    def _address(self, key: str, value: str) -> Address | None:
        """Where `key` says it is, its secrets filled in; all of it may be one. None: nowhere."""
        whole = resolve_secrets(value, f"provider {self.name!r}: {key}")
        if value and not whole:
            raise ConfigError(
                f"provider {self.name!r}: {key} = {value!r} is empty once it is filled in",
                hint=f"{key} begins with {key}:// or {key}s://",
            )
        self._check_scheme(key, whole)
        return Address(whole) if whole else None

    def _header(self, key: str, value: str) -> str:
        where = f"provider {self.name!r}: headers.{key}"
        whole = resolve_secrets(value, where)
        if not (key + whole).isascii() or not (key + whole).isprintable():
            raise ConfigError(
                f"provider {self.name!r}: headers.{key!r} has characters that a header cannot have",
                hint="a line end after a secret, perhaps",
            )
        return whole

    def terms(self) -> Terms:
        """What the pool has to know."""
        return Terms(
            name=self.name,
            priority=self.priority or _PRIORITY[self.tier],
            weight=self.weight,
            tier=self.tier,
            requests_per_s=self.requests_per_s,
            units_per_s=self.units_per_s,
            methods=tuple(self.methods),
            archive=self.archive,
            private=self.private,
            batch_items=self.batch_items,
            batch_bytes=self.batch_bytes,
            price=self.price,
        )

    def link(self, provider: Provider, judge: Judge, resolver: Resolver) -> Link:
        """The transports of `provider`, with their secrets filled in."""
        link = Link(provider, judge)
        dialer = Dialer(resolver=resolver, ca_file=self.ca_file)
        headers = {key: self._header(key, value) for key, value in self.headers.items()}
        if address := self._address("http", self.http):
            if self.http2:
                link.http = Http2Channel(address, link, dialer, headers=headers)
            else:
                link.http = Http1Channel(
                    address, link, dialer, headers=headers, size=self.connections
                )
        if self.ipc:
            link.stream = IpcChannel(self.ipc, link)
        elif address := self._address("ws", self.ws):
            link.stream = WebSocketChannel(address, link, dialer, headers=headers)
        return link


class RpcConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One pool: a chain and its providers.

    Attributes:
        chain: a name of `CHAINS`, or any other with a `chain_id`.
        chain_id: EIP-155 id; 0 takes the named chain's, or, without a name, whatever is served.
        providers: ``[[provider]]`` tables.
        cache: ``off``, ``final`` (only what can never change), ``head`` (also what holds until the
            next block).
        sharing: identical reads in flight are asked once.
        follow_heads: subscribe to newHeads on every provider that pushes.
        vet: a provider that does not tell its chain id is not used.
        timeout_ms, hedge_floor_ms, hedge_ceiling_ms, hedge_share, mirror_share, check_ms,
        max_lag, block_time_ms: see `Policy`; 0 for the last two takes the chain's.
    """

    chain: str = ""
    chain_id: int = 0
    providers: list[ProviderConfig] = msgspec.field(name="provider", default_factory=list)
    cache: CacheMode = "final"
    sharing: bool = True
    follow_heads: bool = True
    vet: bool = True
    timeout_ms: int = 10_000
    hedge_floor_ms: float = 20.0
    hedge_ceiling_ms: float = 250.0
    hedge_share: float = 0.1
    mirror_share: float = 0.01
    check_ms: int = 5_000
    max_lag: int = 0
    block_time_ms: int = 0

    def chain_facts(self) -> Chain:
        """The chain; one without name and id is whatever the providers serve."""
        if not self.chain:
            by_id = {c.chain_id: c for c in CHAINS.values()}
            return by_id.get(self.chain_id, Chain("", self.chain_id, 12_000, 2))
        return chain(self.chain, self.chain_id)

    def policy(self) -> Policy:
        """The numbers by which the pool acts."""
        facts = self.chain_facts()
        return Policy(
            timeout_ms=self.timeout_ms,
            hedge_floor_ms=self.hedge_floor_ms,
            hedge_ceiling_ms=self.hedge_ceiling_ms,
            hedge_share=self.hedge_share,
            mirror_share=self.mirror_share,
            check_ms=self.check_ms,
            max_lag=self.max_lag or facts.max_lag,
            block_time_ms=self.block_time_ms or facts.block_time_ms,
        )

    def check(self) -> None:
        """Raises the first of :meth:`mistakes`."""
        for mistake in self.mistakes():
            raise mistake

    def mistakes(self) -> Iterator[ConfigError]:
        """What the types allow and sense does not."""
        yield from told(raised(ConfigError, self.chain_facts))
        yield from told(self._names())
        for _, provider in entries(self.providers):
            yield from provider.mistakes()
        yield from told(self._hedging())
        for key, least in (
            ("chain_id", 0),
            ("timeout_ms", 1),
            ("check_ms", 10),
            ("max_lag", 0),
            ("block_time_ms", 0),
        ):
            yield from told(_beyond(key, getattr(self, key), least, f"{key} is {least} or more"))
        for key in ("hedge_share", "mirror_share"):
            yield from told(_beyond(key, getattr(self, key), 0, f"{key} is 0 to 1", most=1))

    def _names(self) -> Iterator[ConfigError]:
        if not self.providers:
            yield ConfigError("no provider is configured", hint="add a [[provider]] table")
        names = [p.name for _, p in entries(self.providers) if p.name is not UNREAD]
        for name in dict.fromkeys(name for name in names if names.count(name) > 1):
            yield ConfigError(f"two providers are named {name!r}", hint="rename one of them")

    def _hedging(self) -> Iterator[ConfigError]:
        if not 0 < self.hedge_floor_ms <= self.hedge_ceiling_ms < math.inf:
            yield ConfigError(
                f"hedge_floor_ms = {self.hedge_floor_ms} and hedge_ceiling_ms = "
                f"{self.hedge_ceiling_ms} are not allowed",
                hint="0 < hedge_floor_ms <= hedge_ceiling_ms; usual are 20 and 250",
            )


def _beyond(
    key: str, value: float, least: float, hint: str, *, most: float = sys.float_info.max
) -> Iterator[ConfigError]:
    if not least <= value <= most:
        yield ConfigError(f"{key} = {shown(value)} is not allowed", hint=hint)


def load(text: str, *, where: str = "the configuration") -> list[RpcConfig]:
    """The pools of a TOML file: one at its top level, or several as ``[[pool]]`` tables.

    Raises:
        ConfigError: with the key, the value, and what is allowed.
    """
    for mistake in mistakes(text, where=where):
        raise mistake
    return [msgspec.convert(table, RpcConfig) for table in _tables(text, where)]


def mistakes(text: str, *, where: str = "the configuration") -> Iterator[ConfigError]:
    """All that :func:`load` refuses in `text`, of which it raises the first."""
    try:
        tables = _tables(text, where)
    except ConfigError as error:
        yield error
        return
    pools = []
    for table in tables:
        yield from _of_values(table, where)
        pools.append(salvage(table, RpcConfig))
    for pool in pools:
        yield from pool.mistakes()
    ids = [found for pool in pools for found in _chain_ids(pool)]
    for chain_id in dict.fromkeys(found for found in ids if ids.count(found) > 1):
        yield ConfigError(
            f"{where}: two pools for chain {chain_id}",
            hint="one pool a chain: put their providers together",
        )


def _chain_ids(pool: RpcConfig) -> Iterator[int]:
    with contextlib.suppress(ConfigError, Unread):  # said already
        yield pool.chain_facts().chain_id


def _tables(text: str, where: str) -> list[dict[str, Any]]:
    raw = toml(text, where=where)
    tables = raw["pool"] if set(raw) == {"pool"} else [raw]
    if not isinstance(tables, list) or not tables or not all(isinstance(t, dict) for t in tables):
        raise ConfigError(f"{where}: pool is not a list of tables", hint="write [[pool]]")
    for table in tables:
        providers = table.get("provider", [])
        if not isinstance(providers, list) or not all(isinstance(p, dict) for p in providers):
            raise ConfigError(
                f"{where}: provider is not a list of tables", hint="write [[provider]]"
            )
    return tables


def _of_values(table: dict[str, Any], where: str) -> Iterator[ConfigError]:
    yield from _unknown_keys(table, RpcConfig, where)
    for provider in table.get("provider", []):
        name = provider.get("name", "without a name")
        yield from _unknown_keys(provider, ProviderConfig, f"{where}: provider {shown(name)}")
    for said in refusals(table, RpcConfig):
        if "unknown field" not in said:
            yield _explained(said, table, where)


def _unknown_keys(
    table: dict[str, Any], struct: type[msgspec.Struct], where: str
) -> Iterator[ConfigError]:
    known = struct.__struct_encode_fields__
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(known)}"
            value = table[key]  # of a table, such as misspelt headers, it may all be secret
            written = "{...}" if isinstance(value, dict) else shown(without_secrets(value))
            yield ConfigError(f"{where}: unknown key {key!r} (= {written:.60})", hint=hint)


def _explained(said: str, table: dict[str, Any], where: str) -> ConfigError:
    message, _, path = said.partition(" - at `$")
    key = "." + path.rstrip("`").lstrip(".")
    value: Any = table
    hints: dict[str, Any] = RpcConfig.__annotations__
    last = ""
    for part in key.replace("[", ".[").strip(".").split("."):
        if part.startswith("["):
            index = part.strip("[].")
            value = value[int(index)] if isinstance(value, list) and index.isdecimal() else value
            hints = ProviderConfig.__annotations__
        elif part:
            last = part
            value = value.get(part) if isinstance(value, dict) else value
    choices = {"CacheMode": CacheMode, "TierName": TierName}.get(str(hints.get(last)))
    allowed = f"allowed: {', '.join(get_args(choices))}" if choices else message
    if not last or isinstance(value, dict | list):
        return ConfigError(f"{where}{key}: {message}")
    written = "..." if "headers" in key else shown(without_secrets(value))
    return ConfigError(f"{where}: {key.strip('.')} = {written} is not allowed", hint=allowed)
