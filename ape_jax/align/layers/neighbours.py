"""How far two sets of vectors agree on who is near whom, less what chance would give."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float, Integer

_BLOCK = 1024  # Rows whose similarities are held together.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibrated:
    """An overlap of neighbourhoods beside what permuted pairs have.

    Attributes:
      overlap: the share of neighbours that both sides name, in [0, 1].
      null: its mean over permutations.
      spread: its standard deviation over permutations.
    """

    overlap: float
    null: float
    spread: float

    @property
    def score(self) -> float:
        """The overlap above chance, as a share of what there is above chance; 1 is full."""
        return (self.overlap - self.null) / max(1 - self.null, 1e-12)


def rice_k(n: int) -> int:
    """Neighbours for n rows, 2 n^(1/3) by Rice's rule; fewer than n.

    Example:
      >>> rice_k(5000), rice_k(3)
      (34, 2)
    """
    return max(min(round(2 * n ** (1 / 3)), n - 1), 1)


def nearest(x: Float[np.ndarray, "n d"], k: int) -> Integer[np.ndarray, "n k"]:
    """The k nearest other rows of each row by cosine, in no particular order.

    Example:
      >>> nearest(np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]), 1).tolist()
      [[1], [0], [1]]

    Args:
      x: vectors of any length; a zero vector is equally far from all.
      k: fewer than n.
    """
    x = np.asarray(x, np.float32)
    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    found = np.empty((len(x), k), np.int64)
    for start in range(0, len(x), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(x)))
        scores = x[rows] @ x.T
        scores[np.arange(len(rows)), rows] = -np.inf
        found[rows] = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    return found


def mutual_overlap(a: Integer[np.ndarray, "n k"], b: Integer[np.ndarray, "n k"]) -> float:
    """The mean share of neighbours of a row in `a` that are its neighbours in `b`.

    Example:
      >>> mutual_overlap(np.array([[1, 2], [0, 2], [0, 1]]), np.array([[1, 2], [0, 2], [1, 0]]))
      1.0

    Args:
      a: of `nearest`.
      b: of `nearest`, of the same pairs.

    References:
      Huh et al., "The Platonic Representation Hypothesis", arXiv 2405.07987, section 3.1.
    """
    return _shared(_mask(a), b) / a.size


def calibrated(
    a: Integer[np.ndarray, "n k"],
    b: Integer[np.ndarray, "n k"],
    *,
    permutations: int = 10,
    seed: int = 0,
) -> Calibrated:
    """`mutual_overlap` beside that of permuted pairs.

    A permutation gives the neighbourhoods of `b` to other rows, renamed with them: both sides keep
    their own geometry, their hubs too, and nothing ties one to the other. The mean over all
    permutations is k / (n - 1).

    Args:
      a: of `nearest`.
      b: of `nearest`, of the same pairs.
      permutations: how many, at least 2.
      seed: seed of the permutations.

    References:
      "Revisiting the Platonic Representation Hypothesis: An Aristotelian View", ICML 2026.
    """
    mask, rng = _mask(a), np.random.default_rng(seed)
    null = []
    for _ in range(permutations):
        order = rng.permutation(len(b))
        renamed = np.empty_like(b)
        renamed[order] = order[b]
        null.append(_shared(mask, renamed) / a.size)
    overlap = _shared(mask, b) / a.size
    return Calibrated(
        overlap=overlap, null=float(np.mean(null)), spread=float(np.std(null, ddof=1))
    )


def _mask(a: Integer[np.ndarray, "n k"]) -> np.ndarray:
    mask = np.zeros((len(a), len(a)), bool)
    mask[np.arange(len(a))[:, None], a] = True
    return mask


def _shared(mask: np.ndarray, b: Integer[np.ndarray, "n k"]) -> int:
    return int(mask[np.arange(len(b))[:, None], b].sum())
