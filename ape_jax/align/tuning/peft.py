"""Adapters and LoRA, put into a tower from outside.

Their parameters lie beside those of the module that they change, in the tower's own tree:

    params["blocks"]["norm1"]                = {"scale": [L, d], "bias": [L, d]}
    params["blocks"]["norm1"]["adapter"]     = {"down": {kernel, bias}, "up": {kernel, bias}}
    params["blocks"]["attention"]["query"]["lora"] = {"down": {kernel}, "up": {kernel}}

The scan over the blocks slices them like all others, and an interceptor of method calls
(`flax.linen.intercept_methods`) finds them there. A tower's file does not know of it, and a tower
without such leaves runs as it always did.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ape_jax.align.tuning.selection import flatten, group
from ape_jax.errors import UserError
from ape_jax.nn.layers import ACTIVATIONS, Dense, LayerNorm, RmsNorm
from ape_jax.nn.matmul import product
from ape_jax.towers.family import FAMILIES
from ape_jax.towers.tower import Tower

_STD = 0.02


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """The sizes of what is added.

    Attributes:
      adapter_reduction: an adapter's hidden width is the tower's divided by this.
      lora_rank: r.
      lora_alpha: the product of the two factors is scaled by `lora_alpha / lora_rank`.
      lora_targets: a regular expression over the paths of dense layers, `blocks/attention/query`.
    """

    adapter_reduction: int = 4
    lora_rank: int = 8
    lora_alpha: float = 16.0
    lora_targets: str = ".*/(query|value)"


def adapters(tower: Tower, params: PyTree, key: Array, options: Options) -> PyTree:
    """Fresh adapters for every block, as a tree of their own.

    `x + W_up gelu(W_down x)`, d -> d / reduction -> d, two a block, where LilT has them: in a block
    that norms first (every ViT, CLIP's text tower) inside each branch before its norm; in one that
    norms last (BERT and its kin) after the last dense layer of each branch, before the residual
    sum. The family says which layers these are (`Family.adapters`). Kernels are normal with
    standard deviation 0.02, biases zero.

    Args:
      tower: the tower.
      params: its parameters, of the blocks that are read.
      key: of the random kernels.
      options: sizes of the adapters.

    References:
      Khan and Fu, "Contrastive Alignment of Vision to Language Through Parameter-Efficient
      Transfer Learning", arXiv 2303.11866, section 3; Houlsby et al., arXiv 1902.00751.

    Raises:
      UserError: for a reduction that does not divide the tower's width, or a tower without such
        layers.
    """
    width, reduction = tower.config.width, options.adapter_reduction
    if width % reduction:
        raise UserError(
            f"adapter_reduction: {reduction} does not divide the {width} channels of the "
            f"{tower.config.family} tower; write a divisor"
        )
    places = [path.split("/") for path in FAMILIES[tower.config.family].adapters]
    flat = flatten(params.get("blocks", {}))
    layers = {name.rpartition("/")[0] for name in flat}
    if not places or any("/".join(place) not in layers for place in places):
        raise UserError(
            f"'adapter': the {tower.config.family} tower's family names no layers of its blocks "
            "for adapters to stand in; write another mode"
        )
    depth = len(next(iter(flat.values())))
    blocks: dict[str, Any] = {}
    for place, place_key in zip(places, jax.random.split(key, len(places))):
        down, up = jax.random.split(place_key)
        sizes = {"down": (down, width, width // reduction), "up": (up, width // reduction, width)}
        adapter = {
            name: {
                "kernel": _STD * jax.random.normal(own, (depth, rows, columns)),
                "bias": jnp.zeros((depth, columns)),
            }
            for name, (own, rows, columns) in sizes.items()
        }
        _put(blocks, place, {"adapter": adapter})
    return {"blocks": blocks}


def lora(params: PyTree, key: Array, options: Options) -> PyTree:
    """Fresh low-rank factors for the dense layers that `lora_targets` names, as a tree apart.

    The first factor is normal with variance 1 / d, the second zero: at first nothing is changed.

    Args:
      params: of the tower.
      key: of the draws.
      options: see there.

    References:
      Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", arXiv 2106.09685.

    Raises:
      UserError: where no dense layer has such a path.
    """
    kernels = {
        name.removesuffix("/kernel"): leaf.shape
        for name, leaf in flatten(params).items()
        if name.endswith("/kernel") and group(name) == "kernel"
    }
    chosen = [path for path in sorted(kernels) if re.fullmatch(options.lora_targets, path)]
    if not chosen:
        raise UserError(
            f"lora_targets: {options.lora_targets!r} matches no dense layer; they are "
            + (", ".join(sorted(kernels)) or "none below this layer")
        )
    tree: dict[str, Any] = {}
    for path, own in zip(chosen, jax.random.split(key, len(chosen))):
        *stack, rows, columns = kernels[path]
        rank = options.lora_rank
        down = rows**-0.5 * jax.random.normal(own, (*stack, rows, rank))
        up = jnp.zeros((*stack, rank, columns))
        _put(tree, path.split("/"), {"lora": {"down": {"kernel": down}, "up": {"kernel": up}}})
    return tree


def merge_lora(params: Mapping[str, Any], alpha: float) -> dict[str, Any]:
    """The parameters with every LoRA multiplied out and added to its kernel: a plain tower's."""
    merged = {
        name: merge_lora(value, alpha) if isinstance(value, Mapping) else value
        for name, value in params.items()
        if name != "lora"
    }
    if "lora" in params:
        down, up = params["lora"]["down"]["kernel"], params["lora"]["up"]["kernel"]
        change = product(down, up, jnp.float32) * (alpha / down.shape[-1])
        merged["kernel"] = (params["kernel"].astype(jnp.float32) + change).astype(jnp.float32)
    return merged


def applied(tower: Tower, options: Options) -> contextlib.AbstractContextManager[None]:
    """While it is open, modules act with the adapters and LoRA that lie in their parameters."""
    act = functools.partial(_intercept, dtype=tower.module.dtype, alpha=options.lora_alpha)
    return nn.intercept_methods(act)


def _intercept(
    call: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    context: nn.module.InterceptorContext,
    *,
    dtype: Any,
    alpha: float,
) -> Any:
    module = context.module
    if context.method_name != "__call__" or not isinstance(module, Dense | LayerNorm | RmsNorm):
        return call(*args, **kwargs)
    adapter, factors = (module.get_variable("params", name) for name in ("adapter", "lora"))
    (x,) = args
    if isinstance(module, LayerNorm | RmsNorm):
        return call(x if adapter is None else _adapted(x, adapter, dtype))
    y = call(x)
    if factors is not None:
        low = product(x, factors["down"]["kernel"], dtype)
        y = y + product(low, factors["up"]["kernel"], dtype) * (alpha / low.shape[-1])
    return y if adapter is None else _adapted(y, adapter, dtype)


def _adapted(x: Float[Array, "*b d"], adapter: PyTree, dtype: Any) -> Float[Array, "*b d"]:
    down, up = adapter["down"], adapter["up"]
    hidden = ACTIVATIONS["gelu"](product(x, down["kernel"], dtype) + down["bias"])
    return x + (product(hidden, up["kernel"], dtype) + up["bias"])


def _put(tree: dict[str, Any], path: tuple[str, ...] | list[str], value: dict[str, Any]) -> None:
    for name in path:
        tree = tree.setdefault(name, {})
    tree.update(value)
