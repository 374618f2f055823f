"""Orthogonal Procrustes: the rotation of texts onto images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Integer

from ape_jax.align.closed_form import held_out
from ape_jax.align.closed_form.affine import Affine, centred
from ape_jax.align.closed_form.paired import Moments, Paired, by_fold, moments
from ape_jax.align.closed_form.solution import Solution, on_both
from ape_jax.align.heads.linear import LINEAR
from ape_jax.config.components import ClosedFormSpec
from ape_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Procrustes:
    """Two maps into one space, each orthonormal.

    Attributes:
      text: texts to the joint space [dim].
      image: images to the joint space [dim].
      dim: its width.
    """

    text: Affine
    image: Affine
    dim: int


def procrustes(paired: Paired | Moments, *, dim: int = 0) -> Procrustes:
    """Rotates texts onto images: the orthogonal R that minimises |x R - y|^2, both sides centred.

    A side that is wider than `dim` is first brought to it by its principal components. A side that
    has that width is left as it is.

    Args:
      paired: the features, or their sums.
      dim: the joint width; 0 is the narrower side's.

    Raises:
      UserError: for a joint width that a side does not have.

    References:
      Schönemann, `A Generalized Solution of the Orthogonal Procrustes Problem
      <https://doi.org/10.1007/BF02289451>`_, 1966.
    """
    if isinstance(paired, Paired):
        paired.check()
        paired = moments(paired)
    most = min(paired.text_image.shape)
    if not 0 <= dim <= most:
        raise UserError(f"dim is {dim}; the narrower side has {most}, write 0 to {most}.")
    return _Axes(paired).rotate(dim or most)


def procrustes_cv(
    paired: Paired,
    *,
    dims: Sequence[int] | None = None,
    folds: int | Integer[np.ndarray, " n"] = 5,
    seed: int = 0,
    limit: int = 1000,
) -> Procrustes:
    """`procrustes` in the width that finds held-out images and texts best.

    Args:
      paired: the features.
      dims: the grid; None for 32, 64, 128 and so on up to the narrower side's.
      folds: how many to draw (images that share a text are in one), or the fold of each image.
      seed: of the draws.
      limit: images that are looked for in a fold.

    Raises:
      UserError: as for `procrustes`, or where there is nothing to hold out.
    """
    paired.check()
    dims = held_out.widths(min(paired.text.shape[1], paired.image.shape[2]), dims)
    parts = by_fold(paired, held_out.folds(paired, folds, seed))
    whole = sum((part for _, part in parts[1:]), parts[0][1])
    scores = np.zeros((len(parts), len(dims)))
    for n, (among, part) in enumerate(parts):
        axes = _Axes(whole - part)
        out = held_out.sample(paired, among, limit, seed)
        for i, dim in enumerate(dims):
            fit = axes.rotate(dim)
            scores[n, i] = out.score(fit.image(out.image), fit.text(out.text))
    return procrustes(whole, dim=dims[held_out.simplest(scores)[0]])


class _Axes:
    """The principal axes of both sides: every width is solved from them."""

    def __init__(self, part: Moments):
        xx, yy, self._cross = part.covariances()
        self._means = part.text_mean, part.image_mean
        # Ascending eigenvalues: the principal axes come last.
        self._axes = tuple(np.linalg.eigh(side)[1][:, ::-1] for side in (xx, yy))

    def rotate(self, dim: int) -> Procrustes:
        text, image = (self._reduce(axes, dim) for axes in self._axes)
        left, _, right = np.linalg.svd(text.T @ self._cross @ image)
        maps = text @ (left @ right), image
        text, image = (centred(kernel, mean) for kernel, mean in zip(maps, self._means))
        return Procrustes(text=text, image=image, dim=dim)

    def _reduce(self, axes: Float[np.ndarray, "d d"], dim: int) -> Float[np.ndarray, "d e"]:
        return np.eye(len(axes)) if dim == len(axes) else axes[:, :dim]


def _solved(paired: Paired, *, width: int) -> Solution:
    fit = procrustes(paired, dim=width) if width else procrustes_cv(paired)
    return on_both(fit.text, fit.image, {"width": fit.dim})


PROCRUSTES = ClosedFormSpec(
    name="procrustes",
    title="orthogonal Procrustes",
    solve=_solved,
    image=LINEAR,
    text=LINEAR,
    takes_width=True,
)
