"""ShareLock's head on one vector an image or a caption: an MLP."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ape_jax.align.heads.base.batch_norm import BatchNorm, folded
from ape_jax.align.heads.base.head import DType, Head, TorchLayer, last_kernel, maker
from ape_jax.align.heads.base.hidden import hidden_layers
from ape_jax.align.heads.base.keys import ACTIVATION, DEPTH, DROPOUT, WIDTH
from ape_jax.config.components import HeadSpec
from ape_jax.config.fields import choice
from ape_jax.nn.layers import ACTIVATIONS, Dense

_NORM = choice("none", "batch").explained("Batch normalisation between the layers.")


class PooledMLP(Head):
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
    depth: int = DEPTH.default
    width: int = WIDTH.default
    activation: str = ACTIVATION.default
    dropout: float = DROPOUT.default
    dtype: DType = jnp.bfloat16
    zero: bool = False
    norm: str = _NORM.default

    @property
    def mixes_input(self) -> bool:
        """True: the head is not linear."""
        return True

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

    @nn.nowrap
    def to_torch(self, width: int, embed: int) -> TorchLayer:
        """Names the torch layer; batch norms are folded into the layers before them."""
        sizes = {"depth": self.depth, "hidden": self.width or width, "activation": self.activation}
        return "pooled_mlp", {"width": width, "embed": embed, **sizes}

    @nn.nowrap
    def torch_params(self, params: PyTree) -> PyTree:
        """The parameters without batch norms."""
        return folded(params)


POOLED_MLP = HeadSpec(
    name="pooled_mlp",
    title="MLP on one vector (ShareLock)",
    pooled=maker(PooledMLP),
    keys={
        "depth": DEPTH,
        "width": WIDTH,
        "activation": ACTIVATION,
        "dropout": DROPOUT,
        "norm": _NORM,
    },
)
