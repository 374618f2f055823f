"""Forward passes on a CPU: what `inference=True` changes in an image tower, and its parameters.

Nothing is trained through it. A CPU is bound by its caches and by the passes between products, and
its narrow products are several times faster than those in float32. So

* each block works on a slice of the batch whose activations stay in the cache (`in_slices`);
* kernels are narrowed once (`narrow_kernels`), not in every call;
* the patch embedding and attention, whose products are no faster narrow, are in float32. With that,
  what the ninth block of demo:vit_s14 gives is within 3e-3 of float32, where plain bfloat16 is not.
  (The rest of the error is the kernels' rounding; two narrow products for each, kernel and rest,
  remove it too and were no faster than float32.)

Attention of few images goes head by head, for the same reason (`attend_by_head`).

Text towers stay as they are but for kernels narrowed once: their batches fit the cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ape_jax.nn.layers import BITS
from ape_jax.nn.matmul import product

# Tokens of a slice: one image of 224 pixels, four of 112 (patches of 14, CLS).
SLICE_TOKENS = 288
# More products of single heads than this make a program too long to compile quickly.
MOST_HEADS = 48


def narrow_kernels(params: Mapping[str, Any], dtype: Any) -> dict[str, Any]:
    """The parameters with the kernels of the blocks in `dtype`: products are what they were.

    Those in bfloat16 are kept as the integers of their bits (`layers.Dense` reads them so): XLA:CPU
    cuts no bfloat16 out of a stack but by way of float32, of all blocks in every call.
    """
    flat: dict[tuple[str, ...], Any] = flax.traverse_util.flatten_dict(dict(params))
    for path, value in flat.items():
        if "blocks" in path and path[-1] == "kernel" and value.ndim == 3:
            value = value.astype(dtype)
            is_narrow = value.dtype == jnp.bfloat16
            flat[path] = jax.lax.bitcast_convert_type(value, BITS) if is_narrow else value
    return flax.traverse_util.unflatten_dict(flat)


def slice_rows(batch: int, length: int) -> int:
    """Rows of a slice: the largest divisor of `batch` with at most `SLICE_TOKENS` tokens, or 1."""
    most = max(1, SLICE_TOKENS // length)
    return max(rows for rows in range(1, min(most, batch) + 1) if batch % rows == 0)


def in_slices(block: nn.Module, x: Float[Array, "b t d"], context: PyTree) -> Float[Array, "b t d"]:
    """`block(x, context)`, one slice of the batch after the other.

    Args:
      block: a block whose rows do not depend on each other.
      x: the residual stream.
      context: what the block reads beside it. Its arrays of three axes or more have the batch in
        front, or 1, and are cut with it.
    """
    batch, rows = x.shape[0], slice_rows(*x.shape[:2])
    if rows == batch:
        return block(x, context)

    def cut(y: Array) -> Array:
        return y.reshape(batch // rows, rows, *y.shape[1:])

    leaves, tree = jax.tree.flatten(context)
    own = [leaf.ndim > 2 and leaf.shape[0] == batch for leaf in leaves]

    def one(block: nn.Module, carry: None, part: tuple[Array, list[Array]]) -> tuple[None, Array]:
        mine = iter(part[1])
        parts = [next(mine) if is_own else leaf for leaf, is_own in zip(leaves, own)]
        return None, block(part[0], jax.tree.unflatten(tree, parts))

    mapped = nn.scan(
        one,
        variable_broadcast="params",
        variable_axes={"intermediates": 0},
        split_rngs={"params": False, "dropout": True},
    )
    cuts = [cut(leaf) for leaf, is_own in zip(leaves, own) if is_own]
    return mapped(block, None, (cut(x), cuts))[1].reshape(x.shape)


def attend_by_head(query: Array, key: Array, value: Array, heads: int) -> Float[Array, "b t d"]:
    """Attention head by head in float32: the logits of one head stay in the cache.

    Args:
      query, key, value: with their heads side by side.
      heads: how many.
    """
    size = query.shape[-1] // heads

    def head(query: Array, key: Array, value: Array) -> Array:
        logits = product(query * size**-0.5, key.T, jnp.float32)
        weights = jnp.exp(logits - logits.max(axis=-1, keepdims=True))
        # Dividing here and not before the product takes a pass over [T, Dh], not one over [T, S].
        return product(weights, value, jnp.float32) / weights.sum(axis=-1, keepdims=True)

    def row(*qkv: Array) -> Array:
        parts = [slice(h * size, (h + 1) * size) for h in range(heads)]
        return jnp.concatenate([head(*(y[:, part] for y in qkv)) for part in parts], axis=-1)

    return jnp.stack([row(*qkv) for qkv in zip(query, key, value)])
