"""Relative positions of an image's patches (BEiT, arXiv 2106.08254): rows of a table by offset.

A table for a grid of n patches a side has a row for each offset down and across, [2 n - 1, 2 n - 1]
in reading order, and three more: from CLS to a patch, from a patch to CLS, and CLS to itself.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32

from ape_jax.nn.positions import resize_matrix
from ape_jax.nn.tree import Tree

_OTHERS = 3


class Window(Tree):
    """How a block reads its table at the size of an image.

    Attributes:
      rows: the row of the table, resized to this image, for query t and key s.
      down, across: matrices that resize the table.
    """

    rows: Int32[Array, "t t"]
    down: Float[Array, "a n"]
    across: Float[Array, "b n"]

    def bias(self, table: Float[Array, "rows h"]) -> Float[Array, "1 h t t"]:
        """What is added to the logits of every head."""
        found = jnp.take(resized(table, self.down, self.across), self.rows, axis=0)
        return found.transpose(2, 0, 1)[None]


def table_rows(grid: int) -> int:
    """Rows of the table for so many patches a side.

    >>> table_rows(14)
    732
    """
    return (2 * grid - 1) ** 2 + _OTHERS


def window(table_grid: int, grid: tuple[int, int]) -> Window:
    """The window of an image.

    Args:
      table_grid: patches a side of the grid that the table is for.
      grid: patches (down, across) of the image, before which there is CLS.
    """
    down, across = (_matrix(table_grid, n) for n in grid)
    return Window(
        rows=jnp.asarray(_index(grid)), down=jnp.asarray(down), across=jnp.asarray(across)
    )


def resized(
    table: Float[Array, "rows h"], down: Float[Array, "a n"], across: Float[Array, "b n"]
) -> Float[Array, "new h"]:
    """A table for another grid, as torch's bilinear `interpolate` gives it."""
    side = down.shape[1]
    if down.shape == across.shape == (side, side):  # Of its own size, resizing changes nothing.
        return table
    exact = jax.lax.Precision.HIGHEST
    square = table[:-_OTHERS].reshape(side, side, -1)
    square = jnp.einsum("ai,ijh->ajh", down, square, precision=exact)
    square = jnp.einsum("bj,ajh->abh", across, square, precision=exact)
    return jnp.concatenate([square.reshape(-1, table.shape[1]), table[-_OTHERS:]])


def _matrix(old: int, new: int) -> np.ndarray:
    return resize_matrix(2 * old - 1, 2 * new - 1, antialias=False, bilinear=True)


@functools.lru_cache(maxsize=8)
def _index(grid: tuple[int, int]) -> np.ndarray:
    """The rows for an image of this grid."""
    down, across = grid
    row, column = (axis.reshape(-1) for axis in np.indices(grid))
    offset = row[:, None] - row[None] + down - 1, column[:, None] - column[None] + across - 1
    offsets = (2 * down - 1) * (2 * across - 1)
    index = np.full((1 + down * across,) * 2, offsets + 1, np.int32)
    index[1:, 1:] = offset[0] * (2 * across - 1) + offset[1]
    index[0] = offsets
    index[0, 0] = offsets + 2
    return index
