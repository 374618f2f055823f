"""Which captions come: several of a record are different ones, all of them equally often."""

import numpy as np
import pytest
from scipy import stats

from ape_jax.data import order
from ape_jax.features.dataset import Captions, Dataset
from ape_jax.features.ragged import RaggedTokens
from ape_jax.training.input.draws import host_tables

COUNTS = np.array([1, 2, 3, 5])


def tables(positives):
    offsets = np.concatenate([[0], np.cumsum(COUNTS)])
    texts = tuple(map(str, range(offsets[-1])))
    captions = Captions(texts, np.arange(len(texts)), offsets)
    tokens = RaggedTokens(np.zeros((len(texts), 1), np.float32), np.arange(len(texts) + 1))
    return host_tables(Dataset(range(4), captions, None, tokens), 7, positives)


def drawn(record, positives, count=6000):
    """Places among the record's own captions, [count, P] or [count]."""
    made = tables(positives)
    index = np.full(count, record)
    return made.caption(index, order.words(np.arange(count))) - made.captions[record]


def test_one_caption_is_the_draw_of_its_position_alone():
    counts = np.full(6000, 5)
    np.testing.assert_array_equal(drawn(3, 1), order.draw(7, "caption", np.arange(6000), counts))


@pytest.mark.parametrize("record", range(4))
def test_the_first_of_several_is_the_only_one_of_one(record):
    np.testing.assert_array_equal(drawn(record, 3)[:, 0], drawn(record, 1))


@pytest.mark.parametrize("positives", [2, 3, 5])
@pytest.mark.parametrize("record", range(4))
def test_captions_differ_as_far_as_there_are_any(record, positives):
    chosen = drawn(record, positives)
    different = {len(set(row)) for row in chosen.tolist()}
    assert chosen.shape == (6000, positives)
    assert chosen.min() == 0 and chosen.max() == COUNTS[record] - 1
    assert different == {min(positives, COUNTS[record])} or positives > COUNTS[record]
    first = chosen[:, : COUNTS[record]]
    assert {len(set(row)) for row in first.tolist()} == {first.shape[1]}


def test_every_ordered_choice_is_equally_likely():
    chosen = drawn(3, 3)
    seen = np.bincount(chosen @ np.array([25, 5, 1]), minlength=125)
    assert (seen > 0).sum() == 5 * 4 * 3
    assert stats.chisquare(seen[seen > 0]).pvalue > 1e-3
