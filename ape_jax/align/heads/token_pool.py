"""Freeze-Align's heads: every token through a small projector, then the mean."""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from ape_jax.align.heads.base.head import (
    DType,
    Head,
    Site,
    TextInput,
    TorchLayer,
    last_kernel,
    maker,
)
from ape_jax.align.heads.base.hidden import Hidden
from ape_jax.align.heads.base.keys import DROPOUT
from ape_jax.config.components import HeadSpec
from ape_jax.nn.layers import Dense, LayerNorm
from ape_jax.towers.tower import TowerConfig

_NORM_EPS = 1e-5  # torch's default


class PooledProjector(nn.Module):
    """The mean over tokens of `linear(y) + fc2(gelu(fc1(y)))`, `y = dropout(norm(x))`.

    `linear` and `fc2` act after the mean, with which they commute: the same function for less work.

    Attributes:
      features: the joint width E, also of the hidden layer.
      dropout: rate after the norm.
      dtype: input dtype of the matrix products.
      zero: whether `linear` and `fc2` start at zero.
    """

    features: int
    dropout: float
    dtype: DType
    zero: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "n m d"], pool: Callable[[Array], Array], *, train: bool
    ) -> Float[Array, "B E"]:
        """Projects tokens, as they lie, and averages them with `pool`."""
        x = LayerNorm(_NORM_EPS, name="norm")(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        hidden = Hidden(self.features, "gelu", self.dtype, name="fc1")(x)
        start = last_kernel(self.zero, nn.initializers.lecun_normal())
        linear, fc2 = (
            Dense(self.features, dtype=self.dtype, kernel_init=start, name=name)
            for name in ("linear", "fc2")
        )
        return linear(pool(x)) + fc2(pool(hidden))


class TextTokenPool(Head):
    """Freeze-Align's text side: token projector, mean, and an MLP with a residual and a norm.

    Attributes:
      features: the joint width E, 1024 in Freeze-Align, and of all hidden layers.
      tower: the config of the tower whose tokens these are.
      dropout: rate in both parts, 0.1 in Freeze-Align.
      dtype: input dtype of the matrix products.
      zero: whether a learned factor a dimension follows that starts at zero.

    References:
      Maniparambil et al., "Harnessing Frozen Unimodal Encoders for Flexible Multimodal Alignment",
      arXiv 2409.19425; layers as in their code (`text_projection=mlp`).
    """

    features: int
    tower: TowerConfig
    dropout: float = DROPOUT.default
    dtype: DType = jnp.bfloat16
    zero: bool = False

    @nn.compact
    def __call__(self, text: TextInput, *, train: bool = False) -> Float[Array, "B E"]:
        """Encodes the tokens, pools, and maps to the joint space."""

        def mean(x: Array) -> Array:
            return text.pool(x, "mean", self.tower)

        projector = PooledProjector(self.features, self.dropout, self.dtype, name="tokens")
        x = projector(text.rows, mean, train=train)
        lecun = nn.initializers.lecun_normal()
        dense = {"dtype": self.dtype, "kernel_init": lecun}
        projected = Dense(self.features, **dense, name="projection")(x)
        x = Dense(self.features, **dense, name="fc")(nn.gelu(projected, approximate=False))
        x = projected + nn.Dropout(self.dropout, deterministic=not train)(x)
        x = LayerNorm(_NORM_EPS, name="norm")(x)
        if not self.zero:
            return x
        return x * self.param("gate", nn.initializers.zeros, (self.features,), jnp.float32)

    @nn.nowrap
    def to_torch(self, width: int, embed: int) -> TorchLayer:
        """Names the torch layer, see `Head`."""
        return "token_pool_mlp", {"width": width, "embed": embed, "gate": self.zero}


class ImageTokenPool(Head):
    """Freeze-Align's image side: CLS and the mean patch, each through a projector, added.

    Attributes:
      features: the joint width E, and of the hidden layers.
      prefix_tokens: tokens before the first patch, of which the first is CLS.
      dropout: rate after each norm, 0.1 in Freeze-Align.
      dtype: input dtype of the matrix products.

    References:
      As `TextTokenPool`.
    """

    features: int
    prefix_tokens: int = 1
    dropout: float = DROPOUT.default
    dtype: DType = jnp.bfloat16

    @nn.compact
    def __call__(
        self, tokens: Float[Array, "B T d"], *, train: bool = False
    ) -> Float[Array, "B E"]:
        """Maps all tokens of an image to the joint space."""

        def mean(x: Array) -> Array:
            return x.mean(axis=1)

        def projector(name: str) -> PooledProjector:
            return PooledProjector(self.features, self.dropout, self.dtype, name=name)

        patches = projector("patches")(tokens[:, self.prefix_tokens :], mean, train=train)
        return patches + projector("cls")(tokens[:, :1], mean, train=train)

    @nn.nowrap
    def to_torch(self, width: int, embed: int) -> TorchLayer:
        """Names the torch layer, see `Head`."""
        settings = {"width": width, "embed": embed, "prefix_tokens": self.prefix_tokens}
        return "image_token_pool_mlp", settings


def _image(site: Site, *, dropout: float) -> ImageTokenPool:
    return ImageTokenPool(site.features, site.tower.prefix_tokens, dropout, site.dtype)


TOKEN_POOL_MLP = HeadSpec(
    name="token_pool_mlp",
    title="token projectors (Freeze-Align)",
    image=_image,
    text=maker(TextTokenPool, tower=True),
    keys={"dropout": DROPOUT},
)
