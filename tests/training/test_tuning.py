"""Towers that are trained in part, through the whole loop: cached, resumed and loaded again."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

import ape_jax
from ape_jax import config as config_lib
from ape_jax.errors import UserError
from ape_jax.features.dataset import FeatureStore
from ape_jax.runs import build
from ape_jax.training import loop, run
from ape_jax.training.input import opened


class Killed(BaseException):
    """Not an Exception: nothing may catch it and tidy up."""


def metrics_of(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def final_parameters(workdir):
    step = max(int(p.name) for p in (workdir / "checkpoints").iterdir())
    path = (workdir / "checkpoints" / str(step) / "trainable").absolute()
    with ocp.StandardCheckpointer() as checkpointer:
        return jax.tree.map(np.asarray, checkpointer.restore(path))


@pytest.fixture
def tuned_config(tiny_config):
    """`tuned_config(image, text)`: six steps in f32, a line each."""

    def make(image, text):
        tiny_config.image.tune, tiny_config.text.tune = image, text
        tiny_config.image.standardize = image == "frozen"
        tiny_config.cache.dtype = "float32"
        tiny_config.train.steps, tiny_config.train.log_every = 6, 1
        tiny_config.train.checkpoint_every = 3
        tiny_config.optim.lr = 1e-2
        return tiny_config

    return make


@pytest.mark.parametrize(
    ("image", "text"),
    [("append", "top:1"), pytest.param("top:1", "append", marks=pytest.mark.slow)],
)
def test_every_loss_with_the_cache_equals_that_without(tuned_config, tmp_path, image, text):
    config = tuned_config(image, text)
    # A key's bias has no gradient but rounding, which Adam would bring to the size of all others.
    config.optim.name = "sgd"
    loop.train_and_evaluate(config_lib.resolve(config), tmp_path / "cached")
    config.cache.views, config.cache.text = 0, False
    loop.train_and_evaluate(config_lib.resolve(config), tmp_path / "raw")
    cached, raw = metrics_of(tmp_path / "cached"), metrics_of(tmp_path / "raw")
    losses = [[line["train/loss"] for line in of if "train/loss" in line] for of in (cached, raw)]
    assert len(losses[0]) == 6
    np.testing.assert_allclose(*losses, rtol=1e-5)
    assert losses[0][-1] < losses[0][0]
    assert cached[-1] == pytest.approx(raw[-1], rel=1e-4)


def test_a_hidden_state_is_cached_with_all_its_tokens(tuned_config, tmp_path):
    config = config_lib.resolve(tuned_config("append", "frozen"))
    towers = build.load_towers(config)
    made = run.prepare(config, opened.sources(config), towers, FeatureStore())
    assert made.dataset.pooled.shape == (24, 1, 17, 32)
    image = {"image": towers.image.prepare([made.dataset.pairs[3].image])["image"]}
    own = towers.params["image_tower"]
    want = towers.image.apply(own, image, layer=2, pooling="none").tokens
    np.testing.assert_allclose(made.dataset.pooled[:][3], want, atol=1e-5)
    assert "appended block" in run.parameter_table(made, full=True)


@pytest.mark.parametrize(
    ("image", "text"),
    [
        ("append", "adapter+layernorm"),
        pytest.param("lora+bitfit", "top:1", marks=pytest.mark.slow),
    ],
)
def test_killed_and_resumed_ends_with_the_same_bits_and_loads(
    tuned_config, tiny, tmp_path, blocks_through, image, text
):
    config = config_lib.resolve(tuned_config(image, text))
    loop.train_and_evaluate(config, tmp_path / "whole")

    def until(blocks):
        for span, block in blocks:
            if span.first + span.stop >= 5:
                raise Killed
            yield span, block

    heal = blocks_through(until)
    with pytest.raises(Killed):
        loop.train_and_evaluate(config, tmp_path / "cut")
    heal()
    loop.train_and_evaluate(config, tmp_path / "cut")
    whole, cut = final_parameters(tmp_path / "whole"), final_parameters(tmp_path / "cut")
    jax.tree.map(np.testing.assert_array_equal, whole, cut)
    assert metrics_of(tmp_path / "whole") == metrics_of(tmp_path / "cut")

    model = ape_jax.load(tmp_path / "whole")
    records = [json.loads(line) for line in (tiny / "pairs.jsonl").read_text().splitlines()]
    zimg = model.encode_image([str(tiny / record["image"]) for record in records])
    ztxt = model.encode_text([record["captions"][0] for record in records])
    np.testing.assert_allclose(np.linalg.norm(zimg, axis=1), 1, rtol=1e-5)
    # What was trained is in it: the embeddings are not those before the first step.
    towers = build.load_towers(config)
    fresh = build.make_model(config, towers)
    trainable, frozen = fresh.init(config.seed, towers.params)
    prepared = towers.text.prepare([record["captions"][0] for record in records])
    batch = jax.tree.map(jnp.asarray, prepared)
    before = fresh.embed(trainable, frozen, fresh.text_features(frozen, batch))
    assert np.abs(ztxt - before).max() > 0.01


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"image.tune": "top:3"}, r"config\.image\.tune: 'top:3'.*write 'top:2'"),
        ({"text.tune": "layernorm", "text.layer": 0}, None),
        ({"text.tune": "lora", "peft.lora_targets": "q"}, r"config\.peft\.lora_targets: 'q' match"),
        ({"text.tune": "adapter", "peft.adapter_reduction": 7}, r"config\.peft\.adapter_reduction"),
    ],
)
def test_a_mode_that_does_not_fit_the_tower_names_its_key(tiny_config, keys, words):
    tiny_config.image.standardize = False
    config_lib.override(tiny_config, {key: str(value) for key, value in keys.items()})
    config = config_lib.resolve(tiny_config)
    towers = build.load_towers(config)
    if words is None:  # BERT norms its embeddings.
        assert build.make_model(config, towers)
        return
    with pytest.raises(UserError, match=words):
        build.make_model(config, towers)
