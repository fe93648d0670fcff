"""A pool's configuration: TOML in, transports out, and errors that a person can act on.

msgspec checks types; what it does not say (the allowed values, the nearest key) is said here.
"""

from __future__ import annotations

import difflib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import msgspec

from barewire.errors import ConfigError
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

__all__ = ["ProviderConfig", "RpcConfig", "load"]

CacheMode = Literal["off", "final", "head"]
TierName = Literal["colocated", "regional", "public"]
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
        whole = resolve_secrets(url, "the address") if url.startswith("${") else url
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

    def check(self) -> None:
        """Raises `ConfigError` for what the types allow and sense does not."""
        where = f"provider {self.name!r}"
        if not (self.http or self.ws or self.ipc):
            raise ConfigError(f"{where} has no address", hint="give one of http, ws, ipc")
        for key, value in (("http", self.http), ("ws", self.ws)):
            if value and not value.startswith("${"):  # then it is seen once it is filled in
                self._check_scheme(key, value)
        if self.priority < 0:
            raise ConfigError(
                f"{where}: priority = {self.priority} is not allowed",
                hint="1 is best; 0 takes the tier's",
            )
        for key in ("weight", "price", "connections", "batch_items", "batch_bytes"):
            if not 0 < getattr(self, key) < math.inf:
                raise ConfigError(
                    f"{where}: {key} = {getattr(self, key)} is not allowed",
                    hint=f"{key} is greater than 0",
                )
        for key in ("requests_per_s", "units_per_s"):
            if not 0 <= getattr(self, key) < math.inf:
                raise ConfigError(
                    f"{where}: {key} = {getattr(self, key)} is not allowed",
                    hint=f"{key} is 0, which is no limit, or more",
                )

    def _check_scheme(self, key: str, value: str) -> None:
        if value.partition("://")[0] not in (key, key + "s"):
            raise ConfigError(
                f"provider {self.name!r}: {key} = {redact(value)!r} is not allowed",
                hint=f"{key} begins with {key}:// or {key}s://",
            )

    def _address(self, key: str, value: str) -> Address:
        """Where `key` says it is, its secrets filled in; all of it may be one."""
        whole = resolve_secrets(value, f"provider {self.name!r}: {key}")
        if value.startswith("${"):
            self._check_scheme(key, whole)
        return Address(whole)

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
        where = f"provider {self.name!r}"
        link = Link(provider, judge)
        dialer = Dialer(resolver=resolver, ca_file=self.ca_file)
        headers = {
            key: resolve_secrets(value, f"{where}: headers.{key}")
            for key, value in self.headers.items()
        }
        for key, value in headers.items():
            if not (key + value).isascii() or not (key + value).isprintable():
                raise ConfigError(
                    f"{where}: headers.{key!r} has characters that a header cannot have",
                    hint="a line end after a secret, perhaps",
                )
        if self.http:
            address = self._address("http", self.http)
            if self.http2:
                link.http = Http2Channel(address, link, dialer, headers=headers)
            else:
                link.http = Http1Channel(
                    address, link, dialer, headers=headers, size=self.connections
                )
        if self.ipc:
            link.stream = IpcChannel(self.ipc, link)
        elif self.ws:
            address = self._address("ws", self.ws)
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
        """Raises `ConfigError` for what the types allow and sense does not."""
        self.chain_facts()
        if not self.providers:
            raise ConfigError("no provider is configured", hint="add a [[provider]] table")
        names = [p.name for p in self.providers]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"two providers are named {name!r}", hint="rename one of them")
        for provider in self.providers:
            provider.check()
        if not 0 < self.hedge_floor_ms <= self.hedge_ceiling_ms < math.inf:
            raise ConfigError(
                f"hedge_floor_ms = {self.hedge_floor_ms} and hedge_ceiling_ms = "
                f"{self.hedge_ceiling_ms} are not allowed",
                hint="0 < hedge_floor_ms <= hedge_ceiling_ms; usual are 20 and 250",
            )
        for key, least in (
            ("timeout_ms", 1),
            ("check_ms", 10),
            ("max_lag", 0),
            ("block_time_ms", 0),
        ):
            if getattr(self, key) < least:
                raise ConfigError(
                    f"{key} = {getattr(self, key)} is not allowed",
                    hint=f"{key} is {least} or more",
                )
        for key in ("hedge_share", "mirror_share"):
            if not 0 <= getattr(self, key) <= 1:
                raise ConfigError(
                    f"{key} = {getattr(self, key)} is not allowed", hint=f"{key} is 0 to 1"
                )


def load(text: str, *, where: str = "the configuration") -> list[RpcConfig]:
    """The pools of a TOML file: one at its top level, or several as ``[[pool]]`` tables.

    Raises:
        ConfigError: with the key, the value, and what is allowed.
    """
    try:
        raw = msgspec.toml.decode(text)
    except msgspec.DecodeError as error:
        raise ConfigError(f"{where} is not TOML: {error}") from None
    tables = raw["pool"] if set(raw) == {"pool"} else [raw]
    if not isinstance(tables, list) or not tables or not all(isinstance(t, dict) for t in tables):
        raise ConfigError(f"{where}: pool is not a list of tables", hint="write [[pool]]")
    pools = [_pool(table, where) for table in tables]
    for pool in pools:
        pool.check()
    ids = [pool.chain_facts().chain_id for pool in pools]
    for chain_id in ids:
        if ids.count(chain_id) > 1:
            raise ConfigError(
                f"{where}: two pools for chain {chain_id}",
                hint="one pool a chain: put their providers together",
            )
    return pools


def _pool(table: dict[str, Any], where: str) -> RpcConfig:
    _known_keys(table, RpcConfig, where)
    providers = table.get("provider", [])
    if not isinstance(providers, list) or not all(isinstance(p, dict) for p in providers):
        raise ConfigError(f"{where}: provider is not a list of tables", hint="write [[provider]]")
    for provider in providers:
        name = provider.get("name", "without a name")
        _known_keys(provider, ProviderConfig, f"{where}: provider {name!r}")
    try:
        return msgspec.convert(table, RpcConfig)
    except msgspec.ValidationError as error:
        raise _explained(error, table, where) from None


def _known_keys(table: dict[str, Any], struct: type[msgspec.Struct], where: str) -> None:
    known = struct.__struct_encode_fields__
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(known)}"
            value = table[key]  # of a table, such as misspelt headers, it may all be secret
            written = "{...}" if isinstance(value, dict) else repr(without_secrets(value))
            raise ConfigError(f"{where}: unknown key {key!r} (= {written:.60})", hint=hint)


def _explained(error: msgspec.ValidationError, table: dict[str, Any], where: str) -> ConfigError:
    message, _, path = str(error).partition(" - at `$")
    key = path.rstrip("`")
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
    written = "..." if "headers" in key else repr(without_secrets(value))
    return ConfigError(f"{where}: {key.strip('.')} = {written} is not allowed", hint=allowed)
