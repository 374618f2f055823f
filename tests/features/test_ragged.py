"""Captions without padding."""

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from ape_jax.align.packing import Packed
from ape_jax.config.poolings import MODES
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


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_packed_groups_hold_the_rows_end_to_end(rows, dtype):
    tokens = ragged.from_rows([row.astype(dtype) for row in rows])
    packed, lengths = tokens.packed(np.array([2, 0, 1, 1]), groups=2, size=12)
    assert packed.dtype == dtype and packed.shape == (2, 12, 5) and lengths.dtype == np.int32
    np.testing.assert_array_equal(lengths, [[7, 3], [1, 1]])
    np.testing.assert_array_equal(packed[0, :10], np.concatenate([rows[2], rows[0]]).astype(dtype))
    np.testing.assert_array_equal(packed[1, :2], np.concatenate([rows[1], rows[1]]).astype(dtype))
    assert not packed[0, 10:].any() and not packed[1, 2:].any()


def test_a_group_that_does_not_fit_is_an_error(rows):
    tokens = ragged.from_rows(rows)
    assert tokens.largest_group(np.array([2, 0, 1, 1]), 2) == 10
    with pytest.raises(ValueError, match="10 tokens"):
        tokens.packed(np.array([2, 0, 1, 1]), groups=2, size=9)


def test_buckets_are_few_and_waste_little():
    sizes = np.array([ragged.bucket(n) for n in range(1, 40_000)])
    totals = np.arange(1, 40_000)
    assert (sizes >= totals).all() and not (sizes % 8).any() and (np.diff(sizes) >= 0).all()
    assert ((sizes - totals) / sizes)[128:].max() < 1 / 16
    assert len(np.unique(sizes)) <= 16 * 12
    assert [ragged.bucket(s) for s in np.unique(sizes)] == np.unique(sizes).tolist()


def test_mean_of_stored_bfloat16_is_taken_in_float32(rng):
    rows = [rng.normal(size=(n, 5)).astype(ml_dtypes.bfloat16) for n in [300, 2] * 3000]
    expected = np.stack([row.astype(np.float32).mean(axis=0) for row in rows])
    mean = ragged.from_rows(rows).mean()
    assert mean.dtype == np.float32
    np.testing.assert_allclose(mean, expected, atol=1e-6)


@pytest.mark.parametrize("pooling", [*MODES, "max+weightedmean"])
def test_rows_are_pooled_as_packed_captions_are(rng, pooling):
    rows = ragged.from_rows([rng.normal(size=(n, 5)).astype(np.float32) for n in (3, 1, 6, 2)])
    packed = Packed(*map(jnp.asarray, rows.packed(np.arange(4), 1, 16)))
    np.testing.assert_allclose(rows.pool(pooling), packed.pool(pooling), atol=1e-6)


def test_an_unknown_pooling_of_rows_is_an_error(rng):
    with pytest.raises(ValueError, match="'head'"):
        ragged.from_rows([np.ones((1, 2), np.float32)]).pool("head")
