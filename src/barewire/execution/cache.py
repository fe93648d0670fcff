"""Templates kept by what they are for, and how often that helped."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

from barewire.errors import BarewireError
from barewire.execution.template import Template

__all__ = ["TemplateCache"]


class TemplateCache:
    """At most `capacity` templates, each for at most `lifetime_ns`; the least used goes first.

    A template ages because what is encoded in it does: routes, gas limits, access lists.

    Args:
        capacity: at least 1.
        lifetime_ns: how long after it was made a template is still used.

    Attributes:
        hits: templates found.
        misses: not found, or found too old.
        expired: of the misses, those found too old.
        evicted: dropped for want of room.
    """

    def __init__(self, capacity: int, lifetime_ns: int) -> None:
        if capacity < 1 or lifetime_ns < 1:
            raise BarewireError(f"a cache of {capacity} templates for {lifetime_ns} ns")
        self._capacity = capacity
        self._lifetime_ns = lifetime_ns
        self._kept: OrderedDict[Hashable, tuple[int, Template]] = OrderedDict()
        self.hits = self.misses = self.expired = self.evicted = 0

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def hit_rate(self) -> float:
        """Hits among all askings, 0.0 before the first."""
        return self.hits / (self.hits + self.misses) if self.hits else 0.0

    def get(self, key: Hashable, now_mono_ns: int) -> Template | None:
        """The template kept under `key`, unless it is too old at `now_mono_ns`."""
        found = self._kept.get(key)
        if found and now_mono_ns - found[0] <= self._lifetime_ns:
            self._kept.move_to_end(key)
            self.hits += 1
            return found[1]
        if found:
            del self._kept[key]
            self.expired += 1
        self.misses += 1
        return None

    def put(self, key: Hashable, template: Template, now_mono_ns: int) -> None:
        """Keeps `template`, made at `now_mono_ns`, under `key`."""
        self._kept[key] = (now_mono_ns, template)
        self._kept.move_to_end(key)
        while len(self._kept) > self._capacity:
            self._kept.popitem(last=False)
            self.evicted += 1

    def get_or_make(
        self, key: Hashable, now_mono_ns: int, make: Callable[[], Template]
    ) -> Template:
        """The template kept under `key`, or the one that `make` makes now."""
        template = self.get(key, now_mono_ns)
        if template is None:
            template = make()
            self.put(key, template, now_mono_ns)
        return template

    def drop(self, key: Hashable) -> None:
        """Forgets what is kept under `key`, if anything is."""
        self._kept.pop(key, None)
