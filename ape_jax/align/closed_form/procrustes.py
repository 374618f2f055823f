"""Orthogonal Procrustes: the rotation of texts onto images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Integer

from ape_jax.align.closed_form import held_out
from ape_jax.align.closed_form.paired import Paired
from ape_jax.align.closed_form.solution import Affine, Solution, centred, on_both
from ape_jax.align.closed_form.sums import Moments, check_varies, moments
from ape_jax.align.heads.linear import LINEAR
from ape_jax.config.components import ClosedFormSpec
from ape_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Procrustes:
    """Orthonormal maps of texts and images into one space.

    Attributes:
      text: map from texts to the joint space [dim].
      image: map from images to the joint space [dim].
      dim: width of the joint space.
    """

    text: Affine
    image: Affine
    dim: int


def procrustes(paired: Paired | Moments, *, dim: int = 0) -> Procrustes:
    """Finds the rotation R of texts onto images that minimises |x R - y|^2, both sides centred.

    A side wider than `dim` is first reduced to its `dim` principal components.

    Example:
      >>> from ape_jax.align.closed_form import from_rows
      >>> x = np.random.default_rng(0).normal(size=(20, 2))
      >>> fit = procrustes(from_rows(x, x[:, ::-1]))
      >>> bool(np.allclose(fit.text(x), fit.image(x[:, ::-1])))
      True

    Args:
      paired: features of the training pairs, or their moments.
      dim: width of the joint space, at most min(d, k); 0 for min(d, k).

    Returns:
      Maps of texts and images to the joint space.

    Raises:
      UserError: if nothing varies on a side, or `dim` exceeds the width of one.

    References:
      Schönemann, `A Generalized Solution of the Orthogonal Procrustes Problem
      <https://doi.org/10.1007/BF02289451>`_, 1966.
    """
    if isinstance(paired, Paired):
        paired.check()
        paired = moments(paired)
    most = min(paired.text_image.shape)
    if not 0 <= dim <= most:
        raise UserError(f"dim is {dim}; the narrower side has {most}, write 0 to {most}")
    return _Axes(paired).rotate(dim or most)


def procrustes_cv(
    paired: Paired,
    *,
    dims: Sequence[int] | None = None,
    folds: int | Integer[np.ndarray, " n"] = 5,
    seed: int = 0,
    limit: int = 1000,
) -> Procrustes:
    """Fits `procrustes` with the width that retrieves held-out images and texts best.

    Args:
      paired: features of the training pairs.
      dims: grid of `dim`; None for 32, 64, 128 and so on up to min(d, k).
      folds: number of folds, images that share a text in one, or the fold of each image [n].
      seed: seed of the random folds and samples.
      limit: maximum number of images to score per fold.

    Returns:
      The fit on all pairs, with the first width that `held_out.simplest` accepts.

    Raises:
      UserError: as for `procrustes`, or if nothing can be held out.
    """
    paired.check()
    dims = held_out.widths(min(paired.text.shape[1], paired.image.shape[2]), dims)
    split, total = held_out.split(paired, held_out.folds(paired, folds, seed))
    scores = np.zeros((len(split), len(dims)))
    for n, (members, part) in enumerate(split):
        axes = _Axes(total - part)
        out = held_out.sample(paired, members, limit, seed)
        for i, dim in enumerate(dims):
            fit = axes.rotate(dim)
            scores[n, i] = out.score(fit.image(out.image), fit.text(out.text))
    return procrustes(total, dim=dims[held_out.simplest(scores)[0]])


class _Axes:
    """Principal axes of both sides, from which every width is solved."""

    def __init__(self, part: Moments):
        check_varies(part)
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
    weighs_pairs=True,
)
