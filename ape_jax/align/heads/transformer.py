"""APE's control: transformer layers on the tokens, then the mean."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from ape_jax.align.heads.base.head import DType, Head, TextInput, TorchLayer, last_kernel, maker
from ape_jax.align.heads.base.hidden import Hidden
from ape_jax.align.heads.base.keys import ACTIVATION, DEPTH, DROPOUT, EXPANSION
from ape_jax.config.components import HeadSpec
from ape_jax.nn.attention import attend, key_bias
from ape_jax.nn.layers import Dense, LayerNorm
from ape_jax.towers.tower import TowerConfig

Attend = Callable[[Array, Array, Array], Array]
_EXPANSION = 4


class Layer(nn.Module):
    """`x + attention(norm1(x))`, then `x + mlp(norm2(x))`, on tokens as they lie.

    Attributes:
      width: of the MLP's hidden layer.
      activation: a key of `towers.layers.ACTIVATIONS`.
      dropout: rate after attention and after each layer of the MLP.
      norm_eps: of the norms.
      dtype: input dtype of the matrix products.
    """

    width: int
    activation: str
    dropout: float
    norm_eps: float
    dtype: DType

    @nn.compact
    def __call__(
        self, x: Float[Array, "n m d"], attend: Attend, *, train: bool
    ) -> Float[Array, "n m d"]:
        """Run the layer; `attend` maps queries, keys and values [n, m, d] to what is attended."""
        drop = partial(nn.Dropout, self.dropout, deterministic=not train)
        dense = partial(Dense, x.shape[-1], dtype=self.dtype)
        y = LayerNorm(self.norm_eps, name="norm1")(x)
        y = attend(*(dense(name=name)(y) for name in ("query", "key", "value")))
        x = x + drop()(dense(name="out")(y))
        y = LayerNorm(self.norm_eps, name="norm2")(x)
        y = drop()(Hidden(self.width, self.activation, self.dtype, name="fc1")(y))
        return x + drop()(dense(name="fc2")(y))


class Transformer(Head):
    """Small pre-norm transformer layers on the tokens, a norm, the mean, a linear map.

    Packed tokens stay packed for all but the attention itself, which sees each caption padded.

    Attributes:
      features: the joint width E.
      tower: the config of the tower whose tokens these are; it gives the number of heads.
      depth: layers.
      expansion: width of the MLPs in widths of the tower; 0 is 4.
      activation: a key of `towers.layers.ACTIVATIONS`.
      dropout: rate on each branch.
      dtype: input dtype of the matrix products.
      zero: whether the last layer starts at zero.
    """

    features: int
    tower: TowerConfig
    depth: int = DEPTH.default
    expansion: int = EXPANSION.default
    activation: str = ACTIVATION.default
    dropout: float = DROPOUT.default
    dtype: DType = jnp.bfloat16
    zero: bool = False

    @nn.compact
    def __call__(self, text: TextInput, *, train: bool = False) -> Float[Array, "B E"]:
        """Encodes the tokens, pools, and maps to the joint space."""
        x, eps = text.rows.astype(jnp.float32), self.tower.norm_eps
        width = (self.expansion or _EXPANSION) * self.tower.width
        within = _within(text, self)
        for i in range(self.depth):
            settings = (width, self.activation, self.dropout, eps, self.dtype)
            x = Layer(*settings, name=f"layer_{i}")(x, within, train=train)
        x = LayerNorm(eps, name="norm")(x)
        pooled = text.pool(x, "mean", self.tower)
        start = last_kernel(self.zero, nn.initializers.lecun_normal())
        return Dense(self.features, dtype=self.dtype, kernel_init=start, name="projection")(pooled)

    @nn.nowrap
    def to_torch(self, width: int, embed: int) -> TorchLayer:
        """Names the torch layer, see `Head`."""
        hidden = (self.expansion or _EXPANSION) * self.tower.width
        sizes = {"depth": self.depth, "hidden": hidden, "activation": self.activation}
        layer = {"heads": self.tower.heads, "eps": self.tower.norm_eps}
        return "transformer", {"width": width, "embed": embed, **sizes, **layer}


TRANSFORMER = HeadSpec(
    name="transformer",
    title="transformer layers on tokens, then their mean",
    text=maker(Transformer, tower=True),
    keys={"depth": DEPTH, "expansion": EXPANSION, "activation": ACTIVATION, "dropout": DROPOUT},
    needs=frozenset({"token_index"}),
)


def _within(text: TextInput, head: Transformer) -> Attend:
    """Attention within each caption, however its tokens lie."""
    heads, dtype = head.tower.heads, head.dtype
    captions, mask = text.packed, text.mask
    if captions is None:
        if mask is None:
            raise ValueError("padded captions have a mask")
        return lambda q, k, v: attend(q, k, v, key_bias(mask), heads, dtype)
    bias = key_bias(captions.padded_mask())

    def packed(*qkv: Array) -> Array:
        q, k, v = (captions.replace(tokens=x).padded() for x in qkv)
        return captions.pack(attend(q, k, v, bias, heads, dtype))

    return packed
