"""The transactions of hashes that were announced alone: asked for, asked for again, or counted.

A node can announce a hash and not know it a moment later: behind one address there are several, a
batch is longer than its provider takes, a limit is reached. What did not come is asked for again a
few times, with growing pauses, before it is counted as missing, by what was said last.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Literal

__all__ = ["PAUSES_NS", "Bodies", "BodyCounts"]

PAUSES_NS = (100_000_000, 400_000_000, 1_600_000_000)
"""Before a body is asked for the second time, the third and the last."""

MOST = 10_000
"""Waited for at once; more are counted as unanswered."""

AT_ONCE = 1_000
"""Asked for in one turn of a loop; the rest follows in the next."""

_Missing = Literal["unanswered", "vanished", "denied"]


@dataclass(slots=True)
class BodyCounts:
    """What became of announced hashes, over all connections of one source.

    Attributes:
        fetched: asked for. asked_again: of these, once more. known: not asked for, as another
            source had them.
        vanished: answered with null each time: gone from the pool. unanswered: not answered in
            time, or not before the connection broke. denied: answered with an error each time.
        batch: how many are asked for in one request, as learnt from what was refused.
    """

    batch: int
    fetched: int = 0
    asked_again: int = 0
    known: int = 0
    vanished: int = 0
    unanswered: int = 0
    denied: int = 0


@dataclass(slots=True)
class _Body:
    """One that has not come yet."""

    arrival_ns: int
    clock: int
    tries: int = 0
    number: int = 0  # of the last question
    since_ns: int = 0  # asked, or put off; 0: not looked at by the clock yet
    missing: _Missing = "unanswered"


class Bodies:
    """Those of one source.

    Args:
        batch: hashes in one request at most.
        answer_ns: for one answer.
        heard: told of a hash that was announced, and when it arrived, by which clock; whether it is
            known, so that it need not be fetched.

    Attributes:
        counts: see `BodyCounts`.
    """

    def __init__(
        self, *, batch: int, answer_ns: int, heard: Callable[[bytes, int, int], bool] | None
    ) -> None:
        self.counts = BodyCounts(batch)
        self._answer_ns = answer_ns
        self._heard = heard
        self._due: dict[bytes, _Body] = {}
        self._asked: dict[bytes, _Body] = {}
        self._put_off: dict[bytes, _Body] = {}
        self._numbers: dict[int, tuple[bytes, int]] = {}  # hash, and the batch's first number
        self._batches: dict[int, list[int]] = {}  # of which nothing was answered yet

    @property
    def due(self) -> bool:
        """Some are to be asked for now."""
        return bool(self._due)

    @property
    def expected(self) -> bool:
        """Some were asked for."""
        return bool(self._asked)

    def announced(self, tx_hash: bytes, arrival_ns: int, clock: int) -> None:
        """A hash was announced."""
        if tx_hash in self._asked or tx_hash in self._put_off or tx_hash in self._due:
            return
        if self._is_known(tx_hash, arrival_ns, clock):
            self.counts.known += 1
        elif len(self._due) + len(self._asked) + len(self._put_off) >= MOST:
            self.counts.unanswered += 1
        else:
            self._due[tx_hash] = _Body(arrival_ns, clock)

    def take_due(self, number: int) -> list[list[tuple[int, bytes]]]:
        """The requests to make now: batches of numbers, from `number` + 1 on, and hashes.

        Not all of them at once: :attr:`due` tells whether some are left.
        """
        requests = []
        wanted = list(islice(self._due.items(), AT_ONCE))
        for tx_hash, _ in wanted:
            del self._due[tx_hash]
        for at in range(0, len(wanted), self.counts.batch):
            batch = []
            for tx_hash, body in wanted[at : at + self.counts.batch]:
                number += 1
                self.counts.fetched += body.number == 0
                self.counts.asked_again += body.number > 0
                body.tries += 1
                body.number, body.since_ns, body.missing = number, 0, "unanswered"
                self._asked[tx_hash] = body
                batch.append((number, tx_hash))
            numbers = [number for number, _ in batch]
            self._numbers |= {asked: (tx_hash, numbers[0]) for asked, tx_hash in batch}
            self._batches[numbers[0]] = numbers
            requests.append(batch)
        return requests

    def came(self, tx_hash: bytes) -> tuple[int, int] | None:
        """A transaction is here; when its hash was announced, by which clock, if it was."""
        body = self._asked.pop(tx_hash, None) or self._put_off.pop(tx_hash, None)
        if body is None:
            return None
        self._answered(body.number)
        return body.arrival_ns, body.clock

    def not_told(self, number: int, missing: _Missing) -> bool:
        """Answer `number` was null, or an error; whether it was about a body."""
        tx_hash = self._answered(number)
        if tx_hash is None:
            return False
        body = self._asked.pop(tx_hash, None)
        if body is not None:
            body.missing = missing
            self._miss(tx_hash, body)
        return True

    def batch_refused(self) -> bool:
        """An error that names no request: a batch was refused as a whole, the first that is open.

        Its hashes are asked for again at once, half as many together.
        """
        if not self._batches:
            return False
        batch = next(iter(self._batches.values()))
        self.counts.batch = min(self.counts.batch, max(1, len(batch) // 2))
        for number in batch:
            tx_hash = self._answered(number)
            body = self._asked.pop(tx_hash, None) if tx_hash is not None else None
            if tx_hash is None or body is None:
                continue
            if len(batch) > 1:
                body.tries -= 1  # it was never looked at
                self._due[tx_hash] = body
            else:
                body.missing = "denied"
                self._miss(tx_hash, body)
        return True

    def tick(self, now_mono_ns: int) -> None:
        """What depends on time: answers that are late, and what is to be asked for again."""
        for tx_hash, body in list(self._asked.items()):
            if not body.since_ns:
                body.since_ns = now_mono_ns
            elif now_mono_ns - body.since_ns > self._answer_ns:
                del self._asked[tx_hash]
                self._answered(body.number)
                self._miss(tx_hash, body)
        for tx_hash, body in list(self._put_off.items()):
            if not body.since_ns:
                body.since_ns = now_mono_ns
            if now_mono_ns - body.since_ns < PAUSES_NS[body.tries - 1]:
                continue
            del self._put_off[tx_hash]
            if self._is_known(tx_hash, body.arrival_ns, body.clock):
                self.counts.known += 1
            else:
                self._due[tx_hash] = body

    def broken(self) -> None:
        """The connection broke: what did not come by now is left to the reading of the pool."""
        for body in [*self._due.values(), *self._asked.values(), *self._put_off.values()]:
            self._count(body.missing)
        self._due, self._asked, self._put_off = {}, {}, {}
        self._numbers, self._batches = {}, {}

    def _is_known(self, tx_hash: bytes, arrival_ns: int, clock: int) -> bool:
        return self._heard is not None and self._heard(tx_hash, arrival_ns, clock)

    def _answered(self, number: int) -> bytes | None:
        tx_hash, batch = self._numbers.pop(number, (None, 0))
        self._batches.pop(batch, None)
        return tx_hash

    def _miss(self, tx_hash: bytes, body: _Body) -> None:
        if body.tries <= len(PAUSES_NS):
            body.since_ns = 0
            self._put_off[tx_hash] = body
        else:
            self._count(body.missing)

    def _count(self, missing: _Missing) -> None:
        setattr(self.counts, missing, getattr(self.counts, missing) + 1)
