"""Pooled vectors of every layer in one scan, against one pass a layer."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ape_jax import towers
from ape_jax.errors import UserError
from ape_jax.towers.layers.layered import layered
from ape_jax.towers.tower import Tower

SIZES = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
IMAGE = {**SIZES, "image_size": 16, "patch_size": 8, "intermediate_size": 24}
TEXT = {**SIZES, "vocab_size": 18, "intermediate_size": 24, "max_position_embeddings": 16}
CONFIGS = {
    "dinov2": {**IMAGE, "model_type": "dinov2"},
    "dinov3": {**IMAGE, "model_type": "dinov3_vit"},
    "beit": {**IMAGE, "model_type": "beit", "use_relative_position_bias": True},
    "bert": {**TEXT, "model_type": "bert"},
    "albert, whose blocks are one": {**TEXT, "model_type": "albert", "embedding_size": 16},
    "gemma3, of local and global blocks": {
        **TEXT,
        "model_type": "gemma3_text",
        "num_key_value_heads": 1,
        "head_dim": 8,
        "sliding_window": 4,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
}


def made(name):
    module, config = towers.build(CONFIGS[name], dtype="float32")
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda s: jnp.asarray(rng.normal(size=s.shape), jnp.float32) / 2,
        towers.abstract_params(module),
    )
    kind = config.kind
    tower = Tower(kind=kind, module=module, config=config, prepare=None, spec="t", digest="")
    if kind == "image":
        image = rng.normal(size=(4, 16, 16, 3)).astype(np.float32)
        return tower, params, {"image": jnp.asarray(image)}
    ids = jnp.asarray(rng.integers(4, 18, (2, 6)).astype(np.int32))
    return tower, params, {"ids": ids, "mask": jnp.arange(6) < jnp.array([[6], [4]])}


@pytest.mark.parametrize("name", CONFIGS)
def test_every_layer_is_what_one_pass_a_layer_gives(name):
    tower, params, batch = made(name)
    every = layered(tower)
    got = every.apply(params, batch, pooling="cls+mean").pooled
    assert every.config.joined == (0, 1, 2, -1)
    assert got.shape[-1] == every.config.pooled_width("cls+mean")
    want = [tower.apply(params, batch, layer=k, pooling="cls+mean").pooled for k in (0, 1, 2, -1)]
    np.testing.assert_allclose(got, np.concatenate(want, axis=-1), rtol=1e-5, atol=1e-6)
    assert not np.allclose(want[1], want[2], atol=1e-2)


def test_images_that_are_encoded_in_slices_are_read_whole():
    tower, params, batch = made("dinov2")
    sliced = dataclasses.replace(tower, module=tower.module.clone(inference=True))
    large = {"image": jnp.tile(batch["image"], (30, 1, 1, 1))}
    got = layered(sliced).apply(params, large, pooling="mean").pooled
    want = layered(tower).apply(params, large, pooling="mean").pooled
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_what_has_no_layers_or_no_pooling_of_its_own_is_refused():
    sizes = {"hidden_sizes": [8, 16], "depths": [1, 2], "image_size": 32, "num_stages": 2}
    module, config = towers.build({"model_type": "convnext", **sizes}, dtype="float32")
    tower = Tower(kind="image", module=module, config=config, prepare=None, spec="t", digest="")
    with pytest.raises(UserError, match="only its output can be read"):
        layered(tower)
    tower, params, batch = made("dinov2")
    with pytest.raises(UserError, match="none that every layer has"):
        layered(tower).apply(params, batch, pooling="none")
