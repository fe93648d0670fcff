"""Whether this machine can be restored from a snapshot, which would bring back used nonces.

Linux tells a guest whether its hypervisor has a generation id (the ACPI device ``VMGENCTR``,
driver drivers/virt/vmgenid.c). On a restore that driver reseeds the kernel's random numbers and,
since Linux 6.10, announces it as a uevent, ``NEW_VMGENID=1``.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Platform", "detect", "watch_generation"]

_NETLINK_KOBJECT_UEVENT = 15  # linux/netlink.h
_FROM_KERNEL = 1  # multicast group of the kernel's own events


@dataclass(frozen=True)
class Platform:
    """What the kernel says about the machine below it.

    Attributes:
        virtual: this is a virtual machine, so its memory may be snapshotted and restored.
        generation_id: the hypervisor says when that has happened.
    """

    virtual: bool
    generation_id: bool


def detect(root: Path = Path("/")) -> Platform:
    """Reads the platform from the /proc and /sys under `root`."""
    cpus = root / "proc/cpuinfo"
    flags = {
        word
        for line in (cpus.read_text().splitlines() if cpus.exists() else [])
        if line.startswith(("flags", "Features"))
        for word in line.split()
    }
    drivers = [root / "sys/bus" / bus / "drivers/vmgenid" for bus in ("platform", "acpi")]
    # A bound device is a link with the name of the device; `module` is a link too.
    devices = [
        entry
        for driver in drivers
        if driver.exists()
        for entry in driver.iterdir()
        if entry.is_symlink() and entry.name not in ("module", "subsystem")
    ]
    virtual = (
        "hypervisor" in flags
        or (root / "sys/hypervisor/type").exists()
        or (root / "sys/firmware/devicetree/base/hypervisor").exists()
        or bool(devices)
    )
    return Platform(virtual, bool(devices))


def watch_generation() -> socket.socket:
    """A non-blocking socket on which the kernel's uevents arrive, new generation ids among them."""
    kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    events = socket.socket(socket.AF_NETLINK, kind, _NETLINK_KOBJECT_UEVENT)
    events.bind((0, _FROM_KERNEL))
    return events
