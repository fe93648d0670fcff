"""Conversations: in order, out of order, twice, overlapping, ended by either side, reset."""

from __future__ import annotations

import random
from collections.abc import Iterator

_PSH_ACK, _FIN_ACK, _RST, _SYN_ACK = 0x18, 0x11, 0x04, 0x12
_SEGMENT, _RECEIVE, _SEND, _WAIT, _SHUTDOWN = 0, 4, 5, 6, 7
_STEP_BYTES = 20


def seeds() -> Iterator[bytes]:
    data = _segment(_PSH_ACK, 0, payload=20)
    yield _input(*[data] * 5, _own(_RECEIVE, 200), _own(_SEND, 40), data)
    yield _input(_segment(_PSH_ACK, 1, payload=20), data, _own(_RECEIVE, 255), data)
    yield _input(_segment(_PSH_ACK, -10, payload=20), data, _own(_RECEIVE, 255))
    yield _input(data, _segment(_FIN_ACK, 0), _own(_RECEIVE, 255), _own(_SHUTDOWN, 0))
    yield _input(_own(_SEND, 99), _own(_SHUTDOWN, 0), _own(_WAIT, 9, 9), _segment(_FIN_ACK, 0))
    yield _input(data, _segment(_RST, 0), _own(_RECEIVE, 255), _own(_SEND, 1))
    yield b"\0" + _segment(_SYN_ACK, 0) + data
    rng = random.Random(3)
    for _ in range(20):
        yield _input(*(_any(rng) for _ in range(60)))


def _input(*steps: bytes) -> bytes:
    return b"\3" + b"".join(steps)


def _segment(flags: int, offset: int, *, payload: int = 0, acknowledged: int = 0) -> bytes:
    step = bytes([_SEGMENT, flags, offset % 256, acknowledged % 256, 250, 0, payload])
    return step.ljust(_STEP_BYTES, b"\1")


def _own(kind: int, *numbers: int) -> bytes:
    return bytes([kind, *numbers]).ljust(_STEP_BYTES, b"\0")


def _any(rng: random.Random) -> bytes:
    match rng.randrange(6):
        case 0:
            return _own(_RECEIVE, rng.randrange(256))
        case 1:
            return _own(_SEND, rng.randrange(256))
        case 2:
            return _own(_WAIT, rng.randrange(8), rng.randrange(8))
        case _:
            return _segment(_PSH_ACK, rng.randrange(-20, 20), payload=rng.randrange(256))
