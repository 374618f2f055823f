"""What heads share: padded or packed tokens and their pooling, unit length, layers at zero."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ape_jax.align.packing import Packed
from ape_jax.towers.tower import TowerConfig, pool

Text = Float[Array, "B T d"] | Packed
Mask = Bool[Array, "B T"] | None


def tokens_of(text: Text) -> Float[Array, "n m d"]:
    """The tokens as they lie, padded [B, T, d] or packed [G, S, d]."""
    return text.tokens if isinstance(text, Packed) else text


def pool_like(
    x: Float[Array, "n m w"], text: Text, mask: Mask, pooling: str, tower: TowerConfig
) -> Float[Array, "B w"]:
    """Pools `x`, which lies as the tokens of `text` do."""
    if isinstance(text, Packed):
        return text.replace(tokens=x).pool(pooling)
    return pool(x, mask, pooling, tower)


def normalize(z: Float[Array, "B E"]) -> Float[Array, "B E"]:
    """Rows at unit length in f32; a zero row stays zero instead of turning into NaN."""
    z = z.astype(jnp.float32)
    return z * jax.lax.rsqrt(jnp.maximum(jnp.sum(z * z, axis=-1, keepdims=True), 1e-24))


def last_kernel(zero: bool, usual: nn.initializers.Initializer) -> nn.initializers.Initializer:
    """The initialiser of a head's last layer; at zero, the head adds nothing at first."""
    return nn.initializers.zeros if zero else usual
