"""Which model made an index: its towers and what was trained, by hash and not by path."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import PyTree

_TOWERS = ("image tower", "text tower")
_PREPARATIONS = ("image preparation", "text preparation")
_TRAINED = "trained parameters"


@runtime_checkable
class Model(Protocol):
    """What identifies a model: `runs.aligned.AlignedModel` has it.

    Attributes:
      meta: what the checkpoint says of the towers and their preparation.
      trainable: what was trained.
      frozen: the other parameters; of these the checkpoint holds the `statistics`.
    """

    meta: Mapping[str, Any]
    trainable: PyTree
    frozen: PyTree


def identity(model: Model) -> dict[str, str]:
    """All that a model's embeddings depend on, by name.

    A run that was moved or exported as `jax` keeps it; training on changes it.

    Returns:
      A hash for each of the towers, their preparations and the trained parameters.
    """
    towers = {name: str(model.meta[name]["digest"]) for name in _TOWERS}
    preparations = {name: str(model.meta[name]) for name in _PREPARATIONS}
    trees = model.trainable, model.frozen.get("statistics", {})
    return towers | preparations | {_TRAINED: _digest(trees)}


def difference(before: Mapping[str, str], after: Mapping[str, str]) -> str | None:
    """The first part that differs, "another text tower", None where all are the same."""
    names = (*_TOWERS, *_PREPARATIONS, _TRAINED)
    found = next((name for name in names if before.get(name) != after.get(name)), None)
    return found and f"{'other' if found == _TRAINED else 'another'} {found}"


def _digest(trees: PyTree) -> str:
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(trees):
        array = np.ascontiguousarray(leaf)
        header = f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}"
        total.update(header.encode())
        total.update(array.view(np.uint8).data if array.size else b"")
    return total.hexdigest()
