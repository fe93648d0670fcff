"""Senders: what workers answer joined to what asked, against the senders that mainnet computed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from appliance.mainnet_block import encode_transaction, load_block
from appliance.sender_pool import SenderPool
from appliance.sender_worker import SEAT
from barewire import BarewireError, secp
from barewire._native import ffi, lib
from barewire.mempool.decoder import Decoder, Rules
from barewire.mempool.senders import JOB_BYTES, RESULT_BYTES, Senders, work
from dpdk_bindings.ring import RingConsumer, RingKind, RingProducer

BLOCK = load_block()["transactions"]
RAW = [encode_transaction(fields) for fields in BLOCK]
WHO = [bytes.fromhex(fields["from"][2:]) for fields in BLOCK]


def decoded(raws=RAW):
    return Decoder(Rules.preset("london", 1)).decode_burst(raws)


def nobody(raw: bytes) -> bytes:
    """`raw` with an r that is no point of the curve; its length stays."""
    tx = decoded([raw])[0]
    r = tx.r.to_bytes(32, "big")
    assert raw.count(r) == 1
    for low in range(256):
        other = raw.replace(r, r[:31] + bytes([low]))
        tx = decoded([other])[0]
        found = secp.recover(
            tx.signing_hash(), tx.r.to_bytes(32, "big"), tx.s.to_bytes(32, "big"), tx.y_parity
        )
        if found is None:
            return other
    raise AssertionError


class Lane:
    """Both ends of a worker's rings, in this process."""

    def __init__(self, *, depth=256):
        secp.load()
        self.jobs = RingProducer.create(
            "memfd:jobs", kind=RingKind.LOSSLESS, depth=depth, mtu=JOB_BYTES
        )
        self.answers = RingProducer.create(
            "memfd:results", kind=RingKind.LOSSLESS, depth=depth, mtu=RESULT_BYTES
        )
        self.results = RingConsumer.open(self.answers.fd, seat="collector", start="oldest")
        self.asked = RingConsumer.open(self.jobs.fd, seat=SEAT, start="oldest")

    def work(self) -> int:
        done = 0
        while count := work(self.asked.handle, self.answers.handle):
            done += count
        return done

    def close(self):
        for end in (self.asked, self.results, self.answers, self.jobs):
            end.close()


@pytest.fixture
def lane():
    lane = Lane()
    yield lane
    lane.close()


def joined(lane, **sizes) -> Senders:
    senders = Senders(**sizes)
    senders.add_lane(lane.jobs.handle, lane.results.handle)
    return senders


def test_a_block_of_mainnet(lane):
    senders, burst = joined(lane), decoded()
    assert senders.submit(burst, now_mono_ns=1000) == len(RAW)
    assert senders.collect(now_mono_ns=1001) == []
    assert all(tx.sender is None for tx in burst)
    assert lane.work() == len(RAW)
    answers = senders.collect(now_mono_ns=3000)
    assert [tx.sender for tx in burst] == WHO
    assert [(a.tx.hash, a.sender) for a in answers] == [(tx.hash, tx.sender) for tx in burst]
    stats = senders.stats()
    assert (stats["queued"], stats["recovered"], stats["waiting"]) == (145, 145, 0)
    assert (stats["waiting_most"], stats["wait_ns"], stats["wait_most_ns"]) == (145, 290_000, 2000)
    assert stats["work_ns"] > 145 * 1000
    assert senders._bursts == {}


def test_what_is_known_is_not_asked_again(lane):
    senders, first = joined(lane), decoded()
    senders.submit(first, now_mono_ns=1)
    lane.work()
    senders.collect(now_mono_ns=2)
    again = decoded()
    assert senders.submit(again, now_mono_ns=3) == 0
    assert [tx.sender for tx in again] == WHO
    assert senders.stats()["hits"] == 145
    assert senders.lookup(again[0].hash) == WHO[0]
    assert senders.lookup(bytes(32)) is None


def test_what_a_worker_has_been_asked_for_is_not_asked_twice(lane):
    senders = joined(lane)
    first, second, third = decoded(), decoded(RAW[10:20]), decoded()
    assert senders.submit(first, now_mono_ns=1) == 145
    assert senders.submit(second, now_mono_ns=2) == 10
    assert senders.submit(third, now_mono_ns=3) == 145
    assert lane.work() == 145
    answers = senders.collect(now_mono_ns=4)
    assert len(answers) == 300
    assert all(answer.sender == answer.tx.sender is not None for answer in answers)
    assert [tx.sender for tx in first] == [tx.sender for tx in third] == WHO
    assert [tx.sender for tx in second] == WHO[10:20]
    stats = senders.stats()
    assert (stats["queued"], stats["recovered"], stats["shared"]) == (145, 145, 155)
    assert (stats["waiting"], stats["strange"], stats["evicted"]) == (0, 0, 0)
    assert senders._bursts == {}


def test_a_native_loop_that_asks_twice_waits_once(lane):
    """It keeps no records: only the cache is to learn."""
    senders, burst = joined(lane), decoded(RAW[:5])
    for _ in range(3):
        lib.bw_senders_submit(senders.native, burst.native_messages, burst.records, 5, 0, 0, 1)
    assert lane.work() == 5
    assert senders.collect(now_mono_ns=2) == []
    assert senders.stats()["shared"] == 10
    assert [senders.lookup(tx.hash) for tx in burst] == WHO[:5]


@pytest.mark.parametrize("room", [1, 2, 3, 7])
def test_more_who_wait_for_one_answer_than_there_is_room_for(lane, room):
    senders = joined(lane, waiting=24)
    bursts = [decoded(RAW[:4]) for _ in range(7)]
    assert [senders.submit(burst, now_mono_ns=1) for burst in bursts] == [4] * 6 + [0]
    assert senders.stats()["refused"] == 4
    assert lane.work() == 4
    out = ffi.new("struct bw_sender_answer[]", room)
    told = []
    while count := lib.bw_senders_collect(senders.native, out, room, 2):
        told += [(out[i].cookie, out[i].index, out[i].sender) for i in range(count)]
    assert len(told) == len(set(told)) == 24
    assert {sender for *_, sender in told} == {lib.BW_SENDER_KNOWN}
    assert [tx.sender for burst in bursts[:6] for tx in burst] == WHO[:4] * 6
    assert senders.stats()["waiting"] == senders.stats()["strange"] == 0
    again = senders.submit(decoded(RAW[4:30]), now_mono_ns=3)
    assert again == 24, "a place was lost"


def test_a_lane_that_is_dropped_is_not_touched_and_its_questions_are_let_go(lane):
    senders, burst = joined(lane), decoded(RAW[:20])
    second = Lane()
    assert senders.add_lane(second.jobs.handle, second.results.handle) == 1
    assert senders.submit(burst, now_mono_ns=1) == 20
    assert senders.submit(decoded(RAW[:20]), now_mono_ns=1) == 20
    senders.drop_lane(1)
    second.work()
    second.close()
    lane.work()
    assert len(senders.collect(now_mono_ns=2)) == 20
    assert senders.stats()["lost"] == 10
    assert (senders.stats()["waiting"], senders._bursts) == (0, {})
    assert senders.submit(decoded(RAW[:20]), now_mono_ns=3) == 10
    lane.work()
    assert len(senders.collect(now_mono_ns=4)) == 10
    senders.drop_lane(0)
    assert senders.submit(decoded(RAW[20:]), now_mono_ns=5) == 0
    assert senders.collect(now_mono_ns=6) == []
    assert senders.add_lane(lane.jobs.handle, lane.results.handle) == 0


def test_answers_that_cannot_be_read_give_the_lane_up(lane):
    """Its questions are told to be lost, and nobody waits for ever."""
    senders, burst = joined(lane), decoded(RAW[:9])
    assert senders.submit(burst, now_mono_ns=1) == 9
    lane.work()
    ring, first = lane.answers.handle.ring, lane.results.handle.next
    ring.slots[first % ring.geometry.depth].seq = first + 7
    assert senders.collect(now_mono_ns=2) == []
    assert senders.collect(now_mono_ns=2) == []
    stats = senders.stats()
    assert (stats["damaged"], stats["lost"], stats["waiting"]) == (1, 9, 0)
    assert senders._bursts == {}


def test_a_signature_of_nobody_is_told_and_remembered(lane):
    senders = joined(lane)
    bad = nobody(RAW[3])
    burst = decoded([bad, RAW[3], RAW[3][:-1]])  # the last is refused by the decoder
    assert senders.submit(burst, now_mono_ns=1) == 2
    lane.work()
    assert [a.sender for a in senders.collect(now_mono_ns=2)] == [None, WHO[3]]
    assert burst[0].sender is None
    assert senders.lookup(burst[0].hash) == b""
    assert senders.submit(decoded([bad]), now_mono_ns=3) == 0
    assert (senders.stats()["nobody"], senders.stats()["recovered"]) == (1, 1)


def test_the_key_of_the_cache_is_not_what_was_signed(lane):
    """Another signature under the same signed bytes names another sender, and hits nothing."""
    senders = joined(lane)
    tx = decoded([RAW[0]])[0]
    senders.submit(decoded([RAW[0]]), now_mono_ns=1)
    lane.work()
    senders.collect(now_mono_ns=2)
    forged = bytearray(RAW[0])
    at = bytes(forged).index(tx.s.to_bytes(32, "big"))
    forged[at + 31] ^= 1
    other = decoded([bytes(forged)])
    assert other[0].signing_hash() == tx.signing_hash()
    assert senders.submit(other, now_mono_ns=3) == 1
    lane.work()
    (answer,) = senders.collect(now_mono_ns=4)
    assert answer.sender != WHO[0]


def test_full_rings_refuse_and_say_so(lane):
    small = Lane(depth=16)
    senders = joined(small)
    burst = decoded()
    asked = senders.submit(burst, now_mono_ns=1)
    assert asked == 16
    assert senders.stats()["refused"] == 145 - asked
    small.work()
    assert len(senders.collect(now_mono_ns=2)) == asked
    assert senders.submit(burst, now_mono_ns=3) == 16  # those without a sender, from the front
    waiting = joined(lane, waiting=10)
    assert waiting.submit(decoded(), now_mono_ns=1) == 10
    assert waiting.stats()["refused"] == 135
    small.close()


def test_answers_that_find_no_room_wait(lane):
    """A worker whose results nobody collects stops, and goes on where it stood."""
    small = Lane(depth=16)
    senders = joined(small)
    burst = decoded()
    for turn in range(3):
        senders.submit(burst, now_mono_ns=turn)
        small.work()  # 16 results: full
        assert small.work() == 0
        senders.submit(burst, now_mono_ns=turn)
        assert small.work() == 0
        assert len(senders.collect(now_mono_ns=turn)) == 16 + 16  # asked for twice
        assert small.work() == 16
        assert len(senders.collect(now_mono_ns=turn)) == 16
    known = [tx.sender for tx in burst if tx.sender]
    assert known == WHO[: 3 * 32]
    assert senders.stats()["recovered"] == senders.stats()["queued"] == 3 * 32
    small.close()


def test_the_least_busy_lane_is_asked(lane):
    second = Lane()
    senders = joined(lane)
    senders.add_lane(second.jobs.handle, second.results.handle)
    senders.submit(decoded(RAW[:10]), now_mono_ns=1)
    assert (senders.stats()["waiting_0"], senders.stats()["waiting_1"]) == (5, 5)
    second.work()
    senders.collect(now_mono_ns=2)
    senders.submit(decoded(RAW[10:15]), now_mono_ns=3)
    assert (senders.stats()["waiting_0"], senders.stats()["waiting_1"]) == (5, 5)
    lane.work()
    second.work()
    assert len(senders.collect(now_mono_ns=4)) == 10
    second.close()


def test_a_worker_that_dies_is_succeeded_and_repeats_itself(lane):
    senders, burst = joined(lane), decoded(RAW[:20])
    senders.submit(burst, now_mono_ns=1)
    work(lane.asked.handle, lane.answers.handle)  # eight of them
    lane.asked.close()  # what the kernel does for one that is killed: the seat is kept
    lane.asked = RingConsumer.open(lane.jobs.fd, seat=SEAT)
    assert lane.work() == 12
    assert len(senders.collect(now_mono_ns=2)) == 20
    assert [tx.sender for tx in burst] == WHO[:20]


@pytest.mark.parametrize(
    "answer",
    [
        {"user": 1 << 32, "payload": bytes(20)},  # repeated: the second time nobody waits
        {"user": 7 << 32 | 3, "payload": bytes(20)},
        {"user": 1 << 32 | 0xFFFFFFFF, "payload": bytes(20)},
        {"user": 1 << 32, "payload": bytes(19)},
    ],
)
def test_strange_answers_are_counted(lane, answer):
    senders, burst = joined(lane), decoded(RAW[:1])
    senders.submit(burst, now_mono_ns=1)
    lane.work()
    lane.answers.publish(answer["payload"], user=answer["user"])
    (told,) = senders.collect(now_mono_ns=2)
    assert told.sender == WHO[0]
    assert senders.stats()["strange"] == 1


def test_a_job_that_nobody_submits_stops_the_worker(lane):
    lane.jobs.publish(bytes(63))
    with pytest.raises(BarewireError, match="damaged ring of jobs"):
        work(lane.asked.handle, lane.answers.handle)


def test_the_cache_forgets_the_oldest(lane):
    senders = joined(lane, entries=8)
    for raw in RAW[:9]:
        senders.submit(decoded([raw]), now_mono_ns=1)
        lane.work()
        senders.collect(now_mono_ns=2)
    hashes = [tx.hash for tx in decoded(RAW[:9])]
    assert [senders.lookup(h) for h in hashes] == [None, *WHO[1:9]]
    assert senders.stats()["evicted"] == 1


@pytest.mark.parametrize("sizes", [{"entries": 7}, {"entries": 12}, {"waiting": 0}])
def test_sizes_out_of_range(sizes):
    with pytest.raises(BarewireError, match="entries"):
        Senders(**sizes)


def collected(senders, pool, count, seconds=60):
    answers, until = [], time.monotonic() + seconds
    while len(answers) < count:
        assert time.monotonic() < until, f"{len(answers)} of {count}: {senders.stats()}"
        pool.check()
        answers += senders.collect(now_mono_ns=time.monotonic_ns())
        time.sleep(0.001)
    return answers


def test_processes_answer_and_the_killed_are_replaced(monkeypatch):
    monkeypatch.setattr("appliance.sender_pool._CALM_NS", 0)
    senders, told = Senders(entries=8), []  # forgets nearly all, so that it has to ask again
    with SenderPool(senders, workers=2, tell=told.append) as pool:
        first, second = decoded(), decoded()
        collected(senders, pool, senders.submit(first, now_mono_ns=time.monotonic_ns()))
        assert [tx.sender for tx in first] == WHO
        before = pool.pids
        # killed with questions that it did not answer: they are its successor's
        os.kill(before[1], signal.SIGSTOP)
        asked = senders.submit(second, now_mono_ns=time.monotonic_ns())
        assert senders.stats()["waiting_1"] > 60
        os.kill(before[1], signal.SIGKILL)
        collected(senders, pool, asked)
        assert [tx.sender for tx in second] == WHO
        assert pool.deaths == 1
        assert pool.pids[0] == before[0]
        assert pool.pids[1] != before[1]
        (sentence,) = told
        assert f"sender worker 1 (process {before[1]}) died with status -9;" in sentence


def test_a_pool_that_was_closed_answers_nothing_and_harms_nothing():
    senders = Senders()
    with SenderPool(senders, workers=2, tell=print) as pool:
        for pid in pool.pids:
            os.kill(pid, signal.SIGSTOP)
        senders.submit(decoded(), now_mono_ns=1)
        for pid in pool.pids:
            os.kill(pid, signal.SIGKILL)
    assert senders.collect(now_mono_ns=2) == []
    assert senders.submit(decoded(), now_mono_ns=3) == 0
    assert senders.stats()["lost"] + senders.stats()["recovered"] == 145
    with SenderPool(senders, tell=print) as pool:
        asked = senders.submit(decoded(RAW[:9]), now_mono_ns=4)
        assert len(collected(senders, pool, asked)) == asked


def test_workers_end_with_the_process_that_asks():
    code = (
        "import os, sys\n"
        "from appliance.sender_pool import SenderPool\n"
        "from barewire.mempool.senders import Senders\n"
        "pool = SenderPool(Senders(), workers=2, tell=print)\n"
        "print(*pool.pids, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60
    )
    left = [int(pid) for pid in done.stdout.split()]
    assert len(left) == 2
    until = time.monotonic() + 30
    while any(Path(f"/proc/{pid}/cmdline").exists() for pid in left):
        if all(_state(pid) in "ZX" for pid in left):
            break
        assert time.monotonic() < until
        time.sleep(0.01)


def _state(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


@pytest.mark.parametrize(("workers", "cpus"), [(0, ()), (2, (0,))])
def test_a_pool_that_makes_no_sense(workers, cpus):
    with pytest.raises(BarewireError, match="sender workers"):
        SenderPool(Senders(), workers=workers, cpus=cpus, tell=print)
