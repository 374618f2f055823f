"""Approximate nearest neighbours by usearch's graph (HNSW, arXiv 1603.09320).

The graph has the vectors in half precision and proposes candidates; `Index` scores the candidates
with the f32 vectors.
"""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ape_jax.terminal.progress import Progress

# Number of vectors from which on a graph is used; comparing fewer takes milliseconds and is exact.
FROM = 50_000
_EXPANSION = 256  # Of a search, at least; recall grows with it.
_CHUNK = 16_384

Graph = Any  # usearch.index.Index


def is_installed() -> bool:
    """Returns whether usearch is installed."""
    return importlib.util.find_spec("usearch") is not None


def build(
    vectors: Float[np.ndarray, "n e"], path: str | os.PathLike[str], old: Graph | None = None
) -> None:
    """Builds the graph of vectors and writes it; its keys are the row indices.

    Args:
      vectors: embeddings of unit length, f32 [n, e].
      path: path of the file.
      old: graph of the first vectors, to be extended; None for a new graph.
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
    """Reads a graph. Its file must be verified before: usearch trusts what it reads.

    Args:
      path: path of the file.
      writable: read it into memory, so that it can be extended; otherwise memory-map it.
    """
    from usearch.index import Index

    return Index.restore(os.fspath(path), view=not writable)


def propose(
    graph: Graph, queries: Float[np.ndarray, "q e"], count: int
) -> list[Int[np.ndarray, " _"]]:
    """Proposes at most `count` near rows of each query, in ascending order."""
    graph.expansion_search = max(_EXPANSION, 2 * count)
    found = graph.search(np.ascontiguousarray(queries), count)
    matches = [found] if len(queries) == 1 and not hasattr(found, "counts") else found
    return [np.sort(np.asarray(one.keys, np.int64)) for one in matches]
