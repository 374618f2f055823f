"""Ridge regression between the texts and images of pairs, from sums over the pairs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float, Integer

from ape_jax.align.closed_form import held_out
from ape_jax.align.closed_form.paired import Paired, assign
from ape_jax.align.closed_form.solution import L2, Affine, Solution, linear_head, on_both
from ape_jax.align.closed_form.sums import Moments, check_varies, moments, text_mean
from ape_jax.align.heads.linear import IDENTITY, LINEAR
from ape_jax.config.components import ClosedFormSpec
from ape_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ridge(Affine):
    """An affine map fitted by ridge regression.

    Attributes:
      l2: weight of the squared kernel in the fit.
    """

    l2: float


def ridge_pairs(
    paired: Paired,
    *,
    l2: float | None = None,
    folds: int | Integer[np.ndarray, " n"] = 5,
    seed: int = 0,
    towards: Literal["image", "text"] = "image",
) -> Ridge:
    """Fits ridge regression between texts and images, with one row per caption of an image.

    Equals `ridge_cv` on the [p, d] and [p, k] arrays of pairs, which are never made. Images that
    share a text are held out together.

    Example:
      >>> from ape_jax.align.closed_form import from_rows
      >>> x = np.array([[0.0], [1.0], [2.0]])
      >>> fit = ridge_pairs(from_rows(x, 3 * x + 1), l2=1e-9)
      >>> np.round(fit(np.array([[10.0]])), 4).item()
      31.0

    Args:
      paired: features of the training pairs.
      towards: "image" maps texts to images, averaged over views; "text" maps images to texts, with
        one row per view.
      l2: weight of the squared kernel, positive; None to choose it by cross-validation.
      folds: number of random folds, or the fold of each image, integer [n].
      seed: seed of the random folds.

    Returns:
      The map fitted on all pairs.

    Raises:
      UserError: as for `ridge_cv`, or if nothing varies on a side.
    """
    paired.check()
    turn = Moments.turned if towards == "text" else lambda part: part
    if l2 is not None:
        check_l2([l2])
        total = moments(paired)
        check_varies(total)
        return _solve(turn(total), l2, center=True)
    if isinstance(folds, int):
        folds = min(folds, paired.own)
    fold = paired.with_extra(assign(paired.own, folds, paired.groups(), seed))
    parts, total = held_out.split(paired, fold)
    return chosen([turn(part) for _, part in parts], None, center=True, total=turn(total))


def chosen(
    folds: list[Moments], l2s: np.ndarray | None, center: bool, total: Moments | None = None
) -> Ridge:
    """Fits all folds with the l2 that has the least error on each fold if fitted to the others.

    Args:
      folds: moments of each fold.
      l2s: grid of l2; None for `grid`.
      center: fit a bias.
      total: moments of all pairs, where some are in no fold; None for the sum of the folds.
    """
    if total is None:
        total = sum(folds[1:], folds[0])
    if l2s is None:
        l2s = grid(np.linalg.eigvalsh(_sums(total, center)[0])[-1])
    errors = sum(_held_out_errors(total - out, out, l2s, center) for out in folds)
    return _solve(total, float(l2s[np.argmin(errors)]), center)


def _solve(total: Moments, l2: float, center: bool) -> Ridge:
    xx, xy = _sums(total, center)
    kernel = np.linalg.solve(xx + l2 * np.eye(len(xx)), xy)
    bias = total.image_mean - total.text_mean @ kernel if center else np.zeros(xy.shape[1])
    return Ridge(kernel=kernel, bias=bias, l2=float(l2))


def _sums(part: Moments, center: bool) -> tuple[np.ndarray, np.ndarray]:
    """x^T x and x^T y."""
    if not center:
        return part.text_text, part.text_image
    xx, _, xy = part.covariances()
    return part.count * xx, part.count * xy


def _held_out_errors(
    fitted: Moments, out: Moments, l2s: np.ndarray, center: bool
) -> Float[np.ndarray, " l"]:
    """Mean squared errors of each l2 on `out` when fitted to `fitted`, from the sums alone."""
    xx, xy = _sums(fitted, center)
    eigenvalues, basis = np.linalg.eigh(xx)
    eigenvalues = np.maximum(eigenvalues, 0)
    right = basis.T @ xy
    x0 = fitted.text_mean if center else np.zeros(len(xx))
    y0 = fitted.image_mean if center else np.zeros(xy.shape[1])
    # The sums of `out` about the means of `fitted`.
    n, x1, y1 = out.count, out.text_sum, out.image_sum
    out_xx = out.text_text - np.outer(x1, x0) - np.outer(x0, x1) + n * np.outer(x0, x0)
    out_xy = out.text_image - np.outer(x1, y0) - np.outer(x0, y1) + n * np.outer(x0, y0)
    out_yy = np.trace(out.image_image) - 2 * y1 @ y0 + n * y0 @ y0
    out_xx, out_xy = basis.T @ out_xx @ basis, basis.T @ out_xy
    errors = []
    for l2 in l2s:
        kernel = right / (eigenvalues + l2)[:, None]
        explained = 2 * np.vdot(kernel, out_xy) - np.vdot(kernel, out_xx @ kernel)
        errors.append((out_yy - explained) / (n * len(y0)))
    return np.array(errors)


def grid(top: float) -> Float[np.ndarray, " l"]:
    """Returns 33 values in equal ratios from 1e-6 to 1e2 times `top`, the largest eigenvalue."""
    return (top or 1.0) * np.geomspace(1e-6, 1e2, 33)


def check_l2(l2s: Sequence[float] | np.ndarray) -> None:
    """Raises UserError unless all are positive."""
    values = np.asarray(l2s, np.float64)
    if not values.size or not (values > 0).all() or not np.isfinite(values).all():
        raise UserError(f"l2 is {list(map(float, values.ravel()))[:5]}; write positive numbers")


class _UnitImages:
    """Images of unit length, averaged over their views, f32 [n, 1, k]: made as they are read."""

    def __init__(self, paired: Paired):
        self._paired = paired
        self.shape: tuple[int, ...] = (len(paired), 1, paired.image.shape[2])
        self.dtype = np.dtype(np.float32)

    @property
    def nbytes(self) -> int:
        """Bytes of all of them."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: slice | np.ndarray) -> np.ndarray:
        views = self._paired.standardised(self._paired.image[index]).astype(np.float32)
        length = np.maximum(np.linalg.norm(views, axis=-1, keepdims=True), 1e-12)
        return (views / length).mean(axis=1, keepdims=True)


def _to_images(paired: Paired, *, width: int, l2: float) -> Solution:
    """Fits texts to images of unit length, so that the squared error is a function of the cosine.

    The mean over the views of an image is the target: the fit equals that with one row per view.
    """
    targets = dataclasses.replace(paired, image=_UnitImages(paired), mean=None, std=None)
    fit = ridge_pairs(targets, l2=l2 or None)
    record = {"l2": fit.l2, "width": len(fit.bias)}
    return Solution(record=record, heads={"text_head": linear_head(fit)})


def _to_texts(paired: Paired, *, width: int, l2: float) -> Solution:
    """Fits images to texts, both centred: image directions that no text has are ignored."""
    fit = ridge_pairs(paired, l2=l2 or None, towards="text")
    # The fit maps the mean image to the mean text, which is subtracted from both sides.
    mean = text_mean(paired)
    image = Affine(kernel=fit.kernel, bias=fit.bias - mean)
    text = Affine(kernel=np.eye(len(mean)), bias=-mean)
    return on_both(text, image, {"l2": fit.l2, "width": len(mean)})


RIDGE = ClosedFormSpec(
    name="ridge",
    title="ridge, pooled text to image",
    solve=_to_images,
    image=IDENTITY,
    text=LINEAR,
    keys={"l2": L2},
    weighs_pairs=True,
)
RIDGE_TEXT = ClosedFormSpec(
    name="ridge_text",
    title="ridge, image to pooled text",
    solve=_to_texts,
    image=LINEAR,
    text=LINEAR,
    keys={"l2": L2},
    weighs_pairs=True,
)
