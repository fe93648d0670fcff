"""Signers: what they sign is accepted everywhere, and never with a nonce used before."""

from __future__ import annotations

import copy
import errno
import os
import pickle
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import coincurve
import pytest
from eth_account import Account
from eth_keys import keys
from eth_keys.backends.native import NativeECCBackend

from barewire.errors import BarewireError
from barewire.execution.keys import Key
from barewire.execution.signer import LocalSigner, PresignedSigner, Rfc6979Signer, Signature
from barewire.execution.snapshot import Platform
from barewire.keccak import keccak256

SECRET = bytes(range(1, 33))
ADDRESS = keys.PrivateKey(SECRET).public_key.to_canonical_address()
HALF = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0
BARE_METAL = Platform(virtual=False, generation_id=False)


@pytest.fixture
def key() -> Iterator[Key]:
    with Key.from_bytes(SECRET) as key:
        yield key


def presigned(key: Key, capacity: int = 256) -> PresignedSigner:
    return PresignedSigner(key, capacity=capacity, platform=BARE_METAL)


def accepted(digest: bytes, signed: Signature) -> None:
    """By coincurve, and low."""
    assert int.from_bytes(signed.s, "big") <= HALF
    raw = signed.r + signed.s + bytes([signed.y_parity])
    public = coincurve.PublicKey.from_signature_and_message(raw, digest, hasher=None)
    assert keccak256(public.format(compressed=False)[1:])[12:] == ADDRESS


def test_independent_verifiers_accept_presignatures(key):
    with presigned(key) as signer:
        for turn in range(1000):
            digest = os.urandom(32)
            signer.wait(1)
            signed = signer.sign_hash(digest)
            accepted(digest, signed)
            if turn < 50:  # eth-keys' own arithmetic, in Python
                theirs = NativeECCBackend().ecdsa_recover(
                    digest, keys.Signature(signed.r + signed.s + bytes([signed.y_parity]))
                )
                assert theirs.to_canonical_address() == ADDRESS
        assert signer.counts().rfc6979 == 0


def test_rfc6979_equals_eth_account(key):
    with Rfc6979Signer(key) as signer:
        for _ in range(100):
            digest = os.urandom(32)
            theirs = Account.unsafe_sign_hash(digest, SECRET)
            ours = signer.sign_hash(digest)
            assert int.from_bytes(ours.r, "big") == theirs.r
            assert int.from_bytes(ours.s, "big") == theirs.s
            assert ours.y_parity + 27 == theirs.v
        assert signer.counts().rfc6979 == 100
        assert signer.counts().presigned == 0


def test_a_dropped_signer_is_stopped_and_wiped(key):
    def threads() -> int:
        names = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
        return names.count("bw-presign\n")

    def locked() -> str:
        (line,) = re.findall("VmLck:.*", Path("/proc/self/status").read_text())
        return str(line)

    before, locked_before = threads(), locked()
    signer = presigned(key)
    assert threads() == before + 1
    assert locked() != locked_before
    with pytest.warns(ResourceWarning, match="PresignedSigner of 0x.* was dropped, not closed"):
        del signer
    assert (threads(), locked()) == (before, locked_before)  # what is unlocked was wiped before


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_signer_is_not_copied(key, duplicate):
    with Rfc6979Signer(key) as signer, pytest.raises(TypeError, match="owns native memory"):
        duplicate(signer)


def no_repeated_r(key: Key, count: int) -> None:
    seen = set()
    with presigned(key, 4096) as signer:
        before = signer.counts().presigned
        for number in range(count):
            if number % 1024 == 0:
                signer.wait(1024, timeout_s=30)
            seen.add(signer.sign_hash(number.to_bytes(32, "big")).r)
        counts = signer.counts()
        assert counts.presigned - before == count
        assert counts.rfc6979 == 0
    assert len(seen) == count


def test_no_nonce_is_used_twice(key):
    no_repeated_r(key, 20_000)


@pytest.mark.slow
def test_no_nonce_is_used_twice_in_a_million(key):
    no_repeated_r(key, 1_000_000)


def test_the_same_hash_is_signed_with_another_nonce_each_time(key):
    with presigned(key) as signer:
        signer.wait(100)
        assert len({signer.sign_hash(bytes(32)).r for _ in range(100)}) == 100


def test_threads_never_get_the_same_entry(key):
    """Many threads empty a small pool at once; calls release the interpreter's lock."""
    signed: list[list[tuple[bytes, Signature]]] = [[] for _ in range(6)]
    with presigned(key, 32) as signer:

        def work(mine: list[tuple[bytes, Signature]], number: int) -> None:
            for turn in range(1500):
                digest = keccak256(bytes([number]) + turn.to_bytes(4, "big"))
                mine.append((digest, signer.sign_hash(digest)))

        threads = [threading.Thread(target=work, args=(mine, i)) for i, mine in enumerate(signed)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        counts = signer.counts()
    everything = [pair for mine in signed for pair in mine]
    assert len({one.r for _, one in everything}) == len(everything) == 9000
    assert counts.presigned + counts.rfc6979 == 9001  # and the self-test
    for digest, one in everything[::100]:
        accepted(digest, one)


def test_an_empty_pool_signs_by_rfc_6979_and_counts_it(key):
    with presigned(key, 2) as signer:
        for _ in range(50):
            digest = os.urandom(32)
            accepted(digest, signer.sign_hash(digest))
        counts = signer.counts()
        assert counts.rfc6979 > 0
        assert counts.presigned + counts.rfc6979 == 51


def test_a_hash_beyond_the_order_is_signed_all_the_same(key):
    with presigned(key) as signer:
        digest = b"\xff" * 32
        signed = signer.sign_hash(digest)
        theirs = Account.unsafe_sign_hash(digest, SECRET)
        assert (signed.r, signed.s) == (
            theirs.r.to_bytes(32, "big"),
            theirs.s.to_bytes(32, "big"),
        )
        assert signer.counts().rfc6979 == 1


def test_dropping_wipes_what_is_ready(key):
    with presigned(key, 512) as signer:
        signer.wait(512)
        signer.drop()
        assert signer.counts().dropped >= 512
        signer.wait(512)
        assert signer.counts().made >= 1024


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_new_generation_id_drops_the_pool(key):
    """The kernel's words, out of a socket pair in place of netlink."""
    kernel, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with kernel, ours, LocalSigner(key, 128, -1, ours.fileno()) as signer:
        until(lambda: signer.counts().level == 128)
        kernel.send(b"add@/devices/virtual/x\0ACTION=add\0SUBSYSTEM=net\0")
        time.sleep(0.02)
        assert signer.counts().dropped == 0
        kernel.send(
            b"change@/devices/platform/VMGENCTR:00\0ACTION=change\0NEW_VMGENID=1\0SEQNUM=9\0"
        )
        until(lambda: signer.counts().generations == 1)
        assert signer.counts().dropped == 128
        until(lambda: signer.counts().level == 128)


# ---- forks ----


def in_a_child(work: Callable[[], bytes]) -> bytes:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            said = work()
        except BaseException as error:
            said = f"{type(error).__name__}: {error}".encode()
        os.write(write, said)
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read()
    assert os.waitpid(pid, 0)[1] == 0
    return said


def test_a_forked_child_cannot_sign_and_its_parent_goes_on(key):
    with presigned(key, 2048) as signer, Rfc6979Signer(key) as plain:
        for _ in range(20):  # in whatever the thread is doing at the moment
            assert b"forked" in in_a_child(lambda: signer.sign_hash(bytes(32)).r)
            signer.sign_hash(bytes(32))
        assert b"forked" in in_a_child(lambda: plain.sign_hash(bytes(32)).r)
        assert b"forked" in in_a_child(lambda: Rfc6979Signer(key).address)
        signer.wait(2048)
        digest = os.urandom(32)
        accepted(digest, signer.sign_hash(digest))


def test_a_forked_child_has_zeros_where_the_pool_was(key):
    def vaults() -> bytes:
        ranges = []
        for line in Path("/proc/self/smaps").read_text().splitlines():
            if match := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
                begin, end = (int(digits, 16) for digits in match.groups())
            elif line.startswith("VmFlags:") and "wf" in line.split():
                ranges.append((begin, end - begin))
        with Path("/proc/self/mem").open("rb") as memory:
            return b"".join((memory.seek(begin), memory.read(size))[1] for begin, size in ranges)

    with presigned(key, 2048) as signer:
        signer.wait(2048)
        ours = vaults()
        assert SECRET in ours
        assert len(ours) - ours.count(0) > 2048 * 90  # most of 97 bytes of each entry
        child = in_a_child(lambda: b"%d %d" % (len(vaults()), any(vaults())))
        assert child == b"%d 0" % len(ours)


def test_a_forked_child_may_clean_up_and_sign_with_a_key_of_its_own(key):
    signer = presigned(key)

    def work() -> bytes:
        signer.close()
        thread = threading.Thread(target=lambda: None)
        thread.start()
        thread.join()
        with Key.from_bytes(SECRET) as mine, presigned(mine) as own:
            return own.sign_hash(b"\1" * 32).r

    child = in_a_child(work)
    assert len(child) == 32
    assert child != signer.sign_hash(b"\1" * 32).r
    signer.close()


# ---- what is refused ----


def test_a_virtual_machine_must_be_asked_for(key):
    with pytest.raises(BarewireError, match=r"virtual machine.*no generation id") as caught:
        PresignedSigner(key, platform=Platform(virtual=True, generation_id=False))
    assert "accept_snapshot_risk" in caught.value.hint
    with pytest.raises(BarewireError, match="virtual machine"):
        PresignedSigner(key, platform=Platform(virtual=True, generation_id=True))
    for known in (True, False):
        platform = Platform(virtual=True, generation_id=known)
        with PresignedSigner(
            key, capacity=8, platform=platform, accept_snapshot_risk=True
        ) as signer:
            assert signer.sign_hash(bytes(32))


@pytest.mark.parametrize("capacity", [0, 1, -1, 2**32])
def test_a_pool_of_no_size_is_refused(key, capacity):
    with pytest.raises(BarewireError, match=f"pool of {capacity}"):
        presigned(key, capacity)


def test_a_core_that_is_not_there_is_refused(key):
    for core in (1000, 100_000):
        with pytest.raises(BarewireError, match=f"core {core}: {os.strerror(errno.EINVAL)}"):
            PresignedSigner(key, core=core, platform=BARE_METAL)
    with pytest.raises(BarewireError, match="no core -1"):
        PresignedSigner(key, core=-1, platform=BARE_METAL)


def test_the_thread_runs_on_its_core(key):
    core = min(os.sched_getaffinity(0))
    tasks = Path("/proc/self/task")
    before = set(tasks.iterdir())
    with PresignedSigner(key, core=core, platform=BARE_METAL):
        (thread,) = set(tasks.iterdir()) - before
        assert os.sched_getaffinity(int(thread.name)) == {core}
        assert (thread / "comm").read_text() == "bw-presign\n"


def test_what_is_no_hash_is_refused(key):
    with Rfc6979Signer(key) as signer, pytest.raises(ValueError, match="not 31"):
        signer.sign_hash(bytes(31))


def test_a_closed_signer_says_so(key):
    signer = presigned(key)
    signer.close()
    for call in (signer.counts, signer.drop, lambda: signer.sign_hash(bytes(32))):
        with pytest.raises(BarewireError, match="closed"):
            call()


def test_without_locked_memory_there_is_no_signer():
    code = """
import os, resource
from barewire.execution.keys import Key
from barewire.execution.signer import PresignedSigner
from barewire.execution.snapshot import Platform
from barewire.errors import BarewireError
key = Key.from_bytes(bytes(range(1, 33)))
resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))
if os.geteuid() == 0:
    os.setresuid(65534, 65534, 65534)
try:
    PresignedSigner(key, capacity=4096, platform=Platform(False, False))
except BarewireError as error:
    print(error.message, "|", error.hint)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "no locked memory for a key and 4096 presignatures" in done.stdout, done.stderr
    assert "RLIMIT_MEMLOCK" in done.stdout
