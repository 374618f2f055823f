"""Rank of the first item of each query's own group.

All metrics are computed from these ranks, so the order of items is defined here once.

The order is total: by score, highest first; items of equal score by index, lowest first. Scores
are accumulated in float64 and then rounded to float32. That makes equal embeddings score equal,
whatever block of the product they fall in (a float32 product may differ in its last bit between the
body and the edge of a block), so ties are real ties and results do not depend on the chunk size.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Integer

from ape_jax import arguments
from ape_jax.errors import UserError

# Scores held at a time: 16 MiB of float32, and about twice that in masks and copies beside them.
_BLOCK = 1 << 22
_COLUMNS = 1 << 14


def first_hit_rank(
    zquery: Float[np.ndarray, "q e"],
    zitem: Float[np.ndarray, "m e"],
    query_group: Integer[np.ndarray, " q"],
    item_group: Integer[np.ndarray, " m"],
    *,
    block: int = _BLOCK,
) -> Integer[np.ndarray, " q"]:
    """Computes the 1-based rank of the best item of each query's own group.

    Works on blocks of queries; at most `block` scores exist at once, though at least one row.

    Example:
      >>> import numpy as np
      >>> z = np.eye(3, dtype=np.float32)
      >>> first_hit_rank(z, z[[1, 0, 2]], np.array([0, 1, 2]), np.array([0, 1, 2])).tolist()
      [2, 2, 1]

    Args:
      zquery: query embeddings, float [q, e]; scores are inner products.
      zitem: item embeddings, float [m, e].
      query_group: group of each query, integer [q].
      item_group: group of each item, integer [m].
      block: maximum number of scores in memory.

    Returns:
      int64 [q], each in [1, m]; m + 1 for a query whose group has no item.
    """
    m = len(zitem)
    rows = max(1, block // max(1, m))
    index = np.arange(m)
    ranks = np.full(len(zquery), m + 1, np.int64)
    for start in range(0, len(zquery), rows):
        part = slice(start, start + rows)
        scores = _scores(zquery[part], zitem)
        own = query_group[part, None] == item_group[None, :]
        # argmax takes the first of equal maxima, as the order of items does.
        best = np.where(own, scores, -np.inf).argmax(1)[:, None]
        value = np.take_along_axis(scores, best, 1)
        before = (scores > value) | ((scores == value) & (index < best))
        ranks[part] = np.where(own.any(1), 1 + np.count_nonzero(before, axis=1), m + 1)
    return ranks


def _scores(
    zquery: Float[np.ndarray, "q e"], zitem: Float[np.ndarray, "m e"]
) -> Float[np.ndarray, "q m"]:
    """Inner products, accumulated in float64 and rounded to float32 [q, m]."""
    query = zquery.astype(np.float64)
    out = np.empty((len(zquery), len(zitem)), np.float32)
    for start in range(0, len(zitem), _COLUMNS):
        part = slice(start, start + _COLUMNS)
        out[:, part] = query @ zitem[part].astype(np.float64).T
    return out


def check_embeddings(
    name: str, z: Float[np.ndarray, "n e"], width: int | None = None
) -> Float[np.ndarray, "n e"]:
    """Checks that embeddings have rows, the right width, and neither NaN nor inf.

    Args:
      name: name of the array in messages.
      z: embeddings, float [n, e].
      width: required width; None for any.

    Returns:
      The embeddings as an array.

    Raises:
      UserError: naming the array and its first bad row.
    """
    z = arguments.real_array(z, name)
    if z.ndim != 2 or not z.size:
        raise UserError(
            f"{name} has shape {z.shape}; it needs one embedding a row and at least one"
        )
    if width is not None and z.shape[1] != width:
        raise UserError(
            f"{name} is {z.shape[1]} wide; it must be {width} wide as its counterpart is"
        )
    # A NaN compares false with everything, so it would come out as rank 1.
    bad = ~np.isfinite(z).all(axis=1)
    if bad.any():
        raise UserError(
            f"{name} is not finite in {bad.sum()} of {len(z)} rows, first in row {bad.argmax()}; "
            "the model that made it has diverged, evaluate an earlier checkpoint"
        )
    return z
