"""A stack of blocks as one scanned block, and what is kept of each for its gradient."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import flax.traverse_util
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

COLLECTION, _READ = "intermediates", "read_of_block"
_reader: contextvars.ContextVar[Callable[[Array], Array] | None]
_reader = contextvars.ContextVar("reader", default=None)


@contextlib.contextmanager
def reading(read: Callable[[Array], Array]) -> Iterator[None]:
    """Has `run_stack` keep `read(x)` of what every block gives, in the one scan that runs them.

    Flax's `apply` must have `COLLECTION` mutable; `what_was_read` takes the values out of it.

    Args:
      read: maps the residual stream [b, t, d] after a block to what is kept of it.
    """
    token = _reader.set(read)
    try:
        yield
    finally:
        _reader.reset(token)


def what_was_read(variables: Mapping[str, PyTree]) -> Float[Array, "depth b ..."]:
    """What `reading` has kept of each block, the lowest first.

    Args:
      variables: the collections that flax's `apply` gives beside its output.
    """
    flat: Any = flax.traverse_util.flatten_dict(variables[COLLECTION])
    found: list[Any] = [value for path, value in flat.items() if path[-1] == _READ]
    (kept,) = found
    # Blocks that are one and the same are a scan within a scan of one step.
    return kept[0] if kept.ndim > 3 and len(kept) == 1 else kept


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
        out = (in_slices if inference else _call)(module, carry, context)
        if (read := _reader.get()) is not None:
            module.sow(COLLECTION, _READ, read(out), init_fn=lambda: None, reduce_fn=_newest)
        return out, None

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


def _newest(_: Array | None, new: Array) -> Array:
    return new


def _call(block: nn.Module, x: Array, context: PyTree) -> Array:
    return block(x, context)
