"""What the kernel says of the machine below it."""

from __future__ import annotations

from pathlib import Path

import pytest

from barewire.execution.snapshot import Platform, detect, watch_generation


def put(root: Path, path: str, text: str = "") -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_bare_metal(tmp_path):
    put(tmp_path, "proc/cpuinfo", "flags\t\t: fpu vme\n")
    assert detect(tmp_path) == Platform(virtual=False, generation_id=False)
    assert detect(tmp_path / "nothing") == Platform(virtual=False, generation_id=False)


def test_the_processor_says_it_is_virtual(tmp_path):
    put(tmp_path, "proc/cpuinfo", "model name\t: x\nflags\t\t: fpu hypervisor vme\n")
    assert detect(tmp_path) == Platform(virtual=True, generation_id=False)


@pytest.mark.parametrize(
    "path", ["sys/hypervisor/type", "sys/firmware/devicetree/base/hypervisor/x"]
)
def test_other_signs(tmp_path, path):
    put(tmp_path, path, "xen\n")
    assert detect(tmp_path).virtual


@pytest.mark.parametrize("bus", ["platform", "acpi"])
def test_a_generation_id(tmp_path, bus):
    driver = tmp_path / f"sys/bus/{bus}/drivers/vmgenid"
    put(driver, "bind")
    (driver / "module").symlink_to("/sys/module/vmgenid")
    assert not detect(tmp_path).generation_id
    (driver / "VMGENCTR:00").symlink_to("../../../../devices/platform/VMGENCTR:00")
    assert detect(tmp_path) == Platform(virtual=True, generation_id=True)


def test_this_machine_is_one_or_the_other():
    assert detect() in {Platform(v, g) for v in (True, False) for g in (True, False)}


def test_the_kernels_events_can_be_heard():
    with watch_generation() as events, pytest.raises(BlockingIOError):
        events.recv(4096)
