"""SAIL's head on one vector an image or a caption: two layers that are multiplied."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ape_jax.align.heads.base.head import DType, Head, TorchLayer, last_kernel, maker
from ape_jax.align.heads.base.keys import EXPANSION
from ape_jax.config.components import HeadSpec
from ape_jax.nn.layers import Dense, LayerNorm

# torch's default, with which the paper's code ran.
_NORM_EPS = 1e-5
_EXPANSION = 8


class StarMLP(Head):
    """SAIL's head: `linear(relu6(fc1(y)) * fc2(y))` with `y = norm(x)`.

    Attributes:
      features: the joint width E, 1024 in SAIL.
      expansion: width of the hidden layers in widths of the input; 0 is 8, as in SAIL.
      dtype: input dtype of the matrix products.
      zero: whether the last layer starts at zero.

    References:
      Zhang et al., "Assessing and Learning Alignment of Unimodal Vision and Language Models",
      arXiv 2412.04616; initialised as their code does.
    """

    features: int
    expansion: int = EXPANSION.default
    dtype: DType = jnp.bfloat16
    zero: bool = False

    @property
    def mixes_input(self) -> bool:
        """True: the head is not linear."""
        return True

    @nn.compact
    def __call__(self, pooled: Float[Array, "B d"], *, train: bool = False) -> Float[Array, "B E"]:
        """Maps pooled features to the joint space."""
        width = (self.expansion or _EXPANSION) * pooled.shape[-1]
        xavier = nn.initializers.xavier_uniform()
        x = LayerNorm(_NORM_EPS, name="norm")(pooled)
        gate = Dense(width, dtype=self.dtype, kernel_init=xavier, name="fc1")(x)
        value = Dense(width, dtype=self.dtype, kernel_init=xavier, name="fc2")(x)
        x = jax.nn.relu6(gate) * value
        start = last_kernel(self.zero, xavier)
        return Dense(self.features, dtype=self.dtype, kernel_init=start, name="projection")(x)

    @nn.nowrap
    def to_torch(self, width: int, embed: int) -> TorchLayer:
        """Names the torch layer, see `Head`."""
        hidden = (self.expansion or _EXPANSION) * width
        return "star_mlp", {"width": width, "embed": embed, "hidden": hidden}


STAR_MLP = HeadSpec(
    name="star_mlp",
    title="gated MLP on one vector (SAIL)",
    pooled=maker(StarMLP),
    keys={"expansion": EXPANSION},
)
