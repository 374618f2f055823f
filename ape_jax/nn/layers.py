"""The pieces every tower is made of: products, dense, norm, attention, MLP, blocks.

Products take inputs of `dtype` and accumulate in float32; everything between products (residual
stream, norms, softmax, activations) is float32. `dtype=float32` asks for full float32 precision on
every backend. Module names are the same in every family (`norm1`, `attention/query`, `mlp/fc1`,
...), so that whoever changes a tower from outside needs to know one vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from ape_jax.nn.inference import MOST_HEADS, attend_by_head
from ape_jax.nn.int8 import SCALE
from ape_jax.nn.matmul import product

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_new": partial(jax.nn.gelu, approximate=True),
    "gelu_pytorch_tanh": partial(jax.nn.gelu, approximate=True),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "tanh": jnp.tanh,
}
"""By the names transformers uses; "gelu" is the exact one (erf)."""

PRODUCT = "product of a dense layer"  # See `stack.REMAT`.

# Large enough to vanish in a softmax, small enough to stay finite in a sum.
MASKED = -1e9


class Dense(nn.Module):
    """A linear layer: `x [..., in]` -> f32 `[..., features]`; kernel `[in, features]`."""

    features: int
    use_bias: bool = True
    dtype: Any = jnp.bfloat16
    param_dtype: Any = jnp.float32
    kernel_init: nn.initializers.Initializer = nn.initializers.normal(0.02)

    @nn.compact
    def __call__(self, x: Float[Array, "*b i"]) -> Float[Array, "*b o"]:
        """Apply the layer."""
        shape = (x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        y = checkpoint_name(product(x, kernel, self.dtype), PRODUCT)
        if self.has_variable("params", SCALE):  # The kernel is in int8, see int8.py.
            y = y * self.get_variable("params", SCALE)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), self.param_dtype)
            y = y + bias.astype(jnp.float32)
        return y


class LayerNorm(nn.Module):
    """Layer norm over the last axis, in float32."""

    eps: float
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        """Apply the norm."""
        width = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, width, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, width, self.param_dtype)
        x = x.astype(jnp.float32)
        x = x - x.mean(-1, keepdims=True)
        x = x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + self.eps)
        return x * scale.astype(jnp.float32) + bias.astype(jnp.float32)


class Scale(nn.Module):
    """LayerScale (CaiT, arXiv 2103.17239): one learned factor a channel."""

    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        """Apply the factors."""
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), self.param_dtype)
        return x * scale.astype(jnp.float32)


class Attention(nn.Module):
    """Multi-head attention of `x` (queries) to `context` (keys, values; default `x`).

    `bias` is added to the logits before the softmax: f32, broadcastable to [B, H, T, S]. Masks and
    relative positions both come in this way; see `key_bias`. `inference`: see inference.py.
    """

    heads: int
    qkv_bias: bool = True
    out_bias: bool = True
    dtype: Any = jnp.bfloat16
    param_dtype: Any = jnp.float32
    inference: bool = False

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t d"],
        bias: Float[Array, "#b #h #t s"] | None = None,
        context: Float[Array, "b s d"] | None = None,
    ) -> Float[Array, "b t d"]:
        """Attend."""
        width = x.shape[-1]
        context = x if context is None else context
        dense = partial(Dense, width, dtype=self.dtype, param_dtype=self.param_dtype)

        query = dense(use_bias=self.qkv_bias, name="query")(x)
        key = dense(use_bias=self.qkv_bias, name="key")(context)
        value = dense(use_bias=self.qkv_bias, name="value")(context)
        wide = jnp.float32 if self.inference else self.dtype
        if self.inference and bias is None and x.shape[0] * self.heads <= MOST_HEADS:
            y = attend_by_head(query, key, value, self.heads)
        else:
            y = attend(query, key, value, bias, self.heads, wide)
        return dense(use_bias=self.out_bias, name="out")(y)


def attend(
    query: Array, key: Array, value: Array, bias: Array | None, heads: int, dtype: Any
) -> Float[Array, "b t d"]:
    """Multi-head attention without its linear layers; `bias` as in `Attention`.

    All heads at once: [B, H, T, Dh] products by hand, faster on CPU than jax.nn's.
    """

    def split(y: Array) -> Array:
        y = y.astype(dtype).reshape(*y.shape[:2], heads, -1)
        return y.transpose(0, 2, 1, 3)

    shape, scale = query.shape, (query.shape[-1] // heads) ** -0.5
    query, key, value = split(query), split(key), split(value)
    logits = product(query, key.swapaxes(-1, -2), dtype) * scale
    if bias is not None:
        logits = logits + bias
    y = product(jax.nn.softmax(logits, axis=-1), value, dtype)
    return y.transpose(0, 2, 1, 3).reshape(shape)


def key_bias(mask: Array, *, causal: bool = False) -> Float[Array, "b 1 t s"]:
    """The attention bias that hides padding keys (and, if causal, later ones).

    Args:
      mask: bool [B, T], True at real tokens.
      causal: position t sees positions <= t only.

    Returns:
      f32 [B, 1, 1, T], or [B, 1, T, T] if causal.
    """
    seen = mask[:, None, None, :]
    if causal:
        seen = seen & jnp.tril(jnp.ones((mask.shape[1], mask.shape[1]), bool))[None, None]
    return jnp.where(seen, 0.0, MASKED).astype(jnp.float32)


class Mlp(nn.Module):
    """`fc2(activation(fc1(x)))`."""

    width: int
    activation: str = "gelu"
    dtype: Any = jnp.bfloat16
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        """Apply the MLP."""
        dense = partial(Dense, dtype=self.dtype, param_dtype=self.param_dtype)
        y = ACTIVATIONS[self.activation](dense(self.width, name="fc1")(x))
        return dense(x.shape[-1], name="fc2")(y)


class SwiGlu(nn.Module):
    """`fc2(silu(gate) * up)` with `gate, up = split(fc1(x))` (arXiv 2002.05202, DINOv2 giant)."""

    width: int
    dtype: Any = jnp.bfloat16
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        """Apply the MLP."""
        dense = partial(Dense, dtype=self.dtype, param_dtype=self.param_dtype)
        gate, up = jnp.split(dense(2 * self.width, name="fc1")(x), 2, axis=-1)
        return dense(x.shape[-1], name="fc2")(jax.nn.silu(gate) * up)


class PreNormBlock(nn.Module):
    """The block of every ViT: `x + attention(norm1(x))`, then `x + mlp(norm2(x))`."""

    heads: int
    mlp_width: int
    norm_eps: float
    activation: str = "gelu"
    qkv_bias: bool = True
    layer_scale: bool = False
    swiglu: bool = False
    dtype: Any = jnp.bfloat16
    param_dtype: Any = jnp.float32
    inference: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], bias: Float[Array, "#b #h #t t"] | None = None
    ) -> Float[Array, "b t d"]:
        """Run the block on the residual stream."""
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        norm = partial(LayerNorm, self.norm_eps, param_dtype=self.param_dtype)
        scale = partial(Scale, param_dtype=self.param_dtype) if self.layer_scale else _identity
        if self.swiglu:
            mlp: nn.Module = SwiGlu(self.mlp_width, **types, name="mlp")
        else:
            mlp = Mlp(self.mlp_width, self.activation, **types, name="mlp")
        attention = Attention(
            self.heads, self.qkv_bias, **types, inference=self.inference, name="attention"
        )
        x = x + scale(name="scale1")(attention(norm(name="norm1")(x), bias))
        return x + scale(name="scale2")(mlp(norm(name="norm2")(x)))


class PostNormBlock(nn.Module):
    """The block of BERT: `norm1(x + attention(x))`, then `norm2(x + mlp(x))`."""

    heads: int
    mlp_width: int
    norm_eps: float
    activation: str = "gelu"
    dtype: Any = jnp.bfloat16
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], bias: Float[Array, "#b #h #t t"] | None = None
    ) -> Float[Array, "b t d"]:
        """Run the block on the residual stream."""
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        norm = partial(LayerNorm, self.norm_eps, param_dtype=self.param_dtype)
        attention = Attention(self.heads, **types, name="attention")
        mlp = Mlp(self.mlp_width, self.activation, **types, name="mlp")
        x = norm(name="norm1")(x + attention(x, bias))
        return norm(name="norm2")(x + mlp(x))


def _identity(name: str) -> Callable[[Array], Array]:
    return lambda x: x
