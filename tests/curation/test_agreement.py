"""Agreement of captions with images: against a reference, and on planted mismatches."""

import numpy as np
import pytest

from ape_jax.align.closed_form import Paired, cca, from_rows, held_out
from ape_jax.curation import agreement
from ape_jax.errors import UserError


@pytest.fixture
def rows():
    """Texts and images with eight dimensions in common."""
    rng = np.random.default_rng(0)
    common = rng.normal(size=(600, 8))
    text = np.concatenate([common, rng.normal(size=(600, 4))], 1) @ rng.normal(size=(12, 12))
    image = np.concatenate([common, rng.normal(size=(600, 6))], 1) @ rng.normal(size=(14, 14))
    return text, image


def test_planted_mismatches_have_even_shares_and_others_small_ones(rows):
    text, image = rows
    wrong = np.arange(0, 600, 10)
    text[wrong] = text[np.roll(wrong, 1)]
    shares = agreement.agreement(from_rows(text, image))
    assert 0.3 < shares[wrong].mean() < 0.7
    assert np.delete(shares, wrong).mean() < 0.1
    assert 0.06 < agreement.unrelated(shares) < 0.16


def test_a_share_is_what_its_definition_says(rows):
    text, image = rows
    paired = from_rows(text, image)
    shares = agreement.agreement(paired, seed=3)
    fold = held_out.folds(paired, 5, 3)
    rest = fold != fold[0]
    fit = cca(from_rows(text[rest], image[rest]), 1.0, power=1.0)
    others = np.flatnonzero(~rest)  # Fewer than the sample: all of the fold.
    ztxt, zimg = fit.text(text[others]), fit.image(image[others])
    ztxt /= np.linalg.norm(ztxt, axis=1, keepdims=True)
    zimg /= np.linalg.norm(zimg, axis=1, keepdims=True)
    cosines, own = zimg @ ztxt.T, (zimg * ztxt).sum(axis=1)
    np.fill_diagonal(cosines, -1)
    better = (cosines > own[:, None]).sum(1) + (cosines > own[None]).sum(0)
    np.testing.assert_allclose(shares[others], better / 2 / (len(others) - 1), atol=2e-3)


def test_a_caption_of_several_images_does_not_stand_against_itself(rows):
    text, image = rows
    twice = Paired(
        text=text,
        image=np.repeat(image, 2, axis=0)[:, None],
        text_index=np.repeat(np.arange(600), 2),
        image_index=np.arange(1200),
    )
    assert agreement.agreement(twice).mean() < 0.1


def test_too_few_pairs_are_said(rows):
    text, image = rows
    with pytest.raises(UserError, match="--pairs: 9 pairs are too few"):
        agreement.agreement(from_rows(text[:9], image[:9]))
