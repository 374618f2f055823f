"""Nearest vectors without looking at all of them: usearch's graph (HNSW, arXiv 1603.09320).

The graph holds the vectors in half precision and only proposes; `Index` scores what it proposes
from the f32 vectors.
"""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ape_jax.terminal.progress import Progress

# Up to here every vector is compared: that is exact, and takes milliseconds.
FROM = 50_000
_EXPANSION = 256  # Of a search, at least; recall grows with it.
_CHUNK = 16_384

Graph = Any  # usearch.index.Index


def is_installed() -> bool:
    """Whether usearch is there."""
    return importlib.util.find_spec("usearch") is not None


def build(
    vectors: Float[np.ndarray, "n e"], path: str | os.PathLike[str], old: Graph | None = None
) -> None:
    """Writes the graph of unit-length vectors; its keys are their rows.

    Args:
      vectors: f32 [n, e].
      path: the file.
      old: a graph of the first of them, which is added to.
    """
    from usearch.index import Index

    graph = old
    if graph is None:
        graph = Index(ndim=vectors.shape[1], metric="ip", dtype="f16", expansion_add=128)
    first, total = len(graph), len(vectors)
    progress = Progress("building the graph", total, "vectors", done=first)
    for start in range(first, total, _CHUNK):
        stop = min(start + _CHUNK, total)
        graph.add(np.arange(start, stop), np.ascontiguousarray(vectors[start:stop]))
        progress.update(stop)
    try:
        graph.save(os.fspath(path))
    except RuntimeError as error:  # As the library reports a full disk.
        raise OSError(f"the graph: {error}") from error


def read(path: str | os.PathLike[str], *, writable: bool = False) -> Graph:
    """A graph whose file is known to be what `build` wrote; the library trusts what it reads.

    Args:
      path: the file.
      writable: in memory, to be added to; else mapped.
    """
    from usearch.index import Index

    return Index.restore(os.fspath(path), view=not writable)


def propose(
    graph: Graph, queries: Float[np.ndarray, "q e"], count: int
) -> list[Int[np.ndarray, " _"]]:
    """Rows that are probably the nearest of each query, at most `count`, ascending."""
    graph.expansion_search = max(_EXPANSION, 2 * count)
    found = graph.search(np.ascontiguousarray(queries), count)
    matches = [found] if len(queries) == 1 and not hasattr(found, "counts") else found
    return [np.sort(np.asarray(one.keys, np.int64)) for one in matches]
