"""Heads: what is trained on top of a tower's features.

An image head maps pooled features [B, d] (or all tokens [B, T, d]) to [B, E]. A text head maps
tokens to [B, E]: padded ones [B, T, d] with their mask [B, T], or `Packed` ones without padding,
which is the same function for less work. None of them normalises: the model does, once, for both
sides. `registry` makes them from their names in the config.
"""

from ape_jax.align.heads.linear import Identity, Linear, PooledLinear
from ape_jax.align.heads.lookup import Lookup
from ape_jax.align.heads.pooled import OnPooledText, PooledMLP, ResidualMLP, StarMLP
from ape_jax.align.heads.pooling import normalize
from ape_jax.align.heads.registry import image_head, text_head
from ape_jax.align.heads.summed import Summed
from ape_jax.align.heads.token_mlp import TokenMLP
from ape_jax.align.heads.token_pool import ImageTokenPool, TextTokenPool
from ape_jax.align.heads.transformer import Transformer

ON_POOLED = (PooledMLP, ResidualMLP, StarMLP)
"""Image heads that are more than linear on one vector an image."""

__all__ = [
    "ON_POOLED",
    "Identity",
    "ImageTokenPool",
    "Linear",
    "Lookup",
    "OnPooledText",
    "PooledLinear",
    "PooledMLP",
    "ResidualMLP",
    "StarMLP",
    "Summed",
    "TextTokenPool",
    "TokenMLP",
    "Transformer",
    "image_head",
    "normalize",
    "text_head",
]
