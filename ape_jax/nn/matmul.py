"""Matrix products: narrow inputs, float32 accumulation, forward and backward.

They are XLA's. `register` puts another library's in their place, where that library takes them.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, SupportsInt

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Array, Float


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlugIn:
    """Another library's matrix products.

    Attributes:
      takes: `takes(n, k, m)` tells whether the library multiplies an [n, k] by a [k, m] matrix.
      matmul: `matmul(a, b, transpose_a=False, transpose_b=False)`, of two bf16 or two f32 matrices,
        accumulates and returns f32.
    """

    takes: Callable[[int, int, int], bool]
    matmul: Callable[..., Array]


_plug_in: PlugIn | None = None
_xla_only = contextvars.ContextVar("XLA's products only", default=False)


def register(plug_in: PlugIn) -> None:
    """Products go to `plug_in` where it takes them, from now on."""
    global _plug_in
    _plug_in = plug_in


@contextlib.contextmanager
def xla_only() -> Iterator[None]:
    """Keeps to XLA's own products in all that is traced inside: for programs that run elsewhere."""
    token = _xla_only.set(True)
    try:
        yield
    finally:
        _xla_only.reset(token)


def _plug_in_for(n: SupportsInt, k: SupportsInt, m: SupportsInt) -> PlugIn | None:
    # `_xla_only` comes first: sizes may then be symbols, which are no numbers.
    if _plug_in is None or _xla_only.get() or not _plug_in.takes(int(n), int(k), int(m)):
        return None
    return _plug_in


def product(a: Array, b: Array, dtype: Any) -> Float[Array, "..."]:
    """`a @ b` with inputs in `dtype`, accumulated and returned in float32.

    Args:
      a: [..., n, k].
      b: [k, m], or [..., k, m] with the batch axes of `a`.
      dtype: of the inputs, forward and backward.
    """
    if dtype == jnp.float32 and _plug_in_for_rows(a, b) is None:
        exact = jax.lax.Precision.HIGHEST
        return jnp.matmul(a.astype(dtype), b.astype(dtype), precision=exact)
    return _mixed_product(a, b, dtype)


def _plug_in_for_rows(a: Array, b: Array) -> PlugIn | None:
    return _plug_in_for(math.prod(a.shape[:-1]), *b.shape) if b.ndim == 2 else None


# Left to itself, the backward pass multiplies the float32 cotangent with the narrow operand, which
# a GPU does in float32, and then rounds the result to the narrow type. Here the cotangent is
# rounded before the product and the gradient comes out in full.
@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _mixed_product(a: Array, b: Array, dtype: Any) -> Array:
    if plug_in := _plug_in_for_rows(a, b):
        rows = a.reshape(-1, a.shape[-1]).astype(dtype)
        return plug_in.matmul(rows, b.astype(dtype)).reshape(*a.shape[:-1], b.shape[1])
    return jnp.matmul(a.astype(dtype), b.astype(dtype), preferred_element_type=jnp.float32)


def _mixed_forward(a: Array, b: Array, dtype: Any) -> tuple[Array, tuple[Array, ...]]:
    # Kept narrow for the backward pass; the empty arrays remember the types the gradients need.
    kept = (a.astype(dtype), b.astype(dtype), jnp.zeros(0, a.dtype), jnp.zeros(0, b.dtype))
    return _mixed_product(*kept[:2], dtype), kept


def _mixed_backward(dtype: Any, kept: tuple[Array, ...], g: Array) -> tuple[Array, Array]:
    a, b, like_a, like_b = kept
    g = g.astype(dtype)
    if b.ndim == 2:
        rows, g = a.reshape(-1, a.shape[-1]), g.reshape(-1, g.shape[-1])
        da, db = product_gradients(rows, b, g, dtype)
        return da.reshape(a.shape).astype(like_a.dtype), db.astype(like_b.dtype)
    da = jnp.matmul(g, b.swapaxes(-1, -2), preferred_element_type=jnp.float32)
    db = jnp.matmul(a.swapaxes(-1, -2), g, preferred_element_type=jnp.float32)
    return da.astype(like_a.dtype), db.astype(like_b.dtype)


_mixed_product.defvjp(_mixed_forward, _mixed_backward)


def transposed_product(
    a: Float[Array, "n k"], b: Float[Array, "n m"], dtype: Any
) -> Float[Array, "k m"]:
    """`a.T @ b` with inputs in `dtype`, accumulated in f32; has no derivative of its own."""
    a, b = a.astype(dtype), b.astype(dtype)
    if plug_in := _plug_in_for(a.shape[1], *b.shape):
        return plug_in.matmul(a, b, transpose_a=True)
    if dtype == jnp.float32:
        return jnp.matmul(a.T, b, precision=jax.lax.Precision.HIGHEST)
    return jnp.matmul(_transposed(a), b, preferred_element_type=jnp.float32)


def product_gradients(
    a: Float[Array, "n k"], b: Float[Array, "k m"], g: Float[Array, "n m"], dtype: Any
) -> tuple[Float[Array, "n k"], Float[Array, "k m"]]:
    """The gradients of `product(a, b, dtype)` in f32, all three arguments being of `dtype`."""
    return product_transposed(g, b, dtype), transposed_product(a, g, dtype)


def product_transposed(
    a: Float[Array, "n k"], b: Float[Array, "m k"], dtype: Any
) -> Float[Array, "n m"]:
    """`a @ b.T` with inputs in `dtype`, accumulated in f32; has no derivative of its own."""
    a, b = a.astype(dtype), b.astype(dtype)
    if plug_in := _plug_in_for(a.shape[0], a.shape[1], b.shape[0]):
        return plug_in.matmul(a, b, transpose_b=True)
    if dtype == jnp.float32:
        return jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST)
    return jnp.matmul(a, _transposed(b), preferred_element_type=jnp.float32)


def _transposed(a: Float[Array, "n m"]) -> Float[Array, "m n"]:
    """`a.T`, on a CPU written out row by row.

    XLA:CPU hands a bf16 product to its fast kernels only if both operands lie row by row; it would
    read a plain transpose in place, widened to f32 and 2 to 4 times slower than copy and product
    together. An optimization barrier does not help: the layout is chosen after it.
    """

    def written_out(a: Array) -> Array:
        return with_layout_constraint(a.T, Layout((0, 1)))

    return jax.lax.platform_dependent(a, cpu=written_out, default=jnp.transpose)
