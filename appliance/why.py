"""The story of one transaction, put together from the flight recorders."""

from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from appliance.flight_reader import STEPS, Datagram, Trace, read_records, real_ns
from barewire.keccak import keccak256
from barewire.mempool.decoder import Decoder, Rules
from barewire.mempool.explain import why_not
from barewire.mempool.record import ORIGINS, Origin, Transaction

__all__ = ["SHOT_WORDS", "lines", "story"]

_MANY = 100  # triggers that are all told of: each takes a millisecond, and a line

SHOT_WORDS = {
    "fired": "fired: handed to the endpoint",
    "empty": "not fired: nothing was ever armed under its name",
    "already_fired": "not fired: it had fired before",
    "disarmed": "not fired: its owner had disarmed it",
    "halted": "not fired: sending was halted",
    "group": "not fired: another shot of its exclusion group had fired",
    "expired": "not fired: it had expired",
    "not_announced": "not fired: it was not announced, and the trigger does not ask for its origin",
    "untrusted": "not fired: the source is not trusted, and the signature was not good",
    "cap_rate": "not fired: more shots a second than fire.max_per_second",
    "cap_total": "not fired: more shots than fire.max_total",
    "cap_value": "not fired: more value than fire.max_total_value",
    "cap_fee": "not fired: a higher fee than fire.max_fee",
    "no_room": "not fired: the endpoint had no transmit buffer, or knew no next hop",
    "journal": "not fired: the journal did not take it",
    "send_failed": "perhaps sent: the endpoint failed behind the journal",
}

_ORIGIN_WORDS = {
    "announced": "seen on",
    "resent": "sent again, as it had been missed, by",
    "pool": "read from the pool of",
    "queued": "read from the pool, behind a gap in its sender's nonces, of",
    "block": "read from a block of",
}


def story(wanted: bytes, folder: Path) -> dict[str, Any]:
    """What the recorders in `folder` know of the transaction with hash `wanted`.

    Returns:
        ``{"hash", "sightings": [...], "sent": [...], "recorded_since_ns", "records"}``; the last
        two say how far back the recorders reach.
    """
    sightings, sent = [], []
    oldest, count = None, 0
    for record in read_records(folder):
        count += 1
        if oldest is None or record.recorded_mono_ns < oldest:
            oldest = record.recorded_mono_ns
        if isinstance(record, Datagram):
            if record.cause == wanted:
                sent.append(_sent(record))
        elif record.hash == wanted or (record.refused and keccak256(record.raw) == wanted):
            sightings.append(_sighting(record))
    since = None if oldest is None else oldest + time.time_ns() - time.monotonic_ns()
    return {
        "hash": f"0x{wanted.hex()}",
        "sightings": sorted(sightings, key=lambda one: one["seen_real_ns"]),
        "sent": sent,
        "recorded_since_real_ns": since,
        "records": count,
    }


def _sighting(trace: Trace) -> dict[str, Any]:
    seen: dict[str, Any] = {
        "source": trace.source_name,
        "trusted": trace.trusted,
        "origin": trace.origin,
        "core": trace.about.loop,
        "seen_real_ns": real_ns(trace),
        "clock": trace.clock,
        "bytes": trace.full_bytes,
        "steps_after_arrival_ns": _after_arrival(trace),
        "refused": trace.refused,
        "duplicate": trace.duplicate,
        "sender": f"0x{trace.sender.hex()}" if trace.sender else None,
    }
    if trace.refused is None:
        seen["triggers"], seen["triggers_left_out"] = _triggers(trace)
        seen["strategy"] = _strategy(trace)
    return seen


def _after_arrival(trace: Trace) -> dict[str, int]:
    """Each step after the arrival; after the first step where the arrival has another clock."""
    steps = trace.steps_mono_ns
    begin = trace.arrival_ns if trace.clock == "mono" else min(steps.values(), default=0)
    return {step: steps[step] - begin for step in STEPS if step in steps}


def _triggers(trace: Trace) -> tuple[list[dict[str, Any]], int]:
    """Triggers and why they were met or not, and how many are left out.

    Of very many only those that were met, and those that wanted its target.
    """
    met = {one.trigger: one for one in trace.matches}
    decoder = Decoder(Rules.preset(trace.about.fork, trace.about.chain_id))
    whole = len(trace.raw) == trace.full_bytes
    origin: Origin = next((one for one in ORIGINS if one == trace.origin), "announced")
    asked = trace.about.triggers
    if len(asked) > _MANY:
        tx = decoder.decode(trace.raw)
        to = f"0x{tx.to.hex()}" if isinstance(tx, Transaction) and tx.to else None
        near = (
            one
            for one in asked
            if one.name not in met and to and to in {address.lower() for address in one.to}
        )
        asked = [one for one in asked if one.name in met] + list(islice(near, _MANY))
    told = []
    for trigger in asked:
        one: dict[str, Any] = {"trigger": trigger.name, "matched": trigger.name in met}
        if trigger.name not in met:
            one["why"] = (
                why_not(trigger, trace.raw, decoder, trace.sender, origin)
                if whole
                else "the envelope was too long to be kept whole"
            )
        else:
            outcome = met[trigger.name].outcome
            one["shot"] = trigger.shot
            one["fired"] = outcome == "fired"
            if outcome is not None:
                one["why"] = SHOT_WORDS.get(outcome, outcome)
            elif trigger.shot is not None:
                one["why"] = "not fired: nothing may fire here (fire.unjournalled = false)"
            else:
                one["why"] = "no shot: the match is for the strategy"
        told.append(one)
    return told, len(trace.about.triggers) - len(told)


def _strategy(trace: Trace) -> str:
    if not trace.matches:
        return "not called: no trigger was met"
    if trace.duplicate:
        return "not called: this hash had been seen before"
    if not trace.about.strategy:
        return "none is configured"
    return f"called: {trace.about.strategy}"


def _sent(datagram: Datagram) -> dict[str, Any]:
    to = datagram.about.peers.get(f"{datagram.source}/{datagram.place}", ("?", 0))
    return {
        "to": f"{to[0]}:{to[1]}",
        "bytes": datagram.full_bytes,
        "real_ns": real_ns(datagram),
    }


def lines(told: dict[str, Any]) -> Iterable[str]:
    """The story as people read it."""
    if not told["sightings"]:
        yield f"{told['hash']} is not in the flight recorders"
        if told["recorded_since_real_ns"] is not None:
            yield (
                f"  they hold {told['records']:,} records, the oldest of "
                f"{_clock(told['recorded_since_real_ns'])}"
            )
        return
    yield told["hash"]
    for seen in told["sightings"]:
        trusted = "trusted" if seen["trusted"] else "not trusted"
        came = _ORIGIN_WORDS.get(seen["origin"], "seen on")
        yield (
            f"{_clock(seen['seen_real_ns'])}  {came} {seen['source']} ({trusted}), "
            f"{seen['bytes']:,} bytes, core {seen['core']}"
        )
        for step, after in seen["steps_after_arrival_ns"].items():
            yield f"  {step:<10} {after / 1000:>10,.3f} us"
        if seen["refused"]:
            yield f"  refused by the decoder: {seen['refused']}"
            continue
        if seen["duplicate"]:
            yield "  duplicate: this hash had been seen before"
        for one in seen["triggers"]:
            verb = "matched" if one["matched"] else "not matched"
            shot = f", shot {one['shot']}" if one.get("shot") else ""
            yield f"  trigger {one['trigger']}: {verb}{shot}: {one['why']}"
        if seen["triggers_left_out"]:
            yield f"  and {seen['triggers_left_out']:,} other triggers: not matched"
        yield f"  strategy {seen['strategy']}"
    for one in told["sent"]:
        yield f"{_clock(one['real_ns'])}  sent {one['bytes']:,} bytes to {one['to']}"


def _clock(ns: int) -> str:
    seconds, rest = divmod(ns, 10**9)
    return f"{time.strftime('%F %T', time.localtime(seconds))}.{rest:09d}"
