"""Ridge regression from rows to rows, float64 arrays in and a map out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Integer

from ape_jax.align.closed_form.folds import draw
from ape_jax.align.closed_form.paired import by_fold, from_rows
from ape_jax.align.closed_form.ridge_pairs import Ridge, check_l2, chosen, grid
from ape_jax.errors import UserError


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
    check_l2([l2])
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
        l2s = grid(_top_eigenvalue(_centred(x, y, center)[0]))
    l2s = np.asarray(l2s, np.float64)
    check_l2(l2s)
    if folds is not None:
        fold = draw(len(x), folds, groups, seed)
        return chosen([part for _, part in by_fold(from_rows(x, y), fold)], l2s, center)
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


def _principal(x: np.ndarray) -> tuple[Float[np.ndarray, " r"], Float[np.ndarray, "d r"]]:
    """Eigenvalues and eigenvectors of x^T x, those of its null space left out where n < d."""
    if len(x) < x.shape[1]:
        _, singular, basis = np.linalg.svd(x, full_matrices=False)
        return singular**2, basis.T
    eigenvalues, basis = np.linalg.eigh(x.T @ x)
    return np.maximum(eigenvalues, 0), basis


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
