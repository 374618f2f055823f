"""ASIF against its definition, written plainly."""

import numpy as np
import pytest

from ape_jax.align import closed_form
from ape_jax.align.closed_form.asif import relative, unit
from ape_jax.align.closed_form.paired import from_rows
from ape_jax.errors import UserError


def plain(x, anchors, neighbours, power):
    """Relative coordinates as in the paper: similarities, the largest kept, power, length one."""
    rows = x @ anchors.T
    for row in rows:
        row[np.argsort(-row)[neighbours:]] = 0
        row[row < 0] = 0
    rows = rows**power
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def world(rng):
    shared = rng.normal(size=(1500, 12))
    x = np.hstack([shared, 0.5 * rng.normal(size=(1500, 4))]) + 1
    y = shared @ rng.normal(size=(12, 20)) + 0.5 * rng.normal(size=(1500, 20))
    return x.astype(np.float32), y.astype(np.float32)


@pytest.mark.parametrize("neighbours, power", [(1, 1.0), (20, 1.0), (50, 8.0), (5000, 2.0)])
def test_relative_coordinates_are_the_papers(world, neighbours, power):
    x = unit(world[0] - world[0].mean(0))
    ours = relative(x[1000:], x[:1000], neighbours, power)
    np.testing.assert_allclose(
        ours.dense(), plain(x[1000:], x[:1000], neighbours, power), atol=1e-5
    )
    np.testing.assert_allclose(ours.similarities(ours), ours.dense() @ ours.dense().T, atol=1e-5)


def test_similarities_are_those_of_centred_unit_vectors(world):
    x, y = world
    fit = closed_form.asif(from_rows(x[:1000], y[:1000]), 40, 4.0)
    ours = fit.images(y[1000:]).similarities(fit.texts(x[1000:]))
    zx, zy = (unit(side - side[:1000].mean(0)) for side in (x, y))
    texts, images = (plain(z[1000:], z[:1000], 40, 4.0) for z in (zx, zy))
    np.testing.assert_allclose(ours, images @ texts.T, atol=1e-4)


def test_an_anchor_is_the_average_of_an_images_views_and_captions(rng):
    text, image = rng.normal(size=(3, 4)), rng.normal(size=(2, 5, 6))
    pairs = closed_form.Paired(
        text=text, image=image, text_index=np.array([0, 2, 1]), image_index=np.array([0, 0, 1])
    )
    fit = closed_form.asif(pairs, 2, 1.0)
    captions = np.stack([(text[0] + text[2]) / 2, text[1]])
    np.testing.assert_allclose(fit.text, unit(captions - captions.mean(0)), atol=1e-5)
    views = image.mean(1)
    np.testing.assert_allclose(fit.image, unit(views - views.mean(0)), atol=1e-5)


def test_the_choice_is_by_held_out_retrieval(world):
    pairs = from_rows(*world)
    fit = closed_form.asif_cv(pairs, neighbours=[1, 50], powers=[1.0])
    assert fit.neighbours == 50  # One neighbour says who is nearest, and nothing more.


def test_nothing_kept_is_one_sentence(world):
    with pytest.raises(UserError, match="write positive numbers"):
        relative(world[0], world[0], 0, 1.0)
