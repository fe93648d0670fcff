"""Keccak-256 against an independent implementation and published values, in every width."""

import random
from pathlib import Path

import pytest
import sha3

from barewire import keccak256, keccak256_many
from barewire._native import ffi, lib
from barewire.keccak import keccak_width

MATERIAL = random.Random(3).randbytes(140_000)


def known(data: bytes) -> bytes:
    return sha3.keccak_256(data).digest()


def offered() -> dict[str, int]:
    """The widths that there are here, by the instructions that they take."""
    every = {"scalar": 1, "avx2": 4, "avx512": 8}
    found = {name: width for name, width in every.items() if lib.bw_keccak_force(width) == 0}
    lib.bw_keccak_force(0)
    return found


@pytest.fixture(params=offered().values(), ids=offered())
def width(request):
    assert lib.bw_keccak_force(request.param) == 0
    yield request.param
    lib.bw_keccak_force(0)


def test_no_width_is_left_out_that_this_cpu_has():
    """By what the kernel says of the CPU."""
    flags = Path("/proc/cpuinfo").read_text().partition("\nflags")[2].partition("\n")[0].split()
    has = {"scalar": True, "avx2": "avx2" in flags, "avx512": "avx512f" in flags}
    assert set(offered()) == {name for name in has if has[name]}


def test_published_values():
    # yellow paper: the hash of nothing, and of the RLP of nothing
    assert keccak256(b"").hex() == (
        "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"
    )
    assert keccak256(b"\x80").hex() == (
        "56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421"
    )
    # Keccak team, ShortMsgKAT_256 of the third round, Len = 8
    assert keccak256(b"\xcc").hex() == (
        "eead6dbfc7340a56caedc044696a168870549a6a7f6f56961e84a54bd9970b8a"
    )


def test_every_length_alone(width):
    for length in range(1001):
        assert keccak256(MATERIAL[:length]) == known(MATERIAL[:length])


def test_every_length_in_lanes(width):
    assert keccak_width() == width
    messages = [MATERIAL[length : 2 * length] for length in range(1001)]
    random.Random(width).shuffle(messages)
    assert keccak256_many(messages) == [known(message) for message in messages]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 63, 64, 65, 130])
def test_every_burst(width, count):
    rng = random.Random(count)
    lengths = [rng.choice([0, 1, 135, 136, 137, rng.randrange(3000)]) for _ in range(count)]
    messages = [MATERIAL[length : 2 * length] for length in lengths]
    assert keccak256_many(messages) == [known(message) for message in messages]


def test_one_long_among_short(width):
    messages = [MATERIAL[:131_072], *(MATERIAL[n : n + 90] for n in range(20)), MATERIAL[:5000]]
    assert keccak256_many(messages) == [known(message) for message in messages]


@pytest.mark.parametrize("length", [1, 2, 134, 135, 136, 137, 271, 272, 273, 1000])
def test_a_byte_in_place_of_the_first(width, length):
    jobs = ffi.new("struct bw_keccak_job[3]")
    out = ffi.new("uint8_t[96]")
    view = ffi.from_buffer(MATERIAL)
    for lane in range(3):
        jobs[lane] = (ffi.cast("uint8_t *", view) + lane, out + 32 * lane, length, 3)
    lib.bw_keccak256_many(jobs, 3)
    assert bytes(out) == b"".join(
        known(b"\x03" + MATERIAL[lane + 1 : lane + length]) for lane in range(3)
    )


def test_a_width_that_there_is_not():
    assert lib.bw_keccak_force(3) < 0
    assert lib.bw_keccak_force(0) == 0
