"""Near-duplicates: which of them stays, and cells against all comparisons."""

import numpy as np
import pytest

from ape_jax.align.closed_form import from_rows
from ape_jax.curation import cells as cells_lib
from ape_jax.curation.repeated import repeated
from ape_jax.curation.vectors import Vectors


def _vectors(images):
    return Vectors.of(from_rows(np.random.default_rng(9).normal(size=(len(images), 4)), images))


@pytest.fixture
def images():
    """Thirty images, each three times with little noise."""
    rng = np.random.default_rng(0)
    once = rng.normal(size=(30, 16))
    return np.repeat(once, 3, axis=0) + 0.02 * rng.normal(size=(90, 16))


def test_of_near_duplicates_the_one_of_the_lowest_rank_stays(images):
    rank = np.random.default_rng(1).permutation(90)
    of = repeated(_vectors(images), rank)
    for first in range(0, 90, 3):
        rows = np.arange(first, first + 3)
        assert (of[rows] == rows[rank[rows].argmin()]).all()


def test_nothing_is_left_out_at_one(images):
    assert (repeated(_vectors(images), np.arange(90), near=1.0) == np.arange(90)).all()


def test_a_chain_ends_at_the_pair_that_stays():
    angle = np.array([0.0, 0.2, 0.4, 3.0])  # Each near to the next, the first not to the third.
    images = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    vectors = _vectors(images)
    vectors.image_mean[:] = 0
    assert repeated(vectors, np.arange(4), near=np.cos(0.3)).tolist() == [0, 0, 0, 3]


def test_cells_find_what_all_comparisons_find(images, monkeypatch):
    rank = np.arange(90)
    expected = repeated(_vectors(images), rank)
    monkeypatch.setattr(cells_lib, "IN_A_CELL", 12)
    vectors = _vectors(images)
    found = cells_lib.cells(vectors.images, 90)
    assert len(found) > 3 and sorted(np.concatenate(found)) == sorted([*range(90), *range(90)])
    assert (repeated(vectors, rank) == expected).mean() > 0.95


def test_a_large_cell_is_cut(monkeypatch):
    monkeypatch.setattr(cells_lib, "IN_A_CELL", 10)
    monkeypatch.setattr(cells_lib, "_MOST", 16)
    vectors = _vectors(np.ones((60, 4)) + 1e-6 * np.arange(60)[:, None])
    assert max(map(len, cells_lib.cells(vectors.images, 60))) <= 16
