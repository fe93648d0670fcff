"""Rings on a hugetlbfs: huge pages are taken for the test, and given back."""

import subprocess
from pathlib import Path

import pytest

from dpdk_bindings.ring import RingConsumer, RingError, RingKind, RingProducer, remove_ring
from tests.requires import requires, requires_root

PAGES = Path("/proc/sys/vm/nr_hugepages")


@pytest.fixture
def mounted(tmp_path):
    requires_root()
    before = int(PAGES.read_text())
    PAGES.write_text(str(before + 8))
    try:
        requires(int(PAGES.read_text()) == before + 8, "memory for eight huge pages")
        subprocess.run(["mount", "-t", "hugetlbfs", "none", tmp_path], check=True)
        try:
            yield tmp_path
        finally:
            subprocess.run(["umount", tmp_path], check=True)
    finally:
        PAGES.write_text(str(before))


@pytest.mark.parametrize("kind", list(RingKind))
def test_a_ring_on_huge_pages(mounted, kind):
    where = str(mounted / "some.ring")
    geometry = {"kind": kind, "depth": 64, "mtu": 256, "payload_bytes": 1 << 20}
    with (
        RingProducer.create(where, **geometry) as ring,
        RingConsumer.open(where, seat="one") as consumer,
    ):
        assert ring.handle.ring.geometry.granule >= 1 << 21
        ring.publish(b"abc")
        assert consumer.poll() == 1
        assert consumer.records.copy(0) == b"abc"
    with RingProducer.create(where, **geometry) as ring:
        assert ring.publish(b"d") == 2
    with pytest.raises(RingError, match="no room for"):
        RingProducer.create(f"{where}2", **(geometry | {"payload_bytes": 1 << 26}))
    remove_ring(where)
    assert list(mounted.iterdir()) == []
