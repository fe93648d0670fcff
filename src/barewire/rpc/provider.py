"""One provider as the pool sees it: what it promised, how it does, and whether it is out.

No sockets here. Transports report `connected`, results and troubles; time is handed in.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from barewire.rpc.faults import Fault, Trouble
from barewire.rpc.latency import PeakEwma, RollingSketch
from barewire.rpc.methods import KINDS, Kind, Method

__all__ = ["Provider", "Terms", "Tier"]

Tier = str
_TRIED_NS = 500_000_000
"""How long others wait for the first answer after a rest; it wakes them when it comes."""
_MUTE_S = 60
_MUTE_MAX_S = 3_600


@dataclass(frozen=True, slots=True)
class Terms:
    """What is configured about a provider, its addresses apart.

    Attributes:
        name: unique in its pool; what people read.
        priority: 1 is best; the cost of a provider is multiplied by it.
        weight: the cost of a provider is divided by it.
        tier: ``colocated``, ``regional`` or ``public``; only shown.
        requests_per_s: its rate limit, 0 for none.
        units_per_s: its limit in compute units, 0 for none.
        methods: prefixes of the methods it serves (``eth_``, ``eth_call``); empty for all.
        archive: it serves states older than 128 blocks.
        private: the name of the only route it belongs to, or "" for the public one.
        batch_items: the most items of a batch it takes; 1 switches batching off.
        batch_bytes: the most bytes of a batch it takes.
        price: relative cost of one call here (paymasters: the fee), 1.0 by default.
    """

    name: str
    priority: int = 1
    weight: float = 1.0
    tier: Tier = "regional"
    requests_per_s: float = 0.0
    units_per_s: float = 0.0
    methods: tuple[str, ...] = ()
    archive: bool = True
    private: str = ""
    batch_items: int = 100
    batch_bytes: int = 1_000_000
    price: float = 1.0


class Allowance:
    """A token bucket that holds one second's worth."""

    __slots__ = ("_per_ns", "_size", "_stamp_ns", "_tokens")

    def __init__(self, per_s: float) -> None:
        self._per_ns = per_s / 1e9
        self._size = max(per_s, 1.0)
        self._tokens = self._size
        self._stamp_ns = 0

    def has(self, amount: float, now_ns: int) -> bool:
        """Whether `amount` may be spent now."""
        if now_ns > self._stamp_ns:
            self._tokens = min(self._size, self._tokens + (now_ns - self._stamp_ns) * self._per_ns)
            self._stamp_ns = now_ns
        return self._tokens >= min(amount, self._size)

    def ready_ns(self, amount: float, now_ns: int) -> int:
        """When `amount` may be spent."""
        if self.has(amount, now_ns):
            return now_ns
        return now_ns + int((min(amount, self._size) - self._tokens) / self._per_ns) + 1

    def spend(self, amount: float) -> None:
        """Spends; may go below nothing where the pool had no other choice."""
        self._tokens -= amount


@dataclass(slots=True)
class Tally:
    """Counters since the start; `faults` by cause."""

    sent: int = 0
    answered: int = 0
    hedged_away: int = 0
    mirrored: int = 0
    faults: dict[str, int] = field(default_factory=dict)


class Provider:
    """State of one provider.

    Attributes:
        terms: its configuration.
        archive: it is believed to serve states older than 128 blocks.
        connected: a transport is up.
        refused: why it may not be used at all (wrong chain), or "".
        head: its newest block number as far as known, -1 when unknown.
        head_ns: when that was learnt.
        heard_ns: when it last answered anything.
        asked_ns: when it was last asked anything.
        in_flight: requests it has not answered yet.
        success: moving share of requests it served, 0 to 1.
        parked_until_ns: it asked to be left alone until then.
        parked: methods that it asked not to be asked, and until when.
        silent: nothing was heard of it since something that it should have answered was sent.
        recovered_ns: when it was last heard of after that.
        out_until_ns: ejected until then; afterwards on probation while `probation` is true.
        last_trouble: the last failure, for people.
        blamed: the trouble it was last blamed for; a lost connection is one, whatever was on it.
        log_blocks: the most blocks it gives in one eth_getLogs, 0 while no limit is known.
    """

    __slots__ = (
        "_mutes",
        "_requests",
        "_units",
        "_unserved",
        "archive",
        "asked_ns",
        "blamed",
        "connected",
        "doubtful",
        "ejections",
        "ewma",
        "head",
        "head_ns",
        "heard_ns",
        "in_flight",
        "last_trouble",
        "log_blocks",
        "mirror_in_flight",
        "mirror_next_ns",
        "mirror_wins",
        "out_reason",
        "out_until_ns",
        "parked",
        "parked_until_ns",
        "parkings",
        "probation",
        "recovered_ns",
        "refused",
        "silent",
        "sketch",
        "strikes",
        "success",
        "tally",
        "terms",
    )

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.archive = terms.archive
        self.connected = False
        self.refused = ""
        self.head = -1
        self.head_ns = 0
        self.doubtful = ""
        self.heard_ns = 0
        self.in_flight = 0
        self.success = 1.0
        self.strikes = 0
        self.blamed: Trouble | None = None
        self.parked_until_ns = 0
        self.parked: dict[str, int] = {}
        self.silent = False
        self.recovered_ns = 0
        self.parkings = 0
        self.asked_ns = 0
        self.out_until_ns = 0
        self.out_reason = ""
        self.ejections = 0
        self.probation = False
        self.mirror_wins = 0
        self.mirror_in_flight = 0
        self.mirror_next_ns = 0
        self.last_trouble = ""
        self.ewma = [PeakEwma() for _ in range(KINDS)]
        self.sketch = [RollingSketch() for _ in range(KINDS)]
        self.tally = Tally()
        self._requests = Allowance(terms.requests_per_s) if terms.requests_per_s else None
        self._units = Allowance(terms.units_per_s) if terms.units_per_s else None
        self._unserved: set[str] = set()
        self._mutes: dict[str, tuple[int, int]] = {}
        self.log_blocks = 0

    @property
    def name(self) -> str:
        """Its name in the configuration."""
        return self.terms.name

    def serves(self, method: Method) -> bool:
        """Whether it is configured to serve `method`, and has not said otherwise."""
        if not self._unserved and not self.terms.methods:
            return True
        return method.name not in self._unserved and self.may_serve(method)

    def may_serve(self, method: Method) -> bool:
        """Whether the configuration says that it serves `method`."""
        return not self.terms.methods or method.name.startswith(self.terms.methods)

    def does_not_serve(self, method: Method) -> None:
        """Remembers that the provider answered "method not found"."""
        self._unserved.add(method.name)

    def went_mute(self, kind: str, why: str, now_ns: int) -> None:
        """Its subscription to `kind` brought nothing while others went on, or was refused.

        It counts as mute for a minute, and twice as long each further time, an hour at most.
        """
        _, times = self._mutes.get(kind, (0, 0))
        rest_s = min(_MUTE_S << times, _MUTE_MAX_S)
        self._mutes[kind] = now_ns + rest_s * 1_000_000_000, min(times + 1, 16)
        self.tally.faults["mute"] = self.tally.faults.get("mute", 0) + 1
        self.last_trouble = f"mute: {kind}: {why}"

    def is_mute(self, kind: str, now_ns: int) -> bool:
        """Whether a subscription to `kind` should go to another provider."""
        return now_ns < self._mutes.get(kind, (0, 0))[0]

    def can_afford(self, method: Method, now_ns: int) -> bool:
        """Whether its rate limits leave room for `method`, those that it has told as well."""
        if self.parked_until_ns > now_ns or self._tries(now_ns):
            return False
        if self.parked and self.parked.get(method.name, 0) > now_ns:
            return False
        if self._requests and not self._requests.has(1, now_ns):
            return False
        return not (self._units and not self._units.has(method.units, now_ns))

    def _tries(self, now_ns: int) -> bool:
        """Whether it is asked one thing after a rest, to see whether it has rested enough."""
        return bool(self.parkings and self.in_flight and now_ns < self.asked_ns + _TRIED_NS)

    def ready_ns(self, method: Method, now_ns: int) -> int:
        """When it can afford `method`; while it is tried after a rest, soon."""
        ready = max(now_ns, self.parked_until_ns, self.parked.get(method.name, 0))
        if self._tries(now_ns):
            ready = max(ready, self.asked_ns + _TRIED_NS)
        if self._requests:
            ready = max(ready, self._requests.ready_ns(1, now_ns))
        if self._units:
            ready = max(ready, self._units.ready_ns(method.units, now_ns))
        return ready

    def spend(self, method: Method) -> None:
        """Counts a request against its rate limits."""
        if self._requests:
            self._requests.spend(1)
        if self._units:
            self._units.spend(method.units)

    def latency_us(self, kind: Kind) -> float:
        """Its average for `kind`; for a kind never seen here its best guess from the others."""
        own = self.ewma[kind].us
        if own:
            return own
        return max((e.us for e in self.ewma), default=0.0)

    def took(self, kind: Kind, us: float, now_ns: int) -> None:
        """An answer came after `us`."""
        self.heard_ns = now_ns
        if self.silent:
            self.silent = False
            self.recovered_ns = now_ns
        self.ewma[kind].observe(us, now_ns)
        self.sketch[kind].observe(us, now_ns)
        self.success += (1.0 - self.success) * 0.05
        self.strikes = 0
        self.parkings = 0
        self.tally.answered += 1

    def overdue(self, kind: Kind, us: float, now_ns: int) -> None:
        """No answer after `us`: the average learns it before the answer is there."""
        if us > self.ewma[kind].us:
            self.ewma[kind].observe(us, now_ns)

    def erred(self, fault: Fault, message: str) -> None:
        """Counts a failure, whoever's fault it was."""
        self.tally.faults[fault.value] = self.tally.faults.get(fault.value, 0) + 1
        self.last_trouble = f"{fault.value}: {message}"

    def blame(self, trouble: Trouble) -> None:
        """A failure was its own; whether it is ejected for it is the pool's business."""
        self.success *= 0.95
        if trouble is not self.blamed:
            self.strikes += 1
            self.blamed = trouble

    def state(self, now_ns: int) -> str:
        """One word for a table."""
        if self.refused:
            return "refused"
        if not self.connected:
            return "down"
        if now_ns < self.out_until_ns:
            return "ejected"
        if self.probation:
            return "probation"
        if self.doubtful:
            return "doubtful"
        return "parked" if now_ns < self.parked_until_ns else "up"
