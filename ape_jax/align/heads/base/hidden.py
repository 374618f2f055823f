"""A hidden layer of a head, `activation(x @ kernel + bias)`, with its derivative by hand.

The layer sees every token of a batch, so that at a good width its products are most of a step;
what lies between them is bound by memory. Automatic differentiation of the usual GELU keeps two
more float32 arrays of all tokens a layer and rounds its cotangent in a pass of its own. Here only
the layer's input and the value under the activation are kept, both as narrow as the products'.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ape_jax.nn.layers import ACTIVATIONS
from ape_jax.nn.matmul import product, product_gradients

Activation = Callable[[Array], Array]


class Hidden(nn.Module):
    """A linear layer and its activation: `x [..., in]` -> f32 `[..., features]`.

    Attributes:
      features: the width.
      activation: a key of `towers.layers.ACTIVATIONS`.
      dtype: input dtype of the products, forward and backward.
    """

    features: int
    activation: str = "gelu"
    dtype: Any = jnp.bfloat16

    @nn.compact
    def __call__(self, x: Float[Array, "*b i"]) -> Float[Array, "*b o"]:
        """Apply the layer."""
        shape = (x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        activation = gelu if self.activation == "gelu" else ACTIVATIONS[self.activation]
        rows = x.reshape(-1, x.shape[-1])
        # `partial` hides the type that `custom_vjp` would keep.
        y: Any = hidden(rows, kernel, bias, activation, self.dtype)
        return y.reshape(*x.shape[:-1], self.features)


def hidden_layers(
    x: Float[Array, "*b i"],
    depth: int,
    width: int,
    activation: str,
    dropout: float,
    dtype: Any,
    *,
    train: bool,
) -> Float[Array, "*b o"]:
    """`depth` hidden layers `dense_0`, `dense_1` ..., each with dropout, of the module in work."""
    for i in range(depth):
        x = Hidden(width, activation, dtype, name=f"dense_{i}")(x)
        x = nn.Dropout(dropout, deterministic=not train)(x)
    return x


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def hidden(
    x: Float[Array, "n i"],
    kernel: Float[Array, "i o"],
    bias: Float[Array, " o"],
    activation: Activation,
    dtype: Any,
) -> Float[Array, "n o"]:
    """`activation(x @ kernel + bias)` in f32, its products in `dtype`; x may be stored narrower."""
    return activation(product(x, kernel, dtype) + bias)


def _forward(x, kernel, bias, activation, dtype):
    below = product(x, kernel, dtype) + bias
    # The empty array remembers the type that the gradient needs.
    return activation(below), (x.astype(dtype), kernel, below.astype(dtype), jnp.zeros(0, x.dtype))


def _backward(activation, dtype, saved, g):
    x, kernel, below, like_x = saved
    # Two barriers. Without the first XLA sees that forward and backward pass share subexpressions
    # of the activation, and keeps those, an array of all tokens each. Without the second it
    # computes the rounded cotangent again, activation and all, for the sum.
    below, g = jax.lax.optimization_barrier((below, g))
    below = below.astype(jnp.float32)
    g = jax.lax.optimization_barrier(jax.vjp(activation, below)[1](g)[0].astype(dtype))
    dx, dkernel = product_gradients(x, kernel.astype(dtype), g, dtype)
    return dx.astype(like_x.dtype), dkernel, g.astype(jnp.float32).sum(axis=0)


hidden.defvjp(_forward, _backward)


@jax.custom_vjp
def gelu(x: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """The exact GELU, x Phi(x), as near to it as f32's rounding of the usual form.

    Phi comes from one exponential that its derivative shares (Abramowitz and Stegun, Handbook of
    Mathematical Functions, 7.1.26: 7.5e-8 off at most). XLA's erf or erfc takes up to three passes
    and keeps an array a pass for the derivative.
    """
    return x * _normal(x)[0]


def _normal(x: Array) -> tuple[Array, Array]:
    """The normal distribution at x and its density."""
    exponential = jnp.exp(-0.5 * x * x)
    t = 1 / (1 + 0.3275911 * math.sqrt(0.5) * jnp.abs(x))
    series = 0.254829592 + t * (
        -0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))
    )
    tail = 0.5 * t * series * exponential
    return jnp.where(x > 0, 1 - tail, tail), exponential / math.sqrt(2 * math.pi)


def _gelu_backward(x: Array, g: Array) -> tuple[Array]:
    distribution, density = _normal(x)
    return (g * (distribution + x * density),)


gelu.defvjp(lambda x: (gelu(x), x), _gelu_backward)
