"""Attention: of many heads, with rotary positions, grouped heads, masks and relative positions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from ape_jax.nn import fused_attention
from ape_jax.nn.inference import MOST_HEADS, attend_by_head
from ape_jax.nn.layers import Dense, NormConfig
from ape_jax.nn.matmul import product
from ape_jax.nn.tree import Tree
from ape_jax.nn.window import Window

# Large enough to vanish in a softmax, small enough to stay finite in a sum.
MASKED = -1e9


class Rotation(Tree):
    """The angles by which queries and keys are turned (RoPE, arXiv 2104.09864).

    Attributes:
      cos, sin: f32 [1 or B, T, r / 2], of the first r channels of a head; the others stay as they
        are. (1, 0) turns nothing: for tokens without a place, such as CLS.
    """

    cos: Float[Array, "#b t r"]
    sin: Float[Array, "#b t r"]


class Context(Tree):
    """What the blocks of a stack read beside the residual stream.

    Attributes:
      bias: added to the logits before the softmax, f32, broadcastable to [B, H, T, S]. Masks and
        relative positions that all blocks share both come in this way; see `key_bias`.
      rotation: of queries and keys; None turns nothing.
      relative: the row of a block's own table of relative positions for query t and key s.
      window: the same for patches, of a table that is resized to their image.
      norm1: whether the first norm of a block acts; None is True.
    """

    bias: Float[Array, "#b #h #t s"] | None = None
    rotation: Rotation | None = None
    relative: Int32[Array, "t s"] | None = None
    window: Window | None = None
    norm1: Bool[Array, ""] | None = None


NOTHING = Context()
BIASES = ("query", "key", "value", "out")
"""The linear layers of an attention."""


class Attention(nn.Module):
    """Multi-head attention of `x` (queries) to `keys` (keys and values; default `x`).

    Attributes:
      heads: of the queries.
      biases: the linear layers that have one.
      bare: the linear layers that are left out, so that what would pass them stays as it is.
      kv_heads: of keys and values, a divisor of `heads` (arXiv 2305.13245); None: as many.
      head_width: channels of a head; None: the width by the heads.
      scale: of the logits; None: 1 / sqrt(head_width).
      qk_norm: a norm of each head's queries and keys, before they are turned.
      out_norm: a norm of the attended values, before the last layer (EVA-02).
      interleaved: pairs that are turned together are neighbours; if not, one is of each half.
      relative: rows of a table of relative positions of its own, [rows, heads]; 0 is none.
      inference: see inference.py.
    """

    heads: int
    biases: tuple[str, ...] = BIASES
    bare: tuple[str, ...] = ()
    kv_heads: int | None = None
    head_width: int | None = None
    scale: float | None = None
    qk_norm: NormConfig | None = None
    out_norm: NormConfig | None = None
    interleaved: bool = False
    relative: int = 0
    dtype: Any = jnp.bfloat16
    param_dtype: Any = jnp.float32
    inference: bool = False

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t d"],
        context: Context = NOTHING,
        keys: Float[Array, "b s d"] | None = None,
    ) -> Float[Array, "b t d"]:
        """Attend."""
        keys = x if keys is None else keys
        size = self.head_width or x.shape[-1] // self.heads
        groups = self.kv_heads or self.heads
        query = self._dense("query", self.heads * size)(x)
        key = self._dense("key", groups * size)(keys)
        value = self._dense("value", groups * size)(keys)
        query = self._placed("query", query, self.heads, context.rotation)
        key = self._placed("key", key, groups, context.rotation)
        bias = self._bias(context)
        wide = jnp.float32 if self.inference else self.dtype
        plain = bias is None and groups == self.heads and self.scale is None
        if fused_attention.takes(query, bias, self.dtype, size):
            y = fused_attention.attend(query, key, value, self.dtype, size=size, scale=self.scale)
        elif self.inference and plain and x.shape[0] * self.heads <= MOST_HEADS:
            y = attend_by_head(query, key, value, self.heads)
        else:
            y = attend(query, key, value, bias, self.heads, wide, size=size, scale=self.scale)
        if self.out_norm is not None:
            y = self.out_norm.module(self.param_dtype, name="norm")(y)
        return self._dense("out", x.shape[-1])(y)

    def _dense(self, name: str, width: int) -> Callable[[Array], Array]:
        if name in self.bare:
            return lambda y: y
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        return Dense(width, use_bias=name in self.biases, **types, name=name)

    def _placed(self, name: str, y: Array, heads: int, rotation: Rotation | None) -> Array:
        """Queries or keys, normed and turned head by head."""
        if self.qk_norm is None and rotation is None:
            return y
        split = y.reshape(*y.shape[:2], heads, -1)
        if self.qk_norm is not None:
            split = self.qk_norm.module(self.param_dtype, name=f"{name}_norm")(split)
        if rotation is not None:
            split = rotate(split, rotation, interleaved=self.interleaved)
        return split.reshape(y.shape)

    def _bias(self, context: Context) -> Array | None:
        if not self.relative:
            return context.bias
        rows, patches = context.relative, context.window
        if rows is None and patches is None:
            raise ValueError("an attention with a table of relative positions needs their rows")
        init, shape = nn.initializers.normal(0.02), (self.relative, self.heads)
        table = self.param("relative", init, shape, self.param_dtype).astype(jnp.float32)
        if patches is not None:
            own = patches.bias(table)
        else:
            own = jnp.take(table, jnp.asarray(rows), axis=0).transpose(2, 0, 1)[None]
        return own if context.bias is None else context.bias + own


def rotate(
    x: Float[Array, "b t h c"], rotation: Rotation, *, interleaved: bool
) -> Float[Array, "b t h c"]:
    """Turns pairs of channels of each head.

    Args:
      x: queries or keys.
      rotation: the angles.
      interleaved: channels 2i and 2i + 1 are a pair; if not, i and i + r / 2 are.
    """
    cos, sin = (y[:, :, None] for y in (rotation.cos, rotation.sin))
    width = 2 * cos.shape[-1]
    turned, rest = x[..., :width], x[..., width:]
    if interleaved:
        one, two = turned[..., 0::2], turned[..., 1::2]
    else:
        one, two = jnp.split(turned, 2, axis=-1)
    parts = one * cos - two * sin, two * cos + one * sin
    if interleaved:
        turned = jnp.stack(parts, axis=-1).reshape(turned.shape)
    else:
        turned = jnp.concatenate(parts, axis=-1)
    return jnp.concatenate([turned, rest], axis=-1) if rest.shape[-1] else turned


def attend(
    query: Array,
    key: Array,
    value: Array,
    bias: Array | None,
    heads: int,
    dtype: Any,
    *,
    size: int | None = None,
    scale: float | None = None,
) -> Float[Array, "b t d"]:
    """Multi-head attention without its linear layers.

    All heads at once: [B, H, T, Dh] products by hand, faster on CPU than jax.nn's. Where keys have
    fewer heads, the queries of a group stand one below the other, and nothing is repeated.

    Args:
      query: [B, T, heads * size].
      key, value: [B, S, G * size], where G divides `heads`.
      bias: see `Context`.
      heads: of the queries.
      dtype: input dtype of products.
      size: channels of a head; None: the queries' by the heads.
      scale: of the logits; None: 1 / sqrt(size).
    """
    size = size or query.shape[-1] // heads
    batch, length, groups = *query.shape[:2], key.shape[-1] // size

    def split(y: Array, count: int) -> Array:
        y = y.astype(dtype).reshape(*y.shape[:2], count, -1)
        return y.transpose(0, 2, 1, 3)

    shape = query.shape
    query, key, value = split(query, heads), split(key, groups), split(value, groups)
    query = query.reshape(batch, groups, -1, size)
    logits = product(query, key.swapaxes(-1, -2), dtype) * (scale or size**-0.5)
    logits = logits.reshape(batch, heads, length, -1)
    if bias is not None:
        logits = logits + bias
    weights = jax.nn.softmax(logits, axis=-1).reshape(batch, groups, -1, logits.shape[-1])
    y = product(weights, value, dtype).reshape(batch, heads, length, size)
    return y.transpose(0, 2, 1, 3).reshape(shape)


def key_bias(
    mask: Bool[Array, "b t"], *, causal: bool = False, reach: int | None = None
) -> Float[Array, "b 1 #t t"]:
    """The attention bias that hides padding keys, later ones, and those far away.

    Args:
      mask: True at real tokens.
      causal: position t sees positions <= t only.
      reach: position t sees positions t - reach .. t + reach only; None: all.

    Returns:
      f32 [B, 1, 1, T], or [B, 1, T, T] if causal or with a reach.
    """
    seen = mask[:, None, None, :]
    if causal or reach is not None:
        place = jnp.arange(mask.shape[1])
        distance = place[:, None] - place[None]
        parts = [distance >= 0] if causal else []
        parts += [] if reach is None else [jnp.abs(distance) <= reach]
        seen = seen & functools.reduce(jnp.logical_and, parts)[None, None]
    return jnp.where(seen, 0.0, MASKED).astype(jnp.float32)
