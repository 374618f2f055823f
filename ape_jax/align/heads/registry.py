"""Heads by their names in the config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ape_jax.align.heads.head import DType, Head
from ape_jax.align.heads.linear import Identity, Linear
from ape_jax.align.heads.lookup import Lookup
from ape_jax.align.heads.on_pooled import OnPooledText
from ape_jax.align.heads.pooled_mlp import PooledMLP
from ape_jax.align.heads.residual_mlp import ResidualMLP
from ape_jax.align.heads.star_mlp import StarMLP
from ape_jax.align.heads.summed import Summed
from ape_jax.align.heads.token_mlp import TokenMLP
from ape_jax.align.heads.token_pool import ImageTokenPool, TextTokenPool
from ape_jax.align.heads.transformer import Transformer
from ape_jax.config import head_names
from ape_jax.towers.tower import TowerConfig

_ON_POOLED = {"pooled_mlp": PooledMLP, "residual_mlp": ResidualMLP, "star_mlp": StarMLP}
_ON_TOKENS = {
    "token_mlp": TokenMLP,
    "token_pool_mlp": TextTokenPool,
    "transformer": Transformer,
}


def image_head(
    settings: Mapping[str, Any], features: int, tower: TowerConfig, dtype: DType
) -> Head:
    """The head of the image side.

    Args:
      settings: the config's `image.head`.
      features: the joint width E.
      tower: the image tower's config.
      dtype: input dtype of the matrix products.
    """
    name = settings["name"]
    if name == "token_pool_mlp":
        options = {"dropout": settings["dropout"], "prefix_tokens": tower.prefix_tokens}
        return ImageTokenPool(features, dtype=dtype, **options)
    if name == "identity":
        return Identity()
    if name == "linear":
        return Linear(features, dtype=dtype)
    return _ON_POOLED[name](features, dtype=dtype, **_options(name, settings))


def text_head(
    settings: Mapping[str, Any],
    features: int,
    tower: TowerConfig,
    pooling: str,
    dtype: DType,
    linear_dtype: DType | None = None,
) -> Head:
    """The head of the text side, or the sum of several.

    Args:
      settings: the config's `text.head`.
      features: the joint width E.
      tower: the text tower's config.
      pooling: the config's `text.pooling`, for heads that do not pool for themselves.
      dtype: input dtype of the matrix products.
      linear_dtype: of a linear head's product, where that is another.
    """
    names = head_names.parts(settings["name"])
    made = {
        name: _text_head(
            name,
            settings,
            features,
            tower,
            pooling,
            (linear_dtype or dtype) if name == "linear" else dtype,
            zero=bool(place),
        )
        for place, name in enumerate(names)
    }
    return made[names[0]] if len(names) == 1 else Summed(made)


def _text_head(
    name: str,
    settings: Mapping[str, Any],
    features: int,
    tower: TowerConfig,
    pooling: str,
    dtype: DType,
    zero: bool,
) -> Head:
    if name == "identity":
        return OnPooledText(Identity(), tower, pooling)
    if name == "linear":
        return OnPooledText(Linear(features, dtype, zero), tower, pooling)
    if name == "lookup":
        return Lookup(features, tower, tower.vocab_size, zero)
    options = {"dtype": dtype, "zero": zero, **_options(name, settings)}
    if name in _ON_POOLED:
        return OnPooledText(_ON_POOLED[name](features, **options), tower, pooling)
    if name == "token_mlp":
        options["width"] = options["width"] or tower.width
    return _ON_TOKENS[name](features, tower, **options)


def _options(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that the head has; an expansion of 0 is the head's own."""
    options = {key: settings[key] for key in sorted(head_names.KEYS[name])}
    if not options.get("expansion", 1):
        del options["expansion"]
    return options
