"""Canonical correlation analysis: linear maps of both modalities with maximal correlation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Integer

from ape_jax.align.closed_form import held_out
from ape_jax.align.closed_form.decompositions import block_eigh, thin_svd
from ape_jax.align.closed_form.paired import Paired
from ape_jax.align.closed_form.solution import L2, POWER, Affine, Solution, centred, on_both
from ape_jax.align.closed_form.sums import Moments, check_varies, moments
from ape_jax.align.heads.linear import LINEAR
from ape_jax.config.components import ClosedFormSpec
from ape_jax.config.fields import flag, number
from ape_jax.errors import UserError
from ape_jax.parallel.hosts import say

L2S = (1e-3, 1e-2, 1e-1, 3e-1, 1.0, 3.0)
POWERS = (0.0, 1.0, 2.0, 4.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cca:
    """Canonical directions of texts and images, the most correlated first.

    Attributes:
      text_mean: mean of the texts, float64 [d].
      image_mean: mean of the images, float64 [k].
      text_kernel: canonical directions of texts, float64 [d, r], r = min(d, k).
      image_kernel: canonical directions of images, float64 [k, r].
      correlations: canonical correlations, float64 [r], descending.
      l2: regulariser of the images, relative to their mean variance.
      text_l2: regulariser of the texts, relative to theirs.
      noise: weight of the views' covariance in that of the images.
      dim: number of directions to use.
      power: exponent of the correlations that weight the directions.
    """

    text_mean: Float[np.ndarray, " d"]
    image_mean: Float[np.ndarray, " k"]
    text_kernel: Float[np.ndarray, "d r"]
    image_kernel: Float[np.ndarray, "k r"]
    correlations: Float[np.ndarray, " r"]
    l2: float
    text_l2: float
    dim: int
    power: float = 0.0
    noise: float = 0.0

    @property
    def text(self) -> Affine:
        """Weighted map from texts [d] to the joint space [dim]."""
        return centred(self._weighted(self.text_kernel), self.text_mean)

    @property
    def image(self) -> Affine:
        """Weighted map from images [k] to the joint space [dim]."""
        return centred(self._weighted(self.image_kernel), self.image_mean)

    @property
    def weights(self) -> Float[np.ndarray, " dim"]:
        """Weights of the directions: their correlations, to the power."""
        return self.correlations[: self.dim] ** self.power

    def _weighted(self, kernel: Float[np.ndarray, "d r"]) -> Float[np.ndarray, "d e"]:
        return kernel[:, : self.dim] * self.weights


def cca(
    paired: Paired | Moments,
    l2: float,
    *,
    text_l2: float = 0.0,
    noise: float = 0.0,
    parts: Sequence[int] = (),
    dim: int = 0,
    power: float = 0.0,
) -> Cca:
    """Computes regularised CCA.

    Maximises a^T Sxy b subject to a^T (Sxx + text_l2 sx I) a = b^T (Syy + noise Sv + l2 sy I) b = 1
    for one pair of directions after the other; sx and sy are the mean variances over the dimensions
    of texts and of images, and Sv is the mean covariance of the views of an image. Directions in
    which augmentation moves an image then count less: they are those in which drawings of another
    style differ. Retrieval by cosine improves if directions are weighted by their correlations.

    With K `parts`, such as layers of a tower whose vectors are joined, Syy and Sv are taken as
    block-diagonal, with one block a part. Layers of one tower are so alike that the inverse of
    their whole covariance amplifies how they differ, which few images cannot tell from noise. The
    correlations are then lower bounds: Syy is at most K times its blocks.

    Example:
      >>> from ape_jax.align.closed_form import from_rows
      >>> x = np.random.default_rng(0).normal(size=(100, 3))
      >>> fit = cca(from_rows(x, x @ np.diag([1.0, 2.0, 3.0])), 1e-9)
      >>> np.round(fit.correlations, 3).tolist()
      [1.0, 1.0, 1.0]

    Args:
      paired: features of the training pairs, or their moments.
      l2: regulariser, at least 0; 0 is plain CCA, which needs covariances of full rank.
      text_l2: that of the texts, 0 for the same as `l2`.
      noise: weight of the covariance of views, at least 0; of one view an image there is none.
      parts: widths of the blocks of the covariance of images, of sum k; () for all of it.
      dim: number of directions to use; 0 for all min(d, k).
      power: exponent of the correlations that weight the directions; 0 for equal weights.

    Returns:
      All min(d, k) directions, with `text` and `image` as maps to the first `dim`.

    Raises:
      UserError: if nothing varies on a side, a covariance is singular with this l2, `dim` exceeds
        min(d, k), or `parts` do not add up to k.

    References:
      Hotelling, `Relations Between Two Sets of Variates <https://doi.org/10.1093/biomet/28.3-4.321>`_,
      1936; Gong et al., "A Multi-View Embedding Space for Modeling Internet Images, Tags, and their
      Semantics", arXiv 1212.4522 (the power); Hatch et al., "Within-class covariance normalization
      for SVM-based speaker recognition", Interspeech 2006 (the noise); Bickel and Levina, `Some
      theory for Fisher's linear discriminant function, 'naive Bayes', and some alternatives when
      there are many more variables than observations <https://doi.org/10.3150/bj/1106314847>`_,
      2004 (why covariances are better left out than estimated).
    """
    for name, value in (("l2", l2), ("text_l2", text_l2), ("noise", noise)):
        if value < 0 or not np.isfinite(value):
            raise UserError(f"{name} is {value}; write a number of at least 0")
    if isinstance(paired, Paired):
        paired.check()
        paired = moments(paired)
    most = min(paired.text_image.shape)
    if not 0 <= dim <= most:
        raise UserError(f"dim is {dim}; there are {most} pairs of directions, write 0 to {most}")
    fit = Spectra.of(paired, noise, parts).solve(l2, text_l2 or l2)
    return dataclasses.replace(fit, dim=dim or most, power=power, noise=float(noise))


def cca_cv(
    paired: Paired,
    *,
    dims: Sequence[int] | None = None,
    l2s: Sequence[float] = L2S,
    powers: Sequence[float] = POWERS,
    text_l2: float = 0.0,
    noise: float = 0.0,
    parts: Sequence[int] = (),
    folds: int | Integer[np.ndarray, " n"] = 5,
    seed: int = 0,
    limit: int = 1000,
) -> Cca:
    """Fits `cca` with the hyperparameters that retrieve held-out images and texts best.

    Args:
      paired: features of the training pairs.
      dims: grid of `dim`; None for 32, 64, 128 and so on up to min(d, k).
      l2s: grid of `l2`.
      powers: grid of `power`.
      text_l2: as for `cca`, not searched.
      noise: as for `cca`, not searched.
      parts: as for `cca`.
      folds: number of folds, images that share a text in one, or the fold of each image [n].
      seed: seed of the random folds and samples.
      limit: maximum number of images to score per fold; more would change the choice little.

    Returns:
      The fit on all pairs. Among the grid points that `held_out.simplest` accepts, it has the
      largest l2, then the fewest directions and the smallest power.

    Raises:
      UserError: as for `cca`, or if nothing can be held out.
    """
    paired.check()
    dims = held_out.widths(min(paired.text.shape[1], paired.image.shape[2]), dims)
    l2s, fold = sorted(l2s, reverse=True), held_out.folds(paired, folds, seed)
    split, total = held_out.split(paired, fold)
    scores = np.zeros((len(split), len(l2s), len(dims), len(powers)))
    for n, (members, part) in enumerate(split):
        spectra = Spectra.of(total - part, noise, parts)
        out = held_out.sample(paired, members, limit, seed)
        for i, l2 in enumerate(l2s):
            scores[n, i] = _scores(spectra.solve(l2, text_l2 or l2), out, dims, powers)
    i, j, k = held_out.simplest(scores)
    best = {"dim": dims[j], "power": powers[k]}
    return cca(total, l2s[i], text_l2=text_l2, noise=noise, parts=parts, **best)


def _scores(
    fit: Cca, out: held_out.HeldOut, dims: Sequence[int], powers: Sequence[float]
) -> Float[np.ndarray, "dims powers"]:
    ztxt = (out.text - fit.text_mean) @ fit.text_kernel
    zimg = (out.image - fit.image_mean) @ fit.image_kernel
    weights = [fit.correlations**power for power in powers]
    return np.array(
        [[out.score(zimg[:, :e] * w[:e], ztxt[:, :e] * w[:e]) for w in weights] for e in dims]
    )


class Spectra:
    """Eigendecompositions of both covariances, from which every l2 is solved.

    Args:
      means: of texts, [d], and of images, [k].
      covariances: of texts, of images, and of texts with images.
      added: to the covariance of images, [k, k], and not to the mean variance that an l2 is
        relative to; None for nothing.
      parts: widths of the blocks of the covariance of images, as for `cca`.
    """

    def __init__(
        self,
        means: tuple[Float[np.ndarray, " d"], Float[np.ndarray, " k"]],
        covariances: tuple[
            Float[np.ndarray, "d d"], Float[np.ndarray, "k k"], Float[np.ndarray, "d k"]
        ],
        added: Float[np.ndarray, "k k"] | None = None,
        parts: Sequence[int] = (),
    ):
        xx, yy, xy = covariances
        parts = tuple(parts) or (len(yy),)
        if sum(parts) != len(yy):
            raise UserError(f"parts are {parts}; expected widths of sum {len(yy)}")
        self._means, self._excess, self._parts = means, 0.0, len(parts)
        if added is not None:
            yy, self._excess = yy + added, float(np.trace(added)) / len(added)
        (self._x, self._u), (self._y, self._v) = np.linalg.eigh(xx), block_eigh(yy, parts)
        self.set_cross(xy)

    @classmethod
    def of(cls, part: Moments, noise: float = 0.0, parts: Sequence[int] = ()) -> Spectra:
        """Those of pairs, whose sides both have to vary; `noise` and `parts` as for `cca`."""
        check_varies(part)
        added = noise * part.noise if noise else None
        return cls((part.text_mean, part.image_mean), part.covariances(), added, parts)

    def set_cross(self, xy: Float[np.ndarray, "d k"]) -> None:
        """Takes another covariance of texts with images; those of either side stay."""
        self._cross = self._u.T @ xy @ self._v

    def solve(self, l2: float, text_l2: float) -> Cca:
        """Computes all canonical directions."""
        x, y = self._whiten(self._x, text_l2), self._whiten(self._y, l2, self._excess)
        y /= np.sqrt(self._parts)  # Of as many times the blocks.
        left, correlations, right = thin_svd(x[:, None] * self._cross * y)
        return Cca(
            text_mean=self._means[0],
            image_mean=self._means[1],
            text_kernel=self._u @ (x[:, None] * left),
            image_kernel=self._v @ (y[:, None] * right),
            correlations=np.clip(correlations, 0, 1),
            l2=float(l2),
            text_l2=float(text_l2),
            dim=len(correlations),
        )

    def _whiten(self, values: np.ndarray, l2: float, excess: float = 0.0) -> np.ndarray:
        shifted = values + l2 * (values.mean() - excess)
        if shifted.min() <= 1e-13 * shifted.max():
            raise UserError(
                f"a covariance is singular with l2={l2:g}: there are more dimensions than pairs, "
                "or dimensions that depend on each other; write an l2 above 0, such as 0.01"
            )
        return 1 / np.sqrt(shifted)


def _solved(
    paired: Paired,
    *,
    width: int,
    l2: float,
    power: float,
    text_l2: float,
    noise: float,
    block_diagonal: bool = False,
    kept: bool = False,
) -> Solution:
    if noise and paired.image.shape[1] == 1:
        say("closed.noise: each image has one view, so that there is no covariance of views")
        noise = 0.0
    if block_diagonal and len(paired.parts) < 2:
        say("closed.block_diagonal: an image's vector is in one piece, so that there are no blocks")
    grids: dict[str, Any] = {}
    parts = paired.parts if block_diagonal and len(paired.parts) > 1 else ()
    fixed: dict[str, Any] = {"text_l2": text_l2, "noise": noise, "parts": parts}
    if width:
        grids["dims"] = [width]
    if l2:
        grids["l2s"] = [l2]
    if power >= 0:
        grids["powers"] = [power]
    complete = len(grids) == 3
    if complete:
        fit = cca(paired, l2, dim=width, power=power, **fixed)
    else:
        fit = cca_cv(paired, **grids, **fixed)
    best = [round(float(value), 4) for value in fit.correlations[:3]]
    record = {"l2": fit.l2, "power": fit.power, "width": fit.dim, "correlations": best}
    record |= {name: value for name, value in fixed.items() if value}
    if not kept:
        return on_both(fit.text, fit.image, record)
    plain = dataclasses.replace(fit, power=0.0)
    return on_both(plain.text, plain.image, record, fit.weights)


TEXT_L2 = number(0.0, 0.0).explained("Strength on the text side; 0 is that of closed.l2.")
NOISE = number(0.0, 0.0, 1e6).explained(
    "Weight of the covariance between views of one image, added to that of the images."
)
BLOCK_DIAGONAL = flag(False).explained(
    "Takes no covariance between layers, poolings and class tokens that the image's vector joins."
)
CCA = ClosedFormSpec(
    name="cca",
    title="CCA",
    solve=_solved,
    image=LINEAR,
    text=LINEAR,
    keys={"l2": L2, "power": POWER, "text_l2": TEXT_L2, "noise": NOISE}
    | {"block_diagonal": BLOCK_DIAGONAL},
    takes_width=True,
    weighs=True,
    weighs_pairs=True,
    sorted=True,
)
