"""Matrix products: narrow inputs, float32 accumulation, forward and backward."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def product(a: Array, b: Array, dtype: Any) -> Float[Array, "..."]:
    """`a @ b` with inputs in `dtype`, accumulated and returned in float32.

    Args:
      a: [..., n, k].
      b: [k, m], or [..., k, m] with the batch axes of `a`.
      dtype: of the inputs, forward and backward.
    """
    if dtype == jnp.float32:
        exact = jax.lax.Precision.HIGHEST
        return jnp.matmul(a.astype(dtype), b.astype(dtype), precision=exact)
    return _mixed_product(a, b, dtype)


# Left to itself, the backward pass multiplies the float32 cotangent with the narrow operand, which
# a GPU does in float32, and then rounds the result to the narrow type. Here the cotangent is
# rounded before the product and the gradient comes out in full.
@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _mixed_product(a: Array, b: Array, dtype: Any) -> Array:
    return jnp.matmul(a.astype(dtype), b.astype(dtype), preferred_element_type=jnp.float32)


def _mixed_forward(a: Array, b: Array, dtype: Any) -> tuple[Array, tuple[Array, ...]]:
    # Kept narrow for the backward pass; the empty arrays remember the types the gradients need.
    kept = (a.astype(dtype), b.astype(dtype), jnp.zeros(0, a.dtype), jnp.zeros(0, b.dtype))
    return _mixed_product(*kept[:2], dtype), kept


def _mixed_backward(dtype: Any, kept: tuple[Array, ...], g: Array) -> tuple[Array, Array]:
    a, b, like_a, like_b = kept
    wide = {"preferred_element_type": jnp.float32}
    g = g.astype(dtype)
    da = jnp.matmul(g, b.swapaxes(-1, -2), **wide)
    if b.ndim == 2:
        a, g = a.reshape(-1, a.shape[-1]), g.reshape(-1, g.shape[-1])
    db = jnp.matmul(a.swapaxes(-1, -2), g, **wide)
    return da.astype(like_a.dtype), db.astype(like_b.dtype)


_mixed_product.defvjp(_mixed_forward, _mixed_backward)
