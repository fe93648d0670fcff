"""What the files that a stream's configuration names hold: credentials, authorities, keys."""

from __future__ import annotations

import ssl
from pathlib import Path

from appliance.config import Source
from barewire.errors import BarewireError, ConfigError
from barewire.feeds.tls import client_context, refuse_open_to_others

__all__ = ["headers_of", "tls_of"]


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
        ConfigError: it cannot be read, others can read it, or a line is no header.
    """
    if source.headers_file is None:
        return {}
    path = where.parent / source.headers_file
    about = f"source {source.name!r}: headers_file"
    try:
        refuse_open_to_others(path)
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{about} {path}: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"{about}: {error.message}", hint=error.hint) from error
    headers = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        name, found, value = line.partition(":")
        if not found or not name.strip():
            raise BarewireError(
                f"{about} {path}: line {number} is no header", hint="write NAME: VALUE"
            )
        headers[name.strip()] = value.strip()
    return headers
