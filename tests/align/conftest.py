"""Small random towers of every kind, without files."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ape_jax import towers
from ape_jax.towers.bound import BoundTower
from ape_jax.towers.tower import Tower

SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
TEXT = {"intermediate_size": 64, "vocab_size": 60, "max_position_embeddings": 16}
VISION = {"image_size": 32, "patch_size": 8, "intermediate_size": 64}
CONFIGS = {
    "vit": {"model_type": "vit", **SIZES, **VISION},
    "dinov2": {"model_type": "dinov2", **SIZES, "image_size": 32, "patch_size": 8},
    "dinov3": {"model_type": "dinov3_vit", **SIZES, **VISION, "num_register_tokens": 2},
    "clip_vision": {"model_type": "clip_vision_model", **SIZES, **VISION},
    "siglip": {"model_type": "siglip_vision_model", **SIZES, **VISION},
    "bert": {"model_type": "bert", **SIZES, **TEXT},
    "clip_text": {"model_type": "clip_text_model", **SIZES, **TEXT, "eos_token_id": 59},
    "mpnet": {"model_type": "mpnet", **SIZES, **TEXT},
    "modernbert": {"model_type": "modernbert", **SIZES, **TEXT, "local_attention": 4},
    "qwen3": {
        "model_type": "qwen3",
        **SIZES,
        **TEXT,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "use_sliding_window": True,
        "sliding_window": 3,
        "max_window_layers": 1,
    },
}


def _random_tower(name, *, seed=0, **fields):
    options = {"dtype": "float32"}
    module, config = towers.build(CONFIGS[name], **options)
    module = module.clone(**fields)
    rng = np.random.default_rng(seed)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(0.2 * rng.normal(size=leaf.shape) + 0.1, jnp.float32),
        towers.abstract_params(module),
    )
    tower = Tower(
        kind=config.kind, module=module, config=config, prepare=dict, spec=name, digest=name
    )
    return BoundTower(tower, params)


@pytest.fixture(scope="session")
def random_tower():
    """`random_tower("bert", unroll=True)`: three blocks of 32 channels, parameters all random."""
    return _random_tower


@pytest.fixture(scope="session")
def batch_for():
    """`batch_for(tower)`: four random images, or four texts of different lengths."""

    def make(tower):
        rng = np.random.default_rng(1)
        if tower.config.kind == "image":
            return {"image": jnp.asarray(rng.normal(size=(4, 32, 32, 3)), jnp.float32)}
        mask = np.arange(10) < np.array([10, 4, 1, 7])[:, None]
        ids = np.where(mask, rng.integers(5, 58, size=(4, 10)), 0).astype(np.int32)
        return {"ids": jnp.asarray(ids), "mask": jnp.asarray(mask)}

    return make
