"""The ports of one process: an interface has one, and every endpoint that wants it shares it.

A source that names a ``fallback`` is opened by that where its `via` cannot be had, and it is said;
without one, that is an error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from appliance.config import Source
from dpdk_bindings.errors import BindingsError
from dpdk_bindings.port import Port, open_port
from dpdk_bindings.shared_port import SharedPort

__all__ = ["Ports"]

T = TypeVar("T")


class Ports:
    """Opens endpoints by what their sources want.

    Args:
        sources: all that this process opens, so that it is known who shares what. Each source of
            datagrams has an endpoint of its own; all streams of one `via` have one together.

    Attributes:
        warnings: what was not to be had, and what is used instead.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self._endpoints: Counter[str] = Counter()
        for source in sources:
            if not source.is_stream:
                self._endpoints.update(_wanted(source))
        streams = {via for source in sources if source.is_stream for via in _wanted(source)}
        self._endpoints.update(streams)
        self._shared: dict[str, SharedPort] = {}
        self.warnings: list[str] = []

    def open(
        self,
        source: Source,
        opener: Callable[[str | Port], T],
        opened: dict[str, T] | None = None,
    ) -> T:
        """Opens what `source` wants.

        Args:
            source: whose `via` and `fallback` count.
            opener: is given "kernel", the address of a port, or a shared port, which it closes.
            opened: what there is already, by its way, and need not be opened again; what is opened
                is added. None: each source has its own.

        Raises:
            BindingsError: it cannot be had, nor can the fallback, if there is one.
        """
        opened = {} if opened is None else opened
        *better, last = _wanted(source)
        for via in better:
            try:
                return self._open(via, opener, opened)
            except (BindingsError, OSError) as error:
                self.warnings.append(
                    f"source {source.name}: {via} cannot be had ({error}): its fallback {last} is "
                    "used"
                )
        return self._open(last, opener, opened)

    def _open(self, via: str, opener: Callable[[str | Port], T], opened: dict[str, T]) -> T:
        if via not in opened:
            opened[via] = self._opened(via, opener)
        return opened[via]

    def _opened(self, via: str, opener: Callable[[str | Port], T]) -> T:
        if via == "kernel" or self._endpoints[via] < 2:
            return opener(via)
        shared = self._shared.get(via)
        if shared is None or shared.port.closed:  # whoever was its only member could not be opened
            shared = self._shared[via] = SharedPort(open_port(via))
        member = shared.member()
        try:
            return opener(member)
        except BaseException:
            member.close()
            raise


def _wanted(source: Source) -> list[str]:
    return [source.via.text] + ([source.fallback.text] if source.fallback else [])
