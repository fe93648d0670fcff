"""Questions and answers in good order, an answer that is forged, repeated, too long; odd jobs."""

from __future__ import annotations

from collections.abc import Iterator

ASK = b"\0\x05\x20" + bytes(32)
WORK, COLLECT = b"\1", b"\2"
ANSWER = b"\3" + (1 << 32).to_bytes(8, "little") + b"\x14" + b"\x11" * 20
JOB = b"\4\x50" + b"\x22" * 80


def seeds() -> Iterator[bytes]:
    yield ASK + WORK + COLLECT
    yield ASK * 20 + WORK * 3 + COLLECT * 3 + ASK
    yield ASK + ANSWER + COLLECT + WORK + COLLECT
    yield ASK + ANSWER * 2 + COLLECT
    yield b"\3" + b"\xff" * 8 + b"\x15" + bytes(21) + COLLECT
    yield JOB + WORK + COLLECT
    yield b"\4\x3f" + bytes(63) + WORK + ASK + WORK + COLLECT
    yield ASK * 3 + b"\5" + ASK * 3 + WORK + COLLECT * 3 + ASK * 9 + WORK + COLLECT
    yield (ASK + WORK + b"\5") * 17 + COLLECT * 9
    yield (ASK * 15 + WORK + COLLECT) * 3
    yield ANSWER * 20 + ASK + WORK + COLLECT * 4 + WORK + COLLECT
