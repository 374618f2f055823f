"""Position tables against torch.nn.functional.interpolate."""

import numpy as np
import pytest
import torch

from ape_jax.nn.positions import resize_matrix, resize_positions


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize(("old", "new"), [(37, 8), (37, 16), (14, 24), (5, 5), (2, 7), (7, 2)])
def test_matrix_equals_torch_interpolate(old, new, antialias, mode):
    row = np.random.default_rng(0).normal(size=(old, old)).astype(np.float32)
    want = torch.nn.functional.interpolate(
        torch.tensor(row)[None, None],
        size=(new, new + 1),
        mode=mode,
        align_corners=False,
        antialias=antialias,
    )
    down, across = (resize_matrix(old, n, antialias, mode == "bilinear") for n in (new, new + 1))
    got = down @ row @ across.T
    np.testing.assert_allclose(got, want[0, 0].numpy(), atol=1e-5)


def test_prefix_rows_stay_and_the_native_grid_is_untouched():
    table = np.random.default_rng(0).normal(size=(2 + 9, 4)).astype(np.float32)
    assert resize_positions(table, prefix=2, grid=(3, 3), antialias=False) is table
    out = resize_positions(table, prefix=2, grid=(4, 2), antialias=False)
    assert out.shape == (2 + 8, 4)
    np.testing.assert_array_equal(out[:2], table[:2])
