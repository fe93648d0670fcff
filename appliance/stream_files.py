"""What the files that a stream's configuration names hold: credentials, authorities, keys."""

from __future__ import annotations

import re
import ssl
from pathlib import Path

from appliance.config import Source
from barewire.errors import ConfigError
from barewire.feeds.tls import client_context, refuse_open_to_others
from barewire.feeds.upgrade import OURS

__all__ = ["headers_of", "tls_of"]

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e]*")
_ONCE = ("authorization", "host", "origin", "user-agent")
_LEAVE = "leave it out"


def tls_of(source: Source, where: Path, *, dry: bool = False) -> ssl.SSLContext | None:
    """TLS as `source` wants it, or None where its URL is not ``wss://``.

    Args:
        source: whose files are read.
        where: the configuration's file, which they lie beside.
        dry: only look: no key log is opened.

    Raises:
        ConfigError: a file that cannot be used, and why.
    """
    if source.url is None or source.url.scheme != "wss":
        return None

    def beside(name: str | None) -> Path | None:
        return where.parent / name if name else None

    try:
        return client_context(
            ca_file=beside(source.ca_file),
            certificate=beside(source.certificate_file),
            key=beside(source.key_file),
            alpn=["http/1.1"],
            verify=source.verify,
            key_log=None if dry else beside(source.key_log_file),
        )
    except ConfigError as error:
        raise ConfigError(f"source {source.name!r}: {error.message}", hint=error.hint) from error


def headers_of(source: Source, where: Path) -> dict[str, str]:
    """``Name: value`` lines of the source's file, which only its owner may read.

    Raises:
        ConfigError: it cannot be read, others can read it, or a line is no header (RFC 9110,
            section 5), belongs to the handshake itself, or says anew what can be said once.
    """
    if source.headers_file is None:
        return {}
    path = where.parent / source.headers_file
    about = f"source {source.name!r}: headers_file"
    try:
        refuse_open_to_others(path)
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{about} {path}: {why}") from error
    except ConfigError as error:
        raise ConfigError(f"{about}: {error.message}", hint=error.hint) from error
    headers: dict[str, str] = {}
    spelled: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        name, found, value = line.removesuffix("\r").partition(":")
        name, value = name.strip(" \t"), value.strip(" \t")
        where_it_is = f"{about} {path}: line {number}"
        if not found or not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise ConfigError(
                f"{where_it_is} is no header",
                hint="write NAME: VALUE, in visible characters of ASCII",
            )
        if (low := name.lower()) in OURS:
            raise ConfigError(f"{where_it_is}: {name} is of the handshake itself", hint=_LEAVE)
        if low in spelled:
            if low in _ONCE:
                raise ConfigError(f"{where_it_is}: {name} is there already", hint=_LEAVE)
            between = "; " if low == "cookie" else ", "  # RFC 6265, 5.4; RFC 9110, 5.3
            value = headers[spelled[low]] + between + value
        headers[spelled.setdefault(low, name)] = value
    return headers
