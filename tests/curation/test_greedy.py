"""Lazy greedy maximisation against plain greedy, and its terms against their formulas."""

import itertools

import numpy as np
import pytest
from scipy import sparse

from ape_jax.curation.greedy import Cover, Facility, greedy


def _cover(served, chosen):
    return np.log1p(served[list(chosen)].sum(axis=0)).sum()


def _facility(near, weight, chosen):
    return weight @ near[list(chosen)].max(axis=0) if len(chosen) else 0.0


def _plain(value, candidates, count):
    """Greedy as it is defined: every gain anew in every step."""
    chosen = []
    for _ in range(count):
        rest = [i for i in range(candidates) if i not in chosen]
        chosen.append(max(rest, key=lambda i: (value([*chosen, i]), -i)))
    return chosen


@pytest.fixture
def world():
    rng = np.random.default_rng(0)
    served = rng.random((12, 5)) * (rng.random((12, 5)) < 0.5)
    near = rng.random((12, 12)) * (rng.random((12, 12)) < 0.5)
    np.fill_diagonal(near, 1.0)
    return served, near, rng.random(12)


def test_lazy_greedy_is_plain_greedy(world):
    served, near, weight = world

    def value(chosen):
        return _cover(served, chosen) + _facility(near, weight, chosen)

    terms = [Cover(sparse.csr_array(served)), Facility(sparse.csr_array(near), weight)]
    chosen, gains = greedy(terms, 12, 6)
    assert chosen.tolist() == _plain(value, 12, 6)
    np.testing.assert_allclose(gains.sum(), value(chosen), rtol=1e-12)
    assert (np.diff(gains) <= 1e-12).all()


def test_greedy_keeps_its_promise(world):
    served, _, _ = world
    chosen, _ = greedy([Cover(sparse.csr_array(served))], 12, 3)
    best = max(_cover(served, some) for some in itertools.combinations(range(12), 3))
    assert _cover(served, chosen) >= (1 - 1 / np.e) * best


def test_more_than_there_are_is_all_of_them():
    chosen, gains = greedy([Cover(sparse.csr_array(np.eye(3)))], 3, 9)
    assert chosen.tolist() == [0, 1, 2] and len(gains) == 3
