"""The ``[[source]]`` tables of a configuration (appliance.config), and what must fit in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from typing import Annotated, ClassVar, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from appliance.places import Place
from barewire.config import UNREAD, entries, told
from barewire.errors import ConfigError, shown
from barewire.rpc.addresses import Address as UrlAddress
from barewire.rpc.addresses import redact, split_zone
from dpdk_bindings.errors import BindingsError
from dpdk_bindings.port import PortAddress, check_port

__all__ = ["Address", "Name", "Source", "Url", "Via", "port_mistakes", "source_mistakes"]

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}\Z")]
_MOST_WAYS = 8  # as many as a feed has lines


class Via:
    """How frames come in: ``kernel``, or a port such as ``afxdp:eth1?mode=auto``, or several."""

    allowed: ClassVar[str] = (
        "'kernel', 'afxdp:INTERFACE', or 'afxdp:INTERFACE?mode=drv&queues=0-3'; for a feed whose "
        "lines come by several interfaces a list of these"
    )
    listed: ClassVar[bool] = True

    def __init__(self, *ways: str) -> None:
        self.ways = ways

    @classmethod
    def parse(cls, text: str | list[str]) -> Via:
        """Checks it, all but whether there is such an interface or file."""
        ways = [text] if isinstance(text, str) else text
        if not 1 <= len(ways) <= _MOST_WAYS:
            raise ValueError(f"a list of 1 to {_MOST_WAYS}")
        for way in ways:
            if ways.count(way) > 1:
                raise ValueError(f"{way!r} stands there twice")
            if way != "kernel":
                try:
                    check_port(way)
                except BindingsError as error:
                    raise ValueError(error.message) from None
        return cls(*ways)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Via) and self.ways == other.ways

    def __hash__(self) -> int:
        return hash(self.ways)

    @property
    def is_kernel(self) -> bool:
        """Whether it is kernel sockets and nothing else."""
        return self.ways == ("kernel",)

    def __str__(self) -> str:
        return ", ".join(self.ways)


class Url:
    """Where a source is: ``ws://``, ``wss://``, ``ipc://PATH`` or ``mold://LINE,LINE``."""

    allowed: ClassVar[str] = (
        "'ws://10.0.0.2:8546', 'wss://node.example/path', 'ipc:///run/node.ipc', or "
        "'mold://239.1.1.1:9000@eth1,239.1.1.2:9000@eth1'"
    )

    def __init__(self, text: str) -> None:
        self.text = text
        scheme, _, self.rest = text.partition("://")
        self.scheme = scheme.lower()
        self.host = self.zone = ""
        self.port = 0
        if self.scheme in ("ws", "wss"):
            parts = urlsplit(text)
            self.host, self.zone = split_zone(parts.hostname or "")
            self.port = parts.port or (443 if self.scheme == "wss" else 80)

    @classmethod
    def parse(cls, text: str) -> Url:
        """Checks the scheme and what has to follow it; raises ValueError."""
        url = cls(text)
        if url.scheme not in ("ws", "wss", "ipc", "mold") or not url.rest:
            raise ValueError("not a source")
        if url.scheme in ("ws", "wss"):
            if not url.host:
                raise ValueError("names no host")
            try:
                UrlAddress(text)
            except ConfigError as error:
                raise ValueError(f"{error.message}; {error.hint}") from None
            if "#" in text:
                raise ValueError("a fragment means nothing here (RFC 6455, section 3)")
        if url.scheme == "ipc" and not url.rest.startswith("/"):
            raise ValueError("the path of a socket begins with /")
        if url.scheme == "mold":
            for line in url.rest.split(","):
                Place.parse(line)
        return url

    @property
    def is_named(self) -> bool:
        """Whether its host is a name, which has to be looked up, and not an address."""
        try:
            ip_address(self.host)
        except ValueError:
            return bool(self.host)
        return False

    def __str__(self) -> str:
        """Without what nobody may read: user, password, and keys in the path."""
        return redact(self.text) if self.scheme in ("ws", "wss") else self.text


class Address:
    """An IP address."""

    allowed: ClassVar[str] = "an IPv4 or IPv6 address, such as '192.0.2.1'"

    def __init__(self, text: str) -> None:
        self.text = text

    @classmethod
    def parse(cls, text: str) -> Address:
        """Reads an address; raises ValueError for what is none."""
        return cls(str(ip_address(text)))

    def __str__(self) -> str:
        return self.text


class Source(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One source of transactions.

    Either a MoldUDP64 feed: copies of one sequence on several `lines` (or as one ``mold://`` URL).
    Or a stream: a node or a gateway at a ``ws://``, ``wss://`` or ``ipc://`` URL, and what to
    `subscribe` to there. `headers_file` holds ``Name: value`` lines for the handshake (credentials,
    so mode 0600). For ``wss://``: `ca_file` holds the authorities that may vouch for the server
    instead of the system's, `certificate_file` and `key_file` (mode 0600; or both in one) what is
    shown to a server that asks, `key_log_file` takes the secrets of the connections, for
    Wireshark. `fallback` is what to use where `via` cannot be had; without it that is an error.
    `publishers` are the addresses that a feed is heard from, and who retransmits; without any,
    anyone is. Files are relative to the configuration.

    A feed's line is received by the port of the interface that it names or has the address of.
    Where that is none of `via`'s, it is the port that another source has there, or one as the first
    of `via` but for the interface (appliance.ports).
    """

    name: Name
    lines: Annotated[list[Place], Meta(max_length=8)] = []
    url: Url | None = None
    feed: Literal["moldudp64"] = "moldudp64"
    via: Via = Via("kernel")
    retransmit: Place | None = None
    trusted: bool = False
    publishers: Annotated[list[Address], Meta(max_length=7)] = []
    subscribe: Literal["bodies", "hashes", "bloxroute"] = "bodies"
    fallback: Via | None = None
    headers_file: str | None = None
    ca_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None
    key_log_file: str | None = None
    verify: bool = True
    deflate: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.url, Url) and self.url.scheme == "mold" and not self.lines:
            lines = [Place.parse(line) for line in self.url.rest.split(",")]
            msgspec.structs.force_setattr(self, "lines", lines)

    @property
    def is_stream(self) -> bool:
        """A byte stream, not datagrams."""
        return self.url is not None and self.url.scheme != "mold"


# What means something only for some kinds of sources; see Source.
_OF_STREAMS = ("subscribe", "headers_file", "deflate")
_OF_TLS = ("ca_file", "certificate_file", "key_file", "key_log_file", "verify")
_OF_DATAGRAMS = ("lines", "retransmit", "publishers")


def source_mistakes(key: str, source: Source) -> Iterator[ConfigError]:
    """What does not belong together in one source; `key` is where it is written."""
    if source.fallback is not None:
        yield from told(_same_way(key, source))
    yield from told(_of_a_stream(key, source) if source.is_stream else _of_a_feed(key, source))


def _same_way(key: str, source: Source) -> Iterator[ConfigError]:
    if source.fallback == source.via:
        yield ConfigError(
            f"{key}.fallback = {str(source.fallback)!r}: via is the same",
            hint="name another way, or leave it out",
        )


def _of_a_feed(key: str, source: Source) -> Iterator[ConfigError]:
    yield from _refuse(key, source, _OF_STREAMS + _OF_TLS, "it is of streams; this is MoldUDP64")
    if not 1 <= len(source.lines) <= 8:
        yield ConfigError(
            f"{key}: {len(source.lines)} lines and no url", hint=f"allowed: {Url.allowed}"
        )


def _of_a_stream(key: str, source: Source) -> Iterator[ConfigError]:
    url = source.url
    assert url is not None
    yield from _refuse(key, source, _OF_DATAGRAMS, f"it is of MoldUDP64, and {url} is not")
    if url.scheme == "ipc":
        no_websocket = f"it is of WebSocket, and {url} is not"
        yield from _refuse(key, source, ("headers_file", "deflate"), no_websocket)
    if url.scheme != "wss":
        yield from _refuse(key, source, _OF_TLS, f"it is of TLS, and {url} is not encrypted")
    elif source.key_file is not None and source.certificate_file is None:
        yield ConfigError(
            f"{key}.key_file = {shown(source.key_file)}: there is no certificate_file",
            hint="a key is shown to nobody without its certificate",
        )
    yield from told(_no_gateway(key, source, url))
    for name in ("via", "fallback"):
        yield from told(_one_way(f"{key}.{name}", getattr(source, name), url))


def _no_gateway(key: str, source: Source, url: Url) -> Iterator[ConfigError]:
    if url.scheme == "ipc" and source.subscribe == "bloxroute":
        yield ConfigError(
            f"{key}.subscribe = 'bloxroute': its gateway speaks WebSocket, and {url} is a node",
            hint="allowed here: 'bodies', 'hashes'",
        )


def _one_way(key: str, via: Via | None, url: Url) -> Iterator[ConfigError]:
    if via is None:
        return
    if len(via.ways) > 1:
        yield ConfigError(
            f"{key} = {str(via)!r}: {url} is one connection, which has one way",
            hint="name one of them",
        )
    elif url.scheme == "ipc" and not via.is_kernel:
        yield ConfigError(f"{key} = {str(via)!r}: {url} is a Unix socket", hint="allowed: 'kernel'")


def _refuse(key: str, source: Source, names: Sequence[str], why: str) -> Iterator[ConfigError]:
    """Refuses settings that would do nothing."""
    for name in names:
        given = getattr(source, name)
        if given is not UNREAD and given != getattr(_BLANK, name):
            written = [str(one) for _, one in entries(given)] if isinstance(given, list) else given
            text = str(written) if isinstance(written, Place) else written
            yield ConfigError(f"{key}.{name} = {text!r}: {why}", hint="leave it out")


_BLANK = Source(name="blank")


def port_mistakes(
    sources: Sequence[Source], cores: Sequence[str], where: str
) -> Iterator[ConfigError]:
    """Where an interface has more than one port, of one process and with one set of options.

    Args:
        sources: all of the appliance.
        cores: names of its cores, in the order of the path.
        where: the file.
    """
    wanted = [
        (f"{where}: source[{index}].{name}", source, way)
        for index, source in entries(sources)
        for name in ("via", "fallback")
        if isinstance(via := getattr(source, name), Via)
        for way in via.ways
        if way != "kernel"
    ]
    first: dict[str, tuple[str, Source, str]] = {}
    for key, source, text in wanted:
        address = PortAddress.parse(text)
        if address.backend != "afxdp":
            continue
        other_key, other, other_text = first.setdefault(address.target, (key, source, text))
        if other_text != text:
            yield ConfigError(
                f"{key} = {text!r}: {other_key.removeprefix(where + ': ')} = {other_text!r} is the "
                "same interface",
                hint="sources share its port: write the same for both",
            )
        elif len(cores) > 1 and other.is_stream != source.is_stream:
            yield ConfigError(
                f"{key} = {text!r}: sources {other.name!r} and {source.name!r} would share it, but "
                f"core {cores[0]!r} takes datagrams, and core "
                f"{cores[-1]!r} reads streams",
                hint="an interface's port belongs to one process: another interface, 'kernel', or "
                "one core for all stages",
            )
