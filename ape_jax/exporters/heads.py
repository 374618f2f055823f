"""Heads in torch's terms: what `modeling_ape.py` makes them with, and their tensors there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import numpy as np
from jaxtyping import PyTree

from ape_jax.align import heads
from ape_jax.align.heads import batch_norm
from ape_jax.align.heads.anchored import Anchored
from ape_jax.align.tuning.selection import flatten
from ape_jax.errors import UserError
from ape_jax.exporters.towers import Tensors

Settings = dict[str, Any]

# Torch keeps a kernel the other way round; what is not named here has the same name there.
_NAMES = {"kernel": "weight", "scale": "weight"}


def export(head: nn.Module, width: int, embed: int, params: PyTree) -> tuple[Settings, Tensors]:
    """The head of one side, or the several that a text head is the sum of.

    Args:
      head: a module of `align.heads`.
      width: of what it takes.
      embed: the joint width E.
      params: its parameters.

    Returns:
      Settings by the heads' names, and tensors by the names in `modeling_ape.py`.

    Raises:
      UserError: for a head that is not exported.
    """
    if isinstance(head, heads.Summed):
        parts = {name: (part, params[f"part_{name}"]) for name, part in head.part.items()}
    else:
        parts = {None: (head, params)}
    settings, tensors = {}, {}
    for part, tree in parts.values():
        name, options = _described(part, width, embed)
        settings[name] = options
        if name == "pooled_mlp":  # What has no batch norm stays as it is.
            tree = batch_norm.folded(tree)
        tensors |= {f"{name}.{key}": leaf for key, leaf in _tensors(tree).items()}
    return settings, tensors


def _tensors(params: PyTree) -> Tensors:
    tensors = {}
    for path, leaf in flatten(params).items():
        *module, name = path.split("/")
        array = np.asarray(leaf, np.float32)
        array = np.ascontiguousarray(array.T) if name == "kernel" else array
        tensors[".".join([*module, _NAMES.get(name, name)])] = array
    return tensors


def _described(head: nn.Module, width: int, embed: int) -> tuple[str, Settings]:
    """The name of a class in `modeling_ape.py` and its arguments; `pooling` where it takes one."""
    if isinstance(head, heads.OnPooledText):
        name, options = _described(head.head, width, embed)
        return name, {**options, "pooling": head.pooling}
    if isinstance(head, Anchored):
        raise UserError(
            "config.method: 'asif' compares with every training pair instead of having a head; "
            "it is not exported: write --format jax, or solve 'cca' on the same pairs"
        )
    name, describe = _DESCRIBE[type(head)]
    return name, describe(head, width, embed)


def _sized(head: nn.Module, width: int, embed: int) -> Settings:
    return {"width": width, "embed": embed}


def _mlp(head: nn.Module, width: int, embed: int) -> Settings:
    sizes = {"depth": head.depth, "hidden": head.width or width, "activation": head.activation}
    return {**_sized(head, width, embed), **sizes}


def _residual_mlp(head: heads.ResidualMLP, width: int, embed: int) -> Settings:
    sizes = {"depth": head.depth, "hidden": head.expansion * width, "activation": head.activation}
    return {**_sized(head, width, embed), **sizes}


def _star_mlp(head: heads.StarMLP, width: int, embed: int) -> Settings:
    return {**_sized(head, width, embed), "hidden": head.expansion * width}


def _transformer(head: heads.Transformer, width: int, embed: int) -> Settings:
    layer = {"heads": head.tower.heads, "eps": head.tower.norm_eps}
    return {**_residual_mlp(head, width, embed), **layer}


_DESCRIBE: Mapping[type, tuple[str, Callable[..., Settings]]] = {
    heads.Identity: ("identity", lambda head, width, embed: {}),
    heads.Linear: ("linear", _sized),
    heads.TokenMLP: ("token_mlp", _mlp),
    heads.PooledMLP: ("pooled_mlp", _mlp),
    heads.ResidualMLP: ("residual_mlp", _residual_mlp),
    heads.StarMLP: ("star_mlp", _star_mlp),
    heads.TextTokenPool: (
        "token_pool_mlp",
        lambda h, *sizes: {**_sized(h, *sizes), "gate": h.zero},
    ),
    heads.ImageTokenPool: (
        "image_token_pool_mlp",
        lambda h, *sizes: {**_sized(h, *sizes), "prefix_tokens": h.prefix_tokens},
    ),
    heads.Transformer: ("transformer", _transformer),
    heads.Lookup: ("lookup", lambda h, width, embed: {"embed": embed, "vocabulary": h.vocabulary}),
}
