"""Imports modules of ours and says what that changed for whoever runs the interpreter.

Run by test_entry_points.py. Every module of the three packages is imported in a process of its own;
with ``ethereum`` only those that import libraries of the Ethereum world themselves.
"""

import asyncio
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import resource
import signal
import sys
import threading
from pathlib import Path

LIBRARIES = ("web3", "eth_", "ethereum", "py_ecc")


def state():
    return {
        "recursion limit": sys.getrecursionlimit(),
        "digits of an int": sys.get_int_max_str_digits(),
        "switch interval": sys.getswitchinterval(),
        "hooks": [repr(hook) for hook in (sys.excepthook, sys.unraisablehook, sys.displayhook)],
        "garbage collection": [gc.isenabled(), gc.get_threshold(), gc.get_freeze_count()],
        "signals": [repr(signal.getsignal(number)) for number in range(1, 32)],
        "limits of resources": [resource.getrlimit(number) for number in range(16)],
        "stack of threads": threading.stack_size(),
        "threads": threading.active_count(),
        "policy of event loops": type(asyncio.get_event_loop_policy()).__name__,
        "folder": str(Path.cwd()),
        "environment": dict(os.environ),
        "cores": sorted(os.sched_getaffinity(0)),
    }


def found():
    for root in ("dpdk_bindings", "barewire", "appliance"):
        package = importlib.util.find_spec(root)
        yield root, package.origin
        for module in pkgutil.walk_packages(package.submodule_search_locations, f"{root}."):
            if not module.name.endswith("__main__"):
                yield module.name, module.module_finder.find_spec(module.name).origin


def in_a_child(work):
    """What `work` returns there, as JSON; this process has imported nothing of ours."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        with os.fdopen(writing, "w") as file:
            json.dump(work(), file)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        said = file.read()
    status = os.waitpid(child, 0)[1]
    return json.loads(said) if not status else [f"it ended with status {status}"]


def imported(name):
    before = state()
    with contextlib.suppress(ModuleNotFoundError):  # a part that need not be built
        importlib.import_module(name)
    after = state()
    changed = [key for key in before if before[key] != after[key]]
    return [f"{name}: {key}: {before[key]} -> {after[key]}" for key in changed]


def of_ethereum(origin):
    """Whether the module imports such a library itself."""
    source = Path(origin)
    lines = source.read_text().splitlines() if source.suffix == ".py" else []
    words = [line.split() for line in lines if line.lstrip().startswith(("import ", "from "))]
    return any(word[1].startswith(LIBRARIES) for word in words)


if __name__ == "__main__":
    modules = in_a_child(lambda: list(found()))
    if "ethereum" in sys.argv:
        modules = [module for module in modules if of_ethereum(module[1])]
    for name, _ in modules:
        for line in in_a_child(lambda name=name: imported(name)):
            print(line)
    print(f"{len(modules)} modules")
