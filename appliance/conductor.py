"""Hands matches, blocks and the time to a user's strategy, and holds it to its limits.

Nothing that a strategy does stops the receiving: what it raises is caught and a call that takes
longer than its limit is broken off. Either is counted, noted with its cause in the distinct-error
log, and stops the sending: from then on no shot fires and :attr:`Conductor.halted` is true. A
strategy that has stalled is not called again; it would hold up every packet behind each match.

A call is broken off by a timer's signal (SIGALRM), which Python delivers between two instructions
or out of a sleep. Code in C that does not return cannot be broken off; it is counted when it does.
The timer is not set for each call, which would cost two system calls a match: it is set when a
call begins and none is running, and at its end looks whether the call that it finds is old enough.
So it runs out at most once in each `limit_ms`, and never without matches.

A strategy that forks has its child ended where it would come back into the loop: two would take
the same packets, and send. A handler of SIGALRM that it put in the place of ours is replaced again.

Time in which the thread wanted to run and another had its core is not the strategy's: what the
kernel counted of it (schedstat) is taken off.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import barewire
import dpdk_bindings
from appliance import desk
from appliance.metrics.places import Counter, Histogram
from appliance.strategy import Strategy
from barewire.feeds.blocks import Block
from barewire.mempool.record import Transaction
from barewire.pump import Match
from dpdk_bindings.metrics import DUTY_KINDS, MetricsWriter

__all__ = ["NEVER", "Conductor", "StrategyStalled"]

_CALLBACK = DUTY_KINDS.index("callback")
NEVER = 2**63 - 1
"""After all time."""
_LONGEST_ERROR = 16_384  # characters: it is written once a second with all that is counted
_FAREWELL_NS = 2_000_000_000  # for on_stop, when nothing is hot any more


class StrategyStalled(BaseException):
    """Raised inside a strategy whose call takes too long; ``except Exception`` lets it through."""


class Conductor:
    """Calls one strategy; use it by ``with``, in the main thread, to break off stalled calls.

    Args:
        strategy: the user's object.
        halt: stops native code from sending.
        metrics: where calls, errors and times are counted; None: nowhere.
        limit_ms: a call that takes longer is a stall.
        timer_ms: between two calls of ``on_timer``, where the strategy has one.

    Attributes:
        follows_blocks: the strategy has ``on_block``.
        timer_due_mono_ns: when :meth:`tick` is to be called; after all time where it has no timer.
        errors: exceptions that the strategy raised.
        last_error: the last of them, or of the stalls, with its place.
        stalled: whether a call took too long.
        cause: the transaction that the strategy is being called with, or None.
    """

    def __init__(
        self,
        strategy: Strategy,
        *,
        halt: Callable[[], None],
        metrics: MetricsWriter | None = None,
        limit_ms: float = 100,
        timer_ms: float = 1000,
    ) -> None:
        self._strategy = strategy
        self._on_match = strategy.on_match
        self._on_block = getattr(strategy, "on_block", None)
        self._on_timer = getattr(strategy, "on_timer", None)
        self.follows_blocks = self._on_block is not None
        self._timer_ns = int(timer_ms * 1e6)
        self.timer_due_mono_ns = NEVER
        self._halt = halt
        self._metrics = metrics
        self._limit_ns = int(limit_ms * 1e6)
        self.errors = 0
        self.last_error = ""
        self.stalled = False
        self.cause: Transaction | None = None
        self._pid = os.getpid()
        self._ours: Any = self._alarm  # bound once, to be known again
        self._began_ns = 0  # of the call that runs; 0: none does
        self._excused_ns = 0  # of that call's time: waiting for the core
        self._timer_set = False
        self._handler: Any = None
        self._schedstat: int | None = None
        self._waited_ns = 0  # for the core, when the timer was set

    @property
    def halted(self) -> bool:
        """Whether sending has stopped."""
        return self.errors > 0 or self.stalled

    def __enter__(self) -> Self:
        self._handler = signal.signal(signal.SIGALRM, self._ours)
        with contextlib.suppress(FileNotFoundError):  # a kernel without it
            self._schedstat = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._handler)
        self._handler, self._timer_set = None, False
        if self._schedstat is not None:
            os.close(self._schedstat)
            self._schedstat = None

    def hand_over(self, matches: Iterable[Match]) -> None:
        """Gives the strategy each of `matches`."""
        for match in matches:
            if self.stalled:
                return
            self._call(match)

    def _call(self, match: Match) -> None:
        self.cause = match.tx
        self._timed(Counter.STRATEGY_CALLS, self._on_match, match)
        self.cause = None
        match.tx.release()

    def hand_block(self, block: Block) -> None:
        """Gives the strategy a new block, where it wants them."""
        if self._on_block is not None and not self.stalled:
            self._timed(Counter.STRATEGY_BLOCKS, self._on_block, block)

    def start_timer(self, now_mono_ns: int) -> None:
        """From now on :meth:`tick` is due every `timer_ms`."""
        if self._on_timer is not None:
            self.timer_due_mono_ns = now_mono_ns + self._timer_ns

    def tick(self, now_mono_ns: int) -> None:
        """Tells the strategy that it is time. Times that were missed meanwhile are left out."""
        if self.stalled or self._on_timer is None:
            self.timer_due_mono_ns = NEVER
            return
        self.timer_due_mono_ns += self._timer_ns
        if self.timer_due_mono_ns <= now_mono_ns:
            self.timer_due_mono_ns = now_mono_ns + self._timer_ns
        self._timed(Counter.STRATEGY_TIMERS, self._on_timer)

    def _timed(self, counter: Counter, what: Callable[..., object], *arguments: object) -> None:
        began_ns = time.monotonic_ns()
        self._guard(what, *arguments)
        ended_ns = time.monotonic_ns()
        took_ns = ended_ns - began_ns - self._excused_ns
        if (
            took_ns > self._limit_ns
            and not self.stalled
            and took_ns - self._waited() > self._limit_ns
        ):
            self._stall(None)
        if (metrics := self._metrics) is not None:
            metrics.count(counter)
            metrics.observe(Histogram.STRATEGY_SECONDS, ended_ns - began_ns)
            metrics.turn(_CALLBACK, ended_ns)

    def stop(self) -> None:
        """Lets the strategy finish, after the last packet; it has two seconds, and may fail."""
        on_stop = getattr(self._strategy, "on_stop", None)
        if on_stop is not None:
            self._limit_ns = max(self._limit_ns, _FAREWELL_NS)
            self._guard(on_stop)

    def _guard(self, what: Callable[..., object], *arguments: object) -> None:
        """Calls a strategy's method; whatever it does, this returns."""
        try:
            try:
                self._began_ns, self._excused_ns = time.monotonic_ns(), 0
                if not self._timer_set and self._handler is not None:
                    self._set_timer(self._limit_ns)
                what(*arguments)
            finally:
                self._began_ns = 0
                if os.getpid() != self._pid:
                    os.write(2, b"barewire: a child that the strategy forked came back: ended\n")
                    os._exit(1)
        except StrategyStalled as stall:
            self._stall(stall)
        except BaseException as error:  # noqa: BLE001  SystemExit and CancelledError are mistakes too
            self._error(error)
        self._began_ns = 0  # the alarm may have come between the call's end and its being noted
        if self._handler is not None and signal.getsignal(signal.SIGALRM) is not self._ours:
            signal.signal(signal.SIGALRM, self._ours)
            self._say("strategy: it replaced the handler of SIGALRM, which was put back")

    def _alarm(self, *_: object) -> None:
        self._timer_set = False
        if not self._began_ns:
            return
        # Waiting since the timer was set: no more than was waited in the call and before it.
        self._excused_ns += self._waited()
        took_ns = time.monotonic_ns() - self._began_ns - self._excused_ns
        left_ns = self._limit_ns - took_ns
        self._set_timer(left_ns if left_ns > 0 else self._limit_ns)
        if left_ns <= 0:
            raise StrategyStalled

    def _waited(self) -> int:
        """How long the thread has waited for its core since the timer was set."""
        if self._schedstat is None:
            return 0
        return int(os.pread(self._schedstat, 128, 0).split()[1]) - self._waited_ns

    def _set_timer(self, after_ns: int) -> None:
        self._timer_set = True
        self._waited_ns += self._waited()
        signal.setitimer(signal.ITIMER_REAL, max(after_ns, 1000) / 1e9)

    def _stall(self, stall: StrategyStalled | None) -> None:
        self.stalled = True
        self._halt()
        where = ""
        if stall is not None:
            self.last_error = _told(stall)
            where = f" at {_place(stall)}"
        what = f"strategy: a call took longer than {self._limit_ns / 1e6:g} ms{where}"
        self.last_error = self.last_error or what
        self._note(Counter.STRATEGY_STALLS, f"{what}: sending stopped, it is called no more")

    def _error(self, error: BaseException) -> None:
        self.errors += 1
        self._halt()
        self.last_error = _told(error)
        name = type(error).__name__
        self._note(Counter.STRATEGY_ERRORS, f"strategy: {name} at {_place(error)}: sending stopped")

    def _note(self, counter: Counter, text: str) -> None:
        if self._metrics is not None:
            self._metrics.count(counter)
        self._say(text)

    def _say(self, text: str) -> None:
        if self._metrics is not None:
            self._metrics.note(text)


_OURS = (
    *(__file__, desk.__file__),
    *(f"{Path(module.__file__ or '').parent}{os.sep}" for module in (barewire, dpdk_bindings)),
)


def _told(error: BaseException) -> str:
    """The traceback, as text that can be written: it may quote names and bytes of any kind."""
    told = "".join(traceback.format_exception(error))
    if len(told) > _LONGEST_ERROR:
        told = f"{told[: _LONGEST_ERROR // 2]}\n...\n{told[-_LONGEST_ERROR // 2 :]}"
    return told.encode(errors="backslashreplace").decode()


def _place(error: BaseException) -> str:
    """File and line of the strategy's own code that raised, or called what did."""
    frames = list(traceback.extract_tb(error.__traceback__))
    theirs = [frame for frame in frames if not frame.filename.startswith(_OURS)]
    last = (theirs or frames)[-1]
    return f"{Path(last.filename).name}:{last.lineno}"
