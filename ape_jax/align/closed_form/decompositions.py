"""Decompositions of matrices in float64, by eigendecompositions of symmetric ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float


def block_eigh(
    matrix: Float[np.ndarray, "k k"], parts: Sequence[int]
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, "k k"]]:
    """Eigenvalues and eigenvectors of the blocks on the diagonal, one block after the other."""
    values, vectors = np.zeros(len(matrix)), np.zeros_like(matrix)
    ends = np.cumsum(parts)
    for block in (slice(end - width, end) for width, end in zip(parts, ends)):
        values[block], vectors[block, block] = np.linalg.eigh(matrix[block, block])
    return values, vectors


def thin_svd(matrix: Float[np.ndarray, "d k"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Left vectors, singular values and right vectors, by an eigendecomposition.

    It takes a fraction of the time of LAPACK's SVD. Singular values under about 1e-8 are noise;
    directions with so little correlation are of no use.
    """
    if len(matrix) > matrix.shape[1]:
        right, values, left = thin_svd(matrix.T)
        return left, values, right
    squares, left = np.linalg.eigh(matrix @ matrix.T)
    values, left = np.sqrt(np.maximum(squares[::-1], 0)), left[:, ::-1]
    return left, values, matrix.T @ (left / np.maximum(values, 1e-8))
