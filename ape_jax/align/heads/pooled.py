"""Heads on one vector an image or a caption: ShareLock's, FuseMix's and SAIL's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ape_jax.align.heads.batch_norm import BatchNorm
from ape_jax.align.heads.hidden import Hidden, hidden_layers
from ape_jax.align.heads.pooling import Mask, Text, last_kernel, pool_like, tokens_of
from ape_jax.nn.layers import ACTIVATIONS, Dense, LayerNorm
from ape_jax.towers.tower import TowerConfig

DType = Any
Mix = Callable[[Array], Array]

# torch's default, with which both papers' code ran.
_NORM_EPS = 1e-5


class PooledMLP(nn.Module):
    """ShareLock's head: an MLP on the pooled vector, with batch norm if asked for.

    Attributes:
      features: the joint width E.
      depth: linear layers, 4 in ShareLock.
      width: of the hidden layers, 4096 in ShareLock; 0 is the input's.
      activation: a key of `towers.layers.ACTIVATIONS`, relu in ShareLock.
      dropout: rate after each activation, 0.2 in ShareLock.
      dtype: input dtype of the matrix products.
      zero: whether the last layer starts at zero.
      norm: "batch" before each activation, as in ShareLock, or "none".

    References:
      Ruthardt et al., "Better Language Models Exhibit Higher Visual Alignment", arXiv 2410.07173.
    """

    features: int
    depth: int = 4
    width: int = 0
    activation: str = "gelu"
    dropout: float = 0.0
    dtype: DType = jnp.bfloat16
    zero: bool = False
    norm: str = "none"

    @nn.compact
    def __call__(self, pooled: Float[Array, "B d"], *, train: bool = False) -> Float[Array, "B E"]:
        """Maps pooled features to the joint space."""
        width = self.width or pooled.shape[-1]
        if self.norm == "batch":
            x = self._normed_layers(pooled, width, train)
        else:
            options = (self.depth - 1, width, self.activation, self.dropout, self.dtype)
            x = hidden_layers(pooled, *options, train=train)
        start = last_kernel(self.zero, nn.initializers.lecun_normal())
        last = f"dense_{self.depth - 1}"
        return Dense(self.features, dtype=self.dtype, kernel_init=start, name=last)(x)

    def _normed_layers(
        self, x: Float[Array, "B d"], width: int, train: bool
    ) -> Float[Array, "B w"]:
        start = nn.initializers.lecun_normal()
        for i in range(self.depth - 1):
            x = Dense(width, dtype=self.dtype, kernel_init=start, name=f"dense_{i}")(x)
            x = BatchNorm(name=f"norm_{i}")(x, train=train)
            x = ACTIVATIONS[self.activation](x)
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return x


class ResidualMLP(nn.Module):
    """FuseMix's head: blocks `x + fc2(dropout(activation(fc1(norm(x)))))`, norm, linear map.

    Attributes:
      features: the joint width E.
      depth: blocks, 4 in FuseMix.
      expansion: width of a block's hidden layer in widths of the input, 4 in FuseMix.
      activation: a key of `towers.layers.ACTIVATIONS`, gelu in FuseMix.
      dropout: rate after each activation, 0.6 in FuseMix.
      dtype: input dtype of the matrix products.
      zero: whether the last layer starts at zero.

    References:
      Vouitsis et al., "Data-Efficient Multimodal Fusion on a Single GPU", arXiv 2312.10144; the
      norm before the last layer is in their code and not in the paper.
    """

    features: int
    depth: int = 4
    expansion: int = 4
    activation: str = "gelu"
    dropout: float = 0.0
    dtype: DType = jnp.bfloat16
    zero: bool = False

    @nn.compact
    def __call__(self, pooled: Float[Array, "B d"], *, train: bool = False) -> Float[Array, "B E"]:
        """Maps pooled features to the joint space."""
        x, width = pooled.astype(jnp.float32), pooled.shape[-1]
        lecun = nn.initializers.lecun_normal()
        for i in range(self.depth):
            y = LayerNorm(_NORM_EPS, name=f"block_{i}_norm")(x)
            y = Hidden(self.expansion * width, self.activation, self.dtype, name=f"block_{i}_fc1")(
                y
            )
            y = nn.Dropout(self.dropout, deterministic=not train)(y)
            x = x + Dense(width, dtype=self.dtype, kernel_init=lecun, name=f"block_{i}_fc2")(y)
        x = LayerNorm(_NORM_EPS, name="norm")(x)
        start = last_kernel(self.zero, lecun)
        return Dense(self.features, dtype=self.dtype, kernel_init=start, name="projection")(x)


class StarMLP(nn.Module):
    """SAIL's head: `linear(relu6(fc1(y)) * fc2(y))` with `y = norm(x)`.

    Attributes:
      features: the joint width E, 1024 in SAIL.
      expansion: width of the hidden layers in widths of the input, 8 in SAIL.
      dtype: input dtype of the matrix products.
      zero: whether the last layer starts at zero.

    References:
      Zhang et al., "Assessing and Learning Alignment of Unimodal Vision and Language Models",
      arXiv 2412.04616; initialised as their code does.
    """

    features: int
    expansion: int = 8
    dtype: DType = jnp.bfloat16
    zero: bool = False

    @nn.compact
    def __call__(self, pooled: Float[Array, "B d"], *, train: bool = False) -> Float[Array, "B E"]:
        """Maps pooled features to the joint space."""
        width, xavier = self.expansion * pooled.shape[-1], nn.initializers.xavier_uniform()
        x = LayerNorm(_NORM_EPS, name="norm")(pooled)
        gate = Dense(width, dtype=self.dtype, kernel_init=xavier, name="fc1")(x)
        value = Dense(width, dtype=self.dtype, kernel_init=xavier, name="fc2")(x)
        x = jax.nn.relu6(gate) * value
        start = last_kernel(self.zero, xavier)
        return Dense(self.features, dtype=self.dtype, kernel_init=start, name="projection")(x)


class OnPooledText(nn.Module):
    """A head on pooled features, on one vector a caption; its parameters are the head's.

    Attributes:
      head: maps [B, d] to [B, E].
      tower: the config of the tower whose tokens these are.
      pooling: `mean`, `cls` or `last`.
    """

    head: nn.Module
    tower: TowerConfig
    pooling: str = "mean"

    def setup(self) -> None:
        """Lets the head's parameters lie where this module's would."""
        nn.share_scope(self, self.head)

    def __call__(
        self,
        text: Text,
        mask: Mask = None,
        ids: Int[Array, "B T"] | None = None,
        *,
        train: bool = False,
        mix: Mix | None = None,
    ) -> Float[Array, "B E"]:
        """Pools the tokens and applies the head; `mix` acts between the two."""
        pooled = pool_like(tokens_of(text), text, mask, self.pooling, self.tower)
        return self.head(pooled if mix is None else mix(pooled), train=train)
