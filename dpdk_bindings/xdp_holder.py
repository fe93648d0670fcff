"""Whose XDP program is on an interface: asked only to explain why ours could not be attached."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from dpdk_bindings._c import text
from dpdk_bindings._native import ffi, lib

__all__ = ["Holder", "find"]

_OUR_NAME = "bw_flows"


@dataclass(frozen=True)
class Holder:
    """A program on an interface, and what could be found out about its owner."""

    program_id: int
    name: str
    processes: dict[int, str] = field(default_factory=dict)
    pins: list[str] = field(default_factory=list)

    @property
    def is_dead_ours(self) -> bool:
        """A program of ours that nobody holds any more: the kernel is about to remove it."""
        return self.name == _OUR_NAME and not self.processes and not self.pins

    def __str__(self) -> str:
        owners = [f"held by process {pid} ({name})" for pid, name in self.processes.items()]
        owners += [f"pinned at {path}" for path in self.pins]
        owners = owners or ["held by no process; attached for good"]
        name = f'"{self.name}"' if self.name else "without a name"
        return f"program {name}, id {self.program_id}, {', '.join(owners)}"


def find(interface: str) -> Holder | None:
    """The program on `interface`, or None."""
    from pyroute2 import IPRoute  # slow to import, seldom used

    with IPRoute() as route:
        links = route.get_links(ifname=interface)
    for link in links:
        xdp = link.get_attr("IFLA_XDP")
        program_id = xdp.get_attr("IFLA_XDP_PROG_ID") if xdp else None
        if program_id:
            name = ffi.new("char[16]")
            lib.dpb_bpf_program_name(program_id, name)
            return Holder(program_id, text(name), _processes(program_id), _pins(program_id))
    return None


def _processes(program_id: int) -> dict[int, str]:
    """Processes with a descriptor of the program or of a link to it (``prog_id:`` in fdinfo)."""
    found: dict[int, str] = {}
    wanted = f"prog_id:\t{program_id}\n"
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            for info in (entry / "fdinfo").iterdir():
                if wanted in info.read_text():
                    found[int(entry.name)] = (entry / "comm").read_text().strip()
                    break
        except OSError:
            continue  # it ended meanwhile, or belongs to somebody else
    return found


def _pins(program_id: int) -> list[str]:
    """Paths below /sys/fs/bpf where the program is pinned."""
    found = []
    for folder, _, names in os.walk("/sys/fs/bpf"):
        for name in names:
            path = str(Path(folder) / name)
            if lib.dpb_bpf_pinned_program_id(path.encode()) == program_id:
                found.append(path)
    return found
