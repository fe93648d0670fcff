"""A publisher of transactions: paced, on several lines, with its retransmission server.

    with Publisher(PublisherConfig(lines=(a, b)), Paced(envelopes, 20_000)) as publisher:
        summary = publisher.run(stop=lambda: interrupted)

Where the transactions come from is a `Supply`, which knows when each should have left. All times
count from then: a publisher that falls behind must not make its receivers look fast.
"""

from __future__ import annotations

import os
import select
import time
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import repeat
from types import TracebackType
from typing import Any

import msgspec

from appliance.faults import Faults, FaultyLine
from appliance.places import Place
from appliance.retransmission import RetransmissionServer
from appliance.supply import Supply
from barewire.errors import BarewireError
from barewire.feeds.envelope import to_messages
from barewire.feeds.mold_publisher import MoldPublisher, PublisherStats, ServerLimits
from barewire.mempool.record import Origin
from dpdk_bindings.datagram import DatagramEndpoint, open_datagram

__all__ = ["LineSummary", "Publisher", "PublisherConfig", "PublisherSummary", "new_session"]

_SLEEP_NS = 1_000_000  # never sleeps longer: heartbeats, and a stop, are looked at so often
_ROOM_NS = 10_000_000  # how long a full queue below is waited for
_GREETING_NS = 500_000_000  # how long a next hop's address is waited for, before the start
_HOUSEKEEPING_NS = 100_000_000
_BUCKETS = 100_000  # of lateness, a microsecond each; the last holds all that is longer


def new_session() -> str:
    """A session name that no start before this one had: milliseconds since 1970, in base 36."""
    n, digits = time.time_ns() // 1_000_000, ""
    while n:
        n, digit = divmod(n, 36)
        digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[digit] + digits
    return "BW" + digits[-8:]


@dataclass(frozen=True, slots=True)
class PublisherConfig:
    """What a publisher does.

    Attributes:
        lines: where each datagram goes, once for each.
        via: the datagram endpoint's backend.
        retransmit: where requests are heard; None: no server.
        session: 1 to 10 ASCII characters; empty: a new one.
        max_datagram: longest UDP payload.
        ttl: of multicast; None: the kernel's.
        heartbeat_ns: after this long without a message one is sent. It is how soon receivers
            notice that the last message before a pause was lost, and costs next to nothing.
        linger_ns: how long requests are still answered after the end of the session was sent.
        faults: what happens to the lines on purpose.
        limits: what one requester may have.
        record: keep the times of each transaction (:attr:`Publisher.sent_mono_ns`).
    """

    lines: tuple[Place, ...]
    via: str = "kernel"
    retransmit: Place | None = None
    session: str = ""
    max_datagram: int = 1472
    ttl: int | None = None
    heartbeat_ns: int = 20_000_000
    linger_ns: int = 1_000_000_000
    faults: Faults = field(default_factory=Faults)
    limits: ServerLimits = field(default_factory=ServerLimits)
    record: bool = False


class LineSummary(msgspec.Struct, frozen=True):
    """What one line was sent, and what was kept from it: on purpose, or for want of room."""

    place: str
    sent: int
    lost_on_purpose: int
    duplicated: int
    reordered: int
    unsent: int


class PublisherSummary(msgspec.Struct, frozen=True):
    """What a publisher did. Times are in microseconds.

    Lateness is sending less what `lateness_from` says: when it was "intended", or "received" from
    a node; `source` is what was counted there.
    """

    session: str
    transactions: int
    messages: int
    seconds: float
    rate: float
    lateness_from: str
    lateness_p50_us: int
    lateness_p99_us: int
    lateness_max_us: float
    lines: list[LineSummary]
    heartbeats: int
    requests: int
    answered: int
    retransmitted: int
    requests_refused: dict[str, int]
    source: dict[str, Any]


class Publisher:
    """Sends what a supply gives as a feed.

    Call :meth:`run`, or :meth:`poll` in a loop of your own.

    Attributes:
        mold: the sequence and its store.
        server: the retransmission server, or None.
        sent: transactions sent so far.
        finished: everything was sent and said, and requests had their time.
        started_mono_ns: when the first transaction was due.
        sent_mono_ns: with `record`, when each transaction was handed to the endpoint.
    """

    def __init__(self, config: PublisherConfig, supply: Supply) -> None:
        if not config.lines:
            raise BarewireError("a publisher without a line", hint="name at least one")
        self._config = config
        self._supply = supply
        self._session = config.session or new_session()
        self.mold = MoldPublisher(
            self._session, max_datagram=config.max_datagram, limits=config.limits
        )
        self._faulty = [FaultyLine(config.faults, i) for i in range(len(config.lines))]
        self._line_sent = [0] * len(config.lines)
        self._line_unsent = [0] * len(config.lines)
        self._fragment_id = int.from_bytes(os.urandom(8))
        self._heartbeats = 0
        self._lateness = array("Q", bytes(8 * _BUCKETS))
        self._lateness_max_ns = 0
        self._last_ns = 0
        self._ended_ns: int | None = None
        self._linger_ns = 0
        self._kept_house_ns = 0
        self.sent = 0
        self.finished = False
        self.started_mono_ns = 0
        self.sent_mono_ns = array("Q")
        self._endpoint: DatagramEndpoint = open_datagram(
            config.via, channels=(), payload_bytes=max(512, config.max_datagram)
        )
        self.server: RetransmissionServer | None = None
        try:
            self._peers = [
                self._endpoint.add_peer(p.address, p.port, interface=p.interface, ttl=config.ttl)
                for p in config.lines
            ]
            if config.retransmit:
                self.server = RetransmissionServer(config.retransmit, self.mold)
        except BaseException:
            self._endpoint.close()
            raise

    def run(
        self,
        stop: Callable[[], bool] = lambda: False,
        each_turn: Callable[[], object] = lambda: None,
    ) -> PublisherSummary:
        """Publishes until everything is sent and the linger is over, or `stop()` says so.

        Args:
            stop: asked every turn. When it says True the session is ended in order, without linger.
            each_turn: called every turn: a progress display, a receiver of replies.
        """
        while not self.finished:
            if stop():
                self.end(linger=False)
            self.poll()
            each_turn()
            self._rest()
        return self.summary()

    def poll(self) -> int:
        """One turn: sends what is due, beats, answers. Returns how much there was to do."""
        if not self.started_mono_ns:
            self._greet()
            self.started_mono_ns = time.monotonic_ns()
            self._supply.begin(self.started_mono_ns)
        now = time.monotonic_ns()
        work = self._send_due(now) if self._ended_ns is None else 0
        if now - self._last_ns >= self._config.heartbeat_ns:
            self._beat(now)
        if self.server:
            work += self.server.poll(now)
        if now - self._kept_house_ns >= _HOUSEKEEPING_NS:
            self._endpoint.housekeeping()
            self._supply.housekeeping(now)
            self._kept_house_ns = now
        if self._ended_ns is not None and now - self._ended_ns >= self._linger_ns:
            self.finished = True
        return work

    def end(self, *, linger: bool = True) -> None:
        """Ends the session; requests are answered for the linger, if there is one."""
        if self._ended_ns is None:
            self._ended_ns = time.monotonic_ns()
            for i, faulty in enumerate(self._faulty):
                self._send_line(i, faulty.flush())
            self._beat(self._ended_ns)
        self._linger_ns = self._config.linger_ns if linger and self.server else 0

    def summary(self) -> PublisherSummary:
        """What was done so far."""
        seconds = ((self._ended_ns or time.monotonic_ns()) - self.started_mono_ns) / 1e9
        stats: PublisherStats = self.mold.stats
        lines = [
            LineSummary(
                place=str(place),
                sent=self._line_sent[i],
                lost_on_purpose=self._faulty[i].lost,
                duplicated=self._faulty[i].duplicated,
                reordered=self._faulty[i].reordered,
                unsent=self._line_unsent[i],
            )
            for i, place in enumerate(self._config.lines)
        ]
        return PublisherSummary(
            session=self._session,
            transactions=self.sent,
            messages=stats.messages,
            seconds=round(seconds, 3),
            rate=round(self.sent / seconds, 1) if seconds else 0.0,
            lateness_from=self._supply.counted_from,
            lateness_p50_us=self._percentile(0.5),
            lateness_p99_us=self._percentile(0.99),
            lateness_max_us=self._lateness_max_ns / 1000,
            lines=lines,
            heartbeats=self._heartbeats,
            requests=stats.requests,
            answered=stats.answered,
            retransmitted=stats.retransmitted,
            requests_refused=stats.refused,
            source=self._supply.stats(),
        )

    def _send_due(self, now: int) -> int:
        envelopes = self._supply.take(now)
        if not envelopes:
            if self._supply.ended:
                self.end()
            return 0
        messages: list[bytes] = []
        origins: Iterable[Origin] = self._supply.origins or repeat("announced")
        for envelope, origin in zip(envelopes, origins, strict=False):
            messages += to_messages(
                envelope, self.mold.max_message, self._fragment_id, origin=origin
            )
            self._fragment_id = (self._fragment_id + 1) & (2**64 - 1)
        count = len(envelopes)
        datagrams = self.mold.pack(messages)
        for i, faulty in enumerate(self._faulty):
            self._send_line(i, faulty.carry(datagrams))
        left = time.monotonic_ns()
        self._endpoint.flush()
        self._note(count, left)
        self._last_ns = now
        return count

    def _note(self, count: int, left_ns: int) -> None:
        if self._config.record:
            self.sent_mono_ns.extend([left_ns] * count)
        for due_ns in self._supply.due_mono_ns:
            late = max(0, left_ns - due_ns)
            self._lateness[min(late // 1000, _BUCKETS - 1)] += 1
            self._lateness_max_ns = max(self._lateness_max_ns, late)
        self.sent += count

    def _greet(self) -> None:
        """Begins the session with a heartbeat on every line, before the clock starts.

        Receivers learn the session and its first number by it, and the endpoint learns the next
        hop's address, without which its first datagram would be late or lost.
        """
        for peer in self._peers:
            self._send_when_room(peer, self.mold.heartbeat(), _GREETING_NS)
        self._endpoint.flush()
        self._heartbeats += 1
        self._last_ns = time.monotonic_ns()

    def _beat(self, now: int) -> None:
        ended = self._ended_ns is not None
        beat = self.mold.end_of_session() if ended else self.mold.heartbeat()
        for i, faulty in enumerate(self._faulty):
            self._send_line(i, faulty.carry([beat]))
        self._endpoint.flush()
        self._heartbeats += 1
        self._last_ns = now

    def _send_line(self, line: int, datagrams: Iterable[bytes]) -> None:
        peer, send = self._peers[line], self._endpoint.send
        for datagram in datagrams:
            if send(peer, datagram) or self._send_when_room(peer, datagram, _ROOM_NS):
                self._line_sent[line] += 1
            else:
                self._line_unsent[line] += 1

    def _send_when_room(self, peer: int, datagram: bytes, patience_ns: int) -> bool:
        """Waits for the queue below to drain, or for the next hop to tell its address."""
        give_up_ns = time.monotonic_ns() + patience_ns
        while not self._endpoint.send(peer, datagram):
            if time.monotonic_ns() >= give_up_ns:
                return False
            self._endpoint.flush()
            self._endpoint.housekeeping()
        return True

    def _rest(self) -> None:
        """Sleeps when there is time to; otherwise lets the caller spin."""
        if self.server and self.server.busy:
            return
        left, woken_by = _SLEEP_NS, []
        if self._ended_ns is None:
            left = min(left, self._supply.rest_ns(time.monotonic_ns()))
            woken_by = self._supply.descriptors()
        if left <= 0:
            return
        if self.server:
            woken_by = [self.server.fileno(), *woken_by]
        if woken_by:
            select.select(woken_by, [], [], left / 1e9)
        else:
            time.sleep(left / 1e9)

    def _percentile(self, fraction: float) -> int:
        """Lateness in whole microseconds, rounded down."""
        rank, seen = fraction * sum(self._lateness), 0
        for microseconds, count in enumerate(self._lateness):
            seen += count
            if count and seen >= rank:
                return microseconds
        return 0

    def __enter__(self) -> Publisher:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes endpoint and server. A session that was not ended just falls silent."""
        if self.server:
            self.server.close()
        self._endpoint.close()
