"""Ridge regression against scikit-learn's."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.model_selection import PredefinedSplit

from ape_jax.align import closed_form
from ape_jax.align.closed_form import paired
from ape_jax.align.closed_form.ridge import _leave_one_out_errors
from ape_jax.errors import UserError

GRID = np.geomspace(1e-2, 1e5, 15)


def features(n, d, k=4, noise=1.0, seed=0):
    rng = np.random.default_rng(seed)
    spread = np.geomspace(5, 0.05, d)  # as text features have: few strong directions, many weak
    x = rng.normal(size=(n, d)) * spread + rng.normal(size=d)
    y = x @ rng.normal(size=(d, k)) + noise * rng.normal(size=(n, k)) + 3
    return x, y


def assert_same(ours, theirs, x):
    np.testing.assert_allclose(ours.kernel, theirs.coef_.T, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(ours.bias, theirs.intercept_, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(ours(x), theirs.predict(x), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("l2", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("n, d", [(200, 20), (30, 80), (20, 20), (1, 5)])
def test_ridge_equals_scikit_learn_in_primal_and_dual_form(n, d, l2, center):
    x, y = features(n, d)
    theirs = Ridge(l2, fit_intercept=center, solver="svd").fit(x, y)
    assert_same(closed_form.ridge(x, y, l2, center=center), theirs, x)


def test_float32_features_are_solved_in_float64():
    x, y = features(200, 20)
    x, y = x.astype(np.float32), y.astype(np.float32)
    fit = closed_form.ridge(x, y, 1e-2)
    assert fit.kernel.dtype == np.float64
    assert_same(fit, Ridge(1e-2, solver="svd").fit(x.astype(float), y.astype(float)), x)


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("n, d, noise", [(200, 20, 1), (200, 20, 30), (40, 90, 3), (40, 40, 10)])
def test_leave_one_out_chooses_and_fits_as_scikit_learn(n, d, noise, center):
    x, y = features(n, d, noise=noise)
    theirs = RidgeCV(GRID, fit_intercept=center).fit(x, y)
    ours = closed_form.ridge_cv(x, y, l2s=GRID, center=center)
    assert ours.l2 == pytest.approx(theirs.alpha_)
    assert_same(ours, theirs, x)


@pytest.mark.parametrize("center", [True, False])
def test_leave_one_out_errors_equal_leaving_each_row_out(center):
    x, y = features(25, 8)
    by_hand = np.zeros(len(GRID))
    for row in range(25):
        rest = np.arange(25) != row
        for i, l2 in enumerate(GRID):
            fit = closed_form.ridge(x[rest], y[rest], l2, center=center)
            by_hand[i] += ((fit(x[row]) - y[row]) ** 2).sum()
    ours = _leave_one_out_errors(x, y, GRID, center)
    np.testing.assert_allclose(ours, by_hand, rtol=1e-8)


@pytest.mark.parametrize("n, d, noise", [(200, 20, 10), (60, 90, 3)])
def test_given_folds_choose_and_fit_as_scikit_learn(n, d, noise):
    x, y = features(n, d, noise=noise)
    fold = np.random.default_rng(1).integers(0, 4, n)
    scores = {"cv": PredefinedSplit(fold), "scoring": "neg_mean_squared_error"}
    theirs = RidgeCV(GRID, **scores).fit(x, y)
    ours = closed_form.ridge_cv(x, y, l2s=GRID, folds=fold)
    assert ours.l2 == pytest.approx(theirs.alpha_)
    assert_same(ours, theirs, x)


def test_drawn_folds_are_balanced_and_keep_groups_together():
    groups = np.repeat(np.arange(23), 3)
    fold = paired.assign(69, 5, groups, seed=0)
    assert (fold.reshape(23, 3) == fold[::3, None]).all()
    assert np.ptp(np.bincount(fold)) <= 3
    assert not np.array_equal(fold, paired.assign(69, 5, groups, seed=1))


def test_groups_regularise_more_where_rows_repeat_each_other():
    x, y = features(60, 40, noise=30)
    image = np.repeat(np.arange(60), 5)
    jitter = 1e-3 * np.random.default_rng(0).normal(size=(300, 40))
    x, y = x[image] + jitter, y[image]
    alone = closed_form.ridge_cv(x, y)
    grouped = closed_form.ridge_cv(x, y, groups=image)
    x_new, y_new = features(2000, 40, noise=0)
    assert grouped.l2 > 10 * alone.l2
    assert ((grouped(x_new) - y_new) ** 2).mean() < ((alone(x_new) - y_new) ** 2).mean()


def test_the_default_grid_follows_the_scale_of_the_features():
    x, y = features(100, 10, noise=10)
    small, large = closed_form.ridge_cv(x, y), closed_form.ridge_cv(1e3 * x, y)
    assert large.l2 == pytest.approx(1e6 * small.l2)
    np.testing.assert_allclose(large(1e3 * x), small(x), rtol=1e-6)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "change, message",
    [
        ({"y": np.zeros((9, 2))}, r"x has shape \(10, 3\) and y \(9, 2\)"),
        ({"x": np.full((10, 3), np.nan)}, "x is not finite in row 0"),
        ({"l2s": [1.0, 0.0]}, "write positive numbers"),
        ({"folds": 1}, "folds is 1; with 10 rows"),
        ({"groups": np.zeros(10, int)}, "with 1 rows or groups"),
        ({"folds": np.zeros(10, int)}, "1 different values"),
        ({"x": np.zeros((1, 3)), "y": np.zeros((1, 2))}, "at least 2"),
    ],
)
def test_what_cannot_be_fitted_is_refused(change, message):
    arguments = {"x": np.ones((10, 3)), "y": np.ones((10, 2))} | change
    with pytest.raises(UserError, match=message):
        closed_form.ridge_cv(**arguments)
