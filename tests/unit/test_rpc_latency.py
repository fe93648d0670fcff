"""Averages and quantiles of latency, against exact ones from numpy."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barewire.rpc.latency import PeakEwma, RollingSketch

MS = 1_000_000


@settings(max_examples=50, deadline=None)
@given(
    values=st.lists(st.floats(2, 5e6), min_size=1, max_size=300),
    q=st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0]),
)
def test_quantiles_are_within_their_bucket(values, q):
    sketch = RollingSketch()
    for value in values:
        sketch.observe(value, 10**15)
    exact = float(np.quantile(values, q, method="inverted_cdf"))
    assert sketch.quantile(q, 10**15) == pytest.approx(exact, rel=0.045)


def test_no_cliff_when_a_window_ends():
    rng = random.Random(4)
    sketch = RollingSketch(slices=4, slice_ms=1_000)
    now = 10**15
    seen = []
    for step in range(8_000):
        now += MS
        level = 1_000 if step < 4_000 else 2_000
        sketch.observe(level * rng.uniform(0.5, 1.5), now)
        if step > 3_000 and step % 50 == 0:
            seen.append(sketch.quantile(0.5, now))
    jumps = [abs(b - a) / a for a, b in itertools.pairwise(seen)]
    assert max(jumps) < 0.1
    assert seen[0] == pytest.approx(1_000, rel=0.1)
    assert seen[-1] == pytest.approx(2_000, rel=0.1)


def test_old_samples_are_forgotten():
    sketch = RollingSketch(slices=4, slice_ms=1_000)
    sketch.observe(50_000, 10**15)
    assert sketch.count(10**15) == 1
    assert sketch.quantile(0.5, 10**15 + 10_000 * MS) == 0.0
    assert sketch.count(10**15 + 10_000 * MS) == 0


def test_bad_news_is_believed_at_once_and_forgotten_slowly():
    ewma = PeakEwma(tau_ms=5_000)
    now = 10**15
    ewma.observe(100, now)
    ewma.observe(9_000, now + MS)
    assert ewma.us == 9_000
    ewma.observe(100, now + 101 * MS)
    assert 8_000 < ewma.us < 9_000
    for step in range(200):
        ewma.observe(100, now + (200 + step * 100) * MS)
    assert ewma.us < 300
