"""`start.weights=kept`: CCA's weights are fixed behind both heads, in training and afterwards."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ape_jax
from ape_jax import config as config_lib
from ape_jax.errors import UserError
from ape_jax.features.dataset import FeatureStore
from ape_jax.runs import build
from ape_jax.runs.restore import restore
from ape_jax.training import loop, run
from ape_jax.training.input import opened


@pytest.fixture
def config(tiny_config):
    """`few_pairs` on the tiny world."""
    tiny_config.start.method = "cca"
    tiny_config.closed.l2, tiny_config.closed.power = 1.0, 1.0
    tiny_config.image.head.name, tiny_config.text.head.name = "linear", "linear+token_mlp"
    tiny_config.train.steps = 4
    return tiny_config


def prepared(config, weights):
    config.start.weights = weights
    resolved = config_lib.resolve(config)
    sources = opened.sources(resolved)
    return run.prepare(resolved, sources, build.load_towers(resolved), FeatureStore())


def embedded(made):
    """The first images and captions of the training pairs."""
    aligned = made.aligned
    model, trees = aligned.model, (aligned.trainable, aligned.frozen)
    rows = np.arange(8)
    pooled = jnp.asarray(np.asarray(made.dataset.pooled)[rows, 0])
    tokens = jax.tree.map(jnp.asarray, dict(made.dataset.tokens.batch(rows, 8, 64)))
    image = model.image_features(trees[1], {"pooled": pooled})
    text = model.text_features(trees[1], tokens)
    return [np.asarray(model.embed(*trees, side)) for side in (image, text)]


def test_training_starts_from_the_same_embeddings_whichever_way(config):
    folded, kept = (prepared(config, weights) for weights in ("folded", "kept"))
    for ours, theirs in zip(embedded(kept), embedded(folded), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)
    assert "weights" not in folded.aligned.frozen["statistics"]
    weights = np.asarray(kept.aligned.frozen["statistics"]["weights"])
    found = kept.aligned.solved["correlations"]
    np.testing.assert_allclose(weights[:3], found, atol=1e-3)
    assert (np.diff(weights) <= 0).all() and weights.shape == (32,)
    # Multiplied out, the heads that are trained are the ones with the weights in them.
    kernels = [
        np.asarray(made.aligned.trainable["image_head"]["projection"]["kernel"])
        for made in (kept, folded)
    ]
    strong = weights > 0.1  # Of the others both are near zero.
    ratio = (kernels[0] * weights / kernels[1])[:, strong]
    np.testing.assert_allclose(ratio, ratio.mean(), rtol=1e-3)
    assert strong.sum() > 4


def test_a_run_keeps_its_weights_and_is_resumed_and_loaded_with_them(config, tmp_path, capsys):
    config.start.weights = "kept"
    resolved = config_lib.resolve(config)
    loop.train_and_evaluate(resolved, tmp_path / "run")
    before = prepared(config, "kept").aligned
    found = restore(tmp_path / "run")
    weights = [np.asarray(x.frozen["statistics"]["weights"]) for x in (found, before)]
    np.testing.assert_array_equal(*weights)
    moved = jax.tree.map(
        lambda a, b: float(np.abs(a - b).max()), found.trainable, jax.device_get(before.trainable)
    )
    assert min(jax.tree.leaves(moved["image_head"])) > 0
    model = ape_jax.load(tmp_path / "run")
    out = model.export(tmp_path / "out", format="jax")
    texts = ["a red bar", "a blue circle"]
    np.testing.assert_allclose(
        ape_jax.load(out).encode_text(texts), model.encode_text(texts), atol=1e-6
    )
    longer = config_lib.resolve(
        {**config_lib.flatten(resolved), "start.run": str(tmp_path / "run")}
    )
    loop.train_and_evaluate(longer, tmp_path / "more")
    again = restore(tmp_path / "more").frozen["statistics"]["weights"]
    np.testing.assert_array_equal(again, weights[0])
    other = {**config_lib.flatten(longer), "start.weights": "folded"}
    with pytest.raises(UserError, match=r"write --config\.start\.weights='kept'"):
        loop.train_and_evaluate(config_lib.resolve(other), tmp_path / "other")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"start.method": "procrustes"}, r"config\.start\.weights: 'kept' needs .*='cca'"),
        ({"start.method": "none"}, r"config\.start\.weights: 'kept' needs"),
        ({"closed.power": 0.0}, r"config\.start\.weights: with closed\.power=0"),
    ],
)
def test_weights_that_nothing_gives_are_refused(config, settings, said):
    flat = {**config_lib.flatten(config_lib.resolve(config)), "start.weights": "kept"}
    if settings.get("start.method"):
        flat["closed.l2"], flat["closed.power"] = 0.0, -1.0
    with pytest.raises(UserError, match=said):
        config_lib.resolve({**flat, **settings})
