"""Where a provider is, with its secrets filled in at the last moment and never shown.

An address or a header may hold ``${env:NAME}`` or ``${file:PATH}``; the file must be readable by
its owner alone (or be a systemd credential). What people see is the scheme and the host.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, unquote_to_bytes, urlsplit

from barewire.errors import ConfigError

__all__ = ["Address", "redact", "resolve_secrets", "split_zone", "without_secrets"]

_SECRET = re.compile(r"\$\{(env|file):([^}]+)\}")
_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


def resolve_secrets(text: str, what: str) -> str:
    """`text` with its ``${...}`` replaced.

    Raises:
        ConfigError: a variable is not set, or a file is missing or readable by others.
    """
    named = dict.fromkeys(name for kind, name in _SECRET.findall(text) if kind == "env")
    if unset := [name for name in named if name not in os.environ]:
        raise ConfigError(
            f"{what}: the environment variable {' and '.join(unset)} is not set",
            hint=f"export {unset[0]}=... before starting, or use ${{file:PATH}}",
        )

    def fill(match: re.Match[str]) -> str:
        kind, name = match.groups()
        return os.environ[name] if kind == "env" else _read_secret(Path(name), what)

    return _SECRET.sub(fill, text)


def _read_secret(path: Path, what: str) -> str:
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    try:
        mode = path.stat().st_mode
        within = credentials is not None and path.is_relative_to(credentials)
        if mode & (stat.S_IRWXG | stat.S_IRWXO) and not within:
            raise ConfigError(
                f"{what}: {path} can be read by others (mode {stat.S_IMODE(mode):04o})",
                hint=f"chmod 0600 {path}",
            )
        return path.read_text().strip()
    except OSError as error:
        raise ConfigError(f"{what}: cannot read {path}: {error.strerror}") from error


def split_zone(host: str) -> tuple[str, str]:
    """A host as an URL has it: without its zone, which is an interface here, and that, or "".

    Only literals of IPv6 have one, behind ``%25`` (RFC 6874; ``%`` alone is often written). It is
    nobody else's affair: neither the Host header nor a certificate holds it.
    """
    if ":" not in host:
        return host, ""
    address, _, zone = host.partition("%")
    return address, unquote(zone.removeprefix("25"))


def redact(url: str) -> str:
    """`url` without user, password, path and query: what may be logged."""
    try:
        parts = urlsplit(url)
        number = parts.port
    except ValueError:
        scheme, _, rest = url.partition("://")
        host = "..." if "@" in rest else re.split("[/?#]", rest)[0]
        return f"{scheme}://{host}"
    if parts.scheme in ("ipc", "mold"):
        return url
    if not parts.hostname:
        _, is_url, rest = url.partition("://")
        if is_url:
            return f"{parts.scheme}://..." if rest else url
        return "..." if "@" in url else url  # mistyped, perhaps, and the password is there
    port = f":{number}" if number else ""
    hidden = "/..." if parts.path.strip("/") or parts.query else ""
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}{port}{hidden}"


def without_secrets(value: Any, levels: int = 16) -> Any:
    """`value`, as a configuration has it, with the URLs in it redacted, and cut below `levels`.

    ``ADDRESS:PORT@INTERFACE`` is none.
    """
    if isinstance(value, dict | list) and not levels:
        return ...
    if isinstance(value, dict):
        return {key: without_secrets(inner, levels - 1) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_secrets(inner, levels - 1) for inner in value]
    is_url = isinstance(value, str) and ("://" in value or ("@" in value and "/" in value))
    return redact(value) if is_url else value


def _split(url: str) -> SplitResult:
    # What goes into a request line as it is must be one word of plain characters.
    plain = url.isascii() and url.isprintable() and " " not in url
    try:
        parts = urlsplit(url)
        if plain and parts.port != 0:
            return parts
        why = "port 0" if plain else "characters that an URL cannot have"
    except ValueError as error:
        why = str(error)
    raise ConfigError(
        f"not an URL: {redact(url)!r} ({why})",
        hint="names in ASCII (xn--...), the rest percent-encoded",
    )


class Address:
    """An URL with its secrets; its `str` and `repr` are redacted.

    Attributes:
        url: the whole URL. Never log it.
        scheme: http, https, ws or wss.
        host: host name or IP address.
        zone: interface of a link-local address, or "".
        port: port.
        target: path and query as a request line has them.
        secure: whether TLS is used.
        userinfo: user and password with a colon between, or b"" without them.
    """

    __slots__ = ("host", "port", "scheme", "secure", "target", "url", "userinfo", "zone")

    def __init__(self, url: str) -> None:
        parts = _split(url)
        if parts.scheme not in _PORTS or not parts.hostname:
            raise ConfigError(
                f"not an http, https, ws or wss URL: {redact(url)!r}",
                hint="write it as https://host/path or wss://host/path",
            )
        self.url = url
        self.scheme = parts.scheme
        self.host, self.zone = split_zone(parts.hostname)
        self.port = parts.port or _PORTS[parts.scheme]
        self.target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self.secure = parts.scheme in ("https", "wss")
        # Percent-encoded in the URL, not in the header (RFC 3986, 3.2.1; RFC 7617).
        user = unquote_to_bytes(parts.username or "")
        password = unquote_to_bytes(parts.password or "")
        self.userinfo = user + b":" + password if user or password else b""

    @property
    def authority(self) -> str:
        """Host and port as the Host header has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return redact(self.url)

    def __repr__(self) -> str:
        return f"Address({redact(self.url)!r})"
