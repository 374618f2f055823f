"""The pieces every tower is made of: activations, dense layers, norms, factors.

Products take inputs of `dtype` and accumulate in float32; everything between products (residual
stream, norms, softmax, activations) is float32. `dtype=float32` asks for full float32 precision on
every backend. Module names are the same in every family (`norm1`, `attention/query`, `mlp/fc1`,
...), so that whoever changes a tower from outside needs to know one vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

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

BITS = jnp.uint16  # A kernel of this type holds the bits of bfloat16, see `inference`.
PRODUCT = "product of a dense layer"  # See `stack.REMAT`.


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
        if kernel.dtype == BITS:
            kernel = jax.lax.bitcast_convert_type(kernel, jnp.bfloat16)
        y = checkpoint_name(product(x, kernel, self.dtype), PRODUCT)
        if self.has_variable("params", SCALE):  # The kernel is in int8, see int8.py.
            y = y * self.get_variable("params", SCALE)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), self.param_dtype)
            y = y + bias.astype(jnp.float32)
        return y


@dataclasses.dataclass(frozen=True, kw_only=True)
class NormConfig:
    """The norm that a tower has everywhere.

    Attributes:
      eps: added to the mean square.
      kind: "layer", or "rms" (arXiv 1910.07467), which takes no mean away and has no bias.
      bias: of a layer norm.
      offset: added to the scale: 1 where files hold its distance from one (Gemma).
    """

    eps: float
    kind: Literal["layer", "rms"] = "layer"
    bias: bool = True
    offset: float = 0.0

    def module(self, param_dtype: Any, name: str | None = None) -> nn.Module:
        """A norm of this kind; `name` as for any module that another makes."""
        if self.kind == "rms":
            return RmsNorm(self.eps, self.offset, param_dtype, name=name)
        return LayerNorm(self.eps, param_dtype, self.bias, name=name)


class LayerNorm(nn.Module):
    """Layer norm over the last axis, in float32."""

    eps: float
    param_dtype: Any = jnp.float32
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        """Apply the norm."""
        width = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, width, self.param_dtype)
        x = x.astype(jnp.float32)
        x = x - x.mean(-1, keepdims=True)
        x = x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + self.eps)
        x = x * scale.astype(jnp.float32)
        if not self.use_bias:
            return x
        bias = self.param("bias", nn.initializers.zeros, width, self.param_dtype)
        return x + bias.astype(jnp.float32)


class RmsNorm(nn.Module):
    """Division by the root of the mean square over the last axis, in float32 (arXiv 1910.07467)."""

    eps: float
    offset: float = 0.0
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        """Apply the norm."""
        init = nn.initializers.constant(1.0 - self.offset)
        scale = self.param("scale", init, (x.shape[-1],), self.param_dtype)
        x = x.astype(jnp.float32)
        x = x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + self.eps)
        return x * (self.offset + scale.astype(jnp.float32))


class Scale(nn.Module):
    """LayerScale (CaiT, arXiv 2103.17239): one learned factor a channel."""

    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        """Apply the factors."""
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), self.param_dtype)
        return x * scale.astype(jnp.float32)
