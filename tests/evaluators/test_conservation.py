"""What a trained tower still knows, against the definitions written out."""

import numpy as np
import pytest
import scipy.stats

from ape_jax import config as config_lib
from ape_jax.data.specs import open_pairs
from ape_jax.errors import UserError
from ape_jax.evaluators import conservation
from ape_jax.runs.encoder import Encoder
from ape_jax.runs.restore import before_and_after
from ape_jax.training import loop


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_cka_is_the_normalised_hilbert_schmidt_criterion():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 7)), rng.normal(size=(40, 5))
    center = np.eye(40) - 1 / 40

    def hsic(a, b):
        return np.trace(a @ a.T @ center @ b @ b.T @ center)

    want = hsic(x, y) / np.sqrt(hsic(x, x) * hsic(y, y))
    assert conservation.linear_cka(x, y) == pytest.approx(want, rel=1e-9)


def test_cka_does_not_see_rotation_shift_and_scale():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 7))
    turned = 3 * x @ scipy.stats.ortho_group.rvs(7, random_state=0) + 5
    assert conservation.linear_cka(x, turned) == pytest.approx(1)


def test_judgements_depend_on_the_order_of_cosines_only():
    rng = np.random.default_rng(0)
    x = unit(rng.normal(size=(30, 6)))
    assert conservation.judgements(x, x) == pytest.approx(1)
    assert abs(conservation.judgements(x, unit(rng.normal(size=(30, 6))))) < 0.2


def test_movement_is_relative_and_leaves_out_what_was_fresh():
    start = {"text_tower": {"norm": {"scale": np.ones(4)}, "blocks": {}}}
    end = {"text_tower": {"norm": {"scale": np.full(4, 1.5)}, "blocks": {}}}
    start["text_tower"]["blocks"] = end["text_tower"]["blocks"] = {
        "attention": {"query": {"lora": {"down": {"kernel": np.ones(3)}}}}
    }
    assert conservation.movement(start, end) == {("text", "norm scale"): pytest.approx(0.5)}


def test_a_frozen_tower_knows_what_it_knew_and_a_trained_one_does_not(tiny_config, tmp_path):
    tiny_config.text.tune, tiny_config.train.steps, tiny_config.optim.lr = "full", 20, 1e-2
    tiny_config.data.eval, tiny_config.train.checkpoint_every = {}, 0
    config = config_lib.resolve(tiny_config)
    loop.train_and_evaluate(config, tmp_path)
    was, now, start = before_and_after(tmp_path)
    before, after, end = Encoder(was), Encoder(now), now.trainable
    pairs = open_pairs(config.data.pairs, key="data.pairs")
    found = conservation.conservation(before, after, pairs)
    assert found["image_cka"] == pytest.approx(1, abs=1e-6)
    assert found["text_cka"] < 0.999 and found["text_judgements"] < 0.999
    moved = conservation.movement(start, end)
    assert {side for side, _ in moved} == {"text"} and min(moved.values()) > 0


@pytest.mark.usefixtures("unchecked")
def test_too_few_pairs_are_one_sentence():
    class Pair:
        image, captions = b"", ("a",)

    with pytest.raises(UserError, match="found 2 and 1"):
        conservation.conservation(None, None, [Pair(), Pair()])
