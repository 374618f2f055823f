"""Orthogonal Procrustes against SciPy's."""

import numpy as np
import pytest
import scipy.linalg
from sklearn.decomposition import PCA

from ape_jax.align import closed_form
from ape_jax.align.closed_form.paired import from_rows
from ape_jax.errors import UserError


def sides(d, k, n=200):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, d)) * np.linspace(2, 1, d) + 3
    return x, x @ rng.normal(size=(d, k)) + rng.normal(size=(n, k))


def test_of_equal_widths_it_is_scipys_on_centred_sides():
    x, y = sides(8, 8)
    rotation, _ = scipy.linalg.orthogonal_procrustes(x - x.mean(0), y - y.mean(0))
    fit = closed_form.procrustes(from_rows(x, y))
    np.testing.assert_allclose(fit.text.kernel, rotation, atol=1e-8)
    np.testing.assert_allclose(fit.text(x), (x - x.mean(0)) @ rotation, atol=1e-7)
    np.testing.assert_allclose(fit.image(y), y - y.mean(0), atol=1e-9)


@pytest.mark.parametrize("d, k, dim", [(6, 11, 0), (11, 6, 0), (8, 8, 4)])
def test_wider_sides_come_by_their_principal_components(d, k, dim):
    x, y = sides(d, k)
    width = dim or min(d, k)
    x0, y0 = (
        PCA(width).fit_transform(side) if side.shape[1] > width else side - side.mean(0)
        for side in (x, y)
    )
    rotation, _ = scipy.linalg.orthogonal_procrustes(x0, y0)
    fit = closed_form.procrustes(from_rows(x, y), dim=dim)
    # The axes' signs are open: what both sides share is not.
    np.testing.assert_allclose(
        fit.text(x) @ fit.image(y).T, (x0 @ rotation) @ y0.T, rtol=1e-6, atol=1e-6
    )


def test_the_width_is_chosen_by_held_out_retrieval():
    rng = np.random.default_rng(0)
    shared = 3 * rng.normal(size=(300, 4))
    x, y = (np.hstack([shared, rng.normal(size=(300, 60))]) for _ in range(2))
    assert closed_form.procrustes_cv(from_rows(x, y), dims=[2, 4, 64]).dim == 4


def test_a_width_that_a_side_does_not_have_is_one_sentence():
    with pytest.raises(UserError, match="write 0 to 6"):
        closed_form.procrustes(from_rows(*sides(6, 11)), dim=7)
