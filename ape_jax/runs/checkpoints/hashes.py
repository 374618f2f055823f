"""Hashes of the arrays of a checkpoint, by which damage to its files is noticed."""

from __future__ import annotations

import collections
import concurrent.futures
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import PyTree

_THREADS = 4  # Hashing lets the others run.

Hashes = Mapping[str, Mapping[str, str]]
"""By the name of a tree, and by the path of a leaf in it."""


def of_trees(trees: Mapping[str, PyTree]) -> dict[str, dict[str, str]]:
    """The sha256 of every leaf: of its bytes, in the order of its elements.

    Of several processes each must call it, with the same trees: what is spread over them is
    gathered, one leaf at a time.

    Args:
      trees: trees of arrays, by name.
    """
    found: dict[str, dict[str, str]] = {name: {} for name in trees}
    for name, path, digest in _hashed(trees):
        found[name][path] = digest
    return found


def damaged(trees: Mapping[str, PyTree], expected: Hashes) -> str | None:
    """The first leaf whose bytes are others, or that has no hash; None if there is none.

    Args:
      trees: as they were read.
      expected: hashes of at least these trees.
    """
    # All are hashed whatever is found: of several processes each must take part to the end.
    wrong = [
        f"{name}{path}"
        for name, path, digest in _hashed(trees)
        if expected.get(name, {}).get(path) != digest
    ]
    return wrong[0] if wrong else None


def _hashed(trees: Mapping[str, PyTree]) -> Iterator[tuple[str, str, str]]:
    """Yields tree, leaf and hash in order; so many leaves at a time are on the host."""
    pending: collections.deque[tuple[str, str, concurrent.futures.Future[str]]]
    pending = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        for name, tree in trees.items():
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
                if len(pending) == _THREADS:
                    yield _done(pending.popleft())
                digest = pool.submit(_sha256, _on_host(leaf))
                pending.append((name, jax.tree_util.keystr(path), digest))
        while pending:
            yield _done(pending.popleft())


def _done(item: tuple[str, str, concurrent.futures.Future[str]]) -> tuple[str, str, str]:
    name, path, digest = item
    return name, path, digest.result()


def _on_host(leaf: Any) -> Any:
    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        return multihost_utils.process_allgather(leaf, tiled=True)
    if isinstance(leaf, jax.Array):
        # An array that is asked for its values keeps them, and arrays of its shards beside it: a
        # passing copy is asked, so that nothing lies on the devices twice afterwards.
        return jax.device_put(leaf, leaf.sharding, may_alias=False)
    return leaf


def _sha256(leaf: Any) -> str:
    values = np.ascontiguousarray(leaf)
    return hashlib.sha256(values.reshape(-1).view(np.uint8).data).hexdigest()
