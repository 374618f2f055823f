"""What must be right on an accelerator."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np


def apart(ours: Any, theirs: Any) -> float:
    """The largest difference of two trees, each leaf's by the largest value of the leaf."""
    largest = 0.0
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        if a.shape != b.shape:
            raise ValueError(f"shapes {a.shape} and {b.shape} are compared")
        off = np.abs(a - b).max(initial=0) / max(np.abs(b).max(initial=0), 1e-30)
        largest = float(np.maximum(largest, off))  # NaN stays.
    return largest


def same_bits(a: Any, b: Any) -> bool:
    """Whether two trees of arrays are the same, bit by bit."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in pairs)
