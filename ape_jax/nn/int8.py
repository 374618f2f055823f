"""Frozen towers whose weights take one byte each.

The kernels of the blocks, nearly all of a large tower, become int8 with one f32 scale an output
channel, symmetric about zero; everything else stays as it is. `layers.Dense` multiplies with the
integers, and the product with the scales: no wide copy of a kernel is kept. (Rounding to nearest by
the largest absolute value; Dettmers et al., "LLM.int8()", arXiv 2208.07339.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.traverse_util
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

SCALE = "kernel_scale"
_STEP = np.float32(1 / 127)  # The largest of a channel becomes 127.


def quantized(params: Mapping[str, Any]) -> dict[str, Any]:
    """A tower's parameters with the kernels of its blocks in int8.

    Args:
      params: of a tower, as NumPy or JAX arrays; kernels f32 [L, in, out].

    Returns:
      The same, arrays of the same library; kernels int8 [L, in, out], with "kernel_scale"
      f32 [L, out] beside each.
    """
    flat: dict[tuple[str, ...], Any] = flax.traverse_util.flatten_dict(dict(params))
    for path, kernel in list(flat.items()):
        # Of dense layers alone: the kernel of a depthwise convolution has more axes.
        if "blocks" in path and path[-1] == "kernel" and kernel.ndim == 3:
            flat[path], flat[(*path[:-1], SCALE)] = _narrow(kernel)
    return flax.traverse_util.unflatten_dict(flat)


def restored(params: Mapping[str, Any]) -> dict[str, Any]:
    """Inverse of `quantized`: parameters in f32 without scales; others as they are."""
    flat: dict[tuple[str, ...], Any] = flax.traverse_util.flatten_dict(dict(params))
    for path in [path for path in flat if path[-1] == SCALE]:
        kernel = (*path[:-1], "kernel")
        flat[kernel] = flat[kernel].astype(jnp.float32) * flat.pop(path)[..., None, :]
    return flax.traverse_util.unflatten_dict(flat)


def _narrow(kernel: Array | np.ndarray) -> tuple[Array | np.ndarray, Array | np.ndarray]:
    xp = kernel.__array_namespace__()
    largest = xp.abs(kernel).max(axis=-2)
    scale = xp.where(largest > 0, largest, 1.0) * _STEP  # A channel of zeros stays one.
    # By the reciprocal, as XLA divides by what it broadcasts: the bits of the versions before.
    return xp.round(kernel * (1 / scale)[..., None, :]).astype(xp.int8), scale
