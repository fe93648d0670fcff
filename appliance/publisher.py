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
from collections import Counter
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
from dpdk_bindings.errors import BindingsError

__all__ = ["LineSummary", "Publisher", "PublisherConfig", "PublisherSummary", "new_session"]

_SLEEP_NS = 1_000_000  # never sleeps longer: heartbeats, and a stop, are looked at so often
_ROOM_NS = 10_000_000  # how long a full queue below is waited for
_GREETING_NS = 500_000_000  # how long a next hop's address is waited for, before the start
_HOUSEKEEPING_NS = 100_000_000
_REOPEN_NS = 1_000_000_000  # between looks for an interface that was deleted
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
    """What one line was sent, and what was kept from it: on purpose, or `unsent`, by cause.

    `refused` has the causes of `unsent` by the endpoint's names of them (native/endpoint.h):
    "link_down", "unresolved" (no route, no next hop), "too_long", "ring_full", "withdrawn" (no
    room in time), "failed" (another, as no permission; or the link went in that moment).
    """

    place: str
    sent: int
    lost_on_purpose: int
    duplicated: int
    reordered: int
    unsent: int
    refused: dict[str, int]


class PublisherSummary(msgspec.Struct, frozen=True):
    """What a publisher did. Times are in microseconds.

    Lateness is sending less what `lateness_from` says: when it was "intended", or "received" from
    a node; `source` is what was counted there. `retransmitted` are messages; those datagrams of
    answers that the kernel refused are `retransmissions_unsent`.
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
    retransmissions_unsent: int
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
        self._line_refused: list[Counter[str]] = [Counter() for _ in config.lines]
        self._line_trouble = [""] * len(config.lines)
        self._refusals: Counter[str] = Counter()
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
        self._reopen_ns = 0
        self._endpoint, self._peers = self._open()
        self.server: RetransmissionServer | None = None
        try:
            if config.retransmit:
                self.server = RetransmissionServer(config.retransmit, self.mold)
        except BaseException:
            self._endpoint.close()
            raise

    def _open(self) -> tuple[DatagramEndpoint, list[int]]:
        config = self._config
        endpoint = open_datagram(
            config.via, channels=(), payload_bytes=max(512, config.max_datagram)
        )
        try:
            peers = [
                endpoint.add_peer(p.address, p.port, interface=p.interface, ttl=config.ttl)
                for p in config.lines
            ]
        except BaseException:
            endpoint.close()
            raise
        return endpoint, peers

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
            if self._endpoint.gone and now >= self._reopen_ns:
                self._open_anew(now)
            self._supply.housekeeping(now)
            self._kept_house_ns = now
        if self._ended_ns is not None and now - self._ended_ns >= self._linger_ns:
            self.finished = True
        return work

    def _open_anew(self, now: int) -> None:
        """The interface was deleted: goes on with the one that has its name, once there is one."""
        self._reopen_ns = now + _REOPEN_NS
        try:
            endpoint, peers = self._open()
        except BindingsError:  # not there yet, or without an address: all is refused meanwhile
            return
        self._endpoint.close()
        self._endpoint, self._peers = endpoint, peers
        self._refusals.clear()

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
                unsent=self._line_refused[i].total(),
                refused=dict(self._line_refused[i]),
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
            retransmissions_unsent=self.server.unsent if self.server else 0,
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
        self._note(count, time.monotonic_ns())
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
        give_up_ns = time.monotonic_ns() + _GREETING_NS
        for peer in self._peers:
            while not self._endpoint.send(peer, self.mold.heartbeat()):
                if time.monotonic_ns() >= give_up_ns:
                    break
                self._endpoint.housekeeping()
        self._endpoint.flush()
        self._newly_refused()
        self._heartbeats += 1
        self._last_ns = time.monotonic_ns()

    def _beat(self, now: int) -> None:
        ended = self._ended_ns is not None
        beat = self.mold.end_of_session() if ended else self.mold.heartbeat()
        for i, faulty in enumerate(self._faulty):
            self._send_line(i, faulty.carry([beat]))
        self._heartbeats += 1
        self._last_ns = now

    def _send_line(self, line: int, datagrams: Iterable[bytes]) -> None:
        """Sends on one line, at once; what does not leave is counted, by cause."""
        peer, send = self._peers[line], self._endpoint.send
        sent, before = 0, self._line_refused[line].total()
        for datagram in datagrams:
            sent += send(peer, datagram) or self._send_when_room(line, datagram)
        self._line_sent[line] += sent
        self._flush(line)
        if self._line_refused[line].total() == before:
            self._line_trouble[line] = ""

    def _send_when_room(self, line: int, datagram: bytes) -> bool:
        """Tries again while it is room that is wanting."""
        give_up_ns = time.monotonic_ns() + _ROOM_NS
        while True:
            refused = self._newly_refused()
            if set(refused) != {"ring_full"} or time.monotonic_ns() >= give_up_ns:
                self._note_refused(line, refused)
                return False
            self._flush(line)
            if self._endpoint.send(self._peers[line], datagram):
                return True

    def _flush(self, line: int) -> None:
        """Lets what is queued leave, waiting a little for room below."""
        give_up_ns = 0
        while not self._endpoint.flush():
            now = time.monotonic_ns()
            give_up_ns = give_up_ns or now + _ROOM_NS
            if now >= give_up_ns:
                self._endpoint.withdraw()
            refused = self._newly_refused()
            self._line_sent[line] -= refused.total()
            self._note_refused(line, refused)

    def _newly_refused(self) -> Counter[str]:
        """What the endpoint has refused since this was last asked, by cause."""
        now = Counter(self._endpoint.refusals())
        new = now - self._refusals
        self._refusals = now
        return new

    def _note_refused(self, line: int, refused: Counter[str]) -> None:
        self._line_refused[line] += refused
        self._line_trouble[line] = ", ".join(refused) or self._line_trouble[line]

    @property
    def trouble(self) -> str:
        """Why datagrams do not leave now, or an empty string."""
        return self._endpoint.trouble or "; ".join(
            f"{place} refuses datagrams: {cause}"
            for place, cause in zip(self._config.lines, self._line_trouble, strict=True)
            if cause
        )

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
