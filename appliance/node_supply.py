"""Pending transactions of a node, for a publisher: each once, as soon as they are announced.

The subscription is the appliance's own (appliance.stream_line): hashes are checked, a connection
that ends is made again with back-off, and the node's pool is read to fill the hole. What that
brings again is left out, and what it brings is marked as not announced.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from appliance.config_sources import Source
from appliance.names import Names
from appliance.stream_line import Line
from appliance.supply import BATCH
from barewire._native import ffi
from barewire.feeds.arbitration import Arbiter
from barewire.feeds.session import Phase
from barewire.mempool.decoder import Decoder, Rules
from barewire.mempool.dedup import Dedup
from barewire.mempool.record import ORIGINS, Origin
from dpdk_bindings.stream import StreamEndpoint, open_stream

__all__ = ["NodeSupply"]

_REST_NS = 1_000_000_000


class NodeSupply:
    """A node's announcements, by kernel sockets.

    Args:
        source: where the node is; see `Source`.
        where: a file in the folder that the source's own files are relative to.
        most: transactions in all; None: without end.
        tell: is called with a sentence when a connection is live, and when one has ended.
    """

    counted_from = "received"

    def __init__(
        self, source: Source, where: Path, *, most: int | None, tell: Callable[[str], None]
    ) -> None:
        assert source.url is not None
        self._tell = tell
        self._told = ""
        self._left = most
        self._exit = contextlib.ExitStack()
        self._arbiter = Arbiter([source.name], Dedup())
        self._endpoint: StreamEndpoint | None = None
        self._reading = False
        self._quiet = True
        self.ended = False
        self.due_mono_ns: Sequence[int] = ()
        self.origins: Sequence[Origin] = ()
        try:
            if source.url.scheme != "ipc":
                self._endpoint = self._exit.enter_context(open_stream("kernel"))
            names = None
            if source.url.is_named:
                names = Names()
                self._exit.callback(names.close)
            self._line = Line(
                source,
                0,
                endpoint=self._endpoint,
                names=names,
                where=where,
                decoder=Decoder(Rules.preset("osaka", 0)),
                heard=self._heard,
            )
        except BaseException:
            self._exit.close()
            raise
        self._exit.callback(self._line.close)
        self._messages: Any = ffi.new("struct bw_message[]", BATCH)
        self._records: Any = ffi.new("struct bw_tx[]", BATCH)

    def begin(self, now_mono_ns: int) -> None:
        """Connects."""
        self.housekeeping(now_mono_ns)

    def take(self, now_mono_ns: int) -> list[bytes]:
        """What the node has announced and nobody had yet."""
        line, session = self._line, self._line.session
        self.due_mono_ns = self.origins = ()
        if not self._reading:
            if self._endpoint is not None:
                self._endpoint.poll()
            self._reading = line.pipe is not None and line.receive()
            self._quiet = not self._reading
            if self._quiet:
                return []
        count = session.read_into(self._messages, self._records, BATCH)
        new = [i for i in range(count) if self._is_new(self._records[i], now_mono_ns)]
        new = new[: self._left]
        taken = [bytes(ffi.buffer(self._messages[i].data, self._messages[i].len)) for i in new]
        self.origins = [ORIGINS[self._records[i].origin] for i in new]
        # What comes from the pool was announced at a time that nobody knows.
        self.due_mono_ns = [
            now_mono_ns if session.filling else self._records[i].arrival_ns for i in new
        ]
        if not session.more:
            self._reading = False
            line.send()
        if self._left is not None:
            self._left -= len(taken)
            self.ended = not self._left
        return taken

    def _heard(self, tx_hash: bytes, arrival_ns: int, clock: int) -> bool:
        now = time.monotonic_ns()
        return self._arbiter.heard(0, tx_hash, arrival_ns, clock, now_mono_ns=now)

    def _is_new(self, record: Any, now_mono_ns: int) -> bool:
        return self._arbiter.take(
            0,
            bytes(record.hash),
            record.arrival_ns,
            record.arrival_clock,
            now_mono_ns=now_mono_ns,
            filled=self._line.session.filling,
            queued=ORIGINS[record.origin] == "queued",
        )

    @property
    def live(self) -> bool:
        """Whether the node is connected and has agreed to tell."""
        return self._line.pipe is not None and self._line.session.phase is Phase.LIVE

    def rest_ns(self, now_mono_ns: int) -> int:
        """Until the node says something."""
        # Behind what was read there may be more that the socket no longer tells of (TLS).
        return _REST_NS if self._quiet else 0

    def descriptors(self) -> list[int]:
        """The connection's socket, if there is one."""
        return self._line.descriptors()

    def housekeeping(self, now_mono_ns: int) -> None:
        """Connects, asks for signs of life, and tells what has changed."""
        line = self._line
        line.housekeeping(now_mono_ns)
        self._reading = self._reading and line.pipe is not None
        if mined := line.session.hole.take_mined():
            line.missed += self._arbiter.mined(mined)
        said = "live" if self.live else line.trouble
        if said not in ("", self._told):
            self._told = said
            self._tell(f"{line.name}: {said}")

    def stats(self) -> dict[str, Any]:
        """Of the source, as in ``barewire run``, and what it brought."""
        [report] = self._arbiter.report()
        brought = {"first": report.first, "repeated": report.repeated, "filled": report.filled}
        return self._line.stats() | brought

    def close(self) -> None:
        """Ends the connection."""
        self._exit.close()
