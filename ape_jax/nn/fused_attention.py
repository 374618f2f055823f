"""Attention by cuDNN on NVIDIA's GPUs, where a tower is only run and not trained.

It makes no [T, S] logits and takes heads as they lie, where XLA writes and reads logits and turns
queries, keys and values around: 23 % of the bytes that a ViT-B/16 or ViT-L/16 moves at 224 pixels,
as compiled for an H100. Forward alone: the sums of cuDNN's gradients may be in no fixed order, and
a run that is taken up again must give the same bits. Attention with a bias (masks of texts,
relative positions) stays with XLA.

`APE_JAX_ATTENTION=xla` leaves it out.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import os
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

VARIABLE = "APE_JAX_ATTENTION"
# jax's name of it; tests put its other one in the place.
IMPLEMENTATION: Literal["cudnn", "xla"] = "cudnn"
_WIDEST_HEAD = 128  # Before Hopper.
_allowed = contextvars.ContextVar("cuDNN's attention", default=False)


def available(devices: Iterable[Any]) -> bool:
    """Whether these devices have it: those of this process, with NVIDIA's libraries."""
    if os.environ.get(VARIABLE) == "xla" or jax.default_backend() != "gpu":
        return False  # A plan compiles for GPUs in a process that has none, and no cuDNN.
    return all(
        device.platform == "gpu" and "cuda" in device.client.platform_version for device in devices
    )


@functools.cache
def refusal() -> str:
    """Why a small attention cannot be computed on this process's device; "" where it can.

    For libraries that are missing, too old, or do not know the GPU: each says so in its own way.
    """
    x = jnp.ones((1, 16, 2, 64), jnp.bfloat16)
    try:
        y = jax.nn.dot_product_attention(x, x, x, implementation=IMPLEMENTATION)
        right = bool(jnp.abs(y - 1).max() < 0.01)
    except Exception as error:
        return " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return "" if right else "its result is wrong"


@contextlib.contextmanager
def allowed(value: bool) -> Iterator[None]:
    """Lets `takes` say yes in all that is traced inside, if `value`."""
    token = _allowed.set(value)
    try:
        yield
    finally:
        _allowed.reset(token)


def takes(query: Array, bias: Array | None, dtype: Any, size: int) -> bool:
    """Whether cuDNN computes an attention.

    Args:
      query: [B, T, heads * size]; a single query, as pooling has it, is not worth a call.
      bias: of the logits.
      dtype: input dtype of products.
      size: channels of a head.
    """
    if not _allowed.get():  # Lengths of what is exported are symbols, which do not compare.
        return False
    narrow = jnp.dtype(dtype) in (jnp.bfloat16, jnp.float16)
    fits = size % 8 == 0 and size <= _WIDEST_HEAD and query.shape[1] > 1
    return bias is None and narrow and fits


def attend(
    query: Float[Array, "b t hd"],
    key: Float[Array, "b s gd"],
    value: Float[Array, "b s gd"],
    dtype: Any,
    *,
    size: int,
    scale: float | None = None,
) -> Float[Array, "b t hd"]:
    """`attention.attend` of what `takes` says yes to, in `dtype`; arguments as there."""

    def split(y: Array) -> Array:
        return y.astype(dtype).reshape(*y.shape[:2], -1, size)

    heads = split(query), split(key), split(value)
    y = jax.nn.dot_product_attention(*heads, scale=scale, implementation=IMPLEMENTATION)
    return y.reshape(query.shape)
