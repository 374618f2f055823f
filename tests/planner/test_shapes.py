"""What a plan compiles is what a run trains: the same trees and the same batches."""

import itertools

import jax
import numpy as np
import pytest

from ape_jax import config as config_lib
from ape_jax import towers
from ape_jax.config.components import HEADS
from ape_jax.errors import UserError
from ape_jax.features.dataset import FeatureStore
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.planner import shapes
from ape_jax.planner.known import KNOWN
from ape_jax.runs import build
from ape_jax.training import run
from ape_jax.training.input import opened
from ape_jax.training.input.host_feed import HostFeed

CASES = {
    "ape, cached": {"cache.views": 2, "augment.flip": True},
    "ape, images in the step": {"cache.views": 0},
    "captions in the step": {"cache.text": False},
    "lit": {"text.tune": "full"},
    "clip": {"text.tune": "full", "image.tune": "full", "image.standardize": False},
    "hidden states": {"text.tune": "top:1", "image.tune": "top:1", "image.standardize": False},
    "adapters": {"text.tune": "adapter", "image.tune": "bitfit", "image.standardize": False},
    "several captions": {"loss.positives": 2, "loss.name": "sigmoid"},
    "ids beside tokens": {"text.head.name": "lookup"},
    "token_index beside tokens": {"text.head.name": "transformer", "text.head.depth": 1},
    "images as all tokens": {
        "image.pooling": "none",
        "image.head.name": "token_pool_mlp",
        "image.standardize": False,
    },
}


def resolved(tiny_config, settings):
    head = settings.get("text.head.name")
    if head:  # Another head takes other keys.
        with tiny_config.unlocked():
            tiny_config.text.head = config_lib.default().text.head.copy_and_resolve_references()
    config_lib.override(tiny_config, {key: str(value) for key, value in settings.items()})
    return config_lib.resolve(tiny_config)


@pytest.mark.parametrize("settings", CASES.values(), ids=CASES)
def test_model_and_batch_are_those_of_the_run(tiny_config, settings):
    config = resolved(tiny_config, settings)
    made = run.prepare(config, opened.sources(config), build.load_towers(config), FeatureStore())
    aligned = made.aligned
    towers = aligned.model.image.tower, aligned.model.text.tower
    feed = HostFeed(made.dataset, *towers, config, aligned.mesh)
    real = next(itertools.islice(feed.batches(0), 1))

    model, trainable, frozen = shapes.abstract_model(config, shapes.abstract_towers(config))
    longest = max(made.aligned.model.text.tower.prepare.lengths(made.dataset.captions.texts))
    mesh = mesh_lib.make_mesh()
    mean = 1.0
    if "lengths" in real:  # Of so few captions the packed size is not the mean's.
        mean = real["tokens"].shape[1] / real["lengths"].shape[1]
    planned = shapes.batch(config, model, mesh, shapes.Captions(mean=mean, longest=int(longest)))

    def described(tree):
        return jax.tree.map(lambda x: (x.shape, np.dtype(x.dtype).name), tree)

    assert described(trainable) == described(made.aligned.trainable)
    assert described(frozen) == described(made.aligned.frozen)
    assert described(planned) == described(dict(real))


def test_the_step_on_features_of_another_library_is_planned(tiny_config, tiny):
    settings = {"image.tower": f"torch:hf:{tiny / 'image'}"}
    settings |= {"text.tower": f"torch:hf:{tiny / 'text'}", "cache.dir": "none"}
    config = resolved(tiny_config, settings)
    made = run.prepare(config, opened.sources(config), build.load_towers(config), FeatureStore())
    towers = made.aligned.model.image.tower, made.aligned.model.text.tower
    feed = HostFeed(made.dataset, *towers, config, made.aligned.mesh)
    real = next(itertools.islice(feed.batches(0), 1))
    model, trainable, _ = shapes.abstract_model(config, shapes.abstract_towers(config))
    planned = shapes.batch(config, model, made.aligned.mesh, shapes.Captions(mean=6, longest=8))
    assert planned["pooled"].shape == real["pooled"].shape
    assert planned["tokens"].shape[::2] == real["tokens"].shape[::2]
    assert jax.tree.map(np.shape, trainable) == jax.tree.map(np.shape, made.aligned.trainable)


def test_a_tower_of_another_library_that_is_not_here_is_refused_by_key(tiny_config):
    config = resolved(tiny_config, {"image.tower": "torch:hf:org/name"})
    with pytest.raises(UserError, match=r"config\.image\.tower: a plan fetches nothing"):
        shapes.abstract_towers(config)


@pytest.mark.parametrize("spec", KNOWN)
def test_known_models_build(spec):
    module, config = towers.build(KNOWN[spec])
    assert config.kind in ("image", "text")
    assert jax.tree.leaves(towers.abstract_params(module))


def test_the_demo_towers_are_as_they_are_known(tmp_path):
    for spec in ("demo:vit_s14", "demo:minilm"):
        real = towers.load(spec)
        module, _ = towers.build(KNOWN[spec])
        expected = jax.tree.map(lambda x: x.shape, dict(real.params))
        assert jax.tree.map(lambda x: x.shape, towers.abstract_params(module)) == expected


def test_an_unknown_model_is_refused_by_key(tiny_config):
    tiny_config.text.tower = "hf:some/model"
    with pytest.raises(
        UserError, match=r"config\.text\.tower: a plan fetches nothing, and 'hf:some"
    ):
        shapes.abstract_towers(config_lib.resolve(tiny_config))


def test_heads_that_want_something_beside_tokens_are_covered():
    """A new wish needs a case above."""
    wishes = {need for head in HEADS.values() for need in head.needs}
    assert wishes == {"ids", "token_index"}
