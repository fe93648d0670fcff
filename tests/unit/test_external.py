"""The keeper of a key elsewhere: its policy, its socket, its rings."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from eth_account import Account
from eth_keys import keys
from hypothesis import given
from hypothesis import strategies as st

from appliance.signing import RingExchange, RingKeeper, SocketExchange, SocketKeeper
from barewire.errors import BarewireError
from barewire.execution import rlp
from barewire.execution.external import REFUSAL, ExternalSigner, Keeper, Policy
from barewire.execution.keys import Key
from barewire.execution.signer import Rfc6979Signer
from barewire.execution.template import AccessEntry, Caps, Template, sign_authorization
from dpdk_bindings.ring import remove_ring
from tests.examples import examples

SECRET = b"\x51" * 32
ADDRESS = keys.PrivateKey(SECRET).public_key.to_canonical_address()
TARGET, OTHER = b"\x61" * 20, b"\x62" * 20
OPEN = Caps(2**64 - 1, 2**64 - 1, 2**128 - 1, 2**64 - 1)
POLICY = Policy(
    chain_ids=frozenset({1, 10}),
    targets=frozenset({TARGET}),
    value_wei=1000,
    fee_wei=21000 * 100,
    delegates=frozenset({OTHER}),
)


@pytest.fixture
def keeper() -> Iterator[Keeper]:
    with Key.from_bytes(SECRET) as key, Rfc6979Signer(key) as signer:
        yield Keeper(signer, POLICY)


def template(signer: ExternalSigner, kind: int = 2, **changed: object) -> Template:
    made: dict[str, object] = {
        "type": kind,
        "chain_id": 1,
        "to": TARGET,
        "gas": 21000,
        "caps": OPEN,
    }
    if kind == 3:
        made["blob_versioned_hashes"] = [b"\1" * 32]
    if kind == 4:
        made["authorizations"] = [sign_authorization(signer, 1, OTHER, 0)]
    return Template(signer, **{**made, **changed})  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", range(5))
def test_templates_sign_through_a_keeper(keeper, kind):
    signer = ExternalSigner(keeper.answer)
    assert signer.address == ADDRESS
    outside = template(signer, kind)
    fee = 1 if kind == 3 else 100
    raw = bytes(outside.fire(5, fee, value_wei=7))
    with Key.from_bytes(SECRET) as key, Rfc6979Signer(key) as local:
        inside = template(local, kind)  # type: ignore[arg-type]
        assert raw == bytes(inside.fire(5, fee, value_wei=7))
        assert outside.hash() == inside.hash()
    assert Account.recover_transaction(raw) == Account.from_key(SECRET).address


@pytest.mark.parametrize(
    ("made", "fired", "said"),
    [
        ({"chain_id": 2}, {}, "chain 2"),
        ({"type": 0, "chain_id": None}, {}, "for every chain"),
        ({"to": OTHER}, {}, "target 0x6262"),
        ({"to": None}, {}, "target 0x "),
        ({}, {"value_wei": 1001}, "value 1001 wei: the policy allows 1000"),
        ({}, {"fee_cap_wei": 101}, "fee of up to 2121000 wei"),
        ({"gas": 21001}, {}, "fee of up to"),
        ({"type": 3, "blob_versioned_hashes": [b"\1" * 32]}, {"blob_fee_cap_wei": 1}, "fee of up"),
    ],
)
def test_what_the_policy_refuses(keeper, made, fired, said):
    signer = ExternalSigner(keeper.answer)
    unsigned = template(signer, **made)
    with pytest.raises(BarewireError, match=said) as caught:
        unsigned.fire(**{"nonce": 0, "fee_cap_wei": 100, **fired})
    assert "external signer refuses" in caught.value.message
    assert (keeper.signed, keeper.refused) == (0, 1)


def test_hashes_and_delegations_are_refused_unless_allowed(keeper):
    signer = ExternalSigner(keeper.answer)
    with pytest.raises(BarewireError, match="bare hashes"):
        signer.sign_hash(bytes(32))
    with pytest.raises(ValueError, match="32 bytes"):
        signer.sign_hash(bytes(31))
    with pytest.raises(BarewireError, match="delegating to 0x6161"):
        sign_authorization(signer, 1, TARGET, 0)
    with pytest.raises(BarewireError, match="chain 0"):
        sign_authorization(signer, 0, OTHER, 0)
    with Key.from_bytes(SECRET) as key, Rfc6979Signer(key) as local:
        open_keeper = Keeper(local, Policy(frozenset({1}), None, 0, 0, allow_hashes=True))
        signed = ExternalSigner(open_keeper.answer).sign_hash(b"\1" * 32)
        assert signed == local.sign_hash(b"\1" * 32)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"A1",
        b"Z",
        b"H" + bytes(31),
        b"T",
        b"T\x02",
        b"T\x02\xc0",
        b"T\x09\xc0",
        b"T\xc0",
        b"T\x02\xc1",
        b"T\x05\xc1\x01",
        b"T" + rlp.encode([0, 0, 0, TARGET, 0, b"", 1, 1, 1]),
        b"T\x02" + rlp.encode([[1], 0, 0, 0, 0, TARGET, 0, b"", []]),
        b"T\x02" + rlp.encode([1, 0, 0, 0, [], TARGET, 0, b"", []]),
        b"T\x02" + rlp.encode([1, 0, 0, 0, 0, [TARGET], 0, b"", []]),
        b"T\x02" + rlp.encode([b"\0\1", 0, 0, 0, 0, TARGET, 0, b"", []]),
        b"T\x02" + b"\xc1" * 3000 + b"\xc0",
        b"T\x05" + rlp.encode([1, [], 0]),
        b"T\x05" + rlp.encode([1, OTHER, []]),
        b"T\x05" + rlp.encode([1, OTHER, 2**64]),
        b"T\x05" + rlp.encode([1, OTHER + b"x" * 130000, 0]),
        b"T\x02" + rlp.encode([1, 0, 0, b"x" * 100000, 0, TARGET, 0, b"", []]),
        b"T\x05\x01",
        b"T" + bytes(200_000),
    ],
)
def test_messages_that_are_none_are_refused_in_words(keeper, message):
    answer = keeper.answer(message)
    assert answer[:1] == b"\1"
    assert answer[1:].decode()
    assert len(answer) <= 1 + REFUSAL
    assert keeper.signed == 0


@pytest.mark.parametrize(
    ("kind", "changed", "said"),
    [
        (2, {7: []}, "rlp_kind"),
        (2, {1: b"\1" * 40}, "int_width"),
        (2, {1: b"\0"}, "int_zeros"),
        (2, {2: [1]}, "rlp_kind"),
        (2, {5: []}, "rlp_kind"),
        (2, {5: b"x" * 19}, "to_width"),
        (2, {8: [[TARGET, [b"short"]]]}, "access_shape"),
        (3, {5: b""}, "to_missing"),
        (3, {10: [b"\1"]}, "blob_hash"),
        (3, {10: [b"\2" * 32]}, "no blob, or"),
        (3, {10: []}, "no blob, or"),
        (4, {9: []}, "no authorization"),
        (2, {2: 2}, "tip is above"),
        (2, {1: 2**64 - 1}, "EIP-2681"),
        (4, {9: [[1, 2]]}, "auth_shape"),
    ],
)
def test_what_would_be_no_transaction_once_signed_is_refused(kind, changed, said):
    fields: list[rlp.Item] = [1, 0, 0, 1, 21000, TARGET, 0, b"", []]
    fields += {3: [0, [b"\1" * 32]], 4: [[[1, OTHER, 0, 0, 1, 1]]]}.get(kind, [])
    with Key.from_bytes(SECRET) as key, Rfc6979Signer(key) as signer:
        keeper = Keeper(signer, Policy(frozenset({1}), None, 10**18, 10**18))
        assert keeper.answer(b"T" + bytes([kind]) + rlp.encode(fields))[:1] == b"\0"
        for at, value in changed.items():
            fields[at] = value
        answer = keeper.answer(b"T" + bytes([kind]) + rlp.encode(fields))
    assert answer[:1] == b"\1"
    assert said in answer.decode()


LEAF = st.one_of(
    st.sampled_from([b"", b"\0", b"\1", b"\x0a", TARGET, OTHER, b"\1" * 32, b"x" * 3000]),
    st.binary(max_size=40),
)
FIELD = st.recursive(LEAF, lambda inner: st.lists(inner, max_size=4), max_leaves=8)
MESSAGE = st.one_of(
    st.binary(max_size=80),
    st.builds(
        lambda kind, fields: b"T" + kind + rlp.encode(fields),
        st.sampled_from([b"", b"\1", b"\2", b"\3", b"\4", b"\5", b"\6"]),
        st.one_of(FIELD, *(st.lists(FIELD, min_size=n, max_size=n) for n in (3, 8, 9, 10, 11))),
    ),
)


@pytest.fixture(scope="module")
def open_keeper() -> Iterator[Keeper]:
    with Key.from_bytes(SECRET) as key, Rfc6979Signer(key) as signer:
        yield Keeper(signer, Policy(frozenset({1, 10}), None, 2**256, 2**256))


@given(message=MESSAGE)
@examples(60, 2000)
def test_any_message_is_answered(open_keeper, message):
    answer = open_keeper.answer(message)
    if answer[:1] == b"\0":
        assert len(answer) in (21, 66)
    else:
        assert answer[:1] == b"\1"
        assert 1 < len(answer) <= 1 + REFUSAL


def test_any_bytes_are_answered(keeper):
    rng = random.Random(11)
    good = bytearray(b"T\x02" + rlp.encode([1, 0, 0, 100, 21000, TARGET, 0, b"data", []]))
    assert keeper.answer(bytes(good))[:1] == b"\0"
    for _ in range(3000):
        bad = bytearray(good)
        for _ in range(rng.randrange(1, 4)):
            bad[rng.randrange(len(bad))] = rng.randrange(256)
        keeper.answer(bytes(bad[: rng.randrange(len(bad) + 1)]))


def high_s(payload: bytes) -> bytes:
    """The keeper's signature with n - s, which is as valid but for EIP-2."""
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    signed = keys.PrivateKey(SECRET).sign_msg(payload)
    raw = signed.r.to_bytes(32, "big") + (order - signed.s).to_bytes(32, "big")
    return raw + bytes([1 - signed.v])


HIGH = high_s(b"\x02\xc0")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "nonsense"),
        (b"\0", "nonsense"),
        (b"\0" + bytes(64), "nonsense"),
        (b"\2" + bytes(65), "nonsense"),
        (b"\0" + bytes(65), "not of its address"),
        (b"\0" + HIGH, "high s"),
        (b"\0" + HIGH[:64] + b"\2", "no parity"),
        (b"\0" + b"\1" * 65, "not of its address"),
    ],
)
def test_a_broken_keeper_is_not_believed(answer, said):
    signer = ExternalSigner(lambda message: b"\0" + ADDRESS if message == b"A" else answer)
    with pytest.raises(BarewireError, match=said):
        signer.sign_payload(b"\x02\xc0")


# ---- the socket ----


class Running:
    """A stage that is polled by a thread, as a core would."""

    def __init__(self, poll: Callable[[], int]) -> None:
        self._stop = False
        self._thread = threading.Thread(target=self._run, args=(poll,))
        self._thread.start()

    def _run(self, poll: Callable[[], int]) -> None:
        while not self._stop:
            poll() or time.sleep(0.0005)

    def stop(self) -> None:
        self._stop = True
        self._thread.join()


def test_over_a_socket(keeper, tmp_path):
    path = tmp_path / "signer.sock"
    stage = SocketKeeper(keeper, path)
    running = Running(stage.poll)
    try:
        assert path.stat().st_mode & 0o777 == 0o600
        exchange, second = SocketExchange(path), SocketExchange(path)
        signer = ExternalSigner(exchange)
        assert template(signer).fire(0, 100)
        with pytest.raises(BarewireError, match="policy allows"):
            template(signer).fire(0, 1000)
        with pytest.raises(BarewireError, match="policy allows"):
            template(signer, access_list=[AccessEntry(bytes(20), [bytes(32)] * 3500)]).fire(0, 1000)
        assert ExternalSigner(second).address == signer.address
        second.close()
        with pytest.raises(BarewireError, match="another signer listens"):
            SocketKeeper(keeper, path)
    finally:
        running.stop()
        stage.close()
    assert not path.exists()
    with pytest.raises(BarewireError, match=r"does not answer|hung up"):
        template(signer).fire(1, 100)
    exchange.close()
    with pytest.raises(BarewireError, match="no signer at"):
        SocketExchange(path)


def test_a_socket_that_a_dead_one_left_is_replaced(keeper, tmp_path):
    path = tmp_path / "signer.sock"
    dead = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    dead.bind(str(path))
    dead.close()
    stage = SocketKeeper(keeper, path)
    stage.close()


def test_other_users_are_turned_away(keeper, tmp_path):
    path = tmp_path / "signer.sock"
    stage = SocketKeeper(keeper, path, user_ids=frozenset({os.geteuid() + 1}))
    running = Running(stage.poll)
    try:
        with pytest.raises(BarewireError, match=r"hung up|does not answer"):
            ExternalSigner(SocketExchange(path))
        assert stage.turned_away == 1
    finally:
        running.stop()
        stage.close()


def test_a_keeper_that_is_silent_is_given_up(keeper, tmp_path):
    path = tmp_path / "signer.sock"
    stage = SocketKeeper(keeper, path)
    with pytest.raises(BarewireError, match="does not answer"):
        ExternalSigner(SocketExchange(path, timeout_s=0.05))
    stage.close()


def test_connections_beyond_the_limit_are_turned_away(keeper, tmp_path):
    path = tmp_path / "signer.sock"
    stage = SocketKeeper(keeper, path)
    running = Running(stage.poll)
    with contextlib.ExitStack() as open_ones:
        open_ones.callback(stage.close)
        open_ones.callback(running.stop)

        def another() -> SocketExchange:
            exchange = SocketExchange(path)
            open_ones.callback(exchange.close)
            return exchange

        signer = ExternalSigner(another())
        idle = [another() for _ in range(63)]
        assert all(ExternalSigner(exchange).address for exchange in idle)
        with pytest.raises(BarewireError, match=r"hung up|does not answer"):
            ExternalSigner(another())
        assert stage.turned_away == 1
        assert template(signer).fire(0, 100)
        idle.pop().close()
        assert becomes_reachable(path)


def becomes_reachable(path: Path) -> bool:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        exchange = SocketExchange(path)
        try:
            return bool(ExternalSigner(exchange).address)
        except BarewireError:
            time.sleep(0.01)
        finally:
            exchange.close()
    return False


def test_no_descriptor_for_another_connection(keeper, tmp_path):
    path = tmp_path / "signer.sock"
    stage = SocketKeeper(keeper, path)
    first = SocketExchange(path)
    stage.poll()
    second = SocketExchange(path)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open("/dev/null", os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
    try:
        assert stage.poll() == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    running = Running(stage.poll)
    assert ExternalSigner(first).address == ExternalSigner(second).address
    running.stop()
    stage.close()
    first.close()
    second.close()


def test_a_client_that_no_answer_reaches_is_hung_up_on(keeper, tmp_path):
    path = tmp_path / "signer.sock"
    stage = SocketKeeper(keeper, path)
    exchange = SocketExchange(path)
    stage.poll()
    keeper.answer = lambda message: bytes(10_000_000)
    running = Running(stage.poll)
    with pytest.raises(BarewireError, match=r"hung up|does not answer"):
        exchange(b"A")
    del keeper.answer
    assert becomes_reachable(path)
    running.stop()
    stage.close()


def test_a_place_where_no_socket_can_be(keeper, tmp_path):
    with pytest.raises(BarewireError, match="No such file"):
        SocketKeeper(keeper, tmp_path / "no/such/place")


# ---- the rings ----


@pytest.fixture
def rings() -> Iterator[str]:
    name = f"test-signing-{os.getpid()}"
    yield name
    for side in ("asks", "answers"):
        if Path(f"/dev/shm/dpb-{name}-{side}.ring").exists():
            remove_ring(f"shm:{name}-{side}")


def test_over_two_rings(keeper, rings):
    made: list[RingKeeper] = []
    starting = threading.Thread(target=lambda: made.append(RingKeeper(keeper, rings)))
    starting.start()
    exchange = RingExchange(rings)
    starting.join()
    running = Running(made[0].poll)
    try:
        signer = ExternalSigner(exchange)
        for nonce in range(200):  # more than either ring holds
            raw = bytes(template(signer).fire(nonce, 100))
        assert Account.recover_transaction(raw) == Account.from_key(SECRET).address
        with pytest.raises(BarewireError, match="policy allows"):
            template(signer).fire(0, 1000)
        with pytest.raises(BarewireError, match="cannot ask"):
            exchange(bytes(200_000))
    finally:
        running.stop()
        made[0].close()
        exchange.close()


def test_any_message_is_answered_over_rings(keeper, rings):
    made: list[RingKeeper] = []
    starting = threading.Thread(target=lambda: made.append(RingKeeper(keeper, rings)))
    starting.start()
    exchange = RingExchange(rings)
    starting.join()
    running = Running(made[0].poll)
    rng = random.Random(5)
    try:
        for message in (
            b"T\x05" + rlp.encode([1, [], 0]),
            b"T\x02" + rlp.encode([1, 0, 0, b"x" * 100000, 0, TARGET, 0, b"", []]),
            b"T\x02" + b"\xc1" * 130000,
            *(rng.randbytes(rng.randrange(1, 300)) for _ in range(100)),
            *(b"T" + bytes([kind, 0xC1]) + rng.randbytes(40) for kind in range(256)),
        ):
            assert exchange(message)[:1] == b"\1"
        assert exchange(b"A") == b"\0" + ADDRESS
    finally:
        running.stop()
        made[0].close()
        exchange.close()


def test_a_successor_answers_what_the_dead_did_not(keeper, rings):
    starting = threading.Thread(target=lambda: RingKeeper(keeper, rings).close())
    starting.start()
    exchange = RingExchange(rings)
    starting.join()
    answers: list[bytes] = []
    asking = threading.Thread(target=lambda: answers.append(exchange(b"A")))
    asking.start()
    successor = RingKeeper(keeper, rings)
    running = Running(successor.poll)
    asking.join()
    running.stop()
    assert answers == [b"\0" + ADDRESS]
    successor.close()
    exchange.close()


def test_nobody_on_the_other_side(keeper, rings):
    with pytest.raises(BarewireError, match=rings):
        RingExchange(rings, timeout_s=0.05)
    starting = threading.Thread(target=lambda: RingKeeper(keeper, rings).close())
    starting.start()
    exchange = RingExchange(rings, timeout_s=0.2)
    starting.join()
    with pytest.raises(BarewireError, match="did not answer"):
        exchange(b"A")
    exchange.close()
