"""Which captions come: several of a record are different ones, all of them equally often."""

import numpy as np
import pytest
from scipy import stats

from ape_jax.data import sampling
from ape_jax.features.dataset import Captions
from ape_jax.training.input.sampler import sample_captions

COUNTS = np.array([1, 2, 3, 5])


def sampled(record, positives, count=6000):
    """Indices among the record's own captions, [count, P] or [count]."""
    offsets = np.concatenate([[0], np.cumsum(COUNTS)])
    captions = Captions(tuple(map(str, range(offsets[-1]))), np.arange(offsets[-1]), offsets)
    index, positions = np.full(count, record), np.arange(count)
    return sample_captions(captions, index, positions, 7, positives) - offsets[record]


def test_one_caption_is_the_sample_of_its_position_alone():
    counts = np.full(6000, 5)
    np.testing.assert_array_equal(
        sampled(3, 1), sampling.uniform(7, "caption", np.arange(6000), counts)
    )


@pytest.mark.parametrize("record", range(4))
def test_the_first_of_several_is_the_only_one_of_one(record):
    np.testing.assert_array_equal(sampled(record, 3)[:, 0], sampled(record, 1))


@pytest.mark.parametrize("positives", [2, 3, 5])
@pytest.mark.parametrize("record", range(4))
def test_captions_differ_as_far_as_there_are_any(record, positives):
    chosen = sampled(record, positives)
    different = {len(set(row)) for row in chosen.tolist()}
    assert chosen.shape == (6000, positives)
    assert chosen.min() == 0 and chosen.max() == COUNTS[record] - 1
    assert different == {min(positives, COUNTS[record])} or positives > COUNTS[record]
    first = chosen[:, : COUNTS[record]]
    assert {len(set(row)) for row in first.tolist()} == {first.shape[1]}


def test_every_ordered_choice_is_equally_likely():
    chosen = sampled(3, 3)
    seen = np.bincount(chosen @ np.array([25, 5, 1]), minlength=125)
    assert (seen > 0).sum() == 5 * 4 * 3
    assert stats.chisquare(seen[seen > 0]).pvalue > 1e-3
