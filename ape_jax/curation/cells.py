"""Sorts rows into cells of near rows, so that few rows are compared with each other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float32, Int64

from ape_jax.curation.vectors import BLOCK
from ape_jax.storage.row_array import blocks

IN_A_CELL = 2048
_MOST = 16 * IN_A_CELL

Read = Callable[[slice | np.ndarray], Float32[np.ndarray, "b k"]]


def cells(read: Read, count: int, seed: int = 0) -> list[Int64[np.ndarray, " m"]]:
    """Sorts rows into cells around random rows, each row into the two nearest cells.

    Rows that are near enough have a cell in common but for a few. A cell that holds very many,
    because they are nearly equal, is cut into several.

    Args:
      read: gives the unit vectors of some rows.
      count: number of rows.
      seed: of the choice of rows at the centres.

    Returns:
      The rows of each cell, ascending.
    """
    number = -(-count // IN_A_CELL)
    if number < 3:
        return [np.arange(count)]
    chosen = np.sort(np.random.default_rng(seed).choice(count, number, replace=False))
    centres = read(chosen)
    nearest = np.empty((count, 2), np.int64)
    for block in blocks(count, BLOCK):
        nearest[block] = np.argpartition(-read(block) @ centres.T, 1, axis=1)[:, :2]
    flat = nearest.reshape(-1)
    order = np.argsort(flat, kind="stable")
    found = np.split(order // 2, np.searchsorted(flat[order], np.arange(1, number)))
    return [rows[part] for rows in found for part in blocks(len(rows), _MOST)]
