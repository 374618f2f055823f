"""Held-out retrieval of CCA, against a fit and ranks made apart."""

import dataclasses

import numpy as np
import pytest

from ape_jax.align.closed_form import Paired, cca, from_rows
from ape_jax.align.layers import concept_splits, held_out_cca


@pytest.fixture
def paired():
    rng = np.random.default_rng(0)
    common = rng.normal(size=(240, 5))
    x = common @ rng.normal(size=(5, 12)) + 0.7 * rng.normal(size=(240, 12))
    y = common @ rng.normal(size=(5, 10)) + 0.7 * rng.normal(size=(240, 10))
    return from_rows(x, y)


def scores_by_hand(paired, fit, score, l2, power):
    """MRR and R@10 of one split: our closed form on the rows, ranks by sorting."""
    x, y = paired.text, paired.image[:, 0]
    solved = cca(from_rows(x[fit], y[fit]), l2, parts=paired.parts)
    weights = solved.correlations**power
    ztxt = (x[score] - solved.text_mean) @ solved.text_kernel * weights
    zimg = (y[score] - solved.image_mean) @ solved.image_kernel * weights
    ztxt /= np.linalg.norm(ztxt, axis=1, keepdims=True)
    zimg /= np.linalg.norm(zimg, axis=1, keepdims=True)
    mrr, recall = [], []
    for cosine in (zimg @ ztxt.T, ztxt @ zimg.T):
        order = np.argsort(-cosine, axis=1)
        rank = 1 + np.argmax(order == np.arange(len(order))[:, None], axis=1)
        mrr.append((1 / rank).mean())
        recall.append((rank <= 10).mean())
    return np.mean(mrr), np.mean(recall)


@pytest.mark.parametrize("parts", [(), (3, 5, 2)])
def test_scores_equal_a_fit_of_ours_on_the_same_rows(paired, parts):
    paired = dataclasses.replace(paired, parts=parts)
    splits = concept_splits(paired, count=3)
    got = held_out_cca(paired, splits, l2s=(0.1,), powers=(2.0,))
    want = [scores_by_hand(paired, s.fit, s.score, 0.1, 2.0) for s in splits]
    np.testing.assert_allclose(np.stack([got.mrr, got.recall], axis=1), want, atol=1e-6)
    assert 0.1 < got.mrr.mean() < 0.99


def test_the_best_of_the_grid_is_taken(paired):
    splits = concept_splits(paired)
    one = [held_out_cca(paired, splits, l2s=(l2,), powers=(1.0,)).mrr.mean() for l2 in (1e-3, 30.0)]
    both = held_out_cca(paired, splits, l2s=(1e-3, 30.0), powers=(1.0,))
    assert both.mrr.mean() == pytest.approx(max(one))


def test_images_that_share_a_text_are_on_one_side():
    rng = np.random.default_rng(0)
    paired = Paired(
        text=rng.normal(size=(30, 4)),
        image=rng.normal(size=(60, 1, 5)),
        text_index=np.arange(60) // 2,
        image_index=np.arange(60),
    )
    splits = concept_splits(paired)
    assert np.sum([s.score for s in splits], axis=0).tolist() == [1] * 60
    for split in splits:
        assert not (set(paired.text_index[split.fit]) & set(paired.text_index[split.score]))


def test_a_domain_is_left_out_with_the_concepts_that_are_scored():
    rng = np.random.default_rng(0)
    texts, domain = np.repeat(np.arange(40), 2), np.tile([0, 1], 40)
    paired = Paired(
        text=rng.normal(size=(40, 4)),
        image=rng.normal(size=(80, 1, 5)),
        text_index=texts,
        image_index=np.arange(80),
    )
    splits = concept_splits(paired, domain)
    crossing = [s for s in splits if s.crosses]
    assert len(splits) == 5 + len(crossing) and {d for s in crossing for d in domain[s.score]} == {
        0,
        1,
    }
    for split in crossing:
        assert not (set(domain[split.fit]) & set(domain[split.score]))
        assert not (set(texts[split.fit]) & set(texts[split.score]))
    scores = held_out_cca(paired, splits)
    assert scores.crosses.sum() == len(crossing) and (scores.mrr > 0).all()


def test_a_part_that_does_not_vary_is_left_out(paired):
    """A class token before the first block, beside a layer."""
    constant = np.concatenate([np.ones((240, 1, 3)), paired.image], axis=2)
    joined = dataclasses.replace(paired, image=constant, parts=(3, 10))
    splits = concept_splits(joined, count=3)
    got = held_out_cca(joined, splits, l2s=(0.1,), powers=(1.0,))
    want = [scores_by_hand(joined, s.fit, s.score, 0.1, 1.0)[0] for s in splits]
    np.testing.assert_allclose(got.mrr, want, atol=1e-6)


def test_what_does_not_vary_scores_zero(paired):
    constant = from_rows(paired.text, np.ones((240, 3)))
    assert held_out_cca(constant, concept_splits(paired)).mrr.tolist() == [0.0] * 5
