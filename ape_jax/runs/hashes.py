"""Hashes of the arrays of a checkpoint, by which damage to its files is noticed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import PyTree

Hashes = Mapping[str, Mapping[str, str]]
"""By the name of a tree, and by the path of a leaf in it."""


def of_trees(trees: Mapping[str, PyTree]) -> dict[str, dict[str, str]]:
    """The sha256 of every leaf: of its bytes, in the order of its elements.

    Of several processes each must call it, with the same trees: what is spread over them is
    gathered, one leaf at a time.

    Args:
      trees: trees of arrays, by name.
    """
    return {
        name: {
            jax.tree_util.keystr(path): _sha256(leaf)
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        }
        for name, tree in trees.items()
    }


def damaged(trees: Mapping[str, PyTree], expected: Hashes) -> str | None:
    """The first leaf whose bytes are others, or that has no hash; None if there is none.

    Args:
      trees: as they were read.
      expected: hashes of at least these trees.
    """
    for name, leaves in of_trees(trees).items():
        for path, found in leaves.items():
            if expected.get(name, {}).get(path) != found:
                return f"{name}{path}"
    return None


def _sha256(leaf: Any) -> str:
    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        leaf = multihost_utils.process_allgather(leaf, tiled=True)
    elif isinstance(leaf, jax.Array):
        # An array that is asked for its values keeps them, and arrays of its shards beside it: a
        # passing copy is asked, so that nothing lies on the devices twice afterwards.
        leaf = jax.device_put(leaf, leaf.sharding, may_alias=False)
    return hashlib.sha256(np.asarray(leaf).tobytes()).hexdigest()
