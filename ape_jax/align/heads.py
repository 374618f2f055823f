"""Heads: what is trained on top of a tower's features.

An image head maps pooled features [B, d] to [B, E]; a text head maps tokens to [B, E]: padded ones
[B, T, d] with their mask [B, T], or `Packed` ones without padding, which is the same function for
less work. None of them normalises: the model does, once, for both sides.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ape_jax.align.hidden import Hidden
from ape_jax.align.packing import Packed
from ape_jax.towers.layers import Dense
from ape_jax.towers.tower import TowerConfig, pool

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
    """

    features: int
    tower: TowerConfig
    pooling: str = "mean"
    dtype: DType = jnp.bfloat16

    @nn.compact
    def __call__(
        self,
        text: Float[Array, "B T d"] | Packed,
        mask: Bool[Array, "B T"] | None = None,
        *,
        train: bool = False,
    ) -> Float[Array, "B E"]:
        """Pools the tokens and maps the result to the joint space."""
        pooled = _pool(_tokens(text), text, mask, self.pooling, self.tower)
        return Dense(self.features, dtype=self.dtype, name="projection")(pooled)


class TokenMLP(nn.Module):
    """APE's head: an MLP on every token's encoding, then the mean over the real tokens.

    The last layer is linear and so is the mean, so the layer acts after the pooling: the same
    function for a T-th of its cost. With `depth=1` the head is linear on mean-pooled text.

    Attributes:
      features: the joint width E.
      tower: the config of the tower whose tokens these are.
      depth: linear layers, 4 to 6 in the paper.
      width: of the hidden layers.
      activation: a key of `towers.layers.ACTIVATIONS`; the paper does not say which it used.
      dropout: rate after each activation.
      dtype: input dtype of the matrix products.

    References:
      Rosenfeld et al., "APE: Aligning Pretrained Encoders to Quickly Learn Aligned Multimodal
      Representations", arXiv 2210.03927, section 3.
    """

    features: int
    tower: TowerConfig
    depth: int = 4
    width: int = 1024
    activation: str = "gelu"
    dropout: float = 0.0
    dtype: DType = jnp.bfloat16

    @nn.compact
    def __call__(
        self,
        text: Float[Array, "B T d"] | Packed,
        mask: Bool[Array, "B T"] | None = None,
        *,
        train: bool = False,
    ) -> Float[Array, "B E"]:
        """Encodes the tokens, pools, and maps to the joint space."""
        x = _tokens(text)
        for i in range(self.depth - 1):
            x = Hidden(self.width, self.activation, self.dtype, name=f"dense_{i}")(x)
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        pooled = _pool(x, text, mask, "mean", self.tower)
        last = partial(Dense, dtype=self.dtype, kernel_init=nn.initializers.lecun_normal())
        return last(self.features, name=f"dense_{self.depth - 1}")(pooled)


def normalize(z: Float[Array, "B E"]) -> Float[Array, "B E"]:
    """Rows at unit length in f32; a zero row stays zero instead of turning into NaN."""
    z = z.astype(jnp.float32)
    return z * jax.lax.rsqrt(jnp.maximum(jnp.sum(z * z, axis=-1, keepdims=True), 1e-24))


def _tokens(text: Array | Packed) -> Float[Array, "n m d"]:
    return text.tokens if isinstance(text, Packed) else text


def _pool(
    x: Float[Array, "n m w"],
    text: Array | Packed,
    mask: Bool[Array, "B T"] | None,
    pooling: str,
    tower: TowerConfig,
) -> Float[Array, "B w"]:
    """Pools `x`, which lies as the tokens of `text` do."""
    if isinstance(text, Packed):
        return text.replace(tokens=x).pool(pooling)
    return pool(x, mask, pooling, tower)
