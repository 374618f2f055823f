"""Vectors of a pool's images and captions, one of each a pair, read by blocks of rows."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float, Float32, Int, Integer

from ape_jax.align.closed_form import Paired
from ape_jax.storage.row_array import blocks

BLOCK = 4096  # Rows that are read together.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vectors:
    """Frozen features of both towers, with the mean that is subtracted from each.

    Features of one tower share a large common part, which says nothing; angles are compared
    without it.

    Attributes:
      paired: features of the pool.
      image_mean: mean of its images, f32 [k].
      text_mean: mean of its captions, f32 [d].
    """

    paired: Paired
    image_mean: Float32[np.ndarray, " k"]
    text_mean: Float32[np.ndarray, " d"]

    @classmethod
    def of(cls, paired: Paired) -> Vectors:
        """Takes the means in one pass."""
        image, text = (np.zeros(x.shape[-1]) for x in (paired.image, paired.text))
        for block in blocks(len(paired), BLOCK):
            image += paired.image[block].astype(np.float64).mean(axis=1).sum(axis=0)
        for block in blocks(len(paired.text), BLOCK):
            text += paired.text[block].astype(np.float64).sum(axis=0)
        return cls(
            paired=paired,
            image_mean=(image / max(len(paired), 1)).astype(np.float32),
            text_mean=(text / max(len(paired.text), 1)).astype(np.float32),
        )

    def __len__(self) -> int:
        return len(self.paired)

    def images(self, rows: slice | Int[np.ndarray, " b"]) -> Float32[np.ndarray, "b k"]:
        """Unit vectors of images, the mean over their views."""
        return unit(self.paired.image[rows].astype(np.float32).mean(axis=1) - self.image_mean)

    def texts(self, rows: slice | Int[np.ndarray, " b"]) -> Float32[np.ndarray, "b d"]:
        """Unit vectors of the captions of images, the mean over the captions of each."""
        rows = np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else rows
        starts = np.searchsorted(self.paired.image_index, rows)
        counts = np.searchsorted(self.paired.image_index, rows, "right") - starts
        first = np.cumsum(counts) - counts
        pairs = np.repeat(starts - first, counts) + np.arange(counts.sum())
        each = unit(self.read_texts(self.paired.text_index[pairs]))
        return unit(np.add.reduceat(each, first, axis=0))

    def read_texts(self, texts: Integer[np.ndarray, " m"]) -> Float32[np.ndarray, "m d"]:
        """Distinct captions without the mean."""
        return self.paired.text[texts].astype(np.float32) - self.text_mean


def unit(x: Float[np.ndarray, "n d"]) -> Float32[np.ndarray, "n d"]:
    """Rows of length 1, f32; rows of zeros stay zero."""
    x = x.astype(np.float32)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
