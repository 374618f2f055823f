"""Heads: what is trained on top of a tower's features.

An image head maps pooled features [B, d] (or all tokens [B, T, d]) to [B, E]. A text head maps a
`TextInput` to [B, E]: padded tokens [B, T, d] with their mask [B, T], or `Packed` ones without
padding, which is the same function for less work. None of them normalises: `embed` does, once, for
both sides. `make` makes them from their names in the config.
"""

from ape_jax.align.heads.attention_pool import ImageAttentionPool, TextAttentionPool
from ape_jax.align.heads.base.head import Head, Mix, Site, TextInput, embed, normalize
from ape_jax.align.heads.linear import Identity, Linear
from ape_jax.align.heads.lookup import Lookup
from ape_jax.align.heads.make import (
    OnPooledText,
    Summed,
    image_head,
    on_images,
    on_texts,
    text_head,
)
from ape_jax.align.heads.pooled_mlp import PooledMLP
from ape_jax.align.heads.residual_mlp import ResidualMLP
from ape_jax.align.heads.star_mlp import StarMLP
from ape_jax.align.heads.token_mlp import TokenMLP
from ape_jax.align.heads.token_pool import ImageTokenPool, TextTokenPool
from ape_jax.align.heads.transformer import Transformer

__all__ = [
    "Head",
    "Identity",
    "ImageAttentionPool",
    "ImageTokenPool",
    "Linear",
    "Lookup",
    "Mix",
    "OnPooledText",
    "PooledMLP",
    "ResidualMLP",
    "Site",
    "StarMLP",
    "Summed",
    "TextAttentionPool",
    "TextInput",
    "TextTokenPool",
    "TokenMLP",
    "Transformer",
    "embed",
    "image_head",
    "normalize",
    "on_images",
    "on_texts",
    "text_head",
]
