"""Positions: tables at other image sizes, T5's buckets, frequencies of rotary positions.

Tables are resized as torch's bicubic or bilinear `interpolate` does.

`jax.image.resize` is not that function: torch's bicubic kernel has a = -0.75 without antialiasing
and a = -0.5 with it, and it repeats the border instead of renormalising. All are separable, so a
resize is two small matrices.
"""

from __future__ import annotations

import functools
from typing import SupportsInt

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int32, Int64

# Of relative positions.
BUCKETS = 32
MAX_DISTANCE = 128


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic convolution kernel."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def _linear(x: np.ndarray) -> np.ndarray:
    """The triangle of bilinear interpolation."""
    return np.maximum(1 - np.abs(x), 0.0)


@functools.cache
def resize_matrix(old: int, new: int, antialias: bool, bilinear: bool = False) -> np.ndarray:
    """The matrix of a 1-d resize, align_corners=False.

    Args:
      old: input length.
      new: output length.
      antialias: torch's argument of this name.
      bilinear: bilinear instead of bicubic.

    Returns:
      f32 [new, old].
    """
    kernel = _linear if bilinear else functools.partial(_cubic, a=-0.5 if antialias else -0.75)
    radius = 1 if bilinear else 2
    scale = old / new
    matrix = np.zeros((new, old))
    rows = np.arange(new)
    if not antialias:
        source = (rows + 0.5) * scale - 0.5
        first = np.floor(source).astype(int) - radius + 1
        for tap in range(2 * radius):
            column = np.clip(first + tap, 0, old - 1)
            np.add.at(matrix, (rows, column), kernel(source - (first + tap)))
        return matrix.astype(np.float32)
    # torch's antialiased upsampling: the kernel widens when shrinking, and is cut at the border.
    width = max(scale, 1.0)
    for row in rows:
        center = scale * (row + 0.5)
        low = max(int(center - radius * width + 0.5), 0)
        high = min(int(center + radius * width + 0.5), old)
        weights = kernel((np.arange(low, high) - center + 0.5) / width)
        matrix[row, low:high] = weights / weights.sum()
    return matrix.astype(np.float32)


def resize_positions(
    table: Float[Array | np.ndarray, "n d"],
    *,
    prefix: int,
    grid: tuple[int, int],
    antialias: bool,
    bilinear: bool = False,
) -> Float[Array | np.ndarray, "m d"]:
    """A position table for another grid of patches.

    Args:
      table: [prefix + n * n, d], rows of a square grid after `prefix` rows for other tokens.
      prefix: rows to keep as they are.
      grid: patches (down, across) wanted.
      antialias, bilinear: as the torch reference of the family does, see `resize_matrix`.

    Returns:
      [prefix + grid[0] * grid[1], d], in float32 unless nothing had to change.
    """
    side = round((table.shape[0] - prefix) ** 0.5)
    if grid == (side, side):
        return table
    square = table[prefix:].astype(jnp.float32).reshape(side, side, -1)
    down = resize_matrix(side, grid[0], antialias, bilinear)
    across = resize_matrix(side, grid[1], antialias, bilinear)
    exact = jax.lax.Precision.HIGHEST
    square = jnp.einsum("ai,ijd->ajd", down, square, precision=exact)
    square = jnp.einsum("bj,ajd->abd", across, square, precision=exact)
    rest = table[:prefix].astype(jnp.float32)
    return jnp.concatenate([rest, square.reshape(grid[0] * grid[1], -1)])


def sincos_positions(grid: tuple[int, int], width: int) -> Float32[np.ndarray, "n d"]:
    """Fixed positions: sines and cosines of the columns of a grid, then of its rows (ViT-MAE).

    Args:
      grid: patches (down, across).
      width: d, a multiple of four.

    Returns:
      f32 [down * across, d], in reading order.
    """
    frequencies = 10_000.0 ** -(np.arange(width // 4) / (width // 4))
    rows, columns = np.indices(grid).reshape(2, -1, 1)
    parts = [f(places * frequencies) for places in (columns, rows) for f in (np.sin, np.cos)]
    return np.concatenate(parts, axis=1).astype(np.float32)


def relative_buckets(
    length: SupportsInt, *, buckets: int = BUCKETS, distance: int = MAX_DISTANCE
) -> Int32[Array, "t t"]:
    """The bucket of key s seen from query t (T5, arXiv 1910.10683, section 2.1).

    Half of the buckets is for keys before the query, half for those after it; in each, the nearer
    half is exact and the rest grows with the logarithm of the distance. From `distance` on it is
    the last one, so that a table of these distances does for any length, known or not.

    Args:
      length: an integer, or a symbol of `jax.export`.
      buckets: how many there are.
      distance: from which on a key is in the last bucket.
    """
    table = _buckets(np.arange(-distance, distance + 1), buckets, distance)
    position = jnp.arange(length)
    offset = jnp.clip(position[None] - position[:, None], -distance, distance)
    return jnp.asarray(table)[offset + distance]


def _buckets(
    offset: Int64[np.ndarray, " n"], buckets: int, furthest: int
) -> Int32[np.ndarray, " n"]:
    half = buckets // 2
    exact = half // 2
    distance = np.abs(offset).astype(np.float32)
    # float32 throughout, as torch: a distance on the edge of a bucket must round the same way.
    ratio = np.log(np.maximum(distance, 1) / np.float32(exact)) / np.float32(
        np.log(furthest / exact)
    )
    far = np.minimum(exact + (ratio * np.float32(half - exact)).astype(np.int32), half - 1)
    bucket = np.where(distance < exact, distance.astype(np.int32), far) + half * (offset > 0)
    return bucket.astype(np.int32)


def rotary_frequencies(width: int, theta: float) -> Float32[np.ndarray, " r"]:
    """The angle by which each pair of channels turns from one position to the next.

    Args:
      width: channels that are turned, two for each frequency.
      theta: the base.

    Returns:
      f32 [width / 2], `theta ** (-2 i / width)` (RoFormer, arXiv 2104.09864, section 3.2.2).
    """
    powers = np.arange(0, width, 2, dtype=np.float32) / np.float32(width)
    return (1.0 / np.float32(theta) ** powers).astype(np.float32)
