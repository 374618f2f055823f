"""Identity of the model that made an index: hashes of its towers and trained parameters."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import PyTree

from ape_jax.align.heads.base import batch_norm

_TOWERS = ("image tower", "text tower")
_PREPARATIONS = ("image preparation", "text preparation")
_TRAINED = "trained parameters"
WIDTH = "embedding width"


@runtime_checkable
class Model(Protocol):
    """Parts of `runs.aligned.AlignedModel` that identify it.

    Attributes:
      meta: record of the towers and their preprocessing in the checkpoint.
      trainable: trained parameters.
      frozen: frozen parameters, of which `statistics` are in the checkpoint.
      dim: width that embeddings are cut to, 0 where they are not.
    """

    meta: Mapping[str, Any]
    trainable: PyTree
    frozen: PyTree

    @property
    def dim(self) -> int:
        """See above."""
        ...


def identity(model: Model) -> dict[str, str]:
    """Hashes everything that the embeddings of a model depend on.

    Moving a run or exporting it as `jax` keeps its identity; further training changes it.

    Returns:
      A hash each of the towers, their preprocessing and the trained parameters, by name; and where
      embeddings are cut, their width.
    """
    towers = {name: str(model.meta[name]["digest"]) for name in _TOWERS}
    preparations = {name: str(model.meta[name]) for name in _PREPARATIONS}
    trees = batch_norm.joined(model.trainable), model.frozen.get("statistics", {})
    width = {WIDTH: str(model.dim)} if model.dim else {}  # Older indices hold none.
    return towers | preparations | {_TRAINED: _digest(trees)} | width


def cut(identity: Mapping[str, str]) -> int | None:
    """The width that the embeddings of a model with this identity are cut to, None for all of it.

    Example:
      >>> cut({"embedding width": "64"})
      64
    """
    width = identity.get(WIDTH, "")
    return int(width) if width.isdecimal() else None


def difference(before: Mapping[str, str], after: Mapping[str, str]) -> str | None:
    """Names the first part that differs; None if all are equal.

    Example:
      >>> difference({"text tower": "1"}, {"text tower": "2"})
      'another text tower'
    """
    names = (*_TOWERS, *_PREPARATIONS, _TRAINED, WIDTH)
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
