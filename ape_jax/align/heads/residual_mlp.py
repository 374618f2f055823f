"""FuseMix's head on one vector an image or a caption: residual blocks."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from ape_jax.align.heads.base.head import DType, Head, TorchLayer, last_kernel, maker
from ape_jax.align.heads.base.hidden import Hidden
from ape_jax.align.heads.base.keys import ACTIVATION, DEPTH, DROPOUT, EXPANSION
from ape_jax.config.components import HeadSpec
from ape_jax.nn.layers import Dense, LayerNorm

# torch's default, with which the paper's code ran.
_NORM_EPS = 1e-5
_EXPANSION = 4


class ResidualMLP(Head):
    """FuseMix's head: blocks `x + fc2(dropout(activation(fc1(norm(x)))))`, norm, linear map.

    Attributes:
      features: the joint width E.
      depth: blocks, 4 in FuseMix.
      expansion: width of a block's hidden layer in widths of the input; 0 is 4, as in FuseMix.
      activation: a key of `towers.layers.ACTIVATIONS`, gelu in FuseMix.
      dropout: rate after each activation, 0.6 in FuseMix.
      dtype: input dtype of the matrix products.
      zero: whether the last layer starts at zero.

    References:
      Vouitsis et al., "Data-Efficient Multimodal Fusion on a Single GPU", arXiv 2312.10144; the
      norm before the last layer is in their code and not in the paper.
    """

    features: int
    depth: int = DEPTH.default
    expansion: int = EXPANSION.default
    activation: str = ACTIVATION.default
    dropout: float = DROPOUT.default
    dtype: DType = jnp.bfloat16
    zero: bool = False

    @property
    def mixes_input(self) -> bool:
        """True: the head is not linear."""
        return True

    @nn.compact
    def __call__(self, pooled: Float[Array, "B d"], *, train: bool = False) -> Float[Array, "B E"]:
        """Maps pooled features to the joint space."""
        x, width = pooled.astype(jnp.float32), pooled.shape[-1]
        lecun = nn.initializers.lecun_normal()
        for i in range(self.depth):
            y = LayerNorm(_NORM_EPS, name=f"block_{i}_norm")(x)
            hidden = (self.expansion or _EXPANSION) * width
            y = Hidden(hidden, self.activation, self.dtype, name=f"block_{i}_fc1")(y)
            y = nn.Dropout(self.dropout, deterministic=not train)(y)
            x = x + Dense(width, dtype=self.dtype, kernel_init=lecun, name=f"block_{i}_fc2")(y)
        x = LayerNorm(_NORM_EPS, name="norm")(x)
        start = last_kernel(self.zero, lecun)
        return Dense(self.features, dtype=self.dtype, kernel_init=start, name="projection")(x)

    @nn.nowrap
    def to_torch(self, width: int, embed: int) -> TorchLayer:
        """Names the torch layer, see `Head`."""
        hidden = (self.expansion or _EXPANSION) * width
        sizes = {"depth": self.depth, "hidden": hidden, "activation": self.activation}
        return "residual_mlp", {"width": width, "embed": embed, **sizes}


RESIDUAL_MLP = HeadSpec(
    name="residual_mlp",
    title="residual MLP on one vector (FuseMix)",
    pooled=maker(ResidualMLP),
    keys={"depth": DEPTH, "expansion": EXPANSION, "activation": ACTIVATION, "dropout": DROPOUT},
)
