"""Rows in the place of images."""

import numpy as np
import pytest

from ape_jax.align.free_pairs import placed
from ape_jax.errors import UserError


def test_rows_get_the_mean_and_the_total_variance_of_images_and_keep_their_shape(rng):
    rows = (rng.normal(size=(500, 6)) * [1, 2, 3, 4, 5, 6] + 7).astype(np.float32)
    images = rng.normal(size=(300, 6)) * 0.1 - 2
    found = placed(rows, rows.mean(0), rows.var(0).sum().item(), images.mean(0), images.std(0))
    np.testing.assert_allclose(found.mean(0), images.mean(0), atol=1e-5)
    assert found.var(0).sum() == pytest.approx(images.var(0).sum(), rel=1e-5)
    apart, before = found - found.mean(0), rows - rows.mean(0)
    scale = np.linalg.norm(apart) / np.linalg.norm(before)
    np.testing.assert_allclose(apart, scale * before, rtol=1e-3, atol=1e-5)


def test_rows_that_are_all_the_same_have_no_place():
    rows = np.ones((3, 2), np.float32)
    with pytest.raises(UserError, match=r"config\.classifier\.weight: all rows"):
        placed(rows, rows.mean(0), 0.0, np.zeros(2), np.ones(2))
