"""The choice of layers, on vectors of which one layer is known to be the right one."""

import dataclasses
import json

import numpy as np
import pytest

from ape_jax.align.layers import LayerVectors, Question, Reading, choose, joins
from ape_jax.align.layers.choice import Side, simplest
from ape_jax.align.layers.readings import poolings_of, spaced_best
from ape_jax.align.layers.retrieval import Scores

LAYERS = (0, 1, 2, 3, -1)


def side(rng, common, noise, layers=None, poolings=("mean",)):
    """Five layers of width 6, each the same with another amount of noise."""
    maps = rng.normal(size=(5, common.shape[1], 6))
    rows = [common @ m + n * rng.normal(size=(len(common), 6)) for m, n in zip(maps, noise)]
    vectors = LayerVectors(rows=np.concatenate(rows, axis=1), layers=LAYERS, widths={"mean": 6})
    return Side(vectors=vectors, layers=layers, poolings=poolings)


def question(count, image_noise, text_noise, **options):
    rng = np.random.default_rng(0)
    common = rng.normal(size=(count, 6))
    return Question(
        image=side(rng, common, image_noise, **options),
        text=side(rng, common, text_noise),
        text_index=np.arange(count),
        image_index=np.arange(count),
    )


def test_the_layer_with_the_least_noise_is_chosen_on_both_sides():
    asked = question(300, (9, 9, 0.3, 9, 9), (9, 9, 9, 0.3, 2))
    said = []
    choice = choose(asked, say=said.append)
    assert 2 in choice.image.layers and 3 in choice.text.layers and choice.by == "retrieval"
    assert len(choice.overlaps) == 25 and len(said) == 2
    best = max(choice.overlaps, key=lambda pair: choice.overlaps[pair].score)
    assert best == (Reading((2,), "mean"), Reading((3,), "mean"))
    record = json.loads(json.dumps(choice.record()))
    assert record["image"]["layer"] == list(choice.image.layers)
    assert {"mrr", "recall_at_10"} <= set(record["retrieval"]["text"][0])
    assert choose(asked, say=said.append).record() == record


def test_layers_that_add_to_each_other_are_joined():
    rng = np.random.default_rng(1)
    common = rng.normal(size=(400, 12))
    rows = [rng.normal(size=(400, 6)) * 5 for _ in range(5)]
    rows[2], rows[4] = common[:, :6], common[:, 6:]
    vectors = LayerVectors(rows=np.concatenate(rows, axis=1), layers=LAYERS, widths={"mean": 6})
    text = common @ rng.normal(size=(12, 12)) + 1.5 * rng.normal(size=(400, 12))
    only = Reading((-1,), "mean")
    asked = Question(
        image=Side(vectors=vectors, layers=None, poolings=("mean",)),
        text=Side(vectors=LayerVectors(rows=text, only=only), layers=(-1,), poolings=("mean",)),
        text_index=np.arange(400),
        image_index=np.arange(400),
    )
    choice = choose(asked, say=lambda _: None)
    assert {2, -1} <= set(choice.image.layers) and choice.text == only
    assert set(choice.scores) == {"image"}


def test_the_output_is_read_where_all_layers_do_alike():
    same = question(300, (1, 1, 1, 1, 1), (1, 1, 1, 1, 1))
    vectors = same.image.vectors.rows
    rows = np.tile(vectors[:, -6:], (1, 5))
    alike = LayerVectors(rows=rows, layers=LAYERS, widths={"mean": 6})
    asked = Question(
        image=Side(vectors=alike, layers=None, poolings=("mean",)),
        text=Side(vectors=same.text.vectors, layers=(-1,), poolings=("mean",)),
        text_index=same.text_index,
        image_index=same.image_index,
    )
    assert choose(asked, say=lambda _: None).image == Reading((-1,), "mean")


def test_few_concepts_are_chosen_by_neighbours_alone():
    asked = question(50, (9, 9, 0.1, 9, 9), (9, 9, 9, 0.1, 9))
    choice = choose(asked, say=lambda _: None)
    assert (choice.by, choice.scores) == ("neighbours", {})
    assert (choice.image.layers, choice.text.layers) == ((2,), (3,))


def test_poolings_are_chosen_with_layers_or_at_given_ones():
    rng = np.random.default_rng(0)
    common = rng.normal(size=(300, 6))
    noise = {"cls": 9.0, "mean": 0.3}
    rows = [
        common @ rng.normal(size=(6, 6)) + n * rng.normal(size=(300, 6))
        for _ in LAYERS
        for n in noise.values()
    ]
    widths = dict.fromkeys(noise, 6)
    vectors = LayerVectors(rows=np.concatenate(rows, axis=1), layers=LAYERS, widths=widths)
    text = LayerVectors(rows=common, only=Reading((-1,), "mean"))
    for layers in (None, (1, 3)):
        asked = Question(
            image=Side(vectors=vectors, layers=layers, poolings=("cls", "mean", "cls+mean")),
            text=Side(vectors=text, layers=(-1,), poolings=("mean",)),
            text_index=np.arange(300),
            image_index=np.arange(300),
        )
        found = choose(asked, say=lambda _: None).image
        assert "mean" in found.pooling and layers in (None, found.layers)


def test_one_standard_error_decides_for_the_simpler_reading():
    none = np.zeros(4, bool)

    def scores(*mrr):
        return Scores(mrr=np.array(mrr), recall=np.array(mrr), crosses=none)

    one, joined = Reading((-1,), "cls"), Reading((9, -1), "cls")
    low = scores(0.20, 0.30, 0.25, 0.25)
    assert simplest({joined: scores(0.23, 0.27, 0.28, 0.23), one: low}) == one
    better = {joined: scores(0.24, 0.34, 0.29, 0.30), one: low}
    assert simplest(better) == joined
    best = Reading((6, 9, -1), "cls")  # Of several layers the best, however many.
    assert simplest({**better, best: scores(0.25, 0.34, 0.29, 0.30)}) == best


def test_vectors_of_a_reading_are_its_columns():
    rows = np.arange(24.0).reshape(2, 12)
    vectors = LayerVectors(rows=rows, layers=(0, -1), widths={"cls": 4, "mean": 2})
    got = vectors.read(Reading((-1, 0), "mean"))
    np.testing.assert_array_equal(got, rows[:, [10, 11, 4, 5]])
    got = vectors.read(Reading((0,), "cls+mean"))
    np.testing.assert_array_equal(got, rows[:, :6])


@pytest.mark.parametrize("depth", range(1, 40))
def test_joined_candidates_are_layers_of_the_tower_from_below(depth):
    for layers in joins(depth):
        heights = [depth if k == -1 else k for k in layers]
        assert len(layers) > 1 and heights == sorted(set(heights)) and 0 <= heights[0] < depth


def test_best_single_layers_are_apart():
    scores = {k: 1.0 - abs(k - 9) / 10 for k in range(12)} | {-1: 0.85}
    assert spaced_best(scores, 12) == (7, 9, -1)


def test_poolings_to_try():
    assert poolings_of(["cls", "mean"]) == ["cls", "mean", "cls+mean"]
    assert poolings_of(["mean"]) == ["mean"]


def test_blocks_are_the_layers_and_modes_of_a_reading():
    vectors = LayerVectors(rows=np.zeros((4, 12)), layers=(0, -1), widths={"cls": 2, "mean": 4})
    reading = Reading((0, -1), "cls+mean")
    assert vectors.parts(reading) == (2, 4, 2, 4) and vectors.parts(Reading((0,), "mean")) == (4,)
    one = Side(vectors=vectors, layers=None, poolings=("mean",))
    asked = Question(image=one, text=one, text_index=np.arange(4), image_index=np.arange(4))
    assert asked.paired(reading, reading).parts == ()
    asked = dataclasses.replace(asked, block_diagonal=True)
    assert asked.paired(reading, reading).parts == (2, 4, 2, 4)
