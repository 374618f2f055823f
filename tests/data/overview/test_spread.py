"""Distributions against numpy."""

import numpy as np
import pytest

from ape_jax.data.overview.spread import Spread, Tally


@pytest.mark.parametrize("high", [2, 9, 400])
def test_figures_are_numpys(high):
    values = np.random.default_rng(high).integers(0, high, 999)
    tally = Tally()
    for part in np.array_split(values, 7):
        tally.add(part)
    spread = tally.spread()
    assert (spread.min, spread.max, spread.count) == (values.min(), values.max(), 999)
    assert spread.median == np.median(values) and np.isclose(spread.mean, values.mean())
    expected = np.quantile(values, 0.95, method="inverted_cdf")
    assert spread.quantile(0.95) == expected
    assert spread.above(3) == (values > 3).sum()


@pytest.mark.parametrize("high", [1, 5, 8, 9, 30, 10_000])
def test_bins_are_few_and_hold_every_value(high):
    values = np.random.default_rng(high).integers(0, high, 2000)
    values[0] = 10**7  # One that is far out.
    bins = Spread.of(values).bins()
    assert len(bins) <= 8 and sum(count for _, count in bins) == 2000


def test_nothing_has_no_figures():
    empty = Spread({})
    assert (empty.min, empty.median, empty.max, empty.bins()) == (0, 0, 0, [])
