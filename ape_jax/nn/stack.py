"""A stack of blocks as one scanned block, and what is kept of each for its gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

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
    context: PyTree,
    *,
    depth: int,
    kinds: Sequence[int] | None = None,
    tied: bool = False,
    unroll: bool = False,
    remat: str = "none",
    inference: bool = False,
) -> Float[Array, "b t d"]:
    """Run `depth` copies of `block` (a submodule of the caller) whose parameters are [depth, ...].

    Args:
      block: `block(x, context) -> x`; one module, its parameters get a leading layer axis.
      x: the residual stream.
      context: what every block reads beside it, see `attention.Context`; with `kinds`, a list of
        them, of one structure.
      depth: how many; 0 gives `x` back.
      kinds: of each block, which of the contexts it reads; None where all read the same.
      tied: all blocks are one and the same; its parameters are [1, ...].
      unroll: unroll the scan, so that cost analysis counts every block.
      remat: what the backward pass computes again, a key of `REMAT`.
      inference: see inference.py.
    """
    if depth == 0:
        return x
    if kinds is not None and len(set(kinds)) == 1:
        context, kinds = context[kinds[0]], None
    own = None
    if kinds is not None:
        context = jax.tree.map(lambda *a: jnp.stack(jnp.broadcast_arrays(*a)), *context)
        own = jnp.asarray(kinds)

    def body(
        module: nn.Module, carry: Array, context: PyTree, kind: Array | None
    ) -> tuple[Array, None]:
        if kind is not None:
            context = jax.tree.map(lambda a: a[kind], context)
        return (in_slices if inference else _call)(module, carry, context), None

    steps = depth if unroll else 1
    run = REMAT[remat](body)
    if tied:
        run, depth, steps = _scan(run, depth, steps, tied=True), 1, 1
    return _scan(run, depth, steps)(block, x, context, own)[0]


def _scan(run: Callable[..., Any], depth: int, unroll: int, *, tied: bool = False) -> Any:
    """A scan over copies of a block that have parameters of their own, or the same ones."""
    variables: dict[str, Any] = {"variable_axes": {"params": 0, "intermediates": 0}}
    if tied:
        variables = {"variable_broadcast": "params", "variable_axes": {"intermediates": 0}}
    return nn.scan(
        run,
        **variables,
        split_rngs={"params": not tied, "dropout": True},
        in_axes=(nn.broadcast, 0),  # pyright: ignore[reportArgumentType]: flax says int
        length=depth,
        unroll=unroll,
    )


def _call(block: nn.Module, x: Array, context: PyTree) -> Array:
    return block(x, context)
