"""Senders: who signed a transaction, found out on other cores (native/senders.h says how and why).

`Senders` is the hot core's side: it asks, joins the answers to the records when they come, and
keeps what it learnt in a cache under the transaction's hash. `work` is the side of a worker. Rings
and processes are handed in; `appliance.sender_workers` has them.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

from barewire._native import ffi, lib
from barewire.errors import BarewireError
from barewire.mempool.decoder import DecodedBurst
from barewire.mempool.record import Transaction

__all__ = ["JOB_BYTES", "RESULT_BYTES", "Recovered", "Senders", "work"]

JOB_BYTES: int = lib.BW_SENDER_JOB
"""Longest record on a ring of jobs."""
RESULT_BYTES: int = lib.BW_SENDER_RESULT
"""Longest record on a ring of results."""

_TOGETHER = 256


@dataclass(frozen=True, slots=True)
class Recovered:
    """One answer.

    Attributes:
        tx: the transaction; its sender is filled in, or stays None where there is none.
        sender: the 20-byte address, or None where nobody can have made the signature.
    """

    tx: Transaction
    sender: bytes | None


class Senders:
    """Asks workers who signed what.

    Args:
        entries: senders that are remembered, a power of two; 64 bytes each.
        waiting: questions without an answer at most; more are refused, and counted.

    Attributes:
        native: ``struct bw_senders *``, for native loops; valid as long as this object.
    """

    def __init__(self, *, entries: int = 1 << 16, waiting: int = 4096) -> None:
        native = ffi.NULL
        if 0 <= entries < 2**32 and 0 <= waiting < 2**32:
            native = lib.bw_senders_new(entries, waiting, secrets.token_bytes(16))
        if native == ffi.NULL:
            raise BarewireError(
                f"entries = {entries}, waiting = {waiting}",
                hint="entries: a power of two from 8 to 2^26; waiting: 1 to 2^20",
            )
        self.native: Any = ffi.gc(native, lib.bw_senders_free)
        self._lanes = 0
        self._bursts: dict[int, tuple[DecodedBurst, int]] = {}  # by cookie, with answers missing
        self._cookie = 0
        self._answers: Any = ffi.new("struct bw_sender_answer[]", _TOGETHER)

    def add_lane(self, jobs: Any, results: Any) -> int:
        """Adds a worker: the handles of its ring of jobs and of its ring of results.

        Both are lossless and stay open as long as this object is used. Returns the lane's number.

        Raises:
            BarewireError: there are as many lanes as there can be.
        """
        lane: int = lib.bw_senders_add_lane(
            self.native,
            _as("struct dpb_ring_tx *", jobs),
            _as("struct dpb_ring_rx *", results),
        )
        if lane < 0:
            raise BarewireError(
                f"{self._lanes + 1} sender workers", hint=f"at most {lib.BW_SENDER_LANES}"
            )
        self._lanes = max(self._lanes, lane + 1)
        return lane

    def drop_lane(self, lane: int) -> None:
        """Gives a worker's rings back, so that they can be closed; its questions are lost.

        They stay without an answer: :meth:`collect` lets go of their bursts and counts them.
        """
        lib.bw_senders_drop_lane(self.native, lane)

    def submit(self, burst: DecodedBurst, *, now_mono_ns: int) -> int:
        """Asks for the sender of every transaction of `burst`, in one native call.

        Those that are remembered are filled in at once; the burst is kept until the others have
        been collected. What a worker has been asked for already is not asked for twice. Returns how
        many answers will come.
        """
        self._cookie += 1
        asked: int = lib.bw_senders_submit(
            self.native,
            burst.native_messages,
            burst.records,
            len(burst),
            self._cookie,
            1,
            now_mono_ns,
        )
        if asked:
            self._bursts[self._cookie] = (burst, asked)
        return asked

    def collect(self, *, now_mono_ns: int) -> list[Recovered]:
        """The answers that have come since the last call, joined to their records."""
        recovered: list[Recovered] = []
        count = _TOGETHER
        while count == _TOGETHER:
            count = lib.bw_senders_collect(self.native, self._answers, _TOGETHER, now_mono_ns)
            for answer in self._answers[0:count]:
                held = self._bursts.get(answer.cookie)
                if held is None:  # asked for by a native loop, which keeps no records
                    continue
                burst, missing = held
                if missing == 1:
                    del self._bursts[answer.cookie]
                else:
                    self._bursts[answer.cookie] = (burst, missing - 1)
                if answer.sender == lib.BW_SENDER_UNKNOWN:  # lost with its lane
                    continue
                tx = burst[answer.index]
                assert isinstance(tx, Transaction)
                recovered.append(Recovered(tx, tx.sender))
        return recovered

    def lookup(self, tx_hash: bytes) -> bytes | None:
        """Who signed the transaction of this hash, if that is remembered.

        Returns:
            The 20-byte address, empty bytes where nobody can have made the signature, or None
            where it is not known.
        """
        if len(tx_hash) != 32:
            raise BarewireError(f"a hash of {len(tx_hash)} bytes", hint="32 bytes")
        address: Any = ffi.new("uint8_t[20]")
        sender = lib.bw_senders_lookup(self.native, tx_hash, address)
        if sender == lib.BW_SENDER_UNKNOWN:
            return None
        return bytes(address) if sender == lib.BW_SENDER_KNOWN else b""

    def stats(self) -> dict[str, int]:
        """Every counter (``struct bw_sender_stats``), and the questions of each lane's queue."""
        stats = lib.bw_senders_stats(self.native)
        counts = {name: int(getattr(stats, name)) for name, _ in ffi.typeof(stats).item.fields}
        for lane in range(self._lanes):
            counts[f"waiting_{lane}"] = int(lib.bw_senders_lane_waiting(self.native, lane))
        return counts


def work(jobs: Any, results: Any) -> int:
    """Answers up to eight questions, in a worker; returns how many, 0 where none wait.

    Args:
        jobs: handle of the consumer of the ring of jobs.
        results: handle of the producer of the ring of results.

    Raises:
        BarewireError: libsecp256k1 is not loaded, or the ring of jobs is damaged.
    """
    done: int = lib.bw_senders_work(
        _as("struct dpb_ring_rx *", jobs), _as("struct dpb_ring_tx *", results)
    )
    if done == lib.BW_SENDER_FULL:
        return 0
    if done < 0:
        raise BarewireError(
            "no libsecp256k1 is loaded" if done == lib.BW_SENDER_ABSENT else "damaged ring of jobs",
            hint="call barewire.secp.load() first" if done == lib.BW_SENDER_ABSENT else "",
        )
    return done


def _as(kind: str, pointer: Any) -> Any:
    """A pointer of another native module as this one's type; the two share the header."""
    return ffi.cast(kind, int(ffi.cast("uintptr_t", pointer)))
