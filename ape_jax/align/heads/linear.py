"""No head at all, and one linear map: what LiT and LilT put on a tower."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from ape_jax.align.heads.base.head import DType, Head, TorchLayer, last_kernel, maker
from ape_jax.config.components import HeadSpec
from ape_jax.nn.layers import Dense


class Identity(Head):
    """The untouched image side of APE: no parameters."""

    @nn.compact
    def __call__(self, pooled: Float[Array, "B d"], *, train: bool = False) -> Float[Array, "B d"]:
        """Returns its input."""
        return pooled

    @nn.nowrap
    def to_torch(self, width: int, embed: int) -> TorchLayer:
        """Names the torch layer, see `Head`."""
        return "identity", {}


class Linear(Head):
    """One linear map with bias on pooled features: LiT's and LilT's projection.

    Attributes:
      features: the joint width E.
      dtype: input dtype of the matrix product, which accumulates in f32.
      zero: whether the layer starts at zero.
    """

    features: int
    dtype: DType = jnp.bfloat16
    zero: bool = False

    @nn.compact
    def __call__(self, pooled: Float[Array, "B d"], *, train: bool = False) -> Float[Array, "B E"]:
        """Maps pooled features to the joint space."""
        start = last_kernel(self.zero, nn.initializers.normal(0.02))
        dense = Dense(self.features, dtype=self.dtype, kernel_init=start, name="projection")
        return dense(pooled)

    @nn.nowrap
    def to_torch(self, width: int, embed: int) -> TorchLayer:
        """Names the torch layer, see `Head`."""
        return "linear", {"width": width, "embed": embed}


IDENTITY = HeadSpec(
    name="identity",
    title="no head",
    pooled=lambda site: Identity(),
    keeps_width=True,
    starts_at_zero=False,
)
LINEAR = HeadSpec(name="linear", title="linear", pooled=maker(Linear))
