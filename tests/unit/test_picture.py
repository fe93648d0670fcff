"""The terminal's histogram counts every value, and percentiles are values that were seen."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from appliance.picture import histogram, percentile

values = st.lists(st.integers(0, 2**40), min_size=1, max_size=200).map(sorted)


@given(values)
def test_no_value_is_lost_from_the_picture(ordered):
    counts = [int(line.split()[-1].replace(",", "")) for line in histogram(ordered)]
    assert sum(counts) == len(ordered)


def test_a_rare_value_is_still_drawn():
    lines = histogram([1000] * 100_000 + [1_000_000])
    assert "▏" in lines[-1]


@given(values, st.sampled_from([50, 99, 99.9, 100]))
def test_percentile_is_numpys_inverted_cdf(ordered, share):
    expected = np.percentile(ordered, share, method="inverted_cdf")
    assert percentile(ordered, share) == expected
