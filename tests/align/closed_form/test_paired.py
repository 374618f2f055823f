"""Sums over pairs equal those of the rows written out, and folds keep what belongs together."""

import dataclasses

import jax
import ml_dtypes
import numpy as np
import pytest
from sklearn.linear_model import Ridge

from ape_jax.align import closed_form
from ape_jax.align.closed_form import held_out, paired
from ape_jax.align.closed_form.cca import CCA
from ape_jax.align.closed_form.procrustes import PROCRUSTES
from ape_jax.align.closed_form.ridge_pairs import RIDGE, RIDGE_TEXT
from ape_jax.align.closed_form.sums import by_fold
from ape_jax.errors import UserError
from ape_jax.evaluators.retrieval import retrieval_metrics
from ape_jax.storage.rows.mapped import MappedRows, Part


def strengths(form, value):
    """All keys of a closed form that are numbers, at one value."""
    return {name: value for name, key in form.keys.items() if not isinstance(key.default, bool)}


@pytest.fixture
def pairs(rng):
    """40 images of 3 views; 0 to 3 captions each out of 50 texts, some of them shared."""
    image_index = np.sort(rng.integers(0, 40, 80))
    return closed_form.Paired(
        text=rng.normal(size=(50, 5)).astype(np.float32),
        image=rng.normal(size=(40, 3, 7)).astype(np.float32),
        text_index=rng.integers(0, 50, 80),
        image_index=image_index,
        mean=np.full(7, 0.5, np.float32),
        std=np.linspace(1, 2, 7, dtype=np.float32),
    )


def written_out(pairs):
    image = (pairs.image.astype(np.float64) - pairs.mean) / pairs.std
    x = np.repeat(pairs.text[pairs.text_index], image.shape[1], axis=0).astype(np.float64)
    return x, image[pairs.image_index].reshape(len(x), -1)


def test_moments_are_those_of_every_caption_beside_every_view(pairs):
    x, y = written_out(pairs)
    ours = closed_form.moments(pairs)
    both = np.cov(np.hstack([x, y]).T, bias=True)
    xx, yy, xy = ours.covariances()
    np.testing.assert_allclose(xx, both[:5, :5], atol=1e-12)
    np.testing.assert_allclose(yy, both[5:, 5:], atol=1e-12)
    np.testing.assert_allclose(xy, both[:5, 5:], atol=1e-12)
    np.testing.assert_allclose(ours.text_mean, x.mean(0), atol=1e-12)
    np.testing.assert_allclose(ours.image_mean, y.mean(0), atol=1e-12)


def test_moments_do_not_depend_on_blocks_and_folds_add_up(pairs, monkeypatch):
    whole = closed_form.moments(pairs)
    monkeypatch.setattr("ape_jax.align.closed_form.sums._BLOCK", 7)
    parts = [part for _, part in by_fold(pairs, np.arange(40) % 3)]
    added = parts[0] + parts[1] + parts[2]
    for name in ("count", "text_text", "image_image", "text_image", "text_sum", "image_sum"):
        np.testing.assert_allclose(getattr(added, name), getattr(whole, name), atol=1e-10)


def test_one_pass_for_all_folds_gives_each_fold_its_own_sums(pairs, monkeypatch):
    """To the bit, in whatever order texts first appear: blocks are of a fold's own rows."""
    monkeypatch.setattr("ape_jax.align.closed_form.sums._BLOCK", 7)
    order = dataclasses.replace(pairs, text_index=np.minimum(np.arange(80), 49))
    for given in (pairs, order):
        for members, part in by_fold(given, np.arange(40) % 3):
            alone = closed_form.moments(given, members)
            for field in dataclasses.fields(part):
                np.testing.assert_array_equal(getattr(part, field.name), getattr(alone, field.name))


@pytest.mark.parametrize("form", [CCA, RIDGE, RIDGE_TEXT, PROCRUSTES])
def test_features_on_disk_give_the_same_bits_as_in_memory(pairs, form, tmp_path):
    np.save(tmp_path / "text.npy", pairs.text)
    parts = [
        Part(tmp_path / str(k), len(rows)) for k, rows in enumerate(np.split(pairs.image, [13]))
    ]
    for part, rows in zip(parts, np.split(pairs.image, [13]), strict=True):
        part.path.write_bytes(rows.tobytes())
    on_disk = dataclasses.replace(
        pairs,
        text=np.load(tmp_path / "text.npy", mmap_mode="r"),
        image=MappedRows(parts, pairs.image.shape[1:], pairs.image.dtype),
    )
    settings = strengths(form, 0.1)
    ours, theirs = (form.solve(x, width=2, **settings).heads for x in (on_disk, pairs))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.parametrize("side", ["text", "image"])
def test_what_is_not_finite_is_named_by_its_row(pairs, side):
    values = getattr(pairs, side).copy()
    used = np.unique(pairs.text_index if side == "text" else pairs.image_index)[-1]
    values[used, ..., -1] = np.nan
    with pytest.raises(UserError, match=f"^{side} is not finite in row {used}; encode"):
        closed_form.cca(dataclasses.replace(pairs, **{side: values}), 0.1)


@pytest.mark.parametrize("form", [CCA, RIDGE, RIDGE_TEXT, PROCRUSTES])
@pytest.mark.parametrize(("side", "name"), [("text", "captions"), ("image", "images")])
def test_where_nothing_varies_it_is_said(pairs, form, side, name):
    """An l2 above 0 would not help: CCA has one here."""
    same = np.ones_like(getattr(pairs, side)) * np.float32(0.7)
    settings = strengths(form, 3.0)
    with pytest.raises(UserError, match=f"^the {name} of these .* nothing varies"):
        form.solve(dataclasses.replace(pairs, **{side: same}), width=2, **settings)


def test_ridge_on_pairs_is_ridge_on_the_rows_written_out(pairs):
    x, y = written_out(pairs)
    # Three views are three rows of a third each.
    ours = closed_form.ridge_pairs(pairs, l2=2.0)
    theirs = closed_form.ridge(x, y, 6.0)
    np.testing.assert_allclose(ours.kernel, theirs.kernel, atol=1e-10)
    np.testing.assert_allclose(ours.bias, theirs.bias, atol=1e-10)


def test_ridge_towards_texts_is_scikit_learns_on_every_view(pairs):
    x, y = written_out(pairs)
    ours = closed_form.ridge_pairs(pairs, l2=2.0, towards="text")
    theirs = Ridge(6.0).fit(y, x)  # Three views are three rows of a third.
    np.testing.assert_allclose(ours.kernel, theirs.coef_.T, atol=1e-10)
    np.testing.assert_allclose(ours.bias, theirs.intercept_, atol=1e-10)


def test_half_precision_is_read_as_it_is(pairs):
    narrow = pairs.image.astype(ml_dtypes.bfloat16)
    a = closed_form.Paired(
        text=pairs.text, image=narrow, text_index=pairs.text_index, image_index=pairs.image_index
    )
    b = closed_form.Paired(
        text=pairs.text,
        image=narrow.astype(np.float32),
        text_index=pairs.text_index,
        image_index=pairs.image_index,
    )
    np.testing.assert_array_equal(
        closed_form.moments(a).image_image, closed_form.moments(b).image_image
    )


def test_images_that_share_texts_are_linked_along_chains():
    text_index, image_index = np.array([0, 1, 1, 2, 3, 2, 4]), np.array([0, 0, 1, 1, 2, 3, 4])
    np.testing.assert_array_equal(
        paired.linked(text_index, image_index, 8), [0, 0, 2, 0, 4, 5, 6, 7]
    )


def test_where_sharing_links_nearly_all_each_stands_alone():
    np.testing.assert_array_equal(paired.linked(np.zeros(6, int), np.arange(6), 6), np.arange(6))


def test_a_sample_of_a_fold_keeps_its_own_captions_only(pairs):
    out = held_out.sample(pairs, np.arange(40) < 20, limit=8, seed=0)
    assert len(out.image) == 8 and len(np.unique(out.image_index)) == 8
    for index, row in zip(out.image_index, out.text_index):
        image = int(np.argmin(np.abs(pairs.images(np.arange(40))[:, 0] - out.image[index]).sum(1)))
        texts = pairs.text[pairs.text_index[pairs.image_index == image]]
        assert (np.abs(texts - out.text[row]).sum(1) < 1e-6).any()


def test_the_score_is_the_mean_reciprocal_rank_both_ways():
    out = held_out.HeldOut(
        image=np.zeros((2, 1)),
        text=np.zeros((3, 1)),
        text_index=np.array([0, 1, 2]),
        image_index=np.array([0, 0, 1]),
    )
    scores = np.array([[0.1, 0.9, 0.5], [0.2, 0.3, 0.1]])
    # Images find theirs at ranks 1 and 3; texts at 2, 1 and 2.
    assert out.score_similarities(scores) == pytest.approx(((1 + 1 / 3) / 2 + (2 / 3)) / 2)


def test_the_score_ranks_as_the_evaluation_does(rng):
    zimg, ztxt = (rng.normal(size=(30, 6)).astype(np.float32) for _ in range(2))
    zimg, ztxt = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (zimg, ztxt))
    index = np.arange(30)
    out = held_out.HeldOut(image=zimg, text=ztxt, text_index=index, image_index=index)
    metrics = retrieval_metrics(zimg, ztxt, index)
    low = (metrics["i2t_r1"] + metrics["t2i_r1"]) / 2
    assert low <= out.score(zimg, ztxt) <= low + (1 - low) / 2


def test_images_out_of_order_are_refused(pairs):
    bad = closed_form.Paired(
        text=pairs.text,
        image=pairs.image,
        text_index=pairs.text_index,
        image_index=pairs.image_index[::-1],
    )
    with pytest.raises(UserError, match="ascending"):
        closed_form.cca(bad, 0.1)


def test_of_what_folds_cannot_tell_apart_the_first_is_chosen():
    best = np.array([0.50, 0.60, 0.55])
    scores = np.stack([best - 0.2, best + np.array([0.05, -0.06, 0.0]), best, best - 0.001], axis=1)
    assert held_out.simplest(scores) == (1,)  # Worse on average, and by less than its error.
    assert held_out.simplest(scores[:, [0, 3, 2]]) == (2,)  # Worse by little, and everywhere.
    assert held_out.simplest(scores[:, [0, 2]].reshape(3, 1, 2)) == (0, 1)
