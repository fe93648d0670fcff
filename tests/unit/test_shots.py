"""Shots: every outcome, what each changes, and that a group or a race never fires two."""

import itertools
import mmap
import random
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barewire import BarewireError
from barewire._native import ffi, lib
from barewire.execution.shots import EVENTS_KEPT, OUTCOMES, Caps, ShotBook
from tests.transactions import envelope, make

SECOND = 10**9
ROOMY = Caps(per_second=1000, total=10**6, total_value_wei=2**256 - 1, max_fee_wei=2**256 - 1)


class Endpoint:
    """A datagram endpoint that keeps what it is told to send."""

    def __init__(self, *, unknown_peers=(), commit=0, flush=0, withdraw=0):
        self.expiries = []
        self.unknown_peers = set(unknown_peers)
        self.sent, self.flushes, self.given_back, self.withdrawals = [], 0, 0, 0
        self.commit_result, self.flush_result, self.withdraw_result = commit, flush, withdraw
        self._room = self._peer = None
        self._callbacks = [
            ffi.callback("int(void *, struct dpb_datagram *, int)", lambda *_: 0),
            ffi.callback("void(void *, const struct dpb_datagram *, int)", lambda *_: None),
            ffi.callback("uint8_t *(void *, int, uint32_t)", self._reserve),
            ffi.callback("int(void *, uint32_t)", self._commit),
            ffi.callback("int(void *)", self._flush),
            ffi.callback("int(void *)", self._withdraw),
            ffi.callback("void(void *, uint64_t)", lambda _, at: self.expiries.append(at)),
        ]
        names = ("recv", "release", "reserve", "commit", "flush", "withdraw", "expires")
        self._ops = ffi.new(
            "struct dpb_datagram_ops *",
            {"abi": lib.DPB_DATAGRAM_ABI, **dict(zip(names, self._callbacks, strict=True))},
        )
        self.ref = ffi.new("struct dpb_datagram_ref *", {"ops": self._ops})

    def _reserve(self, _endpoint, peer, length):
        assert self._room is None, "one room at a time"
        if peer in self.unknown_peers:
            return ffi.NULL
        self._room, self._peer = ffi.new("uint8_t[]", length), peer
        return self._room

    def _commit(self, _endpoint, length):
        assert self._room is not None
        if length == 0:
            self.given_back += 1
        elif self.commit_result == 0:
            self.sent.append((self._peer, bytes(self._room)[:length]))
        self._room = None
        return self.commit_result

    def _flush(self, _endpoint):
        self.flushes += 1
        return self.flush_result

    def _withdraw(self, _endpoint):
        self.withdrawals += 1
        return self.withdraw_result


def cause(*, trusted=True, sender=False, **fields):
    flags = (lib.BW_TX_TRUSTED if trusted else 0) | (lib.BW_TX_SENDER if sender else 0)
    return ffi.new("struct bw_tx *", {"flags": flags, **fields})


def fire(book, name, endpoint, *, now=0, tx=None, trigger=0, any_origin=0):
    number = book.numbers[name] if isinstance(name, str) else name
    tx = tx or cause()
    fired = lib.bw_shots_fire(book.native, number, trigger, tx, any_origin, now, endpoint.ref)
    return OUTCOMES[fired]


def book_of(caps=ROOMY, **settings):
    return ShotBook(caps, unjournalled=True, **settings)


def arm(book, name="s", payload=b"signed", **settings):
    settings = {
        "peers": [3],
        "expires_mono_ns": 100 * SECOND,
        "value_wei": 0,
        "max_fee_wei": 0,
    } | settings
    return book.arm(name, payload, **settings)


def test_fires_once_to_every_peer():
    out = Endpoint()
    with book_of() as book:
        arm(book, peers=[3, 1], cookie=77)
        assert book.status("s").state == "armed"
        assert fire(book, "s", out, now=5) == "fired"
        assert out.sent == [(3, b"signed"), (1, b"signed")]
        assert out.flushes == 1
        assert fire(book, "s", out, now=6) == "already_fired"
        assert len(out.sent) == 2
        status = book.status("s")
        assert (status.state, status.fired_mono_ns, status.asked) == ("fired", 5, 2)
        assert status.last_outcome == "already_fired"
        assert [(e.shot, e.outcome, e.peers_sent, e.cookie) for e in book.events()] == [
            ("s", "fired", 2, 77),
            ("s", "already_fired", 0, 0),
        ]
        assert {k: v for k, v in book.counts().items() if v} == {"fired": 1, "already_fired": 1}


def refused(book, out, outcome, **how):
    """The shot does not fire, for this reason, and stays as it was."""
    before = book.status("s").state
    assert fire(book, "s", out, **how) == outcome
    assert not out.sent
    assert not out.flushes
    status = book.status("s")
    assert (status.state, status.last_outcome) == (before, outcome)
    assert book.events()[-1].outcome == outcome
    assert book.counts()[outcome]


def test_empty_and_unknown_numbers():
    with book_of(capacity=4) as book:
        number = book.declare("s")
        assert fire(book, number, Endpoint()) == "empty"
        assert fire(book, 4, Endpoint()) == "empty"
        assert fire(book, lib.BW_NO_SHOT, Endpoint()) == "empty"
        assert book.counts()["empty"] == 3


def test_disarmed_and_rearmed():
    out = Endpoint()
    with book_of() as book:
        arm(book)
        assert book.disarm("s")
        assert not book.disarm("s")
        assert not book.disarm("nobody")
        refused(book, out, "disarmed")
        book.rearm("s", expires_mono_ns=9)
        assert fire(book, "s", out, now=8) == "fired"
        with pytest.raises(BarewireError, match="bytes are spent"):
            book.rearm("s", expires_mono_ns=9)
        arm(book, payload=b"another")
        assert fire(book, "s", out) == "fired"
        assert out.sent[-1] == (3, b"another")


def test_halted_by_a_word_in_shared_memory():
    out = Endpoint()
    shared = mmap.mmap(-1, 4096)
    with book_of(halt_word=memoryview(shared)[8:16]) as book:
        arm(book)
        shared[8:16] = (1).to_bytes(8, "little")
        assert book.halted == 1
        refused(book, out, "halted")
        book.resume()
        assert fire(book, "s", out) == "fired"
        book.halt()
        assert shared[8:16] == (1).to_bytes(8, "little")


def test_expiry_is_exclusive():
    out = Endpoint()
    with book_of() as book:
        arm(book, expires_mono_ns=10)
        refused(book, out, "expired", now=10)
        assert fire(book, "s", out, now=9) == "fired"


def test_bait_on_the_wire():
    out = Endpoint()
    with book_of() as book:
        arm(book)
        refused(book, out, "untrusted", tx=cause(trusted=False))
        assert fire(book, "s", out, tx=cause(trusted=False, sender=True)) == "fired"


def test_rate_cap_holds_in_any_second():
    out = Endpoint()
    caps = Caps(per_second=2, total=100, total_value_wei=0, max_fee_wei=0)
    with book_of(caps) as book:
        outcomes = []
        for i, now in enumerate([0, 900, 1000, 1899, 1900, 1999, 2000, 2900]):
            arm(book, f"s{i}")
            outcomes.append(fire(book, f"s{i}", out, now=now * SECOND // 1000))
        assert outcomes == [
            "fired",  # 0
            "fired",  # 900
            "fired",  # 1000: that at 0 is a second ago
            "cap_rate",
            "fired",  # 1900
            "cap_rate",
            "fired",  # 2000
            "fired",  # 2900
        ]


def test_a_clock_that_runs_back_does_not_open_the_rate_cap():
    caps = Caps(per_second=1, total=100, total_value_wei=0, max_fee_wei=0)
    with book_of(caps) as book:
        arm(book)
        arm(book, "later")
        assert fire(book, "s", Endpoint(), now=5 * SECOND) == "fired"
        assert fire(book, "later", Endpoint(), now=3 * SECOND) == "cap_rate"


def test_total_cap():
    caps = Caps(per_second=100, total=1, total_value_wei=0, max_fee_wei=0)
    with book_of(caps) as book:
        arm(book, "first")
        assert fire(book, "first", Endpoint()) == "fired"
        arm(book)
        refused(book, Endpoint(), "cap_total")


def test_value_cap_adds_up_and_does_not_wrap():
    most = 2**256 - 1
    caps = Caps(per_second=100, total=100, total_value_wei=most, max_fee_wei=0)
    with book_of(caps) as book:
        arm(book, "first", value_wei=most - 5)
        assert fire(book, "first", Endpoint()) == "fired"
        arm(book, value_wei=6)
        refused(book, Endpoint(), "cap_value")
        book.disarm("s")
        arm(book, value_wei=5)
        assert fire(book, "s", Endpoint()) == "fired"


def test_a_fee_above_the_cap_is_not_even_armed():
    caps = Caps(per_second=1, total=1, total_value_wei=0, max_fee_wei=10**16)
    with book_of(caps) as book:
        with pytest.raises(BarewireError, match=r"max_fee_wei = 10000000000000001 is out of range"):
            arm(book, max_fee_wei=10**16 + 1)
        arm(book, max_fee_wei=10**16)


def test_no_room_keeps_it_armed_and_its_group_open():
    out = Endpoint(unknown_peers=[3])
    with book_of() as book:
        arm(book, group="g")
        refused(book, out, "no_room")
        out.unknown_peers.clear()
        assert fire(book, "s", out) == "fired"


def test_a_peer_without_room_does_not_hold_up_the_others():
    out = Endpoint(unknown_peers=[3, 5])
    with book_of() as book:
        arm(book, peers=[3, 4, 5, 6])
        assert fire(book, "s", out) == "fired"
        assert [peer for peer, _ in out.sent] == [4, 6]
        assert book.events()[-1].peers_sent == 2


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_what_finds_no_room_at_the_instant_is_taken_back(lost):
    out = Endpoint(flush=-11, withdraw=lost)  # EAGAIN: it would leave when there is room
    with book_of() as book:
        arm(book, peers=[3, 1])
        assert fire(book, "s", out) == ("send_failed" if lost == 2 else "fired")
        assert out.withdrawals == 1
        assert book.events()[-1].peers_sent == 2 - lost


@pytest.mark.parametrize(("refused", "sent"), [(1, 1), (2, 0), (9, 0)])
def test_peers_of_which_the_endpoint_refused_the_datagram_are_not_counted(refused, sent):
    out = Endpoint(flush=refused)
    with book_of() as book:
        arm(book, peers=[3, 1])
        assert fire(book, "s", out) == ("fired" if sent else "send_failed")
        assert book.events()[-1].peers_sent == sent
        assert not out.withdrawals


@pytest.mark.parametrize(
    "how", [{"commit": -105}, {"flush": -9}, {"flush": 1}, {"flush": -11, "withdraw": 1}]
)
def test_a_failing_endpoint_spends_the_shot(how):
    out = Endpoint(**how)
    with book_of() as book:
        arm(book, group="g")
        assert fire(book, "s", out) == "send_failed"
        assert fire(book, "s", Endpoint()) == "already_fired"
        assert book.status("s").group_closed


def test_one_of_a_group():
    out = Endpoint()
    with book_of() as book:
        for name in "abc":
            arm(book, name, payload=name.encode(), group="g")
        arm(book, "other", group="h")
        assert fire(book, "b", out) == "fired"
        assert fire(book, "a", out) == "group"
        assert fire(book, "c", out) == "group"
        assert out.sent == [(3, b"b")]
        assert book.status("a").group_closed
        with pytest.raises(BarewireError, match="group 'g' has fired"):
            arm(book, "d", group="g")
        with pytest.raises(BarewireError, match="armed shots, which would come alive"):
            book.settle_group("g")
        book.disarm("a")
        book.disarm("c")
        book.settle_group("g")
        arm(book, "d", group="g")
        assert fire(book, "d", out) == "fired"
        assert fire(book, "other", out) == "fired"
        with pytest.raises(BarewireError, match="'nobody' is not a group"):
            book.settle_group("nobody")


class Journal:
    """A journal in Python; a real one is native."""

    def __init__(self, result=0):
        self.result = result
        self.seen = []
        self.native = ffi.callback("bw_shot_journal_fn", self._take)

    def _take(self, _context, shot, spec, tx, now):
        self.seen.append((shot, bytes(ffi.buffer(spec.bytes, spec.len)), tx.source, now))
        return self.result


def test_journalled_before_it_leaves():
    journal, out = Journal(), Endpoint()
    with ShotBook(ROOMY, journal=journal.native) as book:
        number = arm(book)
        arm(book, "t")
        refused(book, out, "expired", now=2**60)
        assert not journal.seen
        assert fire(book, "s", out, now=4, tx=cause(source=9)) == "fired"
        assert journal.seen == [(number, b"signed", 9, 4)]


def test_a_journal_that_refuses_halts_everything():
    journal, out = Journal(-28), Endpoint()
    with ShotBook(ROOMY, journal=journal.native) as book:
        arm(book, group="g")
        arm(book, "t")
        refused(book, out, "journal")
        assert out.given_back == 1
        assert book.halted == lib.BW_HALT_JOURNAL
        assert fire(book, "t", out) == "halted"
        journal.result = 0
        book.resume()
        assert fire(book, "s", out) == "fired"


def send(book, endpoint, payload=b"bytes", *, now=0, **more):
    return book.send(payload, peer=3, out=endpoint.ref, now_mono_ns=now, **more)


def test_a_send_does_not_expire_whatever_its_caller_left_in_that_field():
    out = Endpoint()
    with book_of() as book:
        arm(book, expires_mono_ns=7)
        assert fire(book, "s", out) == "fired"
        payload = ffi.from_buffer(b"bytes")
        spec = {"bytes": ffi.cast("uint8_t *", payload), "len": 5, "expires_mono_ns": 1}
        one = ffi.new("struct bw_shot_spec *", spec)
        assert lib.bw_shots_send(book.native, one, ffi.NULL, 2, out.ref) == lib.BW_SHOT_FIRED
        assert out.expiries == [7, 0]


def test_sends_and_shots_are_under_the_same_caps():
    caps = Caps(per_second=2, total=3, total_value_wei=9, max_fee_wei=5)
    out = Endpoint()
    with book_of(caps) as book:
        arm(book)
        arm(book, "later")
        assert fire(book, "s", out, now=0) == "fired"
        assert send(book, out, now=SECOND // 2, max_fee_wei=6) == "cap_fee"
        assert send(book, out, now=SECOND // 2, value_wei=10) == "cap_value"
        assert send(book, out, now=SECOND // 2, value_wei=9, max_fee_wei=5) == "fired"
        assert fire(book, "later", out, now=SECOND // 2) == "cap_rate"
        assert send(book, out, now=SECOND // 2) == "cap_rate"
        assert send(book, out, now=2 * SECOND, value_wei=1) == "cap_value"
        assert send(book, out, now=2 * SECOND) == "fired"
        assert fire(book, "later", out, now=4 * SECOND) == "cap_total"
        assert send(book, out, now=4 * SECOND) == "cap_total"
        assert out.sent == [(3, b"signed"), (3, b"bytes"), (3, b"bytes")]
        assert {name: n for name, n in book.send_counts().items() if n} == {
            "fired": 2,
            "cap_fee": 1,
            "cap_value": 2,
            "cap_rate": 1,
            "cap_total": 1,
        }


def test_a_send_that_finds_no_room_at_the_instant_is_taken_back():
    out = Endpoint(flush=-11, withdraw=1)
    with book_of() as book:
        assert (send(book, out), out.withdrawals) == ("send_failed", 1)


def test_a_send_obeys_the_halt_word_the_endpoint_and_the_journal():
    journal, out = Journal(), Endpoint()
    with ShotBook(ROOMY, journal=journal.native) as book:
        book.halt()
        assert send(book, out) == "halted"
        book.resume()
        assert send(book, Endpoint(unknown_peers=[3])) == "no_room"
        assert send(book, Endpoint(flush=-100), cause=cause()) == "send_failed"
        assert not out.sent
        assert send(book, out, cause=cause(source=9), now=4) == "fired"
        assert journal.seen[-1] == (lib.BW_SENT_DIRECTLY, b"bytes", 9, 4)
        journal.result = -28
        assert send(book, out, cause=cause()) == "journal"
        assert send(book, out, cause=cause()) == "halted"
        assert (len(out.sent), out.given_back) == (1, 1)
        for wrong in ({"payload": b""}, {"payload": bytes(65508)}, {"value_wei": -1}):
            with pytest.raises(BarewireError, match="out of range"):
                send(book, out, **wrong)


def test_a_transaction_spends_what_its_bytes_say():
    """Of every type, other chains' too: value, gas x fee cap, blob gas x blob fee cap."""
    rng = random.Random(10)
    for n, kind, chain_id in itertools.product(range(40), range(5), (1, 137)):
        fields = make(rng, kind, chain_id)
        raw = envelope(kind, fields)
        fee = fields["gas"] * fields["cap"]
        if kind == 3:
            fee += len(fields["blobs"]) * 131072 * fields["blob_cap"]
        value, paid = ffi.new("uint64_t[4]"), ffi.new("uint64_t[4]")
        lib.bw_spends(raw, len(raw), value, paid)
        read = [sum(word << 64 * i for i, word in enumerate(one)) for one in (value, paid)]
        assert read == [fields["value"], min(fee, 2**256 - 1)], (n, kind)
        most = ffi.new("uint64_t[4]", [2**64 - 1] * 4)
        lib.bw_spends(raw, len(raw), most, most)  # a declaration that is more stands
        assert list(most) == [2**64 - 1] * 4


def test_what_the_bytes_spend_counts_against_the_caps_whatever_was_declared():
    fields = make(random.Random(1), 2) | {"value": 7, "gas": 50_000, "cap": 3, "tip": 1}
    raw = envelope(2, fields)
    out = Endpoint()
    with book_of(Caps(per_second=9, total=9, total_value_wei=20, max_fee_wei=150_000)) as book:
        assert send(book, out, raw) == "fired"
        arm(book, payload=raw)
        assert fire(book, "s", out) == "fired"
        assert send(book, out, raw) == "cap_value"  # 21 in all
        assert len(out.sent) == 2
    with book_of(Caps(per_second=9, total=9, total_value_wei=20, max_fee_wei=149_999)) as book:
        assert send(book, out, raw) == "cap_fee"
        with pytest.raises(BarewireError, match="may pay more for gas than 149999 wei"):
            arm(book, payload=raw)


def test_without_a_journal_only_by_permission():
    with pytest.raises(BarewireError, match="no journal") as caught:
        ShotBook(ROOMY)
    assert "unjournalled = true" in caught.value.hint


def test_events_know_the_hash_afterwards_and_why_finds_it():
    first, second = bytes([1] * 32), bytes([2] * 32)
    with book_of() as book:
        arm(book)
        next_event = lib.bw_shots_next_event(book.native)
        fire(book, "s", Endpoint(), tx=cause(source=4, arrival_ns=99, arrival_clock=1), trigger=7)
        fire(book, "s", Endpoint())
        fire(book, "s", Endpoint(), tx=cause(hash=second, flags=lib.BW_TX_HASHED))
        lib.bw_shots_note_hash(book.native, next_event, 2, first)
        assert [e.outcome for e in book.why(first)] == ["fired", "already_fired"]
        assert [e.outcome for e in book.why(second)] == ["already_fired"]
        fired = book.why(first)[0]
        assert (fired.seq, fired.trigger, fired.cause_source) == (0, 7, 4)
        assert (fired.cause_arrival_ns, fired.cause_arrival_clock) == (99, 1)


def test_old_events_are_overwritten_and_left_out():
    with book_of() as book:
        number = book.declare("s")
        out, tx = Endpoint(), cause()
        for now in range(EVENTS_KEPT + 10):
            lib.bw_shots_fire(book.native, number, 0, tx, 0, now, out.ref)
        events = book.events()
        assert [e.seq for e in events] == list(range(10, EVENTS_KEPT + 10))
        assert all(e.at_mono_ns == e.seq for e in events)
        lib.bw_shots_note_hash(book.native, 3, 1, bytes([5] * 32))
        assert not book.why(bytes([5] * 32))
        assert [e.seq for e in book.events(EVENTS_KEPT + 8)] == [EVENTS_KEPT + 8, EVENTS_KEPT + 9]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"payload": b""}, "payload bytes = 0"),
        ({"payload": bytes(65508)}, "payload bytes = 65508"),
        ({"peers": []}, "peers = 0"),
        ({"peers": [1] * 5}, "peers = 5"),
        ({"peers": [-1]}, "peer = -1"),
        ({"value_wei": -1}, "value_wei = -1"),
        ({"value_wei": 2**256}, "value_wei = "),
        ({"cookie": 2**64}, "cookie = "),
    ],
)
def test_what_cannot_be_armed_is_named(settings, words):
    with book_of() as book, pytest.raises(BarewireError) as caught:
        arm(book, **settings)
    assert words in caught.value.message
    assert caught.value.hint.startswith("allowed: ")


def test_armed_twice_and_full():
    with book_of(capacity=1) as book:
        arm(book)
        with pytest.raises(BarewireError, match="armed already"):
            arm(book)
        with pytest.raises(BarewireError, match="no room for 't'"):
            arm(book, "t")
        with pytest.raises(BarewireError, match="'t' is not a shot"):
            book.status("t")


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["arm", "disarm", "fire", "halt", "resume"]),
            st.integers(0, 3),  # shot
            st.integers(0, 2),  # group; 2: none
            st.booleans(),  # trusted
        ),
        max_size=60,
    )
)
def test_equals_a_model(steps):
    """The book against a dictionary: nothing fires that should not, everything does that should."""
    out = Endpoint()
    state, groups, closed, halted = {}, {}, set(), False
    expected_sent = []
    with book_of() as book:
        for number, (step, shot, group, trusted) in enumerate(steps):
            name = f"s{shot}"
            if step == "arm":
                group_name = None if group == 2 else f"g{group}"
                may = state.get(shot) != "armed" and group_name not in closed
                try:
                    arm(book, name, payload=str(number).encode(), group=group_name)
                    assert may
                    state[shot], groups[shot] = "armed", group_name
                    payload = (3, str(number).encode())
                    groups[shot, "payload"] = payload
                except BarewireError:
                    assert not may
            elif step == "disarm":
                assert book.disarm(name) == (state.get(shot) == "armed")
                if state.get(shot) == "armed":
                    state[shot] = "disarmed"
            elif step == "fire":
                number = book.declare(name)
                outcome = fire(book, number, out, tx=cause(trusted=trusted))
                if shot not in state:
                    assert outcome == "empty"
                elif state[shot] != "armed":
                    assert outcome == {"fired": "already_fired"}.get(state[shot], state[shot])
                elif halted:
                    assert outcome == "halted"
                elif groups[shot] in closed:
                    assert outcome == "group"
                elif not trusted:
                    assert outcome == "untrusted"
                else:
                    assert outcome == "fired"
                    state[shot] = "fired"
                    closed |= {groups[shot]} - {None}
                    expected_sent.append(groups[shot, "payload"])
            else:
                halted = step == "halt"
                book.halt() if halted else book.resume()
        assert out.sent == expected_sent


def test_arming_and_disarming_beside_a_firing_thread():
    """A disarm that says True means: it did not fire and will not."""
    out = Endpoint()
    stop = threading.Event()
    with book_of() as book:
        number = book.declare("s")

        def shoot() -> None:
            tx = cause()
            while not stop.is_set():
                lib.bw_shots_fire(book.native, number, 0, tx, 0, 0, out.ref)

        thread = threading.Thread(target=shoot)
        thread.start()
        disarmed = 0
        for i in range(400):
            arm(book, payload=str(i).encode())
            if book.disarm("s"):
                disarmed += 1
                assert (3, str(i).encode()) not in out.sent
        stop.set()
        thread.join()
        payloads = [payload for _, payload in out.sent]
        assert len(payloads) == len(set(payloads)) == 400 - disarmed
