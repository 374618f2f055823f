"""Relative coordinates: the similarities of a vector to anchors, the largest of them."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float, Float32, Integer

from ape_jax.errors import UserError

_BLOCK = 512  # Rows that are compared to all anchors at a time.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Relative:
    """Sparse relative coordinates, each row of unit length.

    Attributes:
      indices: anchors with a non-zero coordinate, integer [n, t].
      values: coordinates at those anchors, f32 [n, t].
      anchors: number of anchors a, the width of a dense row.
    """

    indices: Integer[np.ndarray, "n t"]
    values: Float32[np.ndarray, "n t"]
    anchors: int

    def dense(self) -> Float32[np.ndarray, "n a"]:
        """Returns the rows as a dense array."""
        rows = np.zeros((len(self.indices), self.anchors), np.float32)
        np.put_along_axis(rows, self.indices, self.values, axis=1)
        return rows

    def similarities(self, other: Relative) -> Float32[np.ndarray, "n m"]:
        """Cosines of these rows with those of `other`, computed in dense blocks."""
        out = np.empty((len(self.indices), len(other.indices)), np.float32)
        for start in range(0, len(self.indices), _BLOCK):
            rows = self._block(start).dense()
            for begin in range(0, len(other.indices), _BLOCK):
                columns = other._block(begin).dense()
                out[start : start + _BLOCK, begin : begin + _BLOCK] = rows @ columns.T
        return out

    def narrowed(self, count: int, power: float) -> Relative:
        """Keeps the first `count` similarities of each row and raises them to `power`."""
        values = _weigh(self.values[:, :count], power)
        return dataclasses.replace(self, indices=self.indices[:, :count], values=values)

    def _block(self, start: int) -> Relative:
        block = slice(start, start + _BLOCK)
        return dataclasses.replace(self, indices=self.indices[block], values=self.values[block])


def relative(
    x: Float32[np.ndarray, "n d"],
    anchors: Float32[np.ndarray, "a d"],
    neighbours: int,
    power: float,
) -> Relative:
    """Relative coordinates: the largest similarities of each row to the anchors, raised to a power.

    Rows are scaled to unit length. A similarity below zero counts as zero: an even power would make
    opposites similar. At most 512 rows of similarities are held in memory beside the result.

    Example:
      >>> x = np.array([[0.6, 0.8], [1.0, 0.0]], np.float32)
      >>> relative(x, np.eye(2, dtype=np.float32), neighbours=1, power=2.0).dense().tolist()
      [[0.0, 1.0], [1.0, 0.0]]

    Args:
      x: vectors of unit length.
      anchors: vectors of unit length.
      neighbours: number of largest similarities to keep per row; at most all are kept.
      power: exponent of the similarities, above 0; at least 1 in the paper.

    Returns:
      Coordinates of each row, the largest first.

    Raises:
      UserError: if `neighbours` or `power` is not positive.

    References:
      Norelli et al., "ASIF: Coupled Data Turns Unimodal Models to Multimodal Without Training",
      arXiv 2210.01738, section 2.
    """
    if neighbours < 1 or power <= 0:
        raise UserError(f"neighbours is {neighbours} and power {power}; write positive numbers")
    kept = min(neighbours, len(anchors))
    indices = np.empty((len(x), kept), np.int32)
    values = np.empty((len(x), kept), np.float32)
    for start in range(0, len(x), _BLOCK):
        block = slice(start, start + _BLOCK)
        indices[block], values[block] = _largest(x[block] @ anchors.T, kept)
    return Relative(indices=indices, values=_weigh(values, power), anchors=len(anchors))


def unit(x: Float[np.ndarray, "*n d"]) -> Float32[np.ndarray, "*n d"]:
    """Scales vectors to unit length; a zero vector stays zero."""
    x = np.asarray(x, np.float32)
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def _largest(scores: np.ndarray, kept: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices and values of the `kept` largest scores of each row, the largest first."""
    indices = np.argpartition(-scores, kept - 1, axis=1)[:, :kept]
    values = np.take_along_axis(scores, indices, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(indices, order, axis=1), np.take_along_axis(values, order, axis=1)


def _weigh(values: Float32[np.ndarray, "n t"], power: float) -> Float32[np.ndarray, "n t"]:
    return unit(np.maximum(values, 0) ** np.float32(power))
