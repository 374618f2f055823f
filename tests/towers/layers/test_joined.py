"""Several layers read in one pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ape_jax import towers
from ape_jax.align.tuning import selection
from ape_jax.errors import UserError
from ape_jax.towers.layers.joined import joining
from ape_jax.towers.tower import Tower

COMMON = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 16}
COMMON |= {"patch_size": 8, "intermediate_size": 24}
CONFIGS = {
    "dinov2": {"model_type": "dinov2"},
    "vit": {"model_type": "vit"},
    "dinov3, whose blocks turn patches by their places": {"model_type": "dinov3_vit"},
    "beit, which norms after pooling": {"model_type": "beit", "use_relative_position_bias": True},
    "siglip": {"model_type": "siglip_vision_model"},
}


@pytest.fixture(scope="module", params=CONFIGS)
def read(request):
    module, config = towers.build({**COMMON, **CONFIGS[request.param]}, dtype="float32")
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda s: rng.normal(size=s.shape).astype(np.float32) / 2, towers.abstract_params(module)
    )
    tower = Tower(kind="image", module=module, config=config, prepare=None, spec="t", digest="")
    image = rng.normal(size=(2, 16, 16, 3)).astype(np.float32)
    return tower, params, {"image": image}


@pytest.mark.parametrize("layers", [(2, -1), (-1, 1, 3), (0, 2), (1, 2), (3, 0), (-3, -1)])
def test_vectors_of_single_layers_stand_end_to_end(read, layers):
    tower, params, batch = read
    joined = joining(tower, layers)
    got = joined.apply(params, batch, pooling="mean")
    want = [tower.apply(params, batch, layer=layer, pooling="mean").pooled for layer in layers]
    np.testing.assert_allclose(got.pooled, np.concatenate(want, axis=-1), atol=2e-5)
    assert got.pooled.shape[-1] == joined.config.pooled_width("mean") == 16 * len(layers)
    assert joined.config.pooled_parts("cls+mean") == (16,) * 2 * len(layers)


def test_what_lies_above_the_highest_layer_is_not_kept(read):
    tower, params, batch = read
    joined = joining(tower, (0, 2))
    kept = selection.used(joined, params, -1, "mean")
    assert "norm" not in kept and len(jax.tree.leaves(kept["blocks"])[0]) == 2
    want = joined.apply(params, batch, pooling="mean").pooled
    np.testing.assert_array_equal(joined.apply(kept, batch, pooling="mean").pooled, want)
    assert "norm" in selection.used(joining(tower, (0, -1)), params, -1, "mean") or (
        "norm" not in params
    )


def test_a_single_layer_of_the_tower_can_still_be_read(read):
    tower, params, batch = read
    want = tower.apply(params, batch, layer=1, pooling="mean").pooled
    got = joining(tower, (1, 2)).apply(params, batch, layer=1, pooling="mean").pooled
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    ("layers", "words"),
    [((1, 4), "layer is 4; this tower has 3 blocks"), ((2, -2), "one comes twice")],
)
def test_layers_that_are_not_there_or_twice_are_refused(read, layers, words):
    with pytest.raises(UserError, match=words):
        joining(read[0], layers)


WORDS = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "vocab_size": 18}
WORDS |= {"intermediate_size": 24, "max_position_embeddings": 16}
TEXTS = {
    "bert": {"model_type": "bert"},
    "clip, whose mask ends with a token": {"model_type": "clip_text_model", "eos_token_id": 3},
    "gemma3, of local and global blocks": {
        "model_type": "gemma3_text",
        "num_key_value_heads": 1,
        "head_dim": 8,
        "sliding_window": 4,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
}


@pytest.fixture(scope="module", params=TEXTS)
def text(request):
    module, config = towers.build({**WORDS, **TEXTS[request.param]}, dtype="float32")
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda s: rng.normal(size=s.shape).astype(np.float32) / 2, towers.abstract_params(module)
    )
    tower = Tower(kind="text", module=module, config=config, prepare=None, spec="t", digest="")
    ids = rng.integers(4, 18, (2, 6)).astype(np.int32)
    ids[0, 4] = 3
    mask = np.arange(6) < np.array([[6], [4]])
    return tower, params, {"ids": jnp.asarray(ids), "mask": jnp.asarray(mask)}


@pytest.mark.parametrize("layers", [(2, -1), (-1, 0), (1, 3)])
def test_tokens_of_a_text_stand_side_by_side(text, layers):
    tower, params, batch = text
    joined = joining(tower, layers)
    got = joined.apply(params, batch, pooling="mean")
    single = [tower.apply(params, batch, layer=layer, pooling="none") for layer in layers]
    want = np.concatenate([out.tokens for out in single], axis=-1)
    np.testing.assert_allclose(got.tokens, want, atol=2e-5)
    np.testing.assert_array_equal(got.mask, single[0].mask)
    assert got.tokens.shape[-1] == joined.config.token_width == 16 * len(layers)
    mask = np.asarray(got.mask)[..., None]
    mean = (want * mask).sum(1) / mask.sum(1)
    np.testing.assert_allclose(got.pooled, mean, atol=2e-5)
    assert joined.apply(params, batch, pooling="none").pooled is None


def test_a_pooling_of_the_tower_is_none_of_several_layers(text):
    joined = joining(text[0], (1, -1))
    with pytest.raises(UserError, match=r"pooling 'head' belongs to layer -1 alone"):
        joined.apply(text[1], text[2], pooling="head")
