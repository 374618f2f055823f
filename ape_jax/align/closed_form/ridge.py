"""Ridge regression between two float64 arrays with paired rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Integer

from ape_jax.align.closed_form.paired import assign, from_rows
from ape_jax.align.closed_form.ridge_pairs import Ridge, check_l2, chosen, grid
from ape_jax.align.closed_form.sums import by_fold
from ape_jax.errors import UserError


def ridge(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n k"], l2: float, *, center: bool = True
) -> Ridge:
    """Fits the map x W + b that minimises |x W + b - y|^2 + l2 |W|^2, summed over rows.

    The bias b is not penalised. Solves a system of min(n, d) unknowns: the normal equations, or
    their dual if there are fewer rows than features.

    Example:
      >>> import numpy as np
      >>> x = np.array([[0.0], [1.0], [2.0]])
      >>> fit = ridge(x, 3 * x + 1, 1e-9)
      >>> np.round(fit(np.array([[10.0]])), 4).item()
      31.0

    Args:
      x: inputs (text features), float [n, d].
      y: targets (image features), float [n, k].
      l2: weight of the squared kernel, positive; scikit-learn's `alpha`. Errors are summed and not
        averaged, so it is relative to n times the variance of the features.
      center: fit a bias by centring both sides; otherwise the bias is zero.

    Returns:
      The fitted map.

    Raises:
      UserError: if shapes do not match, values are not finite, or `l2` is not positive.

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
    """Fits `ridge` with the l2 of a grid that has the least mean squared error on held-out rows.

    Without `folds` each row is held out by itself, in closed form: the leave-one-out residual is
    the residual over 1 - h, with h the diagonal of the hat matrix. Rows that resemble each other
    (views or captions of one image) then predict each other, and the chosen l2 is too small: pass
    `groups`, and each group is held out together in one of 5 folds.

    Example:
      >>> import numpy as np
      >>> rng = np.random.default_rng(0)
      >>> x = rng.normal(size=(100, 5))
      >>> y = x[:, :2] + 0.1 * rng.normal(size=(100, 2))
      >>> ridge_cv(x, y, l2s=[0.1, 1e3, 1e5]).l2
      0.1

    Args:
      x: inputs (text features), float [n, d], at least two rows.
      y: targets (image features), float [n, k].
      l2s: grid of l2, positive. By default 33 values in equal ratios from 1e-6 to 1e2 times the
        largest eigenvalue of the (centred) x^T x.
      folds: number of random folds, or the fold of each row, integer [n].
      groups: rows of equal value are held out together, integer [n]; for random folds only.
      seed: seed of the random folds.
      center: fit a bias by centring both sides; otherwise the bias is zero.

    Returns:
      The map fitted on all rows with the chosen l2, the first of several equally good ones.

    Raises:
      UserError: as for `ridge`, or if the folds leave nothing to hold out or to fit on.

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
        fold = assign(len(x), folds, groups, seed)
        return chosen([part for _, part in by_fold(from_rows(x, y), fold)], l2s, center)
    errors = _leave_one_out_errors(x, y, l2s, center)
    return ridge(x, y, float(l2s[np.argmin(errors)]), center=center)


def _leave_one_out_errors(
    x: np.ndarray, y: np.ndarray, l2s: np.ndarray, center: bool
) -> Float[np.ndarray, " l"]:
    """Summed squared leave-one-out residuals of each l2."""
    if len(x) < 2:
        raise UserError("ridge_cv was given 1 row; it needs at least 2, one of them to hold out")
    x, y, _, _ = _centred(x, y, center)
    # The bias, too, is fitted with the row that is left out: its share of the hat matrix.
    mean_share = 1 / len(x) if center else 0.0
    eigenvalues, basis = _principal(x)
    left = x @ basis
    right = left.T @ y
    errors = []
    for l2 in l2s:
        residual = y - (left / (eigenvalues + l2)) @ right
        free = 1 - mean_share - (left**2 / (eigenvalues + l2)).sum(1)
        # If the fit interpolates a row, both are nothing but rounding.
        through = free.min() < 1e-9
        errors.append(np.inf if through else ((residual / free[:, None]) ** 2).sum())
    return np.array(errors)


def _principal(x: np.ndarray) -> tuple[Float[np.ndarray, " r"], Float[np.ndarray, "d r"]]:
    """Eigenvalues and eigenvectors of x^T x, without its null space if n < d."""
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
            f"x has shape {x.shape} and y {y.shape}; ridge needs [n, d] and [n, k], n at least 1"
        )
    for name, values in (("x", x), ("y", y)):
        if not np.isfinite(values).all():
            row = int(np.argmin(np.isfinite(values).all(1)))
            raise UserError(f"{name} is not finite in row {row}; encode the features again")
    return x, y
