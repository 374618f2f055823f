"""Rows that are equal: grouped, repeated, in several groups."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, UInt64

Keys = UInt64[np.ndarray, "r 2"]


class Groups(NamedTuple):
    """Rows with equal keys, numbered in order of first appearance.

    Attributes:
      first: the first row of each group, i64 [g], ascending.
      group: the group of each row, i64 [r].
    """

    first: Int64[np.ndarray, " g"]
    group: Int64[np.ndarray, " r"]


def groups(keys: Keys) -> Groups:
    """Groups rows by their keys.

    Example:
      >>> keys = np.array([[5, 0], [1, 0], [5, 0]], np.uint64)
      >>> [x.tolist() for x in groups(keys)]
      [[0, 1], [0, 1, 0]]
    """
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    ordered = keys[order]
    starts = np.ones(len(keys), bool)
    starts[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    first = order[starts]  # The sort is stable: of equal rows the first comes first.
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    group = np.empty(len(keys), np.int64)
    group[order] = rank[np.cumsum(starts) - 1]
    return Groups(np.sort(first), group)


def repeated(keys: Keys | UInt64[np.ndarray, "r 1"]) -> np.ndarray:
    """Marks the rows whose key occurs more than once."""
    padded = keys if keys.shape[1] == 2 else np.concatenate([keys, np.zeros_like(keys)], axis=1)
    group = groups(padded).group
    return np.bincount(group)[group] > 1


def several(of: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Marks the entries whose `of` occurs with several `values`."""
    order = np.lexsort((values, of))
    of_sorted, sorted_values = of[order], values[order]
    changed = (of_sorted[1:] == of_sorted[:-1]) & (sorted_values[1:] != sorted_values[:-1])
    bad = np.unique(of_sorted[1:][changed])
    return np.isin(of, bad) if len(bad) else np.zeros(len(of), bool)
