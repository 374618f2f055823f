"""Heads in torch's terms: what `modeling_ape.py` makes them with, and their tensors there."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import PyTree

from ape_jax.align import heads
from ape_jax.align.tuning.selection import flatten
from ape_jax.exporters.towers import Tensors

Settings = dict[str, Any]

# Torch keeps a kernel the other way round; what is not named here has the same name there.
_NAMES = {"kernel": "weight", "scale": "weight"}


def export(head: heads.Head, width: int, embed: int, params: PyTree) -> tuple[Settings, Tensors]:
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
        parts = [(part, params[f"part_{name}"]) for name, part in head.part.items()]
    else:
        parts = [(head, params)]
    settings: Settings = {}
    tensors: Tensors = {}
    for part, tree in parts:
        name, options = part.to_torch(width, embed)
        settings[name] = options
        tree = part.torch_params(tree)
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
