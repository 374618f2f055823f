"""Finds drawings that are nearly equal, by the correlation of their thumbnails' pixels.

Nearly equal drawings under the same name are one pair, and a test drawing that nearly equals one of
training is no test: about one in ten, for makers draw from each other.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Bool, Float, UInt8

# Above this, two drawings are nearly equal.
CORRELATION = 0.95
_BLOCK = 1024
_LEAST_NORM = 1.0


def standardised(thumbnails: UInt8[np.ndarray, "n p"]) -> Float[np.ndarray, "n p"]:
    """Normalises thumbnails to mean 0 and length 1, f32; zeros where nothing is drawn."""
    x = thumbnails.astype(np.float32)
    x -= x.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    return np.where(norm > _LEAST_NORM, x / np.maximum(norm, _LEAST_NORM), 0.0).astype(np.float32)


def is_empty(vectors: Float[np.ndarray, "n p"]) -> Bool[np.ndarray, "n"]:
    """Marks drawings that cannot be seen on white."""
    return ~vectors.any(axis=1)


def closest(
    vectors: Float[np.ndarray, "n p"], others: Float[np.ndarray, "m p"]
) -> Float[np.ndarray, "n"]:
    """Computes each drawing's highest correlation with the others, f32; -1 if there are none."""
    highest = np.full(len(vectors), -1.0, np.float32)
    for start in range(0, len(vectors), _BLOCK):
        block = slice(start, start + _BLOCK)
        for first in range(0, len(others), 16 * _BLOCK):
            product = vectors[block] @ others[first : first + 16 * _BLOCK].T
            highest[block] = np.maximum(highest[block], product.max(axis=1))
    return highest


def is_repeated(
    vectors: Float[np.ndarray, "n p"], groups: Sequence[Hashable]
) -> Bool[np.ndarray, "n"]:
    """Marks drawings that nearly equal an earlier, unmarked one of their group."""
    members: dict[Hashable, list[int]] = {}
    repeated = np.zeros(len(vectors), bool)
    for i, group in enumerate(groups):
        kept = members.setdefault(group, [])
        repeated[i] = bool(kept) and float((vectors[kept] @ vectors[i]).max()) > CORRELATION
        if not repeated[i]:
            kept.append(i)
    return repeated
