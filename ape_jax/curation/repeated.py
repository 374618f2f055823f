"""Near-duplicates: images with nearly the same vector as a better pair of the pool."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32, Int64

from ape_jax.curation.cells import cells
from ape_jax.curation.vectors import Vectors
from ape_jax.storage.row_array import blocks
from ape_jax.terminal.progress import track

# Cosine, the mean of the pool subtracted, above which two images are nearly equal.
NEAR = 0.95
_TOGETHER = 2**24  # Cosines that are in memory together.


def repeated(
    vectors: Vectors, rank: Int64[np.ndarray, " n"], *, near: float = NEAR, seed: int = 0
) -> Int64[np.ndarray, " n"]:
    """Finds the pair that each image nearly repeats.

    Images are compared with those of the same cells (`cells`), not with all.

    Args:
      vectors: of the pool.
      rank: of each pair, all different; of two that are near, the lower one stays.
      near: cosine above which two images are nearly equal; from 1 on, none are.
      seed: of the cells.

    Returns:
      The pair that stays in its place, by row; its own row for one that repeats none.

    References:
      Abbas et al., "SemDeDup", arXiv 2303.09540 (within clusters; there, those of k-means).
    """
    count = len(vectors)
    of = np.arange(count)
    if near >= 1 or count < 2:
        return of
    found_in = cells(vectors.images, count, seed)
    for members in track(found_in, "looking for near-duplicates", len(found_in), "cells"):
        members = members[np.argsort(rank[members], kind="stable")]
        for start, found in _firsts(vectors.images(members), near):
            rows, first = members[start : start + len(found)], members[found]
            of[rows] = np.where(rank[first] < rank[of[rows]], first, of[rows])
    while not np.array_equal(of[of], of):  # Along a chain, to the pair that stays.
        of = of[of]
    return of


def _firsts(
    x: Float32[np.ndarray, "m k"], near: float
) -> list[tuple[int, Int64[np.ndarray, " b"]]]:
    """The first row that is near to each row, itself among them, by blocks of rows."""
    found = []
    for block in blocks(len(x), max(1, _TOGETHER // len(x))):
        is_near: Bool[np.ndarray, "b m"] = x[block] @ x.T > near
        is_near[np.arange(block.stop - block.start), np.arange(block.start, block.stop)] = True
        found.append((block.start, is_near.argmax(axis=1)))
    return found
