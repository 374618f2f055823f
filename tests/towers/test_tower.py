"""Layers, pooling and resuming, on a small tower with random weights."""

import dataclasses

import jax
import numpy as np
import pytest

from ape_jax import towers
from ape_jax.errors import UserError
from ape_jax.towers.bound import BoundTower
from ape_jax.towers.tower import Tower, check_pooling, pool

CONFIG = {
    "model_type": "dinov2",
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}


@pytest.fixture(scope="module")
def tower():
    module, config = towers.build(CONFIG, dtype="float32")
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda s: rng.normal(size=s.shape).astype(np.float32) / 2, towers.abstract_params(module)
    )
    described = Tower(
        kind="image",
        module=module,
        config=config,
        prepare=lambda images: {"image": np.stack(images)},
        spec="test",
        digest="",
    )
    return BoundTower(described, params)


@pytest.fixture(scope="module")
def batch():
    image = np.random.default_rng(1).normal(size=(2, 16, 16, 3)).astype(np.float32)
    return {"image": image}


@pytest.mark.parametrize(("start", "layer"), [(1, -1), (3, -1), (1, 2)])
def test_resuming_from_a_hidden_state_is_the_rest_of_the_tower(tower, batch, start, layer):
    want = tower(batch, layer=layer)
    below = tower(batch, layer=start, pooling="none")
    got = tower.tower.resume(tower.params, below.tokens, below.mask, start=start, layer=layer)
    np.testing.assert_allclose(got.tokens, want.tokens, atol=2e-5)
    np.testing.assert_allclose(got.pooled, want.pooled, atol=2e-5)


def test_resuming_needs_only_what_lies_above(tower, batch):
    below = tower(batch, layer=2, pooling="none")
    above = towers.take_blocks(tower.params, 2, 3)
    del above["embed"]
    got = tower.tower.resume(above, below.tokens, below.mask, start=2)
    np.testing.assert_allclose(got.tokens, tower(batch).tokens, atol=2e-5)


def test_negative_layers_count_hidden_states_from_the_end(tower, batch):
    np.testing.assert_array_equal(tower(batch, layer=-3).tokens, tower(batch, layer=1).tokens)


def test_the_last_block_is_not_the_final_output(tower, batch):
    out, last = tower(batch), tower(batch, layer=3)
    assert np.abs(np.asarray(out.tokens - last.tokens)).max() > 0.1


def test_inner_layers_run_no_more_blocks_than_they_need(tower, batch):
    def flops(layer):
        run = jax.jit(lambda p, b: tower_unrolled.apply(p, b, layer=layer))
        return run.lower(tower.params, batch).compile().cost_analysis()["flops"]

    module = tower.tower.module.clone(unroll=True)
    tower_unrolled = dataclasses.replace(tower.tower, module=module)
    assert flops(1) < 0.5 * flops(3)


@pytest.mark.parametrize("layer", [4, -5])
def test_a_layer_the_tower_does_not_have(tower, batch, layer):
    with pytest.raises(UserError, match=rf"layer is {layer}; this tower has 3 blocks"):
        tower(batch, layer=layer)


def test_poolings_of_images(tower, batch):
    out = tower(batch, pooling="cls+mean")
    tokens = np.asarray(out.tokens)
    want = np.concatenate([tokens[:, 0], tokens[:, 1:].mean(1)], axis=1)
    np.testing.assert_allclose(out.pooled, want, atol=1e-5)
    assert out.pooled.shape[1] == tower.config.pooled_width("cls+mean")
    width = tower.config.width
    assert tower.config.pooled_parts("cls+mean") == (width, width)
    assert tower.config.pooled_parts("mean") == (width,)
    assert pool(out.tokens, out.mask, "none", tower.config) is None


@pytest.mark.parametrize("pooling", ["last", "map", "max"])
def test_poolings_an_image_tower_does_not_have(tower, pooling):
    with pytest.raises(UserError, match=f"pooling is '{pooling}'.*cls, cls.mean, mean, none"):
        check_pooling(pooling, tower.config)


def test_poolings_of_texts_see_real_tokens_only():
    _, config = towers.build({"model_type": "bert"})
    tokens = np.arange(8.0, dtype=np.float32).reshape(1, 4, 2)
    mask = np.array([[True, True, True, False]])
    np.testing.assert_allclose(pool(tokens, mask, "mean", config), [[2, 3]])
    np.testing.assert_allclose(pool(tokens, mask, "last", config), [[4, 5]])
    np.testing.assert_allclose(pool(tokens, mask, "cls", config), [[0, 1]])


def test_an_attention_pooling_head_exists_at_the_output_only():
    _, config = towers.build({"model_type": "siglip_vision_model"})
    module, _ = towers.build({"model_type": "siglip_vision_model"})
    empty = {"prepare": dict, "spec": "", "digest": ""}
    siglip = Tower(kind="image", module=module, config=config, **empty)
    assert siglip.resolve(-1, None) == (12, True, "map")
    assert siglip.resolve(5, None) == (5, False, "none")
    with pytest.raises(UserError, match="belongs to layer -1"):
        siglip.resolve(5, "map")
    with pytest.raises(UserError, match="pooling is 'cls'"):
        siglip.resolve(-1, "cls")


def test_apply_is_differentiable_in_its_parameters(tower, batch):
    def loss(params):
        return tower.tower.apply(params, batch).pooled.sum()

    grads = jax.jit(jax.grad(loss)).lower(tower.params).compile()(tower.params)
    sizes = jax.tree.map(lambda g: float(np.abs(g).max()), grads)
    assert min(jax.tree.leaves(sizes)) >= 0 and sizes["blocks"]["norm1"]["scale"] > 0
