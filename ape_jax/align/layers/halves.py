"""One side of CCA on each split: its principal directions, computed once for all partners.

Half of a CCA depends on one side alone. Where many readings of images are compared with one of
texts, the half of the texts is the same each time. Vectors are first rotated and cut to their
`RANK` principal directions over all rows, of whichever split, which looks at no pair: what is left
out has so little variance that the regulariser would damp it anyway.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Integer

from ape_jax.align.closed_form.decompositions import thin_svd

RANK = 256
"""Principal directions that are kept of a reading."""
_VARIES = 1e-10  # Of the largest variance: directions with less do not vary.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Half:
    """Principal directions of the vectors that one split is fitted on.

    Attributes:
      variances: [r]; directions that do not vary are left out.
      mean_variance: over all d dimensions; an l2 is a multiple of it.
      coordinates: of all rows in these directions, [n, r], after the mean of the fit is taken off.
      parts: number of the blocks of the covariance, which is taken as so many times these.
    """

    variances: Float[np.ndarray, " r"]
    mean_variance: float
    coordinates: Float[np.ndarray, "n r"]
    parts: int = 1

    def whitening(self, l2: float) -> Float[np.ndarray, " r"]:
        """Factors of the directions at an l2."""
        return 1 / np.sqrt(self.parts * (self.variances + l2 * self.mean_variance))


def halves(
    x: Float[np.ndarray, "n d"],
    uses: Sequence[Integer[np.ndarray, " n"]],
    parts: Sequence[int] = (),
) -> list[Half | None]:
    """Makes the halves of one side, one a split; None where nothing varies.

    Args:
      x: the vectors of all rows.
      uses: of each split, how often each row is in a pair that is fitted on; 0 for rows that are
        not.
      parts: widths of the blocks of the covariance, as for `closed_form.cca`; () for all of it.
    """
    ends = np.cumsum(parts)[:-1] if parts else []
    blocks = [principal(part) for part in np.split(x.astype(np.float64), ends, axis=1)]
    return [
        _joined([_half(block, of_split, x.shape[1]) for block in blocks], len(blocks))
        for of_split in uses
    ]


def principal(x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n r"]:
    """Coordinates in the principal directions of the rows, at most `RANK`, means taken off.

    They come from the smaller one of the covariance [d, d] and the products of rows [n, n]: joined
    layers are often wider than there are images.
    """
    x = x - x.mean(axis=0)
    wide = x.shape[1] > len(x)
    values, vectors = np.linalg.eigh(x @ x.T if wide else x.T @ x)
    values, vectors = values[-RANK:], vectors[:, -RANK:]
    return vectors * np.sqrt(np.maximum(values, 0)) if wide else x @ vectors


def _half(x: Float[np.ndarray, "n r"], uses: Integer[np.ndarray, " n"], dims: int) -> Half | None:
    total, rows = uses.sum(), np.flatnonzero(uses)
    square = float(uses @ (x**2).sum(axis=1) / total)
    x = x - uses @ x / total
    weighted = x[rows] * np.sqrt(uses[rows] / total)[:, None]
    values, vectors = np.linalg.eigh(weighted.T @ weighted)
    trace = float(values.sum())
    if trace <= 1e-12 * square or not values[-1] > 0:
        return None
    kept = values > _VARIES * values[-1]
    return Half(
        variances=values[kept], mean_variance=trace / dims, coordinates=x @ vectors[:, kept]
    )


def _joined(found: list[Half | None], parts: int) -> Half | None:
    """The halves of all blocks as one; blocks where nothing varies are left out."""
    kept = [half for half in found if half is not None]
    if not kept:
        return None
    return Half(
        variances=np.concatenate([half.variances for half in kept]),
        mean_variance=sum(half.mean_variance for half in kept),
        coordinates=np.concatenate([half.coordinates for half in kept], axis=1),
        parts=parts,
    )


def solved(
    text: Half, image: Half, cross: Float[np.ndarray, "r s"], l2: float
) -> tuple[Float[np.ndarray, "m e"], Float[np.ndarray, "n e"], Float[np.ndarray, " e"]]:
    """Canonical variates of all texts and images, and the correlations; e = min(r, s).

    Args:
      text: the half of the texts.
      image: the half of the images.
      cross: covariance of their coordinates over the fitted pairs.
      l2: regulariser, as for `closed_form.cca`.
    """
    x, y = text.whitening(l2), image.whitening(l2)
    left, correlations, right = thin_svd(x[:, None] * cross * y)
    ztxt = text.coordinates @ (x[:, None] * left)
    zimg = image.coordinates @ (y[:, None] * right)
    return ztxt, zimg, np.clip(correlations, 0, 1)


class Memory:
    """Keeps the halves that were asked for last: of one partner, and of the reading at hand."""

    def __init__(self) -> None:
        self._kept: dict[object, list[Half | None]] = {}

    def get(self, key: object, make: Callable[[], list[Half | None]]) -> list[Half | None]:
        """The halves of a reading, made on first use."""
        found = self._kept.pop(key) if key in self._kept else make()
        self._kept[key] = found
        while len(self._kept) > 2:
            self._kept.pop(next(iter(self._kept)))
        return found
