"""A stack of blocks as one scanned block, and what is kept of each for its gradient."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from ape_jax.nn.inference import in_slices
from ape_jax.nn.layers import PRODUCT

REMAT: dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {
    "none": lambda body: body,
    "blocks": partial(nn.remat, prevent_cse=False),
    "all_but_products": partial(
        # By name: the rule of narrow products is by hand, and hides them from policies by kind.
        nn.remat,
        prevent_cse=False,
        policy=jax.checkpoint_policies.save_only_these_names(PRODUCT),
    ),
}
"""Keeps everything of a block for its gradient, its input, or its products with kernels."""


def run_stack(
    block: nn.Module,
    x: Float[Array, "b t d"],
    bias: Float[Array, "..."] | None,
    *,
    depth: int,
    unroll: bool = False,
    remat: str = "none",
    inference: bool = False,
) -> Float[Array, "b t d"]:
    """Run `depth` copies of `block` (a submodule of the caller) whose parameters are [depth, ...].

    Args:
      block: `block(x, bias) -> x`; one module, its parameters get a leading layer axis.
      x: the residual stream.
      bias: the attention bias, the same for every layer.
      depth: how many; 0 gives `x` back.
      unroll: unroll the scan, so that cost analysis counts every block.
      remat: what the backward pass computes again, a key of `REMAT`.
      inference: see inference.py.
    """
    if depth == 0:
        return x

    def body(module: nn.Module, carry: Array, bias: Array | None) -> tuple[Array, None]:
        return (in_slices(module, carry, bias) if inference else module(carry, bias)), None

    scanned = nn.scan(
        REMAT[remat](body),
        variable_axes={"params": 0, "intermediates": 0},
        split_rngs={"params": True, "dropout": True},
        in_axes=nn.broadcast,  # pyright: ignore[reportArgumentType]: flax says int
        length=depth,
        unroll=depth if unroll else 1,
    )
    return scanned(block, x, bias)[0]
