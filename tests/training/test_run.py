"""Making a run ready."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

import ape_jax
from ape_jax import config as config_lib
from ape_jax.errors import UserError
from ape_jax.features.dataset import FeatureStore
from ape_jax.runs import build
from ape_jax.training import loop, run
from ape_jax.training.input import opened
from ape_jax.training.statistics import moments


def prepared(config):
    config = config_lib.resolve(config)
    towers = build.load_towers(config)
    return run.prepare(config, opened.sources(config), towers, FeatureStore())


def test_moments_are_numpys(rng):
    pooled = rng.normal(3.0, 2.0, size=(5000, 3, 4)).astype(np.float32)
    center, spread = moments(pooled)
    flat = pooled.reshape(-1, 4).astype(np.float64)
    np.testing.assert_allclose(center, flat.mean(0), rtol=1e-6)
    np.testing.assert_allclose(spread, flat.std(0), rtol=1e-6)


def test_moments_of_bf16_features_are_taken_in_f64(rng):
    pooled = rng.normal(300.0, 2.0, size=(5000, 3, 4)).astype(jnp.bfloat16)
    center, spread = moments(pooled)
    flat = pooled.reshape(-1, 4).astype(np.float64)
    np.testing.assert_allclose(center, flat.mean(0), rtol=1e-6)
    np.testing.assert_allclose(spread, flat.std(0), rtol=1e-6)


def test_dimension_that_never_varies_is_not_blown_up():
    assert moments(np.ones((4, 1, 2), np.float32))[1].tolist() == pytest.approx([1e-6] * 2)


def test_statistics_are_those_of_the_training_images(tiny_config):
    made = prepared(tiny_config)
    flat = made.dataset.pooled[:].reshape(-1, 32).astype(np.float32)
    np.testing.assert_allclose(made.aligned.frozen["statistics"]["center"], flat.mean(0), atol=1e-5)
    np.testing.assert_allclose(made.aligned.frozen["statistics"]["spread"], flat.std(0), rtol=1e-3)


@pytest.mark.parametrize(
    "cached",
    [
        pytest.param(True, id="cached", marks=pytest.mark.slow),
        pytest.param(False, id="in the step"),
    ],
)
def test_a_run_on_towers_in_int8_goes_as_one_in_f32(tiny_config, tmp_path, cached):
    tiny_config.cache.views, tiny_config.cache.text = int(cached), cached
    tiny_config.train.steps, tiny_config.train.log_every = 2, 1
    tiny_config.data.eval = {}
    losses, texts = [], []
    for dtype in ("float32", "int8"):
        tiny_config.image.param_dtype = tiny_config.text.param_dtype = dtype
        loop.train_and_evaluate(config_lib.resolve(tiny_config), tmp_path / dtype)
        lines = (tmp_path / dtype / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(x)["train/loss"] for x in lines if "train/loss" in x])
        texts.append(ape_jax.load(tmp_path / dtype).encode_text(["a red square", "a blue bar"]))
    np.testing.assert_allclose(*losses, rtol=0.02)
    assert losses[0] != losses[1] and (texts[0] * texts[1]).sum(axis=1).min() > 0.995


def test_optimizer_rule_without_a_match_is_found_before_encoding(tiny_config, monkeypatch):
    monkeypatch.setattr(run.frontier, "training_part", None)
    tiny_config.optim.lr_mults = (("nothing", 2.0),)
    with pytest.raises(UserError, match=r"optim\.lr_mults"):
        prepared(tiny_config)


def test_unreadable_images_are_counted_where_the_image_tower_is_trained(
    tiny_config, tiny, tmp_path, capsys
):
    for path in tiny.glob("*.png"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "pairs.jsonl").write_text((tiny / "pairs.jsonl").read_text())
    (tmp_path / "red-bar.png").write_bytes(b"broken")
    tiny_config.data.pairs = str(tmp_path / "pairs.jsonl")
    tiny_config.data.eval = {"test": str(tmp_path / "pairs.jsonl")}
    tiny_config.data.on_error = "skip"
    tiny_config.image.tune, tiny_config.image.standardize = "full", False
    tiny_config.text.tune = "full"
    tiny_config.train.steps = 3
    summary = loop.train_and_evaluate(config_lib.resolve(tiny_config), tmp_path / "run")
    said = capsys.readouterr().err
    assert "test: left out 1 of 24" in said and "training: left out 1 of 24" in said
    assert summary["images_skipped_in_step"] == 1
    assert summary["parameters_frozen"] == 0


def test_statistics_and_pairs_are_those_of_the_sample(tiny_config):
    tiny_config.data.sample = 18
    made = prepared(tiny_config)
    assert len(made.dataset.pairs) == len(made.dataset.pooled) == 18
    center = made.dataset.pooled[:].reshape(-1, 32).astype(np.float32).mean(0)
    np.testing.assert_allclose(made.aligned.frozen["statistics"]["center"], center, atol=1e-5)


def test_a_sample_larger_than_the_pairs_is_found_before_encoding(tiny_config, monkeypatch):
    monkeypatch.setattr(run.frontier, "training_part", None)
    tiny_config.data.sample = 25
    with pytest.raises(UserError, match=r"config\.data\.sample: .* holds 24 pairs"):
        prepared(tiny_config)


def test_a_batch_larger_than_the_sample_is_found_before_encoding(tiny_config, monkeypatch):
    monkeypatch.setattr(run.frontier, "training_part", None)
    tiny_config.data.sample = 15
    with pytest.raises(UserError, match="batch"):
        prepared(tiny_config)
