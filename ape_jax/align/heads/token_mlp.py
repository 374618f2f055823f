"""APE's head: an MLP on every token of a caption."""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from ape_jax.align.heads.base.head import DType, Head, TextInput, TorchLayer, last_kernel, maker
from ape_jax.align.heads.base.hidden import hidden_layers
from ape_jax.align.heads.base.keys import ACTIVATION, DEPTH, DROPOUT, WIDTH
from ape_jax.config.components import HeadSpec
from ape_jax.nn.layers import Dense
from ape_jax.towers.tower import TowerConfig


class TokenMLP(Head):
    """APE's head: an MLP on every token's encoding, then the mean over the real tokens.

    The last layer is linear and so is the mean, so the layer acts after the pooling: the same
    function for a T-th of its cost. With `depth=1` the head is linear on mean-pooled text.

    Attributes:
      features: the joint width E.
      tower: the config of the tower whose tokens these are.
      depth: linear layers, 4 to 6 in the paper.
      width: of the hidden layers; 0 is the tower's.
      activation: a key of `towers.layers.ACTIVATIONS`; the paper does not say which it used.
      dropout: rate after each activation.
      dtype: input dtype of the matrix products.
      zero: whether the last layer starts at zero.

    References:
      Rosenfeld et al., "APE: Aligning Pretrained Encoders to Quickly Learn Aligned Multimodal
      Representations", arXiv 2210.03927, section 3.
    """

    features: int
    tower: TowerConfig
    depth: int = DEPTH.default
    width: int = WIDTH.default
    activation: str = ACTIVATION.default
    dropout: float = DROPOUT.default
    dtype: DType = jnp.bfloat16
    zero: bool = False

    @nn.compact
    def __call__(self, text: TextInput, *, train: bool = False) -> Float[Array, "B E"]:
        """Encodes the tokens, pools, and maps to the joint space."""
        width = self.width or self.tower.width
        options = (self.depth - 1, width, self.activation, self.dropout, self.dtype)
        x = hidden_layers(text.rows, *options, train=train)
        pooled = text.pool(x, "mean", self.tower)
        start = last_kernel(self.zero, nn.initializers.lecun_normal())
        last = partial(Dense, dtype=self.dtype, kernel_init=start)
        return last(self.features, name=f"dense_{self.depth - 1}")(pooled)

    @nn.nowrap
    def to_torch(self, width: int, embed: int) -> TorchLayer:
        """Names the torch layer, see `Head`."""
        hidden = self.width or self.tower.width
        sizes = {"depth": self.depth, "hidden": hidden, "activation": self.activation}
        return "token_mlp", {"width": width, "embed": embed, **sizes}


TOKEN_MLP = HeadSpec(
    name="token_mlp",
    title="MLP on tokens, then their mean (APE)",
    text=maker(TokenMLP, tower=True),
    keys={"depth": DEPTH, "width": WIDTH, "activation": ACTIVATION, "dropout": DROPOUT},
)
