"""What can be found of keys and nonces in a process's memory, its flags, and its core dump.

The searched process is a child that reads its key from a pipe, signs, and waits. The test knows
the key, so from each signature it computes the nonce that was used, and looks for it everywhere.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from eth_keys import keys

from tests.requires import requires

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
SECRET = hashlib.sha256(b"a key that is nowhere else in memory").digest()
KEY = int.from_bytes(SECRET, "big")
CAPACITY = 4096
CHILD = f"""
import os, sys
from barewire.execution.keys import Key
from barewire.execution.signer import PresignedSigner, Rfc6979Signer
from barewire.execution.snapshot import Platform
from barewire.keccak import keccak256
key = Key.from_fd(0, "the pipe")
signer = PresignedSigner(key, capacity={CAPACITY}, platform=Platform(False, False))
plain = Rfc6979Signer(key)
signer.wait({CAPACITY}, timeout_s=60)
marker = bytearray(b"ordinary memory, ") + bytearray(b"in every dump")
for i in range(64):
    digest = keccak256(i.to_bytes(4, "big"))
    for who in (signer, plain):
        signed = who.sign_hash(digest)
        print(digest.hex(), signed.r.hex(), signed.s.hex(), signed.y_parity)
assert signer.counts().rfc6979 == 0
# Once around the pool, so that every slot was used and filled again.
for i in range({CAPACITY}):
    if i % 512 == 0:
        signer.wait(1024, timeout_s=60)
    signer.sign_hash(digest)
signer.wait({CAPACITY}, timeout_s=60)
print("done", flush=True)
sys.stdin.close()
import signal
signal.pause()
"""


def unlimited() -> None:
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))


class Signed:
    """The child, and what it signed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=folder,
            text=True,
            preexec_fn=unlimited,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.buffer.write(SECRET)
        self.process.stdin.close()
        self.signatures = []
        for line in self.process.stdout:
            if line == "done\n":
                break
            self.signatures.append(line.split())

    def patterns(self) -> list[bytes]:
        """What each signature used and nobody may find: k, 1/k and r d, in both byte orders."""
        found = []
        for digest, r_text, s_text, _ in self.signatures:
            z, r, s = (int(text, 16) for text in (digest, r_text, s_text))
            k = pow(s, -1, ORDER) * (z + r * KEY) % ORDER
            assert keys.PrivateKey(k.to_bytes(32, "big")).public_key.to_bytes()[:32].hex() == r_text
            for number in (k, ORDER - k, s * pow(z + r * KEY, -1, ORDER) % ORDER, r * KEY % ORDER):
                found += [number.to_bytes(32, "big"), number.to_bytes(32, "little")]
            found.append((ORDER - pow(k, -1, ORDER)).to_bytes(32, "big"))
        return found


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Signed]:
    signed = Signed(tmp_path_factory.mktemp("secret"))
    yield signed
    signed.process.kill()
    signed.process.wait()
    assert signed.process.stdout is not None
    signed.process.stdout.close()


def count(memory: bytes, patterns: list[bytes]) -> int:
    """How many of `patterns` are anywhere in `memory`, at any alignment."""
    likely = np.zeros(65536, bool)
    likely[[int.from_bytes(pattern[:2], "little") for pattern in patterns]] = True
    firsts = {int.from_bytes(pattern[:8], "little") for pattern in patterns}
    wanted = set(patterns)
    hits = 0
    for shift in range(8):
        words = np.frombuffer(memory, np.uint64, (len(memory) - shift) // 8, shift)
        for index in np.nonzero(likely[words.view(np.uint16)[::4]])[0]:
            if int(words[index]) in firsts:
                at = shift + 8 * int(index)
                hits += memory[at : at + 32] in wanted
    return hits


def mappings(pid: int) -> list[tuple[int, int, str, set[str]]]:
    """Start, end, permissions and VmFlags of each mapping."""
    found: list[tuple[int, int, str, set[str]]] = []
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if match := re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+)", line):
            found.append((int(match[1], 16), int(match[2], 16), match[3], set()))
        elif line.startswith("VmFlags:"):
            found[-1][3].update(line.split()[1:])
    return found


def readable_memory(pid: int) -> Iterator[tuple[set[str], bytes]]:
    with Path(f"/proc/{pid}/mem").open("rb") as memory:
        for start, end, permissions, flags in mappings(pid):
            if permissions.startswith("r"):
                memory.seek(start)
                with contextlib.suppress(OSError):  # what the kernel keeps for itself
                    yield flags, memory.read(end - start)


def test_no_used_entry_is_found_in_memory(child):
    patterns = child.patterns()
    assert len(patterns) == 128 * 9
    everything = list(readable_memory(child.process.pid))
    assert sum(len(memory) for _, memory in everything) > 1 << 20
    assert sum(count(memory, patterns) for _, memory in everything) == 0
    # The same search finds what is there: the key, and only in vaults.
    both = [SECRET, SECRET[::-1]]
    found = [(flags, hits) for flags, memory in everything if (hits := count(memory, both))]
    assert len(found) >= 4  # the key, the pool, and each signer's copy
    for flags, _ in found:
        assert {"lo", "dd", "wf"} <= flags


def test_the_pools_memory_is_locked_undumped_and_wiped_on_fork(child):
    vaults = [m for m in mappings(child.process.pid) if "wf" in m[3]]
    assert any(end - start >= CAPACITY * 128 for start, end, _, _ in vaults)
    for _, _, permissions, flags in vaults:
        assert permissions == "rw-p"
        assert {"lo", "dd"} <= flags
        assert "sh" not in flags
    # The stack of the thread that makes them, the top of which only the C library uses.
    locked = [m for m in mappings(child.process.pid) if {"lo", "dd"} <= m[3]]
    assert len(locked) > len(vaults)


def test_a_core_dump_holds_neither_key_nor_entries(child):
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    requires(not pattern.startswith(("|", "/")), f"core files where the process is ({pattern})")
    patterns = child.patterns()
    child.process.send_signal(signal.SIGABRT)
    assert child.process.wait(30) == -signal.SIGABRT
    cores = list(child.folder.glob("core*"))
    requires(len(cores) == 1, "core files (RLIMIT_CORE)")
    core = cores[0].read_bytes()
    assert b"ordinary memory, in every dump" in core
    assert count(core, [*patterns, SECRET, SECRET[::-1]]) == 0
    # Nor an unused entry: 32 bytes 1/k, 32 bytes r d, 32 bytes r.
    words = np.frombuffer(core, np.uint64, len(core) // 8)
    full = words.reshape(-1)[: len(words) // 4 * 4].reshape(-1, 4)
    candidates = np.nonzero((full != 0).all(axis=1))[0]
    dense = {int(i) for i in candidates}
    for index in dense:
        if index + 1 in dense and index + 2 in dense:
            rd, r = (
                int.from_bytes(core[32 * (index + n) : 32 * (index + n + 1)], "big") for n in (1, 2)
            )
            assert r * KEY % ORDER != rd


def test_a_hardened_process_is_not_dumped_at_all(tmp_path):
    code = (
        "import resource, ctypes, os\n"
        "from barewire.execution.harden import harden\n"
        "harden()\n"
        "print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE)[0],"
        " flush=True)\n"
        "os.abort()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "0 0\n"
    assert done.returncode == -signal.SIGABRT
    assert not list(tmp_path.iterdir())
