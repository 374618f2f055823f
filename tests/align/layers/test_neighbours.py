"""Overlaps of neighbourhoods, against loops in plain NumPy."""

import numpy as np
import pytest

from ape_jax.align.layers import calibrated, mutual_overlap, nearest, rice_k


def overlap_in_loops(x, y, k):
    """The share of common neighbours, row by row and by sorting, in float64."""
    total = 0
    for i in range(len(x)):
        sets = []
        for z in (x, y):
            cosine = z @ z[i] / np.linalg.norm(z, axis=1) / np.linalg.norm(z[i])
            cosine[i] = -np.inf
            sets.append(set(np.argsort(-cosine)[:k].tolist()))
        total += len(sets[0] & sets[1])
    return total / (k * len(x))


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1500, 6))
    return x, x @ rng.normal(size=(6, 9)) + rng.normal(size=(1500, 9))


def test_overlap_equals_loops_over_rows(pair):
    x, y = (z[:200] for z in pair)
    for k in (1, 7, rice_k(200)):
        got = mutual_overlap(nearest(x, k), nearest(y, k))
        assert got == pytest.approx(overlap_in_loops(x, y, k), abs=1e-12)


def test_neighbours_are_the_same_over_blocks_of_rows(pair):
    x = pair[0].astype(np.float32)
    near = nearest(x, 5)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    for i in (0, 1023, 1024, 1499):
        cosine = unit @ unit[i]
        cosine[i] = -np.inf
        assert set(near[i]) == set(np.argsort(-cosine)[:5])


def test_permuted_pairs_have_the_overlap_of_chance(pair):
    x, y = (z[:400] for z in pair)
    k = rice_k(400)
    found = calibrated(nearest(x, k), nearest(y, k), permutations=40)
    assert found.null == pytest.approx(k / 399, abs=4 * found.spread / 40**0.5 + 1e-4)
    # Recomputed from vectors whose rows are permuted, not from renamed neighbours.
    order = np.random.default_rng(5).permutation(400)
    by_hand = mutual_overlap(nearest(x, k), nearest(y[order], k))
    assert abs(by_hand - found.null) < 5 * found.spread
    assert found.score == pytest.approx((found.overlap - found.null) / (1 - found.null))
    assert found.overlap > found.null + 10 * found.spread


def test_full_overlap_scores_one_and_noise_scores_none(pair):
    x = pair[0][:300]
    near = nearest(x, 13)
    assert calibrated(near, near).score == pytest.approx(1)
    noise = np.random.default_rng(1).normal(size=x.shape)
    assert abs(calibrated(near, nearest(noise, 13)).score) < 0.02
