"""Captions without padding."""

import numpy as np
import pytest

from ape_jax.features import ragged


@pytest.fixture
def rows(rng):
    return [rng.normal(size=(n, 5)).astype(np.float32) for n in (3, 1, 7)]


def test_padded_rows_hold_the_tokens_and_zeros(rows):
    tokens, mask = ragged.from_rows(rows).padded(np.array([2, 0, 2]), 8)
    np.testing.assert_array_equal(mask.sum(1), [7, 3, 7])
    np.testing.assert_array_equal(tokens[1, :3], rows[0])
    assert not tokens[~mask].any()


def test_a_row_that_does_not_fit_is_an_error(rows):
    with pytest.raises(ValueError, match="7 tokens"):
        ragged.from_rows(rows).padded(np.array([2]), 6)


def test_mean_is_the_mean_of_each_row(rows):
    expected = np.stack([row.mean(axis=0) for row in rows])
    np.testing.assert_allclose(ragged.from_rows(rows).mean(), expected, rtol=1e-6)


def test_longest_and_length(rows):
    tokens = ragged.from_rows(rows)
    assert (len(tokens), tokens.longest) == (3, 7)
