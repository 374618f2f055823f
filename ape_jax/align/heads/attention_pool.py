"""Attention pooling: a few learned queries choose among the tokens of a frozen tower."""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ape_jax.align.heads.base.head import (
    DType,
    Head,
    Site,
    TextInput,
    TorchLayer,
    last_kernel,
)
from ape_jax.align.heads.base.keys import DROPOUT
from ape_jax.config.components import HeadSpec
from ape_jax.config.fields import integer
from ape_jax.errors import UserError
from ape_jax.nn.layers import Dense
from ape_jax.towers.tower import TowerConfig

_NORM_EPS = 1e-5  # torch's default
_QUERIES = integer(4, 1, 256).explained("Learned queries that attend over tokens.")
_PARTS = integer(1, 1, 256).explained(
    "Attention heads of each query, which attend apart; a divisor of the tower's width."
)

Pool = Callable[[Array, str], Array]
Spread = Callable[[Array], Array]


class Queries(nn.Module):
    """Learned queries over tokens, and a linear map of what all of them found.

    Query m attends with h heads: with the tokens y = norm(x), whose mean over the width is 0 and
    whose variance is 1, and their j-th of h slices y_tj,

        a_tmj = softmax over t of (q_mj . y_tj / sqrt(d / h))
        z = W [sum over t of a_tmj y_tj] + b

    with the sums of all m and j side by side in brackets. There is no map to keys or values and the
    norm has no parameters: W and q would take them up. What a head starts from is nearly the mean.

    Attributes:
      features: the joint width E.
      queries: number of queries.
      parts: heads of each, h.
      dropout: rate of the attended vectors in training.
      dtype: input dtype of the matrix products.
      zero: whether W starts at zero.
    """

    features: int
    queries: int
    parts: int
    dropout: float
    dtype: DType
    zero: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "n m d"], pool: Pool, spread: Spread, *, train: bool
    ) -> Float[Array, "B E"]:
        """Attends and maps.

        Args:
          x: tokens as they lie in memory.
          pool: the "mean" or the "max" of values over the tokens of each row, [n, m, w] -> [B, w].
          spread: gives each token what its row has, [B, w] -> [n, m, w].
          train: whether there is dropout.
        """
        width = x.shape[-1]
        shape = (self.queries, self.parts, width // self.parts)
        queries = self.param("queries", nn.initializers.normal(0.02), shape, jnp.float32)
        y = _normed(x).reshape(*x.shape[:2], *shape[1:])
        # In one precision for all forms of a batch: scores decide, and are few.
        scores = jnp.einsum("nmhk,qhk->nmqh", y, queries, precision=jax.lax.Precision.HIGHEST)
        scores = scores.reshape(*x.shape[:2], -1) * shape[-1] ** -0.5
        above = scores - spread(jax.lax.stop_gradient(pool(scores, "max")))
        # Of real tokens at most 0, but for rounding. What padding has no mean counts; it must only
        # stay finite. A minimum with 0 would halve the gradient of the largest score.
        weights = jnp.exp(jnp.where(above > 1, 0.0, above))
        total = jnp.maximum(pool(weights, "mean"), jnp.finfo(jnp.float32).tiny)
        weights = weights.reshape(*x.shape[:2], *shape[:2], 1)
        found = [pool((weights[:, :, i] * y).reshape(x.shape), "mean") for i in range(self.queries)]
        z = jnp.stack(found, axis=1).reshape(-1, *shape) / total.reshape(-1, *shape[:2], 1)
        z = nn.Dropout(self.dropout, deterministic=not train)(z.reshape(z.shape[0], -1))
        start = last_kernel(self.zero, nn.initializers.lecun_normal())
        return Dense(self.features, dtype=self.dtype, kernel_init=start, name="projection")(z)


class TextAttentionPool(Head):
    """Attention pooling of the tokens of a caption.

    Padded and packed tokens give the same result, without padding what is packed.

    Attributes:
      features: the joint width E.
      tower: the config of the tower whose tokens these are.
      queries: number of learned queries.
      heads: attention heads of each; a divisor of the tower's width.
      dropout: rate of the attended vectors in training.
      dtype: input dtype of the matrix products.
      zero: whether the last layer starts at zero.

    References:
      Psomas et al., "Attention, Please! Revisiting Attentive Probing Through the Lens of
      Efficiency", arXiv 2506.10178: queries against unmapped tokens, and no output map but the
      last. There each query has a slice of mapped values; here it has all of the tokens' width.
      Yu et al., "CoCa: Contrastive Captioners are Image-Text Foundation Models", arXiv 2205.01917,
      section 3.2 (attentional poolers).
    """

    features: int
    tower: TowerConfig
    queries: int = _QUERIES.default
    heads: int = _PARTS.default
    dropout: float = DROPOUT.default
    dtype: DType = jnp.bfloat16
    zero: bool = False

    @nn.compact
    def __call__(self, text: TextInput, *, train: bool = False) -> Float[Array, "B E"]:
        """Attends over the tokens of each caption and maps to the joint space."""

        def pool(x: Array, how: str) -> Array:
            return text.pool(x, how, self.tower)

        sizes = (self.features, self.queries, self.heads, self.dropout, self.dtype, self.zero)
        attention = Queries(*sizes, name="attention")
        return attention(text.rows, pool, text.spread, train=train)

    @nn.nowrap
    def to_torch(self, width: int, embed: int) -> TorchLayer:
        """Names the torch layer, see `Head`."""
        return _layer(self, width, embed)


class ImageAttentionPool(Head):
    """Attention pooling of all tokens of an image, CLS and registers among them.

    Attributes:
      features: the joint width E.
      queries: number of learned queries.
      heads: attention heads of each; a divisor of the tower's width.
      dropout: rate of the attended vectors in training.
      dtype: input dtype of the matrix products.

    References:
      As `TextAttentionPool`.
    """

    features: int
    queries: int = _QUERIES.default
    heads: int = _PARTS.default
    dropout: float = DROPOUT.default
    dtype: DType = jnp.bfloat16

    @nn.compact
    def __call__(
        self, tokens: Float[Array, "B T d"], *, train: bool = False
    ) -> Float[Array, "B E"]:
        """Attends over the tokens of each image and maps to the joint space."""

        def pool(x: Array, how: str) -> Array:
            return x.max(axis=1) if how == "max" else x.mean(axis=1)

        def spread(pooled: Array) -> Array:
            return pooled[:, None]

        sizes = (self.features, self.queries, self.heads, self.dropout, self.dtype)
        return Queries(*sizes, name="attention")(tokens, pool, spread, train=train)

    @nn.nowrap
    def to_torch(self, width: int, embed: int) -> TorchLayer:
        """Names the torch layer, see `Head`."""
        return _layer(self, width, embed)


def _normed(x: Float[Array, "n m d"]) -> Float[Array, "n m d"]:
    x = x.astype(jnp.float32)
    x = x - x.mean(axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + _NORM_EPS)


def _layer(head: TextAttentionPool | ImageAttentionPool, width: int, embed: int) -> TorchLayer:
    sizes = {"queries": head.queries, "heads": head.heads}
    return "attention_pool", {"width": width, "embed": embed, **sizes}


def _check(site: Site, heads: int) -> None:
    if site.tower.width % heads:
        kind = site.tower.kind
        raise UserError(
            f"config.{kind}.head.heads: {heads} does not divide the {site.tower.width} dimensions "
            f"of {kind}.tower; write a divisor"
        )


def _image(site: Site, *, queries: int, heads: int, dropout: float) -> ImageAttentionPool:
    _check(site, heads)
    return ImageAttentionPool(site.features, queries, heads, dropout, site.dtype)


def _text(site: Site, *, queries: int, heads: int, dropout: float) -> TextAttentionPool:
    _check(site, heads)
    options = (queries, heads, dropout, site.dtype, site.zero)
    return TextAttentionPool(site.features, site.tower, *options)


ATTENTION_POOL = HeadSpec(
    name="attention_pool",
    title="learned queries that attend over tokens",
    image=_image,
    text=_text,
    keys={"queries": _QUERIES, "heads": _PARTS, "dropout": DROPOUT},
)
