"""The sources that are byte streams, all together: read, watched, and connected again.

A live subscription is read from the wire to the match by one native call (barewire.feeds.inlet);
what else there is to say on a stream, and what has to be decrypted first, passes through here. TCP
over a port and over kernel sockets is one interface (dpdk_bindings.stream), TLS goes in between, a
node's IPC socket is a Unix socket of our own (appliance.stream_line).
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from appliance.config import Source
from appliance.names import Names
from appliance.ports import Ports
from appliance.stream_line import Line
from barewire._native import ffi
from barewire.feeds.arbitration import Arbiter
from barewire.feeds.blocks import Block
from barewire.feeds.inlet import Inlet, What
from barewire.feeds.session import Phase
from barewire.feeds.txfeed import BURST, TxFeed
from barewire.mempool.decoder import Decoder
from barewire.pump import Pump
from dpdk_bindings.port import Port
from dpdk_bindings.stream import Connection, StreamEndpoint, open_stream

__all__ = ["Streams"]


class Streams:
    """All of them.

    Args:
        sources: their configuration.
        first: number of the first; the others follow.
        where: the configuration's file, which paths in it are relative to.
        ports: opens endpoints.
        decoder: judges the envelopes.
        arbiter: has their numbers too.
        pump: takes their transactions.

    Attributes:
        chosen: what was chosen at start, by source.
        warnings: what whoever starts it has to know.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        first: int,
        where: Path,
        ports: Ports,
        decoder: Decoder,
        arbiter: Arbiter,
        pump: Pump,
    ) -> None:
        self.chosen: dict[str, dict[str, Any]] = {}
        self.warnings = [said for source in sources for said in _risks(source)]
        self._arbiter = arbiter
        self._pump = pump
        self._exit = contextlib.ExitStack()
        self._endpoints: dict[str, StreamEndpoint] = {}
        self._lines: list[Line] = []
        names = None
        try:
            if any(source.url is not None and source.url.is_named for source in sources):
                names = Names()
                self._exit.callback(names.close)
            for number, source in enumerate(sources, start=first):
                line = Line(
                    source,
                    number,
                    endpoint=self._endpoint(source, ports),
                    names=names,
                    where=where,
                    decoder=decoder,
                    heard=functools.partial(_heard, arbiter, number),
                )
                self._lines.append(line)
                self._exit.callback(line.close)
                self.chosen[source.name] |= {
                    "url": str(source.url),
                    "subscribe": source.subscribe,
                    "trusted": source.trusted,
                }
        except BaseException:
            self._exit.close()
            raise
        self._polled = list(self._endpoints.values())
        self._inlet = Inlet(
            [endpoint.ref for endpoint in self._polled], [line.buffer for line in self._lines], pump
        )
        self._asked = [line for line in self._lines if line.is_asked]
        self._shown: dict[int, Connection] = {}
        self._messages: Any = ffi.new("struct bw_message[]", BURST)
        self._records: Any = ffi.new("struct bw_tx[]", BURST)
        self._unread: deque[Line] = deque()  # lent something that is not read to its end
        self._held = False
        self._ours = True  # it is the turn of a line that is read here, not of the inlet's
        self._next = 0

    def follow_blocks(self, take: Callable[[int, Block], None]) -> bool:
        """Has `take` called with each new block that a source, by its number, tells of.

        False: none of them tells of any.

        Call it before anything turns.
        """
        followed = [line for line in self._lines if line.session.style != "bloxroute"]
        for line in followed:
            line.session.on_block = functools.partial(take, line.number)
        return bool(followed)

    def _endpoint(self, source: Source, ports: Ports) -> StreamEndpoint | None:
        """The endpoint that `source` wants, shared with others that want the same."""
        assert source.url is not None
        if source.url.scheme == "ipc":
            self.chosen[source.name] = {"via": "unix socket"}
            return None
        endpoint = ports.open(source, self._open_endpoint, self._endpoints)
        self.chosen[source.name] = endpoint.describe()
        return endpoint

    def _open_endpoint(self, via: str | Port) -> StreamEndpoint:
        return self._exit.enter_context(open_stream(via))

    def run(self, until_mono_ns: int) -> int:
        """Turns the pump, and reads the streams in between, until there are matches or it is time.

        A turn is one burst of one line that is read here, and one of those that the inlet reads:
        whatever a server sends, the others are read as often as it is.
        """
        turn, clock, inlet, unread = self._pump.turn, time.monotonic_ns, self._inlet, self._unread
        while True:
            if self._held:  # what was offered may be looked at for one turn more
                self._held = False
                if found := turn():
                    return found
            if self._ours and unread:
                self._ours = False
                self._offer(unread.popleft())
                if found := turn():
                    return found
            else:
                self._ours = True
                self._ask_next()
                what = inlet.run(0 if self._asked or unread else until_mono_ns)
                if what == What.FOUND:
                    return int(inlet.native.count)
                if what != What.TIME:
                    self._told(what)
            if clock() >= until_mono_ns:
                return 0

    def _ask_next(self) -> None:
        """Receives from the next line that nobody tells of, and that has something."""
        for _ in self._asked:
            line = self._asked[self._next]
            self._next = (self._next + 1) % len(self._asked)
            if line.pipe is not None and line not in self._unread and line.receive():
                self._unread.append(line)
                return

    def _told(self, what: int) -> None:
        """Something that the inlet leaves to us: the line is read on from here."""
        line = self._lines[self._inlet.native.at]
        if what == What.EVENT:
            assert line.stream is not None
            line.session.resume(self._inlet.native.event, line.stream.arrival_ns, line.stream.clock)
        elif not line.receive():
            if line.session.phase is Phase.FAILED:
                self._show(line)
            return
        self._inlet.pause(self._place(line), True)
        self._unread.append(line)

    def _place(self, line: Line) -> int:
        """Which of the inlet's lines it is."""
        return line.number - self._lines[0].number

    def _show(self, line: Line) -> None:
        """Lets the inlet read what it can of a line as that is now."""
        number = self._place(line)
        if self._shown.get(number) is not line.stream:
            if line.stream is None:
                self._inlet.disconnect(number)
                del self._shown[number]
            else:
                assert line.endpoint is not None
                where = self._polled.index(line.endpoint)
                self._inlet.connect(number, endpoint=where, stream=line.stream.address)
                self._shown[number] = line.stream
        if line.stream is not None:
            feed = line.session.feed.native if line.session.direct else ffi.NULL
            self._inlet.lend_to(number, feed)
            self._inlet.pause(number, False)

    def _offer(self, line: Line) -> None:
        session = line.session
        count = session.read_into(self._messages, self._records, BURST)
        if count:
            self._pump.offer(self._messages, self._records, count)
            self._held = True
        if session.more:
            self._unread.append(line)
        else:
            line.send()
            self._show(line)

    def housekeeping(self, now_mono_ns: int) -> None:
        """What depends on time; a few times a second."""
        for endpoint in self._polled:
            endpoint.housekeeping()
        for line in self._lines:
            line.housekeeping(now_mono_ns)
            if line in self._unread:
                if line.pipe is not None:
                    continue
                self._unread.remove(line)  # given up in the middle
            self._show(line)
            if mined := line.session.hole.take_mined():
                line.missed += self._arbiter.mined(mined)
        for trouble in self._arbiter.watch(now_mono_ns):
            for line in self._lines:
                if line.number == trouble.source and line.pipe is not None:
                    line.troubles += 1
                    line.session.end(f"{trouble.kind}: {trouble.detail}")

    def stats(self) -> dict[str, Any]:
        """By source: its state and everything that was counted."""
        return {line.name: line.stats() for line in self._lines}

    @property
    def endpoints(self) -> dict[str, StreamEndpoint]:
        """What the connections go by, by its way."""
        return self._endpoints

    @property
    def readers(self) -> dict[str, TxFeed]:
        """What keeps the last bad texts, by source."""
        return {line.name: line.session.feed for line in self._lines}

    def close(self) -> None:
        """Ends every connection."""
        self._exit.close()


def _heard(arbiter: Arbiter, number: int, tx_hash: bytes, arrival_ns: int, clock: int) -> bool:
    return arbiter.heard(number, tx_hash, arrival_ns, clock, now_mono_ns=time.monotonic_ns())


def _risks(source: Source) -> list[str]:
    """What `source` does without, in words."""
    said = []
    if source.key_log_file is not None:
        said.append(
            f"source {source.name}: its TLS secrets are written to {source.key_log_file}: whoever "
            "reads that file reads the traffic"
        )
    if source.url is not None and source.url.scheme == "wss" and not source.verify:
        said.append(f"source {source.name}: verify = false: anybody on the way can be the server")
    return said
