"""Calls what the three packages export with values that do not fit, and says what came of it.

Run by test_entry_points.py in namespaces of its own, so that nothing here reaches another process
or the network. Every callable is tried in a child of its own, each of its parameters in turn with
each of the odd values. Said is what no caller can handle: a child that a signal ended, a call that
does not come back, and the errors of a broken interpreter.
"""

import contextlib
import enum
import importlib
import inspect
import os
import pkgutil
import signal
import sys
import traceback
import warnings
from pathlib import Path

DEEP = []
for _ in range(5000):
    DEEP = [DEEP]
ODD = [
    *[None, True, -1, 0, 1 << 31, 1 << 32, 1 << 63, 1 << 64, -(1 << 64), 1 << 256, 1 << 5000],
    *[1.5, float("nan"), float("inf"), "", "x", "0x" + "11" * 20, "\udcff\ud800", "\0", "x" * 100],
    *[b"", b"x", b"\xff" * 33, bytes(70_000), bytearray(b"ab"), memoryview(b"abcdefgh")[::2]],
    *[memoryview(b"abcdefgh").cast("I"), [], [None], ["x"], [b"x"], [-1], DEEP, (1, "x")],
    *[{}, {"x": 1}, {1: b""}, object(), Path("x"), Path("\udcff"), int],
]
BROKEN = (SystemError, RecursionError, AssertionError)
SECONDS = 5.0

# What takes long or much memory because it was asked to, and what is no function of values.
LEFT_OUT = {
    "barewire.execution.keystore.encrypt": "scrypt, as much as a number says",
    "barewire.execution.keys.Key.encrypted": "the same",
    "barewire.execution.keystore.open_decrypted": "a process that waits for a pipe",
    "barewire.feeds.mold_publisher.MoldPublisher": "a store of as many messages as a number says",
    "barewire.rpc.latency.RollingSketch": "as many slices as a number says",
    "appliance.demo": "a play, with machinery of its own",
    "appliance.lab": "runs functions in other namespaces",
    "appliance.signing.RingExchange": "waits for its peer",
    "appliance.signing.RingKeeper": "the same",
}


def made():
    """Objects that take arguments no rule finds, by their class; some of them closed."""
    from barewire.execution.keys import Key
    from barewire.execution.request import ReadyRequest
    from barewire.execution.signer import Rfc6979Signer
    from barewire.execution.template import Caps, Template
    from barewire.mempool.decoder import Decoder, Rules
    from barewire.mempool.trigger_table import TriggerTable
    from barewire.mempool.triggers import Trigger
    from dpdk_bindings.metrics import MetricsReader, MetricsWriter

    key = Key.from_bytes(b"\1" * 32)
    signer, closed = Rfc6979Signer(key), Rfc6979Signer(key)
    fields = {"type": 2, "chain_id": 1, "to": bytes(20), "gas": 21000, "caps": Caps(1 << 60)}
    table = TriggerTable([Trigger("x", to=["0x" + "11" * 20])])
    gone = TriggerTable([Trigger("x", to=["0x" + "11" * 20])])
    path = Path("metrics")
    writer = MetricsWriter(path, "x", schema=1, counters=3, histograms=2)
    reader = MetricsReader(path, schema=1, counters=3, histograms=2)
    shut = MetricsReader(path, schema=1, counters=3, histograms=2)
    yield from (signer, Template(signer, **fields), Template(closed, **fields))
    yield from (closed, ReadyRequest.send_bundle("x", auth=signer))
    yield ReadyRequest.send_bundle("x", auth=closed)
    yield from (ReadyRequest.send_raw_transaction("x"), Decoder(Rules.preset()), table, gone)
    yield from (writer, reader, shut)
    for one in (closed, gone, shut):
        one.close()
    yield from (key, Key.from_bytes(b"\1" * 32))
    key.close()


def plausible(annotation):
    """Something that a parameter annotated so may take."""
    for word, value in (
        ("Sequence", ()),
        ("Mapping", {}),
        ("Iterable", ()),
        ("list", []),
        ("dict", {}),
        ("tuple", ()),
        ("Path", Path("nothing")),
        ("bytes", bytes(32)),
        ("Buffer", bytes(32)),
        ("bool", False),
        ("int", 1),
        ("float", 1.0),
        ("str", "x"),
    ):
        if word in str(annotation):
            return value
    return None


def modules():
    for root in ("dpdk_bindings", "barewire", "appliance"):
        package = importlib.import_module(root)
        yield package
        for found in pkgutil.walk_packages(package.__path__, f"{root}."):
            if "._" not in found.name:
                with contextlib.suppress(ModuleNotFoundError):  # a part that need not be built
                    yield importlib.import_module(found.name)


def exported():
    """Every function and class that a module names in `__all__`, by its full name."""
    for module in modules():
        for name in getattr(module, "__all__", ()):
            thing = getattr(module, name)
            if not callable(thing) or getattr(thing, "__module__", "") != module.__name__:
                continue
            fixed = isinstance(thing, type) and issubclass(thing, (BaseException, enum.Enum))
            if not fixed and not getattr(thing, "_is_protocol", False):
                yield f"{module.__name__}.{name}", thing


def methods(thing, instance=None):
    for name, member in vars(thing).items():
        if name.startswith("_"):
            continue
        if isinstance(member, (classmethod, staticmethod)):
            yield name, getattr(thing, name)
        elif inspect.isfunction(member) and instance is not None:
            yield name, getattr(instance, name)


def callables(things, objects):
    for name, thing in things:
        yield name, thing
        if isinstance(thing, type):
            found = [one for one in objects if type(one) is thing] or [simple(thing)]
            for instance in found:
                for method, bound in methods(thing, instance):
                    yield f"{name}.{method}", bound


def simple(thing):
    with contextlib.suppress(Exception):
        return thing(**next(trials(thing))[1])
    return None


def trials(function):
    """Arguments by name, and in words what is odd about them."""
    with contextlib.suppress(TypeError, ValueError):  # no signature
        parameters = inspect.signature(function).parameters.values()
        named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        fits = {p.name: plausible(p.annotation) for p in named if p.default is p.empty}
        yield "nothing", fits
        for parameter in named:
            for number, odd in enumerate(ODD):
                yield (
                    f"{parameter.name} (a {type(odd).__name__}, ODD[{number}])",
                    {
                        **fits,
                        parameter.name: odd,
                    },
                )


def call(function, arguments):
    parameters = inspect.signature(function).parameters
    first = [n for n in arguments if parameters[n].kind == inspect.Parameter.POSITIONAL_ONLY]
    rest = {name: value for name, value in arguments.items() if name not in first}
    result = function(*(arguments[name] for name in first), **rest)
    if inspect.isgenerator(result):
        next(result, None)
    if inspect.iscoroutine(result):
        result.close()


def try_all(function, tell):
    """In a child: tells what is tried, so that the last words name what ended it."""
    for odd, arguments in trials(function):
        tell(f"? {odd}")
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            call(function, arguments)
        except BROKEN as error:
            if isinstance(error, RecursionError) and any(v is DEEP for v in arguments.values()):
                continue  # asked for: to look at it recurses, in Python's own repr() too
            where = traceback.extract_tb(error.__traceback__)[-1]
            tell(f"! {odd}: {type(error).__name__} ({Path(where.filename).name}:{where.lineno})")
        except BaseException:  # whatever a caller can handle
            pass
        signal.setitimer(signal.ITIMER_REAL, 0)
    tell("done")


def in_a_child(function):
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(null, number)
        try:
            try_all(function, lambda text: os.write(writing, f"{text}\n".encode()))
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        said = file.read().splitlines()
    status = os.waitpid(child, 0)[1]
    yield from (line[2:] for line in said if line.startswith("!"))
    if not said or said[-1] != "done":
        how = {0: "ended", signal.SIGALRM: "did not come back"}.get(status, f"signal {status}")
        yield f"{said[-1][2:] if said else 'nothing'}: {how}"


def main(wanted):
    warnings.simplefilter("ignore")
    things = [(n, thing) for n, thing in exported() if not wanted or n.startswith(tuple(wanted))]
    objects = list(made())
    done = 0
    for name, function in callables(things, objects):
        if not name.startswith(tuple(LEFT_OUT)):
            done += 1
            for line in in_a_child(function):
                print(f"{name}: {line}", flush=True)
    print(f"{done} callables")


if __name__ == "__main__":
    main(sys.argv[1:])
