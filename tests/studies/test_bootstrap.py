"""Intervals over queries and seeds: equal to SciPy's where there is one level, wider with two."""

import numpy as np
import pytest
from scipy import stats

from ape_jax.studies import bootstrap
from ape_jax.studies.bootstrap import Hits, differences, hits_of


def hits(*runs, ids=None):
    """One caption an image, found both ways or neither."""
    runs = np.array(runs, np.float64)
    n = runs.shape[1]
    ids = np.arange(n, dtype=np.uint64) if ids is None else ids
    return Hits(id=ids, i2t=runs, t2i=runs, captions=np.ones(n))


@pytest.fixture
def two():
    rng = np.random.default_rng(0)
    first = (rng.random(150) < 0.4).astype(float)
    other = np.where(rng.random(150) < 0.7, first, rng.random(150) < 0.3).astype(float)
    return first, other


def test_one_run_each_is_scipys_paired_bootstrap(two):
    first, other = two
    found = differences({"a": [hits(first)], "b": [hits(other)]}, "a")["b"]
    expected = stats.bootstrap(
        (first, other),
        lambda a, b, axis: 100 * (a - b).mean(axis=axis),
        paired=True,
        method="percentile",
        n_resamples=10_000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert found.value == pytest.approx(100 * (first - other).mean())
    np.testing.assert_allclose([found.low, found.high], expected, atol=0.7)


def test_seeds_alone_are_scipys_bootstrap_of_their_means():
    """Every query alike: what is left is the spread of seeds."""
    levels = [0.2, 0.35, 0.3, 0.5, 0.45, 0.25]
    runs = [np.full(40, level) for level in levels]
    constant = [hits(np.zeros(40))]
    found = differences({"a": [hits(*runs)], "b": constant}, "a")["b"]
    expected = stats.bootstrap(
        (100 * np.array(levels),), np.mean, method="percentile", n_resamples=10_000, rng=2
    ).confidence_interval
    np.testing.assert_allclose([found.low, found.high], expected, atol=0.7)


def test_both_levels_have_the_variance_of_both(two):
    """The textbook's two-way variance, by plain loops."""
    rng = np.random.default_rng(3)
    runs = [np.clip(two[0] * level, 0, 1) for level in (0.4, 0.7, 1.0)]
    drawn = []
    for _ in range(4000):
        seeds, queries = rng.integers(3, size=3), rng.integers(150, size=150)
        drawn.append(100 * np.mean([runs[s][queries].mean() for s in seeds]))
    found = differences({"a": [hits(*runs)], "b": [hits(np.zeros(150))]}, "a")["b"]
    np.testing.assert_allclose([found.low, found.high], np.percentile(drawn, [2.5, 97.5]), atol=1)
    one_level = differences({"a": [hits(np.mean(runs, axis=0))], "b": [hits(0 * two[0])]}, "a")["b"]
    assert found.high - found.low > 1.2 * (one_level.high - one_level.low)


def test_a_method_is_compared_on_the_same_queries_and_seeds(two):
    """A constant gain is certain, whatever is drawn; unpaired, it would not be."""
    runs = np.stack([0.5 * two[0], 0.4 * two[0], 0.3 * two[0]])
    found = differences({"a": [hits(*(runs + 0.1))], "b": [hits(*runs)]}, "a")["b"]
    np.testing.assert_allclose([found.value, found.low, found.high], 10, atol=1e-9)


def test_queries_that_two_domains_share_are_drawn_once(two):
    """Two copies of a domain say no more than one; two other ones do."""
    first, other = two
    alone = differences({"a": [hits(first)], "b": [hits(other)]}, "a")["b"]
    twice = differences({"a": [hits(first)] * 2, "b": [hits(other)] * 2}, "a")["b"]
    assert (twice.low, twice.high) == (alone.low, alone.high)
    others = np.arange(1000, 1150, dtype=np.uint64)
    apart = differences(
        {"a": [hits(first), hits(first, ids=others)], "b": [hits(other), hits(other, ids=others)]},
        "a",
    )["b"]
    assert apart.value == pytest.approx(alone.value)
    ratio = (apart.high - apart.low) / (alone.high - alone.low)
    assert ratio == pytest.approx(2**-0.5, rel=0.15)


def test_hits_are_the_recall_of_the_ranks():
    from ape_jax.evaluators.retrieval import retrieval_ranks

    rng = np.random.default_rng(4)
    zimg, ztxt = (rng.normal(size=(n, 8)).astype(np.float32) for n in (30, 70))
    index = np.sort(rng.integers(30, size=70))
    ranks = retrieval_ranks(zimg, ztxt, index)
    found = hits_of(np.arange(30, dtype=np.uint64), [(ranks.i2t, ranks.t2i)], index)
    metrics = ranks.metrics()
    expected = 50 * (metrics["i2t_r10"] + metrics["t2i_r10"])
    assert found.recall(np.ones((1, 30)))[0, 0] == pytest.approx(expected)


def test_the_same_seed_draws_the_same_and_chunks_change_nothing(two, monkeypatch):
    methods = {"a": [hits(two[0])], "b": [hits(two[1])]}
    whole = differences(methods, "a", draws=500)
    assert differences(methods, "a", draws=500) == whole
    monkeypatch.setattr(bootstrap, "_CHUNK", 150 * 100)
    parts = differences(methods, "a", draws=500)["b"]
    assert abs(parts.low - whole["b"].low) < 2
