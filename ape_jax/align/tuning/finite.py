"""Looks for weights that are not finite, before anything is computed with them."""

from __future__ import annotations

import ml_dtypes
import numpy as np
from jaxtyping import PyTree

from ape_jax.align.tuning import selection
from ape_jax.errors import UserError

# Exponents of 16-bit floats, which NumPy is slow with; one of ones alone is NaN or infinity.
_EXPONENTS = {np.dtype(ml_dtypes.bfloat16): 0x7F80, np.dtype(np.float16): 0x7C00}


def check_finite(spec: str, params: PyTree) -> None:
    """Checks that a tower's weights are finite.

    Args:
      spec: the tower's name, for messages.
      params: its parameters; shapes, as of a plan, are not looked at.

    Raises:
      UserError: naming the first leaf that holds NaN or infinity.
    """
    for name, leaf in selection.flatten(params).items():
        if not isinstance(leaf, np.ndarray) or _is_finite(leaf):
            continue
        bad = ~np.isfinite(leaf.astype(np.float32))
        raise UserError(
            f"{spec}: {int(bad.sum())} of {leaf.size} weights of {name!r} are not finite; "
            "the file is damaged, or was saved by a training that had diverged: take another one"
        )


def _is_finite(leaf: np.ndarray) -> bool:
    if (exponent := _EXPONENTS.get(leaf.dtype)) is not None:
        bits = leaf.view(np.uint16)
        return not bool(((bits & exponent) == exponent).any())
    if not np.issubdtype(leaf.dtype, np.floating):
        return True
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(leaf.sum()):  # NaN and infinity stay in a sum; it needs no second array.
            return True
    return bool(np.isfinite(leaf).all())
