"""Pairs that count more than others: as if they were there so often."""

import dataclasses

import numpy as np

from ape_jax.align.closed_form import Paired, cca
from ape_jax.align.closed_form.sums import by_fold, moments, text_mean


def pairs(rng):
    """Three captions an image of fourteen images, texts shared by some of them."""
    return Paired(
        text=rng.normal(size=(20, 5)).astype(np.float32),
        image=rng.normal(size=(14, 2, 4)).astype(np.float32),
        text_index=rng.integers(0, 20, 42),
        image_index=np.repeat(np.arange(14), 3),
    )


def test_a_whole_weight_is_so_many_pairs(rng):
    paired, times = pairs(rng), rng.integers(1, 4, 42)
    weighted = dataclasses.replace(paired, weights=times.astype(np.float64))
    repeated = dataclasses.replace(
        paired,
        text_index=np.repeat(paired.text_index, times),
        image_index=np.repeat(paired.image_index, times),
    )
    ours, theirs = (dataclasses.asdict(moments(x)) for x in (weighted, repeated))
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, rtol=1e-9, atol=1e-9, err_msg=name)
    np.testing.assert_allclose(text_mean(weighted), text_mean(repeated), rtol=1e-9)
    fold = np.arange(14) % 3
    for (_, ours), (_, theirs) in zip(by_fold(weighted, fold), by_fold(repeated, fold)):
        np.testing.assert_allclose(ours.text_image, theirs.text_image, rtol=1e-9, atol=1e-9)
    kernels = [cca(x, 0.1).text_kernel for x in (weighted, repeated)]
    np.testing.assert_allclose(np.abs(kernels[0]), np.abs(kernels[1]), rtol=1e-6)


def test_equal_weights_change_nothing_but_the_count(rng):
    paired = pairs(rng)
    half = moments(dataclasses.replace(paired, weights=np.full(42, 0.5)))
    whole = moments(paired)
    assert half.count == whole.count / 2
    for ours, theirs in zip(half.covariances(), whole.covariances()):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)
