"""Free pairs behind the pairs: weighted together, fitted to, and never held out."""

import dataclasses

import numpy as np
import pytest

from ape_jax.align.closed_form import (
    Free,
    Paired,
    appended,
    cca,
    cca_cv,
    held_out,
    procrustes_cv,
    ridge_pairs,
)
from ape_jax.align.closed_form.paired import NEVER
from ape_jax.align.closed_form.sums import moments


@pytest.fixture
def paired(rng):
    """Two captions an image of forty images, in three views."""
    image = rng.normal(size=(40, 3, 4)).astype(np.float32)
    text = np.repeat(image.mean(axis=1), 2, axis=0) @ rng.normal(size=(4, 5))
    return Paired(
        text=(text + rng.normal(size=(80, 5))).astype(np.float32),
        image=image,
        text_index=np.arange(80),
        image_index=np.repeat(np.arange(40), 2),
        mean=rng.normal(size=4),
        std=rng.uniform(1, 2, size=4),
    )


@pytest.fixture
def free(rng):
    """Six classes, of one to three names; two have a name in common."""
    return Free(
        text=rng.normal(size=(8, 5)).astype(np.float32),
        image=rng.normal(size=(6, 4)).astype(np.float32),
        text_index=np.array([0, 1, 2, 3, 3, 4, 5, 6, 7]),
        image_index=np.array([0, 0, 1, 2, 3, 4, 4, 4, 5]),
    )


def by_hand(paired, free, weight):
    """The same pairs as arrays in memory, one row a pair and view, and their weights."""
    image = (paired.image.astype(np.float64) - paired.mean) / paired.std
    rows = (free.image.astype(np.float64) - paired.mean) / paired.std
    x = np.concatenate([paired.text[paired.text_index], free.text[free.text_index]])
    views = np.concatenate(
        [image[paired.image_index], np.repeat(rows[free.image_index][:, None], 3, axis=1)]
    )
    share = 1 / np.bincount(free.image_index)[free.image_index]
    weights = np.concatenate([np.ones(80), weight * 80 * share / share.sum()])
    return x.astype(np.float64), views, weights


def test_moments_are_those_of_weighted_rows(paired, free):
    x, views, weights = by_hand(paired, free, 0.5)
    found = moments(appended(paired, free, 0.5))
    y = views.mean(axis=1)
    assert found.count == pytest.approx(1.5 * 80) and found.view_count == pytest.approx(80)
    np.testing.assert_allclose(found.text_text, x.T @ (weights[:, None] * x), rtol=1e-9)
    np.testing.assert_allclose(found.text_image, x.T @ (weights[:, None] * y), rtol=1e-6)
    np.testing.assert_allclose(found.image_sum, weights @ y, rtol=1e-6)
    np.testing.assert_allclose(weights[80:].sum(), 40)


def test_the_noise_of_views_is_that_of_the_images(paired, free):
    np.testing.assert_allclose(moments(appended(paired, free, 3.0)).noise, moments(paired).noise)


def test_free_pairs_of_no_weight_to_speak_of_change_no_fit(paired, free):
    alone, both = cca(paired, 0.1), cca(appended(paired, free, 1e-9), 0.1)
    np.testing.assert_allclose(np.abs(both.text_kernel), np.abs(alone.text_kernel), rtol=1e-4)
    assert not np.allclose(cca(appended(paired, free, 1.0), 0.1).correlations, alone.correlations)


def test_no_free_pair_is_held_out_and_all_are_fitted_to(paired, free, monkeypatch):
    both = appended(paired, free, 1.0)
    fold = held_out.folds(both, 4, 0)
    np.testing.assert_array_equal(fold[:40], held_out.folds(paired, 4, 0))
    assert (fold[40:] == NEVER).all() and len(fold) == 46
    split, total = held_out.split(both, fold)
    assert len(split) == 4 and not any(members[40:].any() for members, _ in split)
    assert total.count == pytest.approx(160)
    assert sum(part.count for _, part in split) == pytest.approx(80)


@pytest.mark.parametrize("fit", [cca_cv, procrustes_cv, ridge_pairs])
def test_held_out_images_are_those_of_the_pairs_alone(paired, free, fit, monkeypatch):
    seen = []
    original = held_out.sample

    def sample(paired, members, limit, seed):
        seen.append(members)
        return original(paired, members, limit, seed)

    monkeypatch.setattr(held_out, "sample", sample)
    fit(appended(paired, free, 1.0), folds=4)
    assert not any(members[40:].any() for members in seen)
    assert len(seen) == (0 if fit is ridge_pairs else 4)


def test_ridge_chooses_its_strength_by_errors_on_the_pairs_alone(paired, free):
    folds, both = np.arange(40) % 4, appended(paired, free, 1.0)
    x, views, weights = by_hand(paired, free, 1.0)
    y, fold = views.mean(axis=1), np.append(folds[paired.image_index], np.full(9, -1))

    def fit(rows, l2):
        """Weighted ridge with a bias; its prediction."""
        w = weights[rows, None]
        means = [(w * z[rows]).sum(0) / w.sum() for z in (x, y)]
        a, b = x[rows] - means[0], y[rows] - means[1]
        kernel = np.linalg.solve(a.T @ (w * a) + l2 * np.eye(5), a.T @ (w * b))
        return lambda z: (z - means[0]) @ kernel + means[1]

    def error(l2):
        """Of the views of the pairs that a fold holds out, fitted to all others."""
        found = 0.0
        for k in range(4):
            predicted = fit(fold != k, l2)(x[fold == k])
            found += np.square(views[fold == k] - predicted[:, None]).mean()
        return found

    w = weights[:, None]
    centred = x - (w * x).sum(0) / w.sum()
    grid = np.linalg.eigvalsh(centred.T @ (w * centred))[-1] * np.geomspace(1e-6, 1e2, 33)
    best = grid[np.argmin([error(l2) for l2 in grid])]
    assert ridge_pairs(both, folds=folds).l2 == pytest.approx(best, rel=1e-6)


def test_names_and_weights_survive_weighted_pairs(paired, free):
    weighted = dataclasses.replace(paired, weights=np.linspace(0.1, 1, 80))
    both = appended(weighted, free, 2.0)
    np.testing.assert_array_equal(both.weights[:80], weighted.weights)
    assert both.weights[80:].sum() == pytest.approx(2 * weighted.weights.sum())
    of_class = np.bincount(free.image_index, both.weights[80:])
    np.testing.assert_allclose(of_class, of_class[0])
