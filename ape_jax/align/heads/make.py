"""Heads from the config: by name, or as the sum of several."""

from __future__ import annotations

import functools
import operator
from collections.abc import Collection, Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ape_jax.align.heads.base.head import DType, Head, Mix, Site, TextInput, TorchLayer
from ape_jax.config import poolings
from ape_jax.config.components import HEADS, HeadSpec, text_parts
from ape_jax.config.sections import HeadConfig
from ape_jax.towers.tower import TowerConfig

# A section of the config, or its keys in a dictionary.
Settings = HeadConfig | Mapping[str, Any]


def image_head(
    settings: Settings,
    features: int,
    tower: TowerConfig,
    dtype: DType,
    exact: Collection[str] = (),
) -> Head:
    """The head of the image side.

    Args:
      settings: the config's `image.head`.
      features: the joint width E.
      tower: the image tower's config.
      dtype: input dtype of the matrix products.
      exact: names of heads whose products are in f32 whatever `dtype` says.
    """
    spec = HEADS[settings["name"]]
    dtype = jnp.dtype("float32") if spec.name in exact else dtype
    return on_images(
        spec, _options(spec, settings), Site(features=features, tower=tower, dtype=dtype)
    )


def text_head(
    settings: Settings,
    features: int,
    tower: TowerConfig,
    pooling: str,
    dtype: DType,
    exact: Collection[str] = (),
) -> Head:
    """The head of the text side, or the sum of several.

    Args:
      settings: the config's `text.head`.
      features: the joint width E.
      tower: the text tower's config.
      pooling: the config's `text.pooling`, for heads on one vector.
      dtype: input dtype of the matrix products.
      exact: as for `image_head`.
    """
    made: dict[str, Head] = {}
    for name, spec in text_parts(settings["name"]).items():
        part = jnp.dtype("float32") if name in exact else dtype
        site = Site(features=features, tower=tower, dtype=part, zero=bool(made))
        made[name] = on_texts(spec, _options(spec, settings), site, pooling)
    return next(iter(made.values())) if len(made) == 1 else Summed(made)


def on_images(spec: HeadSpec, options: Mapping[str, Any], site: Site) -> Head:
    """A head on images, with settings of its own."""
    make = spec.pooled or spec.image
    if make is None:
        raise ValueError(f"{spec.name!r} is no head of images")
    return make(site, **options)


def on_texts(spec: HeadSpec, options: Mapping[str, Any], site: Site, pooling: str) -> Head:
    """A head on captions, likewise; one on vectors takes them pooled."""
    if spec.pooled is not None:
        return OnPooledText(spec.pooled(site, **options), site.tower, pooling)
    if spec.text is None:
        raise ValueError(f"{spec.name!r} is no head of captions")
    return spec.text(site, **options)


def _options(spec: HeadSpec, settings: Settings) -> dict[str, Any]:
    return {key: settings[key] for key in spec.keys}


class OnPooledText(Head):
    """A head on pooled features, on one vector a caption; its parameters are the head's.

    Attributes:
      head: maps [B, d] to [B, E].
      tower: the config of the tower whose tokens these are.
      pooling: how the tokens of a caption become one vector, see `config.poolings`.
    """

    head: Head
    tower: TowerConfig
    pooling: str = "mean"

    @property
    def mixes_input(self) -> bool:
        """True where the head is not linear."""
        return self.head.mixes_input

    @nn.nowrap
    def to_torch(self, width: int, embed: int) -> TorchLayer:
        """Names the torch layer of the head, which pools as well."""
        name, settings = self.head.to_torch(width * len(poolings.parts(self.pooling)), embed)
        return name, {**settings, "pooling": self.pooling}

    @nn.nowrap
    def torch_params(self, params: PyTree) -> PyTree:
        """Parameters of the torch layer of the head."""
        return self.head.torch_params(params)

    def setup(self) -> None:
        """Lets the head's parameters lie where this module's would."""
        nn.share_scope(self, self.head)

    def __call__(
        self, text: TextInput, *, train: bool = False, mix: Mix | None = None
    ) -> Float[Array, "B E"]:
        """Pools the tokens and applies the head; `mix` acts between the two."""
        pooled = text.pool(text.rows, self.pooling, self.tower)
        return self.head(pooled if mix is None else mix(pooled), train=train)


class Summed(Head):
    """The sum of text heads, before it is brought to unit length.

    The first is where training starts from; the others start at zero (`zero=True`) and learn what
    it leaves: a linear map that a closed form has fitted, say, and a token MLP.

    Attributes:
      part: the heads by name; the parameters of each are under `part_NAME`.
    """

    part: dict[str, Head]

    @nn.compact
    def __call__(self, text: TextInput, *, train: bool = False) -> Float[Array, "B E"]:
        """Adds what the heads give."""
        parts = [head(text, train=train) for head in self.part.values()]
        return functools.reduce(operator.add, parts)
