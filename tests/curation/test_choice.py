"""The choice of pairs: targets get their share, and pairs are unlike each other."""

import numpy as np
import pytest

from ape_jax.align.closed_form import Paired, from_rows
from ape_jax.curation import choice
from ape_jax.curation.target import Queries
from ape_jax.curation.vectors import Vectors, unit


@pytest.fixture
def clusters():
    """Ten clusters of captions with forty pairs each; images of each caption are spread."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(10, 16))
    text = np.repeat(centres, 40, axis=0) + 0.3 * rng.normal(size=(400, 16))
    return Vectors.of(from_rows(text, rng.normal(size=(400, 12)))), centres


def _queries(vectors, centres):
    return Queries(image=None, text=unit(centres - vectors.text_mean))


@pytest.mark.parametrize("diversity", [0.0, 0.5])
def test_each_target_gets_its_share_of_its_own_cluster(clusters, diversity):
    vectors, centres = clusters
    queries = _queries(vectors, centres[:4])
    found = choice.choose(vectors, np.ones(400, bool), queries, 40, diversity=diversity)
    assert len(set(found.rows)) == 40
    assert (found.rows // 40 == found.target).mean() > 0.9
    assert np.bincount(found.target, minlength=4).min() >= 6


def test_what_is_not_allowed_is_not_chosen(clusters):
    vectors, centres = clusters
    allowed = np.arange(400) % 2 == 0
    found = choice.choose(vectors, allowed, _queries(vectors, centres[:2]), 60)
    assert len(found.rows) == 60 and allowed[found.rows].all()


def test_all_that_is_allowed_can_be_asked_for(clusters):
    vectors, centres = clusters
    found = choice.choose(vectors, np.ones(400, bool), _queries(vectors, centres[:1]), 400)
    assert sorted(found.rows) == list(range(400))


def test_diversity_takes_few_of_many_copies():
    rng = np.random.default_rng(1)
    other = unit(rng.normal(size=(11, 15)))  # Beside the target's direction, in equal parts.
    text = np.concatenate([np.ones((11, 1), np.float32), other], axis=1)
    which = np.concatenate([np.zeros(30, int), np.arange(1, 11)])
    paired = from_rows(text[which], unit(rng.normal(size=(11, 8)))[which])
    means = {"image_mean": np.zeros(8, np.float32), "text_mean": np.zeros(16, np.float32)}
    vectors = Vectors(paired=paired, **means)
    queries = Queries(image=None, text=np.eye(1, 16, dtype=np.float32))
    taken = [
        choice.choose(vectors, np.ones(40, bool), queries, 10, diversity=weight).rows < 30
        for weight in (0.0, 1.0)
    ]
    assert taken[0].sum() >= 5 and taken[1].sum() <= 2


def test_candidates_are_the_nearest_whatever_the_blocks(clusters, monkeypatch):
    vectors, centres = clusters
    queries = _queries(vectors, centres)
    monkeypatch.setattr(choice, "BLOCK", 37)
    monkeypatch.setattr(choice, "_TARGETS", 3)
    rows, cosines = choice._nearest(vectors, np.arange(400), queries, 25)
    expected = queries.text @ vectors.texts(slice(0, 400)).T
    np.testing.assert_allclose(np.sort(cosines)[:, ::-1], np.sort(expected)[:, :-26:-1], atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(expected, rows, 1), cosines, atol=1e-6)


def test_neighbours_are_mutual_and_of_both_towers(clusters):
    vectors, _ = clusters
    near = choice.neighbours(vectors, np.arange(0, 400, 2), 0).toarray()
    np.testing.assert_array_equal(near, near.T)
    image, text = vectors.images(slice(0, 400)), vectors.texts(slice(0, 400))
    both = ((image @ image.T + text @ text.T) / 2)[::2, ::2]
    some = near > 1e-5
    np.testing.assert_allclose(near[some], both[some], atol=1e-6)
    assert some.sum(axis=1).min() >= 16


def test_captions_of_an_image_are_averaged():
    text = np.eye(4)
    paired = Paired(
        text=text,
        image=np.eye(2)[:, None],
        text_index=np.array([0, 1, 2]),
        image_index=np.array([0, 0, 1]),
    )
    vectors = Vectors(
        paired=paired, image_mean=np.zeros(2, np.float32), text_mean=np.zeros(4, np.float32)
    )
    expected = np.array([[1, 1, 0, 0], [0, 0, np.sqrt(2), 0]]) / np.sqrt(2)
    np.testing.assert_allclose(vectors.texts(slice(0, 2)), expected, atol=1e-6)
    np.testing.assert_allclose(vectors.texts(np.array([1, 0])), expected[::-1], atol=1e-6)
