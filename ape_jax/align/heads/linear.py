"""No head at all, and one linear map: what LiT and LilT put on a tower."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ape_jax.align.heads.pooling import Mask, Text, last_kernel, pool_like, tokens_of
from ape_jax.nn.layers import Dense
from ape_jax.towers.tower import TowerConfig

DType = Any


class Identity(nn.Module):
    """The untouched image side of APE: no parameters."""

    @nn.compact
    def __call__(self, pooled: Float[Array, "B d"], *, train: bool = False) -> Float[Array, "B d"]:
        """Returns its input."""
        return pooled


class Linear(nn.Module):
    """One linear map with bias on pooled features: LiT's and LilT's projection.

    Attributes:
      features: the joint width E.
      dtype: input dtype of the matrix product, which accumulates in f32.
    """

    features: int
    dtype: DType = jnp.bfloat16

    @nn.compact
    def __call__(self, pooled: Float[Array, "B d"], *, train: bool = False) -> Float[Array, "B E"]:
        """Maps pooled features to the joint space."""
        return Dense(self.features, dtype=self.dtype, name="projection")(pooled)


class PooledLinear(nn.Module):
    """`Linear` on one vector a caption, pooled from the tokens.

    Attributes:
      features: the joint width E.
      tower: the config of the tower whose tokens these are; it knows which of them carry text.
      pooling: `mean`, `cls` or `last`.
      dtype: input dtype of the matrix product.
      zero: whether the layer starts at zero.
    """

    features: int
    tower: TowerConfig
    pooling: str = "mean"
    dtype: DType = jnp.bfloat16
    zero: bool = False

    @nn.compact
    def __call__(
        self,
        text: Text,
        mask: Mask = None,
        ids: Int[Array, "B T"] | None = None,
        *,
        train: bool = False,
    ) -> Float[Array, "B E"]:
        """Pools the tokens and maps the result to the joint space."""
        pooled = pool_like(tokens_of(text), text, mask, self.pooling, self.tower)
        start = last_kernel(self.zero, nn.initializers.normal(0.02))
        dense = Dense(self.features, dtype=self.dtype, kernel_init=start, name="projection")
        return dense(pooled)
