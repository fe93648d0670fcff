"""The opening handshake of a WebSocket (RFC 6455, section 4), the client's side, without I/O.

    upgrade = Upgrade("wss://node.example/ws", headers={"Authorization": "..."})
    transport.send(upgrade.request)
    answer = upgrade.receive(transport.recv())             # None, Agreed, or Refused

What the server agrees to is judged by the `websockets` library (its ``ClientProtocol``). The answer
is read here: it may come in any pieces, behind interim answers (RFC 9110, 15.2), with long headers;
and a refusal's own words are for people, so they are kept, as one harmless line.
"""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes, urlsplit

from websockets.client import ClientProtocol
from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake, InvalidURI, NegotiationError
from websockets.extensions import ClientExtensionFactory, Extension
from websockets.http11 import Response
from websockets.typing import ExtensionName, ExtensionParameter, Subprotocol
from websockets.uri import parse_uri

from barewire.errors import BarewireError
from barewire.rpc.addresses import redact
from barewire.rpc.faults import rest_ms
from barewire.untrusted import printable

__all__ = ["OURS", "Agreed", "Deflate", "Refused", "Upgrade"]

OURS = frozenset(
    (
        "connection",
        "sec-websocket-extensions",
        "sec-websocket-key",
        "sec-websocket-version",
        "upgrade",
    )
)
"""Headers of a handshake that nobody else may set, in lower case."""

_LONGEST = 64 << 10
"""Bytes of an answer's head, interim answers included."""
_MOST_HEADERS = 256
_LONGEST_SAID = 120
"""Characters of the body of a refusal that are kept."""

_END = re.compile(rb"\r?\n\r?\n")
_STATUS = re.compile(rb"HTTP/(\d\.\d) (\d{3})(?: ([^\r\n]*))?")
_FOLD = re.compile(rb"\r?\n[ \t]+")
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.1 and 5.5
_ZONE = re.compile(r"%[^\]]*\]")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")

# At DEBUG the library logs request lines and headers, and credentials are in them.
_MUTE = logging.getLogger("barewire.feeds.websocket")
_MUTE.disabled = True


@dataclass(frozen=True, slots=True)
class Agreed:
    """The server agreed.

    Attributes:
        headers: of its answer, names in lower case, each a harmless line; of a name that came
            twice, the last.
        deflate: what was agreed on permessage-deflate; None: nothing.
        rest: bytes behind the answer, which are frames.
    """

    headers: dict[str, str]
    deflate: Deflate | None
    rest: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """It did not, or what it said is no answer.

    Attributes:
        why: in words, a harmless line.
        status: of HTTP; 0 where there was none.
        retry_after: what that header of the answer says, the longest of several, or "".
    """

    why: str
    status: int = 0
    retry_after: str = ""


class Deflate(Extension):
    """permessage-deflate as a client that never compresses uses it (RFC 7692).

    So the server may limit *our* window as it likes, which zlib's own limits do not allow; and a
    window that is larger than the server's undoes what the server did with any.

    Attributes:
        forgetful: the server begins every message without what came before.
    """

    name = ExtensionName("permessage-deflate")

    def __init__(self, forgetful: bool) -> None:
        self.forgetful = forgetful


class _Offer(ClientExtensionFactory):
    """The offer, and the judge of what the server makes of it (RFC 7692, section 7.1)."""

    def __init__(self, name: str) -> None:
        self.name = ExtensionName(name)

    def get_request_params(self) -> Sequence[ExtensionParameter]:
        """Whatever the server wants of our window is fine."""
        return [("client_max_window_bits", None)]

    def process_response_params(
        self, params: Sequence[ExtensionParameter], accepted_extensions: Sequence[Extension]
    ) -> Deflate:
        """Raises NegotiationError for what may not be answered."""
        agreed = dict(params)
        if len(agreed) != len(params) or accepted_extensions:
            raise NegotiationError("agreed on twice")
        for name, value in params:
            takeover = name in ("server_no_context_takeover", "client_no_context_takeover")
            bits = name in ("server_max_window_bits", "client_max_window_bits")
            legal = value in ("8", "9", "10", "11", "12", "13", "14", "15") if bits else not value
            if not (takeover or bits) or not legal:
                raise NegotiationError(f"{name} = {value}")
        return Deflate("server_no_context_takeover" in agreed)


class Upgrade:
    """One handshake.

    Args:
        url: ``ws://`` or ``wss://``; user and password in it, percent-decoded, become a header
            (RFC 7617), and the password may be missing.
        headers: sent beside those that the handshake needs, or in their place (Host). A
            Sec-WebSocket-Protocol among them names subprotocols that the server may choose from.
        deflate: the name under which permessage-deflate is offered; None: it is not.

    Attributes:
        request: the bytes to send.

    Raises:
        BarewireError: `url` is no WebSocket address, or a header is not ours to send.
    """

    def __init__(
        self, url: str, *, headers: Mapping[str, str] | None = None, deflate: str | None = None
    ) -> None:
        user, plain = _user_of(url)
        try:
            uri = parse_uri(plain)
        except (InvalidURI, ValueError) as error:
            raise BarewireError(
                f"{redact(url)!r} is no WebSocket address", hint="ws://HOST[:PORT]/PATH, or wss://"
            ) from error
        given = {} if user is None else {"Authorization": user}
        given |= headers or {}
        protocols = None
        for name, value in given.items():
            if name.lower() == "sec-websocket-protocol":
                protocols = [Subprotocol(one.strip()) for one in value.split(",")]
            elif name.lower() in OURS:
                raise BarewireError(f"{name} belongs to the handshake", hint="leave it out")
        self._protocol = ClientProtocol(
            uri,
            extensions=None if deflate is None else [_Offer(deflate)],
            subprotocols=protocols,
            logger=_MUTE,
        )
        request = self._protocol.connect()
        for name, value in given.items():
            request.headers.pop(name, None)
            request.headers[name] = value
        self.request: bytes = request.serialize()
        # It and its parser hold each other, and hot processes have no collector of cycles.
        self._protocol.parser.close()
        self._held = b""
        self._passed = 0

    def receive(self, data: bytes) -> Agreed | Refused | None:
        """Takes bytes of the answer; None while it is not whole. Nothing in them raises."""
        searched = max(len(self._held) - 3, 0)  # an end may lie across two pieces
        self._held += data
        while True:
            if not b"HTTP/".startswith(self._held[:5]) and self._held[:5] != b"HTTP/":
                return Refused(f"no HTTP: {printable(self._held, _LONGEST_SAID)}")
            end = _END.search(self._held, searched)
            if (end.end() if end else len(self._held)) + self._passed > _LONGEST:
                return Refused(f"an answer with a head of more than {_LONGEST} bytes")
            if end is None:
                return None
            head, rest = self._held[: end.start()], self._held[end.end() :]
            line, *lines = _FOLD.sub(b" ", head).replace(b"\r\n", b"\n").split(b"\n")
            said = _STATUS.fullmatch(line)
            if said is None:
                return Refused(f"no HTTP: {printable(line, _LONGEST_SAID)}")
            status = int(said[2])
            if not 100 <= status < 200 or status == 101:
                break
            self._passed += end.end()
            self._held, searched = rest, 0
        self._held = b""
        headers = Headers()
        if len(lines) > _MOST_HEADERS:
            return Refused(f"an answer with more than {_MOST_HEADERS} headers", status)
        for text in lines:
            name, colon, value = text.partition(b":")
            if not colon or not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
                return Refused(f"no header: {printable(text, _LONGEST_SAID)}", status)
            headers[name.decode()] = value.strip(b" \t").decode("latin-1")
        if status != 101 or said[1] == b"1.0":
            old = "/1.0" if said[1] == b"1.0" else ""  # which cannot upgrade (RFC 9110, 7.8)
            why = f"HTTP{old} {status} {printable(said[3] or b'', _LONGEST_SAID)}".rstrip()
            if body := printable(rest, _LONGEST_SAID):
                why += f": {body}"
            asked = max(headers.get_all("Retry-After"), key=rest_ms, default="")
            return Refused(why, status, asked[:100])
        return self._judge(headers, said[3] or b"", rest)

    def _judge(self, headers: Headers, reason: bytes, rest: bytes) -> Agreed | Refused:
        protocol = self._protocol
        try:
            protocol.process_response(Response(101, reason.decode("latin-1"), headers))
        except (InvalidHandshake, ValueError) as error:
            return Refused(printable(error), 101)
        deflate = None
        for extension in protocol.extensions:
            assert isinstance(extension, Deflate)
            deflate = extension
        words = {printable(name.lower()): printable(value) for name, value in headers.raw_items()}
        return Agreed(words, deflate, rest)


def _user_of(url: str) -> tuple[str | None, str]:
    """The Authorization header that `url` asks for, if any, and what else others may know of it.

    That is without user and password, and without an address's zone (RFC 6874, section 4).
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return None, url
    before, found, place = parts.netloc.rpartition("@")
    place = _ZONE.sub("]", place)
    if not found:
        return None, parts._replace(netloc=place).geturl()
    user, _, password = before.partition(":")
    pair = unquote_to_bytes(user) + b":" + unquote_to_bytes(password)
    token = base64.b64encode(pair).decode()
    return f"Basic {token}", parts._replace(netloc=place).geturl()
