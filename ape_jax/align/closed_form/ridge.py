"""Ridge regression from text features to image features, or the other way round."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float, Integer

from ape_jax.align.closed_form.affine import Affine
from ape_jax.align.closed_form.folds import draw
from ape_jax.align.closed_form.paired import Moments, Paired, by_fold, from_rows, moments
from ape_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ridge(Affine):
    """A fitted map.

    Attributes:
      l2: the regulariser that it was fitted with.
    """

    l2: float


def ridge(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n k"], l2: float, *, center: bool = True
) -> Ridge:
    """Fits y from x: the kernel W that minimises |x W + b - y|^2 + l2 |W|^2, summed over rows.

    The bias b is not penalised. Solves a system of min(n, d) unknowns: the normal equations, or
    with fewer rows than features their dual.

    Example:
      >>> x = np.array([[0.0], [1.0], [2.0]])
      >>> fit = ridge(x, 3 * x + 1, 1e-9)
      >>> np.round(fit(np.array([[10.0]])), 4).item()
      31.0

    Args:
      x: what to regress from (text features), float [n, d].
      y: what to regress to (image features), float [n, k].
      l2: weight of the squared kernel, positive; scikit-learn's `alpha`. As the errors are summed
        and not averaged, it counts against n times the variance of the features.
      center: fit a bias, by centring both sides; else the bias is zero.

    Returns:
      The fitted map.

    Raises:
      UserError: arrays that do not fit or are not finite, or an `l2` that is not positive.

    References:
      Hoerl, Kennard, `Ridge Regression: Biased Estimation for Nonorthogonal Problems
      <https://doi.org/10.1080/00401706.1970.10488634>`_, 1970.
    """
    x, y = _checked(x, y)
    _check_l2([l2])
    x, y, x_mean, y_mean = _centred(x, y, center)
    n, d = x.shape
    if n < d:
        kernel = x.T @ np.linalg.solve(x @ x.T + l2 * np.eye(n), y)
    else:
        kernel = np.linalg.solve(x.T @ x + l2 * np.eye(d), x.T @ y)
    return Ridge(kernel=kernel, bias=y_mean - x_mean @ kernel, l2=float(l2))


def ridge_cv(
    x: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, "n k"],
    *,
    l2s: Sequence[float] | Float[np.ndarray, " l"] | None = None,
    folds: int | Integer[np.ndarray, " n"] | None = None,
    groups: Integer[np.ndarray, " n"] | None = None,
    seed: int = 0,
    center: bool = True,
) -> Ridge:
    """`ridge`, with the l2 of a grid that predicts held-out rows best in mean squared error.

    Without `folds` each row is held out alone, in closed form (the leave-one-out residual is the
    residual over 1 - h, h the diagonal of the hat matrix). Rows that repeat each other, as views
    of one image or captions of one image do, then vouch for each other and the choice comes out too
    small: give their `groups`, and 5 folds are drawn that keep each group on one side.

    Example:
      >>> rng = np.random.default_rng(0)
      >>> x = rng.normal(size=(100, 5))
      >>> y = x[:, :2] + 0.1 * rng.normal(size=(100, 2))
      >>> ridge_cv(x, y, l2s=[0.1, 1e3, 1e5]).l2
      0.1

    Args:
      x: what to regress from (text features), float [n, d], at least two rows.
      y: what to regress to (image features), float [n, k].
      l2s: the grid, positive. Without it, 33 values in equal ratios from 1e-6 to 1e2 times the
        largest eigenvalue of the (centred) x^T x.
      folds: how many folds to draw, or which fold each row is held out in, integer [n].
      groups: rows of equal value, integer [n], are held out together. Only where folds are drawn.
      seed: of the folds that are drawn.
      center: as for `ridge`.

    Returns:
      The map fitted on all rows with the chosen l2, the first such if several are equally good.

    Raises:
      UserError: as for `ridge`; or folds that leave nothing to hold out or to fit on.

    References:
      Golub, Heath, Wahba, `Generalized Cross-Validation as a Method for Choosing a Good Ridge
      Parameter <https://doi.org/10.1080/00401706.1979.10489751>`_, 1979.
    """
    x, y = _checked(x, y)
    if groups is not None and folds is None:
        folds = 5
    if l2s is None:
        l2s = _grid(_top_eigenvalue(_centred(x, y, center)[0]))
    l2s = np.asarray(l2s, np.float64)
    _check_l2(l2s)
    if folds is not None:
        fold = draw(len(x), folds, groups, seed)
        return _chosen([part for _, part in by_fold(from_rows(x, y), fold)], l2s, center)
    errors = _leave_one_out_errors(x, y, l2s, center)
    return ridge(x, y, float(l2s[np.argmin(errors)]), center=center)


def _leave_one_out_errors(
    x: np.ndarray, y: np.ndarray, l2s: np.ndarray, center: bool
) -> Float[np.ndarray, " l"]:
    """Summed squared leave-one-out residuals, for each l2."""
    if len(x) < 2:
        raise UserError("ridge_cv was given 1 row; it needs at least 2, one of them to hold out.")
    x, y, _, _ = _centred(x, y, center)
    # The bias, too, was fitted with the row that is left out: its share of the hat matrix.
    mean_share = 1 / len(x) if center else 0.0
    eigenvalues, basis = _principal(x)
    left = x @ basis
    right = left.T @ y
    errors = []
    for l2 in l2s:
        residual = y - (left / (eigenvalues + l2)) @ right
        free = 1 - mean_share - (left**2 / (eigenvalues + l2)).sum(1)
        # Where the fit goes through a row, nothing but rounding is left of both.
        through = free.min() < 1e-9
        errors.append(np.inf if through else ((residual / free[:, None]) ** 2).sum())
    return np.array(errors)


def ridge_pairs(
    paired: Paired,
    *,
    l2: float | None = None,
    folds: int | Integer[np.ndarray, " n"] = 5,
    seed: int = 0,
    towards: Literal["image", "text"] = "image",
) -> Ridge:
    """Ridge between texts and images, every caption of an image a row.

    The same as `ridge_cv` on the rows written out, with images that share a text held out together.

    Args:
      paired: the features.
      towards: `image` maps texts to images, views averaged; `text` maps images to texts, every view
        a row.
      l2: as for `ridge`; None chooses it as `ridge_cv` does with folds.
      folds: how many to draw, or the fold of each image.
      seed: of the draw.

    Raises:
      UserError: as for `ridge_cv`.
    """
    paired.check()
    turn = Moments.turned if towards == "text" else lambda part: part
    if l2 is not None:
        _check_l2([l2])
        return _solve(turn(moments(paired)), l2, center=True)
    if isinstance(folds, int):
        folds = min(folds, len(paired))
    fold = draw(len(paired), folds, paired.groups(), seed)
    return _chosen([turn(part) for _, part in by_fold(paired, fold)], None, center=True)


def _chosen(parts: list[Moments], l2s: np.ndarray | None, center: bool) -> Ridge:
    """The fit to all parts with the l2 that does best on each part when fitted to the others."""
    whole = sum(parts[1:], parts[0])
    if l2s is None:
        l2s = _grid(np.linalg.eigvalsh(_sums(whole, center)[0])[-1])
    errors = sum(_held_out_errors(whole - out, out, l2s, center) for out in parts)
    return _solve(whole, float(l2s[np.argmin(errors)]), center)


def _solve(whole: Moments, l2: float, center: bool) -> Ridge:
    xx, xy = _sums(whole, center)
    kernel = np.linalg.solve(xx + l2 * np.eye(len(xx)), xy)
    bias = whole.image_mean - whole.text_mean @ kernel if center else np.zeros(xy.shape[1])
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
    """Mean squared errors on `out` of the fit to `fitted`, for each l2; from the sums alone."""
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


def _principal(x: np.ndarray) -> tuple[Float[np.ndarray, " r"], Float[np.ndarray, "d r"]]:
    """Eigenvalues and eigenvectors of x^T x, those of its null space left out where n < d."""
    if len(x) < x.shape[1]:
        _, singular, basis = np.linalg.svd(x, full_matrices=False)
        return singular**2, basis.T
    eigenvalues, basis = np.linalg.eigh(x.T @ x)
    return np.maximum(eigenvalues, 0), basis


def _grid(top: float) -> Float[np.ndarray, " l"]:
    return (top or 1.0) * np.geomspace(1e-6, 1e2, 33)


def _top_eigenvalue(x: np.ndarray) -> float:
    gram = x @ x.T if len(x) < x.shape[1] else x.T @ x
    return float(np.linalg.eigvalsh(gram)[-1])


def _centred(
    x: np.ndarray, y: np.ndarray, center: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    x_mean = x.mean(0) if center else np.zeros(x.shape[1])
    y_mean = y.mean(0) if center else np.zeros(y.shape[1])
    return x - x_mean, y - y_mean, x_mean, y_mean


def _checked(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or not x.size or not y.size:
        raise UserError(
            f"x has shape {x.shape} and y {y.shape}; ridge needs [n, d] and [n, k], n at least 1."
        )
    for name, values in (("x", x), ("y", y)):
        if not np.isfinite(values).all():
            row = int(np.argmin(np.isfinite(values).all(1)))
            raise UserError(f"{name} is not finite in row {row}; encode the features again.")
    return x, y


def _check_l2(l2s: Sequence[float] | np.ndarray) -> None:
    values = np.asarray(l2s, np.float64)
    if not values.size or not (values > 0).all() or not np.isfinite(values).all():
        raise UserError(f"l2 is {list(map(float, values.ravel()))[:5]}; write positive numbers.")
