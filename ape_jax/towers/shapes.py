"""The shapes of a tower's batch and parameters, without allocating either."""

from __future__ import annotations

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ape_jax.towers.tower import TowerConfig


def example_batch(config: TowerConfig) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of a batch of one, enough to shape the parameters."""
    if config.kind == "image":
        size: int = vars(config)["image_size"]  # Of every image tower's config.
        shape = (1, size, size, 3)
        return {"image": jax.ShapeDtypeStruct(shape, jnp.float32)}
    return {
        "ids": jax.ShapeDtypeStruct((1, 8), jnp.int32),
        "mask": jax.ShapeDtypeStruct((1, 8), jnp.bool_),
    }


def abstract_params(module: nn.Module) -> dict[str, Any]:
    """The parameter tree of a module as `jax.ShapeDtypeStruct`s; nothing is allocated."""
    init = partial(module.init, pooling=module.config.pooling)
    return jax.eval_shape(init, jax.random.key(0), example_batch(module.config))["params"]
