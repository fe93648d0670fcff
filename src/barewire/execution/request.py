"""HTTP requests that are ready but for their transaction.

Prepared once; at the moment of decision one native call puts the transaction (as hexadecimal
digits), the content length and, for a relay, the signature of the body in, and the bytes can be
written to a warm connection as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from barewire._native import ffi, lib
from barewire.errors import BarewireError, shown
from barewire.execution.keys import Uncopied
from barewire.execution.signer import LocalSigner, refusal
from barewire.mempool.quantities import checksummed

__all__ = ["ReadyRequest", "checksummed"]

_NO_SIGNATURE = 2**32 - 1
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OURS = ("host", "content-length", "transfer-encoding", "x-flashbots-signature")
_RAW, _BEFORE, _NUMBER = lib.BW_REQUEST_RAW, lib.BW_REQUEST_BEFORE, lib.BW_REQUEST_NUMBER


def _head(host: str, path: str, headers: Mapping[str, str], auth: LocalSigner | None) -> bytes:
    """All lines up to the content length, with zeros in the place of the signature."""
    lines = {"host": host, "content-type": "application/json", **headers}
    for name, value in {"path": path, **lines}.items():
        if not (name + value).isprintable() or not (name + value).isascii() or " " in name + path:
            raise BarewireError(f"{name}: {value!r} cannot stand in the head of an HTTP request")
    for name in headers:
        if not _TOKEN.fullmatch(name):
            raise BarewireError(f"{name!r} is not the name of a header (RFC 9110, section 5.1)")
        if name.lower() in _OURS:
            raise BarewireError(f"{name} is put in by the request itself: {', '.join(_OURS)}")
    if auth:
        # Last of all, so that its place is known.
        lines["x-flashbots-signature"] = f"{checksummed(auth.address)}:0x{'0' * 130}"
    text = f"POST {path} HTTP/1.1\r\n"
    text += "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return (text + "content-length: ").encode()


def _number(request_id: int) -> str:
    if not isinstance(request_id, int):
        raise TypeError(f"a JSON-RPC id here is a whole number, not {shown(request_id)}")
    return str(int(request_id))


class ReadyRequest(Uncopied):
    """One request, to be fired any number of times, by one thread.

    Made by :meth:`send_raw_transaction` or :meth:`send_bundle`.
    """

    def __init__(
        self,
        head: bytes,
        parts: Sequence[bytes | int],
        auth: LocalSigner | None,
        raw_max: int,
    ) -> None:
        """Hands the pieces to native code.

        Args:
            head: as :func:`_head` makes it.
            parts: of the body, bytes or kinds of what is put in.
            auth: who signs the body, or None.
            raw_max: the most bytes that are put in as transactions.
        """
        literal = b"".join(part for part in parts if isinstance(part, bytes))
        pieces, at = [], 0
        for part in parts:
            if isinstance(part, bytes):
                pieces.append((lib.BW_REQUEST_LITERAL, at, len(part)))
                at += len(part)
            else:
                pieces.append((part, 0, 0))
        behind = len(b"\r\ncontent-length: ")
        native = lib.bw_request_new(
            head,
            len(head),
            len(head) - behind - lib.BW_REQUEST_SIGNATURE if auth else _NO_SIGNATURE,
            literal,
            len(literal),
            ffi.new("struct bw_request_piece[]", pieces),
            len(pieces),
            raw_max,
        )
        if not native:
            raise MemoryError("no memory for a request")
        self._auth = auth
        self._raw_max = raw_max
        self._takes_before = _BEFORE in parts
        self._takes_number = _NUMBER in parts
        self._native: Any = native
        # Views of the buffer keep the request alive, and not the other way round.
        out = ffi.gc(native.out, lambda _: lib.bw_request_free(native))
        self._out = memoryview(ffi.buffer(out, native.out_len)).toreadonly()

    @classmethod
    def send_raw_transaction(
        cls,
        host: str,
        path: str = "/",
        *,
        headers: Mapping[str, str] | None = None,
        request_id: int = 1,
        method: str = "eth_sendRawTransaction",
        raw_max: int = 131072,
    ) -> ReadyRequest:
        """A request that sends one transaction.

        Args:
            host: of the host header.
            path: with the query, if any.
            headers: more of them.
            request_id: the JSON-RPC id, the same each time.
            method: a node's or a sequencer's, whose only parameter is the transaction.
            raw_max: the longest transaction in bytes; pools take 131,072.
        """
        number, name = _number(request_id), json.dumps(method)
        start = f'{{"jsonrpc":"2.0","id":{number},"method":{name},"params":["'
        parts: list[bytes | int] = [start.encode(), _RAW, b'"]}']
        return cls(_head(host, path, headers or {}, None), parts, None, raw_max)

    @classmethod
    def send_bundle(
        cls,
        host: str,
        path: str = "/",
        *,
        auth: LocalSigner | None,
        before: bool = False,
        fields: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        request_id: int = 1,
        raw_max: int = 262144,
    ) -> ReadyRequest:
        """An ``eth_sendBundle`` request with one transaction of ours.

        Args:
            host: of the host header.
            path: with the query, if any.
            auth: who signs the body for ``X-Flashbots-Signature``: a key of its own, which builds
                a reputation and holds no money. None: no such header.
            before: whether another transaction (what matched) goes before ours.
            fields: more fields of the bundle, known ahead of time (``minTimestamp``, ``builders``).
            headers: more of them.
            request_id: the JSON-RPC id, the same each time.
            raw_max: the most bytes of all its transactions.
        """
        if {"txs", "blockNumber"} & (fields or {}).keys():
            raise BarewireError("txs and blockNumber of a bundle are put in when it is fired")
        more = "".join(
            f",{json.dumps(name)}:{json.dumps(value, separators=(',', ':'))}"
            for name, value in (fields or {}).items()
        )
        start = f'{{"jsonrpc":"2.0","id":{_number(request_id)},"method":"eth_sendBundle","params":'
        first: list[bytes | int] = [_BEFORE, b'","'] if before else []
        parts: list[bytes | int] = [
            f'{start}[{{"txs":["'.encode(),
            *first,
            _RAW,
            b'"],"blockNumber":"',
            _NUMBER,
            f'"{more}}}]}}'.encode(),
        ]
        return cls(_head(host, path, headers or {}, auth), parts, auth, raw_max)

    def fire(
        self, raw: bytes | memoryview, *, before: bytes | memoryview = b"", block_number: int = 0
    ) -> memoryview:
        """Lays the request down around `raw`, as :meth:`Template.fire` gave it.

        Args:
            raw: the transaction.
            before: the transaction that goes before it, where the request has a place for one.
            block_number: the block a bundle is for, which it must name; below 2^64.

        Returns:
            All bytes of the request, borrowed: overwritten when it is fired again.

        Raises:
            BarewireError: the transactions are longer than ``raw_max`` or not those that the
                request has places for, or the body cannot be signed.
        """
        if bool(len(before)) != self._takes_before:
            raise BarewireError(
                f"{len(before)} bytes to go before, and the request "
                f"{'has' if self._takes_before else 'has no'} place for a transaction before ours"
            )
        if self._takes_number and not 0 < block_number < 2**64:
            raise BarewireError(f"a bundle for block {block_number}", hint="block_number=...")
        length = lib.bw_request_lay(
            self._native,
            self._auth.native if self._auth else ffi.NULL,
            ffi.from_buffer(raw),
            len(raw),
            ffi.from_buffer(before),
            len(before),
            block_number,
        )
        if length < 0:
            if length == lib.BW_REQUEST_TOO_LONG:
                raise BarewireError(
                    f"{len(raw) + len(before)} bytes of transactions, "
                    f"and the request was made for {self._raw_max}"
                )
            raise refusal(length)
        at = self._native.off
        return self._out[at : at + length]
